//! Build contexts: tars that users send and workers fetch, kept in `<data-dir>/contexts/<id>` until their build ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::api::ContextCreated;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::BodyError;
use super::builds::BuildError;
use crate::storage::BlobStore;

/// The largest context.
pub(crate) const CONTEXT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// How often room is asked for while a context comes in.
const SPACE_EVERY_BYTES: u64 = 16 * 1024 * 1024;
/// A context that no build claims is dropped after this.
const UNCLAIMED_MAX: Duration = Duration::from_secs(3600);

pub(crate) struct Contexts {
    directory: PathBuf,
    size_bytes_max: u64,
    /// Lies beside, and says when there is no more room.
    store: Option<Arc<dyn BlobStore>>,
    known: Mutex<HashMap<String, Context>>,
}

struct Context {
    created_at: Instant,
    /// Builds that need it.
    claims: usize,
    claimed_once: bool,
}

impl Contexts {
    /// Contexts don't outlive the server: whatever lies there belongs to builds that have failed.
    pub(crate) async fn open(
        data_dir: &Path,
        size_bytes_max: u64,
        store: Option<Arc<dyn BlobStore>>,
    ) -> Result<Arc<Self>, BuildError> {
        let directory = data_dir.join("contexts");
        let failed = |source| BuildError::File {
            path: directory.clone(),
            source,
        };
        match tokio::fs::remove_dir_all(&directory).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        tokio::fs::create_dir_all(&directory).await.map_err(failed)?;
        Ok(Arc::new(Self {
            directory,
            size_bytes_max,
            store,
            known: Mutex::default(),
        }))
    }

    /// Stores a context as it comes in.
    pub(crate) async fn create(
        &self,
        announced_bytes: Option<u64>,
        mut body: impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin,
    ) -> Result<ContextCreated, BuildError> {
        let limit_bytes = self.size_bytes_max;
        if announced_bytes.is_some_and(|size| size > limit_bytes) {
            return Err(BuildError::ContextTooLarge { limit_bytes });
        }
        self.drop_unclaimed().await;
        let id = hex::encode(rand::random::<[u8; 16]>());
        let partial = Partial::create(self.path(&id).with_extension("part")).await?;
        let failed = |source| BuildError::File {
            path: partial.path.clone(),
            source,
        };
        let mut file = File::options()
            .write(true)
            .open(&partial.path)
            .await
            .map_err(failed)?;
        let (mut size_bytes, mut room_until) = (0, 0);
        while let Some(piece) = body.next().await {
            let received_bytes = size_bytes;
            let piece = piece.map_err(|source| BuildError::ContextBroken {
                received_bytes,
                source,
            })?;
            size_bytes += piece.len() as u64;
            if size_bytes > limit_bytes {
                return Err(BuildError::ContextTooLarge { limit_bytes });
            }
            if size_bytes > room_until {
                self.require_space().await?;
                room_until = size_bytes + SPACE_EVERY_BYTES;
            }
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        tokio::fs::rename(&partial.path, self.path(&id))
            .await
            .map_err(failed)?;
        let context = Context {
            created_at: Instant::now(),
            claims: 0,
            claimed_once: false,
        };
        self.known.lock().insert(id.clone(), context);
        Ok(ContextCreated { id, size_bytes })
    }

    /// Opens a context that a build has claimed.
    pub(crate) async fn open_file(&self, id: &str) -> Result<(File, u64), BuildError> {
        // Only names that were given out: what comes in a URL never becomes a path otherwise.
        if !self.known.lock().contains_key(id) {
            return Err(BuildError::ContextUnknown(id.to_owned()));
        }
        let path = self.path(id);
        let failed = |source| BuildError::File {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).await.map_err(failed)?;
        let size = file.metadata().await.map_err(failed)?.len();
        Ok((file, size))
    }

    /// Keeps a context for a build until it is released.
    pub(crate) fn claim(&self, id: &str) -> Result<(), BuildError> {
        let mut known = self.known.lock();
        let context = known
            .get_mut(id)
            .ok_or_else(|| BuildError::ContextUnknown(id.to_owned()))?;
        context.claims += 1;
        context.claimed_once = true;
        Ok(())
    }

    /// Ends a build's claim; the last one takes the context along.
    pub(crate) fn release(&self, id: Option<&str>) {
        let Some(id) = id else {
            return;
        };
        let mut known = self.known.lock();
        let Some(context) = known.get_mut(id) else {
            return;
        };
        context.claims = context.claims.saturating_sub(1);
        if context.claims == 0 {
            known.remove(id);
            drop(known);
            // Unlinking returns at once but for huge files, which the file system frees in the background.
            if let Err(error) = std::fs::remove_file(self.path(id)) {
                tracing::warn!(context = id, %error, "cannot remove a build context");
            }
        }
    }

    async fn require_space(&self) -> Result<(), BuildError> {
        match &self.store {
            Some(store) => Ok(store.require_space().await?),
            None => Ok(()),
        }
    }

    async fn drop_unclaimed(&self) {
        let old = |context: &Context| !context.claimed_once && context.created_at.elapsed() > UNCLAIMED_MAX;
        let dropped: Vec<String> = {
            let mut known = self.known.lock();
            let ids = known.iter().filter(|(_, context)| old(context));
            let ids: Vec<String> = ids.map(|(id, _)| id.clone()).collect();
            for id in &ids {
                known.remove(id);
            }
            ids
        };
        for id in dropped {
            let _ = tokio::fs::remove_file(self.path(&id)).await;
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }
}

/// A file that disappears with its request unless it is renamed before.
struct Partial {
    path: PathBuf,
}

impl Partial {
    async fn create(path: PathBuf) -> Result<Self, BuildError> {
        match File::create_new(&path).await {
            Ok(_) => Ok(Self { path }),
            Err(source) => Err(BuildError::File { path, source }),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        futures::stream::iter(pieces)
    }

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir.join("contexts")).unwrap().count()
    }

    #[tokio::test]
    async fn a_context_lives_as_long_as_its_builds() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::open(dir.path(), 100, None).await.unwrap();
        let created = contexts.create(None, body(&[b"ab", b"c"])).await.unwrap();
        assert_eq!(created.size_bytes, 3);
        contexts.claim(&created.id).unwrap();
        contexts.claim(&created.id).unwrap();
        contexts.release(Some(&created.id));
        assert_eq!(contexts.open_file(&created.id).await.unwrap().1, 3);
        contexts.release(Some(&created.id));
        assert!(contexts.claim(&created.id).is_err());
        assert_eq!(files(dir.path()), 0);
        assert!(contexts.open_file("../registry.db").await.is_err());
    }

    #[tokio::test]
    async fn what_is_too_large_or_broken_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::open(dir.path(), 4, None).await.unwrap();
        let error = contexts.create(Some(5), body(&[])).await.unwrap_err();
        assert!(error.to_string().contains("exceeds 4 bytes"), "{error}");
        assert!(contexts.create(None, body(&[b"abc", b"de"])).await.is_err());
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"a")), Err(BodyError::from("cut"))]);
        let error = contexts.create(None, broken).await.unwrap_err();
        assert!(error.to_string().contains("after 1 bytes"), "{error}");
        assert_eq!(files(dir.path()), 0);
    }
}
