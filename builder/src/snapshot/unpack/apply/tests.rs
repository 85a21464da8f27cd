use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::sync::Arc;

use oci::Digest;

use super::super::layer::{LayerSource, unpack_layer};
use super::*;
use crate::snapshot::{Overlay, Snapshot, SnapshotError, Store};

/// Builds an archive entry by entry, any name allowed.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn entry(mut self, flag: u8, path: &str, link: &str, content: &str) -> Self {
        let mut header = [0; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        let mode = if flag == b'5' { 0o755 } else { 0o644 };
        for (at, width, value) in [
            (100, 8, mode),
            (108, 8, 0),
            (116, 8, 0),
            (124, 12, content.len()),
            (136, 12, 1_000_000_000),
            (329, 8, 0),
            (337, 8, 0),
        ] {
            let digits = width - 1;
            header[at..at + digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
        }
        header[156] = flag;
        header[257..265].copy_from_slice(b"ustar\x0000");
        Self::seal(&mut header);
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn seal(header: &mut [u8]) {
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }

    fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", "")
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(b'0', path, "", content)
    }

    fn xattr(self, name: &str, value: &str) -> Self {
        let rest = format!(" SCHILY.xattr.{name}={value}\n");
        let length = (rest.len()..)
            .find(|length| length - length.to_string().len() == rest.len())
            .unwrap();
        self.entry(b'x', "pax", "", &format!("{length}{rest}"))
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state"), Box::new(Overlay), Some(1 << 40)).unwrap();
        Self { _dir: dir, store }
    }

    fn unpack(
        &self,
        parent: Option<&Arc<Snapshot>>,
        archive: Archive,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        let bytes = archive.finish();
        let digest = Digest::sha256(&bytes);
        let source = LayerSource {
            bytes: &bytes[..],
            digest,
            diff_id: digest,
            layer_time: None,
            instant: 1,
        };
        unpack_layer(&self.store, source)?.commit(&self.store, parent.cloned())
    }

    fn layer(&self, parent: Option<&Arc<Snapshot>>, archive: Archive) -> Arc<Snapshot> {
        self.unpack(parent, archive).unwrap()
    }

    fn refused(&self, archive: Archive) -> String {
        self.unpack(None, archive).unwrap_err().to_string()
    }

    /// Paths of the merged tree, with link targets.
    fn tree(&self, top: &Arc<Snapshot>) -> Vec<String> {
        let tree = self.store.tree(Some(top)).unwrap();
        let root = format!(
            "/proc/self/fd/{}",
            AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&tree))
        );
        walkdir::WalkDir::new(format!("{root}/"))
            .sort_by_file_name()
            .min_depth(1)
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().strip_prefix(&root).unwrap().display().to_string();
                match fs::read_link(entry.path()) {
                    Ok(target) => format!("{path} -> {}", target.display()),
                    Err(_) => path,
                }
            })
            .collect()
    }
}

