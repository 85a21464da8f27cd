//! What an S3 server's failures mean.

use std::error::Error;
use std::io;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;

/// How servers say that they are full.
const FULL: [&str; 4] = [
    "QuotaExceeded",
    "InsufficientStorage",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
];

/// An SDK's error with the kind that tells callers what to do about it.
pub(super) fn io_error<E>(error: SdkError<E>) -> io::Error
where
    E: ProvideErrorMetadata + RequestId + Error + Send + Sync + 'static,
{
    use io::ErrorKind as K;
    let code = error.code().unwrap_or_default().to_owned();
    let status = error.raw_response().map(|response| response.status().as_u16());
    let kind = match (&error, status) {
        (SdkError::TimeoutError(_), _) => K::TimedOut,
        (SdkError::DispatchFailure(failure), _) if failure.is_timeout() => K::TimedOut,
        (SdkError::DispatchFailure(_), _) => K::ConnectionRefused,
        (SdkError::ResponseError(_), Some(200..300)) => K::ConnectionReset,
        (_, Some(507)) => K::StorageFull,
        _ if FULL.contains(&code.as_str()) => K::StorageFull,
        (_, Some(404)) => K::NotFound,
        (_, Some(416)) => K::UnexpectedEof,
        (_, Some(408 | 429 | 500..600)) => K::ResourceBusy,
        _ => K::Other,
    };
    if code.is_empty() {
        return io::Error::new(kind, DisplayErrorContext(error).to_string());
    }
    let message = error.message().unwrap_or("no message");
    let request = error.request_id().unwrap_or("-");
    io::Error::new(kind, format!("S3 answered {code}: {message} (request {request})"))
}
