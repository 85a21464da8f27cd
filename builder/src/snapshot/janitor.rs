//! What needs no one to wait for it: measuring, dropping the least used snapshots, emptying the trash, syncing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::SnapshotError;
use super::error::IoContext;
use super::store::{Index, Shared, Snapshot, write_meta};
use super::walk;

/// After this much time without work the file system is synced once, so that the cache survives a power cut.
const IDLE: Duration = Duration::from_secs(30);
/// The budget is the smaller of these: a share of the file system, and a fixed size.
const BUDGET_SHARE: u64 = 5;
const BUDGET_BYTES: u64 = 50 << 30;

pub(super) enum Request {
    /// A snapshot was committed: learn its size, then keep to the budget.
    Measure(String),
    EmptyTrash,
    Stop,
}

/// The background thread. Dropped, it finishes what was asked and syncs.
pub(super) struct Janitor {
    requests: Sender<Request>,
    thread: Option<JoinHandle<()>>,
}

impl Janitor {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self, SnapshotError> {
        let (requests, receiver) = channel();
        let dir = shared.dir.clone();
        let thread = std::thread::Builder::new()
            .name("snapshot-janitor".into())
            .spawn(move || run(&shared, &receiver))
            .on("start the background thread for", &dir)?;
        Ok(Self {
            requests,
            thread: Some(thread),
        })
    }

    pub(super) fn requests(&self) -> Sender<Request> {
        self.requests.clone()
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Others may still hold senders, so a closed channel is not what ends the thread.
        let _ = self.requests.send(Request::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The default budget of a state directory.
pub(super) fn default_budget(dir: &Path) -> Result<u64, SnapshotError> {
    let stat = rustix::fs::statvfs(dir).on("ask for the size of the file system of", dir)?;
    Ok((stat.f_blocks * stat.f_frsize / BUDGET_SHARE).min(BUDGET_BYTES))
}

fn run(shared: &Shared, requests: &Receiver<Request>) {
    empty_trash(&shared.dir.join("trash"));
    let mut dirty = false;
    loop {
        match requests.recv_timeout(IDLE) {
            Ok(Request::Measure(id)) => {
                dirty = true;
                measure(shared, &id);
                if keep_to_budget(shared) {
                    empty_trash(&shared.dir.join("trash"));
                }
            }
            Ok(Request::EmptyTrash) => empty_trash(&shared.dir.join("trash")),
            Err(RecvTimeoutError::Timeout) if dirty => {
                sync(shared);
                dirty = false;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => {
                if dirty {
                    sync(shared);
                }
                return;
            }
        }
    }
}

fn empty_trash(trash: &Path) {
    let Ok(entries) = fs::read_dir(trash) else { return };
    for entry in entries.flatten() {
        // The clock's probe files lie here too and are nobody's trash yet.
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Err(error) = walk::remove_tree(&entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "could not empty the trash");
        }
    }
}

fn measure(shared: &Shared, id: &str) {
    let Some(snapshot) = shared.index().by_id.get(id).cloned() else {
        return;
    };
    let blocks: u64 = walkdir::WalkDir::new(snapshot.fs())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.blocks())
        .sum();
    snapshot.meta().bytes = blocks * 512;
}

/// Moves the least recently used snapshots that nobody holds and nothing stands on to the trash.
fn keep_to_budget(shared: &Shared) -> bool {
    let mut index = shared.index();
    let mut total: u64 = index.by_id.values().map(|snapshot| snapshot.meta().bytes).sum();
    let mut dropped = false;
    while total > shared.budget_bytes {
        let Some(victim) = least_used(&index) else { break };
        let Some(snapshot) = index.by_id.remove(&victim) else {
            break;
        };
        let meta = snapshot.meta().clone();
        total = total.saturating_sub(meta.bytes);
        if let Some(chain) = meta.chain_id
            && index.by_chain.get(&chain) == Some(&victim)
        {
            index.by_chain.remove(&chain);
        }
        shared.to_trash(&victim);
        dropped = true;
    }
    dropped
}

/// Only the index holds it: no build has it pinned, no snapshot has it as its parent.
fn least_used(index: &Index) -> Option<String> {
    index
        .by_id
        .iter()
        .filter(|(_, snapshot)| Arc::strong_count(snapshot) == 1)
        .min_by_key(|(_, snapshot)| snapshot.meta().last_used)
        .map(|(id, _)| id.clone())
}

/// One sync for all snapshots, then each is marked as whole.
fn sync(shared: &Shared) {
    let snapshots: Vec<Arc<Snapshot>> = shared.index().by_id.values().cloned().collect();
    let synced = fs::File::open(&shared.dir).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
    if let Err(error) = synced {
        tracing::warn!(%error, "could not sync the snapshots");
        return;
    }
    for snapshot in snapshots {
        let meta = {
            let mut meta = snapshot.meta();
            meta.synced = true;
            meta.clone()
        };
        if let Err(error) = write_meta(snapshot.dir(), &meta) {
            tracing::warn!(snapshot = snapshot.id(), %error, "could not mark a snapshot as synced");
        }
    }
}
