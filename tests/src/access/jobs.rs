//! CI jobs that push with the tokens that their CI system signs.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;
use crate::harness::image::Image;
use crate::harness::issuer::Issuer;
use crate::harness::tool::Tool;

fn configured(issuer: &Issuer) -> Server {
    guarded_with(&format!(
        r#"
[[oidc]]
name = "github"
issuer = "{}"
audience = "registry"

[[oidc.grant]]
claims = {{ repository = "acme/app", ref = "refs/heads/*" }}
repositories = ["acme/app"]
actions = ["pull", "push"]
"#,
        issuer.url()
    ))
}

fn main_branch() -> Value {
    json!({"repository": "acme/app", "ref": "refs/heads/main"})
}

#[test]
fn a_job_pushes_where_its_claims_say() {
    let issuer = Issuer::start();
    let server = configured(&issuer);
    let token = issuer.rsa_token(&main_branch());
    let config = server.scratch().join("docker");
    std::fs::create_dir(&config).expect("make a directory");
    let crane = || Tool::peer("crane", "clients").env("DOCKER_CONFIG", &config);
    crane()
        .args(["auth", "login", &server.host(), "-u", "github", "-p", &token])
        .ok();
    Image::small(730).write_layout(&server.scratch().join("layout"), "v1");
    let push = |name: &str| {
        let name = format!("{}/{name}", server.host());
        crane()
            .args(["push", "--index"])
            .arg(server.scratch().join("layout"))
            .arg(name)
    };
    push("acme/app:v1").ok();
    push("acme/other:v1").fails();

    let exchange = |token: &str| {
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
        let scope = "repository%3Aacme%2Fapp%3Apull%2Cpush%2Cdelete";
        server
            .request("POST", "/token")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("grant_type={grant}&subject_token={token}&scope={scope}"))
            .send()
    };
    let given = exchange(&token).expect(200).json();
    assert!(
        (3500..=3600).contains(&given["expires_in"].as_u64().expect("a time")),
        "{given}"
    );
    assert_eq!(given["scope"], "repository:acme/app:pull,push");
    send(&server, "GET", "/v2/acme/app/tags/list", &bearer(&given)).expect(200);
    send(&server, "DELETE", "/v2/acme/app/manifests/v1", &bearer(&given)).expect(403);
    assert!(issuer.fetches() <= 2, "its keys are kept: {}", issuer.fetches());
}

#[test]
fn other_tokens_are_refused() {
    let issuer = Issuer::start();
    let stranger = Issuer::start();
    let server = configured(&issuer);
    let with = |name: &str, value: Value| {
        let mut claims = main_branch();
        claims[name] = value;
        issuer.token(&claims)
    };
    let good = issuer.token(&main_branch());
    let parts: Vec<&str> = good.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let mut forged_claims = main_branch();
    forged_claims["iss"] = issuer.url().into();
    let embedded = json!({"typ": "JWT", "alg": "ES256", "kid": "ci-key", "jwk": stranger.jwk()});
    let secret_header = json!({"typ": "JWT", "alg": "HS256", "kid": "ci-key"});
    let other_key = json!({"typ": "JWT", "alg": "ES256", "kid": "ci-rsa-key"});
    let cases = [
        ("another repository", with("repository", "acme/evil".into())),
        ("a tag, not a branch", with("ref", "refs/tags/v1".into())),
        ("another audience", with("aud", "elsewhere".into())),
        ("another issuer", with("iss", stranger.url().into())),
        ("expired", with("exp", 1_000_000_000.into())),
        ("not yet valid", with("nbf", 4_000_000_000_u64.into())),
        ("signed by a stranger", stranger.token(&forged_claims)),
        ("its own key inside", stranger.signed(&embedded, &forged_claims)),
        (
            "a public key as a secret",
            keyed(&issuer.jwk().to_string(), &secret_header, &forged_claims),
        ),
        ("an RSA key's name", issuer.signed(&other_key, &main_branch())),
        ("an RSA key of a stranger's", stranger.rsa_token(&forged_claims)),
        ("no algorithm", format!("{none}.{}.", parts[1])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        (
            "claims changed",
            format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode("{}"), parts[2]),
        ),
    ];
    for good in [&good, &issuer.rsa_token(&main_branch())] {
        send(&server, "GET", "/v2/", &basic("github", good)).expect(200);
    }
    for (what, token) in cases {
        let answer = send(&server, "GET", "/v2/", &basic("github", &token));
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        let answer = send(&server, "GET", "/v2/", &format!("Bearer {token}"));
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    }
    assert!(
        issuer.fetches() <= 2,
        "unknown keys don't make it ask again and again: {}",
        issuer.fetches()
    );
}

/// A token that is right for whoever takes the text of a public key for a secret.
fn keyed(secret: &str, header: &Value, claims: &Value) -> String {
    use sha2::{Digest as _, Sha256};
    const BLOCK: usize = 64;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut key = Sha256::digest(secret).to_vec();
    key.resize(BLOCK, 0);
    let pad = |with: u8| key.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), signed.clone().into_bytes()].concat());
    let mac = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}
