//! `layeryard copy`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytesize::ByteSize;
use client::copy::{BlobOutcome, CopyOptions, Progress, Silent};
use indicatif::MultiProgress;
use oci::{Descriptor, Digest};

use crate::args::CopyArgs;
use crate::names;
use crate::output;
use crate::progress::Transfer;
use crate::server::ServerUrl;

pub(crate) async fn run(args: CopyArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let source = names::locate(&args.source, &server, args.insecure).await?;
    let target = names::locate(&args.destination, &server, args.insecure).await?;
    let platform = args.platform.as_deref().map(names::platform).transpose()?;
    let options = CopyOptions {
        platform,
        ..CopyOptions::default()
    };
    let progress: Arc<dyn Progress> = if output::is_terminal() {
        Arc::new(Bars::default())
    } else {
        Arc::new(Silent)
    };
    let copied = Box::pin(client::copy::copy(&source, &target, &options, &progress)).await;
    drop(progress);
    let copied = server.explain(copied)?;
    let (sent, mounted, present) = (copied.blobs_sent, copied.blobs_mounted, copied.blobs_present);
    output::note(format_args!(
        "{} manifests; {sent} blobs sent ({}), {mounted} mounted, {present} there already",
        copied.manifests,
        ByteSize(copied.bytes_sent),
    ));
    Ok(output::line(copied.digest)?)
}

/// A bar for each blob on its way.
#[derive(Default)]
struct Bars {
    screen: MultiProgress,
    running: Mutex<HashMap<Digest, Transfer>>,
}

impl Bars {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Digest, Transfer>) -> T) -> T {
        change(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress for Bars {
    fn blob_started(&self, blob: &Descriptor) {
        let bar = Transfer::start_in(&self.screen, &blob.digest.short(), Some(blob.size));
        self.with(|running| running.insert(blob.digest, bar));
    }

    fn blob_bytes(&self, blob: &Descriptor, bytes: u64) {
        self.with(|running| {
            if let Some(bar) = running.get(&blob.digest) {
                bar.add(bytes);
            }
        });
    }

    fn blob_done(&self, blob: &Descriptor, _: BlobOutcome) {
        if let Some(bar) = self.with(|running| running.remove(&blob.digest)) {
            bar.finish();
        }
    }

    fn manifest_done(&self, _: &Descriptor) {}
}
