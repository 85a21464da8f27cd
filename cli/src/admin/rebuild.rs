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
    if let Some(replaced) = found.replaced {
        output::note(format_args!("The old database is kept as {}", replaced.display()));
    }
    Ok(())
}
