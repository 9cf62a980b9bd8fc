# shellcheck shell=bash
# A node of this machine, to be sourced by a script of this folder: a real API server, containerd with runc, and a kubelet, in
# a network of their own, so that nothing they do reaches the machine's. Needs root and memory cgroups; installs what is
# missing from Debian's packages, and builds Kubernetes from its Go modules once.
#
#   source tests/node.sh CACHE_DIR PROGRAM [whole]
#
# PROGRAM is a static build. whole: a cluster that carries out Deployments and Services, with kube-controller-manager,
# kube-scheduler and kube-proxy. What there is then: kubectl, helm (those of tests/chart.sh), tests/lib.sh, $node, $work for
# files, and two images: $image:1 with the program, $idle:1 that waits for its end; and
# $writer:1 with `ebb-bench`, if that lies beside the program.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip 'only root may be a node'
cache=$(folder "$1")
program=$(realpath "$2")
whole=${3:-}
tools=$cache/chart/helm4
if [ -z "${EBB_NODE_ASSETS:-}" ]; then
  [ -x "$tools/kubectl" ] || die "$tools/kubectl not found; tests/chart.sh installs it"
  install_tools buildah containerd runc nft:nftables /usr/lib/cni/ptp:containernetworking-plugins
  EBB_NODE_ASSETS=$("$(dirname "$0")/cluster/build.sh" "$cache" kubelet ${whole:+kube-controller-manager kube-scheduler kube-proxy})
  export EBB_NODE_ASSETS
  exec unshare --net "$0" "$cache" "$program"
fi
assets=$EBB_NODE_ASSETS
cd "$(dirname "$0")/.." || exit
kubectl() { "$tools/kubectl" "$@"; }
helm() { "$tools/helm" "$@"; }

make_work
export KUBECONFIG=$work/kubeconfig # from here on nothing that is asked or deleted is anybody else's
network=ebb-$$ node=ebb-test image=localhost/ebb-$$ idle=localhost/idle-$$ writer=localhost/writer-$$
address=10.222.1.1 services=10.0.0.0/24 pods=10.222.0.0/24
no_pods() { [ -z "$(kubectl get pods --all-namespaces --output=name)" ]; }
on_exit() {
  kubectl delete deployments,pods --all --all-namespaces --wait=false >/dev/null 2>&1 || true
  wait_for 20 'every pod is gone' no_pods || true
  stop_all
  # Shims outlive their containerd.
  pkill -f "containerd-shim.* -address $work/containerd.sock" 2>/dev/null || true
  awk -v root="$work/" 'index($2, root) == 1 { print $2 }' /proc/mounts | sort -r | while read -r at; do umount "$at" || true; done
  find /sys/fs/cgroup/*/kubepods -depth -type d -exec rmdir {} + 2>/dev/null || true
  rm -rf "/var/lib/cni/networks/$network"
}
diagnose() {
  kubectl get pods --all-namespaces --output=wide
  kubectl get events --all-namespaces | tail -n 12
  kubectl logs --all-containers --prefix --tail 30 --namespace ebb-system --selector app.kubernetes.io/instance=ebb
}

ip link set lo up
ip address add "$address/32" dev lo
ip route add "$services" dev lo src "$address" # for kube-proxy to send elsewhere
openssl genrsa -out "$work/accounts.key" 2048 2>/dev/null
echo 'a-node-of-this-test,operator,operator,system:masters' >"$work/tokens.csv"
start etcd "$assets/etcd" --data-dir "$work/etcd" --unsafe-no-fsync
# Without controllers there are no accounts that pods could have.
accounts=()
[ -n "$whole" ] || accounts=(--disable-admission-plugins ServiceAccount)
start api "$assets/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --cert-dir "$work/certs" --advertise-address "$address" \
  --service-cluster-ip-range "$services" --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file "$work/accounts.key" --service-account-signing-key-file "$work/accounts.key" \
  --authorization-mode RBAC --token-auth-file "$work/tokens.csv" \
  --kubelet-preferred-address-types InternalIP "${accounts[@]}"
cat >"$work/kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$address:6443", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: a-node-of-this-test}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
CONFIG
check_within 60 'the API server is ready' kubectl get --raw /readyz

# The image that waits for its end also holds the namespaces of pods.
mkdir "$work/idle" "$work/cni"
cat >"$work/idle/idle.c" <<'C'
#include <signal.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
C
cc -static -O1 -o "$work/idle/idle" "$work/idle/idle.c"
printf 'FROM scratch\nCOPY idle /idle\nENTRYPOINT ["/idle"]\n' >"$work/idle/Containerfile"
buildah bud --isolation chroot --quiet --tag "$idle:1" "$work/idle" >/dev/null
tests/image.sh "$image:1" "$program"
images=("$image" "$idle")
if [ -x "$(dirname "$program")/ebb-bench" ]; then
  mkdir "$work/writer"
  cp "$(dirname "$program")/ebb-bench" "$work/writer/ebb-bench"
  printf 'FROM scratch\nCOPY ebb-bench /ebb-bench\nENTRYPOINT ["/ebb-bench"]\n' >"$work/writer/Containerfile"
  buildah bud --isolation chroot --quiet --tag "$writer:1" "$work/writer" >/dev/null
  images+=("$writer")
fi
for name in "${images[@]}"; do
  buildah push --quiet "$name:1" "docker-archive:$work/${name#*/}.tar:$name:1"
  buildah rmi "$name:1" >/dev/null
done
cat >"$work/containerd.toml" <<CONFIG
version = 2
root = "$work/root"
state = "$work/state"
[grpc]
  address = "$work/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$idle:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
CONFIG
cat >"$work/cni/10-$network.conflist" <<CONFIG
{"cniVersion": "0.4.0", "name": "$network", "plugins": [{"type": "ptp", "ipam": {
  "type": "host-local", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
CONFIG
start containerd containerd --config "$work/containerd.toml"
ctr() { command ctr --address "$work/containerd.sock" --namespace k8s.io "$@"; }
check_within 60 'containerd is ready' ctr version
for name in "${images[@]}"; do ctr images import "$work/${name#*/}.tar" >/dev/null; done
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
address: $address
readOnlyPort: 0
resolvConf: ""
makeIPTablesUtilChains: false
featureGates: {KubeletInUserNamespace: true}
CONFIG
start kubelet "$assets/kubelet" --config "$work/kubelet.yaml" --kubeconfig "$work/kubeconfig" --root-dir "$work/kubelet" \
  --cert-dir "$work/kubelet-certs" --hostname-override "$node" --node-ip "$address"
if [ -n "$whole" ]; then
  start controllers "$assets/kube-controller-manager" --kubeconfig "$work/kubeconfig" --leader-elect=false \
    --service-account-private-key-file "$work/accounts.key" --root-ca-file "$work/certs/apiserver.crt"
  start scheduler "$assets/kube-scheduler" --kubeconfig "$work/kubeconfig" --leader-elect=false
  # What tracks connections has the machine's settings, which are not for a network of its own to change.
  start proxy "$assets/kube-proxy" --kubeconfig "$work/kubeconfig" --proxy-mode nftables --hostname-override "$node" \
    --cluster-cidr "$pods" --conntrack-max-per-core 0 --conntrack-min 0 --conntrack-tcp-timeout-established 0s \
    --conntrack-tcp-timeout-close-wait 0s
fi
kubectl version --output=yaml | sed -n 's/^ *gitVersion: /       Kubernetes /p' | tail -n 1
check_within 60 'the node is ready' kubectl wait --for=condition=Ready "node/$node" --timeout=1s
