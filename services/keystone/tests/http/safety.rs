//! What must not work: identity that is claimed in headers, rights that outlive what they hang on, work that a stranger
//! makes us do, others' secrets.

use crate::cloud::{Cloud, Subject};
use base::Json;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn who_one_is_is_said_by_tokens_alone() {
    let cloud = Cloud::new().await;
    let (_, user, token) = cloud.person("ann", "member").await;
    let admin = cloud.keystone_user("admin").await;
    let claimed = [
        ("x-user-id", admin.as_str()),
        ("x-user", "admin"),
        ("x-roles", "admin"),
        ("x-role", "admin"),
        ("x-is-admin-project", "true"),
        ("x-identity-status", "Confirmed"),
        ("openstack-system-scope", "all"),
        ("x-forwarded-user", "admin"),
        ("remote_user", "admin"),
        ("x-service-token", "admin"),
    ];
    assert_eq!(cloud.ask("GET", "/v3/users", &claimed, None).await.status, 401);
    let mut with_token = claimed.to_vec();
    with_token.push(("x-auth-token", &token));
    assert_eq!(cloud.ask("GET", "/v3/users", &with_token, None).await.status, 403);
    let own = cloud.ask("GET", &format!("/v3/users/{user}"), &with_token, None).await;
    assert_eq!((own.status, &own.body["user"]["id"]), (200, &json!(user)));
    assert_eq!(cloud.ask("GET", &format!("/v3/users/{admin}"), &with_token, None).await.status, 403);
}

/// One thing after the other is taken away, and each time what hung on it is void with the very next request.
#[tokio::test]
async fn what_is_disabled_or_taken_away_is_void_at_once() {
    let cloud = &Cloud::new().await;
    let domain = cloud.make("domains", "domain", json!({"name": "sea"})).await;
    let project = cloud.make("projects", "project", json!({"name": "ship", "domain_id": domain})).await;
    let person = json!({"name": "ann", "password": "pw", "domain_id": domain});
    let user = cloud.make("users", "user", person).await;
    let (group, member) =
        (cloud.make("groups", "group", json!({"name": "crew"})).await, cloud.role("member").await);
    let grant = format!("projects/{project}/users/{user}/roles/{member}");
    cloud.grant(&grant).await;
    let password = json!({"id": user, "password": "pw"});
    let log_in = async |scope: Json| {
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": password}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        cloud.ask("POST", "/v3/auth/tokens", &[], json!({"auth": auth})).await
    };
    let in_project = json!({"project": {"id": project}});
    let robot = json!({"application_credential": {"name": "robot", "secret": "s3"}});
    let first = log_in(in_project.clone()).await.token();
    let path = format!("/v3/users/{user}/application_credentials");
    let robot = cloud.call("POST", &path, &first, robot).await;
    let robot_id = robot.body["application_credential"]["id"].as_str().unwrap().to_string();
    let proof = json!({"methods": ["application_credential"], "application_credential": {"id": robot_id, "secret": "s3"}});
    let by_robot =
        async || cloud.ask("POST", "/v3/auth/tokens", &[], json!({"auth": {"identity": proof}})).await;
    let is_good = async |token: &str| cloud.call("GET", "/v3/auth/projects", token, None).await.status == 200;
    let switch = async |path: &str, noun: &str, enabled: bool| {
        let body = json!({noun: {"enabled": enabled}});
        assert_eq!(cloud.call("PATCH", path, &cloud.admin, body).await.status, 200, "{path}");
    };
    for (noun, path) in [
        ("project", format!("/v3/projects/{project}")),
        ("domain", format!("/v3/domains/{domain}")),
        ("user", format!("/v3/users/{user}")),
    ] {
        cloud.clock.advance(Duration::from_secs(2));
        let (token, robots) = (log_in(in_project.clone()).await.token(), by_robot().await.token());
        assert!(is_good(&token).await && is_good(&robots).await, "{noun}");
        switch(&path, noun, false).await;
        assert!(!is_good(&token).await && !is_good(&robots).await, "{noun} disabled");
        assert_eq!(log_in(in_project.clone()).await.status, 401, "{noun} disabled");
        assert_eq!(by_robot().await.status, 401, "{noun} disabled, application credential");
        switch(&path, noun, true).await;
    }
    cloud.clock.advance(Duration::from_secs(2));
    let (token, robots) = (log_in(in_project.clone()).await.token(), by_robot().await.token());
    assert_eq!(cloud.call("DELETE", &format!("/v3/{grant}"), &cloud.admin, None).await.status, 204);
    assert!(!is_good(&token).await && !is_good(&robots).await, "the role is taken away");
    cloud.grant(&format!("projects/{project}/groups/{group}/roles/{member}")).await;
    cloud.grant(&format!("groups/{group}/users/{user}")).await;
    let token = log_in(in_project.clone()).await.token();
    assert!(is_good(&token).await);
    let path = format!("/v3/groups/{group}/users/{user}");
    assert_eq!(cloud.call("DELETE", &path, &cloud.admin, None).await.status, 204);
    assert!(!is_good(&token).await, "out of the group");
    cloud.grant(&grant).await;
    let robots = by_robot().await.token();
    let path = format!("/v3/users/{user}/application_credentials/{robot_id}");
    let token = log_in(in_project.clone()).await.token();
    assert_eq!(cloud.call("DELETE", &path, &token, None).await.status, 204);
    assert!(!is_good(&robots).await, "the application credential is deleted");
    assert_eq!(cloud.call("DELETE", &format!("/v3/users/{user}"), &cloud.admin, None).await.status, 204);
    assert!(!is_good(&token).await, "the user is deleted");
}

