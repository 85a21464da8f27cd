//! What planning makes: stages and their operations, every value expanded, nothing left to interpret.

use std::collections::BTreeMap;

use oci::{ContainerConfig, Platform};

/// Where a text stands in its source: byte offsets and the first line, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// 0 is the Dockerfile; others are ONBUILD triggers of bases.
    pub source: usize,
    pub start: usize,
    pub end: usize,
    pub line: usize,
}

/// Index into [`Plan::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(pub usize);

/// A build, ready to run. Only stages that the target needs are here, each after those it depends on; the last is
/// the target.
#[derive(Clone, Debug)]
pub struct Plan {
    pub stages: Vec<Stage>,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug)]
pub struct Warning {
    pub code: Option<&'static str>,
    pub message: String,
    pub span: Span,
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
    /// A heredoc with `#!`: the file is executed instead of `args`.
    pub script: Option<Vec<u8>>,
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
    /// Cleaned source patterns, relative to the source's root (no leading `/`), Go `filepath.Match` wildcards allowed.
    pub sources: Vec<String>,
    /// Heredoc files: name and content, mode 0644.
    pub inline: Vec<InlineFile>,
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
    Image(String),
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
}
