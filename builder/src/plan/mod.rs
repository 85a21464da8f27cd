//! From the AST and facts about bases to a [`Plan`].
//!
//! Architecture invariant: planning does no I/O. A [`Planner`] is asked again with more facts until it has enough.

mod arguments;
mod checks;
mod chmod;
mod fold;
mod fold_config;
mod fold_copy;
mod fold_run;
mod graph;
mod history;
pub mod mount;
mod outline;
mod paths;
mod ports;
mod signal;
mod sources;
mod supported;
mod types;
mod variables;

use std::cell::Cell;
use std::collections::BTreeMap;

use oci::{ImageConfig, Platform};

use crate::dockerfile::statement::{Kind, Statement};
use crate::dockerfile::{self, Checks, Diagnostics, Source};

use fold::{Fold, Shared, State};
use graph::Graph;
use outline::{DraftBase, Outline};
use sources::Sources;

pub use types::*;

/// What is known about images: their configurations, by the reference and platform of an [`ImageNeed`].
pub type Facts = BTreeMap<(String, Platform), ImageConfig>;

/// Plans one build. Ask it with [`Planner::step`] until it is done:
///
/// ```text
/// loop { match planner.step(&facts)? { Need(images) => fetch them into facts, Done(plan) => break plan } }
/// ```
#[derive(Debug)]
pub struct Planner {
    input: PlanInput,
    outline: Outline,
    target: usize,
    source_date_epoch: Option<i64>,
    checks: Checks,
    /// Remarks on the text.
    warnings: Vec<Warning>,
}

/// How far planning has come.
#[derive(Debug)]
pub enum Progress {
    /// Every image whose configuration is needed and not yet among the facts.
    Need(Vec<ImageNeed>),
    Done(Box<Plan>),
}

impl Planner {
    /// Parses the Dockerfile and resolves what needs no image.
    pub fn new(input: PlanInput) -> Result<Self, Diagnostics> {
        let file = dockerfile::parse(&input.file_name, &input.text)?;
        check_syntax(&file)?;
        let checks = Checks::of(&file);
        let mut warnings = dockerfile::check(&file);
        let mut outline = Outline::build(&input, file)?;
        warnings.append(&mut outline.warnings);
        let target = outline.target(input.target.as_deref())?;
        let source_date_epoch = source_date_epoch(&input, &outline)?;
        Ok(Self {
            input,
            outline,
            target,
            source_date_epoch,
            checks,
            warnings,
        })
    }

    /// Goes on with all facts known so far. Calling it again with the same facts gives the same answer.
    pub fn step(&self, facts: &Facts) -> Result<Progress, Diagnostics> {
        let mut sources = Sources::new(self.outline.source.clone());
        let triggers = self.triggers(facts, &mut sources)?;
        let graph = Graph::build(&self.outline, &triggers, &sources)?;
        let reachable = graph.reachable(self.target);
        let needs = graph.needs(&self.outline, &reachable, &self.input.platform, facts);
        if !needs.is_empty() {
            return Ok(Progress::Need(needs));
        }
        self.plan(facts, &sources, &triggers, &reachable)
            .map(|plan| Progress::Done(Box::new(plan)))
    }

    /// The ONBUILD triggers that each stage inherits, as far as its base is known.
    fn triggers(&self, facts: &Facts, sources: &mut Sources) -> Result<Vec<Vec<Statement>>, Diagnostics> {
        let mut errors = Vec::new();
        let mut all = Vec::new();
        for draft in &self.outline.stages {
            let (name, expressions) = match &draft.base {
                DraftBase::Scratch => (String::new(), Vec::new()),
                DraftBase::Image(reference) => {
                    let config = facts.get(&(reference.clone(), draft.platform.clone()));
                    let expressions = config.map(|config| config.config.on_build.clone());
                    (reference.clone(), expressions.unwrap_or_default())
                }
                DraftBase::Stage(parent) => {
                    let parent = &self.outline.stages[*parent];
                    (parent.label.clone(), onbuild_expressions(&parent.statements))
                }
            };
            let mut statements = Vec::new();
            for expression in &expressions {
                match trigger(sources, &format!("ONBUILD of {name}"), expression) {
                    Ok(statement) => statements.push(statement),
                    Err(error) => errors.extend(error.0),
                }
            }
            all.push(statements);
        }
        Diagnostics::check(errors)?;
        Ok(all)
    }

    fn plan(
        &self,
        facts: &Facts,
        sources: &Sources,
        triggers: &[Vec<Statement>],
        reachable: &[usize],
    ) -> Result<Plan, Diagnostics> {
        let mut ids = vec![None; self.outline.stages.len()];
        for (id, index) in reachable.iter().enumerate() {
            ids[*index] = Some(StageId(id));
        }
        let shared = Shared {
            input: &self.input,
            outline: &self.outline,
            sources,
            ids: &ids,
            spent: &Cell::new(0),
        };
        let mut states: BTreeMap<usize, State> = BTreeMap::new();
        let mut warnings = self.warnings.clone();
        warnings.extend(self.unused_build_args(triggers));
        let mut stages = Vec::new();
        let mut errors = Vec::new();
        for &index in reachable {
            let mut fold = self.fold(shared, index, facts, &states);
            for statement in triggers[index]
                .iter()
                .chain(&self.outline.stages[index].statements)
            {
                fold.apply(statement);
            }
            warnings.append(&mut fold.warnings);
            errors.append(&mut fold.errors);
            let (stage, state) = fold.finish();
            stages.push(stage);
            states.insert(index, state);
        }
        warnings.retain(|warning| self.checks.wants(warning));
        warnings.sort_by_key(|warning| (warning.span.source, warning.span.start));
        if self.checks.fatal {
            let fatal = warnings.iter().filter(|warning| warning.code.is_some());
            errors.extend(fatal.map(|warning| sources.diagnose(warning.span, warning.message.clone())));
        }
        Diagnostics::check(errors)?;
        Ok(Plan {
            stages,
            warnings,
            source_date_epoch: self.source_date_epoch,
        })
    }

