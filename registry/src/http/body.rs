//! Request bodies that are JSON.

use axum::body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{ApiError, Code};

/// Reads a body of at most `limit_bytes` as JSON, whatever its content type says.
pub(super) async fn json<T: DeserializeOwned>(body: Body, limit_bytes: usize) -> Result<T, ApiError> {
    let collected = Limited::new(body, limit_bytes).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return ApiError::new(
                Code::TooLarge,
                format!("the request has more than {limit_bytes} bytes"),
            );
        }
        ApiError::new(Code::RequestInvalid, format!("the request broke off: {error}"))
    })?;
    serde_json::from_slice(&collected.to_bytes())
        .map_err(|error| ApiError::new(Code::RequestInvalid, format!("the request is not valid: {error}")))
}
