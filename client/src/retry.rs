//! When and how long to wait before asking again.

use std::time::{Duration, SystemTime};

use rand::Rng as _;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How often a request is sent at most.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// No pause of our own is longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A server that asks to wait longer than this is answered with its error instead.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Statuses that speak of a moment, not of the request.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The pause after the given failed attempt (from 1), or `None` if there is no further one.
pub(crate) fn pause(attempt: u32, headers: Option<&HeaderMap>) -> Option<Duration> {
    if attempt >= ATTEMPTS_MAX {
        return None;
    }
    match headers.and_then(retry_after) {
        Some(asked) if asked > RETRY_AFTER_MAX => None,
        Some(asked) => Some(asked),
        None => Some(jittered(FIRST_PAUSE * 2_u32.pow(attempt - 1))),
    }
}

/// Half to all of `pause`, so that clients that failed together don't come back together.
fn jittered(pause: Duration) -> Duration {
    let pause = pause.min(PAUSE_MAX);
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// `Retry-After` in seconds or as a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = http_date_seconds(text)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?
        .as_secs();
    Some(Duration::from_secs(date.saturating_sub(now)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that is sent today (RFC 9110, 5.6.7).
fn http_date_seconds(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let fields: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, clock, "GMT"] = fields[..] else {
        return None;
    };
    let day: u64 = day.parse().ok()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = year.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let clock: Vec<u64> = clock.split(':').filter_map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = clock[..] else {
        return None;
    };
    // Days since 1970-01-01 with years that begin in March, so that the leap day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days.checked_sub(719_468)?) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "17".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(17)));
        headers.insert(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::ZERO));
        assert_eq!(
            http_date_seconds("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        headers.insert(RETRY_AFTER, "soon".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = (1..=ATTEMPTS_MAX).map(|attempt| pause(attempt, None)).collect();
        assert!(pauses[0].unwrap() <= FIRST_PAUSE);
        assert!(pauses[3].unwrap() >= FIRST_PAUSE * 4);
        assert_eq!(pauses[4], None);
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "3600".parse().unwrap());
        assert_eq!(pause(1, Some(&headers)), None, "nobody waits an hour");
    }
}
