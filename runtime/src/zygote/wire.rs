//! What worker and zygote say to each other, and how: one packet a message, descriptors beside it.
//!
//! | On | From | Packet | Descriptors |
//! |---|---|---|---|
//! | zygote's socket | zygote, once | [`Greeting`] | |
//! | zygote's socket | worker, per step | empty | memory file with a [`Request`], then what it lists |
//! | step's socket | zygote | [`Reply::Started`], then [`Reply::Ended`] | pidfd with the first |
//!
//! Either end of a step's socket closing means that the other side has gone.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::{Exit, Spec};

/// Most descriptors one packet carries; the kernel's own limit (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 253;

/// Longest packet; a reply holds at most one error text.
const PACKET_BYTES_MAX: usize = 16 << 10;

/// Asks for a step. The descriptors follow in the order of the fields.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) spec: Spec,
    /// Directory of a cgroup v2 to clone into.
    pub(crate) cgroup_v2: bool,
    /// `cgroup.procs` files of v1 hierarchies, for the child to write itself into.
    pub(crate) cgroup_v1: usize,
    /// Network namespace to enter; otherwise a new, empty one.
    pub(crate) network: bool,
    /// Detached mounts, one for each bind of `spec.mounts`.
    pub(crate) binds: usize,
    /// Whether /sys/fs/cgroup of this machine is a cgroup v2, which the step then sees read-only.
    pub(crate) show_cgroup_v2: bool,
}

/// The request's descriptors.
pub(crate) struct Attachments<Fd> {
    pub(crate) control: Fd,
    pub(crate) rootfs: Fd,
    pub(crate) stdout: Fd,
    pub(crate) stderr: Fd,
    pub(crate) cgroup_v2: Option<Fd>,
    pub(crate) cgroup_v1: Vec<Fd>,
    pub(crate) network: Option<Fd>,
    pub(crate) binds: Vec<Fd>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Greeting {
    Ready,
    Failed { message: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Started { pid: i32 },
    NotStarted { message: String },
    Ended(Exit),
}

pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

pub(crate) fn send_request(
    socket: BorrowedFd<'_>,
    request: &[u8],
    attachments: &Attachments<BorrowedFd<'_>>,
) -> io::Result<()> {
    let memory = rustix::fs::memfd_create("layeryard-request", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(request)?;
    let a = attachments;
    let mut fds = vec![file.as_fd(), a.control, a.rootfs, a.stdout, a.stderr];
    fds.extend(a.cgroup_v2);
    fds.extend(&a.cgroup_v1);
    fds.extend(a.network);
    fds.extend(&a.binds);
    send(socket, b".", &fds)
}

/// None: the worker has gone.
pub(crate) fn receive_request(socket: BorrowedFd<'_>) -> io::Result<Option<(Request, Attachments<OwnedFd>)>> {
    let Some((_, fds)) = receive(socket)? else {
        return Ok(None);
    };
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "a request lacks descriptors");
    let mut fds = fds.into_iter();
    let mut file = File::from(fds.next().ok_or_else(missing)?);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let request: Request = serde_json::from_slice(&bytes)?;
    let mut one = || fds.next().ok_or_else(missing);
    let attachments = Attachments {
        control: one()?,
        rootfs: one()?,
        stdout: one()?,
        stderr: one()?,
        cgroup_v2: request.cgroup_v2.then(&mut one).transpose()?,
        cgroup_v1: (0..request.cgroup_v1).map(|_| one()).collect::<io::Result<_>>()?,
        network: request.network.then(&mut one).transpose()?,
        binds: (0..request.binds).map(|_| one()).collect::<io::Result<_>>()?,
    };
    Ok(Some((request, attachments)))
}

pub(crate) fn send_message<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send(socket, &serde_json::to_vec(message)?, fds)
}

/// None: the other side has gone.
pub(crate) fn receive_message<T: for<'a> Deserialize<'a>>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((bytes, fds)) = receive(socket)? else {
        return Ok(None);
    };
    Ok(Some((serde_json::from_slice(&bytes)?, fds)))
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && (fds.len() > DESCRIPTORS_MAX || !control.push(SendAncillaryMessage::ScmRights(fds)))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more mounts than one message carries",
        ));
    }
    retry(|| rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let message = retry(|| {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let message = match message {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let mut fds = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            fds.extend(rights);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut"));
    }
    bytes.truncate(message.bytes);
    Ok((message.bytes > 0).then_some((bytes, fds)))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}
