//! One real PostgreSQL a test, by tests/peers/postgres.sh: it ends when its standard input closes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::paths;

pub(crate) struct Postgres {
    url: String,
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(paths::root().join("tests/peers/postgres.sh"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start postgres.sh");
        let mut answers = BufReader::new(child.stdout.take().expect("its output"));
        let mut url = String::new();
        answers.read_line(&mut url).expect("read its URL");
        assert!(
            url.starts_with("postgres://"),
            "no PostgreSQL: run tests/peers/install.sh postgres"
        );
        Self {
            url: url.trim().replace("DATABASE", "postgres"),
            commands: child.stdin.take(),
            child,
            answers,
        }
    }

    /// A server's setting, as the environment writes it.
    pub(crate) fn setting(&self) -> String {
        format!("LAYERYARD_DATABASE__URL={}", self.url)
    }

    /// As an administrator restarts it; returns when it is back.
    pub(crate) fn restart(&mut self) {
        let commands = self.commands.as_mut().expect("it runs");
        writeln!(commands, "restart").expect("tell postgres.sh");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("hear postgres.sh");
        assert_eq!(answer.trim(), "ok");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.child.wait();
    }
}
