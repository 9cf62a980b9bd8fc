#!/usr/bin/env bash
# The image in containers with a real memory limit, with podman and runc: a cache and an application share a network and a
# socket, as in a pod. The application fills the cache at full speed, and no process is killed. The limit is changed in place
# like a kubelet does: up, and then below use. A swapped volume changes settings, and memory is returned.
#
# Builds the image from a static program with buildah, and installs missing tools from Debian's packages if permitted. The
# application is `ebb-bench`, which must be in the directory of the program.
#
#   tests/container.sh PROGRAM
set -eu
. "$(dirname "$0")/lib.sh"
program=$1
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || skip 'only root may run containers with limits here'
install_tools buildah podman runc || skip 'buildah, podman or runc is not installed, and cannot be installed'

make_work
image=localhost/ebb-test-$$ cache=ebb-cache-$$ app=ebb-app-$$
on_exit() {
  podman rm --force --ignore --time 1 "$app" "$cache" >/dev/null 2>&1 || true
  buildah manifest rm "$image-both" >/dev/null 2>&1 || true
  podman rmi --force "$image" "$image/ebb:0.1.0" "$image-both-amd64" "$image-both-arm64" >/dev/null 2>&1 || true
}
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
tests/image.sh "$image" "$program"
if readelf --segments --wide "$program" | grep -q GNU_EH_FRAME; then die 'the program has tables for unwinding'; fi
echo 'ok     the program has no tables for unwinding'
mkdir "$work/volume" "$work/run"
chmod a+rx "$work" && chmod 777 "$work/run"

# Replaces the files of the volume atomically, like a kubelet.
turn=0
project() {
  turn=$((turn + 1))
  mkdir "$work/volume/..$turn"
  local file
  for file in "$@"; do printf '%s' "${file#*=}" >"$work/volume/..$turn/${file%%=*}"; done
  chmod -R a+rX "$work/volume"
  ln -s "..$turn" "$work/volume/..data_tmp"
  mv -T "$work/volume/..data_tmp" "$work/volume/..data"
}
project
for name in ebb.yaml memory-limit; do ln -s "..data/$name" "$work/volume/$name"; done

common=(--read-only --cap-drop all --volume "$work/run:/run/ebb" --env EBB_ADDR=unix:/run/ebb/ebb.sock)
podman run --detach --name "$cache" --network none "${common[@]}" --memory 64m --memory-swap 64m --volume "$work/volume:/etc/ebb:ro" \
  "$image" serve --config /etc/ebb --socket /run/ebb/ebb.sock >/dev/null || skip 'podman runs no container with a limit here'
# As in a pod, both containers share a network and a socket.
application() { podman run --rm --name "$app" --network "container:$cache" "${common[@]}" "$image" "$@"; }
storm() {
  podman run --rm --name "$app" --network "container:$cache" "${common[@]}" --entrypoint /ebb-bench \
    --volume "$(realpath "$(dirname "$program")/ebb-bench"):/ebb-bench:ro" "$image" storm "$@"
}
stats() { podman exec "$cache" /ebb stats --output json; }
number() { stats | grep -oE "\"$1\": *\"?[0-9]+" | grep -oE '[0-9]+$' | head -n 1; }
diagnose() { stats; }
limit_is() { [ "$(number limit_bytes)" = "$1" ]; }
rss_below() { [ "$(number rss_bytes)" -lt "$1" ]; }
used() { number used_bytes; }
is_running() { [ "$(podman inspect --format '{{.State.Status}} {{.RestartCount}}' "$cache")" = 'running 0' ]; }
resize() { podman update --memory "$1" --memory-swap "$1" "$cache" >/dev/null; }
# A kubelet checks at every sync whether use is below a lowered limit, and applies the limit only then.
kubelet_lowers_to() { [ "$(used)" -lt "$1" ] && resize "$1"; }

check_within 30 'the limit is that of the container' limit_is $((64 << 20))
[ "$(application incr visits)" = 1 ] && echo 'ok     the application calls through the shared socket'
storm --seconds 5
echo "       loaded: $(($(number rss_bytes) >> 20)) MiB resident"
is_running || { echo 'the cache was killed'; exit 1; }
echo 'ok     nobody was killed'

