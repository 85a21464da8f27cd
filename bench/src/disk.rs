//! The file system under test, and what the disk below it can do by itself.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::content::BlobFamily;
use crate::process::run;

/// Size of the sparse file that carries a fresh file system.
const IMAGE_BYTES: u64 = 48 << 30;

/// A directory all servers of a measurement keep their data in. It vanishes with this value.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    mounted: bool,
    _directory: TempDir,
}

impl Disk {
    /// A new ext4 on a loop device below `parent`. Its image is unlinked at once: the kernel frees everything with
    /// the mount, which itself ends with the mount namespace `run.sh` made, however the bench ends.
    pub(crate) fn fresh_ext4(parent: &Path) -> Result<Self> {
        let directory = new_directory(parent)?;
        let (image, root) = (directory.path().join("image"), directory.path().join("mnt"));
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        fs::create_dir(&root)?;
        // Nothing may be written in the background while servers are measured: no late initialisation.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"])
            .arg(&image))?;
        let device = attach(&image)?;
        let mounted = run(Command::new("mount")
            .args(["-o", "noinit_itable"])
            .arg(&device)
            .arg(&root));
        // Detached now, it goes with the mount.
        run(Command::new("losetup").args(["--detach", &device]))?;
        mounted?;
        let disk = Self {
            root,
            mounted: true,
            _directory: directory,
        };
        fs::remove_file(&image)?;
        Ok(disk)
    }

    /// A new directory on the file system that `parent` is on.
    pub(crate) fn directory(parent: &Path) -> Result<Self> {
        let directory = new_directory(parent)?;
        Ok(Self {
            root: directory.path().to_owned(),
            mounted: false,
            _directory: directory,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes back what is dirty, so that one server doesn't pay for another's writes.
    pub(crate) fn settle(&self) -> Result<()> {
        rustix::fs::syncfs(File::open(&self.root)?).context("syncfs failed")
    }
}

/// Open to others: PostgreSQL doesn't run as root.
fn new_directory(parent: &Path) -> Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("layeryard-bench-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(parent);
    directory.with_context(|| format!("cannot make a directory in {}", parent.display()))
}

/// Attaches a file to a loop device past the page cache: pages kept twice and written late would hide the disk.
fn attach(image: &Path) -> Result<String> {
    let device = run(Command::new("losetup")
        .args(["--find", "--show", "--direct-io=on"])
        .arg(image))?;
    Ok(device.trim().to_owned())
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazy: a server that is slow to end must not keep the mount point.
            let _ = Command::new("umount").arg("--lazy").arg(&self.root).status();
        }
    }
}

/// The least a server has to do that says 201 when a blob and what it knows of it are durable: write, fsync, rename,
/// fsync of the directory, sync of the database.
#[derive(Debug)]
pub(crate) struct Floor {
    directory: PathBuf,
    next: AtomicU64,
    log: Log,
}

/// A database's log as its commits cost least: one page of a file that has its length, and one sync for all who wait.
#[derive(Debug)]
struct Log {
    file: File,
    asked: AtomicU64,
    /// All up to this one are synced.
    synced: Mutex<u64>,
}

impl Log {
    const PAGE: [u8; 4096] = [1; 4096];

    fn new(path: &Path) -> Result<Self> {
        let mut file = File::create_new(path)?;
        file.write_all(&Self::PAGE)?;
        file.sync_all()?;
        Ok(Self {
            file,
            asked: AtomicU64::new(0),
            synced: Mutex::new(0),
        })
    }

    fn sync(&self) -> Result<()> {
        let own = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced < own {
            let all = self.asked.load(Ordering::SeqCst);
            self.file.write_all_at(&Self::PAGE, 0)?;
            self.file.sync_data()?;
            *synced = all;
        }
        Ok(())
    }
}

impl Floor {
    pub(crate) fn new(disk: &Disk) -> Result<Self> {
        let directory = disk.root().join("floor");
        fs::create_dir_all(&directory)?;
        Ok(Self {
            log: Log::new(&directory.join("log"))?,
            directory,
            next: AtomicU64::new(0),
        })
    }

    pub(crate) fn keep(&self, family: &BlobFamily) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (partial, kept) = (
            self.directory.join(format!("{number}.part")),
            self.directory.join(number.to_string()),
        );
        let mut file = File::create_new(&partial)?;
        for part in family.next_blob().parts() {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&partial, &kept)?;
        File::open(&self.directory)?.sync_all()?;
        self.log.sync()
    }
}
