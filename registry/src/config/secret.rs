//! Texts that are never shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

const SHOWN: &str = "(hidden)";

/// A text that neither logs nor `layeryard config show` show.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it can be sent as a header of this name.
    pub(super) fn is_header(&self, name: &str) -> bool {
        name.parse::<http::HeaderName>().is_ok() && http::HeaderValue::from_str(&self.0).is_ok()
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SHOWN)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}
