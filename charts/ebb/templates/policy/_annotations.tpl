{{/* The annotations that the policy reads, as `ebb inject` does: .fits is a CEL expression of `value`, .must completes the
sentence "it must be". Where .as is set, it is a CEL expression of `value` too, and its result is `read` in .fits. */}}
{{- define "ebb.policyAnnotations" -}}
additional-env:
  fits: size(value.split(",")) <= 100 && value.split(",").all(pair, pair.trim().matches("(?s)^[A-Za-z_][A-Za-z0-9_]*=.*$"))
  must: NAME=value, at most 100 separated by commas
admin-port: &port
  fits: value.matches("^[0-9]{1,5}$") && int(value) >= 1024 && int(value) <= 65535
  must: 1024 to 65535
app-containers: &names
  fits: "true"
  must: names of containers, separated by commas
bind-address:
  fits: isIP(value)
  must: an IP address
config-map:
  fits: value.matches("^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$") && size(value) <= 253
  must: the name of a ConfigMap
cpu-limit: &quantity
  as: value.trim()
  fits: isQuantity(read) && quantity(read).isGreaterThan(quantity("0"))
  must: a quantity above 0, such as 100Mi or 250m
cpu-request: *quantity
gid: &id
  fits: value.matches("^[0-9]{1,10}$") && int(value) >= 1 && int(value) <= 2147483647
  must: 1 to 2147483647
grpc-port: *port
http-port: *port
image:
  fits: value.matches("^\\S+$")
  must: an image, without spaces
image-pull-policy:
  fits: value in ["Always", "IfNotPresent", "Never"]
  must: Always, IfNotPresent or Never
log-format:
  fits: value in ["text", "json"]
  must: text or json
memory-limit:
  as: &size >-
    value.trim().matches({{ include "ebb.sizePattern" . | include "ebb.celString" }}) ?
    value.trim().replace(" ", "").replace("B", "").replace("K", "k").replace("ki", "Ki") : ""
  fits: isQuantity(read) && !quantity(read).isLessThan(quantity("16Mi"))
  must: a quantity of at least 16Mi
memory-request:
  as: *size
  fits: isQuantity(read) && quantity(read).isGreaterThan(quantity("0"))
  must: a quantity above 0, such as 100Mi or 250m
metrics-enabled: &boolean
  fits: value in ["true", "false"]
  must: true or false
position:
  fits: value in ["first", "last"]
  must: first or last
readiness-gate: *boolean
skip-containers: *names
startup-timeout:
  as: >-
    value.trim().matches("^[0-9]{1,10}$") ? int(value.trim()) * 1000 :
    value.trim().matches({{ include "ebb.spanPattern" . | include "ebb.celString" }}) ?
    int([3600001.0, value.findAll("[0-9.]+ *[a-zµμ]+").map(part, double(part.find("[0-9.]+")) * {{ include "ebb.spanUnits" . }}[part.find("[a-zµμ]+")]).sum()].min() + 0.999999) : 0
  fits: read >= 1000 && read <= 3600000
  must: 1s to 1h; a number without a unit is in seconds
uid: *id
unix-socket-path:
  {{- if eq .Values.sidecar.address "socket" }}
  fits: >-
    value.matches("^(/[A-Za-z0-9_-][A-Za-z0-9._-]*){3,}$") && !value.startsWith("/etc/ebb/") && size(value) <= 100
  {{- else }}
  fits: "false"
  {{- end }}
  must: a path such as /run/ebb/ebb.sock, with two folders at least and 100 characters at most, in a pod that gets a socket
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
{{- range $name, $annotation := include "ebb.policyAnnotations" . | fromYaml }}
- name: {{ replace "-" "_" $name }}
  expression: >-
    string(variables.annotations[?"config.ebb-cache.io/{{ $name }}"].or(
    variables.inherited[?"config.ebb-cache.io/{{ $name }}"]).orValue(""))
- name: {{ replace "-" "_" $name }}_is_short
  expression: >-
    size(bytes(variables.{{ replace "-" "_" $name }})) <= {{ include "ebb.annotationBytes" . }}
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

{{/* The longest value of an annotation that is read, in bytes, and the most containers of a pod that gets a sidecar: the
webhook has the same bounds. */}}
{{- define "ebb.annotationBytes" -}}4096{{- end }}
{{- define "ebb.mostContainers" -}}500{{- end }}

{{/* Those that the sidecar itself follows, and says what is wrong with them. */}}
{{- define "ebb.followedAnnotations" -}}
[compaction, default-ttl, drift-ratio, eviction-aware, log-level, max-memory, memory-critical, memory-high, memory-low]
{{- end }}

{{/* Who injects, as the pod's annotation says it. */}}
{{- define "ebb.injectedBy" -}}
{{- printf "policy %s" (include "ebb.clusterName" .) }}
{{- end }}
