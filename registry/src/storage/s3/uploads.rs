//! Multipart uploads and fragments: begin, add, complete, abort, find again.

use std::collections::BTreeSet;
use std::io;

use aws_sdk_s3::primitives::ByteStream as Body;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::error::io_error;
use super::{Notes, Result, S3};
use crate::storage::{ObjectName, StorageError, Upload, UploadId};

/// The object that an upload becomes if it comes in parts.
pub(super) fn object(upload: UploadId) -> ObjectName {
    ObjectName::new(format!("d/{upload}"))
}

pub(super) fn of_object(key: &ObjectName) -> Option<UploadId> {
    key.as_str().strip_prefix("d/")?.parse().ok()
}

pub(super) fn fragment(upload: UploadId, number: u32) -> ObjectName {
    ObjectName::new(format!("f/{upload}.{number}"))
}

pub(super) fn of_fragment(name: &str) -> Option<UploadId> {
    let (upload, _) = name.strip_prefix("f/")?.split_once('.')?;
    upload.parse().ok()
}

/// An upload's notes, which must account for its bytes.
pub(super) fn notes(upload: &Upload) -> Result<Notes> {
    let failed = |source| StorageError::Upload {
        upload: upload.id,
        operation: "reading its notes",
        source,
    };
    let notes = Notes::of(upload).map_err(|error| failed(io::Error::other(error)))?;
    if notes.bytes() != upload.offset {
        let (noted, recorded) = (notes.bytes(), upload.offset);
        return Err(failed(io::Error::other(format!(
            "they tell of {noted} bytes, {recorded} are recorded"
        ))));
    }
    Ok(notes)
}

impl S3 {
    pub(super) async fn begin_multipart(&self, upload: UploadId) -> io::Result<String> {
        let create = self.client.create_multipart_upload().bucket(&*self.bucket);
        let created = create
            .key(self.full(object(upload).as_str()))
            .content_type("application/octet-stream")
            .send()
            .await
            .map_err(io_error)?;
        let id = created
            .upload_id()
            .ok_or_else(|| io::Error::other("S3 gave the upload no id"))?;
        Ok(id.to_owned())
    }

    /// Returns the part's ETag.
    pub(super) async fn add_part(
        &self,
        upload: UploadId,
        multipart: &str,
        number: usize,
        length: u64,
        body: Body,
    ) -> io::Result<String> {
        let add = self.client.upload_part().bucket(&*self.bucket);
        let added = add
            .key(self.full(object(upload).as_str()))
            .upload_id(multipart)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .body(body)
            .send()
            .await
            .map_err(io_error)?;
        let etag = added
            .e_tag()
            .ok_or_else(|| io::Error::other("S3 gave the part no ETag"))?;
        Ok(etag.to_owned())
    }

    pub(super) async fn complete_multipart(
        &self,
        upload: UploadId,
        multipart: &str,
        notes: &Notes,
    ) -> io::Result<()> {
        let parts = (1..)
            .zip(&notes.parts)
            .map(|(number, (etag, _))| CompletedPart::builder().part_number(number).e_tag(etag).build());
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let key = self.full(object(upload).as_str());
        let complete = self.client.complete_multipart_upload().bucket(&*self.bucket);
        let completed = complete
            .key(&key)
            .upload_id(multipart)
            .multipart_upload(list.build())
            .send()
            .await;
        let Err(error) = completed else {
            return Ok(());
        };
        // The answer may be lost, or be that of a second attempt which finds the first one's work done.
        let head = self.client.head_object().bucket(&*self.bucket).key(&key);
        let whole: u64 = notes.parts.iter().map(|(_, size)| size).sum();
        match head.send().await {
            Ok(there) if there.content_length().and_then(|size| u64::try_from(size).ok()) == Some(whole) => {
                Ok(())
            }
            _ => Err(io_error(error)),
        }
    }

    /// Aborts everything that was begun for an upload.
    pub(super) async fn abort_multipart(&self, upload: UploadId) -> io::Result<()> {
        let key = self.full(object(upload).as_str());
        let list = self.client.list_multipart_uploads().bucket(&*self.bucket);
        let listed = list.prefix(&key).send().await.map_err(io_error)?;
        for found in listed.uploads() {
            if let (Some(found_key), Some(id)) = (found.key(), found.upload_id())
                && found_key == key
            {
                self.abort(&key, id).await?;
            }
        }
        Ok(())
    }

    async fn abort(&self, full_key: &str, id: &str) -> io::Result<()> {
        let abort = self.client.abort_multipart_upload().bucket(&*self.bucket);
        match abort.key(full_key).upload_id(id).send().await.map_err(io_error) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Removes parts and fragments of an upload, not the object that it may have become.
    pub(super) async fn drop_upload(&self, upload: UploadId) -> io::Result<()> {
        self.abort_multipart(upload).await?;
        for name in self.names(&format!("f/{upload}.")).await? {
            self.delete_object(&name).await?;
        }
        Ok(())
    }

    /// The uploads that have parts.
    pub(super) async fn multipart_uploads(&self) -> io::Result<BTreeSet<UploadId>> {
        let mut ids = BTreeSet::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let list = self.client.list_multipart_uploads().bucket(&*self.bucket);
            let page = list
                .prefix(self.full("d/"))
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await
                .map_err(io_error)?;
            let own = |key: &str| key.strip_prefix(&*self.prefix).map(ObjectName::new);
            let keys = page
                .uploads()
                .iter()
                .filter_map(|found| found.key().and_then(own));
            ids.extend(keys.filter_map(|key| of_object(&key)));
            key_marker = page.next_key_marker().map(str::to_owned);
            id_marker = page.next_upload_id_marker().map(str::to_owned);
            if !page.is_truncated().unwrap_or(false) || key_marker.is_none() {
                return Ok(ids);
            }
        }
    }
}
