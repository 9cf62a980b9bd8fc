{{/* The annotations that the policy checks as `ebb inject` does; generated from the same table. */}}
{{- define "ebb.annotations" -}}
{{ tpl (.Files.Get "files/annotations.yaml") . }}
{{- end }}

{{/* Replaces `value` and `read` in a CEL .expression by the variables of the annotation .name. */}}
{{- define "ebb.celOf" -}}
{{- $variable := printf "variables.%s" (replace "-" "_" .name) }}
{{- regexReplaceAll "\\bread\\b" (regexReplaceAll "\\bvalue\\b" .expression $variable) (printf "%s_read" $variable) }}
{{- end }}

{{/* Whether the pod or its namespace has an annotation. */}}
{{- define "ebb.celIsAsked" -}}
("config.ebb-cache.io/{{ . }}" in variables.annotations || "config.ebb-cache.io/{{ . }}" in variables.inherited)
{{- end }}

{{/* The policy's variables for each annotation: memory_limit is the text, memory_limit_read the parsed value,
memory_limit_fits whether it is valid. */}}
{{- define "ebb.policyVariables" -}}
{{- $portAnnotations := dict "data" "grpc-port" "admin" "admin-port" "http" "http-port" }}
- name: annotations
  expression: >-
    object.metadata.?annotations.orValue({})
- name: inherited
  expression: >-
    namespaceObject.metadata.?annotations.orValue({})
- name: containers
  expression: >-
    (object.spec.containers + object.spec.?initContainers.orValue([])).map(c, c.name).filter(name, name != "ebb")
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
- name: ports_asked
  expression: >-
    [{{ range $index, $name := list "data" "admin" "http" }}{{ if $index }}, {{ end }}{{ include "ebb.celAsked" (dict "name" (get $portAnnotations $name) "as" "int(value)" "default" (get $.Values.sidecar.ports $name | int)) }}{{ end }}]
- name: ports_differ
  expression: >-
    size(variables.ports_asked.distinct()) == 3
{{- end }}

{{/* The annotation's value if it is valid, else .default; both as CEL. .as is a CEL expression of `value` and `read`. */}}
{{- define "ebb.celAsked" -}}
variables.{{ replace "-" "_" .name }}_fits ? {{ include "ebb.celOf" (dict "name" .name "expression" (.as | default "value")) }} : {{ .default }}
{{- end }}

{{/* The same, as the value of a field. */}}
{{- define "ebb.celOr" -}}
{{- printf "cel:%s" (include "ebb.celAsked" .) }}
{{- end }}

{{/* Maximum number of containers of an injected pod; the webhook has the same bound. */}}
{{- define "ebb.mostContainers" -}}500{{- end }}

{{/* Value of the pod's annotation that names the injector. */}}
{{- define "ebb.injectedBy" -}}
{{- printf "policy %s" (include "ebb.clusterName" .) }}
{{- end }}
