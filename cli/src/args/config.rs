//! `layeryard config`.

use clap::Subcommand;

use super::ServeArgs;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether a server would start with this configuration: exit code 0 if so
    Check(ServeArgs),
    /// Print the configuration that a server would use, secrets hidden
    Show(ServeArgs),
    /// Print every key with its default or an example
    Reference,
}
