//! `WWW-Authenticate` as registries really send it (RFC 9110, 11.6.1): several challenges in one header or many,
//! quoted or bare values, any case, extra white space.

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A scheme a registry offers, with what it says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Every challenge that is understood, in the order sent.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = Scanner(text);
    while let Some(word) = rest.token() {
        if rest.eat('=') {
            let value = rest.value();
            if let Some((_, parameters)) = found.last_mut() {
                parameters.insert(word.to_ascii_lowercase(), value);
            }
        } else {
            found.push((word.to_ascii_lowercase(), BTreeMap::new()));
        }
    }
    found.into_iter().filter_map(understand).collect()
}

fn understand((scheme, mut parameters): (String, BTreeMap<String, String>)) -> Option<Challenge> {
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service").filter(|text| !text.is_empty()),
            scope: parameters.remove("scope").filter(|text| !text.is_empty()),
        }),
        _ => None,
    }
}

struct Scanner<'a>(&'a str);

impl Scanner<'_> {
    /// The next token; separators and whatever is no token are skipped.
    fn token(&mut self) -> Option<String> {
        self.0 = self.0.trim_start_matches(|c: char| !is_token(c));
        let end = self.0.find(|c: char| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then(|| token.to_owned())
    }

    fn eat(&mut self, wanted: char) -> bool {
        match self.0.trim_start().strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> String {
        let Some(quoted) = self.0.strip_prefix('"') else {
            // Bare values hold `/` and `:` in the wild, which no token has.
            let end = self
                .0
                .find(|c: char| c == ',' || c.is_whitespace())
                .unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return value.to_owned();
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &quoted[index + 1..];
                    return value;
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                plain => value.push(plain),
            }
        }
        self.0 = "";
        value
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        for (text, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/debian:pull,push"),
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("BASIC", vec![Challenge::Basic]),
            (
                r#"bearer  Realm = "https://a/t" , error="invalid_token""#,
                vec![bearer("https://a/t", None, None)],
            ),
            (
                r#"Negotiate, Basic realm="x, y", Bearer realm="https://a/\"t\"""#,
                vec![Challenge::Basic, bearer("https://a/\"t\"", None, None)],
            ),
            (
                "Bearer realm=https://a/t,service=s",
                vec![bearer("https://a/t", Some("s"), None)],
            ),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn broken_challenges_do_no_harm() {
        for text in [
            "",
            ",",
            "=",
            "Bearer",
            "Bearer realm",
            r#"Bearer service="x""#,
            r#""quoted""#,
            "\\",
            "=\"=\"",
        ] {
            assert_eq!(parse(text), vec![], "{text}");
        }
        assert_eq!(
            parse(r#"Bearer realm="unterminated"#),
            vec![bearer("unterminated", None, None)]
        );
    }
}
