//! Builds from the request to the result, and every way they end.

use bytes::Bytes;
use client::api::{
    BuildOutcome, BuildState, CacheLookup, CacheRecord, EventBatch, LeaseRequest, ResolveRequest,
};
use client::api_client::Api;
use client::{BytesSource, Error};
use futures::TryStreamExt as _;
use oci::{Descriptor, Digest, Platform, RepoName, media_type};
use serde_json::json;

use crate::harness::{Harness, request};

fn batch(first: u64, kinds: &[&str]) -> EventBatch {
    EventBatch {
        first,
        events: kinds.iter().map(|kind| json!({ "type": kind })).collect(),
    }
}

async fn read_events(user: &Api, id: &str, after: u64) -> Vec<String> {
    let mut events = user.events(id, after);
    let mut kinds = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        kinds.push(format!("{} {}", event.seq, event.event["type"].as_str().unwrap()));
    }
    kinds
}

fn failure(outcome: Option<BuildOutcome>) -> (String, String) {
    match outcome {
        Some(BuildOutcome::Failed { kind, message, .. }) => (kind, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_build_runs_from_its_context_to_its_result() {
    let harness = Harness::start().await;
    let user = harness.user();
    let pieces = futures::stream::iter([Ok(Bytes::from_static(b"tar ")), Ok(Bytes::from_static(b"bytes"))]);
    let context = user.create_context(Box::pin(pieces)).await.unwrap();
    assert_eq!(context.size_bytes, 9);
    let mut asked = request("team/app");
    asked.context = Some(context.id.clone());
    asked.credentials = [(
        "docker.io".to_owned(),
        client::api::Credential::IdentityToken("x".into()),
    )]
    .into();
    let id = user.create_build(&asked).await.unwrap().id;
    assert_eq!(user.build(&id).await.unwrap().state, BuildState::Queued);

    let job = harness.lease().await;
    assert_eq!(
        (job.build.as_str(), job.repository.as_str()),
        (id.as_str(), "team/app")
    );
    assert!(
        job.request.credentials.is_empty(),
        "the worker has no use for them"
    );
    let (worker, registry) = harness.with_token(&job.token);
    let tar: Vec<Bytes> = worker
        .context(&context.id)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(tar.concat(), b"tar bytes");

    let reader = tokio::spawn({
        let (user, id) = (user.clone(), id.clone());
        async move { read_events(&user, &id, 0).await }
    });
    worker
        .send_events(&id, &batch(0, &["planned", "step_started"]))
        .await
        .unwrap();
    worker
        .send_events(&id, &batch(1, &["step_started", "output"]))
        .await
        .unwrap();
    let gap = worker.send_events(&id, &batch(9, &["output"])).await.unwrap_err();
    assert!(gap.to_string().contains("go on at 3"), "{gap}");

    let layer = Bytes::from_static(b"layer");
    let digest = Digest::sha256(&layer);
    let source = BytesSource(layer.clone());
    registry
        .push_blob(&job.repository, &digest, 5, &source)
        .await
        .unwrap();
    let elsewhere: RepoName = "team/other".parse().unwrap();
    let denied = registry
        .push_blob(&elsewhere, &digest, 5, &source)
        .await
        .unwrap_err();
    assert!(matches!(denied, Error::Denied { .. }), "{denied}");
    cache_round_trip(&worker, &job.repository, &elsewhere, digest).await;

    let outcome = BuildOutcome::Succeeded {
        repository: job.repository.clone(),
        digest,
        size_bytes: 5,
    };
    worker.send_result(&id, &outcome).await.unwrap();
    let expected = ["1 planned", "2 step_started", "3 output"];
    assert_eq!(reader.await.unwrap(), expected);
    assert_eq!(
        read_events(&user, &id, 2).await,
        expected[2..],
        "events can be read again"
    );
    let status = user.build(&id).await.unwrap();
    assert_eq!(
        (status.state, status.outcome),
        (BuildState::Finished, Some(outcome))
    );

    let revoked = registry.stat_blob(&job.repository, &digest).await.unwrap_err();
    assert!(matches!(revoked, Error::Unauthorized { .. }), "{revoked}");
    asked.context = Some(context.id);
    let gone = user.create_build(&asked).await.unwrap_err();
    assert!(
        gone.is_not_found() && gone.to_string().contains("send it again"),
        "{gone}"
    );
    harness.stop().await;
}

async fn cache_round_trip(worker: &Api, own: &RepoName, other: &RepoName, layer: Digest) {
    let key = "0a".repeat(32);
    let record = CacheRecord {
        layer: Descriptor::new(media_type::OCI_LAYER_GZIP, layer, 5),
        result: json!({"diff_id": "x"}),
    };
    let absent = CacheRecord {
        layer: Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::sha256(b"absent"), 5),
        result: json!(null),
    };
    let error = worker.put_cached(own, &key, &absent).await.unwrap_err();
    assert!(error.to_string().contains("push it before its record"), "{error}");
    worker.put_cached(own, &key, &record).await.unwrap();
    assert!(matches!(
        worker.put_cached(other, &key, &record).await,
        Err(Error::Denied { .. })
    ));
    let lookup = CacheLookup {
        keys: vec![key.clone(), "0b".repeat(32)],
    };
    let found = worker.find_cached(own, &lookup).await.unwrap();
    assert_eq!(found.records.into_iter().collect::<Vec<_>>(), [(key, record)]);
    let name = "sha256:00/etc:x y";
    worker.put_memo(own, name, "digest").await.unwrap();
    let lookup = CacheLookup {
        keys: vec![name.to_owned(), "other".to_owned()],
    };
    let memos = worker.find_memos(own, &lookup).await.unwrap().memos;
    assert_eq!(
        memos.into_iter().collect::<Vec<_>>(),
        [(name.to_owned(), "digest".to_owned())]
    );
}

#[tokio::test]
async fn a_cancel_reaches_the_worker_and_takes_its_token() {
    let harness = Harness::start().await;
    let user = harness.user();
    let running = user.create_build(&request("a")).await.unwrap().id;
    let waiting = user.create_build(&request("b")).await.unwrap().id;
    let job = harness.lease().await;
    let (worker, _) = harness.with_token(&job.token);
    let told = tokio::spawn({
        let (worker, id) = (worker.clone(), running.clone());
        async move { worker.control(&id, 30).await }
    });
    assert!(!worker.control(&running, 0).await.unwrap().cancelled);
    for id in [&running, &waiting] {
        user.cancel_build(id).await.unwrap();
        assert_eq!(
            user.build(id).await.unwrap().outcome,
            Some(BuildOutcome::Cancelled)
        );
    }
    assert!(told.await.unwrap().unwrap().cancelled);
    let late = worker
        .send_events(&running, &batch(0, &["output"]))
        .await
        .unwrap_err();
    assert!(matches!(late, Error::Unauthorized { .. }), "{late}");
    let listed = user.builds().await.unwrap();
    assert_eq!(
        listed.iter().map(|build| &build.id).collect::<Vec<_>>(),
        [&waiting, &running]
    );
    let next = user.create_build(&request("c")).await.unwrap().id;
    assert_eq!(
        harness.lease().await.build,
        next,
        "a cancelled build is never leased"
    );
    harness.stop().await;
}

#[tokio::test]
async fn a_token_opens_its_own_build_alone() {
    let harness = Harness::start().await;
    let user = harness.user();
    let first = user.create_build(&request("a")).await.unwrap().id;
    let second = user.create_build(&request("b")).await.unwrap().id;
    let job = harness.lease().await;
    assert_eq!(job.build, first);
    let (worker, _) = harness.with_token(&job.token);
    assert!(matches!(
        worker.control(&second, 0).await,
        Err(Error::Denied { .. })
    ));
    assert!(matches!(
        worker.send_result(&second, &BuildOutcome::Cancelled).await,
        Err(Error::Denied { .. })
    ));
    assert!(worker.build(&second).await.unwrap_err().is_not_found());
    assert!(matches!(
        worker.lease(&LeaseRequest::default()).await,
        Err(Error::Denied { .. })
    ));
    assert!(matches!(
        worker.create_build(&request("other")).await,
        Err(Error::Denied { .. })
    ));
    let own = worker.create_build(&request("a")).await;
    assert!(
        matches!(own, Err(Error::Denied { .. })),
        "a build starts no builds"
    );
    // Users are no workers.
    assert!(matches!(
        user.lease(&LeaseRequest::default()).await,
        Err(Error::Denied { .. })
    ));
    assert!(matches!(
        user.send_events(&first, &batch(0, &["x"])).await,
        Err(Error::Denied { .. })
    ));
    let (nobody, _) = harness.with_token("0000");
    assert!(matches!(
        nobody.build(&first).await,
        Err(Error::Unauthorized { .. })
    ));
    let question = ResolveRequest {
        reference: "a".to_owned(),
        platform: Platform::host(),
    };
    assert!(matches!(
        nobody.resolve_image(&question).await,
        Err(Error::Unauthorized { .. })
    ));
    harness.stop().await;
}

#[tokio::test]
async fn a_dead_worker_fails_its_builds_and_the_next_one_works() {
    let harness = Harness::start().await;
    let user = harness.user();
    let running = user.create_build(&request("a")).await.unwrap().id;
    let waiting = user.create_build(&request("b")).await.unwrap().id;
    let job = harness.lease().await;
    let (_, pid) = harness.worker().await;
    harness.forget_worker_token();
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(read_events(&user, &running, 0).await, Vec::<String>::new());
    let (kind, message) = failure(user.build(&running).await.unwrap().outcome);
    assert_eq!(kind, "builder_crashed");
    assert!(message.contains("signal 9"), "{message}");
    let (worker, _) = harness.with_token(&job.token);
    assert!(matches!(
        worker.control(&running, 0).await,
        Err(Error::Unauthorized { .. })
    ));
    assert_eq!(
        harness.lease().await.build,
        waiting,
        "a new worker takes what waited"
    );
    harness.stop().await;
}

#[tokio::test]
async fn a_worker_without_rights_says_what_is_missing() {
    let harness = Harness::start().await;
    let user = harness.user();
    let waiting = user.create_build(&request("a")).await.unwrap().id;
    let worker = harness.worker_api().await;
    let missing = vec!["CAP_SYS_ADMIN is missing: start the server as root".to_owned()];
    let lease = LeaseRequest {
        version: "1".to_owned(),
        missing,
    };
    let leasing = tokio::spawn(async move { worker.lease(&lease).await });
    assert_eq!(read_events(&user, &waiting, 0).await, Vec::<String>::new());
    let later = user.create_build(&request("b")).await.unwrap().id;
    for id in [waiting, later] {
        let (kind, message) = failure(user.build(&id).await.unwrap().outcome);
        assert_eq!(kind, "unavailable");
        assert!(message.contains("start the server as root"), "{message}");
    }
    leasing.abort();
    harness.stop().await;
}

#[tokio::test]
async fn a_server_without_a_worker_says_so() {
    let harness = Harness::start_without_worker().await;
    let address: std::net::SocketAddr = harness.address.parse().unwrap();
    let body = serde_json::to_string(&request("a")).unwrap();
    let answer = crate::malformed::raw(address, "POST /api/v1/builds", &[], body.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("UNAVAILABLE") && answer.contains("no build worker"),
        "{answer}"
    );
    harness.stop().await;
}

#[tokio::test]
async fn stopping_the_server_ends_builds_and_worker() {
    let harness = Harness::start().await;
    let user = harness.user();
    let id = user.create_build(&request("a")).await.unwrap().id;
    let (_, pid) = harness.worker().await;
    let mut events = user.events(&id, 0);
    let reading = tokio::spawn(async move { events.next().await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    harness.stop().await;
    // The stream ends; whether the server is still there to say why is a matter of luck.
    assert!(matches!(reading.await.unwrap(), Ok(None) | Err(_)));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
