//! `layeryard user`, `group`, `token`, `grant`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use oci::access::{Actions, RepoPattern};

const ADMIN_HELP: &str = "\
On the server's own machine, whoever can read its data directory is an administrator and needs no account;
elsewhere, name the server with --server and log in first: docker login HOST.";

const USER_HELP: &str = "\
Examples:
  layeryard user add alice --admin          asks for a password on standard input
  layeryard user list
  layeryard user disable bob";

const GROUP_HELP: &str = "\
Examples:
  layeryard group add developers alice bob
  layeryard group remove developers bob";

const TOKEN_HELP: &str = "\
The token is printed once. Robots log in with it as password, under any name, or send it as bearer token.

Examples:
  layeryard token create ci --allow 'team/**=pull,push' --expires 90d
  layeryard token create cluster --allow '**=pull'
  layeryard token revoke ci";

const GRANT_HELP: &str = "\
Patterns: team/app (that one), team/app* (those that begin so), team/* (directly below), team/** (anywhere below),
** (all). Actions: pull, push, delete, admin.

Examples:
  layeryard grant add group:developers 'team/**' pull,push
  layeryard grant add anonymous 'public/*' pull
  layeryard grant remove group:developers 'team/**'";

/// Which server, and how to get there.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArgs {
    /// The Layeryard server [default: the one on this machine]
    #[arg(
        long,
        env = "LAYERYARD_SERVER",
        hide_env_values = true,
        value_name = "URL",
        global = true
    )]
    pub(crate) server: Option<String>,
    /// Data directory of the server on this machine
    #[arg(
        long,
        env = "LAYERYARD_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        global = true
    )]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = USER_HELP, after_long_help = format!("{USER_HELP}\n\n{ADMIN_HELP}"))]
pub(crate) struct UserArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user; the password is read from standard input
    Add {
        /// The user's name
        name: String,
        /// May do everything
        #[arg(long)]
        admin: bool,
        /// Without a password: for client certificates
        #[arg(long)]
        no_password: bool,
    },
    /// Change a user's password; it is read from standard input
    Password {
        /// The user's name
        name: String,
    },
    /// Let a user do everything, or no more
    Admin {
        /// The user's name
        name: String,
        /// Take the rights away
        #[arg(long)]
        revoke: bool,
    },
    /// Lock a user out; its tokens too
    Disable {
        /// The user's name
        name: String,
    },
    /// Let a locked-out user in again
    Enable {
        /// The user's name
        name: String,
    },
    /// Remove a user with its tokens and grants
    Remove {
        /// The user's name
        name: String,
    },
    /// List the users
    List,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = GROUP_HELP)]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) command: GroupCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Put users into a group, which is made if needed
    Add {
        /// The group's name
        group: String,
        /// The users' names
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Take users out of a group; without users, remove the group
    Remove {
        /// The group's name
        group: String,
        /// The users' names
        members: Vec<String>,
    },
    /// List the groups
    List,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = TOKEN_HELP)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it
    Create {
        /// The token's name
        name: String,
        /// Repositories and what the token may do there, repeatable
        #[arg(long = "allow", required = true, value_name = "PATTERN=ACTIONS", value_parser = allowed)]
        allow: Vec<(RepoPattern, Actions)>,
        /// How long it is good for, such as 90d [default: until it is revoked]
        #[arg(long, value_name = "TIME")]
        expires: Option<humantime::Duration>,
        /// The user whose rights bound it; administrators only [default: who makes it]
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
    },
    /// End a token
    Revoke {
        /// The token's name
        name: String,
    },
    /// List tokens
    List,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = GRANT_HELP)]
pub(crate) struct GrantArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) command: GrantCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Say what a user or group may do; what was said of the same repositories before is replaced
    Add {
        /// user:NAME, group:NAME, anonymous or authenticated
        subject: String,
        /// Which repositories
        repositories: RepoPattern,
        /// What may be done: pull,push,delete,admin
        actions: Actions,
    },
    /// Take a grant back
    Remove {
        /// user:NAME, group:NAME, anonymous or authenticated
        subject: String,
        /// Which repositories
        repositories: RepoPattern,
    },
    /// List the grants
    List,
}

fn allowed(text: &str) -> Result<(RepoPattern, Actions), String> {
    let (pattern, actions) = text
        .split_once('=')
        .ok_or_else(|| "expected PATTERN=ACTIONS, such as 'team/**=pull,push'".to_owned())?;
    let pattern = pattern.parse().map_err(|error| format!("{error}"))?;
    Ok((pattern, actions.parse().map_err(|error| format!("{error}"))?))
}
