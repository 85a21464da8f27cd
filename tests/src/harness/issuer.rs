//! A CI system's OpenID Connect issuer: discovery, keys, and tokens for jobs, as GitHub and GitLab have them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const KEY_ID: &str = "ci-key";
const RSA_KEY_ID: &str = "ci-rsa-key";

pub(crate) struct Issuer {
    address: SocketAddr,
    key: EcdsaKeyPair,
    rsa: RsaKeyPair,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    /// Serves from a thread of its own for the rest of this process.
    pub(crate) fn start() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("generate a key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port's number");
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("generate a key");
        let keys = json!({"keys": [jwk(&key), rsa_jwk(&rsa)]});
        let fetches = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&fetches);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::Relaxed);
                answer(stream, address, &keys);
            }
        });
        Self {
            address,
            key,
            rsa,
            fetches,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often somebody came for its documents.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    /// A job's token; `claims` may replace what every token has.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"typ": "JWT", "alg": "ES256", "kid": KEY_ID}), claims)
    }

    /// As GitHub and GitLab sign theirs.
    pub(crate) fn rsa_token(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": RSA_KEY_ID});
        let signed = self.content(&header, claims);
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        let random = SystemRandom::new();
        let signing = self
            .rsa
            .sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature);
        signing.expect("sign");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn signed(&self, header: &Value, claims: &Value) -> String {
        let signed = self.content(header, claims);
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("sign");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What is signed of a token.
    fn content(&self, header: &Value, claims: &Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock")
            .as_secs();
        let mut all = json!({
            "iss": self.url(), "sub": "repo:acme/app", "aud": "registry", "nbf": now - 10, "iat": now, "exp": now + 300,
        });
        for (name, value) in claims.as_object().expect("claims") {
            all[name] = value.clone();
        }
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        format!("{}.{}", encode(header), encode(&all))
    }

    /// The public key as a token would embed it.
    pub(crate) fn jwk(&self) -> Value {
        jwk(&self.key)
    }
}

fn jwk(key: &EcdsaKeyPair) -> Value {
    // An uncompressed point: 4, x, y.
    let point = key.public_key().as_ref();
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
        "x": coordinate(1..33), "y": coordinate(33..65),
    })
}

fn rsa_jwk(key: &RsaKeyPair) -> Value {
    let public = key.public_key();
    let number = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
    json!({
        "kty": "RSA", "alg": "RS256", "use": "sig", "kid": RSA_KEY_ID,
        "n": number(public.modulus().big_endian_without_leading_zero()),
        "e": number(public.exponent().big_endian_without_leading_zero()),
    })
}

fn answer(mut stream: TcpStream, address: SocketAddr, keys: &Value) {
    let mut reader = BufReader::new(&mut stream);
    let mut request = String::new();
    let mut line = String::new();
    if reader.read_line(&mut request).is_err() {
        return;
    }
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    let body = match request.split(' ').nth(1) {
        Some("/.well-known/openid-configuration") => {
            json!({"issuer": format!("http://{address}"), "jwks_uri": format!("http://{address}/keys")})
                .to_string()
        }
        Some("/keys") => keys.to_string(),
        _ => String::new(),
    };
    let status = if body.is_empty() {
        "404 Not Found"
    } else {
        "200 OK"
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    // A client that went away is no concern of this server.
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}
