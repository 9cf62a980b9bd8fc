#!/usr/bin/env bash
# A real kubelet runs pods from `ebb inject` (see node.sh). The sidecar starts before its application and ends after it,
# follows an in-place resize, lets a shrink complete that the kubelet had refused, and applies settings of a ConfigMap and of
# an annotation, while the application writes at full speed. Admin commands reach the sidecars. Takes a minute; builds a kubelet once, in about four.
#
#   tests/kubelet.sh CACHE_DIR PROGRAM          `ebb-bench` must be in the directory of PROGRAM; both are static
set -eu
[ -x "$(dirname "$2")/ebb-bench" ] || { echo "ebb-bench not found in the directory of $2"; exit 1; }
source "$(dirname "$0")/node.sh"

# A user's pod; `ebb inject` adds the sidecar.
create() {
  local edit=${5:-}
  cat >"$work/$1.yaml" <<POD
apiVersion: v1
kind: Pod
metadata:
  name: $1
  labels: {ebb-cache.io/inject: enabled, app: $1}
  annotations: {config.ebb-cache.io/image: "$image:1", config.ebb-cache.io/memory-limit: 128Mi}
spec:
  nodeName: $node
  restartPolicy: $2
  automountServiceAccountToken: false
  dnsPolicy: Default
  terminationGracePeriodSeconds: 10
  containers: [{name: app, image: "$4:1", args: $3, securityContext: {runAsUser: 1000}}]
POD
  "$program" inject -f "$work/$1.yaml" 2>/dev/null | sed "$edit" | kubectl create --filename=- >/dev/null
}
of() { kubectl get pod "$1" --output "jsonpath={$2}"; }
says() { [ "$(of "$2" "$1")" = "$3" ]; }
refused() { events ResizeError | grep -q 'below current usage'; }
metric() { curl --silent --max-time 2 "http://$(of shop '.status.podIP'):7072/metrics" | sed -n "s/^$1 //p"; }
limit_is() { [ "$(metric ebb_memory_limit_bytes)" = $(($1 << 20)) ]; }
uses_more_than() { [ "$(metric ebb_memory_used_bytes)" -gt $(($1 << 20)) ]; }
enforced() { cat /sys/fs/cgroup/memory/kubepods/*/pod"$(of shop '.metadata.uid')"/*/memory.limit_in_bytes; }
enforces() { enforced | grep -qx $(($1 << 20)); }
events() { kubectl get events --field-selector "involvedObject.name=shop,reason=$1" --output 'jsonpath={.items[*].message}'; }
resize() {
  kubectl patch pod shop --subresource resize --patch \
    "{\"spec\":{\"initContainers\":[{\"name\":\"ebb\",\"resources\":{\"requests\":{\"memory\":\"$1\"},\"limits\":{\"memory\":\"$1\"}}}]}}" >/dev/null
}
unharmed() {
  [ "$(of shop '.status.initContainerStatuses[0].restartCount') $(of shop '.status.containerStatuses[0].restartCount')" = '0 0' ] ||
    { echo 'a container was killed'; kubectl get pod shop --output=yaml; exit 1; }
}

create shop Always '[storm, --seconds, "900"]' "$writer"
check_within 60 'the pod runs, its application writes through the shared socket' \
  kubectl wait --for=condition=Ready pod/shop --timeout=1s
began=$(date --date "$(of shop '.status.initContainerStatuses[0].state.running.startedAt')" +%s)
then=$(date --date "$(of shop '.status.containerStatuses[0].state.running.startedAt')" +%s)
[ "$then" -ge "$began" ] || { echo 'the application started before its cache'; exit 1; }
echo "ok     the cache started first, the application $((then - began)) s later (by whole seconds)"
check_within 60 'the limit is that of the pod' limit_is 128
check_within 60 'the application has filled it' uses_more_than 90
resize 192Mi
check_within 60 'a limit that is raised in place is followed' limit_is 192
check_within 60 'and used' uses_more_than 140
unharmed
SECONDS=0
resize 64Mi
check_within 60 'the kubelet refuses to lower it: more is used' refused
check_within 60 'the cache gives memory back, and the kubelet lowers it' enforces 64
unharmed
check_within 60 'the pod says so' says .status.initContainerStatuses[0].resources.limits.memory shop 64Mi
echo "       $SECONDS s after it was asked for; $(metric ebb_memory_used_bytes) bytes used of $((64 << 20))"
kubectl create configmap ebb-config --from-literal='ebb.yaml=maxMemory: 48Mi' >/dev/null
check_within 60 'a ConfigMap retunes it' limit_is 48
kubectl annotate pod shop config.ebb-cache.io/max-memory=40Mi >/dev/null
check_within 60 'an annotation of the pod wins' limit_is 40
unharmed
create once Never '[set, key, value]' "$image"
check_within 60 'a pod whose application has ended ends, with its cache' says .status.phase once Succeeded

