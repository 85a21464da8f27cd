//! How a step ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of the set-up step that executes the command; its errors have exit codes of their own.
pub(crate) const EXECUTE_STEP: &str = "execute the command";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Exited(i32),
    Signaled(i32),
    /// Killed because the step's own memory limit was reached.
    OutOfMemory,
    /// The command never ran.
    Setup {
        step: String,
        errno: i32,
        detail: String,
    },
}

impl Exit {
    /// The shell's and Docker's numbers: the command's own, 125 set-up, 126 can't be executed, 127 not found,
    /// 128 + signal.
    pub fn code(&self) -> i32 {
        match self {
            Self::Exited(code) => *code,
            Self::Signaled(signal) => 128 + signal,
            Self::OutOfMemory => 128 + libc::SIGKILL,
            Self::Setup { step, errno, .. } if step == EXECUTE_STEP => {
                if *errno == libc::ENOENT {
                    127
                } else {
                    126
                }
            }
            Self::Setup { .. } => 125,
        }
    }

    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signaled(signal) => write!(f, "killed by signal {signal}"),
            Self::OutOfMemory => write!(f, "killed: out of memory"),
            Self::Setup { step, errno, detail } => {
                let reason = std::io::Error::from_raw_os_error(*errno);
                write!(f, "could not {step}: {detail}: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(step: &str, errno: i32) -> Exit {
        Exit::Setup {
            step: step.into(),
            errno,
            detail: "sh".into(),
        }
    }

    #[test]
    fn codes_follow_docker() {
        assert_eq!(Exit::Exited(3).code(), 3);
        assert_eq!(Exit::Signaled(15).code(), 143);
        assert_eq!(Exit::OutOfMemory.code(), 137);
        assert_eq!(setup(EXECUTE_STEP, libc::ENOENT).code(), 127);
        assert_eq!(setup(EXECUTE_STEP, libc::EACCES).code(), 126);
        assert_eq!(setup("mount /proc", libc::ENOENT).code(), 125);
    }
}
