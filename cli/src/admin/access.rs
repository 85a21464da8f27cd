//! Users, groups, tokens, grants.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use client::api::accounts::{ChangeUser, GrantInfo, NewToken, NewUser, TokenScope};

use super::api;
use crate::args::{
    GrantArgs, GrantCommand, GroupArgs, GroupCommand, TokenArgs, TokenCommand, UserArgs, UserCommand,
};
use crate::failure::Usage;
use crate::output;

/// The longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 4096;

pub(crate) async fn user(args: UserArgs) -> anyhow::Result<()> {
    let api = api(&args.admin).await?;
    let change = |change: ChangeUser, name: String| {
        let api = api.clone();
        async move { api.change_user(&name, &change).await }
    };
    match args.command {
        UserCommand::Add {
            name,
            admin,
            no_password,
        } => {
            let password = if no_password { None } else { Some(password()?) };
            let user = NewUser {
                name,
                password,
                admin,
            };
            api.add_user(&user).await?;
        }
        UserCommand::Password { name } => {
            let password = Some(password()?);
            let new = ChangeUser {
                password,
                ..ChangeUser::default()
            };
            change(new, name).await?;
        }
        UserCommand::Admin { name, revoke } => {
            let new = ChangeUser {
                admin: Some(!revoke),
                ..ChangeUser::default()
            };
            change(new, name).await?;
        }
        UserCommand::Disable { name } => change(disabled(true), name).await?,
        UserCommand::Enable { name } => change(disabled(false), name).await?,
        UserCommand::Remove { name } => api.remove_user(&name).await?,
        UserCommand::List => {
            output::line(format_args!("{:<24} {:<10} GROUPS", "USER", "STATE"))?;
            for user in api.users().await? {
                let state = match (user.disabled, user.admin) {
                    (true, _) => "disabled",
                    (false, true) => "admin",
                    (false, false) => "",
                };
                output::line(format_args!(
                    "{:<24} {state:<10} {}",
                    user.name,
                    user.groups.join(",")
                ))?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn group(args: GroupArgs) -> anyhow::Result<()> {
    let api = api(&args.admin).await?;
    match args.command {
        GroupCommand::Add { group, members } => {
            for member in members {
                api.add_member(&group, &member).await?;
            }
        }
        GroupCommand::Remove { group, members } if members.is_empty() => api.remove_group(&group).await?,
        GroupCommand::Remove { group, members } => {
            for member in members {
                api.remove_member(&group, &member).await?;
            }
        }
        GroupCommand::List => {
            output::line(format_args!("{:<24} MEMBERS", "GROUP"))?;
            for group in api.groups().await? {
                output::line(format_args!("{:<24} {}", group.name, group.members.join(",")))?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn token(args: TokenArgs) -> anyhow::Result<()> {
    let api = api(&args.admin).await?;
    match args.command {
        TokenCommand::Create {
            name,
            allow,
            expires,
            owner,
        } => {
            let scopes = allow.into_iter();
            let scopes = scopes
                .map(|(pattern, actions)| TokenScope { pattern, actions })
                .collect();
            let token = NewToken {
                name,
                scopes,
                expires_in_seconds: expires.map(|time| time.as_secs()),
                owner,
            };
            output::line(api.create_token(&token).await?.token)?;
        }
        TokenCommand::Revoke { name } => api.revoke_token(&name).await?,
        TokenCommand::List => {
            output::line(format_args!(
                "{:<20} {:<16} {:<21} {:<21} ALLOWS",
                "TOKEN", "OWNER", "EXPIRES", "LAST USED"
            ))?;
            for token in api.tokens().await? {
                let scopes = token.scopes.iter();
                let scopes: Vec<String> = scopes
                    .map(|scope| format!("{}={}", scope.pattern, scope.actions))
                    .collect();
                output::line(format_args!(
                    "{:<20} {:<16} {:<21} {:<21} {}",
                    token.name,
                    if token.owner.is_empty() {
                        "(server)"
                    } else {
                        &token.owner
                    },
                    token.expires_at.as_deref().unwrap_or("never"),
                    token.last_used_at.as_deref().unwrap_or("-"),
                    scopes.join(" ")
                ))?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn grant(args: GrantArgs) -> anyhow::Result<()> {
    let api = api(&args.admin).await?;
    match args.command {
        GrantCommand::Add {
            subject,
            repositories,
            actions,
        } => {
            let grant = GrantInfo {
                subject,
                pattern: repositories,
                actions,
                configured: false,
            };
            api.put_grant(&grant).await?;
        }
        GrantCommand::Remove {
            subject,
            repositories,
        } => api.remove_grant(&subject, &repositories.to_string()).await?,
        GrantCommand::List => {
            output::line(format_args!(
                "{:<24} {:<32} {:<24} FROM",
                "SUBJECT", "REPOSITORIES", "ACTIONS"
            ))?;
            for grant in api.grants().await? {
                let from = if grant.configured {
                    "configuration"
                } else {
                    "database"
                };
                output::line(format_args!(
                    "{:<24} {:<32} {:<24} {from}",
                    grant.subject,
                    grant.pattern.to_string(),
                    grant.actions.to_string()
                ))?;
            }
        }
    }
    Ok(())
}

fn disabled(disabled: bool) -> ChangeUser {
    ChangeUser {
        disabled: Some(disabled),
        ..ChangeUser::default()
    }
}

/// A password from standard input, without the line's end: it must not be in the process list.
fn password() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        output::note("Password (it is shown; pipe it in to hide it):");
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .context("cannot read the password")?;
        return checked(line);
    }
    let mut text = String::new();
    let mut input = std::io::stdin().take(PASSWORD_BYTES_MAX);
    input
        .read_to_string(&mut text)
        .context("cannot read the password")?;
    checked(text)
}

fn checked(text: String) -> anyhow::Result<String> {
    let password = text.trim_end_matches(['\n', '\r']).to_owned();
    if password.is_empty() {
        return Err(Usage("the password is empty: send one on standard input".into()).into());
    }
    Ok(password)
}
