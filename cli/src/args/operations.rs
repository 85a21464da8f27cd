//! Commands that keep a store in order.

use clap::Args;

use super::ServeArgs;

const REBUILD: &str = "\
Manifests and tags come from the journal in the blob store, blobs from the store's listing. Users, grants and tokens are
not in the journal: they come from a backup. The database that was there is kept beside the new one.

Examples:
  layeryard rebuild-metadata --data-dir /var/lib/layeryard          the database is older than the store
  layeryard rebuild-metadata --data-dir /var/lib/layeryard --anew   it is lost or broken";

#[derive(Args, Clone, Debug)]
#[command(after_help = REBUILD)]
pub(crate) struct RebuildArgs {
    /// Leave the database that is there out: make a new one of the store alone
    #[arg(long)]
    pub(crate) anew: bool,
    #[command(flatten)]
    pub(crate) server: ServeArgs,
}
