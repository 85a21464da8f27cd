//! A real HTTP server that takes what is sent to it, and refuses when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const WAIT_SECONDS_MAX: u64 = 30;

pub(super) struct Sink {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    refusals: usize,
    received: Vec<Received>,
}

#[derive(Clone)]
pub(super) struct Received {
    pub(super) headers: Vec<String>,
    pub(super) body: Vec<u8>,
    pub(super) refused: bool,
}

impl Sink {
    /// Answers the first `refusals` requests with 503.
    pub(super) fn start(refusals: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State {
            refusals,
            received: Vec::new(),
        }));
        let theirs = Arc::clone(&state);
        // Ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&theirs);
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Self { address, state }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Waits for what was taken, `count` of them at least.
    #[track_caller]
    pub(super) fn taken(&self, count: usize) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_secs(WAIT_SECONDS_MAX);
        loop {
            let all = self.all();
            let taken: Vec<Received> = all.into_iter().filter(|one| !one.refused).collect();
            if taken.len() >= count {
                return taken;
            }
            assert!(Instant::now() < deadline, "{} of {count} came", taken.len());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn all(&self) -> Vec<Received> {
        self.state
            .lock()
            .expect("no test panicked with it")
            .received
            .clone()
    }
}

impl Received {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            headers.push(line.to_owned());
        }
        let mut received = Received {
            headers,
            body: Vec::new(),
            refused: false,
        };
        let length = received
            .header("content-length")
            .and_then(|text| text.parse().ok());
        received.body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut received.body)?;
        let status = {
            let mut state = state.lock().expect("no test panicked with it");
            received.refused = state.refusals > 0;
            state.refusals = state.refusals.saturating_sub(1);
            let status = if received.refused { "503 Busy" } else { "200 OK" };
            state.received.push(received);
            status
        };
        write!(writer, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
    }
}
