//! The way out: paths that would leave the data directory, and addresses that the server would be made to call.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::harness::build::Context;
use crate::harness::image::{Image, OCI_CONFIG, OCI_MANIFEST, descriptor, push_blob, sha256};
use crate::harness::server::Server;

/// Everything that leads upwards, plain and in disguise.
const UPWARDS: [&str; 9] = [
    "..",
    "%2e%2e",
    "..%2f..%2f..%2fescaped",
    "%2e%2e%2f%2e%2e%2fescaped",
    "..%5c..%5cescaped",
    "%252e%252e%252fescaped",
    "%c0%ae%c0%ae%c0%afescaped",
    "....//escaped",
    "%00",
];

fn files(server: &Server) -> BTreeSet<String> {
    let entries = walkdir::WalkDir::new(server.scratch()).into_iter();
    let names = entries.map(|entry| entry.expect("walk").path().display().to_string());
    // The database's log and the journal come and go by themselves.
    let own = ["registry.db", "/meta", "/spool"];
    names
        .filter(|name| !own.iter().any(|part| name.contains(part)))
        .collect()
}

#[test]
fn no_path_leads_out_of_the_store() {
    let mut server = Server::start();
    let image = Image::small(810);
    image.push(&server, "app", "v1");
    fs::write(server.scratch().join("escaped"), "outside").expect("write a file");
    let digest = sha256(b"never pushed");
    let before = files(&server);
    for up in UPWARDS {
        let targets = [
            ("GET", format!("/v2/{up}/manifests/v1")),
            ("GET", format!("/v2/app/{up}/manifests/v1")),
            ("GET", format!("/v2/app/manifests/{up}")),
            ("PUT", format!("/v2/app/manifests/{up}")),
            ("DELETE", format!("/v2/app/manifests/{up}")),
            ("GET", format!("/v2/app/blobs/{up}")),
            ("GET", format!("/v2/app/blobs/sha256:{up}")),
            ("DELETE", format!("/v2/app/blobs/sha256:{up}")),
            ("GET", format!("/v2/app/referrers/sha256:{up}")),
            ("POST", format!("/v2/{up}/blobs/uploads/")),
            ("POST", format!("/v2/app/blobs/uploads/?digest=sha256:{up}")),
            (
                "POST",
                format!("/v2/app/blobs/uploads/?mount=sha256:{up}&from=app"),
            ),
            ("GET", format!("/v2/app/blobs/uploads/{up}")),
            ("PATCH", format!("/v2/app/blobs/uploads/{up}")),
            ("PUT", format!("/v2/app/blobs/uploads/{up}?digest={digest}")),
            ("DELETE", format!("/v2/app/blobs/uploads/{up}")),
            ("GET", format!("/api/v1/contexts/{up}")),
            ("GET", format!("/api/v1/builds/{up}")),
        ];
        for (method, target) in targets {
            let request = server
                .request(method, &target)
                .header("Content-Type", OCI_MANIFEST);
            let answer = request.body(image.manifest.clone()).send();
            let shown = format!("{method} {target}: {} {}", answer.status, answer.text());
            assert!([400, 404, 405].contains(&answer.status), "{shown}");
            assert!(answer.json()["errors"][0]["code"].is_string(), "{shown}");
            assert!(!answer.text().contains("outside"), "{shown}");
        }
        // A source that is no name has nothing to mount.
        let mount = format!("/v2/app/blobs/uploads/?mount={digest}&from={up}");
        let location = server.request("POST", &mount).send().expect(202).location();
        server.request("DELETE", &location).send().expect(204);
    }
    assert_eq!(files(&server), before);
    image.assert_on(&server, "app", "v1");
    server.assert_healthy();
}

/// Listens and counts who comes.
fn bait() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("the port's number").port();
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visits);
    std::thread::spawn(move || {
        for _visit in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, visits)
}

#[test]
fn no_parameter_makes_the_server_call_somebody() {
    let mut server = Server::start();
    let image = Image::small(820);
    image.push(&server, "app", "v1");
    let (port, visits) = bait();
    let digest = sha256(b"elsewhere");
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("http://127.0.0.1:{port}/"),
        "169.254.169.254".to_owned(),
    ] {
        for target in [
            format!("/v2/none/manifests/v1?ns={host}"),
            format!("/v2/none/blobs/{digest}?ns={host}"),
            format!("/v2/{}/app/manifests/v1", host.replace(['/', ':'], "_")),
        ] {
            let answer = server.request("GET", &target).send();
            assert!([400, 404].contains(&answer.status), "{target}: {}", answer.status);
        }
        let mount = format!("/v2/app/blobs/uploads/?mount={digest}&from={host}/app");
        server.request("POST", &mount).send().expect(202);
        // What is there is found whatever is beside it.
        let found = format!("/v2/app/manifests/v1?ns={host}");
        let found = server.request("GET", &found).header("Accept", OCI_MANIFEST);
        found.send().expect(200);
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    server.assert_healthy();
}

/// A layer may say that it lives elsewhere. Clients may go there; the server doesn't, nor do its builds.
#[test]
fn addresses_of_foreign_layers_are_never_called() {
    let mut server = Server::start();
    let (port, visits) = bait();
    let config = Image::small(830).blobs[0].clone();
    push_blob(&server, "foreign", &config);
    for (tag, kind) in [
        (
            "foreign",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
        (
            "docker",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ),
    ] {
        let mut layer = descriptor(kind, b"a layer that lives elsewhere");
        layer["urls"] = json!([format!("http://127.0.0.1:{port}/layer")]);
        let image = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, &config),
            "layers": [layer],
        });
        server
            .request("PUT", &format!("/v2/foreign/manifests/{tag}"))
            .header("Content-Type", OCI_MANIFEST)
            .body(image.to_string())
            .send()
            .expect(201);
        let target = format!(
            "/v2/foreign/blobs/{}",
            layer["digest"].as_str().expect("a digest")
        );
        server
            .request("GET", &target)
            .send()
            .expect_error(404, "BLOB_UNKNOWN");
        let dockerfile = format!("FROM foreign:{tag}\nCOPY Dockerfile /\n");
        Context::new(&dockerfile).build_fails(&server, &format!("built:{tag}"));
    }
    server.layeryard(["verify"]).ok();
    server.layeryard(["gc", "--dry-run"]).ok();
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    server.assert_healthy();
}
