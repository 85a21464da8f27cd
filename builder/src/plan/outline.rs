//! The stages of a Dockerfile and what they refer to: all that can be known without any image.

use oci::{ImageRef, Platform};

use crate::dockerfile::expand::{Expander, Expansion};
use crate::dockerfile::statement::{self, Kind, Statement};
use crate::dockerfile::suggest::{did_you_mean, nearest};
use crate::dockerfile::{Diagnostic, Diagnostics, Dockerfile, Source, Span, Word};

use super::variables::Variables;
use super::{PlanInput, Warning, arguments, checks};

/// The base that means "nothing".
pub(super) const SCRATCH: &str = "scratch";

/// A Dockerfile taken apart.
#[derive(Debug)]
pub(super) struct Outline {
    pub source: Source,
    pub escape: char,
    /// Predefined arguments and those declared before the first FROM.
    pub globals: Variables,
    /// The names of the ARGs before the first FROM.
    pub global_names: Vec<String>,
    pub stages: Vec<Draft>,
    pub warnings: Vec<Warning>,
}

/// A stage as written.
#[derive(Debug)]
pub(super) struct Draft {
    pub name: Option<String>,
    pub label: String,
    pub base: DraftBase,
    pub platform: Platform,
    pub statements: Vec<Statement>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DraftBase {
    Scratch,
    Image(String),
    Stage(usize),
}

/// What `--from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Stage(usize),
    Image(String),
}

impl Outline {
    pub(super) fn build(input: &PlanInput, file: Dockerfile) -> Result<Self, Diagnostics> {
        let (global_args, groups) = group(&file)?;
        let target = match (&input.target, groups.last()) {
            (Some(target), _) => target.clone(),
            (None, Some((from, _))) => from
                .name
                .as_ref()
                .map_or_else(String::new, |name| name.raw.clone()),
            (None, None) => String::new(),
        };
        let mut outline = Self {
            escape: file.directives.escape_char(),
            globals: arguments::predefined(input, &target),
            global_names: Vec::new(),
            stages: Vec::new(),
            warnings: Vec::new(),
            source: file.source,
        };
        let mut defaults = outline.globals.clone();
        outline.declare_globals(input, &global_args)?;
        outline.declare_defaults(&global_args, &mut defaults);
        for (from, statements) in groups {
            outline.check_base(&from, &defaults);
            let draft = outline.draft(input, from, statements)?;
            outline.stages.push(draft);
        }
        Ok(outline)
    }

