//! `layeryard build`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ServerArgs;

const HELP: &str = "\
The context is sent without what CONTEXT/.dockerignore (or DOCKERFILE.dockerignore) excludes;
links are sent as links. HTTP_PROXY, HTTPS_PROXY, FTP_PROXY, NO_PROXY and ALL_PROXY of this
environment, in either case, become build arguments of RUN steps where they are set; they enter
neither the image nor the cache key. Credentials of Docker's configuration are sent for the
registries that FROM names, for this build alone.

On success the image's digest is the only line on standard output, unless --progress json asks
for the events there. Ctrl-C cancels the build on the server.

Examples:
  layeryard build -t app .
  layeryard build -t team/app:1.2 -t team/app:latest --build-arg VERSION=1.2 .
  layeryard build -t app -f deploy/Dockerfile --target test --progress plain .
  generate-dockerfile | layeryard build -t app -f - .";

#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct BuildArgs {
    /// Directory whose files COPY and ADD can read
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: PathBuf,
    /// Name of the image, REPOSITORY[:TAG], repeatable; without one it is kept by its digest alone
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// The Dockerfile, `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Value of an ARG, repeatable; without a value it comes from this environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Run every step, also those that the cache knows
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Platform of the image, such as linux/arm64 [default: the server's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// How to show the build: auto (live on a terminal, else plain), plain or json
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "MODE"
    )]
    pub(crate) progress: ProgressMode,
    /// Start the build, print its id and leave; it goes on without a reader
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A live view on a terminal, plain lines elsewhere
    #[default]
    Auto,
    /// Lines, for logs
    Plain,
    /// The build's events, one JSON object a line, on standard output
    Json,
}
