{{/* Nodes that run no sidecar, by labels that only they have: `value` there, if only that one counts, and `other` on all other
nodes. `ebb inject` has the same table. */}}
{{- define "ebb.nodes" -}}
windows:
  - {key: kubernetes.io/os, value: windows, other: linux}
  - {key: beta.kubernetes.io/os, value: windows, other: linux}
  - {key: node.kubernetes.io/windows-build}
virtual:
  - {key: type, value: virtual-kubelet}
{{- end }}

{{/* CEL: whether the pod may run on other nodes than those of a list of labels. A node fits one of the terms of an affinity,
and all requirements of that term. */}}
{{- define "ebb.celAvoids" -}}
{{- $terms := "object.spec.?affinity.?nodeAffinity.?requiredDuringSchedulingIgnoredDuringExecution.?nodeSelectorTerms.orValue([])" }}
{{- $selected := list }}
{{- $required := list }}
{{- range . }}
{{- $key := include "ebb.celString" .key }}
{{- if .value }}
{{- $value := include "ebb.celString" .value }}
{{- $selected = append $selected (printf `object.spec.?nodeSelector[?%s].orValue("") == %s` $key $value) }}
{{- $needs := printf `e.operator == "In" && e.?values.orValue([]).all(v, v == %s)` $value }}
{{- if .other }}
{{- $needs = printf `(%s || e.operator == "NotIn" && %s in e.?values.orValue([]))` $needs (include "ebb.celString" .other) }}
{{- end }}
{{- $required = append $required (printf `e.key == %s && %s` $key $needs) }}
{{- else }}
{{- $selected = append $selected (printf `%s in object.spec.?nodeSelector.orValue({})` $key) }}
{{- $required = append $required (printf `e.key == %s && e.operator in ["In", "Exists"]` $key) }}
{{- end }}
{{- end -}}
!({{ join " || " $selected }}) &&
(size({{ $terms }}) == 0 ||
{{ $terms }}.exists(t, !t.?matchExpressions.orValue([]).exists(e,
{{ join " ||\n" $required }})))
{{- end }}
