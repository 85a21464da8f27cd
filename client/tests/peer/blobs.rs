//! Transfers that break, and content that isn't what it says.

use bytes::Bytes;
use client::{Access, BytesSource, Error};
use oci::{Descriptor, Digest, RepoName, media_type};

use crate::script::{Peer, answer};

fn repository() -> RepoName {
    "team/app".parse().unwrap()
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    for ranges in [true, false] {
        let peer = Peer::start(move |request, number| match (number, request.header("range")) {
            // Less than announced, then the connection closes.
            (0, None) => answer("200 OK", &["Content-Length: 10"], "0123"),
            (1, Some("bytes=4-")) if ranges => {
                let headers = ["Content-Range: bytes 4-9/10", "Content-Length: 6"];
                answer("206 Partial Content", &headers, "45")
            }
            (_, Some("bytes=6-")) if ranges => {
                answer("206 Partial Content", &["Content-Range: bytes 6-9/10"], "6789")
            }
            _ => answer("200 OK", &[], "0123456789"),
        })
        .await;
        let blob = Descriptor::new("x", Digest::sha256(b"0123456789"), 10);
        let bytes = peer
            .registry(Access::Anonymous)
            .read_blob(&repository(), &blob, 100)
            .await
            .unwrap();
        assert_eq!(bytes, "0123456789", "ranges: {ranges}");
        assert_eq!(peer.seen().len(), if ranges { 3 } else { 2 });
    }
}

#[tokio::test]
async fn altered_content_is_noticed() {
    let peer = Peer::start(|request, _| match request.line.contains("manifests") {
        true => answer(
            "200 OK",
            &[&format!("Content-Type: {}", media_type::OCI_MANIFEST)],
            "{}",
        ),
        false => answer("200 OK", &[], "evil"),
    })
    .await;
    let registry = peer.registry(Access::Anonymous);
    let digest = Digest::sha256(b"good");
    let error = registry
        .read_blob(&repository(), &Descriptor::new("x", digest, 4), 10)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let error = registry
        .read_blob(&repository(), &Descriptor::new("x", digest, 3), 10)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    let reference = oci::Reference::Digest(digest);
    let error = registry.manifest(&repository(), &reference).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn endless_manifests_are_cut_off() {
    let endless = "x".repeat(5 << 20);
    let peer = Peer::start(move |_, _| answer("200 OK", &[], &endless)).await;
    let error = peer
        .registry(Access::Anonymous)
        .manifest(&repository(), &"v1".parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_the_registry_stands() {
    let peer = Peer::start(|request, _| {
        let method = request.line.split(' ').next().unwrap();
        match method {
            "POST" => answer(
                "202 Accepted",
                &["Location: /v2/team/app/blobs/uploads/1?_state=a"],
                "",
            ),
            // The whole blob in one request: breaks.
            "PUT" if !request.body.is_empty() => String::new(),
            "GET" => answer("204 No Content", &["Location: /up/2", "Range: 0-3"], ""),
            "PATCH" => answer("202 Accepted", &["Location: /up/3"], ""),
            _ => answer("201 Created", &[], ""),
        }
    })
    .await;
    let data = Bytes::from_static(b"0123456789");
    let digest = Digest::sha256(&data);
    let registry = peer.registry(Access::Anonymous);
    registry
        .push_blob(&repository(), &digest, 10, &BytesSource(data))
        .await
        .unwrap();
    let seen = peer.seen();
    let lines: Vec<&str> = seen
        .iter()
        .map(|request| request.line.split("&digest").next().unwrap())
        .collect();
    let closing = format!("PUT /up/3?digest=sha256%3A{}", digest.hex());
    assert_eq!(
        lines,
        [
            "POST /v2/team/app/blobs/uploads/",
            "PUT /v2/team/app/blobs/uploads/1?_state=a",
            "GET /v2/team/app/blobs/uploads/1?_state=a",
            "PATCH /up/2",
            &closing,
        ]
    );
    assert_eq!(
        (seen[3].header("content-range"), &seen[3].body[..]),
        (Some("4-9"), &b"456789"[..])
    );
}

#[tokio::test]
async fn a_streamed_upload_sends_what_it_is_given() {
    let peer = Peer::start(|request, _| match request.line.split(' ').next().unwrap() {
        "POST" => answer("202 Accepted", &["Location: /up/1"], ""),
        "PATCH" => answer("202 Accepted", &["Location: /up/2"], ""),
        _ => answer("201 Created", &[], ""),
    })
    .await;
    let registry = peer.registry(Access::Anonymous);
    let mut upload = registry.start_upload(&repository()).await.unwrap();
    for piece in ["ab", "", "c"] {
        upload.write(Bytes::from_static(piece.as_bytes())).await.unwrap();
    }
    upload.finish(&Digest::sha256(b"abc")).await.unwrap();
    let seen = peer.seen();
    assert_eq!(seen[1].body, b"abc");
    assert!(seen[2].line.starts_with("PUT /up/2?digest="));
    drop(registry.start_upload(&repository()).await.unwrap());
    for _ in 0..100 {
        if peer.seen().last().unwrap().line == "DELETE /up/1" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("an abandoned upload is cancelled: {:?}", peer.seen());
}
