//! Instructions as typed statements: flags checked, arguments counted, still unexpanded.

mod flags;
mod health;
mod lower;

pub use health::{Health, HealthTest, parse_duration};
pub use lower::lower;

use super::{Instruction, Pair, Word};

/// An instruction that is known to be well formed.
#[derive(Clone, Debug)]
pub struct Statement {
    pub kind: Kind,
    pub instruction: Instruction,
}

#[derive(Clone, Debug)]
pub enum Kind {
    From(From),
    Run(Run),
    Copy(Copy),
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Arg(Vec<Argument>),
    Workdir(Word),
    User(Word),
    Cmd(Command),
    Entrypoint(Command),
    Expose(Vec<Word>),
    Volume(Vec<Word>),
    Shell(Vec<String>),
    Stopsignal(Word),
    Healthcheck(Health),
    Maintainer(Word),
    Onbuild(Onbuild),
}

#[derive(Clone, Debug)]
pub struct From {
    pub image: Word,
    /// In lower case.
    pub name: Option<Word>,
    pub platform: Option<Word>,
    /// `AS` as written.
    pub as_keyword: Option<Word>,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub command: Command,
    pub mounts: Vec<Word>,
    pub network: Option<Word>,
    pub security: Option<Word>,
    pub devices: Vec<Word>,
}

/// COPY and ADD.
#[derive(Clone, Debug)]
pub struct Copy {
    pub add: bool,
    pub sources: Vec<CopySource>,
    pub dest: Word,
    pub from: Option<Word>,
    pub chown: Option<Word>,
    pub chmod: Option<Word>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<Word>,
    pub keep_git_dir: Option<bool>,
    pub checksum: Option<Word>,
    pub unpack: Option<bool>,
}

#[derive(Clone, Debug)]
pub enum CopySource {
    Path(Word),
    /// Index into the instruction's heredocs.
    Heredoc(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Shell(String),
    Exec(Vec<String>),
}

/// A declaration of ARG.
#[derive(Clone, Debug)]
pub struct Argument {
    pub name: String,
    pub default: Option<Word>,
    pub word: Word,
}

#[derive(Clone, Debug)]
pub struct Onbuild {
    /// The trigger as it goes into the image's configuration.
    pub expression: String,
}

impl Copy {
    pub fn name(&self) -> &'static str {
        if self.add { "ADD" } else { "COPY" }
    }
}
