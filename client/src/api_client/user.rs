//! Calls of users: contexts, builds, names of images.

use http::Method;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;

use super::events::Events;
use super::{Api, read_json};
use crate::api::{
    BuildCreated, BuildRequest, BuildStatus, ContextCreated, ResolveRequest, ResolvedReference,
};
use crate::error::Error;
use crate::registry::{ByteStream, watched};
use crate::transport::Payload;

/// No body: tells the compiler the type that is not sent.
const NOTHING: Option<&()> = None;

impl Api {
    /// Sends a build context, a tar of unknown length.
    pub async fn create_context(&self, tar: ByteStream) -> Result<ContextCreated, Error> {
        // The stream can be sent once only: how to log in has to be known before.
        self.whoami().await?;
        let mut call = self.call(Method::POST, "/api/v1/contexts", "the build context");
        call.headers
            .insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-tar"));
        let (body, failure) = watched(tar);
        call.body = Payload::Stream(body);
        call.timeout = None;
        let place = self.transport.place(call.what.clone());
        let answer = self.transport.expect(call, &[StatusCode::CREATED]).await;
        // What the source said outweighs what the connection made of it.
        if let Some(error) = failure.lock().take() {
            return Err(error);
        }
        read_json(&place, answer?).await
    }

    pub async fn create_build(&self, request: &BuildRequest) -> Result<BuildCreated, Error> {
        let mut call = self.call(Method::POST, "/api/v1/builds", "a build");
        // Sent twice it would be two builds.
        call.patient = false;
        self.exchange(call, Some(request), &[StatusCode::CREATED]).await
    }

    pub async fn builds(&self) -> Result<Vec<BuildStatus>, Error> {
        let call = self.call(Method::GET, "/api/v1/builds", "the list of builds");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn build(&self, id: &str) -> Result<BuildStatus, Error> {
        let path = format!("/api/v1/builds/{id}");
        let call = self.call(Method::GET, &path, format!("build {id}"));
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    /// A build's events after number `after` (0: all), until the build ends; connections that break are made again.
    pub fn events(&self, id: &str, after: u64) -> Events {
        Events::new(self.clone(), id, after)
    }

    pub async fn cancel_build(&self, id: &str) -> Result<(), Error> {
        let path = format!("/api/v1/builds/{id}");
        let call = self.call(Method::DELETE, &path, format!("build {id}"));
        let expected = [StatusCode::ACCEPTED, StatusCode::NO_CONTENT, StatusCode::OK];
        self.tell(call, NOTHING, &expected).await
    }

    /// Finds the image of a name, fetching it into the server first if it is another registry's.
    pub async fn resolve_image(&self, request: &ResolveRequest) -> Result<ResolvedReference, Error> {
        let mut call = self.call(
            Method::POST,
            "/api/v1/images/resolve",
            format!("image {}", request.reference),
        );
        // The server may have to fetch gigabytes, and has tried often enough when it gives up.
        call.timeout = None;
        call.patient = false;
        self.exchange(call, Some(request), &[StatusCode::OK]).await
    }
}
