{{/* A value as a CEL literal: .value of an object or a list, .type the CEL type at that place (Object.spec.volumes).
Strings that begin with "cel:" are expressions already. Quantities and labels are maps with free keys, all else has a
type, because a CEL map may not mix kinds of values. */}}
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

{{/* JSON's escapes are CEL's too, but for the three that Go adds for HTML. */}}
{{- define "ebb.celString" -}}
{{- toRawJson . }}
{{- end }}

{{/* The sidecar's resources depend on the pod. What a total of its own (spec.resources) covers was asked for already; a
Guaranteed pod stays so; every other gets what annotations and values say. */}}
{{- define "ebb.celResources" -}}
variables.guaranteed && !variables.covers_cpu && !variables.covers_memory
  ? Object.spec.initContainers.resources{
      limits: {"cpu": variables.guaranteed_cpu, "memory": variables.memory},
      requests: {"cpu": variables.guaranteed_cpu, "memory": variables.memory}
    }
  : Object.spec.initContainers.resources{
      limits: variables.limits_cpu && !variables.covers_cpu
        ? {"cpu": variables.cpu_most, "memory": variables.memory}
        : {"memory": variables.memory},
      requests: {
        "cpu": variables.covers_cpu ? "0" : variables.cpu,
        "memory": variables.covers_memory ? "0" : variables.memory_asked
      }
    }
{{- end }}
