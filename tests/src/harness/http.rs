//! A small HTTP/1.1 client that sends exactly what a test says: malformed headers, chunked bodies, half a body and
//! then nothing. One connection a request. A real client library would repair what these tests want broken.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// No answer of a server under test takes longer.
const ANSWER_SECONDS_MAX: u64 = 120;

pub(crate) struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    None,
    Sized(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
    /// One chunk again and again, never in memory as a whole.
    Repeated {
        chunk: Vec<u8>,
        times: usize,
    },
    /// Announces more than it sends, then cuts the connection.
    Cut {
        announced: usize,
        sent: Vec<u8>,
    },
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// `target` is a path with query, or an absolute URL of the same server (a `Location` may be either).
    pub(crate) fn new(method: &str, address: SocketAddr, target: &str) -> Self {
        let target = target
            .strip_prefix(&format!("http://{address}"))
            .unwrap_or(target);
        Self {
            address,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Sized(body.into());
        self
    }

    pub(crate) fn chunked(mut self, chunks: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.body = Body::Chunked(chunks.into_iter().collect());
        self
    }

    pub(crate) fn repeated(mut self, chunk: impl Into<Vec<u8>>, times: usize) -> Self {
        self.body = Body::Repeated {
            chunk: chunk.into(),
            times,
        };
        self
    }

    pub(crate) fn cut_after(mut self, sent: impl Into<Vec<u8>>, announced: usize) -> Self {
        self.body = Body::Cut {
            announced,
            sent: sent.into(),
        };
        self
    }

    #[track_caller]
    pub(crate) fn send(self) -> Response {
        let shown = format!("{} {}", self.method, self.target);
        match self.try_send() {
            Ok(response) => response,
            Err(error) => panic!("{shown}: {error:#}"),
        }
    }

    /// For a server that may be killed meanwhile.
    pub(crate) fn try_send(self) -> Result<Response> {
        let mut stream = TcpStream::connect(self.address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(ANSWER_SECONDS_MAX)))?;
        stream.set_write_timeout(Some(Duration::from_secs(ANSWER_SECONDS_MAX)))?;
        // A server may refuse before it has read the body, so a failed write is no failed request yet.
        let written = self.write(&mut stream);
        let answer = Response::read(&self.method, &mut BufReader::new(stream));
        match (written, answer) {
            (_, Ok(response)) => Ok(response),
            (Err(error), Err(_)) => Err(error.context("sending")),
            (Ok(()), Err(error)) => Err(error),
        }
    }

    fn write(&self, stream: &mut TcpStream) -> Result<()> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nConnection: close\r\n",
            self.method, self.target
        );
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match &self.body {
            Body::None if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") => {
                head += "Content-Length: 0\r\n";
            }
            Body::None => {}
            Body::Sized(body) => head += &format!("Content-Length: {}\r\n", body.len()),
            Body::Chunked(_) | Body::Repeated { .. } => head += "Transfer-Encoding: chunked\r\n",
            Body::Cut { announced, .. } => head += &format!("Content-Length: {announced}\r\n"),
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        match &self.body {
            Body::None => {}
            Body::Sized(body) => stream.write_all(body)?,
            Body::Chunked(chunks) => write_chunks(stream, chunks.iter())?,
            Body::Repeated { chunk, times } => {
                write_chunks(stream, std::iter::repeat_n(chunk, *times))?;
            }
            Body::Cut { sent, .. } => {
                stream.write_all(sent)?;
                stream.flush()?;
                stream.shutdown(Shutdown::Both)?;
            }
        }
        Ok(())
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The answer is an error of the distribution spec with this status and code, and says something.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        let first = self.json()["errors"][0].clone();
        assert_eq!(first["code"], code, "{}", self.text());
        let message = first["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{code} without a message");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}), status {}: {}", self.status, self.text()),
        }
    }

    #[track_caller]
    pub(crate) fn location(&self) -> String {
        self.header("location")
            .unwrap_or_else(|| panic!("no Location in {self:?}"))
            .to_owned()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(4096)]).into_owned()
    }

    fn read(method: &str, stream: &mut impl BufRead) -> Result<Self> {
        loop {
            let status = line(stream)?;
            let Some(status) = status.split(' ').nth(1).and_then(|code| code.parse().ok()) else {
                bail!("no HTTP status line but {status:?}");
            };
            let mut headers = Vec::new();
            loop {
                let line = line(stream)?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').with_context(|| format!("header {line:?}"))?;
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
            if (100..200).contains(&status) {
                continue;
            }
            let mut response = Self {
                status,
                headers,
                body: Vec::new(),
            };
            if method != "HEAD" && status != 204 && status != 304 {
                response.body = response.read_body(stream)?;
            }
            return Ok(response);
        }
    }

    fn read_body(&self, stream: &mut impl BufRead) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        if self
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            loop {
                let size = line(stream)?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                    .with_context(|| format!("chunk size {size:?}"))?;
                if size == 0 {
                    return Ok(body);
                }
                let start = body.len();
                body.resize(start + size, 0);
                stream.read_exact(&mut body[start..])?;
                line(stream)?;
            }
        }
        match self.header("content-length") {
            Some(length) => {
                body.resize(
                    length
                        .parse()
                        .with_context(|| format!("Content-Length {length:?}"))?,
                    0,
                );
                stream
                    .read_exact(&mut body)
                    .context("the body is shorter than announced")?;
            }
            None => {
                stream.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }
}

fn write_chunks<'a>(stream: &mut TcpStream, chunks: impl Iterator<Item = &'a Vec<u8>>) -> Result<()> {
    for chunk in chunks {
        write!(stream, "{:x}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    Ok(())
}

fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        bail!("the connection ended");
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
