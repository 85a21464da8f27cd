//! Calls about reading every blob again.

use http::Method;
use reqwest::StatusCode;

use super::Api;
use crate::api::verify::VerifyStatus;
use crate::error::Error;

impl Api {
    pub async fn verification(&self) -> Result<VerifyStatus, Error> {
        let call = self.call(Method::GET, "/api/v1/verify", "the state of the verification");
        self.exchange(call, None::<&()>, &[StatusCode::OK]).await
    }

    /// Starts from the beginning, unless one runs.
    pub async fn verify(&self) -> Result<VerifyStatus, Error> {
        let call = self.call(Method::POST, "/api/v1/verify", "a verification");
        self.exchange(call, None::<&()>, &[StatusCode::ACCEPTED]).await
    }

    pub async fn stop_verification(&self) -> Result<VerifyStatus, Error> {
        let call = self.call(Method::DELETE, "/api/v1/verify", "the end of the verification");
        self.exchange(call, None::<&()>, &[StatusCode::OK]).await
    }
}
