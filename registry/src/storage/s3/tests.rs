//! The contract suite over a real server: versitygw, started for each test, or the one that the environment names
//! (docs/s3.md).

use std::env;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_sdk_s3::Client;

use super::*;
use crate::config::Secret;
use crate::storage::suite::{self, Row};
use crate::storage::{Settle, UploadWriter as _};

/// A server with an empty place for us.
struct Server {
    config: S3Config,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = S3Config {
            bucket: "layeryard".to_owned(),
            prefix: format!("test-{:016x}", rand::random::<u64>()),
            path_style: true,
            access_key_id: Some("tester".to_owned()),
            secret_access_key: Some(Secret::new("testers-secret")),
            ..S3Config::default()
        };
        let child = match env::var("LAYERYARD_TEST_S3_ENDPOINT") {
            Ok(endpoint) => {
                config.endpoint = Some(endpoint);
                let of = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
                config.bucket = of("LAYERYARD_TEST_S3_BUCKET");
                config.region = env::var("LAYERYARD_TEST_S3_REGION").unwrap_or(config.region);
                config.access_key_id = Some(of("LAYERYARD_TEST_S3_KEY"));
                config.secret_access_key = Some(Secret::new(of("LAYERYARD_TEST_S3_SECRET")));
                None
            }
            Err(_) => Some(Self::versitygw(&mut config, directory.path())),
        };
        let server = Self {
            config,
            directory,
            child,
        };
        for _ in 0..500 {
            if server
                .client()
                .await
                .head_bucket()
                .bucket(&server.config.bucket)
                .send()
                .await
                .is_ok()
            {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the S3 server does not answer")
    }

    fn versitygw(config: &mut S3Config, directory: &Path) -> Child {
        // Freed again, for the server to take: nobody else asks for it in this moment.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        config.endpoint = Some(format!("http://127.0.0.1:{port}"));
        std::fs::create_dir_all(directory.join("gateway").join(&config.bucket)).unwrap();
        let cache = env::var_os("LAYERYARD_PEERS_DIR")
            .map(PathBuf::from)
            .unwrap_or_else(|| {
                PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache/layeryard-peers")
            });
        Command::new(cache.join("bin/versitygw"))
            .args([
                "--access",
                "tester",
                "--secret",
                "testers-secret",
                "--keep-alive",
                "--quiet",
            ])
            .args(["--port", &format!("127.0.0.1:{port}"), "posix"])
            .arg(directory.join("gateway"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("versitygw: tests/peers/install.sh s3 installs it")
    }

    async fn client(&self) -> Client {
        connect::clients(&self.config).await.unwrap().0
    }

    async fn store(&self) -> S3 {
        S3::open(&self.config, &self.directory.path().join("spool"))
            .await
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test]
async fn it_passes_the_contract_suite() {
    let server = Server::start().await;
    suite::run(&server.store().await).await;
    assert_eq!(
        server.store().await.names("").await.unwrap(),
        ["store-id"],
        "something is left"
    );
    server.store().await.delete_object("store-id").await.unwrap();
}

#[tokio::test]
async fn it_passes_with_parts_of_one_size() {
    let mut server = Server::start().await;
    server.config.uniform_parts = true;
    suite::run(&server.store().await).await;
    server.store().await.delete_object("store-id").await.unwrap();
}

/// A writer that was given up must not change what its successor completes.
#[tokio::test]
async fn a_part_that_another_writer_overwrote_is_not_completed() {
    let server = Server::start().await;
    let store = server.store().await;
    let (upload, row) = (UploadId::random(), Row::default());
    let mut writer = write::Writer::open(store.clone(), row.upload(upload, 0), row.log())
        .await
        .unwrap();
    writer
        .append(vec![Bytes::from(vec![1; 6_000_000])])
        .await
        .unwrap();
    row.settle(&mut writer).await;
    let notes = uploads::notes(&row.upload(upload, 6_000_000)).unwrap();
    let late = SdkBody::from(vec![2_u8; 6_000_000]).into();
    let multipart = notes.multipart.clone().unwrap();
    store
        .add_part(upload, &multipart, 1, 6_000_000, late)
        .await
        .unwrap();
    assert!(Box::new(writer).finish(&uploads::object(upload)).await.is_err());
    store.discard_upload(upload).await.unwrap();
    assert_eq!(store.list(None).await.unwrap(), []);
}

/// The answer to a completion can be lost: the second attempt finds the object.
/// An attempt of which the server has got a piece must not take the place of the next one, which it got whole.
#[tokio::test]
async fn bytes_that_are_not_those_announced_are_refused() {
    let server = Server::start().await;
    let store = server.store().await;
    let key = ObjectName::new("d/checked".to_owned());
    let whole = Bytes::from_static(b"all of it");
    store
        .put(UploadId::random(), &key, vec![whole.clone()])
        .await
        .unwrap();
    let piece = SdkBody::from(&whole[..3]).into();
    let refused = store.put_object(&key, 3, crc32fast::hash(&whole), piece).await;
    assert!(refused.is_err(), "the server does not look at the checksum");
    let mut stored = store.read(&key, 0..whole.len() as u64).await.unwrap();
    assert_eq!(stored.next().await.unwrap().unwrap(), whole);
}

#[tokio::test]
async fn completing_twice_succeeds() {
    let server = Server::start().await;
    let store = server.store().await;
    let (upload, row) = (UploadId::random(), Row::default());
    let mut writer = write::Writer::open(store.clone(), row.upload(upload, 0), row.log())
        .await
        .unwrap();
    writer
        .append(vec![Bytes::from(vec![1; 6_000_000])])
        .await
        .unwrap();
    row.settle(&mut writer).await;
    let notes = uploads::notes(&row.upload(upload, 6_000_000)).unwrap();
    let multipart = notes.multipart.clone().unwrap();
    for _ in 0..2 {
        store
            .complete_multipart(upload, &multipart, &notes)
            .await
            .unwrap();
    }
    assert_eq!(
        writer.settle(Settle::IfCheap).await.unwrap(),
        crate::storage::Settled::Done(Some(notes.save()))
    );
    store.delete(&uploads::object(upload)).await.unwrap();
    assert_eq!(store.names("").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let mut server = Server::start().await;
    server.config.bucket = "no-such-bucket".to_owned();
    let error = server.store().await.identity("uuid").await.unwrap_err();
    let message = crate::report::chain(&error);
    assert!(
        message.contains("no-such-bucket") && message.contains("NoSuchBucket"),
        "{message}"
    );
}

#[tokio::test]
async fn a_signed_address_needs_no_key() {
    let mut server = Server::start().await;
    server.config.redirect = true;
    server.config.redirect_ttl = Duration::from_secs(60);
    let store = server.store().await;
    let key = store.new_name(&Digest::sha256(b"linked"));
    store
        .put(UploadId::random(), &key, vec![Bytes::from_static(b"linked")])
        .await
        .unwrap();
    let link = store.link(&key).await.unwrap().unwrap();
    let part = reqwest::Client::new().get(&link).header("range", "bytes=1-3");
    let answer = part.send().await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.text().await.unwrap(), "ink");
    assert_eq!(
        reqwest::get(link.split('?').next().unwrap())
            .await
            .unwrap()
            .status(),
        403
    );
    store.delete(&key).await.unwrap();
}
