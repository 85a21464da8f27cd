//! Reading: a GET that is asked again for the rest where an answer breaks off.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream as Answer;
use bytes::Bytes;
use futures::Stream;

use super::S3;
use super::error::io_error;
use crate::storage::{ByteStream, ObjectName, Result, StorageError};

/// How often a broken answer is continued; each piece that comes starts the count again.
const CONTINUED_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn open(store: &S3, key: &ObjectName, range: Range<u64>) -> Result<ByteStream> {
    let mut reader = Reader {
        store: store.clone(),
        key: key.clone(),
        rest: range,
        answer: None,
        continued: 0,
    };
    if !reader.rest.is_empty() {
        reader.answer = Some(reader.ask().await?);
    }
    Ok(Box::pin(reader.stream()))
}

struct Reader {
    store: S3,
    key: ObjectName,
    rest: Range<u64>,
    answer: Option<Answer>,
    continued: u32,
}

impl Reader {
    fn stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        futures::stream::try_unfold(self, |mut reader| async move {
            let piece = reader.next().await?;
            Ok(piece.map(|piece| (piece, reader)))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.rest.is_empty() {
            let answer = match &mut self.answer {
                Some(answer) => answer,
                None => self.answer.insert(self.ask().await?),
            };
            match answer.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(mut piece)) => {
                    let wanted = self.rest.end - self.rest.start;
                    piece.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
                    self.rest.start += piece.len() as u64;
                    self.continued = 0;
                    return Ok(Some(piece));
                }
                broken => self.broke(broken.and_then(Result::err)).await?,
            }
        }
        Ok(None)
    }

    /// Gets ready to ask for the rest, or gives up.
    async fn broke(&mut self, error: Option<aws_sdk_s3::primitives::ByteStreamError>) -> Result<()> {
        self.answer = None;
        self.continued += 1;
        if self.continued <= CONTINUED_MAX {
            tokio::time::sleep(PAUSE * (self.continued - 1)).await;
            return Ok(());
        }
        Err(match error {
            None => self.truncated(),
            Some(error) => self.store.object_failed(&self.key, "reading it")(std::io::Error::other(error)),
        })
    }

    async fn ask(&self) -> Result<Answer> {
        let request = self.store.client.get_object();
        let asked = request
            .bucket(&*self.store.bucket)
            .key(self.store.full(self.key.as_str()))
            .range(format!("bytes={}-{}", self.rest.start, self.rest.end - 1))
            .send()
            .await
            .map_err(io_error);
        match asked {
            Ok(answer) => Ok(answer.body),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.truncated()),
            Err(error) => Err(self.store.object_failed(&self.key, "reading it")(error)),
        }
    }

    fn truncated(&self) -> StorageError {
        StorageError::Truncated {
            key: self.key.clone(),
            missing: self.rest.end - self.rest.start,
        }
    }
}
