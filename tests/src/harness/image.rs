//! Images made from nothing: small, valid, and different for every seed.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use super::http::Request;
use super::server::Server;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(bytes)))
}

/// Bytes that don't compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; length];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A manifest or index with everything below it.
pub(crate) struct Image {
    pub(crate) media_type: &'static str,
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) children: Vec<Image>,
}

impl Image {
    /// One platform, one layer with one file.
    pub(crate) fn small(seed: u64) -> Self {
        Self::for_platform(seed, "amd64", 2048)
    }

    pub(crate) fn for_platform(seed: u64, architecture: &str, file_bytes: usize) -> Self {
        let tar = tar_of(&[("data", &noise(seed, file_bytes))]);
        let layer = gzip(&tar);
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Labels": {"seed": seed.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config), "layers": [descriptor(OCI_LAYER, &layer)],
        });
        Self {
            media_type: OCI_MANIFEST,
            // Not how a serialiser would write it: whoever parses and writes again is found out.
            manifest: format!(" {manifest}\n").into_bytes(),
            blobs: vec![config, layer],
            children: Vec::new(),
        }
    }

    /// An index of three platforms.
    pub(crate) fn multi_platform(seed: u64) -> Self {
        let children: Vec<Image> = [("amd64", 0), ("arm64", 1), ("s390x", 2)]
            .iter()
            .map(|&(architecture, offset)| Self::for_platform(seed + offset, architecture, 2048))
            .collect();
        let manifests: Vec<Value> = children
            .iter()
            .zip(["amd64", "arm64", "s390x"])
            .map(|(child, architecture)| {
                let mut entry = descriptor(child.media_type, &child.manifest);
                entry["platform"] = json!({"architecture": architecture, "os": "linux"});
                entry
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        Self {
            media_type: OCI_INDEX,
            manifest: serde_json::to_vec_pretty(&index).expect("an index is JSON"),
            blobs: Vec::new(),
            children,
        }
    }

    pub(crate) fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// Pushes it with plain requests, as the specification says.
    #[track_caller]
    pub(crate) fn push(&self, server: &Server, repository: &str, reference: &str) {
        self.push_to(server.address(), repository, reference);
    }

    /// To any registry.
    #[track_caller]
    pub(crate) fn push_to(&self, registry: SocketAddr, repository: &str, reference: &str) {
        for child in &self.children {
            child.push_to(registry, repository, &child.digest());
        }
        for blob in &self.blobs {
            push_blob_to(registry, repository, blob);
        }
        let target = format!("/v2/{repository}/manifests/{reference}");
        let put = Request::new("PUT", registry, &target).header("Content-Type", self.media_type);
        put.body(self.manifest.clone()).send().expect(201);
    }

    /// What the server has is this image to the byte, children and blobs included.
    #[track_caller]
    pub(crate) fn assert_on(&self, server: &Server, repository: &str, reference: &str) {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let got = server
            .request("GET", &target)
            .header("Accept", self.media_type)
            .send()
            .expect(200);
        assert_eq!(got.header("content-type"), Some(self.media_type));
        assert_eq!(got.header("docker-content-digest"), Some(self.digest().as_str()));
        assert!(got.body == self.manifest, "another manifest: {}", got.text());
        for child in &self.children {
            child.assert_on(server, repository, &child.digest());
        }
        for blob in &self.blobs {
            let got = server
                .request("GET", &format!("/v2/{repository}/blobs/{}", sha256(blob)))
                .send()
                .expect(200);
            assert!(got.body == *blob, "another blob under {}", sha256(blob));
        }
    }

    /// Writes it as an OCI image layout with one tag, for the clients to push.
    pub(crate) fn write_layout(&self, dir: &Path, tag: &str) {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("make a layout");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write oci-layout");
        let mut entry = descriptor(self.media_type, &self.manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
        fs::write(dir.join("index.json"), index.to_string()).expect("write index.json");
        self.write_blobs(&dir.join("blobs/sha256"));
    }

    fn write_blobs(&self, dir: &Path) {
        for bytes in self.blobs.iter().chain([&self.manifest]) {
            fs::write(dir.join(&sha256(bytes)["sha256:".len()..]), bytes).expect("write a blob");
        }
        self.children.iter().for_each(|child| child.write_blobs(dir));
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

#[track_caller]
pub(crate) fn push_blob(server: &Server, repository: &str, bytes: &[u8]) -> String {
    push_blob_to(server.address(), repository, bytes)
}

#[track_caller]
fn push_blob_to(registry: SocketAddr, repository: &str, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    let location = Request::new("POST", registry, &format!("/v2/{repository}/blobs/uploads/"))
        .send()
        .expect(202)
        .location();
    Request::new("PUT", registry, &with_digest(&location, &digest))
        .body(bytes)
        .send()
        .expect(201);
    digest
}

/// The `Location` of an upload session, closing with this digest.
pub(crate) fn with_digest(location: &str, digest: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content)
            .expect("append to memory");
    }
    tar.into_inner().expect("finish a tar in memory")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compress in memory");
    encoder.finish().expect("compress in memory")
}
