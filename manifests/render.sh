#!/usr/bin/env bash
# Writes manifests/base and what is generated of manifests/components from the
# chart: the chart is the only source. `make generate` runs it.
#
#   manifests/render.sh bin/helm
set -euo pipefail

helm=$(realpath "${1:?usage: render.sh HELM}")
cd "$(dirname "${BASH_SOURCE[0]}")"
chart=chart/ai-storage-orchestrator
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

render() {
  "$helm" template ai-storage "$chart" --namespace ai-storage-system --output-dir "$out/$1" "${@:2}" >"$out/log" 2>&1 ||
    { cat "$out/log" >&2; exit 1; }
}

"$helm" lint --strict --quiet --namespace ai-storage-system "$chart"
render default
rm -rf base
mv "$out/default/ai-storage-orchestrator/templates" base
# kustomization.yaml takes it from crd/, as it was generated.
rm base/crd.yaml

render optional --set serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true
for file in monitoring/servicemonitor monitoring/prometheusrule dashboard/dashboard; do
  mv "$out/optional/ai-storage-orchestrator/templates/${file#*/}.yaml" "components/$file.yaml"
done
