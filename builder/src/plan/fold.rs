//! One stage: its statements, in order, over its base's configuration.
//!
//! Each statement sees the variables as they were before it. The fold changes the configuration and appends steps; it
//! goes on after an error, so that all of a stage's errors are told at once.

use std::cell::Cell;

use oci::ContainerConfig;

use crate::dockerfile::expand::{Expander, Expansion};
use crate::dockerfile::statement::{Argument, Command, Kind, Statement};
use crate::dockerfile::suggest::nearest;
use crate::dockerfile::{Diagnostic, Pair, Span, Word};

use super::outline::Outline;
use super::sources::Sources;
use super::variables::Variables;
use super::{
    Base, Mkdir, Operation, PlanInput, Stage, StageId, Step, Warning, checks, history, paths, supported,
};

/// The PATH of images that set none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much text a plan's expanded words and environments may be in all: variables that hold each other, or a long
/// environment and many RUNs, would fill any memory.
pub(super) const MAX_PLAN_BYTES: usize = 64 << 20;
/// The longest environment of a RUN; no kernel would take one as long as that with its arguments.
const MAX_ENVIRONMENT_BYTES: usize = 1 << 20;

/// What a stage hands on to those built on it.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub config: ContainerConfig,
    pub author: Option<String>,
    /// ENV and ARG, as a RUN sees them.
    pub env: Variables,
    /// Declared ARGs with the values they were declared with.
    pub arguments: Vec<(String, String)>,
    /// CMD was set in this stage.
    pub cmd_is_own: bool,
    /// WORKDIR was set in the Dockerfile.
    pub workdir_is_own: bool,
}

/// What all stages of a plan share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub input: &'a PlanInput,
    pub outline: &'a Outline,
    pub sources: &'a Sources,
    /// The number in the plan of each stage of the outline.
    pub ids: &'a [Option<StageId>],
    /// Bytes that the plan has come to.
    pub spent: &'a Cell<usize>,
}

/// The fold.
pub(super) struct Fold<'a> {
    pub shared: Shared<'a>,
    /// The stage's number in the outline.
    pub index: usize,
    pub base: Base,
    pub state: State,
    pub steps: Vec<Step>,
    pub warnings: Vec<Warning>,
    pub errors: Vec<Diagnostic>,
}

impl State {
    /// The state at a stage's beginning, over an image's configuration.
    pub(super) fn over_image(mut config: ContainerConfig) -> Self {
        config.on_build.clear();
        if config.env_value("PATH").is_none() {
            config.set_env("PATH", DEFAULT_PATH);
        }
        Self {
            env: Variables::from_entries(&config.env),
            config,
            ..Self::default()
        }
    }

    /// The state at the beginning of a stage with nothing below it.
    pub(super) fn over_scratch() -> Self {
        Self::over_image(ContainerConfig {
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        })
    }

    /// The state at the beginning of a stage built on this one.
    pub(super) fn over_stage(&self) -> Self {
        let mut state = self.clone();
        state.config.on_build.clear();
        state.cmd_is_own = false;
        state
    }

    pub(super) fn cwd(&self) -> String {
        paths::absolute("/", &self.config.working_dir)
    }
}

