//! Network namespaces made ahead of the steps that will use them.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::sched::CloneFlags;

use super::forward::Forwarding;
use super::link::{self, Prefix, Veth};
use super::netlink::Socket;
use super::subnet::{self, Allocator};
use super::{During, NetworkError};

/// Namespaces kept in the channel; the thread holds one more, which it couldn't put there yet.
const READY: usize = 1;

/// Name of a step's network device.
const DEVICE: &str = "eth0";

/// Veth names end in a number of this many base-36 digits.
const NUMBER_DIGITS: u32 = 4;

#[derive(Clone, Debug)]
pub(super) struct PoolConfig {
    pub(super) bridge: String,
    pub(super) bridge_index: i32,
    pub(super) veth_prefix: String,
    pub(super) subnet: Prefix,
    pub(super) mtu: u32,
}

/// A namespace with its address, for one step.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) namespace: OwnedFd,
    pub(super) address: Address,
}

/// Goes back to the allocator when dropped.
#[derive(Debug)]
pub(super) struct Address {
    address: Ipv4Addr,
    allocator: Arc<Mutex<Allocator>>,
}

impl Drop for Address {
    fn drop(&mut self) {
        self.allocator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .give_back(self.address);
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    /// None only while dropping.
    ready: Option<Mutex<Receiver<Result<Place, NetworkError>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn start(config: PoolConfig) -> Result<Self, NetworkError> {
        let (sender, receiver) = sync_channel(READY);
        let mut maker = Maker::new(config)?;
        let run = move || maker.run(&sender);
        let thread = std::thread::Builder::new()
            .name("step-networks".into())
            .spawn(run)
            .during("start a thread")?;
        Ok(Self {
            ready: Some(receiver.into()),
            thread: Some(thread),
        })
    }

    pub(super) fn take(&self) -> Result<Place, NetworkError> {
        let ready = self.ready.as_ref().ok_or(NetworkError::ThreadGone)?;
        let ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.recv().map_err(|_| NetworkError::ThreadGone)?
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Without a receiver the thread's next attempt to hand over a namespace ends it.
        drop(self.ready.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed already.
            let _ = thread.join();
        }
    }
}

struct Maker {
    config: PoolConfig,
    machine: File,
    socket: Socket,
    forwarding: Forwarding,
    allocator: Arc<Mutex<Allocator>>,
    number: u32,
    warned: bool,
}

impl Maker {
    fn new(config: PoolConfig) -> Result<Self, NetworkError> {
        let machine =
            File::open("/proc/thread-self/ns/net").during("open the machine's network namespace")?;
        let socket = Socket::route().during("open a netlink socket")?;
        let forwarding = Forwarding::new(&config.bridge);
        let allocator = Arc::new(Mutex::new(Allocator::new(config.subnet)));
        Ok(Self {
            config,
            machine,
            socket,
            forwarding,
            allocator,
            number: 0,
            warned: false,
        })
    }

    fn run(&mut self, sender: &SyncSender<Result<Place, NetworkError>>) {
        while sender.send(self.make()).is_ok() {}
    }

    fn make(&mut self) -> Result<Place, NetworkError> {
        self.ensure_forwarding();
        let address = self
            .allocator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let address = address.ok_or(NetworkError::NoFreeAddress)?;
        let address = Address {
            address,
            allocator: self.allocator.clone(),
        };
        let (namespace, inside) = self.new_namespace()?;
        self.connect(&namespace, address.address)?;
        set_up_inside(inside, address.address, self.config.subnet)?;
        Ok(Place { namespace, address })
    }

    /// Without it packets may still pass, so steps start anyway.
    fn ensure_forwarding(&mut self) {
        if let Err(error) = self.forwarding.ensure()
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!(%error, "could not tell this machine's firewall to forward packets of steps");
        }
    }

    /// A namespace, and a socket that is in it. This thread is in it only meanwhile: it would keep it alive.
    fn new_namespace(&self) -> Result<(OwnedFd, Socket), NetworkError> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).during("make a network namespace")?;
        let made = File::open("/proc/thread-self/ns/net").during("open a network namespace");
        let inside = Socket::route().during("open a netlink socket");
        nix::sched::setns(&self.machine, CloneFlags::CLONE_NEWNET).during("leave a network namespace")?;
        Ok((made?.into(), inside?))
    }

    fn connect(&mut self, namespace: &OwnedFd, address: Ipv4Addr) -> Result<(), NetworkError> {
        self.number = (self.number + 1) % 36_u32.pow(NUMBER_DIGITS);
        let name = format!("{}{}", self.config.veth_prefix, base36(self.number));
        let veth = Veth {
            name: &name,
            master: self.config.bridge_index,
            peer: DEVICE,
            peer_mac: subnet::mac(address),
            mtu: self.config.mtu,
            namespace: namespace.as_fd(),
        };
        link::create_veth(&mut self.socket, &veth).during("make a veth pair")?;
        let index = link::index_of(&mut self.socket, &name).during("find a veth")?;
        link::isolate_port(&mut self.socket, index).during("isolate a bridge port")?;
        link::disable_ipv6_address(&mut self.socket, index).during("set up a veth")?;
        let bridge = self.config.bridge_index;
        link::add_neighbour(&mut self.socket, bridge, index, address, veth.peer_mac)
            .during("place a step's address")?;
        link::raise(&mut self.socket, index).during("raise a veth")
    }
}

fn set_up_inside(mut socket: Socket, address: Ipv4Addr, subnet: Prefix) -> Result<(), NetworkError> {
    let socket = &mut socket;
    link::raise(socket, link::LOOPBACK).during("raise the loopback device")?;
    let index = link::index_of(socket, DEVICE).during("find a step's device")?;
    link::disable_ipv6_address(socket, index).during("set up a step's device")?;
    link::add_address(socket, index, address, subnet.1).during("give a step its address")?;
    link::raise(socket, index).during("raise a step's device")?;
    link::add_default_route(socket, index, subnet::gateway(subnet)).during("give a step its route")
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    for _ in 0..NUMBER_DIGITS {
        digits.push(char::from_digit(number % 36, 36).unwrap_or('0'));
        number /= 36;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        assert_eq!(base36(0), "0000");
        assert_eq!(base36(36 * 36 + 35), "010z");
    }
}
