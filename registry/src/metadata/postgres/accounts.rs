//! Users, groups, tokens, grants.

use async_trait::async_trait;
use oci::RepoName;
use oci::access::NameRange;

use super::Durability::{Async, Durable};
use super::Postgres;
use super::collection::now;
use super::rows::{During, repository};
use super::transaction::commit;
use crate::metadata::accounts::{
    AccountRows, Accounts, Change, GrantRow, TokenRow, TokenTuple, UserChange, UserRow, UserTuple, Value, sql,
};
use crate::metadata::{Lists, Result};

/// One moment for all that is read.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

#[async_trait]
impl Accounts for Postgres {
    async fn policy_version(&self) -> Result<i64> {
        self.retrying(|| async {
            sqlx::query_scalar(sql::VERSION)
                .fetch_one(&self.pool())
                .await
                .during("reading the policy's version")
        })
        .await
    }

    async fn accounts(&self) -> Result<AccountRows> {
        self.retrying(|| self.read_accounts()).await
    }

    async fn add_user(&self, user: UserRow) -> Result<bool> {
        self.change(Change::add_user(user)).await
    }

    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool> {
        let now = now(&self.pool()).await?;
        self.change(Change::change_user(name, change, now)).await
    }

    async fn delete_user(&self, name: &str) -> Result<bool> {
        self.change(Change::delete_user(name)).await
    }

    async fn add_member(&self, group: &str, member: &str) -> Result<bool> {
        self.change(Change::add_group(group)).await?;
        self.change(Change::add_member(group, member)).await
    }

    async fn remove_member(&self, group: &str, member: &str) -> Result<bool> {
        self.change(Change::remove_member(group, member)).await
    }

    async fn delete_group(&self, name: &str) -> Result<bool> {
        self.change(Change::delete_group(name)).await
    }

    async fn add_token(&self, token: TokenRow) -> Result<bool> {
        self.change(Change::add_token(token)).await
    }

    async fn delete_token(&self, name: &str) -> Result<bool> {
        self.change(Change::delete_token(name)).await
    }

    async fn touch_tokens(&self, used: &[(String, i64)]) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            for (name, at) in used {
                sqlx::query(sql::TOUCH_TOKEN)
                    .bind(name)
                    .bind(at)
                    .execute(&mut *tx)
                    .await
                    .during("noting that a token was used")?;
            }
            commit(tx).await
        })
        .await
    }

    async fn put_grant(&self, grant: GrantRow) -> Result<()> {
        self.change(Change::put_grant(&grant)).await?;
        Ok(())
    }

    async fn delete_grant(&self, subject: &str, pattern: &str) -> Result<bool> {
        self.change(Change::delete_grant(subject, pattern)).await
    }

    async fn shared_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
        let doing = "reading a shared secret";
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            let now = now(&mut *tx).await?;
            sqlx::query(sql::ADD_SECRET)
                .bind(name)
                .bind(fresh)
                .bind(now)
                .execute(&mut *tx)
                .await
                .during(doing)?;
            let secret = sqlx::query_scalar(sql::SECRET)
                .bind(name)
                .fetch_one(&mut *tx)
                .await
                .during(doing)?;
            commit(tx).await?;
            Ok(secret)
        })
        .await
    }

    async fn list_repositories_in(
        &self,
        range: &NameRange,
        after: &str,
        limit: u32,
    ) -> Result<Vec<RepoName>> {
        let Some(high) = &range.high else {
            // Only the range of all names has no end.
            return self.list_repositories(Some(after), limit).await;
        };
        let names: Vec<String> = self
            .retrying(|| async {
                sqlx::query_scalar(sql::REPOSITORIES_IN)
                    .bind(after)
                    .bind(&range.low)
                    .bind(high)
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool())
                    .await
                    .during("listing repositories of a range")
            })
            .await?;
        names.iter().map(|name| repository(name)).collect()
    }
}

impl Postgres {
    async fn read_accounts(&self) -> Result<AccountRows> {
        let doing = "reading accounts";
        let mut tx = self.pool().begin_with(SNAPSHOT).await.during(doing)?;
        let version = sqlx::query_scalar(sql::VERSION)
            .fetch_one(&mut *tx)
            .await
            .during(doing)?;
        let users: Vec<UserTuple> = sqlx::query_as(sql::USERS)
            .fetch_all(&mut *tx)
            .await
            .during(doing)?;
        let groups = sqlx::query_scalar(sql::GROUPS)
            .fetch_all(&mut *tx)
            .await
            .during(doing)?;
        let members = sqlx::query_as(sql::MEMBERS)
            .fetch_all(&mut *tx)
            .await
            .during(doing)?;
        let tokens: Vec<TokenTuple> = sqlx::query_as(sql::TOKENS)
            .fetch_all(&mut *tx)
            .await
            .during(doing)?;
        let grants: Vec<(String, String, String)> = sqlx::query_as(sql::GRANTS)
            .fetch_all(&mut *tx)
            .await
            .during(doing)?;
        commit(tx).await?;
        Ok(AccountRows {
            version,
            users: users.into_iter().map(Into::into).collect(),
            groups,
            members,
            tokens: tokens.into_iter().map(Into::into).collect(),
            grants: grants.into_iter().map(Into::into).collect(),
        })
    }

    /// Runs a change and raises the version. False: there was nothing to do.
    async fn change(&self, change: Change) -> Result<bool> {
        let change = &change;
        self.retrying(|| async move {
            let mut tx = self.begin(Durable).await?;
            for (index, statement) in change.statements.iter().enumerate() {
                let mut query = sqlx::query(statement.sql);
                for value in statement.values.clone() {
                    query = match value {
                        Value::Text(text) => query.bind(text),
                        Value::MaybeText(text) => query.bind(text),
                        Value::Number(number) => query.bind(number),
                        Value::MaybeNumber(number) => query.bind(number),
                        Value::Bytes(bytes) => query.bind(bytes),
                    };
                }
                let done = query.execute(&mut *tx).await.during(change.doing)?;
                if index == 0 && done.rows_affected() == 0 {
                    return Ok(false);
                }
            }
            sqlx::query(sql::BUMP)
                .execute(&mut *tx)
                .await
                .during(change.doing)?;
            commit(tx).await?;
            Ok(true)
        })
        .await
    }
}
