#!/usr/bin/env bash
# Builds programs of one version of Kubernetes with exactly the dependencies of
# that version: its own go.mod and go.sum, with its staging directories replaced by
# the modules that are published from them.
#
#   test/tools/build-kubernetes.sh v1.33.13 bin/skew/v1.33.13 kube-apiserver kube-controller-manager
set -euo pipefail

version=${1:?usage: build-kubernetes.sh KUBERNETES_VERSION FOLDER PROGRAM...}
directory=${2:?usage: build-kubernetes.sh KUBERNETES_VERSION FOLDER PROGRAM...}
shift 2
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
upstream=$(cd / && GOWORK=off go mod download -json "k8s.io/kubernetes@${version}" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
[ -n "$upstream" ] || { echo "the module proxy serves no k8s.io/kubernetes@${version}" >&2; exit 1; }

module=$(mktemp -d)
trap 'rm -rf "$module"' EXIT
sed -e 's#^module .*#module example.com/skew#' \
    -e "s#^\([[:space:]]*k8s.io/[a-z0-9-]*\) => ./staging/.*#\1 => \1 v0.${version#v1.}#" \
    "$upstream/go.mod" >"$module/go.mod"
# => and the module's own name stand on one line: "a => a v0.33.13".
sed -i 's#=> [[:space:]]*#=> #' "$module/go.mod"
cp "$upstream/go.sum" "$module/go.sum"
cd "$module"
chmod u+w go.mod go.sum
go mod edit -require="k8s.io/kubernetes@${version}"

kube=k8s.io/component-base/version
minor=${version#v1.}
for program in "$@"; do
  CGO_ENABLED=0 go build -mod=mod -trimpath -o "$directory/$program.new" \
    -ldflags "-s -w -X $kube.gitVersion=${version} -X $kube.gitMajor=1 -X $kube.gitMinor=${minor%%.*}" \
    "k8s.io/kubernetes/cmd/$program"
  mv "$directory/$program.new" "$directory/$program"
done
