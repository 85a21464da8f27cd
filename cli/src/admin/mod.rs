//! Commands of administrators: each is a few calls of the server's API.

mod access;
mod backup;
mod collection;
mod rebuild;
mod verify;

use std::fs;

use anyhow::Context as _;
use client::api_client::Api;

use crate::args::{AdminArgs, DEFAULT_SERVER};
use crate::dirs;
use crate::server::ServerUrl;
pub(crate) use access::{grant, group, token, user};
pub(crate) use backup::{backup, restore};
pub(crate) use collection::{gc, trash, undelete};
pub(crate) use rebuild::rebuild;
pub(crate) use verify::verify;

/// The server that was named; else the one on this machine, by the token that it leaves for those who may read its data
/// directory; else the usual address.
async fn api(args: &AdminArgs) -> anyhow::Result<Api> {
    if args.server.is_none()
        && let Some(data_dir) = args.data_dir.clone().or_else(dirs::default_data_dir)
    {
        let run = data_dir.join("run");
        match fs::read_to_string(run.join("admin.token")) {
            Ok(token) => return Ok(Api::unix(&run.join("api.sock"), token.trim())?),
            Err(error) if args.data_dir.is_some() => {
                return Err(error).with_context(|| {
                    format!(
                        "no server runs on {}, or it is not ours to administrate",
                        data_dir.display()
                    )
                });
            }
            Err(_) => {}
        }
    }
    let server: ServerUrl = args.server.as_deref().unwrap_or(DEFAULT_SERVER).parse()?;
    server.api().await
}
