{{/* Completes .Values. Each template calls it first. Helm removes a key that a user sets to null, also a whole section, and
`.Values.injector.tls.source` would then end the render with a nil pointer. A missing key gets its default here, except that
lists stay empty and IDs stay absent. Maps of Kubernetes and of Ebb are the user's as a whole. The templates of a chart share
.Values, so the first call completes them for all. */}}
{{- define "ebb.complete" -}}
{{- if not .Values._isComplete }}
{{- include "ebb.fill" (dict "values" .Values "defaults" (.Files.Get "files/defaults.yaml" | fromYaml)) }}
{{- $_ := set .Values "_isComplete" true }}
{{- end }}
{{- end }}

{{- define "ebb.fill" -}}
{{- $values := .values }}
{{- range $key, $default := .defaults }}
{{- $given := hasKey $values $key | ternary (get $values $key) nil }}
{{- if kindIs "invalid" $given }}
{{- if not (or (kindIs "slice" $default) (has $key (list "runAsUser" "runAsGroup"))) }}
{{- $_ := set $values $key (deepCopy $default) }}
{{- end }}
{{- else if and (kindIs "map" $default) (not (has $key (list "resources" "config" "static" "labels"))) }}
{{- include "ebb.fill" (dict "values" $given "defaults" $default) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ebb.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* A name of at most .most characters without dots. A hash replaces what is lost, so that two names stay two; with .hashed, it
is that of this text, always. */}}
{{- define "ebb.short" -}}
{{- $plain := replace "." "-" .name }}
{{- if and (eq $plain .name) (le (len $plain) .most) (not .hashed) }}
{{- $plain }}
{{- else }}
{{- printf "%s-%s" ($plain | trunc (sub .most 9 | int) | trimSuffix "-") (.hashed | default .name | sha256sum | trunc 8) }}
{{- end }}
{{- end }}

{{/* Whether a begin of names could be that of another release with its component: `ebb-injector` is the name of the injector of
the release `ebb`, and `ebb-injector-a` that of its revision `a`. */}}
{{- define "ebb.isAmbiguous" -}}
{{- if regexMatch "-(injector|sidecar|test-check|test-injection)(-|$)" . }}true{{ end }}
{{- end }}