resize $((96 << 20))
check_within 30 'a limit that is raised in place is followed' limit_is $((96 << 20))
storm --seconds 5
loaded=$(used)
echo "       loaded again: $((loaded >> 20)) MiB used"
[ "$loaded" -gt $((64 << 20)) ] || { echo 'the room that was added is not used'; exit 1; }
target=$((40 << 20))
if kubelet_lowers_to $target; then echo 'a limit below what is used was not refused'; exit 1; fi
echo 'ok     a kubelet would not lower the limit: more is used'
project memory-limit=$target
check_within 30 'the pending limit is obeyed' limit_is $target
check_within 30 'what is above it is given back, and the kubelet lowers the limit' kubelet_lowers_to $target
is_running || { echo 'the cache was killed'; exit 1; }
storm --seconds 3
is_running || { echo 'the cache was killed'; exit 1; }
echo "ok     nobody was killed; $(($(used) >> 20)) MiB used"

project 'ebb.yaml=maxMemory: 32Mi' memory-limit=$target
check_within 30 'a swapped volume retunes it' limit_is $((32 << 20))
check_within 30 'and it goes below' rss_below $((36 << 20))
podman exec "$cache" /ebb release --to 16Mi >/dev/null || :
check_within 30 'what is asked for is given back' rss_below $((24 << 20))
echo "       released: $(($(number rss_bytes) >> 20)) MiB resident"

# A multi-platform image. The program for the other architecture is a copy with a changed ELF header, and its tools are
# stubs: a real one is not tested here.
own=amd64 other=arm64 machine=aarch64 number='\267\0'
[ "$(uname -m)" = x86_64 ] || own=arm64 other=amd64 machine=x86_64 number='\76\0'
mkdir "$work/bin"
for tool in "qemu-$machine-static" "$machine-linux-gnu-strip"; do
  printf '#!/bin/sh\n' >"$work/bin/$tool"
  chmod +x "$work/bin/$tool"
done
cp "$program" "$work/other"
printf '%b' "$number" | dd of="$work/other" bs=1 seek=18 conv=notrunc status=none
both() { PATH=$work/bin:$PATH tests/image.sh "$image-both" "$own=$program" "$other=$1"; }
if both "$program" 2>/dev/null; then echo 'a program for another architecture was taken'; exit 1; fi
echo 'ok     a program for another architecture than it should be is refused'
for _ in 1 2; do both "$work/other"; done
listed=$(buildah manifest inspect "$image-both" | sed -nE 's/.*"architecture": "(.*)".*/\1/p' | sort | xargs)
[ "$listed" = 'amd64 arm64' ] || { echo "the list holds: $listed"; exit 1; }
podman run --rm "$image-both" --version >/dev/null || { echo "of the list, $own does not run here"; exit 1; }
echo "ok     one name for amd64 and arm64, of which this machine runs its own"

# Runs the commands of the chart's page, with an OCI layout directory instead of a registry.
pushed=$work/pushed
page=$(tests/block.sh charts/ebb/README.md tests/image.sh)
page=${page//docker:\/\/REGISTRY\/ebb:0.1.0/oci:$pushed}
page=${page//REGISTRY\/ebb:0.1.0/$image-both}
page=${page/$own=PROGRAM/$own=$program}
page=${page/$other=PROGRAM/$other=$work/other}
PATH=$work/bin:$PATH bash -euc "$page" >"$work/page.log" 2>&1 || { cat "$work/page.log"; exit 1; }
list=$(grep -oE '[0-9a-f]{64}' "$pushed/index.json" | head -n 1)
[ "$(grep -o '"architecture"' "$pushed/blobs/sha256/$list" | wc -l)" = 2 ] || { echo 'the list was not pushed'; exit 1; }
echo "ok     and the chart's page says how, and how to push it"

# The README's block builds one image for this machine and pushes it; the folder stands in for a registry.
pushed=$work/readme
page=$(tests/block.sh README.md REGISTRY= | sed -e "s|^REGISTRY=.*|REGISTRY=$image|" \
  -e "s| &&| '$program' \&\&|" -e "s|docker://[^\"]*|oci:$pushed|")
bash -euc "$page" >"$work/page.log" 2>&1 || { cat "$work/page.log"; exit 1; }
[ -s "$pushed/index.json" ] || { echo 'the image of the README was not pushed'; exit 1; }
echo "ok     the README's build and push commands work"
