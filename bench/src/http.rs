//! A small HTTP/1.1 client on a blocking socket: costs next to nothing, so that a push measures the server.
//!
//! No redirects, no TLS, no compression. One connection, one request at a time, kept alive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Longest silence of a server before its request counts as failed.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A body up to this size travels in the same write as its header.
const JOINED_BODY_BYTES_MAX: usize = 64 << 10;

/// What is thrown away at once.
const DISCARDED_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    authorization: Option<&'static str>,
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
    close: bool,
}

/// What stands before a body.
#[derive(Debug, Default)]
struct Head {
    status: u16,
    location: Option<String>,
    length: u64,
    chunked: bool,
    close: bool,
}

impl Response {
    /// The response if it has this status, else an error that shows what the server said.
    pub(crate) fn expect(self, status: u16, what: &str) -> Result<Self> {
        let shown = || String::from_utf8_lossy(&self.body[..self.body.len().min(500)]).into_owned();
        ensure!(
            self.status == status,
            "{what}: status {} instead of {status}: {}",
            self.status,
            shown()
        );
        Ok(self)
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self {
            address,
            authorization: None,
            stream: BufReader::new(stream),
        })
    }

    /// Every request says this from now on.
    pub(crate) fn with_authorization(mut self, authorization: Option<&'static str>) -> Self {
        self.authorization = authorization;
        self
    }

    /// Sends a request whose body comes in parts, and reads the whole response.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> Result<Response> {
        let mut exchange = || {
            self.send(method, path, headers, body)?;
            self.read_response()
        };
        let response = exchange().with_context(|| format!("{method} {path}"))?;
        if response.close {
            *self = Self::open(self.address)?.with_authorization(self.authorization);
        }
        Ok(response)
    }

    /// GETs what has this length and throws it away as it comes.
    pub(crate) fn drain(&mut self, path: &str, size_bytes: u64) -> Result<()> {
        let mut exchange = || {
            self.send("GET", path, &[], &[])?;
            let head = self.read_head()?;
            ensure!(head.status == 200, "status {} instead of 200", head.status);
            ensure!(
                head.length == size_bytes,
                "{} bytes instead of {size_bytes}",
                head.length
            );
            self.discard(size_bytes)
        };
        exchange().with_context(|| format!("GET {path}"))
    }

    fn discard(&mut self, size_bytes: u64) -> Result<()> {
        let mut buffer = vec![0; DISCARDED_BYTES];
        let mut rest = size_bytes;
        while rest > 0 {
            let room = buffer.len().min(usize::try_from(rest)?);
            let read = self.stream.read(&mut buffer[..room])?;
            ensure!(read > 0, "{rest} of {size_bytes} bytes are missing");
            rest -= read as u64;
        }
        Ok(())
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[&[u8]]) -> Result<()> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address).into_bytes();
        if method != "GET" {
            write!(head, "Content-Length: {length}\r\n")?;
        }
        if let Some(authorization) = self.authorization {
            write!(head, "Authorization: {authorization}\r\n")?;
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n")?;
        }
        head.extend_from_slice(b"\r\n");
        let stream = self.stream.get_mut();
        if length <= JOINED_BODY_BYTES_MAX {
            body.iter().for_each(|part| head.extend_from_slice(part));
            stream.write_all(&head)?;
        } else {
            stream.write_all(&head)?;
            for part in body {
                stream.write_all(part)?;
            }
        }
        Ok(())
    }

    fn read_response(&mut self) -> Result<Response> {
        let head = self.read_head()?;
        let mut response = Response {
            status: head.status,
            location: head.location,
            body: Vec::new(),
            close: head.close,
        };
        if head.chunked {
            self.read_chunks(&mut response.body)?;
        } else {
            response.body.resize(usize::try_from(head.length)?, 0);
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// The first answer that isn't interim.
    fn read_head(&mut self) -> Result<Head> {
        loop {
            let head = self.read_any_head()?;
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    fn read_any_head(&mut self) -> Result<Head> {
        let mut line = String::new();
        self.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.with_context(|| format!("no status in {line:?}"))?;
        let mut head = Head {
            status,
            ..Head::default()
        };
        loop {
            self.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().context("bad Content-Length")?,
                "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
                "location" => head.location = Some(value.to_owned()),
                "connection" => head.close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(head)
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        let mut line = String::new();
        loop {
            self.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).context("bad chunk size")?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.read_line(&mut line)?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn read_line(&mut self, line: &mut String) -> Result<()> {
        line.clear();
        if self.stream.read_line(line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// The path of a Location header with one more query parameter.
pub(crate) fn location_with(location: &str, parameter: &str) -> String {
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => location,
    };
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{parameter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_keeps_its_query_and_loses_its_host() {
        assert_eq!(
            location_with("http://h:1/v2/a/u?_state=x", "digest=d"),
            "/v2/a/u?_state=x&digest=d"
        );
        assert_eq!(location_with("/v2/a/u", "digest=d"), "/v2/a/u?digest=d");
    }
}
