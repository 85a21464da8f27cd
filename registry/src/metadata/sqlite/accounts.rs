//! Users, groups, tokens, grants.

use async_trait::async_trait;
use oci::RepoName;
use oci::access::NameRange;
use sqlx::sqlite::SqliteConnection;

use super::rows::{During, repository};
use super::writer::Durability::{Async, Durable};
use super::{Sqlite, now};
use crate::metadata::accounts::{
    AccountRows, Accounts, Change, GrantRow, TokenRow, TokenTuple, UserChange, UserRow, UserTuple, Value, sql,
};
use crate::metadata::{Lists, Result};

#[async_trait]
impl Accounts for Sqlite {
    async fn policy_version(&self) -> Result<i64> {
        sqlx::query_scalar(sql::VERSION)
            .fetch_one(&self.readers)
            .await
            .during("reading the policy's version")
    }

    async fn accounts(&self) -> Result<AccountRows> {
        let doing = "reading accounts";
        let mut reader = self.readers.begin().await.during(doing)?;
        let version = sqlx::query_scalar(sql::VERSION)
            .fetch_one(&mut *reader)
            .await
            .during(doing)?;
        let users: Vec<UserTuple> = sqlx::query_as(sql::USERS)
            .fetch_all(&mut *reader)
            .await
            .during(doing)?;
        let groups = sqlx::query_scalar(sql::GROUPS)
            .fetch_all(&mut *reader)
            .await
            .during(doing)?;
        let members = sqlx::query_as(sql::MEMBERS)
            .fetch_all(&mut *reader)
            .await
            .during(doing)?;
        let tokens: Vec<TokenTuple> = sqlx::query_as(sql::TOKENS)
            .fetch_all(&mut *reader)
            .await
            .during(doing)?;
        let grants: Vec<(String, String, String)> = sqlx::query_as(sql::GRANTS)
            .fetch_all(&mut *reader)
            .await
            .during(doing)?;
        reader.commit().await.during(doing)?;
        Ok(AccountRows {
            version,
            users: users.into_iter().map(Into::into).collect(),
            groups,
            members,
            tokens: tokens.into_iter().map(Into::into).collect(),
            grants: grants.into_iter().map(Into::into).collect(),
        })
    }

    async fn add_user(&self, user: UserRow) -> Result<bool> {
        self.change(Change::add_user(user)).await
    }

    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool> {
        self.change(Change::change_user(name, change, now())).await
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
        let used = used.to_vec();
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    for (name, at) in used {
                        sqlx::query(sql::TOUCH_TOKEN)
                            .bind(name)
                            .bind(at)
                            .execute(&mut *connection)
                            .await
                            .during("noting that a token was used")?;
                    }
                    Ok(())
                })
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
        let (name, fresh) = (name.to_owned(), fresh.to_vec());
        self.writer
            .run(Durable, move |connection| {
                Box::pin(secret(connection, name, fresh))
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
        let names: Vec<String> = sqlx::query_scalar(sql::REPOSITORIES_IN)
            .bind(after)
            .bind(&range.low)
            .bind(high)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .during("listing repositories of a range")?;
        names.iter().map(|name| repository(name)).collect()
    }
}

impl Sqlite {
    /// Runs a change and raises the version. False: there was nothing to do.
    async fn change(&self, change: Change) -> Result<bool> {
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    let doing = change.doing;
                    for (index, statement) in change.statements.into_iter().enumerate() {
                        let mut query = sqlx::query(statement.sql);
                        for value in statement.values {
                            query = match value {
                                Value::Text(text) => query.bind(text),
                                Value::MaybeText(text) => query.bind(text),
                                Value::Number(number) => query.bind(number),
                                Value::MaybeNumber(number) => query.bind(number),
                                Value::Bytes(bytes) => query.bind(bytes),
                            };
                        }
                        let done = query.execute(&mut *connection).await.during(doing)?;
                        if index == 0 && done.rows_affected() == 0 {
                            return Ok(false);
                        }
                    }
                    sqlx::query(sql::BUMP).execute(connection).await.during(doing)?;
                    Ok(true)
                })
            })
            .await
    }
}

async fn secret(connection: &mut SqliteConnection, name: String, fresh: Vec<u8>) -> Result<Vec<u8>> {
    let doing = "reading a shared secret";
    sqlx::query(sql::ADD_SECRET)
        .bind(&name)
        .bind(fresh)
        .bind(now())
        .execute(&mut *connection)
        .await
        .during(doing)?;
    sqlx::query_scalar(sql::SECRET)
        .bind(name)
        .fetch_one(connection)
        .await
        .during(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[tokio::test]
    async fn ranges_of_the_catalog_are_ranges_of_an_index() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let store = Sqlite::open(&path, &Limits::default()).await.unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {}", sql::REPOSITORIES_IN);
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(explain))
            .fetch_all(&store.readers)
            .await
            .unwrap();
        let steps: Vec<&str> = plan.iter().map(|(.., detail)| detail.as_str()).collect();
        let good =
            |step: &&str| step.starts_with("SEARCH") && step.contains("repositories_in_catalog (name>");
        assert!(steps.iter().all(good), "{steps:?}");
    }
}
