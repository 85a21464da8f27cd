//! A token server as Docker's specification describes it: the registry answers 401 and names it, clients fetch a
//! signed token with the scopes they want, the registry verifies the signature.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::upstream::{PASSWORD, USER};

const ISSUER: &str = "layeryard-tests";
const SERVICE: &str = "peer";
const KEY_ID: &str = "test-key";
const TOKEN_SECONDS: u64 = 300;

pub(crate) struct TokenServer {
    address: SocketAddr,
    keys: PathBuf,
    key: Arc<EcdsaKeyPair>,
}

impl TokenServer {
    /// Writes its public key into `dir` and serves from a thread of its own for the rest of this process.
    pub(crate) fn start(dir: &Path) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("generate a key");
        // An uncompressed point: 4, x, y.
        let point = key.public_key().as_ref();
        let (x, y) = (
            URL_SAFE_NO_PAD.encode(&point[1..33]),
            URL_SAFE_NO_PAD.encode(&point[33..65]),
        );
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y});
        let keys = dir.join("jwks.json");
        fs::write(&keys, json!({"keys": [jwk]}).to_string()).expect("write the public key");

        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port's number");
        let key = Arc::new(key);
        let signing = Arc::clone(&key);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let key = Arc::clone(&signing);
                thread::spawn(move || answer(stream, &key));
            }
        });
        Self { address, keys, key }
    }

    /// A token as its user would get it.
    pub(crate) fn token_for(&self, scope: &str) -> String {
        let access = granted(scope, true).into_iter().collect();
        signed(&self.key, access).expect("sign a token")
    }

    /// What a good token of it says.
    pub(crate) fn claims(scope: &str) -> Value {
        claims(granted(scope, true).into_iter().collect()).expect("a clock")
    }

    /// A token with any header and claims, under its key.
    pub(crate) fn signed(&self, header: &Value, claims: &Value) -> String {
        sign(&self.key, header, claims).expect("sign a token")
    }

    pub(crate) fn header() -> Value {
        json!({"typ": "JWT", "alg": "ES256", "kid": KEY_ID})
    }

    /// The file of its public keys.
    pub(crate) fn keys(&self) -> &Path {
        &self.keys
    }

    /// How Layeryard is told of it.
    pub(crate) fn layeryard_config(&self) -> String {
        format!(
            "[token.external]\nrealm = \"http://{}/token\"\nservice = \"{SERVICE}\"\nissuer = \"{ISSUER}\"\nkeys = \"{}\"\n",
            self.address,
            self.keys.display()
        )
    }

    pub(crate) fn distribution_config(&self) -> String {
        format!(
            "auth: {{token: {{realm: \"http://{}/token\", service: {SERVICE}, issuer: {ISSUER}, jwks: {}}}}}\n",
            self.address,
            self.keys.display()
        )
    }
}

fn answer(mut stream: TcpStream, key: &EcdsaKeyPair) {
    let (status, body) = match serve(&mut stream, key) {
        Ok(Some(token)) => (
            "200 OK",
            json!({"token": token, "access_token": token, "expires_in": TOKEN_SECONDS}),
        ),
        Ok(None) => (
            "401 Unauthorized",
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}),
        ),
        Err(error) => (
            "400 Bad Request",
            json!({"errors": [{"code": "UNKNOWN", "message": format!("{error:#}")}]}),
        ),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    // A client that went away is no concern of this server.
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}

/// A token for what was asked and is allowed; `None` if the password is wrong.
fn serve(stream: &mut TcpStream, key: &EcdsaKeyPair) -> Result<Option<String>> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let target = request.split(' ').nth(1).context("a request line")?.to_owned();
    let (mut basic, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => basic = value.strip_prefix("Basic ").map(str::to_owned),
            "content-length" => length = value.parse()?,
            _ => {}
        }
    }
    let mut form = vec![0; length];
    reader.read_exact(&mut form)?;
    // GET with Basic and a query, or POST of a form: both mean the same.
    let query = match target.split_once('?') {
        Some((_, query)) => query.to_owned(),
        None => String::from_utf8(form)?,
    };
    let parameters: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decoded(value)))
        .collect();
    let of = |name: &str| {
        parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let credentials = match basic {
        Some(basic) => Some(String::from_utf8(STANDARD.decode(basic)?)?),
        None => of("username").map(|user| format!("{user}:{}", of("password").unwrap_or_default())),
    };
    if credentials
        .as_ref()
        .is_some_and(|credentials| *credentials != format!("{USER}:{PASSWORD}"))
    {
        return Ok(None);
    }
    let scopes = parameters
        .iter()
        .filter(|(name, _)| name == "scope")
        .flat_map(|(_, scope)| scope.split(' '));
    let access = scopes
        .filter_map(|scope| granted(scope, credentials.is_some()))
        .collect();
    Ok(Some(signed(key, access)?))
}

/// `repository:NAME:ACTIONS`, cut down to what is allowed.
fn granted(scope: &str, is_user: bool) -> Option<Value> {
    let mut parts = scope.splitn(3, ':');
    let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
    let allowed = |action: &&str| is_user || (name.starts_with("public/") && *action == "pull");
    let actions: Vec<&str> = actions.split(',').filter(allowed).collect();
    (!actions.is_empty()).then(|| json!({"type": kind, "name": name, "actions": actions}))
}

fn signed(key: &EcdsaKeyPair, access: Vec<Value>) -> Result<String> {
    sign(key, &TokenServer::header(), &claims(access)?)
}

fn claims(access: Vec<Value>) -> Result<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(json!({
        "iss": ISSUER, "sub": "tests", "aud": SERVICE, "access": access, "jti": format!("{now}"),
        "nbf": now - 10, "iat": now, "exp": now + TOKEN_SECONDS,
    }))
}

fn sign(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> Result<String> {
    let signed = signing_input(header, claims);
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// What a JWT's signature is over.
pub(crate) fn signing_input(header: &Value, claims: &Value) -> String {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
