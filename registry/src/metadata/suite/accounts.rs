//! Users, groups, tokens, grants.

use oci::access::{NameRange, RepoPattern};

use super::*;
use crate::metadata::accounts::{GrantRow, TokenRow, UserChange, UserRow};

fn user(name: &str) -> UserRow {
    UserRow {
        name: name.to_owned(),
        password_hash: Some("$argon2id$old".to_owned()),
        admin: false,
        disabled_at: None,
        created_at: 1,
    }
}

fn token(name: &str, owner: &str) -> TokenRow {
    TokenRow {
        name: name.to_owned(),
        sha256: Digest::sha256(name.as_bytes()).to_bytes(),
        owner: owner.to_owned(),
        scopes: "[]".to_owned(),
        created_at: 2,
        expires_at: Some(3),
        last_used_at: None,
    }
}

fn grant(subject: &str, actions: &str) -> GrantRow {
    GrantRow {
        subject: subject.to_owned(),
        pattern: "team/**".to_owned(),
        actions: actions.to_owned(),
    }
}

pub(super) async fn every_change_raises_the_version(store: &dyn MetadataStore) {
    let mut version = store.policy_version().await.unwrap();
    let mut raised = async || {
        let before = std::mem::replace(&mut version, store.policy_version().await.unwrap());
        version > before
    };
    assert!(store.add_user(user("anna")).await.unwrap() && raised().await);
    assert!(!store.add_user(user("anna")).await.unwrap() && !raised().await);
    let change = UserChange {
        password_hash: Some("$argon2id$new".to_owned()),
        admin: Some(true),
        disabled: Some(true),
    };
    assert!(store.change_user("anna", change).await.unwrap() && raised().await);
    assert!(!store.change_user("nobody", UserChange::default()).await.unwrap() && !raised().await);
    let anna = store.accounts().await.unwrap().users.remove(0);
    assert_eq!(
        (anna.password_hash.as_deref(), anna.admin),
        (Some("$argon2id$new"), true)
    );
    assert!(anna.disabled_at.is_some());
    let change = UserChange {
        disabled: Some(false),
        ..UserChange::default()
    };
    assert!(store.change_user("anna", change).await.unwrap() && raised().await);
    let anna = store.accounts().await.unwrap().users.remove(0);
    assert_eq!((anna.disabled_at, anna.admin), (None, true));

    assert!(store.add_member("ops", "anna").await.unwrap() && raised().await);
    assert!(!store.add_member("ops", "anna").await.unwrap());
    assert!(store.remove_member("ops", "anna").await.unwrap() && raised().await);
    assert!(!store.remove_member("ops", "anna").await.unwrap());
    assert!(store.add_token(token("ci", "anna")).await.unwrap() && raised().await);
    assert!(!store.add_token(token("ci", "bert")).await.unwrap() && !raised().await);
    store.touch_tokens(&[("ci".to_owned(), 77)]).await.unwrap();
    assert!(!raised().await, "use is no change of the policy");
    assert_eq!(store.accounts().await.unwrap().tokens[0].last_used_at, Some(77));
    assert!(store.delete_token("ci").await.unwrap() && raised().await);
    assert!(!store.delete_token("ci").await.unwrap());
    store.put_grant(grant("group:ops", "pull")).await.unwrap();
    store.put_grant(grant("group:ops", "pull,push")).await.unwrap();
    assert!(raised().await);
    assert_eq!(
        store.accounts().await.unwrap().grants,
        [grant("group:ops", "pull,push")]
    );
    assert!(store.delete_group("ops").await.unwrap() && raised().await);
    assert!(!store.delete_group("ops").await.unwrap());
    let rows = store.accounts().await.unwrap();
    assert!(
        rows.grants.is_empty() && rows.groups.is_empty(),
        "a group's grants go with it"
    );
    assert_eq!(rows.version, store.policy_version().await.unwrap());
    assert!(store.delete_user("anna").await.unwrap());
}

pub(super) async fn what_a_user_had_goes_with_it(store: &dyn MetadataStore) {
    for name in ["carl", "dora"] {
        assert!(store.add_user(user(name)).await.unwrap());
        assert!(store.add_member("pair", name).await.unwrap());
        assert!(store.add_token(token(&format!("{name}-ci"), name)).await.unwrap());
        store
            .put_grant(grant(&format!("user:{name}"), "pull"))
            .await
            .unwrap();
    }
    assert!(store.delete_user("carl").await.unwrap());
    assert!(!store.delete_user("carl").await.unwrap());
    let rows = store.accounts().await.unwrap();
    assert_eq!(rows.members, [("pair".to_owned(), "dora".to_owned())]);
    assert_eq!(rows.tokens, [token("dora-ci", "dora")]);
    assert_eq!(rows.grants, [grant("user:dora", "pull")]);
    assert!(store.delete_group("pair").await.unwrap() && store.delete_user("dora").await.unwrap());
    assert!(store.accounts().await.unwrap().tokens.is_empty());
}

pub(super) async fn secrets_are_made_once(store: &dyn MetadataStore) {
    assert_eq!(store.shared_secret("suite", b"first").await.unwrap(), b"first");
    assert_eq!(store.shared_secret("suite", b"second").await.unwrap(), b"first");
    assert_eq!(
        store.shared_secret("suite other", b"second").await.unwrap(),
        b"second"
    );
}

pub(super) async fn ranges_are_listed(store: &dyn MetadataStore) {
    for name in ["ranges", "ranges/a", "ranges/a/b", "ranges/c", "ranges0"] {
        stored(store, manifest(&repo(name), "in every one")).await;
    }
    let list = async |pattern: &str, after: &str, limit| {
        let range: NameRange = pattern.parse::<RepoPattern>().unwrap().range();
        let names = store.list_repositories_in(&range, after, limit).await.unwrap();
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        list("ranges/**", "", 9).await,
        ["ranges/a", "ranges/a/b", "ranges/c"]
    );
    assert_eq!(list("ranges/**", "ranges/a", 1).await, ["ranges/a/b"]);
    assert_eq!(list("ranges", "", 9).await, ["ranges"]);
    assert_eq!(list("ranges", "ranges", 9).await, [""; 0]);
    assert_eq!(list("**", "ranges/c", 1).await, ["ranges0"]);
}
