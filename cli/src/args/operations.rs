//! Commands that keep a store in order.

use std::path::PathBuf;

use clap::Args;

use super::{ServeArgs, ServerArgs};

const VERIFY: &str = "\
The server reads slowly ([verify] rate) and goes on after a restart. A blob that is not what was pushed counts as not
there from then on: whoever pushes it again heals it. Exit code 1: something is broken.

Examples:
  layeryard verify            start, or follow the one that runs
  layeryard verify --status
  layeryard verify --stop";

#[derive(Args, Clone, Debug)]
#[command(after_help = VERIFY)]
pub(crate) struct VerifyArgs {
    /// Only tell how far it is, or how the last one went
    #[arg(long, conflicts_with_all = ["stop", "detach"])]
    pub(crate) status: bool,
    /// Stop it
    #[arg(long, conflicts_with = "detach")]
    pub(crate) stop: bool,
    /// Start it and don't wait
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

const BACKUP: &str = "\
For blobs on the file system and metadata in SQLite. The copy is consistent: what was acknowledged before it began is in
it, whole. Run it on the server's machine, as a user who can read the data directory.

Example:
  layeryard backup --data-dir /var/lib/layeryard /backup/monday";

#[derive(Args, Clone, Debug)]
#[command(after_help = BACKUP)]
pub(crate) struct BackupArgs {
    /// A new or empty directory for the copy
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    #[command(flatten)]
    pub(crate) server: ServeArgs,
}

const RESTORE: &str = "\
Example:
  layeryard restore /backup/monday --data-dir /var/lib/layeryard";

#[derive(Args, Clone, Debug)]
#[command(after_help = RESTORE)]
pub(crate) struct RestoreArgs {
    /// What `layeryard backup` wrote
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    #[command(flatten)]
    pub(crate) server: ServeArgs,
}

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
