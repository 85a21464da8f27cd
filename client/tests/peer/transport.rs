//! Authentication, redirects, repetitions.

use client::api::Credential;
use client::{Access, Error};
use oci::{Digest, RepoName};

use crate::script::{Peer, answer};

fn repository() -> RepoName {
    "team/app".parse().unwrap()
}

fn basic() -> Access {
    Access::Credential(Credential::Basic {
        username: "me".into(),
        password: "secret".into(),
    })
}

fn challenge(peer: &str) -> String {
    format!(
        "WWW-Authenticate: Bearer realm=\"http://{peer}/token\",service=\"s\",scope=\"repository:team/app:pull\""
    )
}

/// Serves tokens and lets in only who has one.
async fn token_registry() -> Peer {
    Peer::start(|request, _| {
        let host = request.header("host").unwrap().to_owned();
        if request.line.starts_with("GET /token") || request.line.starts_with("POST /token") {
            return answer("200 OK", &[], r#"{"access_token":"t0k3n","expires_in":300}"#);
        }
        match request.header("authorization") {
            Some("Bearer t0k3n") => answer("200 OK", &["Content-Length: 5"], ""),
            _ => answer("401 Unauthorized", &[&challenge(&host)], ""),
        }
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_once_for_its_scope() {
    let peer = token_registry().await;
    let registry = peer.registry(basic());
    let digest = Digest::sha256(b"x");
    for _ in 0..2 {
        assert_eq!(registry.stat_blob(&repository(), &digest).await.unwrap(), Some(5));
    }
    let seen = peer.seen();
    let lines: Vec<&str> = seen
        .iter()
        .map(|request| request.line.split(['?', ' ']).next().unwrap())
        .collect();
    assert_eq!(lines, ["HEAD", "GET", "HEAD", "HEAD"]);
    assert_eq!(
        seen[1].line,
        "GET /token?service=s&scope=repository%3Ateam%2Fapp%3Apull&account=me"
    );
    assert_eq!(seen[1].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    assert_eq!(
        seen[0].header("authorization"),
        None,
        "nothing is sent before it is asked for"
    );
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let peer = token_registry().await;
    let registry = peer.registry(Access::Credential(Credential::IdentityToken("r e".into())));
    registry
        .stat_blob(&repository(), &Digest::sha256(b"x"))
        .await
        .unwrap();
    let request = &peer.seen()[1];
    assert_eq!(
        (request.line.as_str(), request.header("authorization")),
        ("POST /token", None)
    );
    let form = String::from_utf8(request.body.clone()).unwrap();
    assert!(
        form.contains("grant_type=refresh_token") && form.contains("refresh_token=r+e"),
        "{form}"
    );
    assert!(form.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{form}");
}

#[tokio::test]
async fn a_refused_token_is_not_asked_for_forever() {
    let peer = Peer::start(|request, _| {
        let host = request.header("host").unwrap().to_owned();
        match request.line.starts_with("GET /token") {
            true => answer("200 OK", &[], r#"{"token":"useless"}"#),
            false => answer("401 Unauthorized", &[&challenge(&host)], ""),
        }
    })
    .await;
    let error = peer
        .registry(Access::Anonymous)
        .tags(&repository())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("docker login"), "{error}");
    assert_eq!(peer.seen().len(), 3);
}

#[tokio::test]
async fn a_redirect_elsewhere_goes_without_credentials() {
    let store = Peer::start(|_, _| answer("200 OK", &[], "hello")).await;
    let elsewhere = store.address;
    let peer = Peer::start(move |request, _| match request.header("authorization") {
        None => answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"r\""], ""),
        Some(_) if request.line.ends_with("moved") => answer(
            "307 Temporary Redirect",
            &[&format!("Location: http://{elsewhere}/presigned")],
            "",
        ),
        Some(_) => answer("307 Temporary Redirect", &["Location: /v2/moved"], ""),
    })
    .await;
    let blob = oci::Descriptor::new("x", Digest::sha256(b"hello"), 5);
    let bytes = peer
        .registry(basic())
        .read_blob(&repository(), &blob, 10)
        .await
        .unwrap();
    assert_eq!(bytes, "hello");
    let lines: Vec<_> = peer
        .seen()
        .iter()
        .map(|request| request.header("authorization").is_some())
        .collect();
    assert_eq!(lines, [false, true, true], "the same host keeps them");
    assert_eq!(store.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn redirect_loops_end() {
    let peer = Peer::start(|_, _| answer("302 Found", &["Location: /v2/again"], "")).await;
    let error = peer
        .registry(Access::Anonymous)
        .ping()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("redirects"), "{error}");
}

#[tokio::test]
async fn passing_troubles_are_sat_out_and_lasting_ones_told() {
    let peer = Peer::start(|_, number| match number {
        0 => answer("503 Service Unavailable", &["Retry-After: 1"], ""),
        1 => String::new(),
        _ => answer("200 OK", &[], "{}"),
    })
    .await;
    let begun = std::time::Instant::now();
    peer.registry(Access::Anonymous).ping().await.unwrap();
    assert!(begun.elapsed().as_millis() >= 1000, "Retry-After is heeded");

    let limited = Peer::start(|_, _| answer("429 Too Many Requests", &["Retry-After: 3600"], "")).await;
    let error = limited.registry(Access::Anonymous).ping().await.unwrap_err();
    assert!(error.to_string().contains("wait 3600 s"), "{error}");
    assert_eq!(limited.seen().len(), 1, "nobody waits an hour");
}

#[tokio::test]
async fn a_build_is_never_asked_for_twice() {
    let peer = Peer::start(|_, _| String::new()).await;
    let api = client::api_client::Api::new(&format!("http://{}", peer.address), client::Options::default())
        .unwrap();
    let request = serde_json::json!({ "dockerfile": { "name": "Dockerfile", "text": "FROM scratch" } });
    let request = serde_json::from_value(request).unwrap();
    let error = api.create_build(&request).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn a_name_of_the_server_itself_is_refused_before_a_connection() {
    let own = Peer::start(|_, _| answer("200 OK", &[], "{}")).await;
    let elsewhere = own.address;
    let other = Peer::start(move |_, _| {
        answer(
            "302 Found",
            &[&format!("Location: http://localhost:{}/", elsewhere.port())],
            "",
        )
    })
    .await;
    let http = client::Http::guarded(client::Guard::new(vec![own.address]));
    for port in [own.address.port(), other.address.port()] {
        let options = client::Options {
            http: Some(http.clone()),
            ..client::Options::default()
        };
        let registry = client::Registry::new(&format!("localhost:{port}"), options).unwrap();
        let error = registry.ping().await.unwrap_err();
        assert!(matches!(error, Error::AddressRefused { .. }), "{error}");
    }
    assert_eq!(
        (own.seen().len(), other.seen().len()),
        (0, 1),
        "a redirect is no way around"
    );
}

/// A registry may send its clients anywhere for a token. A server's own fetches go neither to the server itself nor to a
/// metadata service, and what they know of the registry goes nowhere.
#[tokio::test]
async fn a_hostile_realm_gets_no_credentials() {
    let own = Peer::start(|_, _| answer("200 OK", &[], r#"{"token":"t"}"#)).await;
    for realm in [
        own.address.to_string(),
        format!("localhost:{}", own.address.port()),
        "169.254.169.254".to_owned(),
    ] {
        let hostile = Peer::start(move |_, _| answer("401 Unauthorized", &[&challenge(&realm)], "")).await;
        let options = client::Options {
            http: Some(client::Http::guarded(client::Guard::new(vec![own.address]))),
            access: basic(),
            ..client::Options::default()
        };
        let registry = client::Registry::new(&hostile.address.to_string(), options).unwrap();
        let error = registry.tags(&repository()).await.unwrap_err();
        assert!(matches!(error, Error::AddressRefused { .. }), "{error}");
        let seen = hostile.seen();
        assert!(
            seen.iter()
                .all(|request| request.header("authorization").is_none())
        );
    }
    assert_eq!(own.seen().len(), 0);
}
