//! Who a bridge belongs to: an abstract socket name, which the kernel frees when the process that holds it ends,
//! however it ends. Such names belong to a network namespace, as bridges do.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{During, NetworkError};

/// How long a process that was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_millis(10);

/// Kept as long as the bridge is used. Bridges that replace one another in this process share it.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    _socket: Arc<OwnedFd>,
}

impl Claim {
    /// Claims the bridge for this process, whose threads may have claimed it before.
    pub(super) fn take(bridge: &str) -> Result<Self, NetworkError> {
        static OURS: OnceLock<Mutex<HashMap<String, Weak<OwnedFd>>>> = OnceLock::new();
        let mut ours = OURS
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = ours.get(bridge).and_then(Weak::upgrade) {
            return Ok(Self { _socket: socket });
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::try_take(bridge).during("claim the bridge")? {
                Some(claim) => {
                    ours.insert(bridge.to_owned(), Arc::downgrade(&claim._socket));
                    return Ok(claim);
                }
                None if Instant::now() > deadline => return Err(NetworkError::Claimed),
                None => std::thread::sleep(INTERVAL),
            }
        }
    }

    /// None: a process that lives has it.
    pub(super) fn try_take(bridge: &str) -> io::Result<Option<Self>> {
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        let name = SocketAddrUnix::new_abstract_name(format!("layeryard/{bridge}").as_bytes())?;
        match rustix::net::bind(&socket, &name) {
            Err(rustix::io::Errno::ADDRINUSE) => Ok(None),
            result => {
                result?;
                Ok(Some(Self {
                    _socket: Arc::new(socket),
                }))
            }
        }
    }
}