#[test]
fn whiteouts_delete_and_opaque_directories_hide() {
    let fixture = Fixture::new();
    let base = fixture.layer(
        None,
        Archive::default()
            .dir("a/")
            .file("a/x", "x")
            .file("a/y", "y")
            .dir("b/")
            .file("b/x", "x")
            .file("c", "c"),
    );
    let top = fixture.layer(
        Some(&base),
        Archive::default()
            .dir("a/")
            .file("a/.wh.x", "")
            .dir("b/")
            .file("b/.wh..wh..opq", "")
            .file("b/new", "")
            .file(".wh.c", "")
            .file(".wh.never-was", "")
            .file("a/.wh..wh.plnk", ""),
    );
    assert_eq!(fixture.tree(&top), ["a", "a/y", "b", "b/new"]);
    assert!(
        !top.fs().join("never-was").exists(),
        "a whiteout of nothing is dropped"
    );
    assert!(
        fs::symlink_metadata(top.fs().join("c"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

#[test]
fn a_directory_deleted_and_made_anew_does_not_merge() {
    let fixture = Fixture::new();
    let base = fixture.layer(None, Archive::default().dir("d/").file("d/old", ""));
    for archive in [
        Archive::default().file(".wh.d", "").dir("d/").file("d/new", ""),
        Archive::default().dir("d/").file("d/new", "").file(".wh.d", ""),
    ] {
        let top = fixture.layer(Some(&base), archive);
        assert_eq!(fixture.tree(&top), ["d", "d/new"]);
    }
}

#[test]
fn implied_parents_are_those_below() {
    let fixture = Fixture::new();
    let base = fixture.layer(
        None,
        Archive::default()
            .dir("opt/")
            .dir("usr/")
            .dir("usr/lib/")
            .entry(b'2', "lib", "usr/lib", ""),
    );
    fs::set_permissions(base.fs().join("opt"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(base.fs().join("opt"), Some(7), Some(8)).unwrap();
    let top = fixture.layer(
        Some(&base),
        Archive::default()
            .file("opt/tool", "")
            .file("lib/libx.so", "")
            .file("new/deep/file", ""),
    );
    assert_eq!(
        fixture.tree(&top),
        [
            "lib -> usr/lib",
            "new",
            "new/deep",
            "new/deep/file",
            "opt",
            "opt/tool",
            "usr",
            "usr/lib",
            "usr/lib/libx.so"
        ]
    );
    let opt = fs::metadata(top.fs().join("opt")).unwrap();
    assert_eq!(
        (opt.mode() & 0o7777, opt.uid(), opt.gid(), opt.mtime()),
        (0o700, 7, 8, 1_000_000_000)
    );
}

#[test]
fn a_hardlink_to_a_lower_file_is_copied_up() {
    let fixture = Fixture::new();
    let base = fixture.layer(None, Archive::default().dir("d/").file("d/real", "content"));
    let top = fixture.layer(Some(&base), Archive::default().entry(b'1', "also", "d/real", ""));
    let (one, two) = (
        fs::metadata(top.fs().join("also")).unwrap(),
        fs::metadata(top.fs().join("d/real")).unwrap(),
    );
    assert_eq!(one.ino(), two.ino());
    assert_eq!(fs::read(top.fs().join("also")).unwrap(), b"content");
    assert_eq!(one.mtime(), 1_000_000_000);
    let error = fixture
        .unpack(Some(&base), Archive::default().entry(b'1', "x", "d/none", ""))
        .unwrap_err();
    assert!(error.to_string().contains("d/none"), "{error}");
}

#[test]
fn types_change_places() {
    let fixture = Fixture::new();
    let layer = fixture.layer(
        None,
        Archive::default()
            .dir("a/")
            .file("a/inner", "")
            .file("a", "now a file")
            .file("b", "")
            .dir("b/")
            .file("b/inner", "")
            .entry(b'6', "pipe", "", ""),
    );
    assert_eq!(fixture.tree(&layer), ["a", "b", "b/inner", "pipe"]);
}

#[test]
fn nothing_leads_out_of_the_layer() {
    let fixture = Fixture::new();
    let state = fixture.store.dir().to_owned();
    for archive in [
        Archive::default().file("../out", ""),
        Archive::default().file("a/../../out", ""),
        Archive::default().entry(b'1', "hard", "../../out", ""),
        Archive::default().entry(b'1', "hard", "/etc/passwd", ""),
    ] {
        fixture.refused(archive);
    }
    let layer = fixture.layer(
        None,
        Archive::default()
            .entry(b'2', "abs", &state.display().to_string(), "")
            .file("abs/escaped", "")
            .entry(b'2', "up", "../../..", "")
            .file("up/escaped-too", ""),
    );
    assert!(!state.join("escaped").exists() && !state.join("escaped-too").exists());
    assert!(layer.fs().join("escaped-too").exists());
    assert!(
        layer
            .fs()
            .join(state.strip_prefix("/").unwrap())
            .join("escaped")
            .exists()
    );
}

#[test]
fn overlays_own_marks_can_not_be_forged() {
    let fixture = Fixture::new();
    let error = fixture.refused(Archive::default().entry(b'3', "whiteout", "", ""));
    assert!(error.contains("0:0"), "{error}");
    let layer = fixture.layer(
        None,
        Archive::default()
            .xattr("user.overlay.redirect", "/etc")
            .dir("d/")
            .xattr("trusted.overlay.opaque", "y")
            .dir("e/")
            .xattr("user.kept", "yes")
            .file("f", ""),
    );
    let xattrs = |name: &str| {
        let file = File::open(layer.fs().join(name)).unwrap();
        let mut names = vec![0; 1000];
        let used = rustix::fs::flistxattr(&file, &mut names[..]).unwrap();
        String::from_utf8_lossy(&names[..used]).into_owned()
    };
    assert_eq!(
        (xattrs("d"), xattrs("e"), xattrs("f")),
        (String::new(), String::new(), "user.kept\0".to_owned())
    );
}

#[test]
fn wrong_digests_are_found() {
    let fixture = Fixture::new();
    let bytes = Archive::default().file("a", "a").finish();
    let (right, wrong) = (Digest::sha256(&bytes), Digest::sha256(b"other"));
    let unpack = |bytes: &[u8], digest, diff_id| {
        unpack_layer(
            &fixture.store,
            LayerSource {
                bytes,
                digest,
                diff_id,
                layer_time: None,
                instant: 1,
            },
        )
        .err()
    };
    assert!(matches!(
        unpack(&bytes, wrong, right),
        Some(SnapshotError::DigestMismatch { .. })
    ));
    assert!(matches!(
        unpack(&bytes, right, wrong),
        Some(SnapshotError::DiffIdMismatch { .. })
    ));
    assert!(unpack(&bytes[..700], right, right).is_some(), "cut off");
}

#[test]
fn every_compression_and_every_member_is_read() {
    let fixture = Fixture::new();
    let plain = Archive::default().file("a", &"content ".repeat(1000)).finish();
    let mut members = Vec::new();
    for half in plain.chunks(plain.len() / 2) {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        Write::write_all(&mut encoder, half).unwrap();
        members.extend(encoder.finish().unwrap());
    }
    for bytes in [members, zstd::encode_all(&plain[..], 3).unwrap(), plain.clone()] {
        let (digest, diff_id) = (Digest::sha256(&bytes), Digest::sha256(&plain));
        let source = LayerSource {
            bytes: &bytes[..],
            digest,
            diff_id,
            layer_time: Some(1_000_000_000),
            instant: 5_000,
        };
        let layer = unpack_layer(&fixture.store, source)
            .unwrap()
            .commit(&fixture.store, None)
            .unwrap();
        let metadata = fs::metadata(layer.fs().join("a")).unwrap();
        assert_eq!(
            (metadata.len(), metadata.mtime_nsec()),
            (8000, 5_000),
            "its time is the layer's: the instant"
        );
    }
}

#[test]
fn what_lies_under_a_link_of_a_lower_layer_moves_to_where_it_leads() {
    let fixture = Fixture::new();
    let base = fixture.layer(
        None,
        Archive::default()
            .dir("real/")
            .file("real/gone", "")
            .file("real/kept", "kept")
            .dir("real/sub/")
            .entry(b'2', "esc", "real", ""),
    );
    fs::set_permissions(base.fs().join("real/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    let top = fixture.layer(
        Some(&base),
        Archive::default()
            .file("esc/.wh.gone", "")
            .file("esc/.wh.never-was", "")
            .file("esc/sub/new", "")
            .file("real/sub/other", "")
            .entry(b'1', "esc/also", "real/kept", ""),
    );
    assert_eq!(
        fixture.tree(&top),
        [
            "esc -> real",
            "real",
            "real/also",
            "real/kept",
            "real/sub",
            "real/sub/new",
            "real/sub/other"
        ]
    );
    assert_eq!(
        fs::metadata(top.fs().join("real/sub")).unwrap().mode() & 0o7777,
        0o700
    );
}
