//! The texts of `Range` and `Content-Range`: which bytes of a blob are wanted, and which a chunk holds.

use std::ops::Range;

/// What of a blob is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

impl Wanted {
    /// Reads `Range` for content of `size` bytes (RFC 9110, section 14). A form that is not understood, or several
    /// ranges at once, may be ignored: the whole is the answer.
    pub fn parse(text: &str, size: u64) -> Self {
        let Some(spec) = text.trim().strip_prefix("bytes=") else {
            return Self::Whole;
        };
        let Some((first, last)) = spec.trim().split_once('-') else {
            return Self::Unsatisfiable;
        };
        match (number(first), number(last)) {
            (Number::Is(first), Number::None) if first < size => Self::Part(first..size),
            (Number::Is(first), Number::Is(last)) if first <= last && first < size => {
                Self::Part(first..last.saturating_add(1).min(size))
            }
            (Number::None, Number::Is(suffix)) if suffix > 0 && size > 0 => {
                Self::Part(size.saturating_sub(suffix)..size)
            }
            (Number::Bad, _) | (_, Number::Bad) if spec.contains(',') => Self::Whole,
            _ => Self::Unsatisfiable,
        }
    }
}

/// Where a chunk begins and how long it is, of a `Content-Range` of the form `a-b`, also `bytes=a-b` and `bytes a-b/n`.
pub fn content_range(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (Number::Is(first), Number::Is(last)) = (number(first), number(last)) else {
        return None;
    };
    let length = last.checked_sub(first)?.checked_add(1)?;
    Some((first, length))
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

    #[test]
    fn ranges_are_inclusive_and_cut_to_the_content() {
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
            assert_eq!(Wanted::parse(text, 10), expected, "{text}");
        }
        assert_eq!(Wanted::parse("bytes=0-0", 0), Wanted::Unsatisfiable);
        assert_eq!(Wanted::parse("bytes=-1", 0), Wanted::Unsatisfiable);
    }
}
