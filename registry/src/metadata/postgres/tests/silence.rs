//! A server whose connections stay open and carry nothing any more, as after the loss of its machine.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

use super::*;
use crate::metadata::Manifests;
use crate::metadata::suite::{manifest, repo, tag};

/// Carries connections to a server's unix socket until it is told to go silent. Later ones are carried again.
struct Network {
    port: u16,
    silenced: watch::Sender<u64>,
}

impl Network {
    async fn to(socket: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silenced = watch::Sender::new(0);
        let (socket, subscriber) = (Path::new(socket).join(".s.PGSQL.5432"), silenced.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = UnixStream::connect(&socket).await.unwrap();
                let mut silenced = subscriber.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, silenced }
    }

    fn go_silent(&self) {
        self.silenced.send_modify(|times| *times += 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_asked_on_new_connections() {
    let direct = TestServer::shared().database().await;
    let (address, socket) = direct.split_once("?host=").unwrap();
    let network = Network::to(socket).await;
    let url = address.replace("localhost", &format!("127.0.0.1:{}", network.port));
    let config = DatabaseConfig {
        silence_max: Duration::from_secs(1),
        // The silent one has the only place.
        connections_max: 1,
        ..DatabaseConfig::default()
    };
    let store = Postgres::open(&url, &config, "boot".to_owned(), &Limits::default())
        .await
        .unwrap();
    let put = |content: &str| {
        let mut put = manifest(&repo("a"), content);
        put.tags = vec![tag("latest")];
        store.put_manifest(put)
    };
    put("first").await.unwrap();

    network.go_silent();
    let begun = Instant::now();
    let written = put("second").await;
    assert!(
        matches!(written, Err(MetadataError::Unavailable { .. })),
        "{written:?}"
    );
    assert!(
        begun.elapsed() >= config.silence_max,
        "it was given time to answer"
    );

    put("third").await.unwrap();
    let found = store.resolve_tag(&repo("a"), &tag("latest")).await.unwrap();
    assert_eq!(found, Some(manifest(&repo("a"), "third").digest));
}
