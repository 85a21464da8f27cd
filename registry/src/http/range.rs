//! `Range` of requests for blobs, and `Content-Range` of chunks.

use std::ops::Range;

use http::{HeaderMap, header};

use super::{ApiError, Code};
use crate::service::Chunk;

/// What of a blob is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// Reads `Range` for content of `size` bytes (RFC 9110, section 14). A form that is not understood, or several ranges
/// at once, may be ignored: the whole is the answer.
pub(super) fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let Some(value) = headers.get(header::RANGE) else {
        return Wanted::Whole;
    };
    let Some(spec) = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix("bytes="))
    else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Unsatisfiable;
    };
    match (number(first), number(last)) {
        (Number::Is(first), Number::None) if first < size => Wanted::Part(first..size),
        (Number::Is(first), Number::Is(last)) if first <= last && first < size => {
            Wanted::Part(first..last.saturating_add(1).min(size))
        }
        (Number::None, Number::Is(suffix)) if suffix > 0 && size > 0 => {
            Wanted::Part(size.saturating_sub(suffix)..size)
        }
        (Number::Bad, _) | (_, Number::Bad) if spec.contains(',') => Wanted::Whole,
        _ => Wanted::Unsatisfiable,
    }
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
    let text = value.to_str().map_err(|_| malformed())?.trim();
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-').ok_or_else(malformed)?;
    let (Number::Is(first), Number::Is(last)) = (number(first), number(last)) else {
        return Err(malformed());
    };
    let in_range = last
        .checked_sub(first)
        .and_then(|difference| difference.checked_add(1));
    match (in_range, length) {
        // `0-0` with no body is how some clients write an empty chunk.
        (Some(1), Some(0)) if first == 0 => Ok(Chunk {
            offset: Some(0),
            length,
        }),
        (Some(in_range), Some(length)) if in_range != length => Err(ApiError::new(
            Code::SizeInvalid,
            format!("Content-Range covers {in_range} bytes, Content-Length says {length}"),
        )),
        (Some(in_range), _) => Ok(Chunk {
            offset: Some(first),
            length: Some(in_range),
        }),
        (None, _) => Err(malformed()),
    }
}

enum Number {
    Is(u64),
    None,
    Bad,
}

fn number(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        return Number::None;
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Number::Bad;
    }
    // What overflows lies past every end.
    Number::Is(text.parse().unwrap_or(u64::MAX))
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
    fn ranges_are_inclusive_and_cut_to_the_content() {
        let wanted = |text: &str, size| wanted(&headers(&[(header::RANGE, text)]), size);
        for (text, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-5", Wanted::Part(2..6)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=5-99999999999999999999999", Wanted::Part(5..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=500-0", Wanted::Unsatisfiable),
            ("bytes=5-2", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=-", Wanted::Unsatisfiable),
            ("bytes=a-b", Wanted::Unsatisfiable),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
        ] {
            assert_eq!(wanted(text, 10), expected, "{text}");
        }
        assert_eq!(wanted("bytes=0-0", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted("bytes=-1", 0), Wanted::Unsatisfiable);
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
