//! Netlink by hand: messages, attributes, acknowledged requests, dumps and transactions.
//!
//! The three protocols used here (links and addresses, bridge ports, nf_tables) share this framing. It is the
//! kernel's stable binary interface, a few dozen messages of which we need: too little for a dependency.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const APPEND: u16 = 0x800;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// Larger than any datagram the kernel makes for a dump.
const RECEIVE_BYTES: usize = 64 << 10;

/// A message being built: header, fixed part, attributes.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }.aligned()
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (ATTRIBUTE_HEADER_BYTES + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.aligned()
    }

    /// A string with its NUL.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// A number in network order, as nf_tables wants them.
    pub(crate) fn big_endian(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        let mut message = fill(self);
        let length = (message.bytes.len() - start) as u16;
        message.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    /// Bytes without a header of their own, such as the link header inside a veth's peer attribute.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.aligned()
    }

    fn aligned(mut self) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]])
    }

    fn finish(mut self, sequence: u32, more_flags: u16) -> Vec<u8> {
        let (length, flags) = (self.bytes.len() as u32, self.flags() | more_flags);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A conversation with the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(crate) fn route() -> io::Result<Self> {
        // The kernel's number for it is 0, which no protocol constant can hold.
        Self::open(None)
    }

    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, protocol)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends one message and returns when the kernel has done it.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        self.transaction(vec![message], |_| true)
    }

    /// Sends messages as one datagram; `acknowledged` tells which of them the kernel answers.
    pub(crate) fn transaction(
        &mut self,
        messages: Vec<Message>,
        acknowledged: impl Fn(usize) -> bool,
    ) -> io::Result<()> {
        let mut datagram = Vec::new();
        let first = self.sequence + 1;
        let mut waiting = 0;
        for (index, message) in messages.into_iter().enumerate() {
            self.sequence += 1;
            let wanted = acknowledged(index);
            waiting += usize::from(wanted);
            datagram.extend(message.finish(self.sequence, if wanted { REQUEST | ACK } else { REQUEST }));
        }
        self.send(&datagram)?;
        while waiting > 0 {
            for (header, body) in self.receive()? {
                if header.sequence < first || header.kind != TYPE_ERROR {
                    continue;
                }
                waiting -= 1;
                let code = body
                    .first_chunk()
                    .map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
                // A failed message ends a transaction: acknowledgements of the rest may not come.
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
            }
        }
        Ok(())
    }

    /// All answers to a request for a list: message type and body.
    pub(crate) fn dump(&mut self, message: Message) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(&message.finish(sequence, REQUEST | DUMP))?;
        let mut all = Vec::new();
        loop {
            for (header, body) in self.receive()? {
                match header.kind {
                    _ if header.sequence != sequence => {}
                    TYPE_DONE => return Ok(all),
                    TYPE_ERROR => {
                        let code = body
                            .first_chunk()
                            .map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    kind => all.push((kind, body)),
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        // Without an address it goes to the kernel.
        rustix::net::send(&self.fd, datagram, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<(Header, Vec<u8>)>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (length, _) = loop {
            match rustix::net::recv(self.fd.as_fd(), &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        Ok(split(&buffer[..length]))
    }
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u16,
    sequence: u32,
}

fn split(mut datagram: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut messages = Vec::new();
    while let Some(header) = datagram.first_chunk::<HEADER_BYTES>() {
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(0) as usize;
        let Some(body) = datagram.get(HEADER_BYTES..length) else {
            break;
        };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        messages.push((
            Header {
                kind,
                sequence: word(8),
            },
            body.to_vec(),
        ));
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// Type and value of each attribute of a message's body after its fixed part.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(header) = bytes.first_chunk::<ATTRIBUTE_HEADER_BYTES>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !NESTED;
        let Some(value) = bytes.get(ATTRIBUTE_HEADER_BYTES..length) else {
            break;
        };
        found.push((kind, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_padded() {
        let message = Message::new(7, CREATE, &[1, 2, 3, 4])
            .text(1, "ab")
            .nested(2, |nest| nest.attribute(3, &[9]).big_endian(4, 1));
        let bytes = message.finish(5, REQUEST);
        assert_eq!(bytes.len(), 16 + 4 + 8 + (4 + 8 + 8));
        let (header, body) = split(&bytes).remove(0);
        assert_eq!((header.kind, header.sequence), (7, 5));
        let outer = attributes(&body[4..]);
        assert_eq!(outer[0], (1, &b"ab\0"[..]));
        assert_eq!(attributes(outer[1].1), [(3, &[9][..]), (4, &[0, 0, 0, 1][..])]);
    }

    #[test]
    fn damaged_lengths_end_the_reading() {
        assert!(attributes(&[200, 0, 1, 0, 5]).is_empty());
        assert!(
            attributes(&[0, 0, 1, 0]).is_empty(),
            "a length below its own header"
        );
        assert!(split(&[255; 20]).is_empty());
    }

    #[test]
    fn the_kernel_refuses_by_errno() {
        let nothing = Message::new(17 /* RTM_DELLINK */, 0, &[0; 16]).text(3, "no-such-link");
        let error = Socket::route().unwrap().request(nothing).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
