//! One layer's bytes to one snapshot directory, everything verified on the way.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use oci::{Algorithm, Digest, Hasher};

use super::super::inroot::Root;
use super::super::{Snapshot, SnapshotError, Store, Times, Tree};
use super::applied::Applied;
use super::apply::{Extractor, Options};
use super::finish::finish;
use super::reader::Reader;
use crate::snapshot::store::Pending;

const READ_BUFFER_BYTES: usize = 256 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A layer to unpack.
pub struct LayerSource<R> {
    /// As it is stored: gzip (any number of members), zstd or plain.
    pub bytes: R,
    pub digest: Digest,
    pub diff_id: Digest,
    /// The layer's logical time, if it was made by us.
    pub layer_time: Option<i64>,
    /// The instant for its files, later than those of the layers below.
    pub instant: i64,
}

/// A layer on disk whose place in a chain is not settled yet.
pub struct Unpacked {
    pending: Pending,
    applied: Applied,
    label: String,
    layer_time: Option<i64>,
    instant: i64,
    has_root: bool,
}

/// Unpacks a layer into a new directory of the store. Layers of a chain may do this at the same time.
pub fn unpack_layer<R: Read>(store: &Store, source: LayerSource<R>) -> Result<Unpacked, SnapshotError> {
    let LayerSource {
        bytes,
        digest,
        diff_id,
        layer_time,
        instant,
    } = source;
    let label = digest.to_string();
    let pending = store.begin(None)?;
    let root = Root::open(&pending.fs()).map_err(|source| SnapshotError::ReadLayer {
        layer: label.clone(),
        source,
    })?;
    let options = Options {
        layer: true,
        privileged: true,
        logical: layer_time.map(|time| (time, instant)),
        max_entries: u64::MAX,
        max_bytes: u64::MAX,
    };
    let read = |source| SnapshotError::ReadLayer {
        layer: label.clone(),
        source,
    };
    let stored = HashReader::new(bytes, digest.algorithm());
    let mut reader = Reader::new(HashReader::new(
        decode(stored).map_err(read)?,
        diff_id.algorithm(),
    ));
    let mut extractor = Extractor::new(&root, Path::new(""), options);
    while let Some(member) = reader.next_member().map_err(read)? {
        extractor
            .apply(&member, reader.data())
            .map_err(|source| SnapshotError::Apply {
                layer: label.clone(),
                entry: String::from_utf8_lossy(&member.path).into_owned(),
                source,
            })?;
    }
    // Padding after the archive belongs to the digests too.
    let mut content = reader.into_inner();
    io::copy(&mut content, &mut io::sink()).map_err(read)?;
    let (decoder, actual) = content.finish();
    if actual != diff_id {
        return Err(SnapshotError::DiffIdMismatch {
            layer: label,
            expected: Box::new(diff_id),
            actual: Box::new(actual),
        });
    }
    let mut stored = decoder.into_inner();
    io::copy(&mut stored, &mut io::sink()).map_err(read)?;
    let (_, actual) = stored.finish();
    if actual != digest {
        return Err(SnapshotError::DigestMismatch {
            layer: Box::new(digest),
            actual: Box::new(actual),
        });
    }
    let applied = extractor.finish();
    let has_root = applied.dir_times.contains_key(Path::new(""));
    Ok(Unpacked {
        pending,
        applied,
        label,
        layer_time,
        instant,
        has_root,
    })
}

impl Unpacked {
    /// Puts the layer on top of `parent`, whose tree decides what implied entries mean.
    pub fn commit(
        mut self,
        store: &Store,
        parent: Option<std::sync::Arc<Snapshot>>,
    ) -> Result<std::sync::Arc<Snapshot>, SnapshotError> {
        let failed = |source| SnapshotError::ReadLayer {
            layer: self.label.clone(),
            source,
        };
        let root = Root::open(&self.pending.fs()).map_err(failed)?;
        if !self.has_root
            && let Some(parent) = &parent
        {
            parent.root_attributes()?.write(&root).map_err(failed)?;
        }
        let applied = &mut self.applied;
        if !(applied.implied.is_empty() && applied.links.is_empty() && applied.whiteouts.is_empty()) {
            let lower: Tree = store.tree(parent.as_ref())?;
            finish(&root, &Root::new(lower.into_fd()), applied).map_err(failed)?;
        }
        applied.set_dir_times(&root).map_err(failed)?;
        let times = self.layer_time.map(|_| Times {
            low: self.instant,
            high: self.instant,
        });
        self.pending.commit(parent, self.layer_time, times)
    }
}

/// Reads compressed bytes as what they begin with, whatever their media type says.
pub(crate) enum Decoder<R: Read> {
    Plain(BufReader<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
}

pub(crate) fn decode<R: Read>(bytes: R) -> io::Result<Decoder<R>> {
    let mut input = BufReader::with_capacity(READ_BUFFER_BYTES, bytes);
    let head = input.fill_buf()?;
    Ok(if head.starts_with(&GZIP_MAGIC) {
        Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input)))
    } else if head.starts_with(&ZSTD_MAGIC) {
        Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(input)?))
    } else {
        Decoder::Plain(input)
    })
}

impl<R: Read> Decoder<R> {
    /// The compressed bytes, of which the decoder has read what it needed.
    pub(crate) fn into_inner(self) -> R {
        match self {
            Self::Plain(input) => input.into_inner(),
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.finish().into_inner(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Hashes what is read through it.
struct HashReader<R> {
    input: R,
    hasher: Hasher,
}

impl<R: Read> HashReader<R> {
    fn new(input: R, algorithm: Algorithm) -> Self {
        Self {
            input,
            hasher: Hasher::new(algorithm),
        }
    }

    fn finish(self) -> (R, Digest) {
        (self.input, self.hasher.finish())
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
