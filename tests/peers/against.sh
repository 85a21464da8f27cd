#!/usr/bin/env bash
# Runs our own protocol tests against another registry, and lists what fails there: a difference, or a bad test.
#
#   tests/peers/against.sh docker-registry|distribution [TEST...]
#
# docs/compatibility.md explains the list.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
peer=$1
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/install.sh" against
export LAYERYARD_TESTS_AGAINST=$peer
output=$(mktemp)
trap 'rm -f "$output"' EXIT
# Failures are what this is about.
cargo test --package layeryard-tests -- "${@:-protocol::}" >"$output" 2>&1 || true
grep -q '^test result:' "$output" || { cat "$output" >&2; exit 1; }
# Of each failure the place and the first lines of what it says.
awk '/^---- .* stdout ----$/ { print ""; print $2; next }
     / panicked at / { sub(/^.* panicked at /, ""); print "    at " $0; left = 4; next }
     /^stack backtrace:/ { left = 0 }
     left > 0 && NF { print "    " $0; left-- }' "$output" | cut -c1-300
echo
grep '^test result:' "$output"
