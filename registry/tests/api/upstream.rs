//! Images of another registry: fetched once, asked for again, used when it is gone. The other registry is a second
//! server of ours; real ones are tested in crate `tests`.

use bytes::Bytes;
use client::api::{ResolveRequest, ResolvedReference};
use client::{BytesSource, Error, Registry};
use oci::{Descriptor, Digest, Platform, Reference, RepoName, media_type};
use serde_json::json;

use crate::harness::Harness;

async fn push_image(registry: &Registry, repository: &RepoName, layer: &'static [u8]) -> Descriptor {
    let config = b"{\"architecture\":\"amd64\",\"os\":\"linux\"}";
    let mut descriptors = Vec::new();
    for (kind, data) in [
        (media_type::OCI_CONFIG, &config[..]),
        (media_type::OCI_LAYER_GZIP, layer),
    ] {
        let digest = Digest::sha256(data);
        let source = BytesSource(Bytes::copy_from_slice(data));
        registry
            .push_blob(repository, &digest, data.len() as u64, &source)
            .await
            .unwrap();
        descriptors.push(Descriptor::new(kind, digest, data.len() as u64));
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptors[0], "layers": [descriptors[1]],
    });
    let bytes = Bytes::from(manifest.to_string());
    let digest = Digest::sha256(&bytes);
    let reference = Reference::Digest(digest);
    let size = bytes.len() as u64;
    registry
        .put_manifest(repository, &reference, media_type::OCI_MANIFEST, bytes)
        .await
        .unwrap();
    Descriptor::new(media_type::OCI_MANIFEST, digest, size)
}

async fn push_index(
    registry: &Registry,
    repository: &RepoName,
    tag: &str,
    images: &[(&str, &Descriptor)],
) -> Digest {
    let manifests: Vec<_> = images
        .iter()
        .map(|(architecture, image)| {
            let mut child = serde_json::to_value(image).unwrap();
            child["platform"] = json!({ "os": "linux", "architecture": architecture });
            child
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests });
    let bytes = Bytes::from(index.to_string());
    let reference = tag.parse().unwrap();
    registry
        .put_manifest(repository, &reference, media_type::OCI_INDEX, bytes)
        .await
        .unwrap()
}

async fn resolve(harness: &Harness, reference: &str, architecture: &str) -> Result<ResolvedReference, Error> {
    let platform: Platform = format!("linux/{architecture}").parse().unwrap();
    let question = ResolveRequest {
        reference: reference.to_owned(),
        platform,
    };
    harness.user().resolve_image(&question).await
}

#[tokio::test]
async fn an_image_is_fetched_once_and_followed() {
    let (harness, upstream) = (
        Harness::start_without_worker().await,
        Harness::start_without_worker().await,
    );
    let (there, here) = (upstream.registry(), harness.registry());
    let repository: RepoName = "library/base".parse().unwrap();
    let amd64 = push_image(&there, &repository, b"amd64").await;
    let arm64 = push_image(&there, &repository, b"arm64").await;
    let index = push_index(&there, &repository, "12", &[("amd64", &amd64), ("arm64", &arm64)]).await;

    let name = format!("{}/library/base:12", upstream.address);
    let (first, again) = tokio::join!(
        resolve(&harness, &name, "amd64"),
        resolve(&harness, &name, "amd64")
    );
    let first = first.unwrap();
    assert_eq!(first, again.unwrap());
    assert_eq!((first.digest, first.manifest), (index, amd64.digest));
    assert_eq!(first.upstream.as_deref(), Some(upstream.address.as_str()));
    let kept = first.repository.clone();
    assert_eq!(
        kept.as_str(),
        format!("{}/library/base", upstream.address.replace(':', "_"))
    );
    assert_eq!(
        here.resolve(&kept, &"12".parse().unwrap()).await.unwrap().digest,
        index
    );
    assert_eq!(
        here.stat_blob(&kept, &Digest::sha256(b"amd64")).await.unwrap(),
        Some(5)
    );
    assert_eq!(
        here.stat_blob(&kept, &Digest::sha256(b"arm64")).await.unwrap(),
        None,
        "only what is asked for"
    );
    assert_eq!(
        resolve(&harness, &name, "arm64").await.unwrap().manifest,
        arm64.digest
    );
    let missing = resolve(&harness, &name, "s390x").await.unwrap_err().to_string();
    assert!(
        missing.contains("linux/s390x") && missing.contains("linux/amd64, linux/arm64"),
        "{missing}"
    );

    let newer = push_image(&there, &repository, b"newer").await;
    let moved = push_index(&there, &repository, "12", &[("amd64", &newer)]).await;
    let followed = resolve(&harness, &name, "amd64").await.unwrap();
    assert_eq!((followed.digest, followed.manifest), (moved, newer.digest));
    let pinned = format!("{}/library/base@{index}", upstream.address);
    assert_eq!(
        resolve(&harness, &pinned, "amd64").await.unwrap().manifest,
        amd64.digest
    );

    let absent = resolve(
        &harness,
        &format!("{}/library/base:13", upstream.address),
        "amd64",
    )
    .await
    .unwrap_err();
    assert!(
        absent.is_not_found() && absent.to_string().contains("library/base:13"),
        "{absent}"
    );
    upstream.stop().await;
    let stale = resolve(&harness, &name, "amd64").await.unwrap();
    assert_eq!(stale.manifest, newer.digest);
    assert!(stale.warning.unwrap().contains("fetched earlier"));
    assert_eq!(
        resolve(&harness, &pinned, "amd64").await.unwrap().warning,
        None,
        "a digest needs no asking"
    );
    harness.stop().await;
}

