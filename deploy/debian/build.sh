#!/usr/bin/env bash
# Makes a Debian package of a built binary: deploy/debian/build.sh target/release/layeryard OUT_DIR
set -euo pipefail

binary=$1
out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
version=$("$binary" version | cut -d' ' -f2)
arch=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"

install -Dm755 "$binary" "$stage/usr/bin/layeryard"
strip "$stage/usr/bin/layeryard"
install -Dm644 "$root/deploy/systemd/layeryard.service" "$stage/lib/systemd/system/layeryard.service"
install -Dm644 "$root/docs/configuration.md" "$stage/usr/share/doc/layeryard/configuration.md"
install -Dm644 "$root/LICENSE" "$stage/usr/share/doc/layeryard/copyright"
install -d "$stage/etc/layeryard"
cat >"$stage/etc/layeryard/layeryard.toml" <<'EOT'
# Every key: layeryard config reference
data_dir = "/var/lib/layeryard"
EOT
completions() {
    mkdir -p "$stage/$(dirname "$2")"
    "$binary" completions "$1" >"$stage/$2"
}
completions bash usr/share/bash-completion/completions/layeryard
completions zsh usr/share/zsh/vendor-completions/_layeryard
completions fish usr/share/fish/vendor_completions.d/layeryard.fish

mkdir "$stage/DEBIAN"
echo /etc/layeryard/layeryard.toml >"$stage/DEBIAN/conffiles"
cat >"$stage/DEBIAN/control" <<EOT
Package: layeryard
Version: $version
Architecture: $arch
Maintainer: Layeryard
Section: net
Priority: optional
Depends: libc6 (>= 2.36), ca-certificates
Recommends: iptables | nftables
Installed-Size: $(du -sk "$stage" | cut -f1)
Description: private OCI registry that builds images
 Serves the OCI distribution API and builds images from Dockerfiles on the same store.
EOT
cat >"$stage/DEBIAN/postinst" <<'EOT'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    [ -z "$2" ] || systemctl try-restart layeryard.service
fi
EOT
cat >"$stage/DEBIAN/postrm" <<'EOT'
#!/bin/sh
set -e
# Images are nobody's to delete but the user's: /var/lib/layeryard stays, also after a purge.
[ ! -d /run/systemd/system ] || systemctl daemon-reload
EOT
chmod 755 "$stage/DEBIAN/postinst" "$stage/DEBIAN/postrm"
mkdir -p "$out"
dpkg-deb --root-owner-group -Zzstd --build "$stage" "$out/layeryard_${version}_${arch}.deb"
