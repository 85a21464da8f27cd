use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::*;
use crate::layer::ChainTimes;
use crate::snapshot::{Overlay, Snapshot, Store, Times};

const T: i64 = 300_000_000;

/// A base that `fill` writes, and what `step` changes on it through an overlay.
struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    base: Arc<Snapshot>,
}

impl Fixture {
    fn new(fill: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Box::new(Overlay), Some(1 << 40)).unwrap();
        let pending = store.begin(None).unwrap();
        fill(&pending.fs());
        let base = pending.commit(None, None, None).unwrap();
        Self {
            _dir: dir,
            store,
            base,
        }
    }

    /// Names (with link targets and a mark for times that are T) of the layer's entries.
    fn layer(&self, step: impl FnOnce(&Path)) -> Result<(Vec<String>, Vec<u8>), LayerError> {
        let pending = self.store.begin(Some(&self.base)).unwrap();
        let low = self.store.clock().start().unwrap();
        {
            let tree = pending.tree(Some(&self.base)).unwrap();
            // A process's own descriptor is a path that leads into the detached mount.
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tree.as_fd()));
            step(Path::new(&path));
        }
        let high = self.store.clock().end().unwrap();
        let upper = pending.fs();
        let diff = Diff {
            upper,
            lower: self.store.tree(Some(&self.base)).unwrap(),
            times: LayerTimes {
                own: T,
                step: Times { low, high },
                below: ChainTimes::default(),
            },
        };
        let mut archive = Vec::new();
        diff.write(&mut archive)?;
        Ok((list(&archive), archive))
    }

    fn names(&self, step: impl FnOnce(&Path)) -> Vec<String> {
        self.layer(step).unwrap().0
    }
}

fn list(archive: &[u8]) -> Vec<String> {
    let mut reader = ::tar::Archive::new(archive);
    reader
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mut text = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if let Some(link) = entry.link_name_bytes() {
                text = format!("{text} -> {}", String::from_utf8_lossy(&link));
            }
            if entry.header().mtime().unwrap() == T as u64 {
                text.push_str(" T");
            }
            text
        })
        .collect()
}

fn base(root: &Path) {
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::create_dir_all(root.join("usr")).unwrap();
    fs::write(root.join("etc/deep/a"), "a").unwrap();
    fs::write(root.join("etc/b"), "b").unwrap();
    fs::write(root.join("usr/c"), "c").unwrap();
    fs::hard_link(root.join("usr/c"), root.join("usr/c2")).unwrap();
    symlink("c", root.join("usr/s")).unwrap();
    // Old enough to be no step's own.
    for path in ["etc/deep/a", "etc/b", "usr/c", "etc/deep", "etc", "usr", "."] {
        let file = File::open(root.join(path)).unwrap();
        rustix::fs::futimens(&file, &crate::snapshot::mtime_stamps(1_700_000_000_000_000_000)).unwrap();
    }
}

#[test]
fn nothing_done_is_an_empty_layer() {
    let fixture = Fixture::new(base);
    let (names, archive) = fixture.layer(|_| {}).unwrap();
    assert!(names.is_empty());
    assert_eq!(archive, [0; 1024]);
}

#[test]
fn changes_come_sorted_with_their_parents() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        fs::write(root.join("usr/new"), "x").unwrap();
        fs::write(root.join("etc/deep/a"), "changed").unwrap();
        fs::remove_file(root.join("etc/b")).unwrap();
        fs::create_dir(root.join("etc/a-dir")).unwrap();
        symlink("/usr", root.join("link")).unwrap();
    });
    let expected = [
        "etc/ T",
        "etc/.wh.b",
        "etc/a-dir/ T",
        "etc/deep/",
        "etc/deep/a T",
        "link -> /usr T",
        "usr/ T",
        "usr/new T",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_replaced_directory_is_opaque() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        fs::remove_dir_all(root.join("etc")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/b"), "b").unwrap();
    });
    assert_eq!(names, ["etc/ T", "etc/.wh..wh..opq", "etc/b T"]);
}

#[test]
fn a_directory_and_a_file_can_swap_their_places() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        fs::remove_dir_all(root.join("usr")).unwrap();
        fs::write(root.join("usr"), "file").unwrap();
        fs::remove_file(root.join("etc/b")).unwrap();
        fs::create_dir(root.join("etc/b")).unwrap();
    });
    assert_eq!(names, ["etc/ T", "etc/b/ T", "usr T"]);
}

#[test]
fn what_came_and_went_leaves_no_trace_but_a_time() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        fs::write(root.join("etc/tmp"), "x").unwrap();
        fs::remove_file(root.join("etc/tmp")).unwrap();
        fs::create_dir(root.join("new")).unwrap();
        fs::remove_dir(root.join("new")).unwrap();
    });
    assert_eq!(names, ["etc/ T"]);
}

#[test]
fn unchanged_copies_are_skipped() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        for path in ["etc", "etc/b", "usr/c", "usr/s"] {
            std::os::unix::fs::lchown(root.join(path), Some(0), Some(0)).unwrap();
        }
    });
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn metadata_changes_are_found() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        fs::set_permissions(root.join("etc/b"), fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::lchown(root.join("usr"), Some(7), Some(0)).unwrap();
    });
    assert_eq!(names, ["etc/", "etc/b", "usr/"], "with the times of the base");
}

