//! Blobs in a bucket.
//!
//! ```text
//! <prefix>/
//!   store-id                           the store's UUID, as in the database
//!   blobs/<algorithm>/<ab>/<hex>.<gen> an object that came with one PUT, named as in a file system
//!   d/<upload>                         an object that came in parts, and the multipart upload it comes from
//!   f/<upload>.<n>                     fragments: what an upload has that is too small for a part
//!   meta/…                             the registry's own records (trait `Files`)
//! ```
//!
//! No name is a directory prefix of another: servers over a file system refuse that. Nothing is ever copied: an
//! object of several parts keeps the name that was fixed before its first part. Nothing relies on conditional
//! requests, which servers ignore; the database decides.

mod connect;
mod error;
mod files;
mod notes;
mod read;
mod spool;
#[cfg(test)]
mod tests;
mod uploads;
mod write;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::{ByteStream as Body, SdkBody};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use oci::{Algorithm, Digest, Hasher};

use super::{
    BlobStore, ByteStream, Files, ObjectName, Result, StorageError, Upload, UploadId, UploadLog, UploadWriter,
};
use crate::config::S3Config;
use error::io_error;
use notes::Notes;

/// A part of a multipart upload. S3 takes 10,000 of them: 156 GiB a blob.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// S3 takes no smaller one but as the last.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
const PARTS_MAX: usize = 10_000;

/// A store in a bucket, shared by any number of processes over one database.
#[derive(Clone)]
pub(crate) struct S3 {
    client: Client,
    /// Signs what clients are sent to.
    signing: Option<(Client, Duration)>,
    bucket: Arc<str>,
    prefix: Arc<str>,
    /// A directory for spools.
    spool: Arc<Path>,
    uniform_parts: bool,
}

impl S3 {
    /// `spool`: a directory for what is on its way to the bucket; nothing in it outlives a request.
    pub(crate) async fn open(config: &S3Config, spool: &Path) -> Result<Self> {
        let (client, signing) = connect::clients(config).await?;
        let store = Self {
            client,
            signing: signing.map(|client| (client, config.redirect_ttl)),
            bucket: config.bucket.as_str().into(),
            prefix: match config.prefix.trim_matches('/') {
                "" => "".into(),
                prefix => format!("{prefix}/").into(),
            },
            spool: spool.into(),
            uniform_parts: config.uniform_parts,
        };
        std::fs::create_dir_all(spool).map_err(|source| StorageError::Store {
            path: spool.display().to_string(),
            operation: "making the spool directory",
            source,
        })?;
        Ok(store)
    }

    /// An object's key in the bucket.
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> StorageError + use<> {
        let path = format!("s3://{}/{}", self.bucket, self.prefix);
        move |source| StorageError::Store {
            path: path.clone(),
            operation,
            source,
        }
    }

    fn object_failed(
        &self,
        key: &ObjectName,
        operation: &'static str,
    ) -> impl Fn(io::Error) -> StorageError + use<> {
        let key = key.clone();
        move |source| StorageError::Object {
            key: key.clone(),
            operation,
            source,
        }
    }

    /// Stores `length` bytes. The server is told their checksum: one that goes on with a request whose connection broke in
    /// the middle would else put a piece of the bytes in the place of what the next attempt has stored.
    async fn put_object(&self, key: &ObjectName, length: u64, crc32: u32, body: Body) -> io::Result<()> {
        let put = self.client.put_object().bucket(&*self.bucket);
        put.key(self.full(key.as_str()))
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .content_type("application/octet-stream")
            .checksum_crc32(BASE64_STANDARD.encode(crc32.to_be_bytes()))
            .body(body)
            .send()
            .await
            .map_err(io_error)?;
        Ok(())
    }

    async fn delete_object(&self, name: &str) -> io::Result<()> {
        let delete = self.client.delete_object().bucket(&*self.bucket);
        match delete.key(self.full(name)).send().await.map_err(io_error) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// One page of the names that begin with `prefix`, and whether there are more.
    async fn page(&self, prefix: &str, after: Option<&str>) -> io::Result<(Vec<String>, bool)> {
        let list = self.client.list_objects_v2().bucket(&*self.bucket);
        let listed = list
            .prefix(self.full(prefix))
            .set_start_after(after.map(|after| self.full(after)))
            .send()
            .await
            .map_err(io_error)?;
        let own = |key: &str| key.strip_prefix(&*self.prefix).map(str::to_owned);
        let names: Vec<String> = listed
            .contents()
            .iter()
            .filter_map(|object| object.key().and_then(own))
            .collect();
        let more = listed.is_truncated().unwrap_or(false) && !names.is_empty();
        Ok((names, more))
    }

    /// All names that begin with `prefix`, in order.
    async fn names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let (mut names, mut more) = self.page(prefix, None).await?;
        while more {
            let (next, goes_on) = self.page(prefix, names.last().map(String::as_str)).await?;
            names.extend(next);
            more = goes_on;
        }
        Ok(names)
    }
}

