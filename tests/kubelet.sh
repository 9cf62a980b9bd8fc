#!/usr/bin/env bash
# A real kubelet runs pods that `ebb inject` has made, beside a real API server: a node of this machine, with containerd and
# runc. The sidecar is there before its application and ends after it, follows a resize in place, lets a shrink complete that
# the kubelet had refused, and is retuned by a ConfigMap and by an annotation; all of it while the application writes as fast
# as it can. Takes a few minutes; builds a kubelet once, in some four more. Needs root, and memory cgroups.
#
#   tests/kubelet.sh CACHE_DIR PROGRAM      PROGRAM is a static build; kubectl is that of tests/chart.sh, or the machine's
set -eu
cache=$(mkdir -p "$1" && cd "$1" && pwd)
program=$(realpath "$2")
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo 'skipped: only root may be a node'; exit 0; }
needed=()
for package in buildah containerd runc; do command -v "$package" >/dev/null || needed+=("$package"); done
[ -x /usr/lib/cni/ptp ] || needed+=(containernetworking-plugins)
if [ ${#needed[@]} -gt 0 ]; then
  echo "installing ${needed[*]} from Debian's packages"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${needed[@]}" >/dev/null
fi
kubectl=$cache/chart/helm4/kubectl
[ -x "$kubectl" ] || kubectl=$(command -v kubectl)
assets=$(tests/cluster/build.sh "$cache" kubelet)

# A socket's path has room for some hundred bytes.
work=$(mktemp -d /tmp/ebb-node.XXXXXX)
network=ebb-$$ node=ebb-test
processes=()
finish() {
  "$kubectl" delete pods --all --wait=false >/dev/null 2>&1 || true
  for _ in $(seq 100); do
    [ -n "$("$kubectl" get pods --output=name 2>/dev/null)" ] || break
    read -rt 0.2 <> <(:) || :
  done
  for ((at = ${#processes[@]} - 1; at >= 0; at--)); do
    kill "${processes[at]}" 2>/dev/null || true
    wait "${processes[at]}" 2>/dev/null || true
  done
  # Shims outlive their containerd.
  pkill -f "containerd-shim.* -address $work/containerd.sock" 2>/dev/null || true
  for at in $(awk -v root="$work/" 'index($2, root) == 1 { print $2 }' /proc/mounts | sort -r); do umount "$at" || true; done
  find /sys/fs/cgroup/*/kubepods -depth -type d -exec rmdir {} + 2>/dev/null || true
  rm -rf "$work" "/var/lib/cni/networks/$network"
}
trap finish EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 &
  processes+=($!)
}
until_true() {
  local what=$1 tries=300
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "not within 60 s: $what"; "$kubectl" get events | tail -n 12; exit 1; }
    read -rt 0.2 <> <(:) || :
  done
  echo "ok     $what"
}

etcd=$(port) peer=$(port) api=$(port)
openssl genrsa -out "$work/accounts.key" 2048 2>/dev/null
echo 'a-node-of-this-test,operator,operator,system:masters' >"$work/tokens.csv"
start etcd "$assets/etcd" --data-dir "$work/etcd" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$etcd" \
  --advertise-client-urls "http://127.0.0.1:$etcd" --listen-peer-urls "http://127.0.0.1:$peer" \
  --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer"
start api "$assets/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd" --cert-dir "$work/certs" --secure-port "$api" \
  --bind-address 127.0.0.1 --service-cluster-ip-range 10.0.0.0/24 --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file "$work/accounts.key" --service-account-signing-key-file "$work/accounts.key" \
  --authorization-mode RBAC --token-auth-file "$work/tokens.csv" --disable-admission-plugins ServiceAccount
cat >"$work/kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$api", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: a-node-of-this-test}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
CONFIG
export KUBECONFIG=$work/kubeconfig
until_true 'the API server is ready' "$kubectl" get --raw /readyz

# Two images: the program, and what holds a pod's namespaces.
mkdir "$work/pause" "$work/cni"
cat >"$work/pause/pause.c" <<'C'
#include <signal.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
C
cc -static -O1 -o "$work/pause/pause" "$work/pause/pause.c"
printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >"$work/pause/Containerfile"
buildah bud --isolation chroot --quiet --tag "localhost/pause-$$:1" "$work/pause" >/dev/null
tests/image.sh "localhost/ebb-$$:1" "$program"
for image in "pause-$$" "ebb-$$"; do
  buildah push --quiet "localhost/$image:1" "docker-archive:$work/$image.tar:localhost/$image:1"
  buildah rmi "localhost/$image:1" >/dev/null
done
cat >"$work/containerd.toml" <<CONFIG
version = 2
root = "$work/root"
state = "$work/state"
[grpc]
  address = "$work/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause-$$:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
CONFIG
cat >"$work/cni/10-$network.conflist" <<CONFIG
{"cniVersion": "0.4.0", "name": "$network", "plugins": [{"type": "ptp", "ipam": {
  "type": "host-local", "ranges": [[{"subnet": "10.222.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
CONFIG
start containerd containerd --config "$work/containerd.toml"
ctr() { command ctr --address "$work/containerd.sock" --namespace k8s.io "$@"; }
until_true 'containerd is ready' ctr version
for image in "pause-$$" "ebb-$$"; do ctr images import "$work/$image.tar" >/dev/null; done
cat >"$work/kubelet.yaml" <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
containerRuntimeEndpoint: unix://$work/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
podLogsDir: $work/logs
enforceNodeAllocatable: []
evictionHard: {memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
syncFrequency: 5s
nodeStatusUpdateFrequency: 5s
address: 127.0.0.1
port: $(port)
healthzPort: $(port)
readOnlyPort: 0
resolvConf: ""
makeIPTablesUtilChains: false
featureGates: {KubeletInUserNamespace: true}
CONFIG
start kubelet "$assets/kubelet" --config "$work/kubelet.yaml" --kubeconfig "$work/kubeconfig" --root-dir "$work/kubelet" \
  --cert-dir "$work/kubelet-certs" --hostname-override "$node"
"$kubectl" version --output=yaml | sed -n 's/^ *gitVersion: /       Kubernetes /p' | tail -n 1
until_true 'the node is ready' "$kubectl" wait --for=condition=Ready "node/$node" --timeout=1s

# A pod as a user writes it; `ebb inject` puts the sidecar in.
create() {
  cat >"$work/$1.yaml" <<POD
apiVersion: v1
kind: Pod
metadata:
  name: $1
  labels: {ebb-cache.io/inject: enabled}
  annotations: {config.ebb-cache.io/image: "localhost/ebb-$$:1", config.ebb-cache.io/memory-limit: 128Mi}
spec:
  nodeName: $node
  restartPolicy: $2
  automountServiceAccountToken: false
  dnsPolicy: Default
  terminationGracePeriodSeconds: 10
  containers: [{name: app, image: "localhost/ebb-$$:1", args: $3, securityContext: {runAsUser: 1000}}]
POD
  "$program" inject -f "$work/$1.yaml" 2>/dev/null | "$kubectl" create --filename=- >/dev/null
}
of() { "$kubectl" get pod "$1" --output "jsonpath={$2}"; }
says() { [ "$(of "$2" "$1")" = "$3" ]; }
refused() { events ResizeError | grep -q 'below current usage'; }
metric() { curl --silent --max-time 2 "http://$(of shop '.status.podIP'):7072/metrics" | sed -n "s/^$1 //p"; }
limit_is() { [ "$(metric ebb_memory_limit_bytes)" = $(($1 << 20)) ]; }
uses_more_than() { [ "$(metric ebb_memory_used_bytes)" -gt $(($1 << 20)) ]; }
enforced() { cat /sys/fs/cgroup/memory/kubepods/*/pod"$(of shop '.metadata.uid')"/*/memory.limit_in_bytes; }
enforces() { enforced | grep -qx $(($1 << 20)); }
events() { "$kubectl" get events --field-selector "involvedObject.name=shop,reason=$1" --output 'jsonpath={.items[*].message}'; }
resize() {
  "$kubectl" patch pod shop --subresource resize --patch \
    "{\"spec\":{\"initContainers\":[{\"name\":\"ebb\",\"resources\":{\"requests\":{\"memory\":\"$1\"},\"limits\":{\"memory\":\"$1\"}}}]}}" >/dev/null
}
unharmed() {
  [ "$(of shop '.status.initContainerStatuses[0].restartCount') $(of shop '.status.containerStatuses[0].restartCount')" = '0 0' ] ||
    { echo 'a container was killed'; "$kubectl" get pod shop --output=yaml; exit 1; }
}

create shop Always '[bench, storm, --seconds, "900"]'
until_true 'the pod runs, its application writes through the shared socket' \
  "$kubectl" wait --for=condition=Ready pod/shop --timeout=1s
began=$(date --date "$(of shop '.status.initContainerStatuses[0].state.running.startedAt')" +%s)
then=$(date --date "$(of shop '.status.containerStatuses[0].state.running.startedAt')" +%s)
[ "$then" -ge "$began" ] || { echo 'the application started before its cache'; exit 1; }
echo "ok     the cache started first, the application $((then - began)) s later (by whole seconds)"
until_true 'the limit is that of the pod' limit_is 128
until_true 'the application has filled it' uses_more_than 90
resize 192Mi
until_true 'a limit that is raised in place is followed' limit_is 192
until_true 'and used' uses_more_than 140
unharmed
SECONDS=0
resize 64Mi
until_true 'the kubelet refuses to lower it: more is used' refused
until_true 'the cache gives memory back, and the kubelet lowers it' enforces 64
unharmed
until_true 'the pod says so' says .status.initContainerStatuses[0].resources.limits.memory shop 64Mi
echo "       $SECONDS s after it was asked for; $(metric ebb_memory_used_bytes) bytes used of $((64 << 20))"
"$kubectl" create configmap ebb-config --from-literal='ebb.yaml=maxMemory: 48Mi' >/dev/null
until_true 'a ConfigMap retunes it' limit_is 48
"$kubectl" annotate pod shop config.ebb-cache.io/max-memory=40Mi >/dev/null
until_true 'an annotation of the pod wins' limit_is 40
unharmed
create once Never '[set, key, value]'
until_true 'a pod whose application has ended ends, with its cache' says .status.phase once Succeeded
