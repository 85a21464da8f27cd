//! A node with a base image, and shorthand to build on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use builder::event::Event;
use builder::exec::{BuildError, BuildInput, BuildOutput, Dockerfile, Node, NodeConfig, Services, build};
use oci::{Digest, Platform};
use tokio_util::sync::CancellationToken;

use crate::memory::{Directory, Memory, REPOSITORY};

const HELPER: &str = env!("CARGO_BIN_EXE_builder-zygote-helper");
const BUSYBOX: &str = "/usr/bin/busybox";
const APPLETS: [&str; 21] = [
    "sh", "cat", "ls", "mkdir", "rm", "echo", "test", "true", "false", "sleep", "ln", "cp", "touch", "stat",
    "chmod", "chown", "id", "find", "env", "seq", "wget",
];

/// A registry, a node and a context directory, all fresh.
pub(crate) struct Fixture {
    pub(crate) memory: Memory,
    pub(crate) node: Node,
    pub(crate) context: tempfile::TempDir,
    _state: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with_memory(Memory::default())
    }

    /// Another node on the same registry.
    pub(crate) fn with_memory(memory: Memory) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new(&state.path().join("builder"));
        config.zygote_executable = Some(HELPER.into());
        config.cache_budget_bytes = Some(1 << 40);
        if memory.tags().is_empty() {
            let image = serde_json::json!({
                "created": "2024-03-01T00:00:00Z",
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"base": "1"}},
                "history": [{"created": "2024-03-01T00:00:00Z", "created_by": "by hand"}],
                "x-unknown": [1],
            });
            memory.add_image("base", &image, busybox_layer());
        }
        let node = Node::open(&config).unwrap();
        Self {
            memory,
            node,
            context: tempfile::tempdir().unwrap(),
            _state: state,
        }
    }

    pub(crate) fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.context.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn input(&self, dockerfile: &str) -> BuildInput {
        BuildInput {
            dockerfile: Dockerfile {
                name: "Dockerfile".into(),
                text: dockerfile.into(),
            },
            target: None,
            build_args: BTreeMap::new(),
            platform: Platform::host(),
            no_cache: false,
            repository: REPOSITORY.parse().unwrap(),
            tags: vec![(REPOSITORY.parse().unwrap(), "latest".parse().unwrap())],
        }
    }

    pub(crate) fn services(&self) -> Services {
        let memory = Arc::new(self.memory.clone());
        Services {
            images: memory.clone(),
            sink: memory.clone(),
            cache: memory.clone(),
            context: Arc::new(Directory(self.context.path().to_owned())),
            events: memory,
        }
    }

    pub(crate) async fn try_build(&self, dockerfile: &str) -> Result<BuildOutput, BuildError> {
        self.build_input(self.input(dockerfile)).await
    }

    pub(crate) async fn build_input(&self, input: BuildInput) -> Result<BuildOutput, BuildError> {
        build(input, self.services(), &self.node, CancellationToken::new()).await
    }

    pub(crate) async fn build(&self, dockerfile: &str) -> Image {
        match self.try_build(dockerfile).await {
            Ok(output) => self.image(output.digest),
            Err(error) => panic!("{error}\n{:#?}", self.memory.take_events()),
        }
    }

    pub(crate) fn image(&self, digest: Digest) -> Image {
        let (config, layers) = self.memory.image(&digest);
        Image {
            digest,
            config,
            layers,
        }
    }

    /// What each step of the last build did: `run`, `cached` or, after an error, `failed`.
    pub(crate) fn steps(&self) -> Vec<(usize, &'static str)> {
        let mut steps: Vec<(usize, &'static str)> = self
            .memory
            .take_events()
            .into_iter()
            .filter_map(|event| match event {
                Event::StepFinished { step, .. } => Some((step, "run")),
                Event::StepCached { step } => Some((step, "cached")),
                Event::StepFailed { step, .. } => Some((step, "failed")),
                _ => None,
            })
            .collect();
        steps.sort_unstable();
        steps
    }
}

/// A built image, read back.
pub(crate) struct Image {
    pub(crate) digest: Digest,
    pub(crate) config: serde_json::Value,
    pub(crate) layers: Vec<Vec<u8>>,
}

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) link: Option<String>,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) content: String,
}

impl Image {
    pub(crate) fn entries(&self, layer: usize) -> Vec<Entry> {
        let mut archive = tar::Archive::new(&self.layers[layer][..]);
        let mut entries = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            entries.push(Entry {
                path: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
                link: entry
                    .link_name_bytes()
                    .map(|link| String::from_utf8_lossy(&link).into_owned()),
                mode: entry.header().mode().unwrap(),
                owner: (entry.header().uid().unwrap(), entry.header().gid().unwrap()),
                mtime: entry.header().mtime().unwrap(),
                content: String::from_utf8_lossy(&content).into_owned(),
            });
        }
        entries
    }

    pub(crate) fn names(&self, layer: usize) -> Vec<String> {
        self.entries(layer).into_iter().map(|entry| entry.path).collect()
    }

    pub(crate) fn entry(&self, layer: usize, path: &str) -> Entry {
        let entries = self.entries(layer);
        let found = entries.iter().find(|entry| entry.path == path);
        found
            .unwrap_or_else(|| panic!("no {path} in {entries:#?}"))
            .clone()
    }
}

/// The base image's one layer.
fn busybox_layer() -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for dir in ["bin", "etc", "home/app", "tmp", "usr/lib"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    symlink("usr/lib", root.join("lib")).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:1001:\n").unwrap();
    fs::write(root.join("etc/motd"), "welcome\n").unwrap();
    archive(root)
}

/// A tar of a directory, times as on 2024-02-01.
pub(crate) fn archive(root: &Path) -> Vec<u8> {
    let output = std::process::Command::new("tar")
        .args([
            "--sort=name",
            "--mtime=2024-02-01 00:00Z",
            "--owner=0",
            "--group=0",
            "-cf",
            "-",
            "-C",
        ])
        .arg(root)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}
