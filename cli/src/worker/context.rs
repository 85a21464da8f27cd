//! [`ContextSource`]: the build context, fetched and unpacked when the first COPY asks for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use async_trait::async_trait;
use builder::context::unpack_tar;
use builder::services::{ContextSource, ServiceError};
use client::api_client::Api;
use client::into_reader;
use tokio::sync::OnceCell;
use tokio_util::io::SyncIoBridge;

/// Unpacked contexts of running builds, in the state directory.
const DIRECTORY: &str = "contexts";

pub(crate) struct Context {
    api: Api,
    /// None: the user sent no context.
    id: Option<String>,
    root: PathBuf,
    unpacked: OnceCell<()>,
}

/// Removes what builds of an earlier worker left.
pub(crate) fn clear(state_dir: &Path) -> anyhow::Result<()> {
    let directory = state_dir.join(DIRECTORY);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot clear {}", directory.display()))
        }
        _ => Ok(()),
    }
}

impl Context {
    pub(crate) fn new(api: Api, state_dir: &Path, build: &str, id: Option<String>) -> Self {
        Self {
            api,
            id,
            root: state_dir.join(DIRECTORY).join(build),
            unpacked: OnceCell::new(),
        }
    }

    async fn fetch(&self) -> Result<(), ServiceError> {
        let Some(id) = &self.id else {
            return Err(ServiceError::new(
                "the build was started without a context, so COPY has no files to read",
            ));
        };
        let archive = into_reader(self.api.context(id).await.map_err(ServiceError::from_error)?);
        let root = self.root.clone();
        let unpacked = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&root)
                .map_err(|error| ServiceError::new(format!("cannot make {}: {error}", root.display())))?;
            unpack_tar(SyncIoBridge::new(archive), &root).map_err(ServiceError::from_error)
        });
        unpacked.await.map_err(ServiceError::from_error)?
    }
}

#[async_trait]
impl ContextSource for Context {
    async fn root(&self) -> Result<&Path, ServiceError> {
        self.unpacked.get_or_try_init(|| self.fetch()).await?;
        Ok(&self.root)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.unpacked.initialized() || self.root.exists() {
            let root = std::mem::take(&mut self.root);
            // A large tree takes a while to remove; the build's end must not wait for it.
            std::thread::spawn(move || {
                if let Err(error) = fs::remove_dir_all(&root) {
                    tracing::warn!(%error, path = %root.display(), "a build's context could not be removed");
                }
            });
        }
    }
}
