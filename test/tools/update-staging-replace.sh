#!/usr/bin/env bash
# Writes the replace block that every module importing k8s.io/kubernetes needs:
# its staging modules are required there as v0.0.0, so each must be replaced by
# the release that matches. The list comes from k8s.io/kubernetes' own go.mod.
#
#   test/tools/update-staging-replace.sh v1.35.4 [FOLDER ...]
set -euo pipefail

version=${1:?usage: update-staging-replace.sh KUBERNETES_VERSION [FOLDER ...]}
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
staging_version="v0.${version#v1.}"
upstream=$(cd / && GOWORK=off go mod download -json "k8s.io/kubernetes@${version}" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
modules=$(sed -n 's#^[[:space:]]*\(k8s.io/[a-z0-9-]*\) => ./staging/.*#\1#p' "$upstream")
[ -n "$modules" ] || { echo "no staging modules found in $upstream" >&2; exit 1; }

for directory in "${@:-$root $root/test/tools/kubernetes}"; do
  for dir in $directory; do
    edits=("-require=k8s.io/kubernetes@${version}")
    for module in $modules; do
      edits+=("-replace=${module}=${module}@${staging_version}")
    done
    (cd "$dir" && go mod edit "${edits[@]}")
    echo "$dir: $(wc -w <<<"$modules") staging modules at ${staging_version}"
  done
done
