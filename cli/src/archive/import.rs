//! `layeryard import`: a root file system's archive becomes an image of one layer.
//!
//! The archive is read once: its tar stream is checked, hashed, compressed and sent while it comes. Nothing of the
//! clock, the host or the archive's name goes into the image, so the same archive always makes the same one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use builder::layer::{ChunkWriter, Compressors, EPOCH_FLOOR, Layer, LayerError, rfc3339, upload};
use builder::plan::{Facts, PlanInput, Planner, Progress};
use builder::services::ImageSink as _;
use oci::{ContainerConfig, Digest, History, ImageConfig, Platform, Reference, RootFs, media_type};
use serde_json::json;

use super::compressed::decompress;
use crate::args::ImportArgs;
use crate::failure::Usage;
use crate::names;
use crate::output;
use crate::progress::Transfer;
use crate::server::ServerUrl;
use crate::sink::Sink;

/// Instructions that only change the configuration.
const CHANGES: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

pub(crate) async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let target = names::locate(&args.name, &server, false).await?;
    let Reference::Tag(tag) = &target.reference else {
        return Err(Usage(format!(
            "{:?} has a digest: a new image's is not known yet",
            args.name
        ))
        .into());
    };
    let platform = args
        .platform
        .as_deref()
        .map(names::platform)
        .transpose()?
        .unwrap_or_else(Platform::host);
    let config = changed_config(&args.changes, &platform)?;
    let (input, size) = open(&args.archive)?;
    let bar = Transfer::start("importing", size, true);
    let compressors = Arc::new(Compressors::start(threads()).context("cannot start the compressors")?);
    let sink = Sink {
        registry: target.registry.clone(),
        repository: target.repository.clone(),
    };
    let counted = Counted {
        inner: input,
        bar: bar.clone(),
    };
    let sent = Box::pin(upload(&sink, &compressors, move |out| pack(counted, out))).await;
    bar.finish();
    let (layer, newest) = server
        .explain(sent)
        .with_context(|| format!("cannot import {}", args.archive.display()))?;
    let image = image_config(config, &layer, newest, &platform, args.message).to_json()?;
    let digest = put_image(&sink, tag, &layer, image).await?;
    output::note(format_args!("{}", names::display(&target)));
    Ok(output::line(digest)?)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The archive's bytes and how many they are, if that is known.
fn open(path: &Path) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file
        .metadata()
        .with_context(|| format!("cannot read {}", path.display()))?;
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), size))
}

/// Sends the tar stream as it is, and returns the newest time in it.
fn pack(input: impl Read + Send + 'static, out: &mut ChunkWriter) -> Result<i64, LayerError> {
    let failed = |source: io::Error| LayerError::Input {
        source: Box::new(source),
    };
    let mut tee = Tee {
        inner: decompress(input).map_err(failed)?,
        out,
    };
    let mut newest = EPOCH_FLOOR;
    let mut archive = tar::Archive::new(&mut tee);
    let mut is_empty = true;
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(|error| failed(not_a_tar(error)))?;
        is_empty = false;
        let time = entry
            .header()
            .mtime()
            .ok()
            .and_then(|time| i64::try_from(time).ok());
        newest = newest.max(time.unwrap_or(EPOCH_FLOOR));
    }
    if is_empty {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidData,
            "the archive is empty or no tar archive",
        )));
    }
    // What follows the end mark belongs to the stream that the diff id is made of.
    io::copy(&mut tee, &mut io::sink()).map_err(failed)?;
    Ok(newest)
}

fn not_a_tar(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("it is no tar archive, or a damaged one: {error}"),
    )
}

/// The configuration that the instructions of `--change` make.
fn changed_config(changes: &[String], platform: &Platform) -> anyhow::Result<ContainerConfig> {
    let mut text = String::from("FROM scratch\n");
    for change in changes {
        let keyword = change
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_uppercase();
        if !CHANGES.contains(&keyword.as_str()) || change.contains('\n') {
            return Err(Usage(format!(
                "--change {change:?}: expected one of {}",
                CHANGES.join(", ")
            ))
            .into());
        }
        text.push_str(change);
        text.push('\n');
    }
    let input = PlanInput {
        file_name: "--change".into(),
        text,
        target: None,
        build_args: [].into(),
        platform: platform.clone(),
        build_platform: Platform::host(),
    };
    let planned = Planner::new(input).and_then(|planner| planner.step(&Facts::new()));
    match planned.map_err(|error| Usage(error.to_string()))? {
        Progress::Done(plan) => {
            let stage = plan.stages.into_iter().next_back();
            Ok(stage.ok_or_else(|| anyhow!("an image without a stage"))?.config)
        }
        // FROM scratch needs none.
        Progress::Need(_) => Err(anyhow!("--change must not name images")),
    }
}

fn image_config(
    config: ContainerConfig,
    layer: &Layer,
    newest: i64,
    platform: &Platform,
    message: Option<String>,
) -> ImageConfig {
    let created = rfc3339(newest);
    let history = History {
        created: Some(created.clone()),
        created_by: Some("layeryard import".into()),
        comment: message,
        ..History::default()
    };
    ImageConfig {
        created: Some(created),
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        variant: platform.variant.clone(),
        config,
        rootfs: RootFs {
            diff_ids: vec![layer.diff_id],
            ..RootFs::default()
        },
        history: vec![history],
        ..ImageConfig::default()
    }
}

async fn put_image(sink: &Sink, tag: &oci::Tag, layer: &Layer, config: Vec<u8>) -> anyhow::Result<Digest> {
    let digest = Digest::sha256(&config);
    let size = config.len();
    sink.put_blob(&digest, config.into()).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": digest, "size": size},
        "layers": [layer.descriptor],
    });
    let bytes = serde_json::to_vec(&manifest)?;
    sink.tag(
        &sink.repository,
        tag,
        media_type::OCI_MANIFEST,
        bytes.clone().into(),
    )
    .await?;
    Ok(Digest::sha256(&bytes))
}

/// Counts what is read for the progress bar.
struct Counted<R> {
    inner: R,
    bar: Transfer,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bar.add(count as u64);
        Ok(count)
    }
}

/// Passes on what is read to a writer.
struct Tee<'a, R> {
    inner: R,
    out: &'a mut ChunkWriter,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.out.write_all(&buffer[..count])?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_make_a_configuration() {
        let changes = [
            "CMD [\"/bin/sh\"]",
            "env LANG=C.UTF-8",
            "WORKDIR /srv",
            "EXPOSE 80",
        ]
        .map(str::to_owned);
        let config = changed_config(&changes, &Platform::host()).unwrap();
        assert_eq!(config.cmd, Some(vec!["/bin/sh".into()]));
        assert_eq!(config.env_value("LANG"), Some("C.UTF-8"));
        assert_eq!(config.working_dir, "/srv");
        assert!(config.exposed_ports.contains_key("80/tcp"));
    }

    #[test]
    fn only_the_configuration_can_be_changed() {
        for change in [
            "RUN true",
            "COPY a b",
            "FROM x",
            "CMD a\nRUN true",
            "",
            "EXPOSE port",
        ] {
            let error = changed_config(&[change.to_owned()], &Platform::host()).unwrap_err();
            assert!(error.is::<Usage>(), "{change:?}: {error}");
        }
    }
}