impl Fold<'_> {
    pub(super) fn apply(&mut self, statement: &Statement) {
        let result = match &statement.kind {
            Kind::From(_) => Ok(()),
            Kind::Run(run) => self.run(statement, run),
            Kind::Copy(copy) => self.copy(statement, copy),
            Kind::Env(pairs) => self.env(statement, pairs),
            Kind::Label(pairs) => self.label(statement, pairs),
            Kind::Arg(arguments) => self.arg(statement, arguments),
            Kind::Workdir(word) => self.workdir(statement, word),
            Kind::User(word) => self.user(statement, word),
            Kind::Cmd(command) => {
                self.cmd(statement, command);
                Ok(())
            }
            Kind::Entrypoint(command) => {
                self.entrypoint(statement, command);
                Ok(())
            }
            Kind::Expose(words) => self.expose(statement, words),
            Kind::Volume(words) => self.volume(statement, words),
            Kind::Shell(words) => {
                self.state.config.shell = Some(words.clone());
                self.config_step(statement, format!("SHELL {}", history::list(words)));
                Ok(())
            }
            Kind::Stopsignal(word) => self.stopsignal(statement, word),
            Kind::Healthcheck(check) => {
                self.healthcheck(statement, check);
                Ok(())
            }
            Kind::Maintainer(word) => {
                self.state.author = Some(word.raw.clone());
                self.config_step(statement, format!("MAINTAINER {}", word.raw));
                Ok(())
            }
            Kind::Onbuild(onbuild) => {
                // ONBUILD leaves no history.
                self.state.config.on_build.push(onbuild.expression.clone());
                Ok(())
            }
        };
        self.errors.extend(result.err());
    }

    /// Ends the stage.
    pub(super) fn finish(self) -> (Stage, State) {
        let draft = &self.shared.outline.stages[self.index];
        let stage = Stage {
            label: draft.label.clone(),
            base: self.base,
            platform: draft.platform.clone(),
            steps: self.steps,
            config: self.state.config.clone(),
            author: self.state.author.clone(),
            span: draft.span,
        };
        (stage, self.state)
    }

    /// Appends a step, unless the executor can't do it.
    pub(super) fn step(&mut self, statement: &Statement, operation: Operation, created_by: String) {
        let span = statement.instruction.span;
        if let Some(error) = supported::refuse(statement, &operation, self.shared.sources) {
            self.errors.push(error);
            return;
        }
        self.steps.push(Step {
            operation,
            text: display(statement),
            created_by,
            span,
        });
    }

    /// Counts text that becomes part of the plan.
    pub(super) fn spend(&self, bytes: usize, span: Span) -> Result<(), Diagnostic> {
        let spent = self.shared.spent.get().saturating_add(bytes);
        self.shared.spent.set(spent);
        if spent > MAX_PLAN_BYTES {
            let message =
                format!("with all variables expanded, the build is larger than {MAX_PLAN_BYTES} bytes");
            return Err(self.shared.sources.diagnose(span, message));
        }
        Ok(())
    }

    fn check_environment(&self, span: Span) -> Result<(), Diagnostic> {
        if self.state.env.bytes() > MAX_ENVIRONMENT_BYTES {
            let message = format!("ENV and ARG together are longer than {MAX_ENVIRONMENT_BYTES} bytes");
            return Err(self.shared.sources.diagnose(span, message));
        }
        Ok(())
    }

    pub(super) fn config_step(&mut self, statement: &Statement, created_by: String) {
        self.step(statement, Operation::Config, created_by);
    }

    /// Expands a word with the variables as they are before the statement.
    pub(super) fn expand(&mut self, word: &Word) -> Result<String, Diagnostic> {
        self.expand_fully(word).map(|expansion| expansion.text)
    }

    pub(super) fn expand_fully(&mut self, word: &Word) -> Result<Expansion, Diagnostic> {
        self.expand_with(Expander::new(self.shared.outline.escape), word)
    }

    pub(super) fn expand_with(&mut self, expander: Expander, word: &Word) -> Result<Expansion, Diagnostic> {
        let expansion = expander
            .expand(&word.raw, &|name| self.state.env.get(name).map(str::to_owned))
            .map_err(|error| self.shared.sources.diagnose(word.span, error.to_string()))?;
        self.spend(expansion.text.len(), word.span)?;
        for name in &expansion.unset {
            let declared = self.state.arguments.iter().any(|(argument, _)| argument == name);
            if !declared {
                let meant = nearest(name, self.state.env.names());
                self.warnings
                    .push(checks::undefined_variable(name, meant, word.span));
            }
        }
        Ok(expansion)
    }

    fn env(&mut self, statement: &Statement, pairs: &[Pair]) -> Result<(), Diagnostic> {
        let mut created_by = "ENV".to_owned();
        for (name, value) in self.pairs(pairs)? {
            self.state.config.set_env(&name, &value);
            self.state.env.set(&name, &value);
            created_by.push_str(&format!(" {name}={value}"));
        }
        self.config_step(statement, created_by);
        self.check_environment(statement.instruction.span)
    }

    fn label(&mut self, statement: &Statement, pairs: &[Pair]) -> Result<(), Diagnostic> {
        let mut created_by = "LABEL".to_owned();
        for (name, value) in self.pairs(pairs)? {
            created_by.push_str(&format!(" {name}={value}"));
            self.state.config.labels.insert(name, value);
        }
        self.config_step(statement, created_by);
        Ok(())
    }

    /// All names and values, expanded before any of them is assigned.
    fn pairs(&mut self, pairs: &[Pair]) -> Result<Vec<(String, String)>, Diagnostic> {
        pairs
            .iter()
            .map(|pair| Ok((self.expand(&pair.name)?, self.expand(&pair.value)?)))
            .collect()
    }

    fn arg(&mut self, statement: &Statement, arguments: &[Argument]) -> Result<(), Diagnostic> {
        let mut texts = Vec::new();
        for argument in arguments {
            let name = &argument.name;
            let given = self.shared.input.build_args.get(name).cloned();
            let value = match (given, &argument.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.shared.outline.globals.get(name).map(str::to_owned),
            };
            if let Some(value) = &value {
                self.state.env.set(name, value);
            }
            texts.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            let value = value.unwrap_or_default();
            self.state.arguments.push((name.clone(), value));
        }
        self.config_step(statement, format!("ARG {}", texts.join(" ")));
        self.check_environment(statement.instruction.span)
    }

    fn workdir(&mut self, statement: &Statement, word: &Word) -> Result<(), Diagnostic> {
        let path = self.expand(word)?;
        if !self.state.workdir_is_own && !path.starts_with('/') {
            self.warnings
                .push(checks::relative_workdir(&path, statement.instruction.span));
        }
        self.state.workdir_is_own = true;
        let path = paths::absolute(&self.state.cwd(), &path);
        self.state.config.working_dir.clone_from(&path);
        let created_by = format!("WORKDIR {path}");
        let operation = if path == "/" {
            Operation::Config
        } else {
            Operation::Mkdir(Mkdir {
                path,
                user: self.state.config.user.clone(),
            })
        };
        self.step(statement, operation, created_by);
        Ok(())
    }

    fn user(&mut self, statement: &Statement, word: &Word) -> Result<(), Diagnostic> {
        let user = self.expand(word)?;
        self.config_step(statement, format!("USER {user}"));
        self.state.config.user = user;
        Ok(())
    }

    fn cmd(&mut self, statement: &Statement, command: &Command) {
        self.remark_on_shell_form(statement, command);
        let words = self.with_shell(command);
        self.config_step(statement, format!("CMD {}", history::quoted_list(&words)));
        self.state.config.cmd = (!words.is_empty()).then_some(words);
        self.state.config.args_escaped = true;
        self.state.cmd_is_own = true;
    }

    fn entrypoint(&mut self, statement: &Statement, command: &Command) {
        self.remark_on_shell_form(statement, command);
        let words = self.with_shell(command);
        self.config_step(statement, format!("ENTRYPOINT {}", history::quoted_list(&words)));
        self.state.config.entrypoint = (!words.is_empty()).then_some(words);
        if !self.state.cmd_is_own {
            self.state.config.cmd = None;
        }
    }

    fn remark_on_shell_form(&mut self, statement: &Statement, command: &Command) {
        // Who chooses a shell wants it.
        let chosen = self
            .state
            .config
            .shell
            .as_ref()
            .is_some_and(|shell| !shell.is_empty());
        if matches!(command, Command::Shell(_)) && !chosen {
            let title = statement.instruction.title();
            self.warnings
                .push(checks::shell_form(&title, statement.instruction.span));
        }
    }

    /// A command's words; the shell form goes behind the shell's.
    pub(super) fn with_shell(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(script) => {
                let mut words = match &self.state.config.shell {
                    Some(shell) if !shell.is_empty() => shell.clone(),
                    _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                };
                words.push(script.clone());
                words
            }
        }
    }
}

/// The statement as its user wrote it; a heredoc is told by its first line.
fn display(statement: &Statement) -> String {
    let mut text = statement.instruction.text.clone();
    if let Some(heredoc) = statement.instruction.heredocs.first() {
        let body = heredoc.body.trim();
        let first = body.lines().next().unwrap_or_default();
        let more = if body.contains('\n') { "..." } else { "" };
        text.push_str(&format!(" ({first}{more})"));
    }
    text
}
