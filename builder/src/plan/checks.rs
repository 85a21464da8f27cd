//! Remarks that need values: they come up while the planner works. Those on the text alone are in
//! [`crate::dockerfile::checks`].

use oci::{ImageConfig, Platform};

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

pub(super) fn shell_form(name: &str, span: Span) -> Warning {
    let message =
        format!("{name}: the JSON form is better, since signals then reach the program and not a shell");
    warning("JSONArgsRecommended", message, span)
}

pub(super) fn undeclared_in_from(name: &str, span: Span) -> Warning {
    let message = format!("the argument {name} of FROM is not declared by an ARG before the first FROM");
    warning("UndefinedArgInFrom", message, span)
}

pub(super) fn invalid_default(image: &str, span: Span) -> Warning {
    let message = format!("FROM {image} names no image when no build arguments are given");
    warning("InvalidDefaultArgInFrom", message, span)
}

/// A base that was made for another platform than asked for.
pub(super) fn base_platform(
    reference: &str,
    wanted: &Platform,
    image: &ImageConfig,
    span: Span,
) -> Option<Warning> {
    let unknown = image.os.is_empty() || image.architecture.is_empty();
    if unknown || (image.os == wanted.os && image.architecture == wanted.architecture) {
        return None;
    }
    let message = format!(
        "the base {reference} is made for {}/{}, not for {wanted}",
        image.os, image.architecture
    );
    Some(warning("InvalidBaseImagePlatform", message, span))
}

/// `--link` is accepted, since it only says how a layer may be reused; but links in the destination are followed.
pub(super) fn link(span: Span) -> Warning {
    Warning {
        code: None,
        message: "--link is done as a plain copy: its layer is not reused on another base".to_owned(),
        span,
    }
}
