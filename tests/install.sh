#!/usr/bin/env bash
# A cluster of one node (see node.sh) with controllers, a scheduler and working Services. Helm installs Ebb like a user,
# `helm test` runs, and Deployments get sidecars from the webhook, even while its leader is killed and the release is
# upgraded. The watchdog replaces pods without a sidecar, and uninstallation leaves nothing behind. Then the same with the
# policy, and with the commands of the documents. Takes a minute or two; builds Kubernetes once, in about ten.
#
#   tests/install.sh CACHE_DIR PROGRAM
set -eu
source "$(dirname "$0")/node.sh" "$1" "$2" whole

release() {
  helm "$@" ebb charts/ebb --namespace ebb-system --set image.repository="$image" --set-string image.tag=1 --set tests.check=true \
    --wait --timeout 90s >"$work/helm.log" 2>&1 || { cat "$work/helm.log"; exit 1; }
}
helm_test() {
  helm test ebb --namespace ebb-system --timeout 90s >"$work/helm.log" 2>&1 || {
    cat "$work/helm.log"
    kubectl logs --namespace ebb-system ebb-test-check || true
    kubectl describe pods --namespace default || true
    exit 1
  }
  for pod in ebb-test-check ebb-test-injection; do
    grep -A 3 "^TEST SUITE: *$pod$" "$work/helm.log" | grep -q '^Phase: *Succeeded' || { cat "$work/helm.log"; exit 1; }
  done
  echo 'ok     helm test: a pod calls the cache that it was given, and ebb check is content from inside'
}
# A user's Deployment, without anything about caches.
deploy() {
  kubectl create deployment "$2" --namespace "$1" --image "$idle:1" --replicas "$3" >/dev/null
}
running() { kubectl get pods --namespace "$1" --selector "app=$2" --field-selector status.phase=Running --output "jsonpath=$3"; }
caches() { running "$1" "$2" '{range .items[*]}{.spec.initContainers[0].name}{"\n"}{end}' | grep -cx ebb || true; }
ready() { kubectl rollout status "deployment/$2" --namespace "$1" --timeout=1s; }
each_has_one() { ready "$1" "$2" && [ "$(caches "$1" "$2")" = "$3" ]; }
leader() { kubectl get lease ebb-injector --namespace ebb-system --output 'jsonpath={.spec.holderIdentity}'; }
leads_another_than() { [ -n "$(leader)" ] && [ "$(leader)" != "$1" ]; }
restarts() {
  kubectl get pods --all-namespaces --output \
    'jsonpath={range .items[*].status.containerStatuses[*]}{.restartCount}{"\n"}{end}{range .items[*].status.initContainerStatuses[*]}{.restartCount}{"\n"}{end}' |
    awk '{ sum += $1 } END { print sum + 0 }'
}

kinds=$(kubectl api-resources --verbs=list --output=name | grep -vE '^(events|endpoints|componentstatuses)' | paste -sd,)
left() { kubectl get "$kinds" --all-namespaces --selector app.kubernetes.io/instance=ebb --ignore-not-found --output=name; }
nothing_is_left() { rest=$(left) && [ -z "$rest" ]; }
uninstall() {
  if nothing_is_left; then echo 'the release cannot be told from what else is there'; exit 1; fi
  helm uninstall ebb --namespace ebb-system --wait --timeout 90s >/dev/null
  check_within 60 'helm uninstall leaves nothing' nothing_is_left
}

check_within 60 'controllers have made an account' kubectl get serviceaccount default
SECONDS=0
release install --create-namespace
echo "ok     helm install --wait: the webhook is ready after $SECONDS s"
kubectl create namespace shop >/dev/null
kubectl label namespace shop ebb-cache.io/inject=enabled >/dev/null
deploy shop web 3
check_within 60 'each pod of a Deployment runs with a cache' each_has_one shop web 3
one=$(running shop web '{.items[0].metadata.name}')
[ "$(kubectl exec --namespace shop "$one" --container ebb -- /ebb incr visits)" = 1 ]
echo 'ok     and the cache answers'

helm_test
"$program" check --namespace shop >"$work/check.log" || { cat "$work/check.log"; exit 1; }
echo 'ok     and from outside'

before=$(leader)
kubectl delete pod --namespace ebb-system "${before%%_*}" --grace-period 0 --force >/dev/null 2>&1
deploy shop meanwhile 3
check_within 60 'while the replica that leads is killed, pods get their caches' each_has_one shop meanwhile 3
check_within 60 'another leads' leads_another_than "$before"