#[tokio::test]
async fn a_robot_stays_within_what_it_was_given() {
    let cloud = Cloud::new().await;
    let (project, user, token) = cloud.person("ann", "member").await;
    let (other, _, _) = cloud.person("bob", "reader").await;
    cloud.grant(&format!("projects/{other}/users/{user}/roles/{}", cloud.role("member").await)).await;
    let path = format!("/v3/users/{user}/application_credentials");
    let body =
        json!({"application_credential": {"name": "robot", "secret": "s3", "roles": [{"name": "reader"}]}});
    let made = cloud.call("POST", &path, &token, body).await;
    let proof = json!({"methods": ["application_credential"],
        "application_credential": {"id": made.body["application_credential"]["id"], "secret": "s3"}});
    let log_in = async |auth: Json| cloud.ask("POST", "/v3/auth/tokens", &[], json!({"auth": auth})).await;
    let robot = log_in(json!({"identity": proof})).await.token();
    for scope in [
        json!({"project": {"id": other}}),
        json!({"project": {"id": project}}),
        json!({"domain": {"id": "default"}}),
        json!({"system": {"all": true}}),
        json!("unscoped"),
    ] {
        let again = json!({"methods": ["token"], "token": {"id": robot}});
        assert_eq!(log_in(json!({"identity": again, "scope": scope})).await.status, 403, "{scope}");
        assert_eq!(log_in(json!({"identity": proof, "scope": scope})).await.status, 401, "{scope}");
    }
    let more = json!({"application_credential": {"name": "more", "secret": "s3"}});
    assert_eq!(cloud.call("POST", &path, &robot, more).await.status, 403, "a restricted one makes no other");
    let trust = json!({"trust": {"trustor_user_id": user, "trustee_user_id": user, "project_id": project,
        "impersonation": false, "roles": [{"name": "reader"}]}});
    assert_eq!(cloud.call("POST", "/v3/OS-TRUST/trusts", &robot, trust).await.status, 403);
}

#[tokio::test]
async fn others_secrets_are_not_listed() {
    let cloud = Cloud::new().await;
    let (project, ann, anns) = cloud.person("ann", "member").await;
    let (_, bob, bobs) = cloud.person("bob", "member").await;
    let secret =
        json!({"credential": {"type": "cert", "blob": "anns-secret", "user_id": ann, "project_id": project}});
    let made = cloud.call("POST", "/v3/credentials", &anns, secret).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.body["credential"]["id"].as_str().unwrap();
    for path in [
        "/v3/credentials".to_string(),
        format!("/v3/credentials?user_id={ann}"),
        "/v3/credentials?type=cert".into(),
    ] {
        let listed = cloud.call("GET", &path, &bobs, None).await;
        assert!(!listed.text().contains("anns-secret"), "{path}: {}", listed.body);
    }
    assert_eq!(cloud.call("GET", &format!("/v3/credentials/{id}"), &bobs, None).await.status, 403);
    for path in [
        format!("/v3/users/{ann}/credentials/OS-EC2"),
        format!("/v3/users/{ann}/application_credentials"),
        format!("/v3/users/{ann}/access_rules"),
        format!("/v3/users/{ann}/OS-OAUTH1/access_tokens"),
        format!("/v3/OS-TRUST/trusts?trustor_user_id={ann}"),
    ] {
        assert_eq!(cloud.call("GET", &path, &bobs, None).await.status, 403, "{path}");
    }
    let for_ann = json!({"credential": {"type": "totp", "blob": "GEZDGNBVGY3TQOJQ", "user_id": ann}});
    assert_eq!(cloud.call("POST", "/v3/credentials", &bobs, for_ann).await.status, 403, "{bob}");
}

