//! Who logged in, who was refused, who changed what: one JSON object a line, in the log and in a file of its own.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::watch::Stamp;

pub(crate) struct Audit {
    file: Option<Mutex<Target>>,
}

struct Target {
    path: PathBuf,
    file: File,
    stamp: Option<Stamp>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    event: &'a str,
    outcome: &'a str,
    who: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

impl Audit {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(Target::open).transpose()?;
        Ok(Self {
            file: file.map(Mutex::new),
        })
    }

    pub(crate) fn granted(&self, event: &str, who: &str, address: Option<IpAddr>, detail: &str) {
        self.record(event, "granted", who, address, detail);
    }

    pub(crate) fn refused(&self, event: &str, who: &str, address: Option<IpAddr>, detail: &str) {
        self.record(event, "refused", who, address, detail);
    }

    fn record(&self, event: &str, outcome: &str, who: &str, address: Option<IpAddr>, detail: &str) {
        tracing::info!(
            target: "layeryard::audit",
            event,
            outcome,
            who,
            address = address.map(tracing::field::display),
            detail,
        );
        let Some(file) = &self.file else { return };
        let line = Line {
            at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            event,
            outcome,
            who,
            address,
            detail,
        };
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        // One write to a file opened for appending: lines of several threads and processes stay whole.
        if let Err(error) = file.lock().file.write_all(&text) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }

    /// Goes on in a new file if the old one was moved away.
    pub(crate) fn reopen(&self) {
        let Some(file) = &self.file else { return };
        let mut target = file.lock();
        if target.is_moved() {
            match Target::open(&target.path.clone()) {
                Ok(new) => *target = new,
                Err(error) => tracing::error!(%error, "the audit log cannot be opened anew"),
            }
        }
    }
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            stamp: Stamp::of(path).ok(),
        })
    }

    fn is_moved(&self) -> bool {
        let now = Stamp::of(&self.path).ok();
        match (&now, &self.stamp) {
            (Some(now), Some(then)) => !now.same_file(then),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_a_moved_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        audit.refused(
            "login",
            "anna\n",
            Some(IpAddr::from([10, 0, 0, 1])),
            "wrong password",
        );
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (line["who"].as_str(), line["address"].as_str()),
            (Some("anna\n"), Some("10.0.0.1"))
        );
        assert_eq!(
            (line["event"].as_str(), line["outcome"].as_str()),
            (Some("login"), Some("refused"))
        );
        std::fs::rename(&path, directory.path().join("audit.1")).unwrap();
        audit.reopen();
        audit.granted("login", "bert", None, "");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("bert") && !text.contains("anna"), "{text}");
    }
}
