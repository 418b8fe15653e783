//! Identity over its HTTP surface: stories, and every write path with what it must refuse.

use crate::cloud::{Cloud, Subject, named, role_names};
use base::Json;
use contracts::identity::Identity;
use keystone::TABLES;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn tokens_of_every_scope() {
    let cloud = Cloud::new().await;
    let project = cloud.sign_in("admin", "secret", json!({"project": named("admin")})).await;
    assert_eq!(project.status, 201);
    assert_eq!(role_names(&project), ["admin", "manager", "member", "reader"]);
    let url = project.body["token"]["catalog"][0]["endpoints"].as_array().unwrap();
    let project_id = project.body["token"]["project"]["id"].as_str().unwrap();
    assert!(url.iter().any(|one| one["url"] == format!("http://127.0.0.1:8774/v2.1/{project_id}")));

    let system = cloud.sign_in("admin", "secret", json!({"system": {"all": true}})).await;
    assert_eq!(system.body["token"]["system"], json!({"all": true}));
    let unscoped = cloud.sign_in("admin", "secret", Json::Null).await;
    assert!(unscoped.body["token"].get("roles").is_none() && unscoped.body["token"].get("catalog").is_none());
    let domain = cloud.sign_in("admin", "secret", json!({"domain": {"id": "default"}})).await;
    assert_eq!(domain.status, 401, "no role there yet");

    let user = project.body["token"]["user"]["id"].as_str().unwrap().to_string();
    cloud.grant(&format!("domains/default/users/{user}/roles/{}", cloud.role("reader").await)).await;
    let domain = cloud.sign_in("admin", "secret", json!({"domain": {"id": "default"}})).await;
    assert_eq!(role_names(&domain), ["reader"]);

    let rescope = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": unscoped.token()}},
        "scope": {"project": {"id": project_id}}}});
    let rescoped = cloud.ask("POST", "/v3/auth/tokens", &[], Some(rescope)).await;
    assert_eq!(rescoped.body["token"]["methods"], json!(["token", "password"]));
    let chain = rescoped.body["token"]["audit_ids"].as_array().unwrap();
    assert_eq!(chain[1], unscoped.body["token"]["audit_ids"][0]);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_answer_alike() {
    let cloud = Cloud::new().await;
    let wrong = cloud.sign_in("admin", "no", Json::Null).await;
    let unknown = cloud.sign_in("nobody", "no", Json::Null).await;
    assert_eq!((wrong.status, &wrong.body), (401, &unknown.body));
    assert_eq!(unknown.status, 401);
}

