//! Listeners and connections. Our own accept loop, because axum's exposes no tuning.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::config::Limits;
use crate::http::{Activity, App, Caller, Outbox, Outlet};
use crate::server::ServeError;
use crate::service::access::Arrival;
use crate::tls::Tls;

/// The largest read buffer of a connection: 64 of them must fit a small server's memory.
const READ_BUFFER_BYTES: usize = 128 * 1024;
/// What an HTTP/2 client may send before it waits for us.
const H2_WINDOW_BYTES: u32 = 1024 * 1024;
/// After an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The longest path that fits a socket address.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// All listeners and the connections they have accepted.
pub(crate) struct Connections {
    shared: Arc<Shared>,
    listeners: Vec<tokio::task::JoinHandle<()>>,
    stop: watch::Sender<bool>,
    /// Closed when the last connection has ended.
    ended: mpsc::Receiver<Infallible>,
    alive: mpsc::Sender<Infallible>,
    grace: Duration,
}

struct Shared {
    app: Arc<App>,
    http: Builder<TokioExecutor>,
    slots: Arc<Semaphore>,
    handshake_max: Duration,
    quiet_max: Duration,
    answer_stalled_max: Duration,
}

/// Held by each listener and connection.
#[derive(Clone)]
struct Tie {
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
    _alive: mpsc::Sender<Infallible>,
}

impl Connections {
    pub(crate) fn new(app: Arc<App>, limits: &Limits) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_max)
            .max_buf_size(READ_BUFFER_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(H2_WINDOW_BYTES)
            .initial_connection_window_size(2 * H2_WINDOW_BYTES)
            .max_send_buf_size(READ_BUFFER_BYTES);
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        let (alive, ended) = mpsc::channel(1);
        Self {
            shared: Arc::new(Shared {
                app,
                http,
                slots,
                handshake_max: limits.header_read_max,
                quiet_max: limits.header_read_max,
                answer_stalled_max: limits.answer_stalled_max,
            }),
            listeners: Vec::new(),
            stop: watch::Sender::new(false),
            ended,
            alive,
            grace: limits.shutdown_grace,
        }
    }

    /// Listens on TCP; returns the addresses that were really taken. A loopback that this machine doesn't have is left
    /// out as long as another address works.
    pub(crate) async fn listen(
        &mut self,
        wanted: &[SocketAddr],
        tls: Option<&Arc<Tls>>,
    ) -> Result<Vec<SocketAddr>, ServeError> {
        let mut taken = Vec::new();
        let mut missing = None;
        for &address in wanted {
            let failed = |source| ServeError::Listen { address, source };
            let listener = match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(error) if address.ip().is_loopback() && is_missing(&error) => {
                    missing = Some(failed(error));
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            taken.push(listener.local_addr().map_err(failed)?);
            let tie = self.tie();
            self.listeners
                .push(tokio::spawn(accept_tcp(listener, tie, tls.cloned())));
        }
        match missing {
            Some(error) if taken.is_empty() => Err(error),
            _ => Ok(taken),
        }
    }

    pub(crate) fn listen_on_socket(&mut self, socket: &Socket) {
        let (listener, tie) = (Arc::clone(&socket.listener), self.tie());
        self.listeners.push(tokio::spawn(accept_unix(listener, tie)));
    }

    /// Accepts nothing more, lets running requests finish, and gives up on the rest after the grace.
    pub(crate) async fn stop(mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
        self.stop.send_replace(true);
        drop(self.alive);
        if tokio::time::timeout(self.grace, self.ended.recv()).await.is_err() {
            tracing::warn!("some transfers did not finish in time and are cut");
        }
    }

    fn tie(&self) -> Tie {
        Tie {
            shared: Arc::clone(&self.shared),
            stop: self.stop.subscribe(),
            _alive: self.alive.clone(),
        }
    }
}

