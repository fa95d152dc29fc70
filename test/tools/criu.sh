#!/usr/bin/env bash
# Unpacks CRIU of Debian forky beside its own libraries into BIN/criu-root, and
# writes BIN/criu, which starts it: criu.sh BIN. Nothing is installed. Debian keeps
# one version of a suite, so the one that is there is taken, if it is new enough.
set -euo pipefail

minimum=4.2.1
suite=forky
bin=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=test/tools/debian.sh
. "$(dirname "$0")/debian.sh"

debian_apt $suite
version=$(apt-cache policy criu | awk '/Candidate/ {print $2}')
dpkg --compare-versions "$version" ge "$minimum" || fail "Debian $suite has CRIU $version, $minimum is needed"
# shellcheck disable=SC2046 # one word for each package
debian_unpack "$work/root" $(debian_needs criu)
rm -rf "$bin/criu-root"
mv "$work/root" "$bin/criu-root"
lib=$bin/criu-root/usr/lib/x86_64-linux-gnu
cat >"$bin/criu.new" <<RUN
#!/bin/sh
exec '$lib/ld-linux-x86-64.so.2' --library-path '$lib' '$bin/criu-root/usr/sbin/criu' "\$@"
RUN
chmod 755 "$bin/criu.new"
"$bin/criu.new" --version >/dev/null || fail "CRIU does not run"
mv "$bin/criu.new" "$bin/criu"
