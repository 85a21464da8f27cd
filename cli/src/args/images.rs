//! The commands that move images and look at them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ServerArgs;

const NAMES: &str = "A name without a host is the server's; HOST/NAME is that registry's.";

const COPY_HELP: &str = "\
A name without a host is the server's; HOST/NAME is that registry's, docker.io/library/debian
Docker Hub's. An index is copied whole. Blobs that the destination has are not sent again.
Credentials come from Docker's configuration (~/.docker/config.json and its credential helpers).

Examples:
  layeryard copy docker.io/library/debian:12 base/debian:12
  layeryard copy --platform linux/amd64 ghcr.io/org/tool:1 tool:1
  layeryard copy app:1 registry.example.com/app:1";

#[derive(Args, Clone, Debug)]
#[command(after_help = COPY_HELP)]
pub(crate) struct CopyArgs {
    /// Image to copy: [HOST/]NAME[:TAG][@DIGEST]
    #[arg(value_name = "SRC")]
    pub(crate) source: String,
    /// Where it goes: [HOST/]NAME[:TAG]
    #[arg(value_name = "DST")]
    pub(crate) destination: String,
    /// Copy one platform's image out of an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all")]
    pub(crate) platform: Option<String>,
    /// Copy every platform (the default, for scripts that say it)
    #[arg(long)]
    pub(crate) all: bool,
    /// Reach the registries over plain HTTP (loopback addresses always are)
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

const IMPORT_HELP: &str = "\
The archive may be plain, gzip or zstd; `-` reads standard input. The same archive always makes
the same image. --change takes CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
STOPSIGNAL, USER, VOLUME and WORKDIR.

Examples:
  layeryard import rootfs.tar.gz base/debian:12
  layeryard import --change 'CMD [\"/bin/sh\"]' --change 'ENV LANG=C.UTF-8' - base/debian:12 < rootfs.tar";

#[derive(Args, Clone, Debug)]
#[command(after_help = IMPORT_HELP)]
pub(crate) struct ImportArgs {
    /// Tar archive of the root file system, `-` for standard input
    #[arg(value_name = "ROOTFS.tar")]
    pub(crate) archive: PathBuf,
    /// Name of the image: [HOST/]NAME[:TAG]
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Dockerfile instruction applied to the image, repeatable: CMD, ENV, USER …
    #[arg(long = "change", short = 'c', value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Platform that the image is marked with [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Text for the image's history
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

const LOAD_HELP: &str = "\
Images of a `docker save` archive keep their names without a registry's host; those of an OCI
layout are named by `org.opencontainers.image.ref.name`, and pushed byte for byte.

Examples:
  docker save app:1 | layeryard load
  layeryard load -i app.tar --name team/app:1
  layeryard load -i ./oci-layout --name app";

#[derive(Args, Clone, Debug)]
#[command(after_help = LOAD_HELP)]
pub(crate) struct LoadArgs {
    /// Archive, or directory of an OCI layout; `-` for standard input
    #[arg(long, short, default_value = "-", value_name = "PATH")]
    pub(crate) input: PathBuf,
    /// Name for the archive's only image, instead of its own
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

const SAVE_HELP: &str = "\
Examples:
  layeryard save app:1 | docker load
  layeryard save app:1 -o app.tar --format oci";

#[derive(Args, Clone, Debug)]
#[command(after_help = SAVE_HELP)]
pub(crate) struct SaveArgs {
    /// Image to save: [HOST/]NAME[:TAG][@DIGEST]
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// File to write, `-` for standard output
    #[arg(long, short, default_value = "-", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Form of the archive: docker-archive or oci (an OCI layout)
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub(crate) format: ArchiveFormat,
    /// Platform to take out of an index [default: this machine's; oci: all]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveFormat {
    /// What `docker save` writes and `docker load` reads
    #[default]
    DockerArchive,
    /// OCI image layout
    Oci,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  layeryard images\n  layeryard images team/app --format json")]
pub(crate) struct ImagesArgs {
    /// Repository to list [default: all]
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repository: Option<String>,
    /// Form of the list: table, or json (one object a line)
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub(crate) format: ListFormat,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// Columns for people
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = NAMES)]
pub(crate) struct InspectArgs {
    /// Image to show: [HOST/]NAME[:TAG][@DIGEST]
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Print the manifest's bytes as they are stored
    #[arg(long)]
    pub(crate) raw: bool,
    /// Platform to take out of an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
