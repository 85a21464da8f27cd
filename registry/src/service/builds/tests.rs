use std::sync::LazyLock;
use std::time::Duration;

use client::api::{BuildOutcome, BuildRequest, BuildState, LeaseRequest, SourceFile};

use super::*;
use crate::service::access::{Client, Identity, Rules};

static USER: LazyLock<Principal> = LazyLock::new(|| {
    Principal::Client(Arc::new(Client::new(
        Identity::Local,
        Arc::new(Rules::everything()),
    )))
});

async fn open(dir: &std::path::Path) -> Arc<Builds> {
    let limits = BuildLimits {
        unwatched_max: Duration::from_millis(300),
        unconfirmed_max: Duration::from_millis(300),
        silent_max: Duration::from_millis(600),
        finished_kept_max: 2,
        tick: Duration::from_millis(20),
        lease_wait: Duration::from_secs(5),
        ..BuildLimits::default()
    };
    let worker = WorkerCommand {
        program: "/bin/sleep".into(),
        args: vec!["600".into()],
        env: Default::default(),
    };
    let setup = BuildsSetup {
        data_dir: dir.to_owned(),
        socket: dir.join("api.sock"),
        worker: Some(worker),
        limits,
        contexts: Contexts::open(dir, 1000, None).await.unwrap(),
        tokens: Arc::new(Tokens::new()),
    };
    Builds::open(setup).await.unwrap()
}

fn request(detached: bool) -> BuildRequest {
    BuildRequest {
        context: None,
        dockerfile: SourceFile {
            name: "Dockerfile".to_owned(),
            text: "FROM scratch".to_owned(),
        },
        tags: Vec::new(),
        target: None,
        build_args: Default::default(),
        no_cache: false,
        platform: None,
        credentials: Default::default(),
        detached,
    }
}

async fn ended(builds: &Builds, id: &str) -> BuildOutcome {
    for _ in 0..500 {
        if let Some(outcome) = builds.status(&USER, id).unwrap().outcome {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("build {id} does not end");
}

#[tokio::test]
async fn a_build_that_nobody_watches_is_cancelled_unless_detached() {
    let dir = tempfile::tempdir().unwrap();
    let builds = open(dir.path()).await;
    let watched = builds.create(&USER, request(false), None).await.unwrap();
    let unwatched = builds.create(&USER, request(false), None).await.unwrap();
    let detached = builds.create(&USER, request(true), None).await.unwrap();
    let reader = builds.events(&USER, &watched, 0).await.unwrap();
    assert_eq!(ended(&builds, &unwatched).await, BuildOutcome::Cancelled);
    assert_eq!(builds.status(&USER, &watched).unwrap().state, BuildState::Queued);
    drop(reader);
    assert_eq!(ended(&builds, &watched).await, BuildOutcome::Cancelled);
    assert_eq!(builds.status(&USER, &detached).unwrap().state, BuildState::Queued);
    builds.stop().await;
}

#[tokio::test]
async fn a_lost_job_is_given_again_and_a_silent_worker_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let builds = open(dir.path()).await;
    let id = builds.create(&USER, request(true), None).await.unwrap();
    let lost = builds.lease(LeaseRequest::default()).await.unwrap();
    let again = builds.lease(LeaseRequest::default()).await.unwrap();
    assert_eq!((&lost.build, &again.build), (&id, &id));
    assert!(
        builds.tokens.find(&lost.token).is_none(),
        "the lost answer's token is worthless"
    );
    let worker = builds.tokens.find(&again.token).unwrap();
    // While it asks for a cancel it is not silent.
    let control = builds
        .control(&worker, &id, Duration::from_secs(1))
        .await
        .unwrap();
    assert!(!control.cancelled);
    match ended(&builds, &id).await {
        BuildOutcome::Failed { kind, .. } => assert_eq!(kind, "builder_crashed"),
        other => panic!("{other:?}"),
    }
    builds.stop().await;
}

#[tokio::test]
async fn builds_outlive_the_server_as_history() {
    let dir = tempfile::tempdir().unwrap();
    let builds = open(dir.path()).await;
    let running = builds.create(&USER, request(true), None).await.unwrap();
    let job = builds.lease(LeaseRequest::default()).await.unwrap();
    let worker = builds.tokens.find(&job.token).unwrap();
    let events = vec![serde_json::json!({"type": "planned"})];
    let batch = client::api::EventBatch { first: 0, events };
    builds.append(&worker, &running, batch).await.unwrap();
    // As after kill -9: nobody ends the build.
    builds.keeper.lock().take().unwrap().abort();
    builds.supervisor.as_ref().unwrap().stop();

    let builds = open(dir.path()).await;
    match ended(&builds, &running).await {
        BuildOutcome::Failed { message, .. } => assert!(message.contains("server restarted"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(builds.status(&USER, &running).unwrap().last_seq, 1);
    let mut reader = builds.events(&USER, &running, 0).await.unwrap();
    assert!(reader.next().await.unwrap().unwrap().starts_with(b"{\"seq\":1,"));
    assert!(reader.next().await.unwrap().is_none());
    drop(reader);

    let mut newer = Vec::new();
    for _ in 0..2 {
        let id = builds.create(&USER, request(true), None).await.unwrap();
        builds.cancel(&USER, &id).await.unwrap();
        newer.push(id);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let kept: Vec<String> = builds.list(&USER).into_iter().map(|build| build.id).collect();
    newer.reverse();
    assert_eq!(kept, newer, "the oldest is forgotten");
    assert!(!dir.path().join(format!("builds/{running}.ndjson")).exists());
    builds.stop().await;
}

#[tokio::test]
async fn a_builds_token_sees_no_other_build_and_starts_none() {
    let dir = tempfile::tempdir().unwrap();
    let builds = open(dir.path()).await;
    let mine = builds.create(&USER, request(true), None).await.unwrap();
    let job = builds.lease(LeaseRequest::default()).await.unwrap();
    let worker = builds.tokens.find(&job.token).unwrap();
    let other = builds.create(&USER, request(true), None).await.unwrap();
    let listed: Vec<String> = builds.list(&worker).into_iter().map(|build| build.id).collect();
    assert_eq!(listed, [mine]);
    assert!(builds.status(&worker, &other).is_err());
    let started = builds.create(&worker, request(true), None).await;
    assert!(matches!(started, Err(BuildError::Denied { .. })), "{started:?}");
    builds.stop().await;
}
