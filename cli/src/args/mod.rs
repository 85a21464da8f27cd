//! Flags as the user types them. Each command turns its own into values that are ready to use.

mod access;
mod build;
mod collection;
mod config;
mod images;
mod operations;
mod serve;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use access::{
    AdminArgs, GrantArgs, GrantCommand, GroupArgs, GroupCommand, TokenArgs, TokenCommand, UserArgs,
    UserCommand,
};
pub(crate) use build::{BuildArgs, ProgressMode};
pub(crate) use collection::{GcArgs, GcCommand, TrashArgs, UndeleteArgs};
pub(crate) use config::ConfigCommand;
pub(crate) use images::{
    ArchiveFormat, CopyArgs, ImagesArgs, ImportArgs, InspectArgs, ListFormat, LoadArgs, SaveArgs,
};
pub(crate) use operations::{BackupArgs, RebuildArgs, RestoreArgs, VerifyArgs};
pub(crate) use serve::ServeArgs;

pub(crate) const DEFAULT_SERVER: &str = "http://localhost:5000";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the operation failed (a build: a step failed, or the build could not run)
  2    the command line or the configuration is wrong
  130  cancelled

Start with:
  layeryard serve                    a registry on localhost:5000
  layeryard build -t app .           an image made there from ./Dockerfile
  docker run localhost:5000/app      the image runs";

/// A private OCI registry that builds images.
#[derive(Debug, Parser)]
#[command(name = "layeryard", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the registry and its builds
    Serve(ServeArgs),
    /// Check or show the server's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Build an image on the server from a Dockerfile
    Build(BuildArgs),
    /// Copy an image or an index between two registries
    Copy(CopyArgs),
    /// Make an image of a root file system's tar archive
    Import(ImportArgs),
    /// Push the images of an archive: `docker save` or OCI layout
    Load(LoadArgs),
    /// Write an image to an archive: `docker load` or OCI layout
    Save(SaveArgs),
    /// Read every blob again and take broken ones out of service
    Verify(VerifyArgs),
    /// Copy a data directory, also while its server runs
    Backup(BackupArgs),
    /// Make a data directory of a copy
    Restore(RestoreArgs),
    /// Recreate the database from the blob store, while no server runs
    RebuildMetadata(RebuildArgs),
    /// List repositories and their tags
    Images(ImagesArgs),
    /// List deleted tags and manifests that can be restored
    Trash(TrashArgs),
    /// Restore a deleted tag or manifest
    Undelete(UndeleteArgs),
    /// Tell what garbage collection does and why, or let it run
    Gc(GcArgs),
    /// Show an image's manifest and configuration
    Inspect(InspectArgs),
    /// Manage the server's users
    User(UserArgs),
    /// Manage groups of users
    Group(GroupArgs),
    /// Manage tokens for robots
    Token(TokenArgs),
    /// Manage who may do what with which repositories
    Grant(GrantArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    #[command(after_help = "Example: layeryard completions bash > /etc/bash_completion.d/layeryard")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Ask a server whether it is ready: exit code 0 if so
    Healthcheck {
        /// The server's address
        #[arg(default_value = DEFAULT_SERVER, value_name = "URL")]
        url: String,
    },
    /// Run builds for the server that started this process
    #[command(hide = true)]
    Worker,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// The Layeryard server
    #[arg(long, env = "LAYERYARD_SERVER", hide_env_values = true, default_value = DEFAULT_SERVER, value_name = "URL")]
    pub(crate) server: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_is_explained() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }
}
