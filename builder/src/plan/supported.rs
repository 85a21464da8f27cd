//! What the executor can't do yet: refused with place and name before any step runs.

use crate::dockerfile::Diagnostic;
use crate::dockerfile::statement::Statement;

use super::mount::MountKind;
use super::sources::Sources;
use super::{Copy, Network, Operation, Remote, Run, Security};

/// The error for an operation that can't be executed; `None` if it can.
pub(super) fn refuse(statement: &Statement, operation: &Operation, sources: &Sources) -> Option<Diagnostic> {
    let construct = match operation {
        Operation::Run(run) => run_construct(run),
        Operation::Copy(copy) => copy_construct(&statement.instruction.title(), copy),
        Operation::Mkdir(_) | Operation::Config => None,
    };
    if let Some(construct) = construct {
        return Some(sources.diagnose(
            place(statement, &construct),
            format!("{construct} is not supported yet"),
        ));
    }
    match operation {
        Operation::Run(Run {
            network: Network::Host,
            ..
        }) => Some(
            sources
                .diagnose(
                    place(statement, "RUN --network"),
                    "RUN --network=host is not allowed: it would open this host's network to the build",
                )
                .help("leave it out: the default network reaches the outside"),
        ),
        _ => None,
    }
}

fn run_construct(run: &Run) -> Option<String> {
    if let Some(mount) = run.mounts.first() {
        let kind = match &mount.kind {
            MountKind::Bind { .. } => "bind",
            MountKind::Cache { .. } => "cache",
            MountKind::Tmpfs { .. } => "tmpfs",
            MountKind::Secret { .. } => "secret",
            MountKind::Ssh { .. } => "ssh",
        };
        return Some(format!("RUN --mount=type={kind}"));
    }
    if run.security == Security::Insecure {
        return Some("RUN --security=insecure".to_owned());
    }
    (!run.devices.is_empty()).then(|| "RUN --device".to_owned())
}

fn copy_construct(name: &str, copy: &Copy) -> Option<String> {
    match copy.remote.first() {
        Some(Remote::Http { .. }) => return Some("ADD of a URL".to_owned()),
        Some(Remote::Git { .. }) => return Some("ADD of a git repository".to_owned()),
        None => {}
    }
    if copy.parents {
        return Some(format!("{name} --parents"));
    }
    (!copy.exclude.is_empty()).then(|| format!("{name} --exclude"))
}

/// The flag that a construct names, or the whole statement.
fn place(statement: &Statement, construct: &str) -> crate::dockerfile::Span {
    let flag = statement
        .instruction
        .flags
        .iter()
        .find(|flag| construct.contains(&format!("--{}", flag.name)));
    flag.map_or(statement.instruction.span, |flag| flag.span)
}
