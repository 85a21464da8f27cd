//! Requests that want more of the server than anybody should get: each is refused or cut to size, and costs no memory.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::json;

use crate::harness::image::{
    Image, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, descriptor, gzip, noise, push_blob, sha256, with_digest,
};
use crate::harness::server::Server;

const MIB: usize = 1 << 20;
/// More than any of these requests may cost.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

/// Asserts that what `act` does leaves the server's memory as it was.
#[track_caller]
fn assert_flat(server: &mut Server, act: impl FnOnce(&Server)) {
    // What the first requests set up is no growth.
    push_blob(server, "warm", &noise(800, MIB));
    Image::small(801).push(server, "warm", "up");
    let before = server.memory_peak_kib();
    act(server);
    let grown = server.memory_peak_kib() - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
    server.assert_healthy();
}

#[test]
fn manifest_without_end_is_refused() {
    let mut server = Server::start();
    assert_flat(&mut server, |server| {
        let put = server
            .request("PUT", "/v2/app/manifests/big")
            .header("Content-Type", OCI_MANIFEST);
        put.repeated(vec![b' '; MIB], 1024).send().expect(413);
        server.request("GET", "/v2/app/manifests/big").send().expect(404);
    });
}

/// By default their text is too long; where longer texts are allowed, there are too many of them.
#[test]
fn manifest_with_a_million_layers_is_refused() {
    const LAYERS: usize = 1_000_000;
    let layer = descriptor("a/b", b"").to_string();
    let chunk = format!("{layer},").repeat(1000).into_bytes();
    let mut server = Server::start();
    assert_flat(&mut server, |server| {
        let put = server
            .request("PUT", "/v2/app/manifests/wide")
            .header("Content-Type", OCI_MANIFEST);
        put.repeated(chunk, LAYERS / 1000).send().expect(413);
    });
    let mut generous = Server::start_configured("[limits]\nmanifest_size_max = \"32MiB\"\n");
    push_blob(&generous, "app", b"{}");
    push_blob(&generous, "app", b"");
    let many = format!("{layer},").repeat(LAYERS / 5) + &layer;
    let config = descriptor(OCI_CONFIG, b"{}");
    for (kind, fields) in [
        (OCI_MANIFEST, format!("\"config\":{config},\"layers\":[{many}]")),
        (OCI_INDEX, format!("\"manifests\":[{many}]")),
    ] {
        let text = format!("{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",{fields}}}");
        let put = generous
            .request("PUT", "/v2/app/manifests/wide")
            .header("Content-Type", kind);
        put.body(text).send().expect_error(400, "MANIFEST_INVALID");
    }
    generous.assert_healthy();
}

/// Whether its size is announced, comes in chunks or adds up in a session; what fits goes in.
#[test]
fn blobs_larger_than_the_limit_are_refused() {
    const LIMIT: usize = MIB;
    let mut server = Server::start_configured("[limits]\nblob_size_max = \"1MiB\"\n");
    let (fits, large) = (noise(803, LIMIT), noise(804, LIMIT + 1));
    push_blob(&server, "app", &fits);
    let digest = sha256(&large);
    let single = || server.request("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"));
    let pieces = || large.chunks(MIB / 4).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let told = single()
        .body(large.clone())
        .send()
        .expect_error(413, "SIZE_INVALID");
    assert!(told.text().contains("limits.blob_size_max"), "{}", told.text());
    single()
        .chunked(pieces())
        .send()
        .expect_error(413, "SIZE_INVALID");

    let open = || {
        server
            .request("POST", "/v2/app/blobs/uploads/")
            .send()
            .expect(202)
    };
    let patch = |location: &str, bytes: &[u8]| server.request("PATCH", location).body(bytes).send();
    let location = patch(&open().location(), &large[..LIMIT]).expect(202).location();
    patch(&location, &large[LIMIT..]).expect_error(413, "SIZE_INVALID");
    // The session stands where it stood.
    let standing = server.request("GET", &location).send().expect(204);
    assert_eq!(
        standing.header("range"),
        Some(format!("0-{}", LIMIT - 1).as_str())
    );
    let put = server.request("PUT", &with_digest(&location, &digest));
    put.body(&large[LIMIT..]).send().expect_error(413, "SIZE_INVALID");
    server
        .request("HEAD", &format!("/v2/app/blobs/{digest}"))
        .send()
        .expect(404);
    server.assert_healthy();
}