async fn accept_tcp(listener: TcpListener, tie: Tie, tls: Option<Arc<Tls>>) {
    loop {
        // A full house leaves callers in the kernel's queue.
        let Ok(slot) = Arc::clone(&tie.shared.slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = tune(&stream, tie.shared.answer_stalled_max) {
                    tracing::debug!(%error, "a connection's options were not set");
                }
                let (tie, tls) = (tie.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve_plain(stream, tie, peer).await,
                        Some(tls) => serve_tls(&tls, stream, tie, peer).await,
                    }
                    drop(slot);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

fn tune(stream: &TcpStream, answer_stalled_max: Duration) -> io::Result<()> {
    // Answers go out in few large writes: waiting for more would only delay them.
    stream.set_nodelay(true)?;
    // The kernel knows best what the other side has taken, also of files that it sends by itself.
    let millis = u32::try_from(answer_stalled_max.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

async fn serve_plain(stream: TcpStream, tie: Tie, peer: SocketAddr) {
    let arrival = Arrival {
        address: Some(peer.ip()),
        ..Arrival::default()
    };
    let outbox = Outbox::default();
    let outlet = Outlet::new(stream, outbox.clone());
    let caller = Caller {
        arrival,
        peer: Some(peer),
        outbox: Some(outbox),
        activity: Activity::new(),
    };
    serve(outlet, tie, caller).await;
}

/// Files are not sent past the encryption, so that there is no outbox.
async fn serve_tls(tls: &Tls, stream: TcpStream, tie: Tie, peer: SocketAddr) {
    let accepting = tls.accept(stream);
    match tokio::time::timeout(tie.shared.handshake_max, accepting).await {
        Ok(Ok((stream, certificate))) => {
            let arrival = Arrival {
                tls: true,
                certificate,
                address: Some(peer.ip()),
                ..Arrival::default()
            };
            let caller = Caller {
                arrival,
                peer: Some(peer),
                outbox: None,
                activity: Activity::new(),
            };
            serve(stream, tie, caller).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn accept_unix(listener: Arc<UnixListener>, tie: Tie) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let tie = tie.clone();
                let arrival = Arrival {
                    socket: true,
                    ..Arrival::default()
                };
                let caller = Caller {
                    arrival,
                    peer: None,
                    outbox: None,
                    activity: Activity::new(),
                };
                tokio::spawn(serve(stream, tie, caller));
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection was not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve<S>(stream: S, mut tie: Tie, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = Arc::clone(&tie.shared.app);
    let open = app.connection();
    let activity = caller.activity.clone();
    let service = service_fn(move |request| {
        let (app, caller) = (Arc::clone(&app), caller.clone());
        async move { Ok::<_, Infallible>(app.call(request, caller).await) }
    });
    let shared = Arc::clone(&tie.shared);
    let mut connection = pin!(shared.http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut tie.stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.quiet_for(shared.quiet_max) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                // On HTTP/2 it takes two.
                () = activity.quiet_from_now_for(shared.quiet_max) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        // Clients hang up in all ways there are; nothing is wrong here.
        tracing::debug!(error, "connection ended");
    }
    drop(open);
}

/// Returns when the server stops, or is gone already.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The worker's unix socket, removed when it is dropped.
pub(crate) struct Socket {
    path: PathBuf,
    /// Where the data directory's own path is too long for a socket.
    own_directory: Option<PathBuf>,
    listener: Arc<UnixListener>,
}

impl Socket {
    pub(crate) fn bind(run_dir: &Path) -> Result<Self, ServeError> {
        let mut path = run_dir.join("api.sock");
        let mut own_directory = None;
        if path.as_os_str().len() > SOCKET_PATH_LEN_MAX {
            let directory = std::env::temp_dir().join(format!("layeryard-{:016x}", rand::random::<u64>()));
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(&directory)
                .map_err(|source| ServeError::Socket {
                    path: directory.clone(),
                    source,
                })?;
            path = directory.join("api.sock");
            own_directory = Some(directory);
        }
        let bind = || -> io::Result<UnixListener> {
            // The lock is ours: a socket that is there was left by a crash.
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match bind() {
            Ok(listener) => Ok(Self {
                path,
                own_directory,
                listener: Arc::new(listener),
            }),
            Err(source) => Err(ServeError::Socket { path, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next start removes what is left.
        let _ = std::fs::remove_file(&self.path);
        if let Some(directory) = &self.own_directory {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Tells where the server is: one `http://IP:PORT` (or `https://…`) a line, all of it at once.
pub(crate) fn write_addresses(run_dir: &Path, addresses: &[SocketAddr], tls: bool) -> io::Result<()> {
    let scheme = if tls { "https" } else { "http" };
    let text: String = addresses
        .iter()
        .map(|address| format!("{scheme}://{address}\n"))
        .collect();
    std::fs::write(run_dir.join("addresses.new"), text)?;
    std::fs::rename(run_dir.join("addresses.new"), run_dir.join("addresses"))
}

/// Keeps a secret for whoever may read the run directory.
pub(crate) fn write_local_token(run_dir: &Path, token: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = run_dir.join("admin.token");
    let fresh = run_dir.join("admin.token.new");
    let mut file = std::fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(token.as_bytes())?;
    std::fs::rename(fresh, path)
}

/// The machine doesn't have this address.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
