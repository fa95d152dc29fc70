# Sourced by scripts that unpack packages of Debian into a directory. Nothing is
# installed: apt gets a state of its own in $work, which the script has made.
# shellcheck shell=bash

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

# debian_apt SUITE lets apt-get and apt-cache see that suite of Debian, and nothing else.
debian_apt() {
	[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || fail "needs Debian or Ubuntu on amd64 (apt, dpkg)"
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror
	[ -r $keyring ] || fail "apt-get install debian-archive-keyring"
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1)
	[ -n "$mirror" ] || fail "apt knows no mirror of Debian"
	mkdir -p "$work"/{state/lists/partial,cache/archives/partial}
	: >"$work/state/status"
	echo "deb [signed-by=$keyring] $mirror $1 main" >"$work/sources.list"
	cat >"$work/apt.conf" <<-CONF
		Dir::State "$work/state";
		Dir::State::status "$work/state/status";
		Dir::Cache "$work/cache";
		Dir::Etc::sourcelist "$work/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		APT::Sandbox::User "root";
	CONF
	export APT_CONFIG=$work/apt.conf
	apt-get -qq update || fail "the package list of Debian $1 cannot be read"
}

# debian_needs PACKAGE… prints the packages and all that they depend on.
debian_needs() {
	apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
		grep '^[a-z]' | sort -u
}

# debian_unpack ROOT PACKAGE… unpacks exactly these packages.
debian_unpack() {
	local root=$1 debs package
	shift
	debs=$(mktemp -d "$work/debs.XXXXXX")
	mkdir -p "$root"
	(cd "$debs" && apt-get -qq download "$@") || fail "packages cannot be downloaded: $*"
	for package in "$debs"/*.deb; do dpkg-deb -x "$package" "$root"; done
	rm -rf "$debs"
}
