//! Users, groups, robots and grants in PostgreSQL, kept by the API of one replica and believed by another.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Backends;
use crate::harness::http::Response;
use crate::harness::processes::eventually;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// Who asks which server.
struct Caller<'a> {
    server: &'a Server,
    authorization: String,
}

impl<'a> Caller<'a> {
    fn new(server: &'a Server, user: &str, password: &str) -> Self {
        Self {
            server,
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
        }
    }

    fn send(&self, method: &str, target: &str, body: &Value) -> Response {
        let request = self
            .server
            .request(method, target)
            .header("Authorization", &self.authorization);
        match body {
            Value::Null => request.send(),
            body => request.body(body.to_string()).send(),
        }
    }

    fn api(&self, method: &str, path: &str, body: &Value) -> Response {
        self.send(method, &format!("/api/v1/{path}"), body)
    }

    fn may_push(&self, repository: &str) -> bool {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &Value::Null);
        assert!(
            [202, 401, 403].contains(&answer.status),
            "{repository}: {}",
            answer.text()
        );
        answer.status == 202
    }
}

/// The first administrator, made on the machine of one server.
fn add_root(server: &Server) {
    let password = server.scratch().join("password");
    std::fs::write(&password, "secret").expect("write a password");
    let input = std::fs::File::open(password).expect("open a password");
    Tool::layeryard()
        .args(["user", "add", "root", "--admin", "--data-dir"])
        .arg(server.data_dir())
        .stdin(input)
        .ok();
}

#[test]
fn what_one_replica_is_told_all_of_them_believe() {
    let backends = Backends::start();
    // Whoever asks again and again whether a password is good would have to wait.
    let patient = ["LAYERYARD_ACCESS__LOGINS_PER_MINUTE=100000"];
    let (here, mut there) = (backends.serve(&patient), backends.serve(&patient));
    add_root(&here);
    let root = Caller::new(&here, "root", "secret");
    eventually("the other replica asks for a password", || {
        there.request("GET", "/v2/").send().status == 401
    });
    let user = json!({"name": "dora", "password": "secret"});
    root.api("POST", "users", &user).expect(201);
    root.api("POST", "users", &user).expect_error(409, "EXISTS");
    root.api("PUT", "groups/dev/members/dora", &Value::Null)
        .expect(204);
    let grant = json!({"subject": "group:dev", "pattern": "team/**", "actions": ["pull", "push"]});
    root.api("PUT", "grants", &grant).expect(204);
    let token = json!({
        "name": "ci", "owner": "dora", "expires_in_seconds": 3600,
        "scopes": [{"pattern": "team/app", "actions": ["pull", "push"]}],
    });
    let created = root.api("POST", "tokens", &token).expect(201).json();
    let secret = created["token"].as_str().expect("a token").to_owned();

    for server in [&here, &there] {
        let dora = Caller::new(server, "dora", "secret");
        let robot = Caller::new(server, "ci", &secret);
        eventually("dora may push", || dora.may_push("team/app"));
        eventually("her robot may push", || robot.may_push("team/app"));
        assert!(dora.may_push("team/other") && !dora.may_push("other"));
        assert!(!robot.may_push("team/other"), "more than its scope");
        dora.api("GET", "users", &Value::Null).expect(403);
        assert!(!Caller::new(server, "dora", "wrong").may_push("team/app"));
    }
    let users = Caller::new(&there, "root", "secret").api("GET", "users", &Value::Null);
    let users = users.expect(200).json();
    assert_eq!(users[0]["groups"], json!(["dev"]), "{users}");

    // What is taken away is taken away everywhere, also after a restart.
    root.api("DELETE", "groups/dev/members/dora", &Value::Null)
        .expect(204);
    let [dora, robot] = [("dora", "secret"), ("ci", secret.as_str())];
    eventually("neither may push there", || {
        let may = |(user, password)| Caller::new(&there, user, password).may_push("team/app");
        !may(dora) && !may(robot)
    });
    root.api("PUT", "groups/dev/members/dora", &Value::Null)
        .expect(204);
    root.api("PATCH", "users/dora", &json!({"disabled": true}))
        .expect(204);
    there.stop();
    there.restart();
    assert!(!Caller::new(&there, "dora", "secret").may_push("team/app"));
    assert!(!Caller::new(&there, "ci", &secret).may_push("team/app"));
    root.api(
        "PATCH",
        "users/dora",
        &json!({"disabled": false, "password": "new"}),
    )
    .expect(204);
    root.api("DELETE", "tokens/ci", &Value::Null).expect(204);
    eventually("the new password is good there", || {
        Caller::new(&there, "dora", "new").may_push("team/app")
    });
    eventually("the old ones are not", || {
        let may = |(user, password)| Caller::new(&there, user, password).may_push("team/app");
        !may(dora) && !may(robot)
    });
    let stored = backends.postgres.query("postgres", "SELECT * FROM tokens");
    for kept in [secret[8..].to_owned(), hex::encode(&secret[8..])] {
        assert!(!stored.contains(&kept), "a token in clear: {stored}");
    }
    let stored = backends.postgres.query("postgres", "SELECT * FROM users");
    assert!(
        stored.contains("dora") && stored.contains("$argon2id$"),
        "{stored}"
    );
}