    /// A stage's fold at its beginning. Its images' facts are known, and the stages before it are planned.
    fn fold<'a>(
        &'a self,
        shared: Shared<'a>,
        index: usize,
        facts: &Facts,
        states: &BTreeMap<usize, State>,
    ) -> Fold<'a> {
        let draft = &self.outline.stages[index];
        let mut warnings = Vec::new();
        let (base, state) = match &draft.base {
            DraftBase::Scratch => (Base::Scratch, State::over_scratch()),
            DraftBase::Image(reference) => {
                let image = facts.get(&(reference.clone(), draft.platform.clone()));
                if let Some(image) = image {
                    warnings.extend(checks::base_platform(
                        reference,
                        &draft.platform,
                        image,
                        draft.span,
                    ));
                }
                let config = image.map(|image| image.config.clone()).unwrap_or_default();
                (Base::Image(reference.clone()), State::over_image(config))
            }
            DraftBase::Stage(parent) => {
                let base = shared.ids[*parent].map_or(Base::Scratch, Base::Stage);
                let state = states.get(parent).map(State::over_stage).unwrap_or_default();
                (base, state)
            }
        };
        Fold {
            shared,
            index,
            base,
            state,
            steps: Vec::new(),
            warnings,
            errors: Vec::new(),
        }
    }

    /// `--build-arg`s that no ARG declares are probably misspelt.
    fn unused_build_args(&self, triggers: &[Vec<Statement>]) -> Vec<Warning> {
        let stages = self.outline.stages.iter().map(|stage| &stage.statements);
        let declared: Vec<&str> = stages
            .chain(triggers)
            .flatten()
            .filter_map(|statement| match &statement.kind {
                Kind::Arg(arguments) => Some(arguments.iter().map(|argument| argument.name.as_str())),
                _ => None,
            })
            .flatten()
            .chain(self.outline.global_names.iter().map(String::as_str))
            .collect();
        self.input
            .build_args
            .keys()
            .filter(|name| !declared.contains(&name.as_str()))
            .filter(|name| !arguments::is_predefined(name, &self.outline.globals))
            .map(|name| {
                let hint = dockerfile::suggest::did_you_mean(name, declared.iter().copied());
                let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
                Warning {
                    code: None,
                    message: format!("the build argument {name} is not used: no ARG declares it{hint}"),
                    span: Span {
                        line: 1,
                        ..Span::default()
                    },
                }
            })
            .collect()
    }
}

/// Parses an ONBUILD trigger.
fn trigger(sources: &mut Sources, name: &str, expression: &str) -> Result<Statement, Diagnostics> {
    let id = sources.add(name.to_owned(), expression);
    let source: &Source = sources.get(id);
    let file = dockerfile::parse_source(source.clone())?;
    let [instruction] = file.instructions.as_slice() else {
        let error = source.diagnose(source.span(0, 0), "a trigger must be a single instruction");
        return Err(error.into());
    };
    Ok(dockerfile::lower(source, instruction)?)
}

fn onbuild_expressions(statements: &[Statement]) -> Vec<String> {
    statements
        .iter()
        .filter_map(|statement| match &statement.kind {
            Kind::Onbuild(onbuild) => Some(onbuild.expression.clone()),
            _ => None,
        })
        .collect()
}

/// Other languages than Docker's would need a front end that is fetched and run.
fn check_syntax(file: &dockerfile::Dockerfile) -> Result<(), Diagnostics> {
    let Some(syntax) = &file.directives.syntax else {
        return Ok(());
    };
    let name = syntax.value.split([':', '@', ' ']).next().unwrap_or_default();
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    if matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream") {
        return Ok(());
    }
    let message = format!("the syntax {} is not supported", syntax.value);
    let help = "this builder speaks docker/dockerfile itself and runs no other front end";
    Err(file.source.diagnose(syntax.span, message).help(help).into())
}

fn source_date_epoch(input: &PlanInput, outline: &Outline) -> Result<Option<i64>, Diagnostics> {
    let name = arguments::SOURCE_DATE_EPOCH;
    let given = input.build_args.get(name).map(String::as_str);
    let Some(text) = given
        .or_else(|| outline.globals.get(name))
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    match text.parse::<i64>() {
        Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
        _ => {
            let message = format!("{name}={text} is not a number of seconds since 1970");
            Err(outline.source.diagnose(outline.source.span(0, 0), message).into())
        }
    }
}

#[cfg(test)]
mod tests;
