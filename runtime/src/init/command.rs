//! The command: found in the PATH of its own environment, inside its own root.

use std::convert::Infallible;
use std::ffi::{CStr, CString};

use nix::errno::Errno;

use super::{Named, SetupError};
use crate::exit::EXECUTE_STEP;
use crate::spec::{DEFAULT_PATH, Spec};

pub(super) struct Command {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Everything that needs memory, before the process gives up its rights.
pub(super) fn prepare(spec: &Spec) -> Result<Command, SetupError> {
    let text = |text: String| {
        CString::new(text)
            .map_err(|_| Errno::EINVAL)
            .named(EXECUTE_STEP, "a NUL in a string")
    };
    let name = spec
        .args
        .first()
        .ok_or(Errno::EINVAL)
        .named(EXECUTE_STEP, "no command")?;
    let path = spec
        .env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    let candidates = if name.contains('/') || name.is_empty() {
        vec![name.clone()]
    } else {
        path.split(':').map(|directory| join(directory, name)).collect()
    };
    Ok(Command {
        candidates: candidates.into_iter().map(text).collect::<Result<_, _>>()?,
        args: spec.args.iter().cloned().map(text).collect::<Result<_, _>>()?,
        env: spec
            .env
            .iter()
            .map(|(key, value)| text(format!("{key}={value}")))
            .collect::<Result<_, _>>()?,
    })
}

/// An empty element of PATH is the working directory.
fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => format!("./{name}"),
        _ => format!("{}/{name}", directory.trim_end_matches('/')),
    }
}

impl Command {
    /// Returns only if it fails: with the first error that is not about absence, as shells do.
    pub(super) fn execute(&self) -> Result<Infallible, SetupError> {
        let mut error = Errno::ENOENT;
        for candidate in &self.candidates {
            match nix::unistd::execve(candidate, &self.args, &self.env) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::EACCES) => error = Errno::EACCES,
                Err(other) => {
                    error = other;
                    break;
                }
                Ok(never) => match never {},
            }
        }
        let name = self
            .args
            .first()
            .map(CString::as_c_str)
            .map_or("".into(), CStr::to_string_lossy);
        Err(error).named(EXECUTE_STEP, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;

    fn candidates(args: &[&str], path: &str) -> Vec<String> {
        let args = args.iter().map(ToString::to_string).collect();
        let spec = Spec::run_step(args, vec![("PATH".into(), path.into())], "/", User::root());
        let command = prepare(&spec).unwrap();
        command
            .candidates
            .iter()
            .map(|path| path.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn names_are_looked_up_and_paths_are_not() {
        assert_eq!(candidates(&["sh"], "/bin/:/x:"), ["/bin/sh", "/x/sh", "./sh"]);
        assert_eq!(candidates(&["./sh"], "/bin"), ["./sh"]);
        assert_eq!(candidates(&["/bin/sh"], "/x"), ["/bin/sh"]);
    }

    #[test]
    fn a_nul_byte_is_refused() {
        let spec = Spec::run_step(vec!["a\0b".into()], vec![], "/", User::root());
        assert!(prepare(&spec).is_err());
    }
}
