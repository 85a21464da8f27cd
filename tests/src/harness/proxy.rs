//! A TCP proxy that spoils what it carries: cuts a long answer, or changes a byte of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[derive(Clone, Copy)]
enum Fault {
    /// Cuts the connection, once, after this many bytes of an answer.
    CutOnce(usize),
    /// Flips a bit of the byte at this position, in every connection that carries so much.
    Corrupt(usize),
}

pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cuts: AtomicUsize,
    bytes: AtomicUsize,
}

impl Proxy {
    pub(crate) fn cutting(target: SocketAddr, after_bytes: usize) -> Self {
        Self::start(target, Fault::CutOnce(after_bytes))
    }

    pub(crate) fn corrupting(target: SocketAddr, at_byte: usize) -> Self {
        Self::start(target, Fault::Corrupt(at_byte))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// All bytes of all answers.
    pub(crate) fn bytes(&self) -> usize {
        self.state.bytes.load(Ordering::SeqCst)
    }

    fn start(target: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port's number");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                let (Ok(client_in), Ok(server_in)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                let state = Arc::clone(&shared);
                thread::spawn(move || carry(server_in, client, fault, &state));
                thread::spawn(move || {
                    let mut streams = (client_in, server);
                    // Either side may go at any time.
                    let _ = std::io::copy(&mut streams.0, &mut streams.1);
                    let _ = streams.1.shutdown(Shutdown::Write);
                });
            }
        });
        Self { address, state }
    }
}

/// Carries answers, counting from the connection's start.
fn carry(mut from: TcpStream, mut to: TcpStream, fault: Fault, state: &State) {
    let mut buffer = vec![0; 32 * 1024];
    let mut carried = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        match fault {
            Fault::CutOnce(after)
                if carried + length > after && state.cuts.fetch_add(1, Ordering::SeqCst) == 0 =>
            {
                break;
            }
            Fault::Corrupt(at) if (carried..carried + length).contains(&at) => buffer[at - carried] ^= 1,
            _ => {}
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        carried += length;
        state.bytes.fetch_add(length, Ordering::SeqCst);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
