//! RUN.

use crate::dockerfile::statement::{self, Command, Statement};
use crate::dockerfile::{Diagnostic, Word, heredoc};

use super::fold::Fold;
use super::mount::{self, Mount};
use super::{Network, Operation, Run, SCRIPT_DIRECTORY, Security, arguments};

impl Fold<'_> {
    pub(super) fn run(&mut self, statement: &Statement, run: &statement::Run) -> Result<(), Diagnostic> {
        let (command, script) = with_heredocs(statement, &run.command);
        let args = self.with_shell(&command);
        let mounts = run
            .mounts
            .iter()
            .map(|word| self.mount(word))
            .collect::<Result<_, _>>()?;
        // Other words were refused when the statement was typed.
        let network = match word_of(&run.network) {
            "none" => Network::None,
            "host" => Network::Host,
            _ => Network::Default,
        };
        let security = match word_of(&run.security) {
            "insecure" => Security::Insecure,
            _ => Security::Sandbox,
        };
        let created_by = format!("RUN {} # buildkit", self.command_line(&args));
        let history = created_by.len();
        self.spend(history + self.state.env.bytes(), statement.instruction.span)?;
        let operation = Operation::Run(Run {
            args,
            env: self.state.env.to_vec(),
            proxies: arguments::proxies(&self.shared.input.build_args),
            cwd: self.state.cwd(),
            user: self.state.config.user.clone(),
            network,
            script,
            mounts,
            security,
            devices: run.devices.iter().map(|word| word.raw.clone()).collect(),
        });
        self.step(statement, operation, created_by);
        Ok(())
    }

    fn mount(&mut self, word: &Word) -> Result<Mount, Diagnostic> {
        let text = self.expand(word)?;
        mount::parse(&text, &self.state.cwd())
            .map_err(|message| self.shared.sources.diagnose(word.span, message))
    }

    /// The command's words, and before them the ARGs in effect: `|1 FOO=bar /bin/sh -c x`.
    fn command_line(&self, args: &[String]) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in &self.state.arguments {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let mut words = Vec::new();
        if !names.is_empty() {
            words.push(format!("|{}", names.len()));
        }
        for name in names {
            let declared = || {
                let declaration = self.state.arguments.iter().rev().find(|(other, _)| other == name);
                declaration.map_or("", |(_, value)| value)
            };
            let value = self.state.env.get(name).unwrap_or_else(declared);
            words.push(format!("{name}={value}"));
        }
        words.extend(args.iter().cloned());
        words.join(" ")
    }
}

fn word_of(flag: &Option<Word>) -> &str {
    flag.as_ref().map_or("", |word| word.raw.as_str())
}

/// What the shell is given when the command has heredocs.
///
/// A command that is nothing but a heredoc is its body, or, if that begins with `#!`, a file that is run. Any other
/// goes to the shell as it was written, bodies and all: the shell reads them.
fn with_heredocs(statement: &Statement, command: &Command) -> (Command, Option<Vec<u8>>) {
    let heredocs = &statement.instruction.heredocs;
    let (Command::Shell(text), Some(first)) = (command, heredocs.first()) else {
        return (command.clone(), None);
    };
    if !matches!(heredoc::parse(text), Ok(Some(_))) {
        let mut script = text.clone();
        for heredoc in heredocs {
            script.push('\n');
            script.push_str(&heredoc.body);
            script.push_str(&heredoc.head.name);
        }
        return (Command::Shell(script), None);
    }
    let content = first.content();
    if content.starts_with("#!") {
        let path = format!("{SCRIPT_DIRECTORY}/{}", first.head.name);
        return (Command::Shell(path), Some(content.into_bytes()));
    }
    (Command::Shell(content), None)
}