#[tokio::test]
async fn a_stranger_cannot_make_us_work_hard() {
    let cloud = Cloud::new().await;
    let long = "x".repeat(1 << 20);
    assert_eq!(cloud.sign_in("admin", &long, Json::Null).await.status, 413, "a megabyte is not read");
    assert_eq!(
        cloud.sign_in("admin", &long[..100_000], Json::Null).await.status,
        401,
        "no more than a login's work"
    );
    let deep = format!("{{\"auth\": {}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let answer = cloud.send("POST", "/v3/auth/tokens", &[("content-type", "application/json")], deep).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let methods = vec!["password"; 5000];
    let user = json!({"name": "admin", "domain": {"id": "default"}, "password": "wrong"});
    let many = json!({"auth": {"identity": {"methods": methods, "password": {"user": user}}}});
    let answer = cloud.ask("POST", "/v3/auth/tokens", &[], many).await;
    assert!([400, 401].contains(&answer.status), "the first failure ends it: {}", answer.status);
    for token in ["x".repeat(60_000), "gAAAAA".repeat(5000), String::from("\u{e9}")] {
        let answer = cloud.ask("GET", "/v3/auth/projects", &[("x-auth-token", token.as_str())], None).await;
        assert!([400, 401, 431].contains(&answer.status), "{}", answer.status);
    }
}

/// Tokens are kept nowhere but in a cache, which has a limit.
#[tokio::test]
async fn a_flood_of_tokens_leaves_nothing_behind() {
    let options =
        keystone::Options { password_hash_rounds: 4, token_cache_max: 10, ..keystone::Options::default() };
    let cloud = Cloud::with(options).await;
    let (project, _, token) = cloud.person("ann", "member").await;
    let auth = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}},
        "scope": {"project": {"id": project}}}});
    let rows = async || {
        let mut count = 0;
        for table in keystone::TABLES {
            let sql = format!("SELECT COUNT(*) FROM {}", table.name);
            let work = move |tx: &mut db::Tx| tx.query(&sql, db::params![])?[0].at::<i64>(0);
            count += cloud.database.db.read(work).await.unwrap();
        }
        count
    };
    let before = rows().await;
    let mut last = String::new();
    for _ in 0..50 {
        let answer = cloud.ask("POST", "/v3/auth/tokens", &[], auth.clone()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        last = answer.token();
    }
    assert_eq!(rows().await, before, "nothing is stored");
    for token in [&token, &last] {
        assert_eq!(cloud.call("GET", "/v3/auth/projects", token, None).await.status, 200);
    }
}

#[tokio::test]
async fn nobody_learns_who_is_here() {
    let cloud = Cloud::new().await;
    let (_, user, _) = cloud.person("ann", "member").await;
    let disabled =
        cloud.make("users", "user", json!({"name": "off", "password": "pw", "enabled": false})).await;
    let ask = async |user: Json| {
        let auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        let answer = cloud.ask("POST", "/v3/auth/tokens", &[], json!({"auth": auth})).await;
        (answer.status, answer.body.to_string())
    };
    let known = ask(json!({"id": user, "password": "wrong"})).await;
    assert_eq!(known.0, 401);
    for other in [
        json!({"id": "nobody", "password": "wrong"}),
        json!({"id": disabled, "password": "pw"}),
        json!({"name": "nobody", "domain": {"id": "default"}, "password": "wrong"}),
        json!({"name": "ann", "domain": {"id": "nowhere"}, "password": "pw"}),
        json!({"name": "ann", "domain": {"name": "nowhere"}, "password": "pw"}),
    ] {
        assert_eq!(ask(other.clone()).await, known, "{other}");
    }
    let change = json!({"user": {"original_password": "wrong", "password": "new"}});
    let of = async |id: &str| {
        let answer = cloud.ask("POST", &format!("/v3/users/{id}/password"), &[], change.clone()).await;
        (answer.status, answer.body.to_string())
    };
    assert_eq!(of("nobody").await, of(&user).await);
}
