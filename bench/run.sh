#!/usr/bin/env bash
# Measures Layeryard against its peers and writes bench/README.md.
#
#   bench/run.sh [--group main|postgres|scale|memory] [--quick] [--only NAME]... [--on-directory DIR]
#
# Needs root: file systems are mounted and containers run. Everything happens in a mount namespace of its own,
# so nothing stays mounted and no space stays taken, however this ends.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "$(id -u)" -ne 0 ]; then
    echo "bench: needs root, for mounts and containers: sudo $0 $*" >&2
    exit 1
fi
export LAYERYARD_PEERS_DIR=${LAYERYARD_PEERS_DIR:-$HOME/.cache/layeryard-peers}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}

tests/peers/install.sh debian rootfs distribution postgres s3 bench
cargo build --release --locked -p layeryard -p layeryard-bench

# crun refuses a cgroup v2 hierarchy that has controllers beside v1 ones: in here, nobody sees such a one.
exec unshare --mount --propagation private -- bash -c '
    if grep -qs . /sys/fs/cgroup/unified/cgroup.controllers; then umount /sys/fs/cgroup/unified; fi
    built=$CARGO_TARGET_DIR/release
    exec "$built/bench" --layeryard "$built/layeryard" --report bench/README.md "$@"
' bench "$@"
