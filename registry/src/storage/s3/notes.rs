//! What an upload consists of, as the database keeps it for the next request, on whichever replica.

use serde::{Deserialize, Serialize};

use crate::storage::{Upload, UploadNotes};

/// In this order an upload's bytes are: the parts of the multipart upload, then the fragments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notes {
    /// The multipart upload under the upload's name, once it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) multipart: Option<String>,
    /// ETag and size of parts 1, 2, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<(String, u64)>,
    /// The first fragment's number; the others follow.
    #[serde(default)]
    pub(super) first: u32,
    /// Sizes of the fragments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) fragments: Vec<u64>,
    /// Fragments before this one are deleted; from here to `first` they are no longer needed.
    #[serde(default)]
    pub(super) swept: u32,
}

impl Notes {
    /// The notes of an upload; none can be read where its bytes would be missing.
    pub(super) fn of(upload: &Upload) -> Result<Self, serde_json::Error> {
        match &upload.notes {
            Some(notes) => serde_json::from_slice(notes.as_bytes()),
            None => Ok(Self::default()),
        }
    }

    pub(super) fn save(&self) -> UploadNotes {
        UploadNotes::from_bytes(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, size)| size).sum::<u64>() + self.fragment_bytes()
    }

    pub(super) fn fragment_bytes(&self) -> u64 {
        self.fragments.iter().sum()
    }

    /// Numbers and sizes of the fragments.
    pub(super) fn fragments(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (self.first..).zip(self.fragments.iter().copied())
    }

    /// The number after the last fragment's.
    pub(super) fn next_fragment(&self) -> u32 {
        self.first + self.fragments.len() as u32
    }

    /// The fragments became something else: none is needed any more.
    pub(super) fn drop_fragments(&mut self) {
        self.first = self.next_fragment();
        self.fragments.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::UploadId;

    #[test]
    fn notes_are_read_as_they_were_written() {
        let mut notes = Notes {
            multipart: Some("id".to_owned()),
            parts: vec![("\"etag\"".to_owned(), 16), ("\"other\"".to_owned(), 17)],
            first: 3,
            fragments: vec![5, 6],
            swept: 1,
        };
        assert_eq!(notes.bytes(), 44);
        assert_eq!(notes.fragments().collect::<Vec<_>>(), [(3, 5), (4, 6)]);
        let upload = |notes| Upload {
            id: UploadId::random(),
            offset: 44,
            notes,
        };
        assert_eq!(Notes::of(&upload(Some(notes.save()))).unwrap(), notes);
        assert_eq!(Notes::of(&upload(None)).unwrap(), Notes::default());
        notes.drop_fragments();
        assert_eq!((notes.first, notes.bytes()), (5, 33));
    }

    /// What a running upload has recorded must be read by the next version.
    #[test]
    fn the_form_stays() {
        let text = r#"{"multipart":"id","parts":[["\"e\"",16]],"first":2,"fragments":[5],"swept":1}"#;
        let notes: Notes = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&notes).unwrap(), text);
    }
}