#[test]
fn pages_have_a_size_of_their_own() {
    let mut server = Server::start();
    Image::small(802).push(&server, "app", "v1");
    assert_flat(&mut server, |server| {
        for list in ["/v2/app/tags/list", "/v2/_catalog"] {
            for n in ["2147483648", "18446744073709551615", "1".repeat(1000).as_str()] {
                let answer = server.request("GET", &format!("{list}?n={n}")).send();
                assert!(
                    [200, 400].contains(&answer.status),
                    "{list} n={n}: {}",
                    answer.status
                );
            }
            for n in ["-1", "-9223372036854775808", "0x10", "1e9", "%00"] {
                let answer = server.request("GET", &format!("{list}?n={n}")).send();
                answer.expect_error(400, "PAGINATION_NUMBER_INVALID");
            }
        }
        let referrers = format!("/v2/app/referrers/{}?n=2147483648", sha256(b"x"));
        server.request("GET", &referrers).send().expect(200);
    });
}

/// Pushing looks at no layer: neither one that unpacks to a gigabyte nor one that is nothing of the kind it says.
#[test]
fn nothing_is_unpacked_on_push() {
    let mut server = Server::start();
    // Members of one file, a gigabyte together.
    let bomb = gzip(&vec![0; 64 * MIB]).repeat(16);
    let image = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, b"{}"),
        "layers": [
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &bomb),
            descriptor("application/vnd.oci.image.layer.v1.tar+zstd", b"no zstd"),
        ],
    });
    assert_flat(&mut server, |server| {
        for blob in [b"{}".as_slice(), &bomb, b"no zstd"] {
            push_blob(server, "app", blob);
        }
        server
            .request("PUT", "/v2/app/manifests/bomb")
            .header("Content-Type", OCI_MANIFEST)
            .body(image.to_string())
            .send()
            .expect(201);
    });
    let files = walkdir::WalkDir::new(server.data_dir()).into_iter();
    let files = files.map(|entry| entry.expect("walk"));
    // The database has no layers in it.
    let files = files.filter(|entry| !entry.path().to_string_lossy().contains("registry.db"));
    let lengths = files.map(|entry| entry.metadata().expect("a file").len());
    // With what was pushed before, and the directories.
    let expected = bomb.len() + 4 * MIB;
    let bytes: u64 = lengths.sum();
    assert!(bytes < expected as u64, "{bytes} bytes are stored");
}

/// Clients that ask for everything and leave: containerd does so when a layer comes from elsewhere meanwhile.
#[test]
fn clients_that_hang_up_early_leave_nothing_behind() {
    let mut server = Server::start();
    let bytes = noise(803, 32 * MIB);
    let target = format!("/v2/app/blobs/{}", push_blob(&server, "app", &bytes));
    assert_flat(&mut server, |server| {
        for round in 0..40 {
            let mut stream = TcpStream::connect(server.address()).expect("connect");
            let head = format!(
                "GET {target} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: zstd,gzip\r\nRange: bytes={}-\r\n\r\n",
                round * 1000
            );
            stream.write_all(head.as_bytes()).expect("send a request");
            let mut some = vec![0; 4096];
            stream.read_exact(&mut some).expect("the answer begins");
            assert!(
                some.starts_with(b"HTTP/1.1 206"),
                "{}",
                String::from_utf8_lossy(&some)
            );
            if round % 2 == 0 {
                stream.shutdown(Shutdown::Both).expect("hang up");
            }
        }
        let got = server.request("GET", &target).send().expect(200);
        assert!(got.body == bytes);
    });
}