#[test]
fn hardlinks_are_kept_and_whiteouts_are_none() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        fs::write(root.join("usr/x"), "x").unwrap();
        fs::hard_link(root.join("usr/x"), root.join("etc/y")).unwrap();
        fs::hard_link(root.join("usr/c"), root.join("usr/c3")).unwrap();
        fs::remove_file(root.join("etc/b")).unwrap();
        fs::remove_file(root.join("etc/deep/a")).unwrap();
    });
    let expected = [
        "etc/ T",
        "etc/.wh.b",
        "etc/deep/ T",
        "etc/deep/.wh.a",
        "etc/y T",
        "usr/ T",
        "usr/c",
        "usr/c3 -> usr/c",
        "usr/x -> etc/y T",
    ];
    assert_eq!(names, expected);
}

#[test]
fn image_attributes_stay_and_overlays_go() {
    let fixture = Fixture::new(base);
    let capability = [1u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (names, archive) = fixture
        .layer(|root| {
            fs::write(root.join("ping"), "x").unwrap();
            let file = File::open(root.join("ping")).unwrap();
            for (name, value) in [
                ("user.note", &b"kept"[..]),
                ("user.overlay.opaque", b"y"),
                ("security.capability", &capability),
                ("trusted.secret", b"dropped"),
            ] {
                rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty()).unwrap();
            }
        })
        .unwrap();
    assert_eq!(names, ["ping T"]);
    let mut reader = ::tar::Archive::new(&archive[..]);
    let mut entry = reader.entries().unwrap().next().unwrap().unwrap();
    let keys: Vec<String> = entry
        .pax_extensions()
        .unwrap()
        .unwrap()
        .map(|record| record.unwrap().key().unwrap().to_owned())
        .collect();
    assert_eq!(
        keys,
        ["SCHILY.xattr.security.capability", "SCHILY.xattr.user.note"]
    );
}

#[test]
fn the_root_has_an_entry_only_if_its_owner_or_mode_changed() {
    let fixture = Fixture::new(base);
    let names = fixture.names(|root| {
        let root = root.join(".");
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
    });
    assert_eq!(names.len(), 1);
    assert!(names[0].starts_with("./"), "{names:?}");
}

#[test]
fn the_stub_is_not_part_of_the_image() {
    let fixture = Fixture::new(|root| fs::create_dir(root.join("usr")).unwrap());
    let names = fixture.names(|root| {
        assert!(root.join("etc/hosts").exists());
        fs::write(root.join("etc/x"), "").unwrap();
        fs::remove_file(root.join("etc/x")).unwrap();
        fs::remove_file(root.join("etc/hosts")).unwrap();
    });
    assert!(names.is_empty(), "{names:?}");
    let names = fixture.names(|root| fs::write(root.join("etc/x"), "").unwrap());
    assert_eq!(names, ["etc/ T", "etc/x T"]);
}

#[test]
fn a_whiteouts_name_is_refused_and_a_socket_left_out() {
    let fixture = Fixture::new(base);
    let error = fixture
        .layer(|root| fs::write(root.join("usr/.wh.x"), "").unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("usr/.wh.x"), "{error}");
    let names = fixture.names(|root| {
        let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    });
    assert_eq!(names, ["pipe T"]);
}

#[test]
fn the_layer_is_the_same_whenever_and_wherever_it_is_made() {
    let step = |root: &Path| {
        fs::create_dir_all(root.join("app/bin")).unwrap();
        fs::write(root.join("app/bin/tool"), vec![7; 100_000]).unwrap();
        fs::hard_link(root.join("app/bin/tool"), root.join("app/bin/alias")).unwrap();
        fs::remove_file(root.join("etc/b")).unwrap();
    };
    let first = Fixture::new(base).layer(step).unwrap().1;
    std::thread::sleep(std::time::Duration::from_millis(30));
    let second = Fixture::new(base).layer(step).unwrap().1;
    assert!(first == second);
    assert_eq!(
        oci::Digest::sha256(&first).hex(),
        "5b04c5c17acda1036f49c5775aaa706887b0a5dd81dd6baf0225c22d6e3a70df"
    );
}

#[test]
fn a_tree_may_be_deep_but_not_bottomless() {
    let nest = |root: &Path, depth: usize| {
        let mut dir = OwnedFd::from(File::open(root).unwrap());
        for _ in 0..depth {
            rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o700)).unwrap();
            dir = rustix::fs::openat(&dir, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
    };
    let deepest = move || {
        let names = Fixture::new(base).names(|root| nest(root, crate::snapshot::MAX_TREE_DEPTH));
        assert_eq!(names.len(), crate::snapshot::MAX_TREE_DEPTH);
    };
    let thread = std::thread::Builder::new()
        .stack_size(crate::blocking::STACK_BYTES)
        .spawn(deepest);
    thread.unwrap().join().unwrap();
    let fixture = Fixture::new(base);
    let walk = move || fixture.layer(|root| nest(root, 400)).unwrap_err();
    let thread = std::thread::Builder::new()
        .stack_size(crate::blocking::STACK_BYTES)
        .spawn(walk);
    let error = thread.unwrap().join().unwrap();
    assert!(
        error.to_string().contains("/d/d/d/d can't be in an image"),
        "{error}"
    );
}
