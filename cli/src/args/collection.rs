//! `layeryard gc`, `layeryard trash`, `layeryard undelete`.

use clap::{Args, Subcommand};

use super::{ListFormat, ServerArgs};

const GC_HELP: &str = "\
The server collects by itself; this asks it to do so now, or what it would do and why.
Deleted tags and manifests can be restored until their time is over: `layeryard trash REPOSITORY`.

Examples:
  layeryard gc --dry-run                        all that waits for a review, and what will become of it
  layeryard gc --dry-run --repository team/app  everything in a repository, and who needs it
  layeryard gc run                              collect what is due now
  layeryard gc status
  layeryard gc confirm                          go on after a jump of the server's clock";

#[derive(Args, Clone, Debug)]
#[command(after_help = GC_HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct GcArgs {
    /// Tell what is kept and what goes, and why; nothing is changed
    #[arg(long, required = true)]
    pub(crate) dry_run: bool,
    /// Tell of everything in this repository, not of what waits for a review
    #[arg(long, value_name = "NAME[@DIGEST]")]
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
    #[command(subcommand)]
    pub(crate) command: Option<GcCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GcCommand {
    /// Collect what is due now
    Run(ServerArgs),
    /// Show what is due, and the delays
    Status(ServerArgs),
    /// Let collection go on that paused because the clock jumped
    Confirm(ServerArgs),
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  layeryard trash team/app\n  layeryard trash team/app --format json")]
pub(crate) struct TrashArgs {
    /// Repository whose deleted tags and manifests are listed
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repository: String,
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

const UNDELETE_HELP: &str = "\
A tag comes back with the manifest that it named, a manifest with the tags that went with it, an
index with what it lists. NAME:TAG@DIGEST sets the tag to that manifest.

Examples:
  layeryard undelete team/app:v1
  layeryard undelete team/app@sha256:…
  layeryard undelete --force team/app:latest    although latest names another image by now";

#[derive(Args, Clone, Debug)]
#[command(after_help = UNDELETE_HELP)]
pub(crate) struct UndeleteArgs {
    /// What to restore: NAME:TAG, NAME@DIGEST or NAME:TAG@DIGEST
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Move tags that name something else by now
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
