{{/* The annotations that the policy checks as `ebb inject` does; generated from the same table. */}}
{{- define "ebb.annotations" -}}
{{ tpl (.Files.Get "files/annotations.yaml") . }}
{{- end }}

{{/* A CEL expression of `value` and `read`, with the variables of an annotation for them. */}}
{{- define "ebb.celOf" -}}
{{- $variable := printf "variables.%s" (replace "-" "_" .name) }}
{{- regexReplaceAll "\\bread\\b" (regexReplaceAll "\\bvalue\\b" .expression $variable) (printf "%s_read" $variable) }}
{{- end }}

{{/* Whether an annotation is there, at the pod or its namespace. */}}
{{- define "ebb.celIsAsked" -}}
("config.ebb-cache.io/{{ . }}" in variables.annotations || "config.ebb-cache.io/{{ . }}" in variables.inherited)
{{- end }}

{{/* The variables of a policy that say what is asked for: memory_limit is the text of the annotation, memory_limit_read its
meaning, memory_limit_fits whether it counts. */}}
{{- define "ebb.policyVariables" -}}
- name: annotations
  expression: >-
    object.metadata.?annotations.orValue({})
- name: inherited
  expression: >-
    namespaceObject.metadata.?annotations.orValue({})
{{- $annotations := include "ebb.annotations" . | fromYaml }}
{{- range $name, $annotation := $annotations.injection }}
- name: {{ replace "-" "_" $name }}
  expression: >-
    string(variables.annotations[?"config.ebb-cache.io/{{ $name }}"].or(
    variables.inherited[?"config.ebb-cache.io/{{ $name }}"]).orValue(""))
- name: {{ replace "-" "_" $name }}_is_short
  expression: >-
    size(bytes(variables.{{ replace "-" "_" $name }})) <= {{ int $annotations.valueBytes }}
{{- with $annotation.as }}
- name: {{ replace "-" "_" $name }}_read
  expression: >-
    {{ include "ebb.celOf" (dict "name" $name "expression" .) }}
{{- end }}
- name: {{ replace "-" "_" $name }}_fits
  expression: >-
    {{ include "ebb.celIsAsked" $name }} && variables.{{ replace "-" "_" $name }}_is_short &&
    {{ include "ebb.celOf" (dict "name" $name "expression" $annotation.fits) }}
{{- end }}
{{- end }}

{{/* What an annotation says if it fits, or else .default; both as CEL. .as is a CEL expression of `value` and `read`. */}}
{{- define "ebb.celAsked" -}}
variables.{{ replace "-" "_" .name }}_fits ? {{ include "ebb.celOf" (dict "name" .name "expression" (.as | default "value")) }} : {{ .default }}
{{- end }}

{{/* The same, as the value of a field. */}}
{{- define "ebb.celOr" -}}
{{- printf "cel:%s" (include "ebb.celAsked" .) }}
{{- end }}

{{/* The most containers of a pod that gets a sidecar: the webhook has the same bound. */}}
{{- define "ebb.mostContainers" -}}500{{- end }}

{{/* Who injects, as the pod's annotation says it. */}}
{{- define "ebb.injectedBy" -}}
{{- printf "policy %s" (include "ebb.clusterName" .) }}
{{- end }}
