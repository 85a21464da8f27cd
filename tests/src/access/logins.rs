//! Passwords, tokens and accounts at the door.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::harness::paths;
use crate::harness::processes::eventually;
use crate::harness::token_server::TokenServer;
use crate::harness::tool::Tool;

#[test]
fn other_addresses_need_a_decision() {
    let dir = paths::scratch();
    let serve = |args: &[&str]| {
        Tool::layeryard()
            .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
            .arg(dir.path())
            .args(args)
            .run()
    };
    let ran = serve(&[]);
    assert_eq!(ran.code, Some(2), "{ran}");
    assert!(ran.stderr.contains("anonymous"), "{ran}");
}

#[test]
fn wrong_passwords_are_refused_and_counted() {
    let server = Server::start_prepared(
        "[access]\nhtpasswd = 'DIR/htpasswd'\nlogins_per_minute = 5\naudit_log = 'DIR/audit.log'\n",
        |dir| fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file"),
    );
    for (user, password) in [("anna", "Secret"), ("anna", ""), ("nobody", "secret")] {
        let answer = send(&server, "GET", "/v2/", &basic(user, password));
        answer.expect_error(401, "UNAUTHORIZED");
    }
    for _ in 0..20 {
        // Known for a minute: not counted again.
        send(&server, "GET", "/v2/", &basic("anna", "secret")).expect(200);
    }
    send(&server, "GET", "/v2/", &basic("anna", "wrong")).expect(401);
    let answer = send(&server, "GET", "/v2/", &basic("bert", "secret")).expect_error(429, "TOOMANYREQUESTS");
    let wait: u64 = answer
        .header("retry-after")
        .and_then(|text| text.parse().ok())
        .expect("a time");
    assert!((1..=60).contains(&wait), "{wait}");
    send(&server, "GET", "/v2/", &basic("anna", "secret")).expect(200);
    let audit = fs::read_to_string(server.scratch().join("audit.log")).expect("the audit log");
    let lines: Vec<Value> = audit
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let refused = |who: &str| {
        lines
            .iter()
            .filter(|line| line["who"] == who && line["outcome"] == "refused")
            .count()
    };
    assert_eq!(
        (refused("anna"), refused("nobody"), refused("bert")),
        (3, 1, 1),
        "{audit}"
    );
    assert!(lines.iter().all(|line| line["address"] == "127.0.0.1"), "{audit}");
    assert!(!audit.contains("secret") && !audit.contains("Secret"), "{audit}");
}

