//! The user's credentials: what `docker login` and `podman login` left behind, and credential helpers.

use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::api::Credential;

/// Docker Hub's key in every credential file, for reasons of age.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("cannot read the credential file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("credentials for {host} in {}: {reason}", path.display())]
    Lookup {
        host: String,
        path: PathBuf,
        reason: String,
    },
}

/// The user's credential for a registry's host, from the first file that has one: `$REGISTRY_AUTH_FILE`,
/// `$DOCKER_CONFIG/config.json` (or `~/.docker/config.json`), `$XDG_RUNTIME_DIR/containers/auth.json`,
/// `~/.config/containers/auth.json`.
pub fn find(host: &str) -> Result<Option<Credential>, CredentialError> {
    for path in files(|name| std::env::var_os(name).map(PathBuf::from)) {
        if let Some(credential) = find_in(&path, host)? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

/// [`find`], where the credential helper it may run must not hold up the runtime.
pub async fn find_async(host: &str) -> Result<Option<Credential>, CredentialError> {
    let host = host.to_owned();
    match tokio::task::spawn_blocking(move || find(&host)).await {
        Ok(found) => found,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn files(env: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let home = env("HOME");
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let docker = env("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    [
        env("REGISTRY_AUTH_FILE"),
        docker.map(|directory| directory.join("config.json")),
        env("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
        below_home(".config/containers/auth.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn find_in(path: &Path, host: &str) -> Result<Option<Credential>, CredentialError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(CredentialError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    for key in keys(host) {
        match docker_credential::get_credential_from_reader(text.as_slice(), &key) {
            Ok(DockerCredential::IdentityToken(token)) if !token.is_empty() => {
                return Ok(Some(Credential::IdentityToken(token)));
            }
            Ok(DockerCredential::UsernamePassword(username, password)) if !username.is_empty() => {
                return Ok(Some(Credential::Basic { username, password }));
            }
            Ok(_) | Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            // What helpers say when they hold nothing for the host (docker-credential-helpers, "errors.go").
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") => {}
            Err(error) => {
                return Err(CredentialError::Lookup {
                    host: host.to_owned(),
                    path: path.to_owned(),
                    reason: one_line(&error.to_string()),
                });
            }
        }
    }
    Ok(None)
}

/// The names under which a host's credential is kept.
fn keys(host: &str) -> Vec<String> {
    if matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        return vec![DOCKER_HUB_KEY.to_owned(), "docker.io".to_owned()];
    }
    vec![host.to_owned()]
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Config(PathBuf);

    impl Config {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("layeryard-{}-{name}.json", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Config {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn docker_files_are_read_by_host() {
        let config = Config::new(
            "plain",
            r#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldA=="},
                "ghcr.io":{"auth":"Og==","identitytoken":"refresh"},
                "localhost:5000":{"auth":"bWU6cDpx"},
                "empty.io":{}}}"#,
        );
        let basic = |username: &str, password: &str| {
            Some(Credential::Basic {
                username: username.into(),
                password: password.into(),
            })
        };
        let find = |host| find_in(&config.0, host).unwrap();
        assert_eq!(find("docker.io"), basic("hub", "secret"));
        assert_eq!(find("localhost:5000"), basic("me", "p:q"));
        assert_eq!(find("ghcr.io"), Some(Credential::IdentityToken("refresh".into())));
        assert_eq!(find("empty.io"), None);
        assert_eq!(find("elsewhere.io"), None);
    }

    #[test]
    fn broken_files_and_helpers_are_named() {
        let broken = Config::new("broken", "{");
        let error = find_in(&broken.0, "ghcr.io").unwrap_err().to_string();
        assert!(
            error.contains("ghcr.io") && error.contains("-broken.json"),
            "{error}"
        );
        let helper = Config::new("helper", r#"{"credHelpers":{"ghcr.io":"layeryard-absent"}}"#);
        let error = find_in(&helper.0, "ghcr.io").unwrap_err().to_string();
        assert!(error.contains("helper"), "{error}");
        assert_eq!(find_in(&helper.0, "other.io").unwrap(), None);
        assert_eq!(find_in(Path::new("/nonexistent"), "ghcr.io").unwrap(), None);
    }

    #[test]
    fn the_usual_places_are_searched_in_order() {
        let env = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/h")),
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/run/u")),
            _ => None,
        };
        assert_eq!(
            files(env),
            [
                "/h/.docker/config.json",
                "/run/u/containers/auth.json",
                "/h/.config/containers/auth.json"
            ]
            .map(PathBuf::from)
        );
    }
}
