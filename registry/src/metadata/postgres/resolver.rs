//! Looking up many names with one query.
//!
//! Replicas share a database, so that what a name stands for can't be kept in memory: another replica may just have
//! changed it. What is looked up while a query is under way goes with the next one, as one join. So each answer is
//! of a query that began after its question, and the more is asked, the less each question costs.

use std::sync::Arc;

use futures::future::BoxFuture;
use oci::{Digest, RepoName, Tag};
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::rows::During;
use crate::metadata::{MetadataError, Result};

/// Names in one query.
const BATCH_MAX: usize = 256;
/// Questions that wait before those who ask do.
const QUEUE_MAX: usize = 1024;

/// One row a question, also where there is no answer; a lateral join, so that each is a walk along indexes. So is the
/// link's: the planner may else walk through all repositories that have a blob.
pub(super) const TAGS: &str =
    "SELECT m.* FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q (repository, name, at)
     LEFT JOIN LATERAL (
         SELECT m.id, m.digest, m.pushed_at, coalesce(m.review_at < now_micros() + $3, false) AS review_soon
         FROM repositories r
         JOIN tags t ON t.repository_id = r.id AND t.name = q.name
         JOIN manifests m ON m.id = t.manifest_id AND m.deleted_at IS NULL
         WHERE r.name = q.repository AND r.deleted_at IS NULL LIMIT 1
     ) m ON true ORDER BY q.at";

pub(super) const MANIFESTS: &str =
    "SELECT m.* FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS q (repository, digest, at)
     LEFT JOIN LATERAL (
         SELECT m.id, m.digest, m.pushed_at, coalesce(m.review_at < now_micros() + $3, false) AS review_soon
         FROM repositories r
         JOIN manifests m ON m.repository_id = r.id AND m.digest = q.digest AND m.deleted_at IS NULL
         WHERE r.name = q.repository AND r.deleted_at IS NULL LIMIT 1
     ) m ON true ORDER BY q.at";

pub(super) const BLOBS: &str =
    "SELECT b.* FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS q (repository, digest, at)
     LEFT JOIN LATERAL (
         SELECT l.repository_id, l.blob_id, b.size, b.storage_key AS key,
             coalesce(l.review_at < now_micros() + $3, false) AS review_soon
         FROM repositories r
         JOIN blobs b ON b.digest = q.digest AND b.state = 0
         CROSS JOIN LATERAL (
             SELECT repository_id, blob_id, review_at FROM repository_blobs
             WHERE repository_id = r.id AND blob_id = b.id AND hidden = 0 LIMIT 1) l
         WHERE r.name = q.repository AND r.deleted_at IS NULL LIMIT 1
     ) b ON true ORDER BY q.at";

/// A manifest outside the trash.
#[derive(Clone, Debug)]
pub(super) struct FoundManifest {
    pub(super) id: i64,
    pub(super) digest: Vec<u8>,
    /// Changes with everything that can change about a manifest.
    pub(super) pushed_at: i64,
    pub(super) review_soon: bool,
}

/// A visible link.
#[derive(Clone, Debug)]
pub(super) struct FoundBlob {
    pub(super) repository_id: i64,
    pub(super) blob_id: i64,
    pub(super) size: i64,
    pub(super) key: String,
    pub(super) review_soon: bool,
}

pub(super) struct Resolver {
    tags: Queue<String, FoundManifest>,
    manifests: Queue<Vec<u8>, FoundManifest>,
    blobs: Queue<Vec<u8>, FoundBlob>,
}

impl Resolver {
    /// `soon_micros` is how near a review may be before the answer says so.
    pub(super) fn start(link: &Arc<Link>, soon_micros: i64) -> Self {
        let access = Access {
            link: Arc::clone(link),
            soon_micros,
        };
        Self {
            tags: Queue::start(access.clone(), |access, batch| {
                Box::pin(access.manifests(TAGS, &batch.repositories, &batch.names))
            }),
            manifests: Queue::start(access.clone(), |access, batch| {
                Box::pin(access.manifests(MANIFESTS, &batch.repositories, &batch.names))
            }),
            blobs: Queue::start(access, |access, batch| Box::pin(access.blobs(batch))),
        }
    }

    pub(super) async fn tag(&self, repository: &RepoName, tag: &Tag) -> Result<Option<FoundManifest>> {
        self.tags.find(repository, tag.as_str().to_owned()).await
    }

