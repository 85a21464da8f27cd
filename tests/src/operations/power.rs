//! The power goes: whatever was acknowledged is there. kill -9 doesn't show this, since the page cache outlives it.
//!
//! The data lie on ext4 in an image file that lies on XFS. A reflink copy of the image is its state at that instant, with
//! nothing of what only the kernel's memory had; mounting the copy is the restart after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::harness::image::{Image, noise};
use crate::harness::server::Server;
use crate::harness::tool::Tool;
use crate::harness::{paths, tell};

const WRITERS: u64 = 3;
/// Of all that was acknowledged, so many are read after each cut: the last ones, where losses show.
const CHECKED_MAX: usize = 40;

/// An ext4 file system whose past can be had.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Self {
            dir: paths::scratch(),
        };
        let outer = disk.dir.path().join("outer.img");
        File::create(&outer)
            .and_then(|file| file.set_len(8 << 30))
            .expect("make an image");
        Tool::debian("mkfs.xfs")
            .args(["-q", "-m", "reflink=1"])
            .arg(&outer)
            .ok();
        mount(&outer, &disk.outer());
        let inner = disk.image();
        File::create(&inner)
            .and_then(|file| file.set_len(512 << 20))
            .expect("make an image");
        Tool::debian("mkfs.ext4").arg("-q").arg(&inner).ok();
        disk
    }

    fn outer(&self) -> PathBuf {
        self.dir.path().join("outer")
    }

    fn image(&self) -> PathBuf {
        self.outer().join("disk.img")
    }

    fn cut(&self, name: &str) -> PathBuf {
        let copy = self.outer().join(name);
        Tool::new("cp")
            .arg("--reflink=always")
            .arg(self.image())
            .arg(&copy)
            .ok();
        copy
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.outer());
    }
}

fn mount(image: &Path, at: &Path) {
    fs::create_dir_all(at).expect("make a mount point");
    Tool::debian("mount").args(["-o", "loop"]).arg(image).arg(at).ok();
}

fn unmount(at: &Path) {
    Tool::debian("umount").args(["-l"]).arg(at).run();
}

/// 4 cuts by default; LAYERYARD_POWER_CUTS=200 for a long run.
#[test]
fn what_was_acknowledged_outlives_power_cuts() {
    let cuts = std::env::var("LAYERYARD_POWER_CUTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4);
    let disk = Disk::new();
    let server = Server::start_on(|data| mount(&disk.image(), data));
    let acknowledged = Mutex::new(Vec::<(String, u64)>::new());
    let done = AtomicBool::new(false);
    let mut checked = 0;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (server, acknowledged, done) = (&server, &acknowledged, &done);
            scope.spawn(move || write(server, writer, acknowledged, done));
        }
        let mut random = StdRng::seed_from_u64(9400);
        for cut in 0..cuts {
            thread::sleep(Duration::from_millis(random.random_range(100..600)));
            let before = acknowledged.lock().expect("writers don't panic").clone();
            let copy = disk.cut(&format!("cut-{cut}.img"));
            checked += check(&copy, &before);
            fs::remove_file(copy).expect("remove a cut");
        }
        done.store(true, Ordering::Relaxed);
    });
    let total = acknowledged.into_inner().expect("writers don't panic").len();
    tell(&format!(
        "{cuts} power cuts, {total} pushes acknowledged, {checked} read after a cut"
    ));
    assert!(checked > 0);
    let data = server.data_dir();
    drop(server);
    unmount(&data);
}

fn write(server: &Server, writer: u64, acknowledged: &Mutex<Vec<(String, u64)>>, done: &AtomicBool) {
    let mut seed = 10_000_000 * (writer + 1);
    while !done.load(Ordering::Relaxed) {
        let image = Image::small(seed);
        let tag = format!("w{writer}-{seed}");
        image.push(server, "team/app", &tag);
        acknowledged
            .lock()
            .expect("writers don't panic")
            .push((tag, seed));
        seed += 1;
    }
}

/// Starts a server on what the power cut left and reads.
fn check(image: &Path, acknowledged: &[(String, u64)]) -> usize {
    let mut mounted = PathBuf::new();
    let server = Server::start_on(|data| {
        mount(image, data);
        mounted = data.to_owned();
        // The kernel is the same in truth, which a server would trust.
        let forget = "UPDATE store SET boot_id = 'before'; UPDATE uploads SET boot_id = 'before'";
        Tool::debian("sqlite3")
            .arg(data.join("registry.db"))
            .arg(forget)
            .ok();
        // The lock and the socket of the server that runs.
        drop(fs::remove_dir_all(data.join("run")));
    });
    let from = acknowledged.len().saturating_sub(CHECKED_MAX);
    for (tag, seed) in &acknowledged[from..] {
        Image::small(*seed).assert_on(&server, "team/app", tag);
    }
    drop(server);
    unmount(&mounted);
    acknowledged.len() - from
}

/// The log ends in a page that was only half written.
#[test]
fn a_torn_end_of_the_databases_log_is_left_out() {
    let mut server = Server::start();
    let images: Vec<Image> = (0..5).map(|index| Image::small(9500 + index)).collect();
    for (index, image) in images.iter().enumerate() {
        image.push(&server, "app", &format!("v{index}"));
    }
    server.kill();
    let path = server.data_dir().join("registry.db-wal");
    let mut log = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("the log is there");
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes).expect("read the log");
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("the log has pages")
        + 1;
    log.seek(SeekFrom::Start(end as u64)).expect("go to the end");
    log.write_all(&noise(9510, 2500)).expect("half a page");
    drop(log);
    server.restart();
    for (index, image) in images.iter().enumerate() {
        image.assert_on(&server, "app", &format!("v{index}"));
    }
    Image::small(9520).push(&server, "app", "after");
}