{{/* Begin of the names of the release's objects. A Service's name has at most 63 characters, and no dots, which the name of a
release may have. Two releases never have the same one: a name that another release could also give has a hash. */}}
{{- define "ebb.fullname" -}}
{{- $name := include "ebb.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $whole := .Release.Name }}
{{- $isAmbiguous := false }}
{{- if contains $name $whole }}
{{- /* The release `cache` gives `cache-ebb`, too. */}}
{{- $begin := trimSuffix (printf "-%s" $name) $whole }}
{{- $isAmbiguous = and (ne $begin $whole) (not (contains $name $begin)) }}
{{- else }}
{{- $whole = printf "%s-%s" $whole $name }}
{{- end }}
{{- if include "ebb.isAmbiguous" (replace "." "-" $whole) }}{{ $isAmbiguous = true }}{{ end }}
{{- include "ebb.short" (dict "name" $whole "most" 50 "hashed" (ternary (printf "release %s" .Release.Name) "" $isAmbiguous)) }}
{{- end }}
{{- end }}

{{/* The injector's revision; empty for the default one. */}}
{{- define "ebb.revision" -}}
{{- if ne .Values.injector.revision "default" }}{{ .Values.injector.revision }}{{ end }}
{{- end }}

{{/* Values of the label ebb-cache.io/rev that select this revision, as JSON. Pods and namespaces without the label, too,
select the default one. */}}
{{- define "ebb.revisionValues" -}}
{{- with include "ebb.revision" . }}{{ list . | toJson }}{{ else }}{{ list "" "default" | toJson }}{{ end }}
{{- end }}

{{/* Name of an object of the injector: .name, and the revision. */}}
{{- define "ebb.revisionedName" -}}
{{- $revision := include "ebb.revision" .root }}
{{- .name }}{{ if $revision }}-{{ $revision }}{{ end }}
{{- end }}

{{/* Name of cluster-scoped objects. It includes namespace, release and revision, since releases in different namespaces may
share a name, and so may releases with the same override. */}}
{{- define "ebb.clusterName" -}}
{{- $name := include "ebb.fullname" . }}
{{- $revision := include "ebb.revision" . }}
{{- if not (contains .Release.Name $name) }}
{{- /* Without a revision it could be the name of a release with one. */}}
{{- $name = printf "%s.%s" .Release.Name $name }}
{{- $revision = $revision | default "default" }}
{{- end }}
{{- with $revision }}{{ $name = printf "%s.%s" $name . }}{{ end }}
{{- printf "%s.%s.ebb-cache.io" $name .Release.Namespace }}
{{- end }}

{{/* One map of a list of maps; a later one overrides an earlier one. No key is rendered twice. Empty for no keys. */}}
{{- define "ebb.merged" -}}
{{- $merged := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- $_ := set $merged $key $value }}
{{- end }}
{{- end }}
{{- if $merged }}{{ toYaml $merged }}{{ end }}
{{- end }}

{{/* One list of environment variables of a list of lists; a later variable overrides an earlier one of its name, in its place.
Server-side apply refuses a name that occurs twice. */}}
{{- define "ebb.variables" -}}
{{- $names := list }}
{{- $variables := dict }}
{{- range . }}
{{- range . }}
{{- if not (hasKey $variables .name) }}{{ $names = append $names .name }}{{ end }}
{{- $_ := set $variables .name . }}
{{- end }}
{{- end }}
{{- range $names }}
- {{ get $variables . | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}

{{/* Pull secrets of the chart's own pods. Each is a name or an object with a name, as in other charts. */}}
{{- define "ebb.pullSecrets" -}}
{{- $secrets := list }}
{{- range . }}
{{- $secrets = append $secrets (kindIs "map" . | ternary . (dict "name" .)) }}
{{- end }}
{{- if $secrets }}{{ $secrets | uniq | toYaml }}{{ end }}
{{- end }}

{{/* The names of pull secrets as a CEL list; empty if there are none. */}}
{{- define "ebb.pullSecretNames" -}}
{{- $names := list }}
{{- range include "ebb.pullSecrets" . | fromYamlArray }}{{ $names = append $names .name }}{{ end }}
{{- if $names }}{{ toRawJson $names }}{{ end }}
{{- end }}

{{/* Annotations of the pods of one component: .own, and those for a Prometheus without its operator, with the .port of the
metrics. .own takes precedence. */}}
{{- define "ebb.podAnnotations" -}}
{{- $scrape := dict }}
{{- if .root.Values.monitoring.annotations.enabled }}
{{- $scrape = dict "prometheus.io/scrape" "true" "prometheus.io/port" (int .port | toString) "prometheus.io/path" "/metrics" }}
{{- end }}
{{- include "ebb.merged" (list $scrape .own) }}
{{- end }}

{{- define "ebb.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ebb.name" . | toYaml }}
app.kubernetes.io/instance: {{ toYaml .Release.Name }}
{{- end }}

{{/* Labels of an object or a pod of .component. `commonLabels` override the chart's, and .labels override both; .fixed labels
and those that selectors match stay; `ebb check` selects by part-of. */}}
{{- define "ebb.labels" -}}
{{- $chart := dict
  "app.kubernetes.io/version" (.root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | trimAll "._-")
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
}}
{{- $matched := include "ebb.selectorLabels" .root | fromYaml }}
{{- include "ebb.merged" (list $chart .root.Values.commonLabels .labels .fixed $matched (dict "app.kubernetes.io/component" .component "app.kubernetes.io/part-of" "ebb")) }}
{{- end }}

{{/* Metadata of an object of .component of .root: its .name, .labels and .annotations in addition to the common ones,
.namespace unless it is the release's own, and .cluster for a cluster-scoped object. */}}
{{- define "ebb.metadata" -}}
name: {{ toYaml .name }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace | toYaml }}
{{- end }}
labels:
  {{- include "ebb.labels" . | nindent 2 }}
{{- with include "ebb.merged" (list .root.Values.commonAnnotations .annotations) }}
annotations:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A HorizontalPodAutoscaler of the Deployment .name of .component of .root, by .autoscaling. */}}
{{- define "ebb.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "ebb.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ .name }}
  minReplicas: {{ int .autoscaling.minReplicas }}
  maxReplicas: {{ int .autoscaling.maxReplicas }}
  metrics:
    - type: ContainerResource
      containerResource:
        container: {{ .container }}
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ int .autoscaling.targetCPUUtilizationPercentage }}
{{- end }}

