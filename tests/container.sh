#!/usr/bin/env bash
# The image in containers with a real memory limit, by podman and runc: a cache and an application that share a socket, as
# in a pod. The application fills the cache as fast as it can; nobody is killed; a swapped volume retunes it; and what is
# given back is given back. Needs root, podman, runc and the image of tests/image.sh.
#
#   tests/container.sh [IMAGE]
set -eu
image=${1:-localhost/ebb:$(sed -nE 's/^version = "(.*)"/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1)}
work=$(mktemp -d)
cache=ebb-cache-$$ app=ebb-app-$$
trap 'podman rm --force --ignore --time 1 "$app" "$cache" >/dev/null 2>&1; rm -rf "$work"' EXIT
cat >"$work/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
CONF
export CONTAINERS_CONF=$work/containers.conf
mkdir "$work/volume" "$work/volume/..1" "$work/run"
ln -s ..1 "$work/volume/..data"
ln -s ..data/ebb.yaml "$work/volume/ebb.yaml"
chmod -R a+rX "$work" && chmod 777 "$work/run"
common=(--read-only --cap-drop all --volume "$work/run:/run/ebb" --env EBB_ADDR=unix:/run/ebb/ebb.sock)
podman run --detach --name "$cache" --network none "${common[@]}" --memory 64m --memory-swap 64m --volume "$work/volume:/etc/ebb:ro" \
  "$image" serve --config /etc/ebb --socket /run/ebb/ebb.sock >/dev/null
stats() { podman exec "$cache" /ebb stats --output json; }
number() { stats | grep -oE "\"$1\": *\"?[0-9]+" | grep -oE '[0-9]+$' | head -n 1; }
until_true() {
  local what=$1 tries=150
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "not within 30 s: $what"; stats; exit 1; }
    read -rt 0.2 <> <(:) || :
  done
  echo "ok     $what"
}
limit_is() { [ "$(number limit_bytes)" = "$1" ]; }
rss_below() { [ "$(number rss_bytes)" -lt "$1" ]; }
until_true 'the limit is that of the container' limit_is $((64 << 20))
# As in a pod, the two have one network and one socket.
application() { podman run --rm --name "$app" --network "container:$cache" "${common[@]}" "$image" "$@"; }
[ "$(application incr visits)" = 1 ] && echo 'ok     the application calls through the shared socket'
application bench storm --seconds 10
echo "       loaded: $(($(number rss_bytes) >> 20)) MiB resident"
[ "$(podman inspect --format '{{.State.Status}}' "$cache")" = running ] || { echo 'the cache was killed'; exit 1; }
echo 'ok     nobody was killed'
mkdir "$work/volume/..2"
echo 'maxMemory: 32Mi' >"$work/volume/..2/ebb.yaml"
chmod -R a+rX "$work/volume"
ln -s ..2 "$work/volume/..data_tmp"
mv -T "$work/volume/..data_tmp" "$work/volume/..data"
until_true 'a swapped volume retunes it' limit_is $((32 << 20))
until_true 'and it goes below' rss_below $((36 << 20))
podman exec "$cache" /ebb release --to 16Mi >/dev/null || :
until_true 'what is asked for is given back' rss_below $((24 << 20))
echo "       released: $(($(number rss_bytes) >> 20)) MiB resident"
