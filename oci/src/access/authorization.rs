//! The `Authorization` header (RFC 7617, RFC 6750).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a caller shows.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    Basic { username: String, password: String },
    Bearer(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    #[error("the Authorization header has no scheme that is known here: send Basic or Bearer")]
    Scheme,
    #[error("the Authorization header's Basic credentials are not base64 of USER:PASSWORD in UTF-8")]
    Basic,
    #[error("the Authorization header's bearer token is empty or has spaces")]
    Bearer,
}

impl Authorization {
    pub fn parse(text: &str) -> Result<Self, AuthorizationError> {
        let (scheme, rest) = text.trim().split_once(' ').ok_or(AuthorizationError::Scheme)?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            if rest.is_empty() || rest.contains(char::is_whitespace) {
                return Err(AuthorizationError::Bearer);
            }
            return Ok(Self::Bearer(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(AuthorizationError::Scheme);
        }
        let decoded = STANDARD.decode(rest).map_err(|_| AuthorizationError::Basic)?;
        let pair = String::from_utf8(decoded).map_err(|_| AuthorizationError::Basic)?;
        let (username, password) = pair.split_once(':').ok_or(AuthorizationError::Basic)?;
        Ok(Self::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// Shows no secret.
impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username:?})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_are_read() {
        let basic = |username: &str, password: &str| {
            Ok(Authorization::Basic {
                username: username.into(),
                password: password.into(),
            })
        };
        assert_eq!(Authorization::parse("Basic YTpiOmM="), basic("a", "b:c"));
        assert_eq!(Authorization::parse("basic  Og=="), basic("", ""));
        assert_eq!(
            Authorization::parse("BEARER x.y.z"),
            Ok(Authorization::Bearer("x.y.z".into()))
        );
        for (text, error) in [
            ("", AuthorizationError::Scheme),
            ("Bearer", AuthorizationError::Scheme),
            ("Digest a", AuthorizationError::Scheme),
            ("Bearer a b", AuthorizationError::Bearer),
            ("Basic !", AuthorizationError::Basic),
            ("Basic YQ==", AuthorizationError::Basic),
            ("Basic /zo=", AuthorizationError::Basic),
        ] {
            assert_eq!(Authorization::parse(text), Err(error), "{text}");
        }
    }
}
