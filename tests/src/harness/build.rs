//! Build contexts, and `layeryard build` with its events read back.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::paths;
use super::server::Server;
use super::tool::{Ran, Tool};

pub(crate) struct Context {
    dir: TempDir,
}

/// A build that succeeded.
pub(crate) struct Built {
    pub(crate) digest: String,
    pub(crate) steps: Vec<Step>,
}

/// What the events told about a step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) text: String,
    pub(crate) line: u64,
    pub(crate) is_cached: bool,
    pub(crate) has_run: bool,
    pub(crate) output: Vec<String>,
}

impl Context {
    pub(crate) fn new(dockerfile: &str) -> Self {
        Self {
            dir: paths::scratch(),
        }
        .file("Dockerfile", dockerfile)
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(name, content);
        self
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below the context")).expect("make a directory");
        fs::write(path, content).expect("write a file of the context");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `layeryard build`, to be given more arguments.
    pub(crate) fn command(&self, server: &Server, tag: &str) -> Tool {
        server.layeryard(["build", "--tag", tag]).arg(self.path())
    }

    #[track_caller]
    pub(crate) fn build(&self, server: &Server, tag: &str) -> Built {
        self.build_with(server, tag, &[])
    }

    #[track_caller]
    pub(crate) fn build_with(&self, server: &Server, tag: &str, flags: &[&str]) -> Built {
        Built::from_events(
            &self
                .command(server, tag)
                .args(["--progress", "json"])
                .args(flags)
                .ok(),
        )
    }

    /// The build must fail, and say so itself.
    #[track_caller]
    pub(crate) fn build_fails(&self, server: &Server, tag: &str) -> Ran {
        self.command(server, tag).args(["--progress", "plain"]).fails()
    }
}

impl Built {
    #[track_caller]
    fn from_events(text: &str) -> Self {
        let mut built = Self {
            digest: String::new(),
            steps: Vec::new(),
        };
        for line in text.lines() {
            let event: Value = match serde_json::from_str(line) {
                Ok(event) => event,
                // The digest stands alone on the last line.
                Err(_) => continue,
            };
            let event = event.get("event").unwrap_or(&event);
            let number = event["step"].as_u64().unwrap_or(0) as usize;
            match event["type"].as_str() {
                Some("planned") => {
                    let steps = event["steps"].as_array().expect("a list of steps");
                    built.steps = steps.iter().map(Step::planned).collect();
                }
                Some("step_started") => built.steps[number].has_run = true,
                Some("step_cached") => built.steps[number].is_cached = true,
                Some("output") => {
                    built.steps[number]
                        .output
                        .push(event["text"].as_str().unwrap_or_default().to_owned());
                }
                Some("finished") => built.digest = event["digest"].as_str().expect("a digest").to_owned(),
                _ => {}
            }
        }
        assert!(built.digest.starts_with("sha256:"), "no finished build in {text}");
        built
    }

    /// The step whose text contains this.
    #[track_caller]
    pub(crate) fn step(&self, text: &str) -> &Step {
        let step = self.steps.iter().find(|step| step.text.contains(text));
        step.unwrap_or_else(|| panic!("no step {text:?} in {:?}", self.steps))
    }
}

impl Step {
    fn planned(step: &Value) -> Self {
        Self {
            text: step["text"].as_str().unwrap_or_default().to_owned(),
            line: step["line"].as_u64().unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// Makes a root file system of tests/peers/install.sh an image of this server.
#[track_caller]
pub(crate) fn import(server: &Server, rootfs: &str, name: &str) {
    let archive: PathBuf = paths::rootfs(rootfs);
    server
        .layeryard(["import", "--change", "CMD [\"/bin/sh\"]"])
        .arg(archive)
        .arg(name)
        .ok();
}
