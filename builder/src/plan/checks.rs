//! Remarks that need values: they come up while stages are folded. Those on the text alone are in
//! [`crate::dockerfile::checks`].

use crate::dockerfile::Span;

use super::Warning;

fn warning(code: &'static str, message: String, span: Span) -> Warning {
    Warning {
        code: Some(code),
        message,
        span,
    }
}

pub(super) fn undefined_variable(name: &str, meant: Option<&str>, span: Span) -> Warning {
    let meant = meant.map_or_else(String::new, |meant| format!(" (did you mean ${meant}?)"));
    warning(
        "UndefinedVar",
        format!("the variable ${name} is not defined{meant}"),
        span,
    )
}

pub(super) fn relative_workdir(path: &str, span: Span) -> Warning {
    let message =
        format!("WORKDIR {path} is relative to whatever the base image says; begin with an absolute one");
    warning("WorkdirRelativePath", message, span)
}

/// Remarks on a port that EXPOSE accepts.
pub(super) fn exposed(text: &str, span: Span) -> Option<Warning> {
    if text.contains(':') {
        let message = format!("EXPOSE {text}: addresses and host ports mean nothing here");
        return Some(warning("ExposeInvalidFormat", message, span));
    }
    text.bytes().any(|b| b.is_ascii_uppercase()).then(|| {
        let message = format!("EXPOSE {text}: write the protocol in lower case");
        warning("ExposeProtoCasing", message, span)
    })
}
