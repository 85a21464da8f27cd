//! What every metadata store must do. Each back end runs it on an empty store.

mod accounts;
pub(crate) mod collection;
mod content;
mod events;
mod leases;
mod naming;
mod policing;
pub(crate) mod race;
mod trash;

use bytes::Bytes;
use oci::{Algorithm, Digest, RepoName, Tag};

use super::*;

pub(crate) async fn run(store: &dyn MetadataStore) {
    accounts::every_change_raises_the_version(store).await;
    accounts::what_a_user_had_goes_with_it(store).await;
    accounts::secrets_are_made_once(store).await;
    accounts::ranges_are_listed(store).await;
    content::sessions_have_one_writer_and_move_forward(store).await;
    content::a_closed_session_makes_a_blob_visible_in_its_repository_alone(store).await;
    content::names_are_in_one_place_and_only_doomed_ones_are_handed_out(store).await;
    content::what_a_store_notes_is_kept_and_its_name_with_it(store).await;
    naming::manifests_need_what_they_refer_to(store).await;
    naming::an_index_may_list_blobs(store).await;
    naming::tags_move_and_go(store).await;
    naming::deletions_respect_references(store).await;
    naming::pages_follow_each_other(store).await;
    naming::referrers_are_ordered_and_filtered(store).await;
    leases::a_lease_has_one_holder_and_counts_them(store).await;
    content::cache_records_pin_their_blobs(store).await;
    naming::a_wide_manifest_is_stored_and_found(store).await;
    events::changes_are_told_and_forgotten(store).await;
    events::a_quarantined_blob_is_healed_by_a_push(store).await;
}

pub(crate) fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn new_key(digest: &Digest) -> ObjectName {
    ObjectName::new(format!("blobs/{digest}.{}", UploadId::random()))
}

fn closing(digest: Digest, key: &ObjectName) -> Option<Closing> {
    Some(Closing {
        digest,
        key: key.clone(),
    })
}

async fn session(
    store: &dyn MetadataStore,
    repository: &RepoName,
    closing: Option<Closing>,
) -> (UploadId, bool) {
    let id = UploadId::random();
    let upload = NewUpload {
        id,
        repository: repository.clone(),
        principal: "tester".to_owned(),
        algorithm: Algorithm::Sha256,
        closing,
    };
    let stored = store.create_upload(upload).await.unwrap();
    (id, stored)
}

/// Pushes a blob in one piece.
pub(crate) async fn blob(store: &dyn MetadataStore, repository: &RepoName, content: &str) -> Digest {
    let digest = Digest::sha256(content.as_bytes());
    let key = new_key(&digest);
    let (upload, stored) = session(store, repository, closing(digest, &key)).await;
    let commit = CommitBlob {
        upload,
        epoch: 1,
        repository: repository.clone(),
        digest,
        size: content.len() as u64,
        key: (!stored).then_some(key),
    };
    assert_eq!(store.commit_blob(commit).await.unwrap(), CommitOutcome::Committed);
    digest
}

pub(crate) fn manifest(repository: &RepoName, content: &str) -> PutManifest {
    PutManifest {
        repository: repository.clone(),
        digest: Digest::sha256(content.as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        artifact_type: String::new(),
        subject: None,
        descriptor: None,
        bytes: Bytes::copy_from_slice(content.as_bytes()),
        blobs: Vec::new(),
        children: Vec::new(),
        blobs_required: true,
        children_required: true,
        tags: Vec::new(),
        immutable: Vec::new(),
        actor: "tester".to_owned(),
        origin: Origin::default(),
    }
}

async fn stored(store: &dyn MetadataStore, put: PutManifest) -> Digest {
    let digest = put.digest;
    assert_eq!(store.put_manifest(put).await.unwrap(), PutOutcome::Stored);
    digest
}
