//! `layeryard gc`, `layeryard trash`, `layeryard undelete`.

use bytesize::ByteSize;
use client::api::collection::{Explained, Kind, Round, Status, TrashPage, UndeleteRequest};
use oci::ImageRef;

use crate::args::{GcArgs, GcCommand, ListFormat, TrashArgs, UndeleteArgs};
use crate::failure::Usage;
use crate::names;
use crate::output;
use crate::server::ServerUrl;

pub(crate) async fn gc(args: GcArgs) -> anyhow::Result<()> {
    match args.command {
        None => dry_run(args).await,
        Some(GcCommand::Run(server)) => {
            let server: ServerUrl = server.server.parse()?;
            let api = server.api().await?;
            loop {
                let round = server.explain(api.collect().await)?;
                report(&round)?;
                if !round.more {
                    return Ok(());
                }
            }
        }
        Some(GcCommand::Status(server)) => {
            let server: ServerUrl = server.server.parse()?;
            status(&server.explain(server.api().await?.collection_status().await)?)
        }
        Some(GcCommand::Confirm(server)) => {
            let server: ServerUrl = server.server.parse()?;
            server.explain(server.api().await?.confirm_collection().await)?;
            Ok(output::line("garbage collection goes on")?)
        }
    }
}

async fn dry_run(args: GcArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let api = server.api().await?;
    let (repository, digest) = match &args.repository {
        None => (None, None),
        Some(text) => {
            let image = own_image(text, &server)?;
            let digest = image.digest.map(|digest| digest.to_string());
            (Some(image.repository.to_string()), digest)
        }
    };
    let (mut after, mut removed, mut bytes, mut kept) = (None, 0_u64, 0, 0_u64);
    loop {
        let page = api
            .explain(repository.as_deref(), digest.as_deref(), after.as_deref())
            .await;
        let page = server.explain(page)?;
        for tag in &page.tags {
            match args.format {
                ListFormat::Json => output::line(serde_json::to_string(tag)?)?,
                ListFormat::Table => {
                    output::line(format_args!("tag      {:<56} {}", tag.tag.as_str(), tag.says))?;
                }
            }
        }
        for item in &page.items {
            match args.format {
                ListFormat::Json => output::line(serde_json::to_string(item)?)?,
                ListFormat::Table => output::line(line(item))?,
            }
            if item.fate == client::api::collection::Fate::Remove {
                removed += 1;
                bytes += item.size_bytes;
            } else {
                kept += 1;
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if args.format == ListFormat::Table {
        // A blob that other repositories have gives no bytes back, so that this is the most.
        output::note(format_args!(
            "{kept} kept, {removed} to be removed, at most {}",
            ByteSize(bytes)
        ));
    }
    Ok(())
}

fn line(item: &Explained) -> String {
    let kind = match item.kind {
        Kind::Manifest => "manifest",
        Kind::Blob => "blob",
    };
    let size = ByteSize(item.size_bytes).to_string();
    format!(
        "{kind:<8} {:<32} {:<12} {size:>10}  {}",
        item.repository.as_str(),
        item.digest.short(),
        item.says
    )
}

fn report(round: &Round) -> anyhow::Result<()> {
    if let Some(reason) = &round.paused {
        output::warn(format_args!(
            "garbage collection is paused: {reason}; `layeryard gc confirm` lets it go on"
        ));
        return Ok(());
    }
    output::line(format_args!(
        "{} manifests purged, {} blobs removed from repositories, {} blobs ({}) no longer needed by any",
        round.manifests_purged,
        round.blobs_unlinked,
        round.blobs_doomed,
        ByteSize(round.bytes_doomed)
    ))?;
    for (what, count) in &round.kept {
        output::line(format_args!("{count} × {what}"))?;
    }
    Ok(())
}

fn status(status: &Status) -> anyhow::Result<()> {
    match &status.paused {
        Some(reason) => output::line(format_args!("paused: {reason}"))?,
        None => output::line(format_args!("runs every {} s", status.interval_seconds))?,
    }
    output::line(format_args!(
        "due: {} manifests, {} blobs, the oldest for {} s",
        status.manifests_due, status.blobs_due, status.oldest_due_seconds
    ))?;
    output::line(format_args!(
        "delays: {} s to undelete, {} s before a blob is reviewed, {} s before its bytes are deleted",
        status.undelete_window_seconds, status.review_delay_seconds, status.delete_delay_seconds
    ))?;
    Ok(())
}

pub(crate) async fn trash(args: TrashArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let api = server.api().await?;
    let repository = names::own_repository(&args.repository, &server)?;
    let mut after = None;
    loop {
        let page = api.trash(repository.as_str(), after.as_deref()).await;
        let page = server.explain(page)?;
        match args.format {
            ListFormat::Json => trash_json(&page)?,
            ListFormat::Table => trash_table(repository.as_str(), &page)?,
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn trash_json(page: &TrashPage) -> anyhow::Result<()> {
    for tag in &page.tags {
        output::line(serde_json::to_string(tag)?)?;
    }
    for manifest in &page.manifests {
        output::line(serde_json::to_string(manifest)?)?;
    }
    Ok(())
}

fn trash_table(repository: &str, page: &TrashPage) -> anyhow::Result<()> {
    let until = |until: &Option<String>| match until {
        Some(until) => format!("until {until}"),
        None => "as long as something else needs it".to_owned(),
    };
    for tag in &page.tags {
        output::line(format_args!(
            "{repository}:{}  was {}, deleted {} by {}, restorable {}",
            tag.tag,
            tag.digest.short(),
            tag.deleted_at,
            tag.deleted_by,
            until(&tag.until)
        ))?;
    }
    for manifest in &page.manifests {
        output::line(format_args!(
            "{repository}@{}  deleted {} by {}, restorable {}",
            manifest.digest,
            manifest.deleted_at,
            manifest.deleted_by,
            until(&manifest.until)
        ))?;
    }
    Ok(())
}

pub(crate) async fn undelete(args: UndeleteArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let image = own_image(&args.name, &server)?;
    if image.tag.is_none() && image.digest.is_none() {
        return Err(Usage(format!(
            "{:?} says not what to restore: NAME:TAG, NAME@DIGEST or NAME:TAG@DIGEST",
            args.name
        ))
        .into());
    }
    let request = UndeleteRequest {
        repository: image.repository,
        tag: image.tag,
        digest: image.digest,
        force: args.force,
    };
    let restored = server.explain(server.api().await?.undelete(&request).await)?;
    for tag in &restored.tags {
        output::line(format_args!("{}:{tag}", request.repository))?;
    }
    for digest in &restored.manifests {
        output::line(format_args!("{}@{digest}", request.repository))?;
    }
    if restored.tags.is_empty() && restored.manifests.is_empty() {
        output::note("everything is there already");
    }
    Ok(())
}

/// A name that must be this server's.
fn own_image(text: &str, server: &ServerUrl) -> anyhow::Result<ImageRef> {
    let image: ImageRef = text.parse().map_err(|error| Usage(format!("{error}")))?;
    if let Some(host) = image.registry.as_deref().filter(|host| !server.is_host(host)) {
        return Err(Usage(format!("{text:?} is of the registry {host}, not of {server}")).into());
    }
    Ok(image)
}
