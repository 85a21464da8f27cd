//! TLS: certificates that change, clients that show one, both versions of HTTP.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;
use crate::harness::balancer::Balancer;
use crate::harness::image::Image;
use crate::harness::processes::eventually;
use crate::harness::tool::Tool;

/// An authority that signs certificates of servers and clients.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub(super) fn write(&self, path: &Path) {
        fs::write(path, &self.pem).expect("write an authority");
    }

    /// Writes `NAME.crt` and `NAME.key`.
    pub(super) fn sign(&self, dir: &Path, name: &str, common_name: &str) {
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        // The key first: a server that looks in between keeps what it has.
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("write a key");
        fs::write(dir.join(format!("{name}.crt")), certificate.pem()).expect("write a certificate");
    }
}

const TLS: &str = r#"
[tls]
cert = "DIR/server.crt"
key = "DIR/server.key"
client_ca = "DIR/clients.pem"

[[tls.client]]
subject = "runner-7"
user = "bert"
"#;

/// A guarded server behind TLS; its authority is in `ca.crt`, that of clients in `clients.pem`.
pub(super) fn encrypted() -> (Server, Authority) {
    let authority = Authority::new("servers");
    let server = Server::start_prepared(&format!("{USERS}\n{TLS}"), |dir| {
        fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file");
        authority.write(&dir.join("ca.crt"));
        authority.sign(dir, "server", "first");
        let clients = Authority::new("clients");
        clients.write(&dir.join("clients.pem"));
        clients.sign(dir, "runner", "runner-7");
        clients.sign(dir, "unknown", "runner-8");
        Authority::new("strangers").sign(dir, "stranger", "runner-7");
    });
    (server, authority)
}

fn curl(server: &Server, args: &[&str]) -> Tool {
    let ca = server.scratch().join("ca.crt");
    Tool::debian("curl").arg("-sS").arg("--cacert").arg(ca).args(args)
}

fn status(server: &Server, args: &[&str], target: &str) -> String {
    let tool = curl(server, &["-o", "/dev/null", "-w", "%{http_code} %{http_version}"]);
    tool.args(args)
        .arg(format!("https://{}{target}", server.host()))
        .ok()
}

#[test]
fn both_versions_of_http_are_spoken() {
    let (server, _) = encrypted();
    assert_eq!(
        status(&server, &["--http1.1", "-u", "anna:secret"], "/v2/"),
        "200 1.1"
    );
    assert_eq!(
        status(&server, &["--http2", "-u", "anna:secret"], "/v2/"),
        "200 2"
    );
    let head = curl(&server, &["-I"])
        .arg(format!("https://{}/v2/", server.host()))
        .ok();
    let realm = format!("realm=\"https://{}/token\"", server.host());
    assert!(head.contains(&realm), "{head}");
    let plain = server.request("GET", "/v2/").try_send();
    assert!(plain.is_err(), "plain HTTP on a TLS port: {plain:?}");
    let large = crate::harness::image::noise(740, 3_000_000);
    let digest = crate::harness::image::sha256(&large);
    let path = server.scratch().join("blob");
    fs::write(&path, &large).expect("write a blob");
    let data = format!("@{}", path.display());
    let target = format!("/v2/team/app/blobs/uploads/?digest={digest}");
    assert_eq!(
        status(&server, &["-u", "bert:secret", "--data-binary", &data], &target),
        "201 2"
    );
    let out = server.scratch().join("out");
    for version in ["--http1.1", "--http2"] {
        curl(&server, &[version, "-u", "bert:secret", "-o"])
            .arg(&out)
            .arg(format!("https://{}/v2/team/app/blobs/{digest}", server.host()))
            .ok();
        assert!(fs::read(&out).expect("the blob") == large, "{version}");
    }
}

#[test]
fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
    let (server, authority) = encrypted();
    let shown = || {
        let ran = curl(&server, &["-v"])
            .arg(format!("https://{}/healthz", server.host()))
            .run();
        assert_eq!(ran.code, Some(0), "{ran}");
        let line = ran
            .stderr
            .lines()
            .find(|line| line.contains("subject:"))
            .unwrap_or_default();
        line.to_owned()
    };
    assert!(shown().contains("first"), "{}", shown());
    authority.sign(server.scratch(), "server", "second");
    eventually("the second certificate", || shown().contains("second"));
    fs::write(server.scratch().join("server.crt"), "nonsense").expect("break the certificate");
    let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("signal the server");
    eventually("a complaint", || server.log().contains("left as it was"));
    assert!(shown().contains("second"), "{}", shown());
    authority.sign(server.scratch(), "server", "third");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("signal the server");
    eventually("the third certificate", || shown().contains("third"));
}

