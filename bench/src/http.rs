//! A small HTTP/1.1 client on a blocking socket: costs next to nothing, so that a push measures the server.
//!
//! No redirects, no TLS, no compression. One connection, one request at a time, kept alive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Longest silence of a server before its request counts as failed.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A body up to this size travels in the same write as its header.
const JOINED_BODY_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
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
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request whose body comes in parts, and reads the whole response.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> Result<Response> {
        let response = self
            .exchange(method, path, headers, body)
            .with_context(|| format!("{method} {path}"))?;
        if response.close {
            *self = Self::open(self.address)?;
        }
        Ok(response)
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> Result<Response> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address).into_bytes();
        if method != "GET" {
            write!(head, "Content-Length: {length}\r\n")?;
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
        loop {
            let response = self.read_response()?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    fn read_response(&mut self) -> Result<Response> {
        let mut line = String::new();
        self.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.with_context(|| format!("no status in {line:?}"))?;
        let mut response = Response {
            status,
            location: None,
            body: Vec::new(),
            close: false,
        };
        let (mut length, mut chunked) = (0, false);
        loop {
            self.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().context("bad Content-Length")?,
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                "location" => response.location = Some(value.to_owned()),
                "connection" => response.close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        if chunked {
            self.read_chunks(&mut response.body)?;
        } else {
            response.body.resize(length, 0);
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
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
