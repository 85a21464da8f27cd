//! What planning makes: stages and their operations, every value expanded, nothing left to interpret.

use std::collections::BTreeMap;

use oci::{ContainerConfig, Platform};

pub use crate::dockerfile::{Span, Warning};

use super::mount::Mount;

/// Index into [`Plan::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(pub usize);

/// A build, ready to run. Only stages that the target needs are here, each after those it depends on; the last is
/// the target.
#[derive(Clone, Debug)]
pub struct Plan {
    pub stages: Vec<Stage>,
    pub warnings: Vec<Warning>,
    /// The argument SOURCE_DATE_EPOCH, seconds since 1970.
    pub source_date_epoch: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Stage {
    /// The name given with `AS`, or the stage's number in the Dockerfile.
    pub label: String,
    pub base: Base,
    pub platform: Platform,
    pub steps: Vec<Step>,
    /// The image configuration's `config` after all steps: a fold over the base's.
    pub config: ContainerConfig,
    /// MAINTAINER, the image configuration's `author`; `None` keeps the base's.
    pub author: Option<String>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    Scratch,
    /// The reference as the planner asked for it; the executor has its facts.
    Image(String),
    Stage(StageId),
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Step {
    pub operation: Operation,
    /// As the user wrote it, continuation lines joined: for display and error messages.
    pub text: String,
    /// `created_by` of the history entry.
    pub created_by: String,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Operation {
    Run(Run),
    Copy(Copy),
    /// WORKDIR: makes a layer only if the directory does not exist yet.
    Mkdir(Mkdir),
    /// Changes the configuration alone: history with `empty_layer`.
    Config,
}

#[derive(Clone, Debug)]
pub struct Run {
    /// The command as executed: shell and script, or the exec form's words.
    pub args: Vec<String>,
    /// ENV and the ARGs in effect, in order; later entries win. Proxy variables are in `proxies`.
    pub env: Vec<(String, String)>,
    /// Predefined proxy arguments: given to the command, kept out of keys and history.
    pub proxies: Vec<(String, String)>,
    pub cwd: String,
    /// As in the configuration; empty is root.
    pub user: String,
    pub network: Network,
    /// A heredoc that begins with `#!`: the content of an executable, read-only file (mode 0755, root's) under the
    /// path [`SCRIPT_DIRECTORY`]`/NAME`, which is the last of `args`.
    pub script: Option<Vec<u8>>,
    /// `--mount`. Always empty as long as [`super::supported`] refuses them.
    pub mounts: Vec<Mount>,
    pub security: Security,
    /// `--device`, as written.
    pub devices: Vec<String>,
}

/// Where a RUN sees the file of its heredoc script.
pub const SCRIPT_DIRECTORY: &str = "/dev/pipes";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    #[default]
    Sandbox,
    Insecure,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

#[derive(Clone, Debug)]
pub struct Copy {
    pub from: CopyFrom,
    /// Cleaned source patterns, relative to the source's root (no leading `/`; the root itself is `.`), Go
    /// `filepath.Match` wildcards allowed. With `parents` there may be one `/./`: what stands before it is not kept.
    pub sources: Vec<String>,
    /// Heredoc files: name and content, mode 0644.
    pub inline: Vec<InlineFile>,
    /// ADD of URLs and git repositories.
    pub remote: Vec<Remote>,
    /// Absolute and cleaned. `dest_is_dir`: it ended in `/`, was `.`, or there are several sources.
    pub dest: String,
    pub dest_is_dir: bool,
    /// `--chown`, expanded: `user[:group]`, names or numbers; names are looked up in the stage's files.
    pub chown: Option<String>,
    pub chmod: Option<Chmod>,
    /// ADD: local tar archives (by content: plain, gzip, bzip2, xz, zstd) are unpacked.
    pub unpack: bool,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    Context,
    Stage(StageId),
    /// The reference as the planner asked for it, for the platform of the image ([`PlanInput::platform`]).
    Image(String),
}

/// A source of ADD that is neither in the context nor inline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    Http {
        url: String,
        checksum: Option<String>,
    },
    Git {
        url: String,
        checksum: Option<String>,
        keep_git_dir: bool,
    },
}

#[derive(Clone, Debug)]
pub struct InlineFile {
    pub name: String,
    pub data: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    Octal(u32),
    /// Such as `u+x,go-w`, validated.
    Symbolic(String),
}

#[derive(Clone, Debug)]
pub struct Mkdir {
    /// Absolute and cleaned.
    pub path: String,
    /// The current USER, who owns what is made.
    pub user: String,
}

/// What a planner is given besides the Dockerfile.
#[derive(Clone, Debug)]
pub struct PlanInput {
    pub file_name: String,
    pub text: String,
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    /// The platform of the image.
    pub platform: Platform,
    /// The platform that builds.
    pub build_platform: Platform,
}

/// What the planner needs before it can go on: the configurations of these images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageNeed {
    pub reference: String,
    pub platform: Platform,
    pub span: Span,
    /// What may be meant if there is no such image.
    pub hint: Option<String>,
}