#[test]
fn a_client_s_certificate_is_its_user() {
    let (server, _) = encrypted();
    let file = |name: &str| server.scratch().join(name).display().to_string();
    let whoami = |name: &str| {
        let (cert, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        curl(&server, &["--cert", &cert, "--key", &key])
            .arg(format!("https://{}/api/v1/whoami", server.host()))
            .run()
    };
    let known = whoami("runner");
    assert!(known.stdout.contains("\"name\":\"bert\""), "{known}");
    let unknown = whoami("unknown");
    assert!(unknown.stdout.contains("UNAUTHORIZED"), "{unknown}");
    let stranger = whoami("stranger");
    assert!(stranger.code != Some(0), "{stranger}");
}

/// The clients that people use, over TLS with an authority of our own.
#[test]
fn clients_log_in_over_tls() {
    let (server, _) = encrypted();
    let ca = server.scratch().join("ca.crt");
    Image::small(741).write_layout(&server.scratch().join("layout"), "v1");
    let layout = server.scratch().join("layout").display().to_string();
    let config = server.scratch().join("config");
    fs::create_dir(&config).expect("make a directory");
    let host = server.host();

    let crane = || {
        let crane = Tool::peer("crane", "clients").env("DOCKER_CONFIG", &config);
        crane.env("SSL_CERT_FILE", &ca)
    };
    crane()
        .args(["auth", "login", &host, "-u", "bert", "-p", "secret"])
        .ok();
    crane()
        .args(["push", "--index", &layout, &format!("{host}/team/crane:v1")])
        .ok();
    crane()
        .args(["push", "--index", &layout, &format!("{host}/other/crane:v1")])
        .fails();

    let certs = server.scratch().join("certs");
    fs::create_dir(&certs).expect("make a directory");
    fs::copy(&ca, certs.join("ca.crt")).expect("copy the authority");
    let skopeo = Tool::debian("skopeo").args(["--insecure-policy", "copy", "--dest-creds=bert:secret"]);
    skopeo
        .arg(format!("--dest-cert-dir={}", certs.display()))
        .arg(format!("oci:{layout}:v1"))
        .arg(format!("docker://{host}/team/skopeo:v1"))
        .ok();
    let oras = Tool::peer("oras", "clients").env("SSL_CERT_FILE", &ca);
    oras.args(["repo", "tags", "-u", "bert", "-p", "secret", "--ca-file"])
        .arg(&ca)
        .arg(format!("{host}/team/skopeo"))
        .ok();
}

/// A proxy ends TLS: the realm that clients are sent to is the proxy's, and addresses of uploads hold through it.
#[test]
fn clients_log_in_through_a_proxy_that_ends_tls() {
    let server = guarded();
    let dir = server.scratch();
    let authority = Authority::new("proxies");
    authority.write(&dir.join("ca.crt"));
    authority.sign(dir, "proxy", "proxy");
    let proxy = Balancer::start_encrypted(
        &[server.address()],
        &dir.join("proxy.crt"),
        &dir.join("proxy.key"),
    );
    let host = proxy.address().to_string();
    let head = curl(&server, &["-I"]).arg(format!("https://{host}/v2/")).ok();
    assert!(
        head.contains(&format!("realm=\"https://{host}/token\"")),
        "{head}"
    );

    let config = dir.join("docker");
    fs::create_dir(&config).expect("make a directory");
    Image::multi_platform(742).write_layout(&dir.join("layout"), "v1");
    let crane = || {
        let crane = Tool::peer("crane", "clients").env("DOCKER_CONFIG", &config);
        crane.env("SSL_CERT_FILE", dir.join("ca.crt"))
    };
    crane()
        .args(["auth", "login", &host, "-u", "bert", "-p", "secret"])
        .ok();
    let name = format!("{host}/team/app:v1");
    crane()
        .args(["push", "--index"])
        .arg(dir.join("layout"))
        .arg(&name)
        .ok();
    crane()
        .args(["copy", &name, &format!("{host}/team/copy:v1")])
        .ok();
    let tags = crane().args(["ls", &format!("{host}/team/copy")]).ok();
    assert_eq!(tags, "v1");
    assert!(!proxy.requests("PUT /v2/team/app/blobs/uploads/").is_empty());
}
