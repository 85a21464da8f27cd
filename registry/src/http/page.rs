//! Query strings and `Link` headers of lists.

use http::{HeaderValue, Response, Uri, header};
use serde::Serialize;

use super::{ApiError, Code};

/// A page's size where the caller names none or more.
pub(super) const PAGE_MAX: u32 = 1000;

/// A request's query. Unknown parameters are nobody's business: clients send `ns` and others.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// `n`: how many items are wanted; more than a page is a page.
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        let Some(text) = self.get("n") else {
            return Ok(PAGE_MAX);
        };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(ApiError::new(
                Code::PageInvalid,
                "parameter n must be a number of items, 0 or more",
            ));
        }
        // What overflows is certainly more than a page.
        Ok(text.parse().unwrap_or(u32::MAX).min(PAGE_MAX))
    }
}

/// A JSON answer.
pub(super) fn json<B: From<Vec<u8>>>(value: &impl Serialize) -> Response<B> {
    let mut response = Response::new(B::from(serde_json::to_vec(value).unwrap_or_default()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds the address of the next page. Relative, so that it holds behind any proxy.
pub(super) fn link_next<B>(response: &mut Response<B>, path: &str, query: &[(&str, &str)]) {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    let link = format!("<{path}?{}>; rel=\"next\"", pairs.join("&"));
    if let Ok(value) = HeaderValue::from_str(&link) {
        response.headers_mut().insert(header::LINK, value);
    }
}

/// `+` stays: media types such as `application/vnd.x+json` are sent unencoded by most clients, and nothing here has
/// spaces.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let mut value = [0];
        let encoded = bytes[index] == b'%'
            && bytes
                .get(index + 1..index + 3)
                .is_some_and(|d| hex::decode_to_slice(d, &mut value).is_ok());
        out.push(if encoded { value[0] } else { bytes[index] });
        index += if encoded { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/v2/a/tags/list?{text}").parse().unwrap())
    }

    #[test]
    fn page_sizes_are_bounded_and_checked() {
        assert_eq!(query("").limit().unwrap(), PAGE_MAX);
        assert_eq!(query("n=0").limit().unwrap(), 0);
        assert_eq!(query("n=7&last=x").limit().unwrap(), 7);
        for huge in ["n=2147483648", "n=99999999999999999999999999"] {
            assert_eq!(query(huge).limit().unwrap(), PAGE_MAX);
        }
        for bad in ["n=", "n=-1", "n=x", "n=+1", "n=1.5"] {
            assert!(query(bad).limit().is_err(), "{bad}");
        }
    }

    #[test]
    fn values_survive_the_way_through_a_link() {
        let mut response = Response::new(());
        link_next(
            &mut response,
            "/v2/a/referrers/x",
            &[("artifactType", "a/b+c d"), ("last", "é&=")],
        );
        let link = response.headers()[header::LINK].to_str().unwrap();
        let target = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
        let back = Query::of(&target.parse().unwrap());
        assert_eq!(
            (back.get("artifactType"), back.get("last")),
            (Some("a/b+c d"), Some("é&="))
        );
        assert_eq!(query("tag=a&tag=b").all("tag").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            query("artifactType=application/x+json").get("artifactType"),
            Some("application/x+json")
        );
    }
}
