#!/usr/bin/env bash
# krew.sh VERSION DIRECTORY builds kubectl-migrate for every platform of krew.yaml,
# packs each with the licence, and writes the manifest with their digests.
set -euo pipefail

version=$1 out=$2
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] ||
	{ echo "krew.sh: version '$version' must look like v1.2.3" >&2; exit 2; }
here=$(dirname "$0")
root=$here/../..
mkdir -p "$out"
manifest=$(sed "s/VERSION/$version/g" "$here/krew.yaml")
for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64; do
	os=${platform%/*} arch=${platform#*/}
	program=kubectl-migrate
	[ "$os" = windows ] && program=kubectl-migrate.exe
	stage=$(mktemp -d)
	GOOS=$os GOARCH=$arch CGO_ENABLED=0 "${GO:-go}" build -trimpath \
		-ldflags "-s -w -X github.com/ai-storage/orchestrator/pkg/kubectl.version=$version" -o "$stage/$program" ./cmd/kubectl-migrate
	cp "$root/LICENSE" "$here/kubectl_complete-migrate" "$stage/"
	archive=$out/kubectl-migrate_${version}_${os}_${arch}.tar.gz
	# The same files give the same archive, and so the same digest.
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$stage" -cf - . | gzip -n >"$archive"
	rm -r "$stage"
	digest=$(sha256sum "$archive" | cut -d' ' -f1)
	manifest=${manifest//SHA256_${os}_${arch}/$digest}
	echo "$archive  $digest"
done
printf '%s\n' "$manifest" >"$out/migrate.yaml"
