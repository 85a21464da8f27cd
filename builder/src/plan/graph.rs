//! Which stage needs which.

use std::collections::BTreeSet;

use oci::Platform;

use crate::dockerfile::statement::{Kind, Statement};
use crate::dockerfile::{Diagnostic, Diagnostics, Span, Word};

use super::outline::{DraftBase, Origin, Outline};
use super::sources::Sources;
use super::{Facts, ImageNeed};

/// Edges between the stages of an outline. They all lead to earlier stages, so there are no cycles.
pub(super) struct Graph {
    stages: Vec<BTreeSet<usize>>,
    /// Images that a stage copies from.
    images: Vec<Vec<(String, Span)>>,
}

impl Graph {
    pub(super) fn build(
        outline: &Outline,
        triggers: &[Vec<Statement>],
        sources: &Sources,
    ) -> Result<Self, Diagnostics> {
        let mut graph = Self {
            stages: Vec::new(),
            images: Vec::new(),
        };
        let mut errors: Vec<Diagnostic> = Vec::new();
        for (index, draft) in outline.stages.iter().enumerate() {
            let mut edges = BTreeSet::new();
            let mut images = Vec::new();
            if let DraftBase::Stage(parent) = draft.base {
                edges.insert(parent);
            }
            for from in triggers[index]
                .iter()
                .chain(&draft.statements)
                .filter_map(from_of)
            {
                match outline.origin(index, from, sources.get(from.span.source)) {
                    Ok(Origin::Stage(stage)) => {
                        edges.insert(stage);
                    }
                    Ok(Origin::Image(name)) => images.push((name, from.span)),
                    Err(error) => errors.push(error),
                }
            }
            graph.stages.push(edges);
            graph.images.push(images);
        }
        Diagnostics::check(errors)?;
        Ok(graph)
    }

    /// The stages that a target needs, itself last.
    pub(super) fn reachable(&self, target: usize) -> Vec<usize> {
        let mut found = BTreeSet::from([target]);
        let mut open = vec![target];
        while let Some(stage) = open.pop() {
            for &dependency in &self.stages[stage] {
                if found.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        found.into_iter().collect()
    }

    /// The images of these stages that are not known yet.
    pub(super) fn needs(
        &self,
        outline: &Outline,
        reachable: &[usize],
        platform: &Platform,
        facts: &Facts,
    ) -> Vec<ImageNeed> {
        let mut needs: Vec<ImageNeed> = Vec::new();
        let mut need = |reference: &str, platform: &Platform, span| {
            let known = facts.contains_key(&(reference.to_owned(), platform.clone()))
                || needs
                    .iter()
                    .any(|need| need.reference == reference && need.platform == *platform);
            if !known {
                needs.push(ImageNeed {
                    reference: reference.to_owned(),
                    platform: platform.clone(),
                    span,
                    hint: outline.similar_stage(reference),
                });
            }
        };
        for &index in reachable {
            let draft = &outline.stages[index];
            if let DraftBase::Image(reference) = &draft.base {
                need(reference, &draft.platform, draft.span);
            }
            for (reference, span) in &self.images[index] {
                need(reference, platform, *span);
            }
        }
        needs
    }
}

/// The `--from` of a statement.
fn from_of(statement: &Statement) -> Option<&Word> {
    match &statement.kind {
        Kind::Copy(copy) => copy.from.as_ref(),
        _ => None,
    }
}