#[tokio::test]
async fn a_token_ends_when_it_is_revoked_expired_or_its_roots_are_cut() {
    let cloud = &Cloud::new().await;
    let (project, user, token) = cloud.person("ann", "member").await;
    assert_eq!(cloud.keystone.project(&project).await.unwrap().unwrap().name, "of-ann");
    assert_eq!(cloud.keystone.project("default").await.unwrap(), None, "a domain is no project");
    let holds = |token: String| async { cloud.keystone.validate(&{ token }).await.is_ok() };
    assert!(holds(token.clone()).await);

    let headers = [("x-auth-token", cloud.admin.as_str()), ("x-subject-token", token.as_str())];
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens", &headers, None).await.status, 200);
    assert_eq!(cloud.ask("DELETE", "/v3/auth/tokens", &headers, None).await.status, 204);
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens", &headers, None).await.status, 404);
    assert!(!holds(token).await, "revoked");

    let fresh = || async { cloud.sign_in("ann", "pw", json!({"project": {"id": project}})).await.token() };
    let update = |path: String, body: Json| async move {
        let answer = cloud.call("PATCH", &path, &cloud.admin, Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let token = fresh().await;
    for enabled in [false, true] {
        update(format!("/v3/projects/{project}"), json!({"project": {"enabled": enabled}})).await;
        assert_eq!(cloud.keystone.validate(&token).await.is_ok(), enabled, "project enabled: {enabled}");
    }
    let grant = format!("/v3/projects/{project}/users/{user}/roles/{}", cloud.role("member").await);
    assert_eq!(cloud.call("DELETE", &grant, &cloud.admin, None).await.status, 204);
    assert!(cloud.keystone.validate(&token).await.is_err(), "without a role");
    cloud.grant(grant.strip_prefix("/v3/").unwrap()).await;
    assert!(cloud.keystone.validate(&token).await.is_ok());

    cloud.clock.advance(Duration::from_secs(2));
    update(format!("/v3/users/{user}"), json!({"user": {"password": "new"}})).await;
    assert!(cloud.keystone.validate(&token).await.is_err(), "the password changed");
    cloud.clock.advance(Duration::from_secs(2));
    let token = cloud.sign_in("ann", "new", json!({"project": {"id": project}})).await.token();
    assert!(cloud.keystone.validate(&token).await.is_ok());
    cloud.clock.advance(Duration::from_secs(3601));
    assert!(cloud.keystone.validate(&token).await.is_err(), "expired");
}

#[tokio::test]
async fn a_user_changes_its_own_password() {
    let cloud = Cloud::new().await;
    let (_, user, _) = cloud.person("ann", "member").await;
    let path = format!("/v3/users/{user}/password");
    let change = |old: &str| json!({"user": {"original_password": old, "password": "next"}});
    assert_eq!(cloud.ask("POST", &path, &[], Some(change("wrong"))).await.status, 401);
    assert_eq!(cloud.ask("POST", &path, &[], Some(json!({"user": {"password": "x"}}))).await.status, 400);
    assert_eq!(cloud.ask("POST", &path, &[], Some(change("pw"))).await.status, 204);
    assert_eq!(cloud.sign_in("ann", "pw", Json::Null).await.status, 401);
    assert_eq!(cloud.sign_in("ann", "next", Json::Null).await.status, 201);
}

#[tokio::test]
async fn roles_are_inherited_and_implied() {
    let cloud = Cloud::new().await;
    let (_, user, _) = cloud.person("ann", "reader").await;
    let parent = cloud.make("projects", "project", json!({"name": "parent"})).await;
    let child = cloud.make("projects", "project", json!({"name": "child", "parent_id": parent})).await;
    let group = cloud.make("groups", "group", json!({"name": "g"})).await;
    cloud.grant(&format!("groups/{group}/users/{user}")).await;
    let role = cloud.role("manager").await;
    cloud
        .grant(&format!("OS-INHERIT/projects/{parent}/groups/{group}/roles/{role}/inherited_to_projects"))
        .await;
    let on = |id: &str| cloud.sign_in("ann", "pw", json!({"project": {"id": id}}));
    assert_eq!(on(&parent).await.status, 401, "inherited roles hold below, not here");
    assert_eq!(role_names(&on(&child).await), ["manager", "member", "reader"]);

    let path =
        format!("/v3/role_assignments?user.id={user}&scope.project.id={child}&effective&include_names");
    let listed = cloud.call("GET", &path, &cloud.admin, None).await;
    let mut names: Vec<&str> = listed.body["role_assignments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["role"]["name"].as_str().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["manager", "member", "reader"]);
}

#[tokio::test]
async fn who_lacks_the_role_is_refused() {
    let cloud = Cloud::new().await;
    let (project, user, member) = cloud.person("ann", "member").await;
    let (_, other, _) = cloud.person("bob", "member").await;
    let unscoped = cloud.sign_in("ann", "pw", Json::Null).await.token();
    let cases = [
        ("GET", "/v3/users".to_string(), 403),
        ("POST", "/v3/users".into(), 400),
        ("GET", format!("/v3/users/{user}"), 200),
        ("GET", format!("/v3/users/{other}"), 403),
        ("GET", format!("/v3/projects/{project}"), 200),
        ("DELETE", format!("/v3/projects/{project}"), 403),
        ("GET", "/v3/role_assignments".into(), 403),
        ("GET", "/v3/services".into(), 403),
        ("GET", "/v3/regions".into(), 200),
        ("DELETE", "/v3/domains/default".into(), 403),
        ("GET", "/v3/auth/projects".into(), 200),
    ];
    for (method, path, expected) in cases {
        let answer = cloud.call(method, &path, &member, None).await;
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.body);
        let nobody = cloud.call(method, &path, "", None).await;
        assert_eq!(nobody.status, 401, "{method} {path} without a token");
    }
    assert_eq!(cloud.call("GET", "/v3/users", &unscoped, None).await.status, 403);
    let body = json!({"user": {"name": "x"}});
    assert_eq!(cloud.call("POST", "/v3/users", &member, Some(body)).await.status, 403);
}

#[tokio::test]
async fn write_paths_refuse_what_is_wrong() {
    let cloud = Cloud::new().await;
    let long = "x".repeat(256);
    let cases = [
        (
            "users",
            json!({"user": {"name": 1}}),
            400,
            "Invalid input for field/attribute name. Value: 1. 1 is not of type 'string'",
        ),
        ("users", json!({"user": {"name": long}}), 400, "is too long"),
        ("users", json!({"user": {}}), 400, "'name' is a required property"),
        ("users", json!({"users": {}}), 400, "'user' is a required property"),
        ("users", json!([]), 400, "Expecting to find valid JSON in request body"),
        ("users", json!({"user": {"name": "a", "enabled": "maybe"}}), 400, "is not one of"),
        (
            "users",
            json!({"user": {"name": "a", "domain_id": "nowhere"}}),
            404,
            "Could not find domain: nowhere.",
        ),
        (
            "users",
            json!({"user": {"name": "admin"}}),
            409,
            "Duplicate entry found with name admin at domain ID default",
        ),
        ("projects", json!({"project": {"name": "a".repeat(65)}}), 400, "is too long"),
        (
            "projects",
            json!({"project": {"name": "a", "parent_id": "nowhere"}}),
            400,
            "Could not find project: nowhere.",
        ),
        ("projects", json!({"project": {"name": "admin"}}), 409, "it is not permitted to have two projects"),
        ("projects", json!({"project": {"name": "a", "tags": ["a/b"]}}), 400, "does not match"),
        (
            "domains",
            json!({"domain": {"name": "Default"}}),
            409,
            "acting as domains with the same name: Default",
        ),
        ("groups", json!({"group": {"name": ""}}), 400, "should be non-empty"),
        ("roles", json!({"role": {"name": "admin"}}), 409, "Duplicate entry found with name admin"),
        ("services", json!({"service": {"name": "x"}}), 400, "'type' is a required property"),
        (
            "endpoints",
            json!({"endpoint": {"service_id": "x", "interface": "public", "url": "http://x"}}),
            400,
            "endpoint service_id in service table",
        ),
        (
            "endpoints",
            json!({"endpoint": {"service_id": "x", "interface": "other", "url": "http://x"}}),
            400,
            "is not one of ['admin', 'internal', 'public']",
        ),
        ("regions", json!({"region": {"id": "RegionOne"}}), 409, "Duplicate ID, RegionOne"),
        (
            "regions",
            json!({"region": {"parent_region_id": "nowhere"}}),
            404,
            "Could not find region: nowhere.",
        ),
        (
            "credentials",
            json!({"credential": {"type": "ec2", "blob": "{}", "user_id": "x"}}),
            400,
            "'project_id' is a required property",
        ),
        ("limits", json!({"limits": []}), 400, "should be non-empty"),
    ];
    for (plural, body, status, message) in cases {
        let answer = cloud.call("POST", &format!("/v3/{plural}"), &cloud.admin, Some(body.clone())).await;
        let told = answer.body["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(answer.status, status, "{plural} {body}: {told}");
        assert!(told.contains(message), "{plural} {body}: {told}");
        assert_eq!(answer.body["error"]["code"], status);
    }
}

#[tokio::test]
async fn wrong_states_are_refused() {
    let cloud = Cloud::new().await;
    let parent = cloud.make("projects", "project", json!({"name": "parent"})).await;
    cloud.make("projects", "project", json!({"name": "child", "parent_id": parent})).await;
    let domain = cloud.make("domains", "domain", json!({"name": "d"})).await;
    let role = cloud.role("reader").await;
    let cases = [
        ("DELETE", format!("/v3/projects/{parent}"), None),
        ("PATCH", format!("/v3/projects/{parent}"), Some(json!({"project": {"enabled": false}}))),
        ("DELETE", format!("/v3/domains/{domain}"), None),
        ("DELETE", format!("/v3/roles/{role}"), None),
        ("PATCH", format!("/v3/roles/{role}"), Some(json!({"role": {"name": "x"}}))),
        ("PUT", format!("/v3/roles/{role}/implies/{}", cloud.role("admin").await), None),
        ("DELETE", "/v3/regions/RegionOne".into(), None),
    ];
    for (method, path, body) in cases {
        let answer = cloud.call(method, &path, &cloud.admin, body).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_deleted_domain_leaves_nothing() {
    let cloud = Cloud::new().await;
    let domain = cloud.make("domains", "domain", json!({"name": "d"})).await;
    let user = cloud.make("users", "user", json!({"name": "u", "domain_id": domain})).await;
    let project = cloud.make("projects", "project", json!({"name": "p", "domain_id": domain})).await;
    cloud.grant(&format!("projects/{project}/users/{user}/roles/{}", cloud.role("member").await)).await;
    let off = json!({"domain": {"enabled": false}});
    assert_eq!(
        cloud.call("PATCH", &format!("/v3/domains/{domain}"), &cloud.admin, Some(off)).await.status,
        200
    );
    assert_eq!(cloud.call("DELETE", &format!("/v3/domains/{domain}"), &cloud.admin, None).await.status, 204);
    for path in [format!("domains/{domain}"), format!("users/{user}"), format!("projects/{project}")] {
        assert_eq!(cloud.call("GET", &format!("/v3/{path}"), &cloud.admin, None).await.status, 404, "{path}");
    }
    let left = cloud.call("GET", "/v3/role_assignments", &cloud.admin, None).await;
    assert!(!left.body.to_string().contains(&user));
}

#[tokio::test]
async fn of_many_at_once_one_wins() {
    let cloud = Cloud::new().await;
    let body = json!({"project": {"name": "same"}});
    let one = || cloud.call("POST", "/v3/projects", &cloud.admin, Some(body.clone()));
    let (a, b, c, d, e, f) = tokio::join!(one(), one(), one(), one(), one(), one());
    let mut statuses: Vec<u16> = [a, b, c, d, e, f].iter().map(|answer| answer.status).collect();
    statuses.sort();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn an_application_credential_gives_what_it_says_and_no_more() {
    let cloud = Cloud::new().await;
    let (project, user, token) = cloud.person("ann", "member").await;
    let path = format!("/v3/users/{user}/application_credentials");
    let wanted = |roles: Json| json!({"application_credential": {"name": "a", "roles": roles}});
    let refused = cloud.call("POST", &path, &token, Some(wanted(json!([{"name": "admin"}])))).await;
    assert_eq!(refused.status, 400);
    let foreign = cloud.call("POST", &path, &cloud.admin, Some(wanted(json!([])))).await;
    assert_eq!(foreign.status, 403, "not even an admin for somebody else");
    let made = cloud.call("POST", &path, &token, Some(wanted(json!([{"name": "reader"}])))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let credential = &made.body["application_credential"];
    let given = json!({"id": credential["id"], "secret": credential["secret"]});
    let auth = |given: &Json| json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": given}}});
    let signed = cloud.ask("POST", "/v3/auth/tokens", &[], Some(auth(&given))).await;
    assert_eq!(role_names(&signed), ["reader"]);
    assert_eq!(signed.body["token"]["project"]["id"], *project);
    let more = cloud.call("POST", &path, &signed.token(), Some(wanted(json!([])))).await;
    assert_eq!(more.status, 403, "a restricted one makes no others");
    let gone = format!("{path}/{}", credential["id"].as_str().unwrap());
    assert_eq!(cloud.call("DELETE", &gone, &token, None).await.status, 204);
    assert!(cloud.keystone.validate(&signed.token()).await.is_err());
    assert_eq!(cloud.ask("POST", "/v3/auth/tokens", &[], Some(auth(&given))).await.status, 404);
}

#[tokio::test]
async fn a_trust_lends_roles_until_it_or_its_roots_are_gone() {
    let cloud = &Cloud::new().await;
    let (project, trustor, owner) = cloud.person("ann", "member").await;
    let (_, trustee, _) = cloud.person("bob", "reader").await;
    let wanted = |by: &str, role: &str| {
        json!({"trust": {"trustor_user_id": by, "trustee_user_id": trustee, "project_id": project,
            "impersonation": true, "remaining_uses": 2, "roles": [{"name": role}]}})
    };
    let trusts = "/v3/OS-TRUST/trusts";
    assert_eq!(
        cloud.call("POST", trusts, &owner, Some(wanted(&trustor, "admin"))).await.status,
        404,
        "not held"
    );
    assert_eq!(
        cloud.call("POST", trusts, &owner, Some(wanted(&trustee, "member"))).await.status,
        403,
        "not one's own"
    );
    let made = cloud.call("POST", trusts, &owner, Some(wanted(&trustor, "member"))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.body["trust"]["id"].as_str().unwrap().to_string();
    let lent = || async {
        let token = cloud.sign_in("bob", "pw", Json::Null).await.token();
        let auth = json!({"identity": {"methods": ["token"], "token": {"id": token}},
            "scope": {"OS-TRUST:trust": {"id": id}}});
        cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({"auth": auth}))).await
    };
    let signed = lent().await;
    assert_eq!(role_names(&signed), ["member", "reader"]);
    assert_eq!(signed.body["token"]["user"]["id"], *trustor);
    assert_eq!(
        cloud.call("POST", trusts, &signed.token(), Some(wanted(&trustor, "reader"))).await.status,
        403
    );
    assert_eq!(cloud.keystone.validate(&signed.token()).await.unwrap().user_id, trustor);
    assert_eq!(lent().await.status, 201);
    assert_eq!(lent().await.status, 404, "used up");
    let ann = cloud.sign_in("ann", "pw", json!({"project": {"id": project}})).await.token();
    assert_eq!(cloud.call("DELETE", &format!("{trusts}/{id}"), &ann, None).await.status, 204);
    assert!(cloud.keystone.validate(&signed.token()).await.is_err());
}

#[tokio::test]
async fn secrets_are_not_stored_in_the_clear() {
    let cloud = Cloud::new().await;
    let (_, user, token) = cloud.person("ann", "member").await;
    let body = json!({"credential": {"type": "cert", "blob": "very-secret", "user_id": user}});
    assert_eq!(cloud.call("POST", "/v3/credentials", &token, Some(body)).await.status, 201);
    let file =
        cloud.database.db.read(|tx| tx.one("SELECT blob FROM credentials", &[])).await.unwrap().unwrap();
    assert!(!file.at::<String>(0).unwrap().contains("very-secret"));
    let listed = cloud.call("GET", "/v3/credentials", &token, None).await;
    assert_eq!(listed.body["credentials"][0]["blob"], "very-secret");
    for _ in 0..4 {
        cloud.keystone.rotate_credential_keys().await.unwrap();
    }
    let listed = cloud.call("GET", "/v3/credentials", &token, None).await;
    assert_eq!(listed.body["credentials"][0]["blob"], "very-secret", "the key it was sealed with is gone");
    let (_, _, other) = cloud.person("bob", "member").await;
    let listed = cloud.call("GET", "/v3/credentials", &other, None).await;
    assert_eq!(listed.body["credentials"], json!([]));
}

/// Walks the table: no route answers without a token unless it says so, and every rule it names exists.
#[tokio::test]
async fn every_route_is_guarded() {
    let cloud = Cloud::new().await;
    let service = cloud.keystone.service(None, "http://127.0.0.1:5000").unwrap();
    assert!(service.routes.len() > 100);
    for route in &service.routes {
        let path: String = route.path.replace(['{', '}'], "");
        let answer = cloud.call(route.method.as_str(), &path, "", None).await;
        let open = route.is(web::Mark::Open);
        let what = format!("{} {path}", route.method);
        assert!(open || answer.status == 401, "{what} without a token: {}", answer.status);
        assert!(open == route.rule.is_empty() || path.contains("OS-PKI"), "{what}: rule or open");
        assert!(
            route.rule.is_empty() || service.policy.knows(route.rule),
            "{what}: {} is no rule",
            route.rule
        );
        if !open {
            let bad = cloud.call(route.method.as_str(), &path, "gAAAAA", None).await;
            assert_eq!(bad.status, 401, "{what} with a bad token");
        }
    }
}

#[tokio::test]
async fn every_statement_is_understood() {
    for test in db::testing::all(TABLES, &[]).await.unwrap() {
        assert!(db::testing::prepare_all(&test.db, TABLES).await.unwrap() > 30);
    }
}

#[tokio::test]
async fn a_directory_that_is_away_hides_its_own_people_alone() {
    let cloud = Cloud::new().await;
    let ask = async |method: &str, path: &str, body: Json| cloud.call(method, path, &cloud.admin, body).await;
    let domain =
        ask("POST", "/v3/domains", json!({"domain": {"name": "staff"}})).await.body["domain"]["id"].clone();
    let domain = domain.as_str().unwrap();
    let config = json!({"config": {"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://127.0.0.1:1"}}});
    assert_eq!(ask("PUT", &format!("/v3/domains/{domain}/config"), config).await.status, 201);
    ask("POST", "/v3/groups", json!({"group": {"name": "ours"}})).await;
    for (noun, name) in [("users", "admin"), ("groups", "ours")] {
        let all = ask("GET", &format!("/v3/{noun}"), Json::Null).await;
        assert_eq!(all.status, 200);
        assert!(all.body[noun].as_array().unwrap().iter().any(|one| one["name"] == name));
        let its_own = ask("GET", &format!("/v3/{noun}?domain_id={domain}"), Json::Null).await;
        assert_eq!(its_own.status, 500, "{}", its_own.body);
    }
}
