{{/* Operations that give the containers of .list, those with the indexes in the variable .callers, the socket and the
environment variables. The container's own stay. */}}
{{- define "ebb.celCallers" -}}
{{- $list := .list }}
{{- $callers := .callers }}
{{- if eq .root.Values.sidecar.address "socket" -}}
variables.{{ $callers }}_mounting.filter(i, !has(object.spec.{{ $list }}[i].volumeMounts)).map(i, JSONPatch{
  op: "add",
  path: "/spec/{{ $list }}/" + string(i) + "/volumeMounts",
  value: []
}) +
variables.{{ $callers }}_mounting.map(i, JSONPatch{
  op: "add",
  path: "/spec/{{ $list }}/" + string(i) + "/volumeMounts/-",
  value: {{ include "ebb.cel" (dict "value" (set (include "ebb.appMount" .root | fromYaml) "mountPath" "cel:variables.socket_folder") "type" (printf "Object.spec.%s.volumeMounts" $list)) | nindent 2 | trim }}
}) +
{{ end -}}
variables.{{ $callers }}.filter(i, !has(object.spec.{{ $list }}[i].env)).map(i, JSONPatch{
  op: "add",
  path: "/spec/{{ $list }}/" + string(i) + "/env",
  value: []
})
{{- /* Each is inserted at the front, in reverse, which gives the original order. */}}
{{- range $variable := include "ebb.policyAppEnv" .root | fromYamlArray | reverse }} +
variables.{{ $callers }}.filter(i,
  !object.spec.{{ $list }}[i].?env.orValue([]).exists(e, e.name == {{ include "ebb.celString" $variable.name }})).map(i, JSONPatch{
  op: "add",
  path: "/spec/{{ $list }}/" + string(i) + "/env/0",
  value: {{ include "ebb.cel" (dict "value" $variable "type" (printf "Object.spec.%s.env" $list)) | nindent 2 | trim }}
})
{{- end }}
{{- end }}

{{/* The addresses of these additions, in the same order. */}}
{{- define "ebb.celCallersAdded" -}}
{{- $list := .list }}
{{- $callers := .callers }}
{{- if eq .root.Values.sidecar.address "socket" -}}
variables.{{ $callers }}_mounting.map(i, "/spec/{{ $list }}/" + object.spec.{{ $list }}[i].name + "/volumeMounts/" +
variables.mount_address) +
{{ end -}}
{{- range $index, $variable := include "ebb.policyAppEnv" .root | fromYamlArray | reverse }}
{{- if $index }} +
{{ end -}}
variables.{{ $callers }}.filter(i,
!object.spec.{{ $list }}[i].?env.orValue([]).exists(e, e.name == {{ include "ebb.celString" $variable.name }})).map(i,
"/spec/{{ $list }}/" + object.spec.{{ $list }}[i].name + {{ printf "/env/%s" $variable.name | include "ebb.celString" }})
{{- end }}
{{- end }}