/// A client opens many connections at once, each with its password: that is one log-in.
#[test]
fn requests_that_come_together_log_in_once() {
    let hash = bcrypt::hash("secret", 10).expect("hash a password");
    let server = Server::start_prepared(
        "[access]\nhtpasswd = 'DIR/htpasswd'\nlogins_per_minute = 5\naudit_log = 'DIR/audit.log'\n",
        |dir| fs::write(dir.join("htpasswd"), format!("anna:{hash}\n")).expect("write a password file"),
    );
    let together = Barrier::new(40);
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                together.wait();
                send(&server, "GET", "/v2/", &basic("anna", "secret")).expect(200);
            });
        }
    });
    let audit = fs::read_to_string(server.scratch().join("audit.log")).expect("the audit log");
    assert_eq!(audit.matches(r#""login""#).count(), 1, "{audit}");
}

#[test]
fn broken_headers_are_refused() {
    let server = guarded();
    for header in [
        "Basic",
        "Basic !!!",
        "Bearer",
        "Bearer a b",
        "Digest x",
        "Bearer eyJ.eyJ.x",
        "Basic OnNlY3JldA==",
    ] {
        let answer = send(&server, "GET", "/v2/", header);
        answer.expect_error(401, "UNAUTHORIZED");
    }
}

#[test]
fn a_changed_password_file_is_believed() {
    let server = guarded();
    send(&server, "GET", "/v2/", &basic("carl", "secret")).expect(200);
    let given = token(&server, Some("carl"), "registry:catalog:*");
    send(&server, "GET", "/v2/", &bearer(&given)).expect(200);
    let hash = bcrypt::hash("other", 4).expect("hash a password");
    let text = htpasswd().replace("carl:", &format!("carl:{hash}\nold:"));
    fs::write(server.scratch().join("htpasswd"), text).expect("write a password file");
    eventually("the new password", || {
        send(&server, "GET", "/v2/", &basic("carl", "other")).status == 200
    });
    send(&server, "GET", "/v2/", &basic("carl", "secret")).expect(401);
    send(&server, "GET", "/v2/", &bearer(&given)).expect_error(401, "UNAUTHORIZED");
}

/// What an administrator does on the command line, from the first user on.
#[test]
fn accounts_are_kept_in_the_database() {
    let server = Server::start();
    server.request("GET", "/v2/").send().expect(200);
    let run = |args: &[&str], input: &str| {
        let path = server.scratch().join("input");
        fs::write(&path, input).expect("write a password");
        let tool = Tool::layeryard()
            .args(args)
            .arg("--data-dir")
            .arg(server.data_dir());
        tool.stdin(fs::File::open(path).expect("open a password"))
    };
    run(&["user", "add", "root", "--admin"], "secret\n").ok();
    server.request("GET", "/v2/").send().expect(401);
    run(&["user", "add", "dora"], "secret").ok();
    let ran = run(&["user", "add", "dora"], "secret").fails();
    assert!(ran.stderr.contains("exists already"), "{ran}");
    run(&["group", "add", "dev", "dora"], "").ok();
    run(&["grant", "add", "group:dev", "team/**", "pull,push"], "").ok();
    let dora = basic("dora", "secret");
    send(&server, "POST", "/v2/team/app/blobs/uploads/", &dora).expect(202);
    send(&server, "POST", "/v2/other/blobs/uploads/", &dora).expect(403);
    send(&server, "GET", "/api/v1/users", &dora).expect(403);
    let users = send(&server, "GET", "/api/v1/users", &basic("root", "secret"))
        .expect(200)
        .json();
    assert_eq!(users[0]["name"], "dora");
    assert_eq!(users[0]["groups"], json!(["dev"]));
    let list = run(&["grant", "list"], "").ok();
    assert!(list.contains("group:dev") && list.contains("team/**"), "{list}");

    // Tokens end with their owner's rights.
    let secret = run(
        &[
            "token",
            "create",
            "ci",
            "--allow",
            "team/app=push,pull",
            "--owner",
            "dora",
        ],
        "",
    )
    .ok();
    assert!(secret.starts_with("lyrobot_"), "{secret}");
    let robot = basic("whatever", &secret);
    send(&server, "POST", "/v2/team/app/blobs/uploads/", &robot).expect(202);
    send(
        &server,
        "POST",
        "/v2/team/app/blobs/uploads/",
        &format!("Bearer {secret}"),
    )
    .expect(202);
    send(&server, "POST", "/v2/team/other/blobs/uploads/", &robot).expect(403);
    let list = run(&["token", "list"], "").ok();
    assert!(list.contains("dora") && !list.contains(&secret), "{list}");
    run(&["user", "disable", "dora"], "").ok();
    send(&server, "POST", "/v2/team/app/blobs/uploads/", &robot).expect(401);
    send(&server, "POST", "/v2/team/app/blobs/uploads/", &dora).expect(401);
    run(&["user", "enable", "dora"], "").ok();
    send(&server, "POST", "/v2/team/app/blobs/uploads/", &dora).expect(202);
    run(&["group", "remove", "dev", "dora"], "").ok();
    send(&server, "POST", "/v2/team/app/blobs/uploads/", &robot).expect(403);
    run(&["token", "revoke", "ci"], "").ok();
    send(&server, "POST", "/v2/team/app/blobs/uploads/", &robot).expect(401);

    let brief = run(
        &[
            "token",
            "create",
            "brief",
            "--allow",
            "**=pull",
            "--expires",
            "1s",
        ],
        "",
    )
    .ok();
    send(&server, "GET", "/v2/", &basic("x", &brief)).expect(200);
    thread::sleep(Duration::from_millis(1100));
    send(&server, "GET", "/v2/", &basic("x", &brief)).expect(401);
    let database = fs::read(server.data_dir().join("registry.db")).unwrap_or_default();
    let log = fs::read(server.data_dir().join("registry.db-wal")).unwrap_or_default();
    for kept in [database, log] {
        let found = |secret: &[u8]| kept.windows(secret.len()).any(|window| window == secret);
        assert!(
            !found(brief.as_bytes()) && !found(&brief.as_bytes()[8..]),
            "a token in clear"
        );
    }
}

#[test]
fn tokens_have_what_is_both_asked_and_allowed() {
    let server = guarded();
    push(&server, "team/app", "v1", "tokens");
    let wide =
        "repository:team/app:pull,push,delete&scope=repository:private/x:pull&scope=repository:public/y:pull";
    let given = token(&server, Some("bert"), wide);
    assert_eq!(given["token"], given["access_token"]);
    assert_eq!(given["expires_in"], 300);
    assert!(
        given["issued_at"].is_string() && given["refresh_token"].is_null(),
        "{given}"
    );
    let tags = |authorization: &str| send(&server, "GET", "/v2/team/app/tags/list", authorization);
    tags(&bearer(&given)).expect(200);
    let target = "/v2/team/app/manifests/v1";
    let refused = send(&server, "DELETE", target, &bearer(&given));
    refused.expect_error(403, "DENIED");

    let narrow = token(&server, Some("bert"), "repository:team/app:pull");
    let refused = send(&server, "POST", "/v2/team/app/blobs/uploads/", &bearer(&narrow))
        .expect_error(401, "UNAUTHORIZED");
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert!(
        challenge.contains("scope=\"repository:team/app:pull,push\"")
            && challenge.contains("insufficient_scope"),
        "{challenge}"
    );
    let nobody = token(&server, None, "repository:team/app:pull");
    tags(&bearer(&nobody)).expect(403);
    send(&server, "GET", "/v2/", &bearer(&nobody)).expect(200);
    let wrong = server
        .request("GET", "/token?scope=repository:team/app:pull")
        .header("Authorization", basic("bert", "wrong"))
        .send();
    wrong.expect_error(401, "UNAUTHORIZED");
    server.request("GET", "/token?scope=nonsense").send().expect(400);
}

#[test]
fn identity_tokens_get_other_tokens_and_open_nothing_themselves() {
    let server = guarded();
    push(&server, "team/app", "v1", "identity");
    let form = |body: String| {
        server
            .request("POST", "/token")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
    };
    let scope = "service=layeryard&client_id=docker&scope=repository%3Ateam%2Fapp%3Apull";
    let first = form(format!(
        "grant_type=password&username=bert&password=secret&access_type=offline&{scope}"
    ))
    .expect(200)
    .json();
    let refresh = first["refresh_token"]
        .as_str()
        .expect("an identity token")
        .to_owned();
    let second = form(format!(
        "grant_type=refresh_token&refresh_token={refresh}&{scope}"
    ))
    .expect(200)
    .json();
    assert_eq!(second["refresh_token"], *refresh, "Docker keeps the old one");
    let tags = |authorization: &str| send(&server, "GET", "/v2/team/app/tags/list", authorization);
    tags(&bearer(&second)).expect(200);
    tags(&format!("Bearer {refresh}")).expect(401);
    let access = second["token"].as_str().expect("a token");
    form(format!("grant_type=refresh_token&refresh_token={access}&{scope}")).expect(401);
    form(format!("grant_type=refresh_token&refresh_token=x&{scope}")).expect(401);
    form("grant_type=magic".to_owned()).expect(400);
    form(format!("grant_type=password&username={}", "x".repeat(100_000))).expect(413);
}

/// The tests' token service, which distribution trusts too, before this registry.
#[test]
fn tokens_of_an_external_service_are_believed() {
    let dir = paths::scratch();
    let service = TokenServer::start(dir.path());
    let server = Server::start_with(&format!(
        "[access]\nanonymous = 'none'\n{}",
        service.layeryard_config()
    ));
    let answer = server.request("GET", "/v2/").send().expect(401);
    let challenge = answer.header("www-authenticate").expect("a challenge").to_owned();
    assert!(
        challenge.contains("service=\"peer\"") && !challenge.contains(&server.host()),
        "{challenge}"
    );
    let image = crate::harness::image::Image::small(720);
    image.write_layout(&server.scratch().join("layout"), "v1");
    let name = format!("docker://{}/team/app:v1", server.host());
    let creds = format!(
        "{}:{}",
        crate::harness::upstream::USER,
        crate::harness::upstream::PASSWORD
    );
    let skopeo = || Tool::debian("skopeo").arg("--insecure-policy");
    skopeo()
        .args(["copy", "--dest-tls-verify=false", "--dest-creds", &creds])
        .arg(format!("oci:{}:v1", server.scratch().join("layout").display()))
        .arg(&name)
        .ok();
    let inspect = ["inspect", "--raw", "--tls-verify=false"];
    skopeo().args(inspect).args(["--creds", &creds]).arg(&name).ok();
    skopeo().args(inspect).arg(&name).fails();
    // Its tokens name repositories; nobody becomes an administrator by one.
    let other = TokenServer::start(server.scratch());
    let forged = other.token_for("repository:team/app:pull");
    send(
        &server,
        "GET",
        "/v2/team/app/tags/list",
        &format!("Bearer {forged}"),
    )
    .expect(401);
    let real = service.token_for("repository:team/app:pull");
    send(
        &server,
        "GET",
        "/v2/team/app/tags/list",
        &format!("Bearer {real}"),
    )
    .expect(200);
    send(
        &server,
        "GET",
        "/v2/team/other/tags/list",
        &format!("Bearer {real}"),
    )
    .expect(403);
    send(&server, "GET", "/api/v1/users", &format!("Bearer {real}")).expect(403);
}

/// The worker's and builds' own tokens open the unix socket alone.
#[test]
fn the_local_administrators_token_is_good_on_the_socket_alone() {
    let server = guarded();
    let secret = fs::read_to_string(server.data_dir().join("run/admin.token")).expect("the token");
    send(&server, "GET", "/api/v1/users", &format!("Bearer {secret}")).expect(401);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(server.data_dir().join("run/admin.token"))
            .expect("the token")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let curl = Tool::debian("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]);
    let code = curl
        .arg(server.data_dir().join("run/api.sock"))
        .args([
            "-H",
            &format!("Authorization: Bearer {secret}"),
            "http://localhost/api/v1/users",
        ])
        .ok();
    assert_eq!(code, "200");
}

#[test]
fn proxies_that_are_trusted_tell_the_address() {
    let config = |proxies: &str| {
        format!("{USERS}\n").replace(
            "logins_per_minute = 1000",
            &format!("logins_per_minute = 2\ntrusted_proxies = {proxies}"),
        )
    };
    for (proxies, refused) in [("['127.0.0.0/8']", false), ("[]", true)] {
        let server = Server::start_prepared(&config(proxies), |dir| {
            fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file");
        });
        let try_from = |address: &str, user: &str| {
            let request = server
                .request("GET", "/v2/")
                .header("Authorization", basic(user, "wrong"));
            request
                .header("X-Forwarded-For", format!("6.6.6.6, {address}"))
                .send()
                .status
        };
        assert_eq!(
            [
                try_from("10.0.0.1", "a"),
                try_from("10.0.0.1", "b"),
                try_from("10.0.0.1", "c")
            ],
            [401, 401, 429]
        );
        assert_eq!(try_from("10.0.0.2", "d") == 429, refused, "{proxies}");
    }
}
