//! Which flags an instruction takes, and their values.

use crate::dockerfile::suggest::did_you_mean;
use crate::dockerfile::{Diagnostic, Instruction, Source, Span, Word};

/// How a flag is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `--x`, `--x=true` or `--x=false`.
    Switch,
    /// `--x=value`, once.
    Value,
    /// `--x=value`, any number of times.
    Values,
}

/// An instruction's flags, all known and well formed.
#[derive(Default)]
pub(super) struct Flags(Vec<(String, Word)>);

impl Flags {
    /// Reads an instruction's flags.
    pub(super) fn read(
        source: &Source,
        instruction: &Instruction,
        allowed: &[(&'static str, Shape)],
    ) -> Result<Self, Diagnostic> {
        let mut read: Vec<(String, Word)> = Vec::new();
        for flag in &instruction.flags {
            let shape = allowed.iter().find(|(name, _)| *name == flag.name);
            let Some((_, shape)) = shape else {
                return Err(unknown(source, instruction, &flag.name, flag.span, allowed));
            };
            let error = |message: String| Err(source.diagnose(flag.span, message));
            if *shape != Shape::Values && read.iter().any(|(name, _)| *name == flag.name) {
                return error(format!("--{} is given twice", flag.name));
            }
            let raw = match (shape, flag.value.as_deref()) {
                (Shape::Switch, None) => "true".to_owned(),
                (Shape::Switch, Some(value)) => match value.to_ascii_lowercase() {
                    lower if lower == "true" || lower == "false" => lower,
                    _ => return error(format!("--{} must be true or false, not {value:?}", flag.name)),
                },
                (_, Some(value)) => value.to_owned(),
                (_, None) => return error(format!("--{0} needs a value: --{0}=…", flag.name)),
            };
            let word = Word { raw, span: flag.span };
            read.push((flag.name.clone(), word));
        }
        Ok(Self(read))
    }

    /// A value; an empty one counts as not given.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        self.values(name).pop().filter(|word| !word.raw.is_empty())
    }

    pub(super) fn values(&self, name: &str) -> Vec<Word> {
        self.0
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, word)| word.clone())
            .collect()
    }

    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|word| word.raw == "true")
    }
}

fn unknown(
    source: &Source,
    instruction: &Instruction,
    name: &str,
    span: Span,
    allowed: &[(&'static str, Shape)],
) -> Diagnostic {
    let title = instruction.title();
    let error = source.diagnose(span, format!("{title} has no flag --{name}"));
    let names = || allowed.iter().map(|(name, _)| *name);
    match did_you_mean(name, names()) {
        Some(hint) => error.help(hint),
        None if allowed.is_empty() => error.help(format!("{title} takes no flags")),
        None => error.help(format!(
            "its flags are {}",
            names()
                .map(|name| format!("--{name}"))
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}
