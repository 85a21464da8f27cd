//! Calls of administrators: users, groups, tokens, grants.

use http::Method;
use reqwest::StatusCode;

use super::Api;
use crate::api::accounts::{
    ChangeUser, GrantInfo, GroupInfo, NewToken, NewUser, TokenCreated, TokenInfo, UserInfo, WhoAmI,
};
use crate::error::Error;

const NOTHING: Option<&()> = None;
const DONE: [StatusCode; 2] = [StatusCode::NO_CONTENT, StatusCode::CREATED];

impl Api {
    /// Who the server takes the caller for.
    pub async fn whoami(&self) -> Result<WhoAmI, Error> {
        let call = self.call(Method::GET, "/api/v1/whoami", "the caller's account");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn users(&self) -> Result<Vec<UserInfo>, Error> {
        let call = self.call(Method::GET, "/api/v1/users", "the list of users");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn add_user(&self, user: &NewUser) -> Result<(), Error> {
        let call = self.call(Method::POST, "/api/v1/users", format!("user {}", user.name));
        self.tell(call, Some(user), &DONE).await
    }

    pub async fn change_user(&self, name: &str, change: &ChangeUser) -> Result<(), Error> {
        let call = self.call(Method::PATCH, &path(&["users", name]), format!("user {name}"));
        self.tell(call, Some(change), &DONE).await
    }

    pub async fn remove_user(&self, name: &str) -> Result<(), Error> {
        let call = self.call(Method::DELETE, &path(&["users", name]), format!("user {name}"));
        self.tell(call, NOTHING, &DONE).await
    }

    pub async fn groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let call = self.call(Method::GET, "/api/v1/groups", "the list of groups");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn add_member(&self, group: &str, member: &str) -> Result<(), Error> {
        let path = path(&["groups", group, "members", member]);
        let call = self.call(Method::PUT, &path, format!("group {group}"));
        self.tell(call, NOTHING, &DONE).await
    }

    pub async fn remove_member(&self, group: &str, member: &str) -> Result<(), Error> {
        let path = path(&["groups", group, "members", member]);
        let call = self.call(Method::DELETE, &path, format!("group {group}"));
        self.tell(call, NOTHING, &DONE).await
    }

    pub async fn remove_group(&self, group: &str) -> Result<(), Error> {
        let call = self.call(
            Method::DELETE,
            &path(&["groups", group]),
            format!("group {group}"),
        );
        self.tell(call, NOTHING, &DONE).await
    }

    /// The caller's tokens; an administrator's list has everybody's.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let call = self.call(Method::GET, "/api/v1/tokens", "the list of tokens");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn create_token(&self, token: &NewToken) -> Result<TokenCreated, Error> {
        let mut call = self.call(Method::POST, "/api/v1/tokens", format!("token {}", token.name));
        // A second one would be refused, and the first one lost.
        call.patient = false;
        self.exchange(call, Some(token), &[StatusCode::CREATED]).await
    }

    pub async fn revoke_token(&self, name: &str) -> Result<(), Error> {
        let call = self.call(Method::DELETE, &path(&["tokens", name]), format!("token {name}"));
        self.tell(call, NOTHING, &DONE).await
    }

    pub async fn grants(&self) -> Result<Vec<GrantInfo>, Error> {
        let call = self.call(Method::GET, "/api/v1/grants", "the list of grants");
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn put_grant(&self, grant: &GrantInfo) -> Result<(), Error> {
        let call = self.call(
            Method::PUT,
            "/api/v1/grants",
            format!("a grant for {}", grant.subject),
        );
        self.tell(call, Some(grant), &DONE).await
    }

    pub async fn remove_grant(&self, subject: &str, pattern: &str) -> Result<(), Error> {
        let mut call = self.call(
            Method::DELETE,
            "/api/v1/grants",
            format!("the grant for {subject}"),
        );
        call.url
            .query_pairs_mut()
            .append_pair("subject", subject)
            .append_pair("pattern", pattern);
        self.tell(call, NOTHING, &DONE).await
    }
}

/// A path below /api/v1 whose parts may hold anything.
fn path(parts: &[&str]) -> String {
    let mut path = "/api/v1".to_owned();
    for part in parts {
        path.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    path
}
