//! The texts a plan comes from: the Dockerfile, and the ONBUILD triggers of its bases.

use crate::dockerfile::{Diagnostic, Source, Span};

/// Sources by [`Span::source`].
#[derive(Debug)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    pub(super) fn new(dockerfile: Source) -> Self {
        Self(vec![dockerfile])
    }

    /// Adds a trigger's text and returns its number.
    pub(super) fn add(&mut self, name: String, text: &str) -> usize {
        let id = self.0.len();
        self.0.push(Source::new(id, name, text));
        id
    }

    /// An unknown number is the Dockerfile's.
    pub(super) fn get(&self, id: usize) -> &Source {
        self.0.get(id).unwrap_or(&self.0[0])
    }

    pub(super) fn diagnose(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.get(span.source).diagnose(span, message)
    }
}