    /// The stage to build.
    pub(super) fn target(&self, name: Option<&str>) -> Result<usize, Diagnostic> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(self.stages.len().saturating_sub(1));
        };
        let by_number = || name.parse().ok().filter(|index| *index < self.stages.len());
        self.stage_before(self.stages.len(), name)
            .or_else(by_number)
            .ok_or_else(|| {
                let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
                let span = self.stages.first().map_or_else(Span::default, |stage| stage.span);
                let error = self
                    .source
                    .diagnose(span, format!("there is no stage {name:?} to build"));
                error
                    .without_excerpt()
                    .maybe_help(did_you_mean(name, names.clone()).or_else(|| {
                        let names: Vec<&str> = names.collect();
                        (!names.is_empty()).then(|| format!("the stages are {}", names.join(", ")))
                    }))
            })
    }

    /// Resolves `--from` in the stage `at`: an earlier stage by name or number, else an image.
    pub(super) fn origin(&self, at: usize, from: &Word, source: &Source) -> Result<Origin, Diagnostic> {
        let name = from.raw.as_str();
        let error = |message: String| source.diagnose(from.span, message);
        if let Ok(index) = name.parse::<usize>() {
            return if index < at {
                Ok(Origin::Stage(index))
            } else {
                Err(
                    error(format!("there is no earlier stage with the number {index}"))
                        .help("stages are numbered from 0, and only earlier ones can be copied from"),
                )
            };
        }
        if name.contains(['$', '\'', '"', '\\']) {
            return Err(error("variables are not expanded in --from".to_owned())
                .help("declare a stage with FROM $… AS name and copy from that"));
        }
        if let Some(index) = self.stage_before(at, name) {
            return Ok(Origin::Stage(index));
        }
        if self.stage_before(self.stages.len(), name).is_some() {
            return Err(
                error(format!("the stage {name:?} is not defined before this one"))
                    .help("move it up: only earlier stages can be copied from"),
            );
        }
        if name.eq_ignore_ascii_case(SCRATCH) {
            return Err(error("scratch has no files to copy".to_owned()));
        }
        match name.parse::<ImageRef>() {
            Ok(_) => Ok(Origin::Image(name.to_owned())),
            Err(problem) => Err(
                error(format!("{name:?} is neither a stage nor an image: {problem}"))
                    .maybe_help(self.similar_stage(name)),
            ),
        }
    }

    /// A stage's name that is nearly the given one.
    pub(super) fn similar_stage(&self, name: &str) -> Option<String> {
        let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
        nearest(name, names).map(|name| format!("did you mean the stage {name}?"))
    }

    /// The last stage of a name before the stage `at`.
    fn stage_before(&self, at: usize, name: &str) -> Option<usize> {
        self.stages[..at].iter().rposition(|stage| {
            stage
                .name
                .as_deref()
                .is_some_and(|stage| stage.eq_ignore_ascii_case(name))
        })
    }

    fn declare_globals(&mut self, input: &PlanInput, arguments: &[Statement]) -> Result<(), Diagnostic> {
        for statement in arguments {
            let Kind::Arg(declared) = &statement.kind else {
                continue;
            };
            for argument in declared {
                let value = match (input.build_args.get(&argument.name), &argument.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => Some(self.expand_global(default)?.text),
                    (None, None) => None,
                };
                if let Some(value) = value {
                    self.globals.set(&argument.name, &value);
                }
                self.global_names.push(argument.name.clone());
            }
        }
        Ok(())
    }

    /// The globals as they are without `--build-arg`.
    fn declare_defaults(&self, arguments: &[Statement], defaults: &mut Variables) {
        for statement in arguments {
            let Kind::Arg(declared) = &statement.kind else {
                continue;
            };
            for argument in declared {
                let Some(default) = &argument.default else {
                    continue;
                };
                let value = Expander::new(self.escape)
                    .expand(&default.raw, &|name| defaults.get(name).map(str::to_owned));
                if let Ok(value) = value {
                    defaults.set(&argument.name, &value.text);
                }
            }
        }
    }

    /// Remarks on the variables in a FROM.
    fn check_base(&mut self, from: &statement::From, defaults: &Variables) {
        let words = [Some(&from.image), from.platform.as_ref()];
        for word in words.into_iter().flatten() {
            let Ok(expansion) = self.expand_global(word) else {
                continue;
            };
            for name in expansion
                .unset
                .iter()
                .filter(|name| !self.global_names.contains(name))
            {
                self.warnings.push(checks::undeclared_in_from(name, word.span));
            }
        }
        let image = &from.image;
        let by_default =
            Expander::new(self.escape).expand(&image.raw, &|name| defaults.get(name).map(str::to_owned));
        if by_default.is_ok_and(|name| name.text.parse::<ImageRef>().is_err()) {
            self.warnings
                .push(checks::invalid_default(&image.raw, image.span));
        }
    }

    pub(super) fn expand_global(&self, word: &Word) -> Result<Expansion, Diagnostic> {
        Expander::new(self.escape)
            .expand(&word.raw, &|name| self.globals.get(name).map(str::to_owned))
            .map_err(|error| self.source.diagnose(word.span, error.to_string()))
    }

    fn draft(
        &self,
        input: &PlanInput,
        from: statement::From,
        mut statements: Vec<Statement>,
    ) -> Result<Draft, Diagnostic> {
        let index = self.stages.len();
        let base = self.base(index, &from.image)?;
        let given = from
            .platform
            .as_ref()
            .map(|word| self.platform(word, input))
            .transpose()?;
        let inherited = match &base {
            DraftBase::Stage(parent) => self.stages[*parent].platform.clone(),
            _ => input.platform.clone(),
        };
        let span = statements.remove(0).instruction.span;
        let name = from.name.as_ref().map(|name| name.raw.clone());
        Ok(Draft {
            label: name.clone().unwrap_or_else(|| index.to_string()),
            name,
            platform: given
                .filter(|_| !matches!(base, DraftBase::Stage(_)))
                .unwrap_or(inherited),
            base,
            statements,
            span,
        })
    }

    fn base(&self, at: usize, image: &Word) -> Result<DraftBase, Diagnostic> {
        let expansion = self.expand_global(image)?;
        let name = expansion.text;
        let error = |message: String| self.source.diagnose(image.span, message);
        let unset = expansion.unset.first();
        let undeclared = || {
            let unset = unset?;
            did_you_mean(unset, self.globals.names()).or_else(|| {
                Some(format!(
                    "only ARGs before the first FROM are known here; declare ARG {unset} there"
                ))
            })
        };
        if name.is_empty() {
            return Err(error(format!("the base {:?} is empty", image.raw)).maybe_help(undeclared()));
        }
        if name == SCRATCH {
            return Ok(DraftBase::Scratch);
        }
        if let Some(stage) = self.stage_before(at, &name) {
            return Ok(DraftBase::Stage(stage));
        }
        match name.parse::<ImageRef>() {
            Ok(_) => Ok(DraftBase::Image(name)),
            Err(problem) => Err(error(problem.to_string()).maybe_help(undeclared())),
        }
    }

    fn platform(&self, word: &Word, input: &PlanInput) -> Result<Platform, Diagnostic> {
        let text = self.expand_global(word)?.text;
        let host = &input.build_platform;
        let completed = match text.as_str() {
            "" => {
                return Err(self
                    .source
                    .diagnose(word.span, format!("the platform {:?} is empty", word.raw)));
            }
            "linux" => format!("linux/{}", host.architecture),
            "amd64" | "x86_64" | "arm64" | "aarch64" | "arm" | "386" | "riscv64" | "ppc64le" | "s390x" => {
                format!("linux/{text}")
            }
            _ => text,
        };
        completed
            .parse::<Platform>()
            .map_err(|error| self.source.diagnose(word.span, error.to_string()))
    }
}

type Groups = Vec<(statement::From, Vec<Statement>)>;

/// Types every instruction and groups them by FROM; each group begins with its FROM.
fn group(file: &Dockerfile) -> Result<(Vec<Statement>, Groups), Diagnostics> {
    let mut globals = Vec::new();
    let mut groups: Groups = Vec::new();
    let mut errors = Vec::new();
    for instruction in &file.instructions {
        let statement = match statement::lower(&file.source, instruction) {
            Ok(statement) => statement,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        match (&statement.kind, groups.last_mut()) {
            (Kind::From(from), _) => groups.push((from.clone(), vec![statement])),
            (_, Some((_, statements))) => statements.push(statement),
            (Kind::Arg(_), None) => globals.push(statement),
            (_, None) => errors.push(
                file.source
                    .diagnose(
                        instruction.span,
                        format!("{} stands before the first FROM", instruction.title()),
                    )
                    .help("only ARG may stand there"),
            ),
        }
    }
    if groups.is_empty() && errors.is_empty() {
        let span = file.source.span(0, 0);
        errors.push(
            file.source
                .diagnose(span, "the file has no FROM, so there is nothing to build"),
        );
    }
    Diagnostics::check(errors)?;
    Ok((globals, groups))
}
