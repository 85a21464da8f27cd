//! Calls about garbage collection and the trash.

use http::Method;
use reqwest::StatusCode;

use super::Api;
use crate::api::collection::{ExplainPage, Round, Status, TrashPage, UndeleteRequest, Undeleted};
use crate::error::Error;
use crate::transport::Call;

/// No body: tells the compiler the type that is not sent.
const NOTHING: Option<&()> = None;

impl Api {
    pub async fn collection_status(&self) -> Result<Status, Error> {
        let call = self.call(Method::GET, "/api/v1/gc", "the state of garbage collection");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    /// Collects now and waits for it.
    pub async fn collect(&self) -> Result<Round, Error> {
        let mut call = self.call(Method::POST, "/api/v1/gc/run", "a round of garbage collection");
        call.timeout = None;
        call.patient = false;
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    /// Lets a paused collection go on.
    pub async fn confirm_collection(&self) -> Result<(), Error> {
        let call = self.call(Method::POST, "/api/v1/gc/confirm", "garbage collection");
        self.tell(call, NOTHING, &[StatusCode::NO_CONTENT]).await
    }

    /// A page of what is kept or removed and why: of all that waits for a review, or of a repository, or of one digest.
    pub async fn explain(
        &self,
        repository: Option<&str>,
        digest: Option<&str>,
        after: Option<&str>,
    ) -> Result<ExplainPage, Error> {
        let mut call = self.call(
            Method::GET,
            "/api/v1/gc/explain",
            "the fate of blobs and manifests",
        );
        set_query(
            &mut call,
            &[("repository", repository), ("digest", digest), ("after", after)],
        );
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    /// A page of what can be restored.
    pub async fn trash(&self, repository: &str, after: Option<&str>) -> Result<TrashPage, Error> {
        let mut call = self.call(Method::GET, "/api/v1/trash", format!("the trash of {repository}"));
        set_query(&mut call, &[("repository", Some(repository)), ("after", after)]);
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn undelete(&self, request: &UndeleteRequest) -> Result<Undeleted, Error> {
        let what = format!("what was deleted from {}", request.repository);
        let call = self.call(Method::POST, "/api/v1/undelete", what);
        self.exchange(call, Some(request), &[StatusCode::OK]).await
    }
}

fn set_query(call: &mut Call, parameters: &[(&str, Option<&str>)]) {
    for (name, value) in parameters {
        if let Some(value) = value {
            call.url.query_pairs_mut().append_pair(name, value);
        }
    }
}