#[async_trait]
impl BlobStore for S3 {
    fn new_name(&self, digest: &Digest) -> ObjectName {
        ObjectName::for_digest(digest)
    }

    async fn put(&self, _: UploadId, key: &ObjectName, data: Vec<Bytes>) -> Result<()> {
        let data = Bytes::from(data.concat());
        let crc32 = crc32fast::hash(&data);
        self.put_object(key, data.len() as u64, crc32, SdkBody::from(data).into())
            .await
            .map_err(self.object_failed(key, "storing it"))
    }

    async fn open_upload(&self, upload: Upload, log: Box<dyn UploadLog>) -> Result<Box<dyn UploadWriter>> {
        let writer = write::Writer::open(self.clone(), upload, log).await?;
        Ok(Box::new(writer))
    }

    async fn hash_upload(&self, upload: &Upload, algorithm: Algorithm) -> Result<Option<Hasher>> {
        let notes = uploads::notes(upload)?;
        if !notes.parts.is_empty() {
            return Ok(None);
        }
        let mut hasher = Hasher::new(algorithm);
        for (number, size) in notes.fragments() {
            let name = uploads::fragment(upload.id, number);
            let mut bytes = read::open(self, &name, 0..size).await?;
            while let Some(piece) = bytes.next().await {
                hasher.update(&piece?);
            }
        }
        Ok(Some(hasher))
    }

    async fn discard_upload(&self, upload: UploadId) -> Result<()> {
        let discarded = self.drop_upload(upload).await;
        discarded.map_err(|source| StorageError::Upload {
            upload,
            operation: "removing it",
            source,
        })
    }

    async fn list_uploads(&self) -> Result<Vec<UploadId>> {
        let failed = self.failed("listing uploads");
        let mut ids: BTreeSet<UploadId> = self.multipart_uploads().await.map_err(&failed)?;
        let names = self.names("f/").await.map_err(&failed)?;
        ids.extend(names.iter().filter_map(|name| uploads::of_fragment(name)));
        Ok(ids.into_iter().collect())
    }

    fn chunk_bytes_min(&self) -> Option<u64> {
        Some(PART_BYTES_MIN)
    }

    async fn read(&self, key: &ObjectName, range: Range<u64>) -> Result<ByteStream> {
        read::open(self, key, range).await
    }

    async fn size(&self, key: &ObjectName) -> Result<u64> {
        let head = self.client.head_object().bucket(&*self.bucket);
        let found = head.key(self.full(key.as_str())).send().await.map_err(io_error);
        let found = found.map_err(self.object_failed(key, "looking at it"))?;
        Ok(found
            .content_length()
            .and_then(|size| size.try_into().ok())
            .unwrap_or(0))
    }

    async fn file(&self, _: &ObjectName) -> Result<Option<Arc<File>>> {
        Ok(None)
    }

    async fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn require_space(&self) -> Result<()> {
        Ok(())
    }

    async fn link(&self, key: &ObjectName) -> Result<Option<String>> {
        let Some((client, ttl)) = &self.signing else {
            return Ok(None);
        };
        let failed = self.object_failed(key, "signing its address");
        let ttl = PresigningConfig::expires_in(*ttl).map_err(|error| failed(io::Error::other(error)))?;
        let get = client
            .get_object()
            .bucket(&*self.bucket)
            .key(self.full(key.as_str()));
        let signed = get
            .response_content_type("application/octet-stream")
            .presigned(ttl);
        let signed = signed.await.map_err(io_error).map_err(failed)?;
        Ok(Some(signed.uri().to_owned()))
    }

    async fn delete(&self, key: &ObjectName) -> Result<()> {
        let failed = self.object_failed(key, "deleting it");
        // Parts without a session may be left where their session ended while the server was away.
        if let Some(upload) = uploads::of_object(key) {
            self.abort_multipart(upload).await.map_err(&failed)?;
        }
        self.delete_object(key.as_str()).await.map_err(failed)
    }

    async fn list(&self, after: Option<&ObjectName>) -> Result<Vec<ObjectName>> {
        let after = after.map_or("", ObjectName::as_str);
        for family in ["blobs/", "d/"] {
            if after >= family && !after.starts_with(family) {
                continue;
            }
            let start = after.starts_with(family).then_some(after);
            let listed = self.page(family, start).await;
            let (names, _) = listed.map_err(self.failed("listing objects"))?;
            if !names.is_empty() {
                return Ok(names.into_iter().map(ObjectName::new).collect());
            }
        }
        Ok(Vec::new())
    }

    async fn identity(&self, uuid: &str) -> Result<String> {
        const NAME: &str = "store-id";
        for _ in 0..2 {
            if let Some(found) = self.get_file(NAME).await? {
                return Ok(String::from_utf8_lossy(&found).trim().to_owned());
            }
            // Replicas that start at once write the same, since they share the database; read what is there now.
            self.put_file(NAME, Bytes::from(format!("{uuid}\n"))).await?;
        }
        Err(self.failed("reading store-id")(io::Error::other(
            "it was written and is not there",
        )))
    }
}