{{- define "ebb.image" -}}
{{- include "ebb.imageOf" (dict "root" . "image" .Values.image) }}
{{- end }}

{{/* Image reference of .image; .root provides the defaults. */}}
{{- define "ebb.imageOf" -}}
{{- $registry := .image.registry | default .root.Values.global.imageRegistry }}
{{- $repository := .image.repository }}
{{- if $registry }}{{ $repository = printf "%s/%s" $registry $repository }}{{ end }}
{{- if .image.digest }}
{{- printf "%s@%s" $repository .image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (.image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The sidecar's image, as JSON: `sidecar.image` overrides `image`; tag and digest are overridden together. */}}
{{- define "ebb.sidecarImage" -}}
{{- $own := .Values.sidecar.image | default dict }}
{{- $image := deepCopy .Values.image }}
{{- if or $own.tag $own.digest }}{{ $image = omit $image "tag" "digest" }}{{ end }}
{{- range $key, $value := $own }}
{{- if $value }}{{ $_ := set $image $key $value }}{{ end }}
{{- end }}
{{- toJson $image }}
{{- end }}

{{/* Ebb's version in injected pods. */}}
{{- define "ebb.sidecarVersion" -}}
{{- (include "ebb.sidecarImage" . | fromJson).tag | default .Chart.AppVersion }}
{{- end }}

{{/* A text as the value of a label: its first part that is one. The injector does the same. */}}
{{- define "ebb.labelText" -}}
{{- trunc 63 . | regexFind "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?" | default "unknown" }}
{{- end }}

{{/* Settings as environment variables: watermarks.low is EBB_WATERMARKS_LOW. */}}
{{- define "ebb.settings" -}}
{{- $prefix := .prefix }}
{{- range $key, $value := .settings }}
{{- $name := printf "%s_%s" $prefix (snakecase $key | upper) }}
{{- if kindIs "map" $value }}
{{- include "ebb.settings" (dict "settings" $value "prefix" $name) }}
{{- else }}
- name: {{ $name }}
  value: {{ include "ebb.scalar" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* A number without an exponent: Helm reads numbers of a values file as floats, and would print 1e+06. */}}
{{- define "ebb.scalar" -}}
{{- if not (kindIs "float64" .) }}{{ . }}
{{- else if eq (floor .) . }}{{ int64 . }}
{{- else }}{{ . }}{{ end }}
{{- end }}

{{/* A Kubernetes quantity as a number. */}}
{{- define "ebb.amount" -}}
{{- $units := dict "" 1.0 "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 }}
{{- $unit := regexFind "[a-zA-Z]*$" . }}
{{- if regexMatch "[eE][+-]?[0-9]+$" . }}{{ float64 . }}
{{- else }}{{ mulf (trimSuffix $unit . | float64) (get $units $unit) }}{{ end }}
{{- end }}

{{/* A size in Ebb's syntax as a quantity: 64M for 64MB. */}}
{{- define "ebb.quantity" -}}
{{- . | trim | replace " " "" | replace "B" "" | replace "K" "k" | replace "ki" "Ki" }}
{{- end }}

{{/* Refuses an amount out of its bounds: .path and .text of the value, and the .bound from files/bounds.yaml. */}}
{{- define "ebb.checkAmount" -}}
{{- $bound := .bound }}
{{- $isSize := eq $bound.unit "bytes" }}
{{- $quantity := ternary (include "ebb.quantity" .text) .text $isSize }}
{{- $amount := include (ternary "ebb.amount" "ebb.milliseconds" $isSize) $quantity | float64 }}
{{- $isZero := and $bound.zero (eq $amount 0.0) }}
{{- /* A fraction that a float cannot hold may lie beyond the maximum. Short ones of binary units are exact. */}}
{{- $isInexact := and (regexMatch "[.][0-9]*[1-9]|[num]$|ns|us|µs|μs|[eE]-" $quantity) (not (regexMatch "^[+]?[0-9]*[.][0-9]{1,3}[KMGTPE]i$" $quantity)) }}
{{- $isOver := or (gt $amount (float64 $bound.max)) (and $isInexact (eq $amount (float64 $bound.max))) }}
{{- if and (not $isZero) (or $isOver (lt (ceil $amount) (float64 $bound.min))) }}
{{- fail (printf "%s: %s is out of range (%s)." .path .text $bound.range) }}
{{- end }}
{{- end }}

{{/* A duration in Ebb's syntax, in milliseconds. */}}
{{- define "ebb.milliseconds" -}}
{{- $units := include "ebb.spanUnits" . | fromJson }}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9.]+ *[a-zµμ]+" . -1 }}
{{- $sum = addf $sum (mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[a-zµμ]+" .))) }}
{{- end }}
{{- $sum }}
{{- end }}

{{/* Durations and sizes that Ebb's parser accepts; values.schema.json has the same patterns. */}}
{{- define "ebb.spanPattern" -}}
^[+]?(([0-9]{1,30}[.]?[0-9]{0,18}|[.][0-9]{1,18}) *(ns|us|µs|μs|ms|s|m|h|d|w) *)+$
{{- end }}
{{- define "ebb.sizePattern" -}}
^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+) *([KMGTPE]iB?|[kKMGTPE]B|[numkMGTPEB]|[eE][+-]?[0-9]+)?$
{{- end }}
{{- define "ebb.spanUnits" -}}
{"ns": 0.000001, "us": 0.001, "µs": 0.001, "μs": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0, "h": 3600000.0, "d": 86400000.0, "w": 604800000.0}
{{- end }}

{{- define "ebb.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop:
    - ALL
privileged: false
readOnlyRootFilesystem: true
{{- if not (kindIs "invalid" .runAsGroup) }}
runAsGroup: {{ int64 .runAsGroup }}
{{- end }}
runAsNonRoot: true
{{- if not (kindIs "invalid" .runAsUser) }}
runAsUser: {{ int64 .runAsUser }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Spreads the pods that .selector selects: over nodes by .how, and over zones if possible. A hard rule for zones would
leave pods unschedulable in a cluster without zone labels. */}}
{{- define "ebb.topologySpread" -}}
{{- range list (list "topology.kubernetes.io/zone" "ScheduleAnyway") (list "kubernetes.io/hostname" .how) }}
- maxSkew: 1
  topologyKey: {{ first . }}
  whenUnsatisfiable: {{ last . }}
  labelSelector:
    matchLabels:
      {{- $.selector | nindent 6 }}
  matchLabelKeys:
    - pod-template-hash
{{- end }}
{{- end }}

{{/* The volume at /etc/ebb. .configMap is the ConfigMap's name, .optional whether it may be missing. */}}
{{- define "ebb.configVolume" -}}
name: ebb-config
projected:
  defaultMode: 292
  sources:
    - downwardAPI:
        items:
          - path: annotations
            fieldRef:
              apiVersion: v1
              fieldPath: metadata.annotations
          - path: memory-limit
            resourceFieldRef:
              containerName: ebb
              divisor: "1"
              resource: limits.memory
          - path: memory-request
            resourceFieldRef:
              containerName: ebb
              divisor: "1"
              resource: requests.memory
    - configMap:
        name: {{ .configMap | quote }}
        optional: {{ .optional }}
{{- end }}

{{- define "ebb.socketVolume" -}}
name: ebb-socket
emptyDir:
  medium: Memory
  sizeLimit: 1Mi
{{- end }}

{{/* The address that applications connect to. For an unspecified listen address this is the loopback address of IPv4: every
pod has it, and a listener of `[::]` serves both families. */}}
{{- define "ebb.address" -}}
{{- if eq .Values.sidecar.address "socket" }}unix:/run/ebb/ebb.sock
{{- else }}
{{- $near := dict "0.0.0.0" "127.0.0.1" "[::]" "127.0.0.1" }}
{{- $address := .Values.sidecar.bindAddress }}
{{- printf "%s:%d" (get $near $address | default $address) (int .Values.sidecar.ports.data) }}
{{- end }}
{{- end }}

{{/* Whether sidecars have only a socket: no data port, so an application may use its number. Another listen address than the
default asks for the port. */}}
{{- define "ebb.hasSocketOnly" -}}
{{- if and (eq .Values.sidecar.address "socket") (eq .Values.sidecar.bindAddress "127.0.0.1") }}true{{ end }}
{{- end }}

{{/* Namespaces without injection, as a JSON list. */}}
{{- define "ebb.excludedNamespaces" -}}
{{- append (.Values.injector.excludedNamespaces | default list) .Release.Namespace | uniq | toJson }}
{{- end }}

{{/* Namespace of the pod by which `helm test` checks injection; empty if there is no such test. The policy injects this pod
even in the release's own namespace; the webhook cannot. */}}
{{- define "ebb.testNamespace" -}}
{{- if eq .Values.injector.mode "policy" }}
{{- .Release.Namespace }}
{{- else if and (eq .Values.injector.mode "webhook") (not (has .Values.tests.namespace (include "ebb.excludedNamespaces" . | fromJsonArray))) }}
{{- .Values.tests.namespace }}
{{- end }}
{{- end }}

{{/* Environment variables for Events about the cache's pod. The account also needs the right to create them. */}}
{{- define "ebb.eventsEnv" -}}
- name: EBB_POD_EVENTS
  value: "true"
{{- range list (list "EBB_POD_NAME" "metadata.name") (list "EBB_POD_NAMESPACE" "metadata.namespace") (list "EBB_POD_UID" "metadata.uid") }}
- name: {{ first . }}
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: {{ last . }}
{{- end }}
{{- end }}

{{/* Environment variables of the sidecar, without those of `sidecar.extraEnv`. The configuration is a variable instead of a
flag, so that `ebb config print` in this container reads the same one. */}}
{{- define "ebb.sidecarEnv" -}}
{{- $sidecar := .Values.sidecar }}
- name: EBB_CONFIG
  value: /etc/ebb
- name: EBB_LISTEN
  value: {{ eq (include "ebb.hasSocketOnly" .) "true" | ternary "off" (printf "%s:%d" $sidecar.bindAddress (int $sidecar.ports.data)) | quote }}
- name: EBB_ADMIN_LISTEN
  value: {{ printf "127.0.0.1:%d" (int $sidecar.ports.admin) | quote }}
- name: EBB_ADMIN_ADDR
  value: {{ printf "127.0.0.1:%d" (int $sidecar.ports.admin) | quote }}
- name: EBB_HTTP_LISTEN
  value: {{ printf "%s:%d" $sidecar.httpAddress (int $sidecar.ports.http) | quote }}
{{- if eq $sidecar.address "socket" }}
- name: EBB_SOCKET
  value: /run/ebb/ebb.sock
{{- end }}
- name: EBB_ADDR
  value: {{ include "ebb.address" . | quote }}
{{- if $sidecar.events }}
{{ include "ebb.eventsEnv" . }}
{{- end }}
{{- include "ebb.settings" (dict "settings" (merge (deepCopy $sidecar.static) (dict "logFormat" "json")) "prefix" "EBB") }}
{{- include "ebb.settings" (dict "settings" $sidecar.config "prefix" "EBB") }}
{{- end }}

{{/* Environment variables of the shared cache, without those of `standalone.extraEnv`. */}}
{{- define "ebb.standaloneEnv" -}}
{{- $standalone := .Values.standalone }}
- name: EBB_CONFIG
  value: /etc/ebb
- name: EBB_LISTEN
  value: {{ printf "%s:7070" $standalone.listenAddress | quote }}
- name: EBB_HTTP_LISTEN
  value: {{ printf "%s:7072" $standalone.listenAddress | quote }}
{{- if $standalone.events }}
{{ include "ebb.eventsEnv" . }}
{{- end }}
{{- include "ebb.settings" (dict "settings" (merge (deepCopy $standalone.static) (dict "logFormat" "json")) "prefix" "EBB") }}
{{- end }}

{{/* The container spec of the sidecar. All modes render it from here. */}}
{{- define "ebb.sidecar" -}}
{{- $sidecar := .Values.sidecar }}
{{- $image := include "ebb.sidecarImage" . | fromJson }}
name: ebb
image: {{ include "ebb.imageOf" (dict "root" . "image" $image) | toYaml }}
imagePullPolicy: {{ $image.pullPolicy }}
restartPolicy: Always
args:
  - serve
env:
  {{- include "ebb.variables" (list (include "ebb.sidecarEnv" . | fromYamlArray) $sidecar.extraEnv) | trim | nindent 2 }}
ports:
  - name: ebb-http
    containerPort: {{ int $sidecar.ports.http }}
    protocol: TCP
resources:
  {{- toYaml $sidecar.resources | nindent 2 }}
resizePolicy:
  - resourceName: cpu
    restartPolicy: NotRequired
  - resourceName: memory
    restartPolicy: NotRequired
startupProbe:
  httpGet:
    path: /readyz
    port: ebb-http
  {{- toYaml $sidecar.startupProbe | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: ebb-http
  {{- toYaml $sidecar.livenessProbe | nindent 2 }}
{{- with $sidecar.readinessProbe }}
readinessProbe:
  httpGet:
    path: /readyz
    port: ebb-http
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- mergeOverwrite (include "ebb.securityContext" $sidecar | fromYaml) ($sidecar.securityContext | default dict) | toYaml | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - name: ebb-config
    mountPath: /etc/ebb
    readOnly: true
  {{- if not $sidecar.events }}
  # The API server mounts the token of the pod's account only where nothing else is mounted.
  - name: ebb-config
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  {{- end }}
  {{- if eq $sidecar.address "socket" }}
  - name: ebb-socket
    mountPath: /run/ebb
  {{- end }}
{{- end }}

{{/* Names of the sidecar's variables, as a list in CEL: additional-env must not change them. */}}
{{- define "ebb.sidecarVariables" -}}
{{- $names := list }}
{{- range (include "ebb.sidecar" . | fromYaml).env }}{{ $names = append $names .name }}{{ end }}
{{- toRawJson $names }}
{{- end }}

{{/* The annotations that .which (namespaces or pods) of .root may set without the label ebb-cache.io/trusted, as JSON. */}}
{{- define "ebb.allowedAnnotations" -}}
{{- get .root.Values.injector.allowedAnnotations .which | default list | toJson }}
{{- end }}

{{/* Environment variables and mount of an application container. */}}
{{- define "ebb.appEnv" -}}
- name: EBB_ADDR
  value: {{ include "ebb.address" . | quote }}
{{- with .Values.sidecar.appEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ebb.appMount" -}}
name: ebb-socket
mountPath: /run/ebb
readOnly: true
{{- end }}

{{/* The PodTemplate that the webhook and `ebb inject` apply to pods: the sidecar and one application. */}}
{{- define "ebb.podTemplate" -}}
apiVersion: v1
kind: PodTemplate
metadata:
  {{- include "ebb.metadata" (dict "root" . "name" (include "ebb.revisionedName" (dict "root" . "name" (printf "%s-sidecar" (include "ebb.fullname" .)))) "component" "example" "fixed" (include "ebb.revisionLabel" . | fromYaml)) | nindent 2 }}
template:
  metadata:
    labels:
      ebb-cache.io/injected: "true"
      {{- with include "ebb.revisionLabel" . }}
      {{- . | nindent 6 }}
      {{- end }}
      ebb-cache.io/version: {{ include "ebb.sidecarVersion" . | include "ebb.labelText" | quote }}
    annotations:
      {{- $port := int .Values.sidecar.ports.data }}
      {{- if and (include "ebb.hasSocketOnly" .) (ne $port 7070) }}
      # The sidecar has no data port. In a pod whose annotation opens it, it is this one.
      ebb-cache.io/data-port: {{ $port | quote }}
      {{- end }}
      ebb-cache.io/version: {{ include "ebb.sidecarVersion" . | quote }}
  spec:
    {{- if and (eq .Values.sidecar.address "socket") (not (kindIs "invalid" .Values.sidecar.runAsGroup)) }}
    securityContext:
      supplementalGroups:
        - {{ int64 .Values.sidecar.runAsGroup }}
    {{- end }}
    {{- with include "ebb.pullSecrets" .Values.sidecar.imagePullSecrets }}
    imagePullSecrets:
      {{- . | nindent 6 }}
    {{- end }}
    initContainers:
      - {{ include "ebb.sidecar" . | nindent 8 | trim }}
    containers:
      - name: app
        image: app
        env:
          {{- include "ebb.appEnv" . | nindent 10 }}
        {{- if eq .Values.sidecar.address "socket" }}
        volumeMounts:
          - {{ include "ebb.appMount" . | nindent 12 | trim }}
        {{- end }}
    volumes:
      - {{ include "ebb.configVolume" (dict "configMap" .Values.sidecar.configMapName "optional" true) | nindent 8 | trim }}
      {{- if eq .Values.sidecar.address "socket" }}
      - {{ include "ebb.socketVolume" . | nindent 8 | trim }}
      {{- end }}
{{- end }}

{{/* The injector's ServiceAccount. */}}
{{- define "ebb.injectorAccount" -}}
{{- .Values.injector.serviceAccount.name | default (include "ebb.injector" .) }}
{{- end }}

{{/* Minimum number of replicas of .injector or .standalone. */}}
{{- define "ebb.leastReplicas" -}}
{{- .autoscaling.enabled | ternary .autoscaling.minReplicas .replicas | int }}
{{- end }}

{{/* IP families of a Service. */}}
{{- define "ebb.serviceFamilies" -}}
{{- with .ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Whether monitors and rules are rendered: the cluster has their kinds, or a value says so, as for a render without a
cluster. */}}
{{- define "ebb.hasMonitors" -}}
{{- if or .Values.monitoring.force (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}true{{ end }}
{{- end }}

{{/* The endpoint of a monitor: .port of the metrics, and .monitor with its values. */}}
{{- define "ebb.endpoint" -}}
port: {{ .port }}
path: /metrics
interval: {{ .monitor.interval }}
{{- with .monitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .monitor.relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Name of the injector's objects. Names of Services have at most 63 characters, and the common name of a certificate 64. */}}
{{- define "ebb.injector" -}}
{{- $name := printf "%s-injector" (include "ebb.fullname" .) }}
{{- include "ebb.short" (dict "name" (include "ebb.revisionedName" (dict "root" . "name" $name)) "most" 59) }}
{{- end }}

{{/* The label of the injector's revision; empty for the default one. */}}
{{- define "ebb.revisionLabel" -}}
{{- with include "ebb.revision" . }}ebb-cache.io/rev: {{ quote . }}{{ end }}
{{- end }}

{{/* Labels by which objects select the injector's pods. */}}
{{- define "ebb.injectorSelector" -}}
{{ include "ebb.selectorLabels" . }}
app.kubernetes.io/component: injector
{{- with include "ebb.revisionLabel" . }}
{{ . }}
{{- end }}
{{- end }}

{{- define "ebb.injectorSecret" -}}
{{- if eq .Values.injector.tls.source "secret" }}{{ .Values.injector.tls.existingSecret }}{{ else }}{{ include "ebb.injector" . }}-tls{{ end }}
{{- end }}

{{/* The volume source with the CA of the API servers' client certificates; empty if reviews need none. */}}
{{- define "ebb.clientCA" -}}
{{- $ca := .Values.injector.clientCA }}
{{- if $ca.configMap }}
configMap:
  name: {{ $ca.configMap }}
{{- else if $ca.secret }}
secret:
  secretName: {{ $ca.secret }}
  items:
    - key: {{ $ca.key }}
      path: {{ $ca.key }}
{{- end }}
{{- end }}

{{/* Whether the injector needs a leader, for rotating its own certificates and for evictions. */}}
{{- define "ebb.hasLeader" -}}
{{- if and (eq .Values.injector.mode "webhook") (or (eq .Values.injector.tls.source "self") .Values.injector.watchdog.enabled) }}true{{ end }}
{{- end }}

{{/* Metadata of an object of the injector: .root, .name, .annotations, and .cluster for a cluster-scoped object. */}}
{{- define "ebb.injectorMetadata" -}}
{{- include "ebb.metadata" (merge (dict "component" "injector" "fixed" (include "ebb.revisionLabel" .root | fromYaml)) .) }}
{{- end }}
