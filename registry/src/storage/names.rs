//! The names of what is stored.

use std::fmt;
use std::str::FromStr;

use oci::Digest;
use uuid::Uuid;

/// An upload session's name: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UploadId(Uuid);

/// What a store has to remember of an upload between requests, in its own form; opaque to everybody else.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UploadNotes(Vec<u8>);

/// A stored object's name, relative to the store. Its form belongs to the store that made it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectName(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upload id is malformed: 32 hex digits expected")]
pub(crate) struct UploadIdError;

impl UploadId {
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, UploadIdError> {
        Uuid::from_slice(bytes).map(Self).map_err(|_| UploadIdError)
    }
}

impl FromStr for UploadId {
    type Err = UploadIdError;

    /// Only the form that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        let plain = text.len() == 32 && !text.bytes().any(|b| b.is_ascii_uppercase());
        match plain.then(|| Uuid::try_parse(text)) {
            Some(Ok(uuid)) => Ok(Self(uuid)),
            _ => Err(UploadIdError),
        }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl UploadNotes {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for UploadNotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl ObjectName {
    /// `blobs/<algorithm>/<ab>/<hex>.<gen>`: `ab` are the digest's first two digits, `gen` is random.
    pub(crate) fn for_digest(digest: &Digest) -> Self {
        let (algorithm, hex) = (digest.algorithm(), digest.hex());
        let generation: u64 = rand::random();
        Self::new(format!("blobs/{algorithm}/{}/{hex}.{generation:016x}", &hex[..2]))
    }

    pub(crate) fn new(name: impl Into<Box<str>>) -> Self {
        Self(name.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_written_form_of_an_upload_id_is_read() {
        let id = UploadId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(UploadId::from_bytes(id.as_bytes()), Ok(id));
        let upper = id.to_string().to_uppercase() + "A";
        for text in [
            "",
            "..",
            "../../../../../../../../../../etc",
            &upper,
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ] {
            assert_eq!(text.parse::<UploadId>(), Err(UploadIdError), "{text}");
        }
    }
}