    pub(super) async fn manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<FoundManifest>> {
        self.manifests.find(repository, digest.to_bytes()).await
    }

    pub(super) async fn blob(&self, repository: &RepoName, digest: &Digest) -> Result<Option<FoundBlob>> {
        self.blobs.find(repository, digest.to_bytes()).await
    }
}

#[derive(Clone)]
struct Access {
    link: Arc<Link>,
    soon_micros: i64,
}

impl Access {
    async fn manifests<'q, K>(
        &'q self,
        sql: &'static str,
        repositories: &'q [String],
        names: &'q [K],
    ) -> Result<Vec<Option<FoundManifest>>>
    where
        &'q [K]: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
        K: Sync,
    {
        type Row = (Option<i64>, Option<Vec<u8>>, Option<i64>, Option<bool>);
        let rows: Vec<Row> = sqlx::query_as(sql)
            .bind(repositories)
            .bind(names)
            .bind(self.soon_micros)
            .fetch_all(&self.link.pool())
            .await
            .during("finding manifests")?;
        let found = |(id, digest, pushed_at, review_soon): Row| {
            Some(FoundManifest {
                id: id?,
                digest: digest?,
                pushed_at: pushed_at?,
                review_soon: review_soon?,
            })
        };
        Ok(rows.into_iter().map(found).collect())
    }

    async fn blobs(&self, batch: &Batch<Vec<u8>>) -> Result<Vec<Option<FoundBlob>>> {
        type Row = (
            Option<i64>,
            Option<i64>,
            Option<i64>,
            Option<String>,
            Option<bool>,
        );
        let rows: Vec<Row> = sqlx::query_as(BLOBS)
            .bind(&batch.repositories)
            .bind(&batch.names)
            .bind(self.soon_micros)
            .fetch_all(&self.link.pool())
            .await
            .during("finding blobs")?;
        let found = |(repository_id, blob_id, size, key, review_soon): Row| {
            Some(FoundBlob {
                repository_id: repository_id?,
                blob_id: blob_id?,
                size: size?,
                key: key?,
                review_soon: review_soon?,
            })
        };
        Ok(rows.into_iter().map(found).collect())
    }
}

/// Questions of one kind and the task that asks them.
struct Queue<K, F>(mpsc::Sender<Question<K, F>>);

struct Question<K, F> {
    repository: String,
    name: K,
    answer: oneshot::Sender<Result<Option<F>>>,
}

struct Batch<K> {
    repositories: Vec<String>,
    names: Vec<K>,
}

type Query<K, F> = for<'a> fn(&'a Access, &'a Batch<K>) -> BoxFuture<'a, Result<Vec<Option<F>>>>;

impl<K, F> Queue<K, F>
where
    K: Send + Sync + 'static,
    F: Send + 'static,
{
    fn start(access: Access, query: Query<K, F>) -> Self {
        let (questions, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(serve(access, query, waiting));
        Self(questions)
    }

    async fn find(&self, repository: &RepoName, name: K) -> Result<Option<F>> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            repository: repository.as_str().to_owned(),
            name,
            answer,
        };
        self.0.send(question).await.map_err(|_| MetadataError::Closed)?;
        answered.await.map_err(|_| MetadataError::Closed)?
    }
}

async fn serve<K, F>(access: Access, query: Query<K, F>, mut waiting: mpsc::Receiver<Question<K, F>>) {
    let mut questions = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut questions, BATCH_MAX).await > 0 {
        let mut batch = Batch {
            repositories: Vec::with_capacity(questions.len()),
            names: Vec::with_capacity(questions.len()),
        };
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions.drain(..) {
            batch.repositories.push(question.repository);
            batch.names.push(question.name);
            answers.push(question.answer);
        }
        // Who hung up is no longer waiting for the answer.
        match access.link.retrying(|| query(&access, &batch)).await {
            Ok(found) => {
                for (answer, found) in answers.into_iter().zip(found) {
                    let _ = answer.send(Ok(found));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(shared(&error)));
                }
            }
        }
    }
}

/// One failure for all that were asked together.
fn shared(error: &Arc<MetadataError>) -> MetadataError {
    let source = Box::new(Shared(Arc::clone(error)));
    let operation = "looking up names";
    match **error {
        MetadataError::Unavailable { .. } => MetadataError::Unavailable { operation, source },
        _ => MetadataError::Database { operation, source },
    }
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<MetadataError>);
