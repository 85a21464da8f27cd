#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz/run.sh [SECONDS]. Needs a nightly compiler and `cargo install cargo-fuzz`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
for source in fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    mkdir -p "corpus/$target" "seeds/$target"
    echo "== $target"
    # What is found goes to the first directory; the seeds stay as they are.
    cargo +nightly fuzz run "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -print_final_stats=1 -verbosity=0
done
