//! A server with a worker process that only lies there: the test speaks in its place, with its token.

use std::path::PathBuf;
use std::time::Duration;

use client::api::{BuildRequest, Job, LeaseRequest, SourceFile, TagTarget};
use client::api_client::Api;
use client::{Options, Registry};
use registry::{Config, Server, WorkerCommand};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Harness {
    dir: TempDir,
    pub(crate) address: String,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The token appears whole or not at all.
        let token = dir.path().join("token");
        let script = format!(
            "printf '%s %s' $LAYERYARD_WORKER_TOKEN $$ > {0}.tmp && mv {0}.tmp {0} && exec sleep 600",
            token.display()
        );
        let worker = WorkerCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Default::default(),
        };
        Self::start_in(dir, Some(worker)).await
    }

    pub(crate) async fn start_without_worker() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None).await
    }

    async fn start_in(dir: TempDir, worker: Option<WorkerCommand>) -> Self {
        let mut config = Config::new(dir.path().join("data"));
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.worker = worker;
        let server = Server::start(config).await.unwrap();
        let address = server.addresses()[0].to_string();
        let socket = server.socket_path().to_owned();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            server.run_until(stopped).await.unwrap();
        });
        Self {
            dir,
            address,
            socket,
            stop: Some(stop),
            serving,
        }
    }

    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.serving.await.unwrap();
    }

    pub(crate) fn user(&self) -> Api {
        Api::new(&format!("http://{}", self.address), Options::default()).unwrap()
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::new(&self.address, Options::default()).unwrap()
    }

    /// The worker's token and process, once it has been started.
    pub(crate) async fn worker(&self) -> (String, u32) {
        let path = self.dir.path().join("token");
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                let (token, pid) = text.split_once(' ').unwrap();
                return (token.to_owned(), pid.trim().parse().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn worker_api(&self) -> Api {
        Api::unix(&self.socket, &self.worker().await.0).unwrap()
    }

    /// The API and the registry as the worker of one build sees them.
    pub(crate) fn with_token(&self, token: &str) -> (Api, Registry) {
        (
            Api::unix(&self.socket, token).unwrap(),
            Registry::unix(&self.socket, token).unwrap(),
        )
    }

    /// Takes the next job.
    pub(crate) async fn lease(&self) -> Job {
        let worker = self.worker_api().await;
        worker
            .lease(&LeaseRequest::default())
            .await
            .unwrap()
            .expect("a job waits")
    }

    pub(crate) fn forget_worker_token(&self) {
        std::fs::remove_file(self.dir.path().join("token")).unwrap();
    }
}

pub(crate) fn request(name: &str) -> BuildRequest {
    BuildRequest {
        context: None,
        dockerfile: SourceFile {
            name: "Dockerfile".to_owned(),
            text: "FROM scratch\n".to_owned(),
        },
        tags: vec![TagTarget {
            repository: name.parse().unwrap(),
            tag: "latest".parse().unwrap(),
        }],
        target: None,
        build_args: Default::default(),
        no_cache: false,
        platform: None,
        credentials: Default::default(),
        detached: false,
    }
}
