//! The store: which snapshots this node has, their life from first write to trash.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use oci::Digest;
use rustix::fs::FlockOperation;

use super::attributes::Attributes;
use super::clock::Clock;
use super::error::{IoContext, SnapshotError};
use super::janitor::{Janitor, Request};
use super::meta::{ChainId, META_VERSION, Meta, Times};
use super::overlay::{Snapshotter, Tree, Writable};
use super::{stub, walk};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How many numbers one write of the counter file reserves.
const COUNTER_BLOCK: u64 = 1024;
const ROOT_MODE: u32 = 0o755;

/// All snapshots of a state directory. One process at a time.
pub struct Store {
    shared: Arc<Shared>,
    janitor: Janitor,
    _lock: File,
}

/// What the store and its janitor both work on.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) boot_id: String,
    pub(super) budget_bytes: u64,
    index: Mutex<Index>,
    driver: Box<dyn Snapshotter>,
    clock: Clock,
    next: AtomicU64,
}

#[derive(Default)]
pub(super) struct Index {
    pub(super) by_id: BTreeMap<String, Arc<Snapshot>>,
    pub(super) by_chain: HashMap<ChainId, String>,
}

/// A complete, immutable layer directory on top of others. Whoever holds it, or one that stands on it, keeps it.
#[derive(Debug)]
pub struct Snapshot {
    id: String,
    dir: PathBuf,
    parent: Option<Arc<Self>>,
    meta: Mutex<Meta>,
}

/// A directory being written. Dropped without [`Pending::commit`], it goes to the trash.
pub struct Pending {
    id: String,
    dir: PathBuf,
    shared: Arc<Shared>,
    requests: std::sync::mpsc::Sender<Request>,
    committed: bool,
}

impl Store {
    /// Takes a state directory over: drops what is incomplete, torn, or without its parent.
    pub fn open(
        dir: &Path,
        driver: Box<dyn Snapshotter>,
        budget_bytes: Option<u64>,
    ) -> Result<Self, SnapshotError> {
        let lock = lock_state(dir)?;
        for name in ["s", "trash", "empty", "stub"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).on("make the directory", &path)?;
        }
        stub::make(&dir.join("stub"))?;
        let budget_bytes = match budget_bytes {
            Some(bytes) => bytes,
            None => super::janitor::default_budget(dir)?,
        };
        let shared = Arc::new(Shared {
            boot_id: fs::read_to_string(BOOT_ID).on("read", BOOT_ID)?.trim().to_owned(),
            budget_bytes,
            index: Mutex::new(Index::default()),
            driver,
            clock: Clock::new(dir.join("trash")),
            next: AtomicU64::new(0),
            dir: dir.to_owned(),
        });
        shared.load()?;
        let janitor = Janitor::start(Arc::clone(&shared))?;
        Ok(Self {
            shared,
            janitor,
            _lock: lock,
        })
    }

    /// A new, empty directory; its root's attributes are those of `/` in the tree below.
    pub fn begin(&self, parent: Option<&Arc<Snapshot>>) -> Result<Pending, SnapshotError> {
        let id = base36(self.shared.take_number()?);
        let dir = self.shared.dir.join("s").join(&id);
        for path in [dir.clone(), dir.join("fs"), dir.join("work")] {
            fs::create_dir(&path).on("make the directory", &path)?;
        }
        let pending = Pending {
            id,
            shared: Arc::clone(&self.shared),
            requests: self.janitor.requests(),
            committed: false,
            dir,
        };
        let attributes = match parent {
            Some(parent) => parent.root_attributes()?,
            None => Attributes {
                mode: ROOT_MODE,
                uid: 0,
                gid: 0,
                xattrs: BTreeMap::new(),
            },
        };
        let root = File::open(pending.fs()).on("open", pending.fs())?;
        attributes
            .write(&root)
            .on("set the attributes of", pending.fs())?;
        Ok(pending)
    }

    /// The snapshot of a chain, if this node has it. The caller has proved its right to the chain by resolving an
    /// image or by a cache record.
    pub fn find(&self, chain: &ChainId) -> Option<Arc<Snapshot>> {
        let index = self.shared.index();
        let snapshot = index.by_id.get(index.by_chain.get(chain)?)?;
        snapshot.meta().last_used = now_seconds();
        Some(Arc::clone(snapshot))
    }

    /// The read-only tree of a chain as the image has it: without the stub.
    pub fn tree(&self, top: Option<&Arc<Snapshot>>) -> Result<Tree, SnapshotError> {
        let mut lowers = lowers(top);
        lowers.push(self.shared.dir.join("empty"));
        if lowers.len() == 1 {
            // An overlay needs two lowers, or an upper.
            lowers.push(self.shared.dir.join("stub/proc"));
        }
        self.shared.driver.join(&lowers, None)
    }

    /// Remembers which layer a snapshot turned out to be, so that later builds find it.
    pub fn set_chain(
        &self,
        snapshot: &Arc<Snapshot>,
        diff_id: Digest,
        chain: ChainId,
    ) -> Result<(), SnapshotError> {
        let meta = {
            let mut meta = snapshot.meta();
            meta.diff_id = Some(diff_id);
            meta.chain_id = Some(chain.clone());
            meta.clone()
        };
        write_meta(&snapshot.dir, &meta)?;
        self.shared
            .index()
            .by_chain
            .entry(chain)
            .or_insert_with(|| snapshot.id.clone());
        Ok(())
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The directory under which the state lies.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }
}

