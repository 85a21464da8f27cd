//! `layeryard healthcheck`: one request without any library, so that a container's probe costs next to nothing.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::ServerUrl;

const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(url: &str) -> anyhow::Result<()> {
    let server: ServerUrl = url.parse()?;
    if server.secure() {
        bail!("healthcheck speaks plain HTTP only: ask the server's http address");
    }
    tokio::time::timeout(TIMEOUT, probe(&server))
        .await
        .with_context(|| format!("{server} did not answer within {} s", TIMEOUT.as_secs()))?
        .with_context(|| format!("{server} is not ready"))
}

async fn probe(server: &ServerUrl) -> anyhow::Result<()> {
    let authority = server.authority();
    let mut stream = TcpStream::connect(&authority).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    match answer.strip_prefix(b"HTTP/1.1 ") {
        Some(b"200") => Ok(()),
        Some(status) => bail!("status {}", String::from_utf8_lossy(status)),
        None => bail!("this is no HTTP server"),
    }
}
