#!/usr/bin/env bash
# Runs a long proof and records how it ended, in its line of docs/proofs.md: the date,
# the commit, the result and the duration. A failure is recorded too, and its exit code
# is kept. Each target has one line, that of its latest run. WITH names what a run can
# have more or less of.
#
#	test/tools/record-proof.sh e2e-full make run-e2e-full
set -uo pipefail

file=${PROOFS:-docs/proofs.md}
target=$1
shift
grep -q "^| \`make $target\` |" "$file" || { echo "$file has no line of make $target" >&2; exit 2; }

commit=$(git rev-parse --short=9 HEAD 2>/dev/null || echo unknown)
# What this script wrote itself is no change.
[ -z "$(git status --porcelain --untracked-files=no -- . ":!$file" 2>/dev/null)" ] || commit="$commit with changes"

started=$SECONDS
printf "%s\n" "$*"
code=130
record() {
  local took=$((SECONDS - started)) result=passed line written
  [ "$code" -eq 0 ] || result="**failed** (exit code $code)"
  result="$result${WITH:+, with $WITH}"
  line=$(printf '| `make %s` | %s | %s | %s | %d min %02d s |' \
    "$target" "$(date -u +%Y-%m-%d)" "$commit" "$result" $((took / 60)) $((took % 60)))
  written=$(mktemp "$file.XXXXXX") || return
  awk -v start="| \`make $target\` |" -v line="$line" 'index($0, start) == 1 { print line; next } { print }' "$file" >"$written" &&
    chmod 644 "$written" && mv "$written" "$file"
  echo "$file: $line"
}
# An interrupted run has not passed.
trap record EXIT
"$@"
code=$?
exit $code
