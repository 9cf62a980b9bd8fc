{{/* The sidecar as the policy injects it. Values that depend on annotations are CEL, marked with "cel:"; a field whose name
begins with "?" is optional. */}}
{{- define "ebb.policyContainer" -}}
{{- $container := include "ebb.sidecar" . | fromYaml }}
{{- range $field, $annotation := dict "image" "image" "imagePullPolicy" "image-pull-policy" }}
{{- $_ := set $container $field (include "ebb.celOr" (dict "name" $annotation "default" (get $container $field | include "ebb.celString"))) }}
{{- end }}
{{- $addresses := dict
  "EBB_LISTEN" (include "ebb.hasSocketOnly" . | empty | ternary `cel:variables.host + ":" + string(variables.port_data)` `cel:variables.has_data_port ? variables.host + ":" + string(variables.port_data) : "off"`)
  "EBB_ADMIN_LISTEN" `cel:"127.0.0.1:" + string(variables.port_admin)`
  "EBB_ADMIN_ADDR" `cel:"127.0.0.1:" + string(variables.port_admin)`
  "EBB_HTTP_LISTEN" (printf `cel:%s + string(variables.port_http)` (printf "%s:" .Values.sidecar.httpAddress | include "ebb.celString"))
  "EBB_SOCKET" "cel:variables.socket"
  "EBB_ADDR" "cel:variables.address"
}}
{{- range $container.env }}
{{- if hasKey $addresses .name }}
{{- $_ := set . "value" (get $addresses .name) }}
{{- else if eq .name "EBB_LOG_FORMAT" }}
{{- $_ := set . "value" (include "ebb.celOr" (dict "name" "log-format" "default" (include "ebb.celString" .value))) }}
{{- end }}
{{- end }}
{{- $_ := set (first $container.ports) "containerPort" "cel:variables.port_http" }}
{{- range $field, $annotation := dict "runAsUser" "uid" "runAsGroup" "gid" }}
{{- $id := get $container.securityContext $field }}
{{- if $id }}
{{- $_ := set $container.securityContext $field (include "ebb.celOr" (dict "name" $annotation "as" "int(value)" "default" (int64 $id))) }}
{{- else }}
{{- $_ := set $container.securityContext (printf "?%s" $field) (include "ebb.celOr" (dict "name" $annotation "as" "optional.of(int(value))" "default" "optional.none()")) }}
{{- end }}
{{- end }}
{{- $startup := $container.startupProbe }}
{{- $period := int ($startup.periodSeconds | default 10) }}
{{- $threshold := printf "(read + %d) / %d" (sub (mul $period 1000) 1) (mul $period 1000) }}
{{- $_ := set $startup "failureThreshold" (include "ebb.celOr" (dict "name" "startup-timeout" "as" $threshold "default" (int ($startup.failureThreshold | default 3)))) }}
{{- $own := $container.readinessProbe }}
{{- $probe := $own | default (dict "httpGet" (dict "path" "/readyz" "port" "ebb-http") "periodSeconds" 5) }}
{{- $there := printf "optional.of(%s)" (include "ebb.cel" (dict "value" $probe "type" "Object.spec.initContainers.readinessProbe")) }}
{{- $wanted := printf `(value == "true" ? %s : optional.none())` $there }}
{{- $container := omit $container "readinessProbe" }}
{{- $_ := set $container "?readinessProbe" (include "ebb.celOr" (dict "name" "readiness-gate" "as" $wanted "default" (ternary $there "optional.none()" (not (empty $own))))) }}
{{- range $container.volumeMounts }}
{{- if eq .name "ebb-socket" }}{{ $_ := set . "mountPath" "cel:variables.socket_folder" }}{{ end }}
{{- end }}
{{- $_ := set $container "env" (include "ebb.celEnvironment" $container.env | printf "cel:%s") }}
{{- $_ := set $container "resources" (printf "cel:%s" (include "ebb.celResources" .)) }}
{{- toYaml $container }}
{{- end }}

{{/* Environment variables as CEL. Those of the annotation override the chart's by name. */}}
{{- define "ebb.celEnvironment" -}}
{{- $type := "Object.spec.initContainers.env" }}
{{- $names := list }}
{{- range . }}{{ $names = append $names .name }}{{ end -}}
{{ include "ebb.cel" (dict "value" . "type" $type) }}.map(e, e.name in variables.more_names
  ? {{ $type }}{name: e.name, value: variables.more.filter(m, m.name == e.name)[0].value}
  : e) +
variables.more.filter(m, !(m.name in {{ toRawJson $names }})).map(m, {{ $type }}{name: m.name, value: m.value})
{{- end }}

{{/* Environment variables of an application container, with the address as CEL. */}}
{{- define "ebb.policyAppEnv" -}}
{{- $variables := include "ebb.appEnv" . | fromYamlArray }}
{{- $_ := set (first $variables) "value" "cel:variables.address" }}
{{- toYaml $variables }}
{{- end }}

{{/* The annotation that lists the additions to a pod: JSON with sorted keys, the same text as `ebb inject` writes. */}}
{{- define "ebb.celStatus" -}}
{{- include "ebb.celString" `{"added":["` }} + variables.added.join("\",\"") + {{ include "ebb.celString" `"],"version":"` }} + variables.version + {{ include "ebb.celString" `"}` }}
{{- end }}
