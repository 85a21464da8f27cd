//! One real PostgreSQL a test, by tests/peers/postgres.sh: it ends when its standard input closes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::paths;
use super::processes::eventually;
use super::tool::Tool;

pub(crate) struct Postgres {
    /// With `DATABASE` in place of a name.
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
            url: url.trim().to_owned(),
            commands: child.stdin.take(),
            child,
            answers,
        }
    }

    /// A server's setting, as the environment writes it.
    pub(crate) fn setting(&self) -> String {
        self.setting_of("postgres")
    }

    /// With another database than the one that is always there.
    pub(crate) fn setting_of(&self, database: &str) -> String {
        format!("LAYERYARD_DATABASE__URL={}", self.url_of(database))
    }

    /// Makes a database, empty or the copy of one that nobody uses.
    pub(crate) fn create(&self, database: &str, template: &str) {
        let sql = format!("CREATE DATABASE {database} TEMPLATE {template}");
        self.query("template1", &sql);
    }

    /// Waits until nobody is connected: what a killed server began has then come to its end.
    #[track_caller]
    pub(crate) fn await_silence(&self) {
        let others = "SELECT count(*) FROM pg_stat_activity \
                      WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        eventually("nobody is connected", || self.query("postgres", others) == "0");
    }

    /// What a statement answers, a line for each row.
    #[track_caller]
    pub(crate) fn query(&self, database: &str, sql: &str) -> String {
        let psql = Tool::debian("psql").args(["--no-psqlrc", "--tuples-only", "--no-align"]);
        psql.args(["--quiet", "--set", "ON_ERROR_STOP=1", "--command", sql])
            .arg(self.url_of(database))
            .ok()
    }

    /// Its database as a file that [`Self::restore`] reads.
    pub(crate) fn dump(&self, file: &Path) {
        let pg_dump = Tool::debian("pg_dump").arg("--file").arg(file);
        pg_dump.arg(self.url_of("postgres")).ok();
    }

    /// Reads a dump into a database that is empty.
    pub(crate) fn restore(&self, dump: &Path) {
        let psql = Tool::debian("psql").args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]);
        psql.arg("--file").arg(dump).arg(self.url_of("postgres")).ok();
    }

    fn url_of(&self, database: &str) -> String {
        self.url.replace("DATABASE", database)
    }

    /// As an administrator restarts it; returns when it is back.
    pub(crate) fn restart(&mut self) {
        self.command("restart");
    }

    /// It is away until `resume`; connections are closed.
    pub(crate) fn stop(&mut self) {
        self.command("stop");
    }

    pub(crate) fn resume(&mut self) {
        self.command("start");
    }

    fn command(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("it runs");
        writeln!(commands, "{command}").expect("tell postgres.sh");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("hear postgres.sh");
        assert_eq!(answer.trim(), "ok", "{command}");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.child.wait();
    }
}
