use std::os::unix::fs::MetadataExt;

use super::super::{Overlay, Root};
use super::*;

fn open(dir: &Path) -> Store {
    Store::open(dir, Box::new(Overlay), Some(1 << 40)).unwrap()
}

fn layer(store: &Store, parent: Option<&Arc<Snapshot>>, files: &[(&str, &str)]) -> Arc<Snapshot> {
    let pending = store.begin(parent).unwrap();
    for (name, text) in files {
        fs::write(pending.fs().join(name), text).unwrap();
    }
    pending.commit(parent.cloned(), None, None).unwrap()
}

#[test]
fn writes_go_to_the_upper_and_become_the_next_lower() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let base = layer(&store, None, &[("a", "1"), ("b", "2")]);
    let pending = store.begin(Some(&base)).unwrap();
    {
        let tree = Root::new(pending.tree(Some(&base)).unwrap().into_fd());
        assert!(
            tree.stat(Path::new("etc/resolv.conf")).unwrap().is_some(),
            "the stub is below"
        );
        rustix::fs::unlinkat(&tree, "a", rustix::fs::AtFlags::empty()).unwrap();
        tree.make_dirs(Path::new("d"), 0o700, |_, _| Ok(())).unwrap();
    }
    let top = pending.commit(Some(Arc::clone(&base)), None, None).unwrap();
    let merged = Root::new(store.tree(Some(&top)).unwrap().into_fd());
    assert!(merged.stat(Path::new("a")).unwrap().is_none());
    assert!(
        merged.stat(Path::new("etc")).unwrap().is_none(),
        "no stub in what the image has"
    );
    assert_eq!(
        merged.stat(Path::new("d")).unwrap().unwrap().st_mode & 0o7777,
        0o700
    );
    assert_eq!(merged.read_file(Path::new("b"), 10).unwrap().unwrap(), b"2");
    assert!(!top.dir.join("work").exists());
}

#[test]
fn the_root_keeps_the_attributes_of_the_tree_below() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let pending = store.begin(None).unwrap();
    std::os::unix::fs::chown(pending.fs(), Some(7), Some(8)).unwrap();
    let base = pending.commit(None, None, None).unwrap();
    let next = store.begin(Some(&base)).unwrap();
    let metadata = fs::metadata(next.fs()).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        (7, 8, 0o755)
    );
}

#[test]
fn an_empty_chain_is_an_empty_tree() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let tree = store.tree(None).unwrap();
    let root = Root::new(tree.into_fd()).open_dir(Path::new("")).unwrap();
    let mut entries = rustix::fs::Dir::read_from(root).unwrap();
    assert!(entries.all(|entry| entry.unwrap().file_name().to_bytes().starts_with(b".")));
}

#[test]
fn snapshots_survive_a_restart_with_their_parents_only() {
    let dir = tempfile::tempdir().unwrap();
    let (diff, chain, lost, unfinished);
    {
        let store = open(dir.path());
        let base = layer(&store, None, &[("a", "1")]);
        let top = layer(&store, Some(&base), &[("b", "2")]);
        diff = Digest::sha256(b"layer");
        chain = ChainId::extend(None, &diff, None);
        store.set_chain(&top, diff, chain.clone()).unwrap();
        let torn = layer(&store, None, &[]);
        let orphan = layer(&store, Some(&torn), &[]);
        lost = [torn.id.clone(), orphan.id.clone()];
        unfinished = store.begin(None).unwrap().id.clone();
    }
    fs::write(dir.path().join("s").join(&lost[0]).join("meta.json"), "{").unwrap();
    let store = open(dir.path());
    let found = store.find(&chain).expect("the chain is still known");
    assert_eq!(found.meta().diff_id, Some(diff));
    assert_eq!(fs::read(found.parent().unwrap().fs().join("a")).unwrap(), b"1");
    for id in lost.iter().chain([&unfinished]) {
        assert!(!dir.path().join("s").join(id).exists(), "{id}");
    }
    assert!(
        store.begin(None).unwrap().id.len() >= 2,
        "numbers are not used twice"
    );
}

#[test]
fn an_unsynced_snapshot_of_another_boot_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<String>;
    {
        let store = open(dir.path());
        let snapshots = [layer(&store, None, &[]), layer(&store, None, &[])];
        for snapshot in &snapshots {
            snapshot.meta().boot_id = "another".into();
        }
        ids = snapshots.iter().map(|snapshot| snapshot.id.clone()).collect();
        drop(store);
        let path = dir.path().join("s").join(&ids[1]);
        let mut meta = snapshots[1].meta().clone();
        meta.synced = false;
        write_meta(&path, &meta).unwrap();
    }
    drop(open(dir.path()));
    let kept: Vec<bool> = ids
        .iter()
        .map(|id| dir.path().join("s").join(id).exists())
        .collect();
    assert_eq!(kept, [true, false]);
}

#[test]
fn only_what_nobody_needs_is_dropped_to_keep_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Box::new(Overlay), Some(1)).unwrap();
    let base = layer(&store, None, &[("a", "content")]);
    let child = layer(&store, Some(&base), &[("b", "content")]);
    let (base_dir, child_dir) = (base.dir.clone(), child.dir.clone());
    drop(base);
    let trigger = || {
        layer(&store, None, &[("c", "content")]);
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    trigger();
    assert!(base_dir.exists() && child_dir.exists(), "a pinned chain stays");
    drop(child);
    trigger();
    assert!(!child_dir.exists() && !base_dir.exists(), "an unpinned one goes");
}

#[test]
fn a_second_worker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    assert!(matches!(
        Store::open(dir.path(), Box::new(Overlay), None),
        Err(SnapshotError::InUse { .. })
    ));
}
