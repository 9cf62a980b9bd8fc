#!/usr/bin/env bash
# Times `ebb inject` beside Kubernetes' reader on 20 MB of manifests, in alternation: seconds of CPU and peak of RSS.
#
#   tests/manifests/time.sh EBB READER EVERY    EVERY: one of so many documents is a Deployment, the others ConfigMaps
#
# READER is the program of tests/cluster/reader; tests/cluster/build.sh builds it.
set -eu
ebb=$1 reader=$2 every=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
awk -v every="$every" -v deployment="$(cat "$(dirname "$0")/corpus/own-volumes-and-groups.yaml")" 'BEGIN {
  for (size = 0; size < 20e6; size += length(document) + 5) {
    if (number++ % every == 0) {
      document = deployment
    } else {
      document = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c" number "\ndata:\n"
      for (key = 0; key < 200; key++) document = document "  key" key ": \"some value " key "\" # c\n"
    }
    print document "\n---"
  }
}' >"$folder/all.yaml"
for _ in 1 2 3 4 5; do
  echo "$folder/all.yaml" | /usr/bin/time -f 'reader %U s, %M KiB' "$reader" >"$folder/out"
  /usr/bin/time -f 'ebb inject %U s, %M KiB' "$ebb" inject -f "$folder/all.yaml" 2>&1 >"$folder/out" | tail -n 1
done
