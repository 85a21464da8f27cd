//! Where things are: the binary under test, the peers, the root file systems. What is missing is named with the
//! command that brings it; no test is skipped for it.

use std::env;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
}

/// The binary that `cargo build` made in the profile of this test.
pub(crate) fn layeryard() -> PathBuf {
    if let Some(path) = env::var_os("LAYERYARD_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("the path of this test");
    let path = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>")
        .join("layeryard");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build` (or `make test`) first",
        path.display()
    );
    path
}

pub(crate) fn peer(name: &str, group: &str) -> PathBuf {
    let path = peers().join("bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `tests/peers/install.sh {group}` (or `make test`) first",
        path.display()
    );
    path
}

pub(crate) fn debian(name: &str) -> PathBuf {
    let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    dirs.iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!("{name} is missing: run `tests/peers/install.sh debian` (or `make test`) first")
        })
}

/// A root file system as tar: `debian` (debootstrap) or `busybox`.
pub(crate) fn rootfs(name: &str) -> PathBuf {
    let path = peers().join("rootfs").join(format!("{name}.tar"));
    assert!(
        path.exists(),
        "{} is missing: run `tests/peers/install.sh rootfs` (or `make test`) first",
        path.display()
    );
    path
}

pub(crate) fn peers() -> PathBuf {
    match env::var_os("LAYERYARD_PEERS_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(&env::var_os("HOME").expect("HOME is set")).join(".cache/layeryard-peers"),
    }
}

/// A directory for one test, under `TMPDIR`. The name is short because unix sockets lie in it.
pub(crate) fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("ly-")
        .rand_bytes(6)
        .tempdir()
        .expect("a temporary directory")
}
