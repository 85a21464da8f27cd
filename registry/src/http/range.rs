//! `Range` of requests for blobs, and `Content-Range` of chunks.

use http::{HeaderMap, header};
pub(super) use oci::range::Wanted;
use oci::range::content_range;

use super::{ApiError, Code};
use crate::service::Chunk;

/// Reads `Range` for content of `size` bytes.
pub(super) fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let value = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    value.map_or(Wanted::Whole, |text| Wanted::parse(text, size))
}

/// Reads `Content-Range` (`a-b`, also `bytes=a-b` and `bytes a-b/n`) and `Content-Length` of a chunk. They are checked
/// against each other before the body is read.
pub(super) fn chunk(headers: &HeaderMap) -> Result<Chunk, ApiError> {
    let length = match headers.get(header::CONTENT_LENGTH) {
        None => None,
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            Some(length.ok_or_else(|| ApiError::new(Code::SizeInvalid, "Content-Length is not a number"))?)
        }
    };
    let Some(value) = headers.get(header::CONTENT_RANGE) else {
        return Ok(Chunk { offset: None, length });
    };
    let malformed = || {
        ApiError::new(
            Code::BlobUploadInvalid,
            "Content-Range must be <first>-<last> in bytes",
        )
    };
    let text = value.to_str().map_err(|_| malformed())?;
    let (first, in_range) = content_range(text).ok_or_else(malformed)?;
    match (in_range, length) {
        // `0-0` with no body is how some clients write an empty chunk.
        (1, Some(0)) if first == 0 => Ok(Chunk {
            offset: Some(0),
            length,
        }),
        (in_range, Some(length)) if in_range != length => Err(ApiError::new(
            Code::SizeInvalid,
            format!("Content-Range covers {in_range} bytes, Content-Length says {length}"),
        )),
        (in_range, _) => Ok(Chunk {
            offset: Some(first),
            length: Some(in_range),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn chunks_must_agree_with_themselves() {
        let chunk = |range: &str, length: &str| {
            chunk(&headers(&[
                (header::CONTENT_RANGE, range),
                (header::CONTENT_LENGTH, length),
            ]))
            .map(|chunk| (chunk.offset, chunk.length))
        };
        for range in ["3-7", "bytes=3-7", "bytes 3-7/*", "bytes 3-7/20"] {
            assert_eq!(chunk(range, "5").unwrap(), (Some(3), Some(5)), "{range}");
        }
        assert_eq!(chunk("0-0", "0").unwrap(), (Some(0), Some(0)));
        for (range, length) in [
            ("3-7", "4"),
            ("7-3", "5"),
            ("-7", "7"),
            ("3", "1"),
            ("a-b", "1"),
            ("0-18446744073709551615", "5"),
        ] {
            assert!(chunk(range, length).is_err(), "{range} {length}");
        }
    }
}