/// Layers come with the credentials of the build's user, and the build's events tell how far they are.
#[tokio::test]
async fn a_build_hears_of_its_base_images_fetch() {
    let (harness, upstream) = (Harness::start().await, Harness::start_without_worker().await);
    let repository: RepoName = "base".parse().unwrap();
    let image = push_image(&upstream.registry(), &repository, b"layer").await;
    push_index(&upstream.registry(), &repository, "1", &[("amd64", &image)]).await;
    let id = harness
        .user()
        .create_build(&crate::harness::request("app"))
        .await
        .unwrap()
        .id;
    let job = harness.lease().await;
    let (worker, registry) = harness.with_token(&job.token);
    let reference = format!("{}/base:1", upstream.address);
    let question = ResolveRequest {
        reference: reference.clone(),
        platform: "linux/amd64".parse().unwrap(),
    };
    let found = worker.resolve_image(&question).await.unwrap();
    assert_eq!(
        registry
            .stat_blob(&found.repository, &Digest::sha256(b"layer"))
            .await
            .unwrap(),
        Some(5)
    );
    let event = harness.user().events(&id, 0).next().await.unwrap().unwrap().event;
    assert_eq!(
        (event["type"].as_str(), event["id"].as_str()),
        (Some("progress"), Some(reference.as_str()))
    );
    assert_eq!(event["done_bytes"], event["total_bytes"]);
    // What the worker sends is counted by itself.
    let batch = client::api::EventBatch {
        first: 0,
        events: vec![json!({"type": "planned"})],
    };
    worker.send_events(&id, &batch).await.unwrap();
    assert_eq!(harness.user().build(&id).await.unwrap().last_seq, 2);
    harness.stop().await;
    upstream.stop().await;
}

#[tokio::test]
async fn own_names_never_leave_the_server() {
    let harness = Harness::start_without_worker().await;
    let here = harness.registry();
    let repository: RepoName = "team/app".parse().unwrap();
    let image = push_image(&here, &repository, b"own").await;
    push_index(&here, &repository, "1", &[("amd64", &image)]).await;
    let port = harness.address.rsplit_once(':').unwrap().1;
    for name in [
        "team/app:1".to_owned(),
        format!("{}/team/app:1", harness.address),
        format!("localhost:{port}/team/app:1"),
    ] {
        let found = resolve(&harness, &name, "amd64").await.unwrap();
        assert_eq!(
            (found.repository.as_str(), found.manifest),
            ("team/app", image.digest),
            "{name}"
        );
        assert_eq!(found.upstream, None);
    }
    // A name that resolves to the server itself is no way around its access rules.
    let alias = resolve(&harness, &format!("sub.localhost:{port}/team/app:1"), "amd64")
        .await
        .unwrap_err();
    assert!(!matches!(alias, Error::NotFound { .. }), "{alias}");
    harness.stop().await;
}

#[tokio::test]
async fn damaged_content_is_not_kept() {
    let harness = Harness::start_without_worker().await;
    let upstream = lying_registry().await;
    let error = resolve(&harness, &format!("{upstream}/x:1"), "amd64")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("altered or damaged"), "{error}");
    let kept: RepoName = format!("{}/x", upstream.to_string().replace(':', "_"))
        .parse()
        .unwrap();
    // The good configuration may have come first and made the repository; a tag there must not be.
    match harness.registry().tags(&kept).await {
        Ok(tags) => assert_eq!(tags.len(), 0, "{tags:?}"),
        Err(error) => assert!(error.is_not_found(), "{error}"),
    }
    harness.stop().await;
}

/// A registry whose layer has other bytes than its digest says.
async fn lying_registry() -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layer = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::sha256(b"good"), 4);
    let config = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(b"{}"), 2);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer],
    });
    let manifest = manifest.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let manifest = manifest.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let body = match () {
                    () if request.contains("/manifests/") => manifest.as_str(),
                    () if request.contains(&Digest::sha256(b"{}").hex()) => "{}",
                    () => "evil",
                };
                let digest = Digest::sha256(manifest.as_bytes());
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: {}\r\nDocker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n",
                    body.len(),
                    media_type::OCI_MANIFEST
                );
                let sent = if request.starts_with("HEAD") { "" } else { body };
                let _ = stream.write_all(format!("{head}{sent}").as_bytes()).await;
            });
        }
    });
    address
}
