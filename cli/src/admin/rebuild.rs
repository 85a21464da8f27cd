//! `layeryard rebuild-metadata`

use anyhow::Context as _;

use crate::args::RebuildArgs;
use crate::{config, output};

pub(crate) async fn rebuild(args: RebuildArgs) -> anyhow::Result<()> {
    let config = config::resolve(args.server)?;
    let found = registry::rebuild_metadata(&config, args.anew)
        .await
        .context("cannot rebuild the database")?;
    output::line(format_args!(
        "rebuilt: {} blobs, {} manifests pushed, {} deletions",
        found.blobs, found.pushes, found.deletions
    ))?;
    // Of no database that was there, or not of that one.
    let without_accounts = args.anew || found.replaced.is_none();
    if let Some(replaced) = found.replaced {
        output::note(format_args!("The old database is kept as {}", replaced.display()));
    }
    if without_accounts && !config.decides_access() {
        output::warn(
            "users, grants and tokens are not in the journal. A server without any lets everybody in who reaches it: if \
             there were some, set access.anonymous = \"none\" before you start it",
        );
    }
    Ok(())
}
