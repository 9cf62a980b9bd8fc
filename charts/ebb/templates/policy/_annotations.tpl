{{/* The annotations that the policy checks as `ebb inject` does; generated from the same table. */}}
{{- define "ebb.annotations" -}}
{{ tpl (.Files.Get "files/annotations.yaml") . }}
{{- end }}

{{/* Replaces `value` and `read` in a CEL .expression by the variables of the annotation .name. */}}
{{- define "ebb.celOf" -}}
{{- $variable := printf "variables.%s" (replace "-" "_" .name) }}
{{- regexReplaceAll "\\bread\\b" (regexReplaceAll "\\bvalue\\b" .expression $variable) (printf "%s_read" $variable) }}
{{- end }}

{{/* Whether the pod or its namespace has an annotation that the sidecar follows; no permission is needed for these. */}}
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
- name: is_trusted
  expression: >-
    namespaceObject.metadata.?labels[?"ebb-cache.io/trusted"].orValue("") == "true"
{{- $allowed := dict }}
{{- range $variable, $which := dict "annotations" "pods" "inherited" "namespaces" }}
{{- $_ := set $allowed $variable (include "ebb.allowedAnnotations" (dict "root" $ "which" $which) | fromJsonArray) }}
- name: trusted_{{ $variable }}
  expression: >-
    variables.is_trusted ? variables.{{ $variable }} : {}
{{- end }}
{{- $annotations := include "ebb.annotations" . | fromYaml }}
{{- range $name, $annotation := $annotations.injection }}
{{- $variable := replace "-" "_" $name }}
{{- $own := has $name $allowed.annotations | ternary "variables.annotations" "variables.trusted_annotations" }}
{{- $inherited := has $name $allowed.inherited | ternary "variables.inherited" "variables.trusted_inherited" }}
- name: {{ $variable }}
  expression: >-
    string({{ $own }}[?"config.ebb-cache.io/{{ $name }}"].or(
    {{ $inherited }}[?"config.ebb-cache.io/{{ $name }}"]).orValue(""))
- name: {{ $variable }}_is_own
  expression: >-
    "config.ebb-cache.io/{{ $name }}" in {{ $own }}
- name: {{ $variable }}_is_asked
  expression: >-
    variables.{{ $variable }}_is_own || "config.ebb-cache.io/{{ $name }}" in {{ $inherited }}
- name: {{ $variable }}_is_short
  expression: >-
    size(bytes(variables.{{ $variable }})) <= {{ int $annotations.valueBytes }}
{{- with $annotation.as }}
- name: {{ $variable }}_read
  expression: >-
    {{ include "ebb.celOf" (dict "name" $name "expression" .) }}
{{- end }}
- name: {{ $variable }}_fits
  expression: >-
    variables.{{ $variable }}_is_asked && variables.{{ $variable }}_is_short &&
    {{ include "ebb.celOf" (dict "name" $name "expression" $annotation.fits) }}
{{- end }}
- name: ports_asked
  expression: >-
    [{{ range $index, $name := list "data" "admin" "http" }}{{ if $index }}, {{ end }}{{ include "ebb.celAsked" (dict "name" (get $portAnnotations $name) "as" "int(value)" "default" (get $.Values.sidecar.ports $name | int)) }}{{ end }}]
- name: asks_for_data_port
  expression: >-
    {{ if include "ebb.hasSocketOnly" . }}variables.grpc_port_fits || variables.bind_address_fits{{ else }}true{{ end }}
- name: ports_differ
  expression: >-
    variables.asks_for_data_port
    ? size(variables.ports_asked.distinct()) == 3
    : variables.ports_asked[1] != variables.ports_asked[2]
{{- /* As an integer of bytes, so that the share is the same as that of `ebb inject`. */}}
{{- $most := "17592186044416.0" }}
- name: memory_of_applications
  expression: >-
    object.spec.containers.map(c,
    int([quantity(string(c.?resources.?limits[?"memory"].orValue("0"))).asApproximateFloat(), {{ $most }}].min())).sum()
- name: memory_of_all
  expression: >-
    variables.memory_of_applications > 0 ? variables.memory_of_applications :
    int([quantity(string(object.spec.?resources.?limits[?"memory"].orValue("0"))).asApproximateFloat(), {{ $most }}].min())
- name: memory_share_contradicts
  expression: >-
    variables.memory_share_fits && variables.memory_limit_fits &&
    variables.memory_share_is_own == variables.memory_limit_is_own
- name: memory_share_is_meant
  expression: >-
    variables.memory_share_fits && !variables.memory_share_contradicts &&
    (!variables.memory_limit_fits || variables.memory_share_is_own)
- name: wanted
  expression: >-
    {{ include "ebb.celAsked" (dict "name" "app-containers" "as" `value.split(",").map(name, name.trim())` "default" "[]") }}
- name: skipped
  expression: >-
    {{ include "ebb.celAsked" (dict "name" "skip-containers" "as" `value.split(",").map(name, name.trim())` "default" "[]") }}
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