impl Snapshot {
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// The layer's own directory.
    pub fn fs(&self) -> PathBuf {
        self.dir.join("fs")
    }

    pub fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn root_attributes(&self) -> Result<Attributes, SnapshotError> {
        let path = self.fs();
        let root = File::open(&path).on("open", &path)?;
        Attributes::read(&root).on("read the attributes of", &path)
    }
}

impl Pending {
    pub fn fs(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// The writable tree of `parent`'s chain with this directory on top and the stub below everything. Once only: the
    /// overlay is volatile.
    pub fn tree(&self, parent: Option<&Arc<Snapshot>>) -> Result<Tree, SnapshotError> {
        let mut lowers = lowers(parent);
        lowers.push(self.shared.dir.join("stub"));
        let (upper, work) = (self.fs(), self.dir.join("work"));
        self.shared.driver.join(
            &lowers,
            Some(Writable {
                upper: &upper,
                work: &work,
            }),
        )
    }

    /// Completes the snapshot on top of `parent`.
    pub fn commit(
        mut self,
        parent: Option<Arc<Snapshot>>,
        layer_time: Option<i64>,
        times: Option<Times>,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        let work = self.dir.join("work");
        walk::remove_tree(&work).on("remove", &work)?;
        let meta = Meta {
            v: META_VERSION,
            boot_id: self.shared.boot_id.clone(),
            synced: false,
            parent: parent.as_ref().map(|parent| parent.id.clone()),
            diff_id: None,
            chain_id: None,
            layer_time,
            times,
            bytes: 0,
            last_used: now_seconds(),
        };
        write_meta(&self.dir, &meta)?;
        let snapshot = Arc::new(Snapshot {
            id: self.id.clone(),
            dir: self.dir.clone(),
            parent,
            meta: Mutex::new(meta),
        });
        self.committed = true;
        self.shared
            .index()
            .by_id
            .insert(self.id.clone(), Arc::clone(&snapshot));
        // A janitor that is gone means that the store is closing.
        let _ = self.requests.send(Request::Measure(self.id.clone()));
        Ok(snapshot)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.committed {
            self.shared.to_trash(&self.id);
            let _ = self.requests.send(Request::EmptyTrash);
        }
    }
}

impl Shared {
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a snapshot's directory out of the way; a failure leaves it to the next start.
    pub(super) fn to_trash(&self, id: &str) {
        let (from, to) = (self.dir.join("s").join(id), self.dir.join("trash").join(id));
        if let Err(error) = fs::rename(&from, &to) {
            tracing::warn!(snapshot = id, %error, "could not move a snapshot to the trash");
        }
    }

