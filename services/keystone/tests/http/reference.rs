//! Tokens move between a keystone and us: with the same keys and ids each takes the other's. To be asked for, with
//! `--ignored`, where `FERROSTACK_REFERENCE_KEYS` names a reference's Fernet keys and `OS_*` its administrator.

use base::{Clock, Json, Secret};
use db::params;
use keystone::{Bootstrap, Keystone, Options};
use serde_json::json;

async fn ask(url: &str, method: &str, headers: &[(&str, &str)], body: Json) -> compat::Answer {
    let mut headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    headers.push(("content-type".into(), "application/json".into()));
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    compat::send(method, &format!("{url}/v3/auth/tokens"), &headers, body).await.unwrap()
}

fn login(password: &str) -> Json {
    let user = json!({"name": "admin", "domain": {"id": "default"}, "password": password});
    let scope = json!({"project": {"name": "admin", "domain": {"id": "default"}}});
    json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}})
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a reference keystone: make test-reference"]
async fn tokens_move_between_a_keystone_and_us() {
    let of = |name: &str| std::env::var(name).unwrap();
    let keys = of("FERROSTACK_REFERENCE_KEYS");
    let reference = of("OS_AUTH_URL").trim_end_matches('/').trim_end_matches("/v3").to_string();
    let answer = ask(&reference, "POST", &[], login(&of("OS_PASSWORD"))).await;
    let theirs = answer.header("x-subject-token").unwrap().to_string();
    let said = answer.json().unwrap();
    let id_of = |what: &str| said["token"][what]["id"].as_str().unwrap().to_string();
    let (user_id, project_id) = (id_of("user"), id_of("project"));

    let directory = tempfile::tempdir().unwrap();
    let copied = directory.path().join("fernet-keys");
    std::fs::create_dir(&copied).unwrap();
    for key in std::fs::read_dir(keys).unwrap().map(Result::unwrap) {
        std::fs::copy(key.path(), copied.join(key.file_name())).unwrap();
    }
    let database = crate::cloud::database().await;
    let options = Options { password_hash_rounds: 4, ..Options::default() };
    let keystone = Keystone::new(database.db.clone(), Clock::real(), options, directory.path()).unwrap();
    let (admin_password, region) = (Secret::new("secret"), "RegionOne".into());
    let begin = Bootstrap { admin_password, region, endpoints: Vec::new(), members: Vec::new() };
    keystone.bootstrap(begin).await.unwrap();
    let (user, project) = (user_id.clone(), project_id.clone());
    database
        .db
        .write(move |tx| {
            for sql in [
                "UPDATE assignments SET actor_id = $1 WHERE actor_id IN (SELECT id FROM users WHERE name = 'admin')",
                "UPDATE users SET id = $1 WHERE name = 'admin'",
            ] {
                tx.execute(sql, params![user.as_str()])?;
            }
            for sql in [
                "UPDATE assignments SET scope_id = $1 WHERE scope_id IN (SELECT id FROM projects WHERE name = 'admin')",
                "UPDATE projects SET id = $1 WHERE name = 'admin'",
            ] {
                tx.execute(sql, params![project.as_str()])?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = format!("http://{}", listener.local_addr().unwrap());
    let router = keystone.service(None, &ours).unwrap().into_router().unwrap();
    let server = tokio::spawn(web::serve(listener, router, std::future::pending()));

    let both = [("x-auth-token", theirs.as_str()), ("x-subject-token", theirs.as_str())];
    let shown = ask(&ours, "GET", &both, Json::Null).await;
    assert_eq!(shown.status, 200, "their token, ours to judge: {}", String::from_utf8_lossy(&shown.body));
    let token = shown.json().unwrap()["token"].clone();
    assert_eq!((&token["user"]["id"], &token["project"]["id"]), (&json!(user_id), &json!(project_id)));
    for part in ["expires_at", "issued_at", "audit_ids", "methods"] {
        assert_eq!(token[part], said["token"][part], "{part}");
    }

    let answer = ask(&ours, "POST", &[], login("secret")).await;
    let token = answer.header("x-subject-token").unwrap();
    let shown =
        ask(&reference, "GET", &[("x-auth-token", token), ("x-subject-token", token)], Json::Null).await;
    assert_eq!(shown.status, 200, "our token, theirs to judge: {}", String::from_utf8_lossy(&shown.body));
    assert_eq!(shown.json().unwrap()["token"]["user"]["id"], user_id);
    server.abort();
}