# The plugin, as kubectl finds it, in the words of docs/operations.md.
mkdir "$work/plugin"
ln -s "$program" "$work/plugin/kubectl-ebb"
PATH=$work/plugin:$PATH
create quiet Always '[]' "$idle" 's/EBB_ADMIN_LISTEN/EBB_ADMIN_SOCKET/; s,127.0.0.1:7071,/run/ebb/admin.sock,; /EBB_ADMIN_ADDR/{n;s,127.0.0.1:7071,unix:/run/ebb/admin.sock,}'
check_within 60 'a pod with an admin socket runs' kubectl wait --for=condition=Ready pod/quiet --timeout=1s
has() { kubectl ebb stats "$2" --output json | grep -q "$1"; }
check_within 20 'kubectl ebb stats asks a pod' has '"limit_bytes": "41943040"' pod/shop
check_within 20 'and one with an admin socket' has '"limit_bytes": "50331648"' quiet
# Without a controller a Deployment is only its selector.
for name in shop quiet; do kubectl create deployment "$name" --image=none >/dev/null; done
asked=$(kubectl ebb doctor deploy/shop || true)
[[ $asked == pod/shop$'\n'* ]] || { echo "kubectl ebb doctor deploy/shop printed: $asked"; exit 1; }
kubectl ebb keys --hot deploy/quiet >/dev/null
echo 'ok     kubectl ebb doctor and keys ask the pods of a workload'
start top script --quiet --flush --command "stty rows 40 cols 120; TERM=xterm exec '$tools/kubectl' ebb top deploy/shop deploy/quiet" "$work/screen" </dev/null
# Until it is connected, a row has a name and no sizes.
on_screen() { for part in pod/quiet pod/shop '[0-9] [KM]iB'; do grep -qa "$part" "$work/screen" || return 1; done; }
check_within 30 'kubectl ebb top shows the pods of two workloads' on_screen
# A process in each sidecar is its end of the connection.
dials() { [ "$(pgrep --full --count '^/ebb dial-stdio$')" = "$1" ]; }
check_within 20 'it is connected to both' dials 2
create quiet-2 Always '[]' "$idle" 's/app: quiet-2/app: quiet/'
shows() { grep -qa "$1" "$work/screen"; }
check_within 60 'it shows a pod that starts later' shows pod/quiet-2
check_within 60 'and connects to it' dials 3
kubectl delete pod quiet --wait=false >/dev/null
check_within 30 'it lets go of a pod that goes' dials 2
stop "$started"
check_within 30 'it leaves no process in the pods' dials 0
refuses() { # part of the message, arguments
  local said part=$1
  shift
  said=$(kubectl ebb "$@" 2>&1) && { echo "kubectl ebb $* succeeded"; exit 1; }
  [[ $said == *"$part"* ]] || { echo "kubectl ebb $* said: $said"; exit 1; }
}
refuses 'pod/none: not found in namespace default' stats pod/none
refuses 'deployment/none: not found in namespace elsewhere' doctor deploy/none -n elsewhere
refuses 'pod/once: its sidecar is not running (the pod is Succeeded)' stats pod/once
refuses '"svc" is no kind of object with pods' top svc/shop
kubectl exec --stdin shop --container ebb -- /ebb dial-stdio </dev/null | head -n 1 | grep -qx 'ebb admin'
echo 'ok     each refusal names the pod and the reason'
kubectl run bare --image "$idle:1" --labels app=quiet --overrides "{\"spec\": {\"nodeName\": \"$node\"}}" >/dev/null
refuses 'pod/bare: has no sidecar: no container of it is named ebb (it has bare)' doctor deploy/quiet
refuses '1 of 2 pods could not be asked' stats deploy/quiet
echo 'ok     nor is a pod without a sidecar left out in silence'
