//! From flags, files and environment to the request that the server is sent.

use std::collections::BTreeMap;

use client::api::{BuildRequest, SourceFile, TagTarget};
use client::credentials;

use super::bases;
use crate::args::BuildArgs;
use crate::failure::Usage;
use crate::names;
use crate::server::ServerUrl;

/// Predefined ARGs, taken from this environment where it has them.
const PROXY_VARIABLES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Makes the request; its context is not sent yet.
pub(crate) async fn prepare(
    args: &BuildArgs,
    server: &ServerUrl,
    dockerfile: SourceFile,
) -> anyhow::Result<BuildRequest> {
    let build_args = build_args(&args.build_args, |name| std::env::var(name).ok())?;
    let parsed = builder::dockerfile::parse(&dockerfile.name, &dockerfile.text)?;
    let mut credentials = BTreeMap::new();
    for host in bases::registries(&parsed, &build_args, server) {
        if let Some(credential) = credentials::find_async(&host).await? {
            credentials.insert(host, credential);
        }
    }
    Ok(BuildRequest {
        context: None,
        dockerfile,
        tags: tags(&args.tags, server)?,
        target: args.target.clone(),
        build_args,
        no_cache: args.no_cache,
        platform: args.platform.as_deref().map(names::platform).transpose()?,
        credentials,
        detached: args.detach,
    })
}

/// The names under which the image is tagged; each is the server's own.
pub(crate) fn tags(names: &[String], server: &ServerUrl) -> anyhow::Result<Vec<TagTarget>> {
    let target = |name: &String| {
        let (repository, tag) = server.own_name(name)?;
        Ok(TagTarget { repository, tag })
    };
    names.iter().map(target).collect()
}

/// `NAME=VALUE`; a bare `NAME` takes the environment's value, if there is one.
fn build_args(
    texts: &[String],
    env: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for name in PROXY_VARIABLES
        .into_iter()
        .flat_map(|name| [name.to_owned(), name.to_uppercase()])
    {
        if let Some(value) = env(&name).filter(|value| !value.is_empty()) {
            values.insert(name, value);
        }
    }
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), env(text)),
        };
        if name.is_empty() {
            return Err(Usage(format!("--build-arg {text:?} has no name: expected NAME=VALUE")).into());
        }
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_args_come_from_flags_and_environment() {
        let env = |name: &str| match name {
            "TOKEN" => Some("secret".to_owned()),
            "HTTPS_PROXY" => Some("http://proxy:3128".to_owned()),
            "no_proxy" => Some(String::new()),
            _ => None,
        };
        let texts = ["A=1=2", "TOKEN", "ABSENT", "EMPTY="].map(str::to_owned);
        let values = build_args(&texts, env).unwrap();
        let expected = [
            ("A", "1=2"),
            ("EMPTY", ""),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("TOKEN", "secret"),
        ];
        assert_eq!(
            values,
            BTreeMap::from(expected.map(|(name, value)| (name.to_owned(), value.to_owned())))
        );
        assert!(build_args(&["=x".to_owned()], env).unwrap_err().is::<Usage>());
    }
}
