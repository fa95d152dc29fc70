#!/usr/bin/env bash
# Unpacks CRIU of Debian forky beside its own libraries into BIN/criu-root, and
# writes BIN/criu, which starts it: criu.sh BIN. Nothing is installed. Debian keeps
# one version of a suite, so the one that is there is taken, if it is new enough.
set -euo pipefail

minimum=4.2.1
suite=forky
bin=$(realpath "$1")
fail() { echo "CRIU: $*" >&2; exit 1; }

[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || fail "needs Debian or Ubuntu on amd64 (apt, dpkg)"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keyring ] || fail "apt-get install debian-archive-keyring"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1)
[ -n "$mirror" ] || fail "apt knows no mirror of Debian"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs,root}
: >"$work/state/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
# A state of its own: apt of this machine knows nothing of it.
cat >"$work/apt.conf" <<CONF
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Sandbox::User "root";
CONF
export APT_CONFIG=$work/apt.conf
apt-get -qq update || fail "the package list of Debian $suite cannot be read"
version=$(apt-cache policy criu | awk '/Candidate/ {print $2}')
dpkg --compare-versions "$version" ge "$minimum" || fail "Debian $suite has $version, $minimum is needed"
packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances criu | grep '^[a-z]' | sort -u)
# shellcheck disable=SC2086 # one word for each package
(cd "$work/debs" && apt-get -qq download $packages) || fail "its packages cannot be downloaded"
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/root"; done
rm -rf "$bin/criu-root"
mv "$work/root" "$bin/criu-root"
lib=$bin/criu-root/usr/lib/x86_64-linux-gnu
cat >"$bin/criu.new" <<RUN
#!/bin/sh
exec '$lib/ld-linux-x86-64.so.2' --library-path '$lib' '$bin/criu-root/usr/sbin/criu' "\$@"
RUN
chmod 755 "$bin/criu.new"
"$bin/criu.new" --version >/dev/null || fail "it does not run"
mv "$bin/criu.new" "$bin/criu"
