{{/* JSON patch operations that complete a container declared in the pod, as `ebb inject` does: missing fields, missing fields
of objects, and missing entries of lists with names. .value is the desired value, .type its CEL type, .there the CEL
expression of the declared value, .path that of its path. */}}
{{- define "ebb.celComplete" -}}
{{- $parts := list }}
{{- range $key, $value := omit .value "name" "resources" }}
{{- $field := trimPrefix "?" $key }}
{{- $here := printf "%s.%s" $.there $field }}
{{- $type := printf "%s.%s" $.type $field }}
{{- $path := printf "%s + %s" $.path (printf "/%s" $field | quote) }}
{{- $wanted := include "ebb.cel" (dict "value" $value "type" $type) }}
{{- $add := printf "[JSONPatch{op: \"add\", path: %s, value: %s}]" $path $wanted }}
{{- $more := "[]" }}
{{- $identity := get (dict "env" "name" "ports" "name" "volumeMounts" "mountPath") $field }}
{{- if hasPrefix "?" $key }}
{{- $add = printf "(%s).hasValue() ? [JSONPatch{op: \"add\", path: %s, value: (%s).value()}] : []" $wanted $path $wanted }}
{{- else if $identity }}
{{- $more = printf "(%s).filter(e, !%s.exists(o, o.%s == e.%s)).map(e, JSONPatch{op: \"add\", path: %s + \"/-\", value: e})" $wanted $here $identity $identity $path }}
{{- else if and (kindIs "map" $value) (not (hasSuffix "Probe" $field)) }}
{{- $more = include "ebb.celComplete" (dict "value" $value "type" $type "there" $here "path" $path) }}
{{- end }}
{{- $parts = append $parts (printf "(has(%s) ? %s : %s)" $here $more $add) }}
{{- end }}
{{- join " +\n" $parts }}
{{- end }}

{{/* The same for requests and limits, which are expressions. */}}
{{- define "ebb.celCompleteResources" -}}
{{- $parts := list }}
{{- $own := "variables.own.?resources" }}
{{- range $part := list "limits" "requests" }}
{{- $parts = append $parts (printf "(%s.?%s.hasValue() ? [] : [JSONPatch{op: \"add\", path: variables.place + \"/resources/%s\", value: {}}])" $own $part $part) }}
{{- range $resource := list "cpu" "memory" "ephemeral-storage" }}
{{- $parts = append $parts (printf "variables.%s.filter(entry, entry.name == %q && !%s.?%s[?%q].hasValue()).map(entry, JSONPatch{op: \"add\", path: variables.place + \"/resources/%s/%s\", value: entry.amount})" $part $resource $own $part $resource $part $resource) }}
{{- end }}
{{- end }}
{{- printf "(%s.hasValue() ? [] : [JSONPatch{op: \"add\", path: variables.place + \"/resources\", value: {}}]) +\n%s" $own (join " +\n" $parts) }}
{{- end }}
