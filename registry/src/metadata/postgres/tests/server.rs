//! One real server a test process, one database a test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use sqlx::{Connection, PgConnection};

/// A server that ends when this is dropped or the process is gone, because its standard input closes then.
pub(crate) struct TestServer {
    url: String,
    databases: AtomicU32,
    control: Mutex<Control>,
}

struct Control {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

static SHARED: LazyLock<TestServer> = LazyLock::new(TestServer::start);

impl TestServer {
    /// The one that most tests use, each with a database of its own.
    pub(crate) fn shared() -> &'static Self {
        &SHARED
    }

    /// One that a test may stop.
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/postgres.sh");
        let mut child = Command::new(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut url = String::new();
        answers.read_line(&mut url).unwrap();
        assert!(
            url.starts_with("postgres://"),
            "no server: run tests/peers/install.sh postgres"
        );
        let control = Control {
            commands: child.stdin.take(),
            child,
            answers,
        };
        Self {
            url: url.trim().to_owned(),
            databases: AtomicU32::new(0),
            control: Mutex::new(control),
        }
    }

    /// Makes an empty database; returns its URL.
    pub(crate) async fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url_of("postgres")).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        self.url_of(&name)
    }

    /// `restart`, `crash`, `stop` or `start`; returns when it is done.
    pub(crate) fn order(&self, command: &str) {
        let mut control = self.control.lock();
        writeln!(control.commands.as_mut().unwrap(), "{command}").unwrap();
        let mut answer = String::new();
        control.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim(), "ok", "{command}");
    }

    fn url_of(&self, database: &str) -> String {
        self.url.replace("DATABASE", database)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let control = self.control.get_mut();
        control.commands = None;
        let _ = control.child.wait();
    }
}
