//! Forged tokens of an external token service. Its public key is known to everybody; everything that has ever been made of
//! that elsewhere is tried here.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::harness::paths;
use crate::harness::token_server::{TokenServer, signing_input};

const SCOPE: &str = "repository:team/app:pull,push";

fn started() -> (TokenServer, Server, tempfile::TempDir) {
    let dir = paths::scratch();
    let service = TokenServer::start(dir.path());
    let config = format!("[access]\nanonymous = 'none'\n{}", service.layeryard_config());
    let server = Server::start_with(&config);
    (service, server, dir)
}

#[track_caller]
fn assert_refused(server: &Server, what: &str, token: &str) {
    for (method, target) in [
        ("GET", "/v2/"),
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("GET", "/api/v1/users"),
    ] {
        let answer = send(server, method, target, &format!("Bearer {token}"));
        assert_eq!(answer.status, 401, "{what}: {method} {target}: {}", answer.text());
    }
}

/// The tests below mean something only if the token they change is good before.
#[track_caller]
fn assert_believed(server: &Server, token: &str) {
    let bearer = format!("Bearer {token}");
    send(server, "POST", "/v2/team/app/blobs/uploads/", &bearer).expect(202);
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = TokenServer::claims(SCOPE);
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = TokenServer::claims(SCOPE);
    claims.as_object_mut().expect("claims").remove(name);
    claims
}

#[test]
fn claims_must_be_for_this_registry_and_this_moment() {
    let (service, server, _dir) = started();
    let signed = |claims: &Value| service.signed(&TokenServer::header(), claims);
    assert_believed(&server, &signed(&TokenServer::claims(SCOPE)));
    for (what, claims) in [
        ("another audience", with("aud", "elsewhere")),
        ("a list of other audiences", with("aud", json!(["a", "b"]))),
        ("another issuer", with("iss", "somebody")),
        ("expired", with("exp", 1_000_000_000)),
        ("not yet valid", with("nbf", 4_000_000_000_u64)),
        ("no expiry", without("exp")),
        ("no audience", without("aud")),
        ("no issuer", without("iss")),
        ("expiry in words", with("exp", "tomorrow")),
    ] {
        assert_refused(&server, what, &signed(&claims));
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let (service, server, dir) = started();
    let stranger_dir = dir.path().join("stranger");
    fs::create_dir(&stranger_dir).expect("make a directory");
    let stranger = TokenServer::start(&stranger_dir);
    let claims = TokenServer::claims(SCOPE);
    let header = |more: Value| {
        let mut header = TokenServer::header();
        for (name, value) in more.as_object().expect("fields") {
            header[name] = value.clone();
        }
        header
    };
    let set: Value = serde_json::from_slice(&fs::read(stranger.keys()).expect("read keys")).expect("JSON");
    let jwk = set["keys"][0].clone();
    let visits = visited(&set.to_string());
    let url = format!("http://{}/jwks.json", visits.0);
    for (what, more) in [
        ("its own key inside", json!({"jwk": jwk})),
        ("its own key's address", json!({"jku": url, "kid": "other"})),
        ("a certificate's address", json!({"x5u": url})),
        ("a key that is not known", json!({"kid": "other"})),
        (
            "a key's name that is a path",
            json!({"kid": "../../../../dev/null"}),
        ),
        (
            "an extension that must be understood",
            json!({"crit": ["exp"], "alg": "none"}),
        ),
    ] {
        assert_refused(&server, what, &stranger.signed(&header(more), &claims));
    }
    assert_eq!(
        visits.1.load(Ordering::SeqCst),
        0,
        "a token sends nobody anywhere"
    );

    let good = service.signed(&TokenServer::header(), &claims);
    assert_believed(&server, &good);
    let parts: Vec<&str> = good.split('.').collect();
    for none in ["none", "None", "NONE", ""] {
        let unsigned = signing_input(&header(json!({"alg": none})), &claims);
        assert_refused(&server, "no algorithm", &format!("{unsigned}."));
        assert_refused(&server, "no algorithm", &format!("{unsigned}.{}", parts[2]));
    }
    assert_refused(&server, "no signature", &format!("{}.{}.", parts[0], parts[1]));
    let other = URL_SAFE_NO_PAD.encode(with("sub", "admin").to_string());
    assert_refused(
        &server,
        "claims changed",
        &format!("{}.{other}.{}", parts[0], parts[2]),
    );
}

/// The public key, which everybody has, taken for a shared secret.
#[test]
fn a_public_key_is_no_secret() {
    let (service, server, _dir) = started();
    let file = fs::read(service.keys()).expect("read the keys");
    let set: Value = serde_json::from_slice(&file).expect("JSON");
    let key = &set["keys"][0];
    let coordinate = |name: &str| {
        let text = key[name].as_str().expect("a coordinate");
        URL_SAFE_NO_PAD.decode(text).expect("base64")
    };
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    // A public key of P-256 in DER is this and the point.
    let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let der = [hex::decode(prefix).expect("hex"), point.clone()].concat();
    let lines = STANDARD.encode(&der);
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n",
        &lines[..64],
        &lines[64..]
    );
    let secrets = [
        point,
        der,
        pem.into_bytes(),
        key.to_string().into_bytes(),
        file,
        Vec::new(),
    ];
    for (name, algorithm) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("HS512", hmac::HMAC_SHA512),
    ] {
        for secret in &secrets {
            let mut header = TokenServer::header();
            header["alg"] = name.into();
            let input = signing_input(&header, &TokenServer::claims(SCOPE));
            let tag = hmac::sign(&hmac::Key::new(algorithm, secret), input.as_bytes());
            assert_refused(
                &server,
                name,
                &format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref())),
            );
        }
    }
}

/// A web server that offers the stranger's keys and counts who comes for them.
fn visited(body: &str) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("the port's number");
    let visits = Arc::new(AtomicUsize::new(0));
    let (counted, body) = (Arc::clone(&visits), body.to_owned());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            // Who hangs up has been counted all the same.
            let _ = std::io::Write::write_all(
                &mut stream,
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
            );
        }
    });
    (address, visits)
}