# Pods are created and deleted meanwhile.
touch "$work/restarting"
(while [ -e "$work/restarting" ]; do
  kubectl rollout restart deployment/web --namespace shop
  kubectl rollout status deployment/web --namespace shop --timeout=60s
  [ "$(caches shop web)" -ge 3 ] || echo "a pod came without its cache"
done >"$work/restarting.log" 2>&1) &
restarting=$!
release upgrade --set injector.watchdog.enabled=true --set injector.watchdog.interval=1s --set injector.watchdog.maxPerMinute=600
rm "$work/restarting"
wait "$restarting"
if grep 'without its cache' "$work/restarting.log"; then exit 1; fi
echo "ok     helm upgrade: $(grep -c restarted "$work/restarting.log") rollouts or more meanwhile, each pod with its cache"

kubectl create namespace late >/dev/null
deploy late web 3
check_within 60 'a Deployment runs without caches, where nobody asked for them' ready late web
[ "$(caches late web)" = 0 ]
kubectl label namespace late ebb-cache.io/inject=enabled >/dev/null
check_within 60 'the watchdog has its pods come again, with caches' each_has_one late web 3
[ "$(restarts)" = 0 ] || { echo 'a container has restarted'; kubectl get pods --all-namespaces; exit 1; }
echo 'ok     no container has restarted'

uninstall
each_has_one shop web 3 >/dev/null
echo 'ok     but the caches of pods that run'

release install --set injector.mode=policy
echo 'ok     helm install --wait: the policy, without a webhook'
check_within 60 'ebb check says when the API server has taken it up' "$program" check --namespace shop
kubectl label namespace shop ebb-cache.io/trusted=true >/dev/null
kubectl annotate namespace shop config.ebb-cache.io/unix-socket-path=/run/cache/ebb.sock >/dev/null
deploy shop alone 2
check_within 60 'each pod of a Deployment runs with a cache' each_has_one shop alone 2
one=$(running shop alone '{.items[0].metadata.name}')
[ "$(running shop alone '{.items[0].spec.containers[0].env[0].value}')" = unix:/run/cache/ebb.sock ]
[ "$(kubectl exec --namespace shop "$one" --container ebb -- /ebb incr visits)" = 1 ]
kubectl exec --namespace shop "$one" --container ebb -- /ebb diagnostics | grep -q '"source": "EBB_SOCKET"'
kubectl annotate namespace shop config.ebb-cache.io/unix-socket-path- >/dev/null
kubectl label namespace shop ebb-cache.io/trusted- >/dev/null
echo 'ok     and the cache answers, at the socket that the namespace asks for'
helm_test
uninstall

# Runs the commands of a document unchanged.
as_it_stands() {
  PATH=$work/bin:$tools:$PATH bash -euc "$1" >"$work/page.log" 2>&1 || { cat "$work/page.log"; exit 1; }
}
version=$(sed -nE 's/^appVersion: "?([^"]*)"?$/\1/p' charts/ebb/Chart.yaml)
ctr images tag "$image:1" "$image:$version" >/dev/null
page=$(tests/block.sh charts/ebb/README.md 'helm install')
as_it_stands "${page//REGISTRY\/ebb/$image}"
echo "ok     the chart's page: installed, a namespace asks, helm test is content"
kubectl run shop-0 --namespace shop --image "$idle:1" >/dev/null
check_within 60 'a pod runs' kubectl wait --namespace shop --for=condition=Ready pod/shop-0 --timeout=1s
deploy shop shop 2
check_within 60 'each pod of a Deployment runs with a cache' each_has_one shop shop 2
mkdir "$work/bin"
cat >"$work/bin/kubectl-ebb" <<EBB
#!/usr/bin/env bash
# Unlike a script, a user waits until there is output, and has a terminal.
. '$PWD/tests/lib.sh'
case \$1 in
  top) { wait_for 30 'ebb top shows a regime' grep calm '$work/page.log'; printf q; } | script --quiet --return --command "stty rows 40 columns 120; '$program' \$*" /dev/null ;;
  *) exec '$program' "\$@" ;;
esac
EBB
chmod +x "$work/bin/kubectl-ebb"
as_it_stands "$(tests/block.sh docs/operations.md 'kubectl ebb top')
kill \$!"
for part in calm 'all is well' '"limit_bytes"'; do grep -q "$part" "$work/page.log" || { cat "$work/page.log"; exit 1; }; done
echo 'ok     the page on operations: kubectl ebb top, doctor and stats see into the pods'
