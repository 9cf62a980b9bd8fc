{{/* Checks of validate.yaml that several values share. Each refuses values that the API server would refuse, or that would
silently have no effect. */}}

{{/* Refuses a request above its limit: .path of the resources, and .resources. */}}
{{- define "ebb.checkResources" -}}
{{- $path := .path }}
{{- $limits := .resources.limits | default dict }}
{{- range $name, $request := .resources.requests | default dict }}
{{- $limit := get $limits $name }}
{{- $less := include "ebb.scalar" $request }}
{{- $more := include "ebb.scalar" $limit }}
{{- if not (or (kindIs "invalid" $request) (kindIs "invalid" $limit) (eq $more "")) }}
{{- if gt (include "ebb.amount" $less | float64) (include "ebb.amount" $more | float64) }}
{{- fail (printf "%s.requests.%s: %s is more than %s.limits.%s (%s)." $path $name $less $path $name $more) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuses a rollout that may neither add nor remove a pod: .path of the strategy, and .strategy. A missing bound is 25%. */}}
{{- define "ebb.checkStrategy" -}}
{{- $rollout := .strategy.rollingUpdate | default dict }}
{{- $isZero := true }}
{{- range list "maxSurge" "maxUnavailable" }}
{{- $bound := get $rollout . | include "ebb.scalar" }}
{{- if not (regexMatch "^0+%?$" $bound) }}{{ $isZero = false }}{{ end }}
{{- end }}
{{- if $isZero }}
{{- fail (printf "%s.rollingUpdate: maxSurge and maxUnavailable must not both be 0, or no pod could ever be replaced." .path) }}
{{- end }}
{{- end }}

{{/* Refuses a name that occurs twice in a list of variables: .path and .variables. */}}
{{- define "ebb.checkVariables" -}}
{{- $path := .path }}
{{- $names := dict }}
{{- range .variables }}
{{- if hasKey $names .name }}
{{- fail (printf "%s: %s occurs twice; a variable has one value." $path .name) }}
{{- end }}
{{- $_ := set $names .name true }}
{{- end }}
{{- end }}

{{/* Refuses families of a Service that its policy excludes: .path and .service. */}}
{{- define "ebb.checkFamilies" -}}
{{- $policy := .service.ipFamilyPolicy | default "empty" }}
{{- if and (gt (len (.service.ipFamilies | default list)) 1) (not (hasSuffix "DualStack" $policy)) }}
{{- fail (printf "%s.ipFamilyPolicy: must be PreferDualStack or RequireDualStack for two %s.ipFamilies, not %s." .path .path $policy) }}
{{- end }}
{{- end }}

{{/* Paths of the values at .path, .value, that differ from .default, each followed by a space. A missing value is none. */}}
{{- define "ebb.changed" -}}
{{- $path := .path }}
{{- $default := .default }}
{{- if kindIs "map" .value }}
{{- range $key, $value := .value }}
{{- include "ebb.changed" (dict "path" (printf "%s.%s" $path $key) "value" $value "default" (get ($default | default dict) $key)) }}
{{- end }}
{{- else if not (or (kindIs "invalid" .value) (eq (toJson .value) (toJson $default))) }}
{{- $path }}{{ " " }}
{{- end }}
{{- end }}

{{/* Refuses values at .paths of .root other than their defaults, which have no effect because of .why; .remedy gives them one. */}}
{{- define "ebb.checkUnused" -}}
{{- $defaults := .root.Files.Get "files/defaults.yaml" | fromYaml }}
{{- $values := .root.Values }}
{{- $changed := "" }}
{{- range $path := .paths }}
{{- $value := $values }}
{{- $default := $defaults }}
{{- range splitList "." $path }}
{{- $value = get $value . }}
{{- $default = get $default . }}
{{- end }}
{{- /* A list that is null is missing, and get finds an empty text. */}}
{{- if not (and (kindIs "string" $value) (not $value)) }}
{{- $changed = cat $changed (include "ebb.changed" (dict "path" $path "value" $value "default" $default)) }}
{{- end }}
{{- end }}
{{- with splitList " " $changed | compact }}
{{- fail (printf "%s: without effect if %s. Keep the default, or %s." (join ", " .) $.why $.remedy) }}
{{- end }}
{{- end }}

{{/* The rule for all values that depend on a mode: the chart refuses a value without effect in the chosen mode, since it could
promise protection that does not exist. The rest of a section whose `enabled` is false may stay. */}}
{{- define "ebb.checkModes" -}}
{{- $injector := .Values.injector }}
{{- $unused := list }}
{{- if ne $injector.mode "webhook" }}
{{- $used := list "mode" "revision" }}
{{- if eq $injector.mode "policy" }}
{{- $used = concat $used (list "failurePolicy" "excludedNamespaces" "namespaceSelector" "objectSelector" "allowedAnnotations") }}
{{- end }}
{{- $paths := list "monitoring.injector.enabled" }}
{{- range $key := keys $injector | sortAlpha }}
{{- if not (has $key $used) }}{{ $paths = append $paths (printf "injector.%s" $key) }}{{ end }}
{{- end }}
{{- $unused = append $unused (list (printf "injector.mode is %s" $injector.mode) "choose another injector.mode" $paths) }}
{{- else }}
{{- $source := $injector.tls.source }}
{{- $paths := list }}
{{- range $path, $sources := dict
  "certificateLifetime" (list "self")
  "existingSecret" (list "secret")
  "caBundle" (list "secret")
  "paths" (list "cert-manager" "secret")
  "issuerRef" (list "cert-manager")
  "certificate" (list "cert-manager")
}}
{{- if not (has $source $sources) }}{{ $paths = append $paths (printf "injector.tls.%s" $path) }}{{ end }}
{{- end }}
{{- $unused = append $unused (list (printf "injector.tls.source is %s" $source) "choose another injector.tls.source" $paths) }}
{{- if not $injector.tls.issuerRef.name }}
{{- $unused = append $unused (list "injector.tls.issuerRef.name is empty" "name the issuer" (list "injector.tls.issuerRef.kind")) }}
{{- end }}
{{- if not (include "ebb.clientCA" .) }}
{{- $unused = append $unused (list "injector.clientCA.configMap and injector.clientCA.secret are empty" "name the CA of these certificates" (list "injector.clientCA.names" "injector.clientCA.key")) }}
{{- end }}
{{- if not $injector.serviceAccount.create }}
{{- $unused = append $unused (list "injector.serviceAccount.create is false" "annotate the account itself" (list "injector.serviceAccount.annotations")) }}
{{- end }}
{{- end }}
{{- if .Values.standalone.enabled }}
{{- $service := .Values.standalone.service }}
{{- if ne $service.type "LoadBalancer" }}
{{- $unused = append $unused (list (printf "standalone.service.type is %s" $service.type) "set standalone.service.type to LoadBalancer" (list "standalone.service.loadBalancerClass" "standalone.service.loadBalancerSourceRanges")) }}
{{- end }}
{{- if $service.headless }}
{{- $unused = append $unused (list "standalone.service.headless is true" "call the pods on 7070" (list "standalone.service.port")) }}
{{- end }}
{{- end }}
{{- range $unused }}
{{- include "ebb.checkUnused" (dict "root" $ "why" (index . 0) "remedy" (index . 1) "paths" (index . 2)) }}
{{- end }}
{{- end }}
