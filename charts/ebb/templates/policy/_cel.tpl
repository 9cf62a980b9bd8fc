{{/* A value as a CEL literal: .value of an object or a list, .type the CEL type at that place (Object.spec.volumes).
Strings that begin with "cel:" are expressions already. Quantities and labels are maps with free keys. All other values
have a type, because a CEL map may not mix types. */}}
{{- define "ebb.cel" -}}
{{- $type := .type }}
{{- if kindIs "map" .value }}
{{- $free := has (splitList "." $type | last) (list "limits" "requests" "labels" "annotations") }}
{{- if not $free }}{{ $type }}{{ end }}{
{{- $entries := list }}
{{- range $key, $value := .value }}
{{- $name := ternary (toJson $key) $key $free }}
{{- $entries = append $entries (printf "%s: %s" $name (include "ebb.cel" (dict "value" $value "type" (printf "%s.%s" $type $key)))) }}
{{- end }}
{{- printf "\n%s" (join ",\n" $entries) | indent 2 | trimPrefix "  " }}
}
{{- else if kindIs "slice" .value }}
{{- if .value }}[
{{- $entries := list }}
{{- range .value }}
{{- $entries = append $entries (include "ebb.cel" (dict "value" . "type" $type)) }}
{{- end }}
{{- printf "\n%s" (join ",\n" $entries) | indent 2 | trimPrefix "  " }}
]{{ else }}[]{{ end }}
{{- else if kindIs "string" .value }}
{{- if hasPrefix "cel:" .value }}{{ trimPrefix "cel:" .value }}{{ else }}{{ include "ebb.celString" .value }}{{ end }}
{{- else if kindIs "float64" .value }}
{{- int64 .value }}
{{- else }}
{{- .value }}
{{- end }}
{{- end }}

{{/* A CEL string. CEL has the escapes of JSON, except the three that Go adds for HTML. */}}
{{- define "ebb.celString" -}}
{{- toRawJson . }}
{{- end }}

{{/* The sidecar's resources depend on the pod. variables.limits and variables.requests are lists of name and amount. */}}
{{- define "ebb.celResources" -}}
Object.spec.initContainers.resources{
  limits: variables.limits.transformMapEntry(i, entry, {entry.name: entry.amount}),
  requests: variables.requests.transformMapEntry(i, entry, {entry.name: entry.amount})
}
{{- end }}
