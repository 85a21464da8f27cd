//! Runs programs: the peers, and `layeryard` itself as a user calls it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::paths;

/// No single command of a test takes longer.
const SECONDS_MAX: u64 = 600;
const POLL: Duration = Duration::from_millis(5);

/// A command that says what it ran when it fails.
pub(crate) struct Tool {
    command: Command,
    seconds_max: u64,
}

/// What a command left.
pub(crate) struct Ran {
    shown: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tool {
    /// A program by its path or, for the system's own, its name.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        // What a developer's machine has configured must not decide a test.
        for name in [
            "LAYERYARD_SERVER",
            "DOCKER_CONFIG",
            "DOCKER_CONTEXT",
            "REGISTRY_AUTH_FILE",
        ] {
            command.env_remove(name);
        }
        Self {
            command,
            seconds_max: SECONDS_MAX,
        }
    }

    /// The binary under test.
    pub(crate) fn layeryard() -> Self {
        Self::new(paths::layeryard())
    }

    /// A program that tests/peers/install.sh built.
    pub(crate) fn peer(name: &str, group: &str) -> Self {
        Self::new(paths::peer(name, group))
    }

    /// A program that comes with a Debian package.
    pub(crate) fn debian(name: &str) -> Self {
        Self::new(paths::debian(name))
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// `NAME=VALUE`, several of them.
    pub(crate) fn envs<T: AsRef<str>>(mut self, settings: impl IntoIterator<Item = T>) -> Self {
        for setting in settings {
            let (name, value) = setting.as_ref().split_once('=').expect("NAME=VALUE");
            self.command.env(name, value);
        }
        self
    }

    pub(crate) fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn stdin(mut self, file: File) -> Self {
        self.command.stdin(file);
        self
    }

    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Runs to success; its standard output without the last newline.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        let ran = self.run();
        assert!(ran.code == Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    /// Runs to a failure that the program reports itself (a signal is none).
    #[track_caller]
    pub(crate) fn fails(self) -> Ran {
        let ran = self.run();
        assert!(
            ran.code.is_some_and(|code| code != 0),
            "expected a failure: {ran}"
        );
        ran
    }

    #[track_caller]
    pub(crate) fn run(mut self) -> Ran {
        let shown = format!("{:?}", self.command).replace('"', "");
        let (mut stdout, mut stderr) = (scratch(), scratch());
        self.command.stdout(clone(&stdout)).stderr(clone(&stderr));
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(self.seconds_max);
        let mut poll = Duration::from_micros(500);
        let code = loop {
            if let Some(status) = child.try_wait().expect("wait for a child") {
                break status.code();
            }
            if Instant::now() > deadline {
                child.kill().expect("kill a child");
                child.wait().expect("wait for a child");
                panic!(
                    "{shown}: no end after {} s\n{}",
                    self.seconds_max,
                    read(&mut stderr)
                );
            }
            std::thread::sleep(poll);
            poll = (poll * 2).min(POLL);
        };
        Ran {
            shown,
            code,
            stdout: read(&mut stdout),
            stderr: read(&mut stderr),
        }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.map_or("a signal".to_owned(), |code| code.to_string());
        write!(
            f,
            "{}\nended with {code}\n{}\n{}",
            self.shown, self.stdout, self.stderr
        )
    }
}

// Files and not pipes: a daemon that inherits a pipe would keep its reader waiting.
fn scratch() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn clone(file: &File) -> File {
    file.try_clone().expect("duplicate a descriptor")
}

fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .expect("read a command's output");
    String::from_utf8_lossy(&bytes).into_owned()
}
