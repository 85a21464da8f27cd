//! Parallel gzip whose bytes don't depend on the number of threads: each MiB of input is a member of its own.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Compress, Compression, FlushCompress, Status};

/// Input bytes of one gzip member.
pub(super) const MEMBER_BYTES: usize = 1 << 20;

/// Frozen with the layer format. zlib-rs on 1 MiB members of Debian's /usr, ratio and MB/s on one busy core:
/// 1: .463 85, 2: .386 46, 3: .369 46, 4: .363 34, 6: .356 27.
const LEVEL: u32 = 3;
/// ID, deflate, no flags, no time, no extra flags, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Compression yields to the steps that run meanwhile.
const NICENESS: i32 = 10;

/// The threads that compress for all layers of a node.
pub struct Compressors {
    jobs: Sender<Job>,
    threads: usize,
}

struct Job {
    data: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

impl Compressors {
    /// The threads end when this is dropped and their work is done.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("gzip-{number}"))
                .spawn(move || work(&queue))?;
        }
        Ok(Self { jobs, threads })
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Compresses up to [`MEMBER_BYTES`] into one member; the result arrives on the returned channel.
    pub fn submit(&self, data: Vec<u8>) -> Receiver<io::Result<Vec<u8>>> {
        let (done, result) = sync_channel(1);
        // If every thread is gone, the receiver finds its channel closed.
        let _ = self.jobs.send(Job { data, done });
        result
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "compression runs at normal priority");
    }
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A layer that failed meanwhile no longer listens.
        let _ = job.done.send(member(&mut deflate, &job.data));
    }
}

fn member(deflate: &mut Compress, data: &[u8]) -> io::Result<Vec<u8>> {
    deflate.reset();
    let mut out = Vec::with_capacity(data.len() / 2 + 1024);
    out.extend_from_slice(&GZIP_HEADER);
    loop {
        let consumed = deflate.total_in() as usize;
        let status = deflate
            .compress_vec(&data[consumed..], &mut out, FlushCompress::Finish)
            .map_err(io::Error::other)?;
        if status == Status::StreamEnd {
            break;
        }
        out.reserve(data.len() / 4 + 1024);
    }
    out.extend_from_slice(&crc32fast::hash(data).to_le_bytes());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use oci::Digest;

    use super::*;

    /// Text-like, not random, the same everywhere.
    fn sample() -> Vec<u8> {
        let mut state = 1u32;
        (0..MEMBER_BYTES)
            .map(|index| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if index % 7 < 4 {
                    b"layeryard"[index % 9]
                } else {
                    (state >> 27) as u8 + b'a'
                }
            })
            .collect()
    }

    /// Layer format 1: the encoder, its level and the header. A change here is a new format.
    #[test]
    fn bytes_are_golden_and_read_back() {
        let mut deflate = Compress::new(Compression::new(LEVEL), false);
        let data = sample();
        for _ in 0..2 {
            let packed = member(&mut deflate, &data).unwrap();
            assert_eq!(
                Digest::sha256(&packed).hex(),
                "95fbd2b30eed10477328df3a718fff9814479f5d50d91c3941312672ee6c785a"
            );
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed[..])
                .read_to_end(&mut unpacked)
                .unwrap();
            assert!(unpacked == data);
        }
    }

    #[test]
    fn incompressible_and_empty_members_read_back() {
        let mut deflate = Compress::new(Compression::new(LEVEL), false);
        let noise: Vec<u8> = (0..100_000u32)
            .flat_map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes())
            .collect();
        for data in [&b""[..], &noise[..MEMBER_BYTES]] {
            let packed = member(&mut deflate, data).unwrap();
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed[..])
                .read_to_end(&mut unpacked)
                .unwrap();
            assert!(unpacked == data);
        }
    }
}
