//! The registry's own records.

use std::io;

use async_trait::async_trait;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;

use super::error::io_error;
use super::{Result, S3};
use crate::storage::{Files, ObjectName};

#[async_trait]
impl Files for S3 {
    async fn put_file(&self, name: &str, data: Bytes) -> Result<()> {
        let key = ObjectName::new(name);
        let crc32 = crc32fast::hash(&data);
        self.put_object(&key, data.len() as u64, crc32, SdkBody::from(data).into())
            .await
            .map_err(self.failed("writing a record"))
    }

    async fn get_file(&self, name: &str) -> Result<Option<Bytes>> {
        let failed = self.failed("reading a record");
        let get = self.client.get_object().bucket(&*self.bucket);
        let answer = match get.key(self.full(name)).send().await {
            Ok(answer) => answer,
            Err(error) => {
                // A missing bucket is a 404 as well, and no empty store.
                let missing = error
                    .as_service_error()
                    .is_some_and(|error| error.is_no_such_key());
                return if missing {
                    Ok(None)
                } else {
                    Err(failed(io_error(error)))
                };
            }
        };
        let data = answer.body.collect().await;
        let data = data.map_err(|error| failed(io::Error::other(error)))?;
        Ok(Some(data.into_bytes()))
    }

    async fn list_files(&self, prefix: &str) -> Result<Vec<String>> {
        self.names(prefix).await.map_err(self.failed("listing records"))
    }

    async fn delete_file(&self, name: &str) -> Result<()> {
        self.delete_object(name)
            .await
            .map_err(self.failed("deleting a record"))
    }
}