    /// Reads every snapshot, parents first; what does not qualify goes to the trash.
    fn load(&self) -> Result<(), SnapshotError> {
        let dir = self.dir.join("s");
        let mut found: BTreeMap<u64, String> = BTreeMap::new();
        for entry in fs::read_dir(&dir).on("list", &dir)? {
            let name = entry.on("list", &dir)?.file_name().to_string_lossy().into_owned();
            match u64::from_str_radix(&name, 36) {
                Ok(number) if base36(number) == name => {
                    found.insert(number, name);
                }
                _ => self.to_trash(&name),
            }
        }
        let mut index = self.index();
        // A parent is always older than its children, so its number is lower.
        for id in found.values() {
            match self.load_one(id, &index) {
                Some(snapshot) => {
                    if let Some(chain) = snapshot.meta().chain_id.clone() {
                        index.by_chain.insert(chain, id.clone());
                    }
                    index.by_id.insert(id.clone(), Arc::new(snapshot));
                }
                None => self.to_trash(id),
            }
        }
        let reserved = read_counter(&self.dir);
        let highest = found.keys().last().map_or(0, |highest| highest + 1);
        self.next.store(highest.max(reserved), Ordering::Relaxed);
        Ok(())
    }

    fn load_one(&self, id: &str, index: &Index) -> Option<Snapshot> {
        let dir = self.dir.join("s").join(id);
        let meta: Meta = serde_json::from_slice(&fs::read(dir.join("meta.json")).ok()?).ok()?;
        let whole = meta.synced || meta.boot_id == self.boot_id;
        if meta.v != META_VERSION || !whole {
            return None;
        }
        let parent = match &meta.parent {
            Some(parent) => Some(Arc::clone(index.by_id.get(parent)?)),
            None => None,
        };
        Some(Snapshot {
            id: id.to_owned(),
            dir,
            parent,
            meta: Mutex::new(meta),
        })
    }

    fn take_number(&self) -> Result<u64, SnapshotError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join("counter");
        if number.is_multiple_of(COUNTER_BLOCK) || !path.exists() {
            let next_block = (number / COUNTER_BLOCK + 1) * COUNTER_BLOCK;
            fs::write(&path, next_block.to_string()).on("write", &path)?;
        }
        Ok(number)
    }
}

pub(super) fn write_meta(dir: &Path, meta: &Meta) -> Result<(), SnapshotError> {
    let json = serde_json::to_vec(meta).map_err(|source| SnapshotError::Serialise { source })?;
    let (temporary, path) = (dir.join("meta.json.tmp"), dir.join("meta.json"));
    fs::write(&temporary, json).on("write", &temporary)?;
    fs::rename(&temporary, &path).on("rename", &temporary)
}

/// The directories of a chain, top first.
fn lowers(top: Option<&Arc<Snapshot>>) -> Vec<PathBuf> {
    std::iter::successors(top, |snapshot| snapshot.parent.as_ref())
        .map(|snapshot| snapshot.fs())
        .collect()
}

fn lock_state(dir: &Path) -> Result<File, SnapshotError> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir).on("make the directory", dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).on("change the mode of", dir)?;
    let path = dir.join("lock");
    let lock = File::create(&path).on("make the file", &path)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SnapshotError::InUse { path: dir.to_owned() }),
        Err(errno) => Err(errno).on("lock", &path),
    }
}

fn read_counter(dir: &Path) -> u64 {
    fs::read_to_string(dir.join("counter"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    loop {
        digits.push(DIGITS[(number % 36) as usize] as char);
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

pub(super) fn now_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests;
