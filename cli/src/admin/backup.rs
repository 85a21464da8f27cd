//! `layeryard backup`, `layeryard restore`

use anyhow::Context as _;
use bytesize::ByteSize;

use crate::args::{BackupArgs, RestoreArgs};
use crate::failure::Usage;
use crate::{config, output};

pub(crate) async fn backup(args: BackupArgs) -> anyhow::Result<()> {
    let config = config::resolve(args.server)?;
    refuse_services(&config)?;
    let copied = registry::backup(&config.data_dir, &args.directory)
        .await
        .context("the backup failed")?;
    report(copied)
}

pub(crate) async fn restore(args: RestoreArgs) -> anyhow::Result<()> {
    let config = config::resolve(args.server)?;
    refuse_services(&config)?;
    let copied = registry::restore(&args.directory, &config.data_dir)
        .await
        .context("the restore failed")?;
    report(copied)
}

fn refuse_services(config: &registry::Config) -> anyhow::Result<()> {
    if config.database.url.is_some() || config.storage.backend != registry::StorageBackend::Filesystem {
        return Err(Usage(
            "only SQLite with blobs on the file system is copied: use pg_dump, and copy the bucket after it \
             (docs/operations.md)"
                .into(),
        )
        .into());
    }
    Ok(())
}

fn report(copied: registry::Copied) -> anyhow::Result<()> {
    Ok(output::line(format_args!(
        "copied {} blobs, {}, and the database",
        copied.objects,
        ByteSize(copied.bytes)
    ))?)
}
