#!/usr/bin/env bash
# Makes images of programs that we did not write, from packages of Debian bookworm:
# programs.sh OUT writes OUT/redis.tar, OUT/postgres.tar and OUT/python.tar for the
# local cluster. Nothing is installed. Run it in the project's directory; it needs gcc.
set -euo pipefail

suite=bookworm
mkdir -p "$1"
out=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=test/tools/debian.sh
. "$(dirname "$0")/debian.sh"

# libraries PACKAGE… prints the libraries that packages need. Interpreters and
# compilers, which only wrappers and optional parts of them use, stay out.
libraries() { debian_needs "$@" | grep -e '^lib' -e '^zlib' | grep -v -e 'perl' -e '^libllvm' -e '^libz3' || true; }

# image NAME PACKAGE… makes the image of packages and their libraries.
image() {
	local name=$1 root=$work/$1
	shift
	# shellcheck disable=SC2046 # one word for each package
	debian_unpack "$root" "$@" $(libraries "$@")
	rm -rf "$root"/usr/share/{doc,man,locale,lintian,bash-completion,pixmaps} "$root/usr/lib/postgresql/15/lib/bitcode"
	mkdir -p "$root"/{etc,tmp,proc,sys,dev}
	chmod 1777 "$root/tmp"
	gcc -shared -fPIC -O2 -o "$root/usr/lib/notroot.so" test/tools/notroot.c
	printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\n' >"$root/etc/passwd"
	printf 'root:x:0:\npostgres:x:999:\n' >"$root/etc/group"
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" -cf "$work/$name.layer" .
	(cd test && go build -o "$work/rootimage" ./rootimage)
	"$work/rootimage" -layer "$work/$name.layer" -reference "docker.io/ai-storage/$name:dev" -archive "$out/$name.tar"
	rm -rf "$root" "$work/$name.layer"
}

debian_apt $suite
image redis redis-server redis-tools
image python python3.11-minimal libpython3.11-minimal
image postgres postgresql-15 postgresql-client-15 tzdata dash coreutils
