//! The journal's lines: JSON objects, compressed together.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use oci::{Digest, RepoName, Tag};
use serde::{Deserialize, Serialize};

use crate::metadata::{Change, Event, JournaledManifest};
use crate::service::{RegistryError, Result};

const LEVEL: i32 = 3;
/// What one file may unpack to: a segment of a thousand manifests of 4 MiB.
const UNPACKED_BYTES_MAX: usize = 6 << 30;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The event's number; 0 in a snapshot.
    pub(super) event: i64,
    pub(super) at: i64,
    pub(super) repository: RepoName,
    #[serde(flatten)]
    pub(super) entry: Entry,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Entry {
    Push {
        digest: Digest,
        media_type: String,
        tags: Vec<Tag>,
        actor: String,
        /// Base64, since a manifest's bytes are its identity.
        payload: String,
    },
    Delete {
        digest: Digest,
        actor: String,
    },
    Untag {
        tag: Tag,
        actor: String,
    },
}

/// Lines on their way into a file.
#[derive(Default)]
pub(super) struct Segment(Vec<u8>);

impl Record {
    /// None: there is nothing to keep, the manifest is gone already.
    pub(super) fn of(event: Event) -> Option<Self> {
        let entry = match event.change {
            Change::Push {
                digest,
                media_type,
                tags,
                actor,
                ..
            } => Entry::Push {
                digest,
                media_type,
                tags,
                actor,
                payload: STANDARD.encode(event.payload?),
            },
            Change::Delete { digest, actor } => Entry::Delete { digest, actor },
            Change::Untag { tag, actor, .. } => Entry::Untag { tag, actor },
        };
        Some(Self {
            event: event.id,
            at: event.at,
            repository: event.repository,
            entry,
        })
    }
}

impl From<JournaledManifest> for Record {
    fn from(manifest: JournaledManifest) -> Self {
        Self {
            event: 0,
            at: manifest.at,
            repository: manifest.repository,
            entry: Entry::Push {
                digest: manifest.digest,
                media_type: manifest.media_type,
                tags: manifest.tags,
                actor: manifest.actor,
                payload: STANDARD.encode(manifest.payload),
            },
        }
    }
}

impl Segment {
    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        serde_json::to_writer(&mut self.0, record).map_err(|source| failed(source.into()))?;
        self.0.push(b'\n');
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(self) -> Result<Bytes> {
        zstd::bulk::compress(&self.0, LEVEL)
            .map(Bytes::from)
            .map_err(failed)
    }
}

/// The lines of a file.
pub(super) fn read(data: &[u8]) -> Result<Vec<Record>> {
    let mut text = Vec::new();
    let decoder = zstd::Decoder::new(data).map_err(failed)?;
    io::copy(&mut io::Read::take(decoder, UNPACKED_BYTES_MAX as u64), &mut text).map_err(failed)?;
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|source| failed(source.into())))
        .collect()
}

pub(super) fn payload(text: &str) -> Result<Bytes> {
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|source| failed(io::Error::other(source)))
}

fn failed(source: io::Error) -> RegistryError {
    RegistryError::Journal(source)
}
