//! What an existing keystone brings along: its Fernet keys with the tokens made of them, and its users' password hashes.
//! Its own code, from the registry, makes and reads them (`scripts/upstream-keystone`).

use crate::cloud::{Cloud, Subject};
use base::Json;
use db::params;
use serde_json::json;
use std::{
    io::Write,
    process::{Command, Stdio},
};

fn upstream(asked: Json) -> Json {
    let python = std::env::var("FERROSTACK_UPSTREAM_PYTHON").expect("FERROSTACK_UPSTREAM_PYTHON is set");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/upstream-keystone");
    let mut child =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{asked}");
    serde_json::from_slice(&done.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs upstream's own code: make test-identity"]
async fn tokens_made_by_upstream_with_our_keys_are_good_here_and_ours_there() {
    let cloud = Cloud::new().await;
    let keys = cloud.directory.path().join("fernet-keys");
    let (project, user, token) = cloud.person("ann", "member").await;
    let domain_role = format!("domains/default/users/{user}/roles/{}", cloud.role("reader").await);
    cloud.grant(&domain_role).await;
    cloud.grant(&format!("system/users/{user}/roles/{}", cloud.role("reader").await)).await;
    let robot = json!({"application_credential": {"name": "robot", "secret": "s3"}});
    let path = format!("/v3/users/{user}/application_credentials");
    let robot = cloud.call("POST", &path, &token, robot).await.body["application_credential"]["id"].clone();
    let until = cloud.clock.now().plus(std::time::Duration::from_secs(600)).micros_z();
    let make = |payload: &str, scope: Json, methods: Json| {
        let mut asked = json!({"work": "make", "keys": keys, "payload": payload, "user_id": user,
            "methods": methods, "expires_at": until, "audit_ids": ["3T2dc1CGQxyJsHdDu1xkcw"]});
        asked.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
        upstream(asked)["token"].as_str().unwrap().to_string()
    };
    let show = async |token: &str| {
        let headers = [("x-auth-token", cloud.admin.as_str()), ("x-subject-token", token)];
        cloud.ask("GET", "/v3/auth/tokens", &headers, None).await
    };
    for (payload, scope, methods, shown) in [
        ("unscoped", json!({}), json!(["password"]), json!({})),
        (
            "project",
            json!({"project_id": project}),
            json!(["password", "token"]),
            json!({"project": project}),
        ),
        ("domain", json!({"domain_id": "default"}), json!(["password"]), json!({"domain": "default"})),
        ("system", json!({"system": "all"}), json!(["password"]), json!({})),
        (
            "application_credential",
            json!({"project_id": project, "app_cred_id": robot}),
            json!(["application_credential"]),
            json!({"project": project, "application_credential": robot}),
        ),
    ] {
        let answer = show(&make(payload, scope, methods.clone())).await;
        assert_eq!(answer.status, 200, "{payload}: {}", answer.body);
        let token = &answer.body["token"];
        assert_eq!((&token["user"]["id"], &token["expires_at"]), (&json!(user), &json!(until)), "{payload}");
        assert_eq!(token["audit_ids"], json!(["3T2dc1CGQxyJsHdDu1xkcw"]), "{payload}");
        let mut found: Vec<&str> =
            token["methods"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(json!(found), methods, "{payload}");
        for (part, id) in shown.as_object().unwrap() {
            assert_eq!(token[part]["id"], *id, "{payload}");
        }
    }

    let read = upstream(json!({"work": "read", "keys": keys, "token": token}));
    assert_eq!((&read["user_id"], &read["project_id"]), (&json!(user), &json!(project)));
    let before = make("project", json!({"project_id": project}), json!(["password"]));
    upstream(json!({"work": "rotate", "keys": keys}));
    cloud.keystone.keep_keys().unwrap();
    assert_eq!(show(&before).await.status, 200, "made before upstream rotated the keys");
    let after = make("project", json!({"project_id": project}), json!(["password"]));
    assert_eq!(show(&after).await.status, 200, "made after");
    let ours = cloud.sign_in("ann", "pw", Json::Null).await.token();
    assert_eq!(upstream(json!({"work": "read", "keys": keys, "token": ours}))["user_id"], user.as_str());

    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("keys")).unwrap();
    let strange = other.path().join("keys");
    upstream(json!({"work": "set up", "keys": strange}));
    let forged = upstream(json!({"work": "make", "keys": strange, "payload": "unscoped", "user_id": user,
        "methods": ["password"], "expires_at": until, "audit_ids": ["3T2dc1CGQxyJsHdDu1xkcw"]}));
    assert_eq!(show(forged["token"].as_str().unwrap()).await.status, 404, "another cloud's keys");
}

#[tokio::test]
#[ignore = "needs upstream's own code: make test-identity"]
async fn users_bring_the_hashes_that_upstream_made() {
    let cloud = Cloud::new().await;
    let long = "pässword ".repeat(20);
    for (algorithm, rounds, password) in [
        ("bcrypt", 4, "s3cret"),
        ("bcrypt_sha256", 4, long.as_str()),
        ("scrypt", 4, "s3cret"),
        ("scrypt", 4, long.as_str()),
        ("pbkdf2_sha512", 1000, "s3cret"),
        ("pbkdf2_sha512", 1000, long.as_str()),
    ] {
        let asked = json!({"work": "hash", "algorithm": algorithm, "rounds": rounds, "password": password});
        let hash = upstream(asked)["hash"].as_str().unwrap().to_string();
        let name = format!("{algorithm}-{}", password.len());
        let user = cloud.make("users", "user", json!({"name": name})).await;
        let work = move |tx: &mut db::Tx| {
            tx.execute(
                "UPDATE users SET password_hash = $1 WHERE id = $2",
                params![hash.as_str(), user.as_str()],
            )
        };
        cloud.database.db.write(work).await.unwrap();
        assert_eq!(cloud.sign_in(&name, password, Json::Null).await.status, 201, "{name}");
        assert_eq!(cloud.sign_in(&name, "other", Json::Null).await.status, 401, "{name}");
        assert_eq!(cloud.sign_in(&name, "", Json::Null).await.status, 401, "{name}");
    }
}
