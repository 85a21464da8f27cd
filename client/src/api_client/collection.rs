//! Calls about garbage collection and the trash.

use http::Method;
use reqwest::StatusCode;

use super::Api;
use crate::api::collection::{ExplainPage, Round, Status, TrashPage, UndeleteRequest, Undeleted};
use crate::error::Error;

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
        let path = with_query(
            "/api/v1/gc/explain",
            &[("repository", repository), ("digest", digest), ("after", after)],
        );
        let call = self.call(Method::GET, &path, "the fate of blobs and manifests");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    /// A page of what can be restored.
    pub async fn trash(&self, repository: &str, after: Option<&str>) -> Result<TrashPage, Error> {
        let path = with_query(
            "/api/v1/trash",
            &[("repository", Some(repository)), ("after", after)],
        );
        let call = self.call(Method::GET, &path, format!("the trash of {repository}"));
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn undelete(&self, request: &UndeleteRequest) -> Result<Undeleted, Error> {
        let what = format!("what was deleted from {}", request.repository);
        let call = self.call(Method::POST, "/api/v1/undelete", what);
        self.exchange(call, Some(request), &[StatusCode::OK]).await
    }
}

/// None of our values has characters that a query must escape: names, digests, positions.
fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let given: Vec<String> = parameters
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)))
        .collect();
    if given.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", given.join("&"))
}
