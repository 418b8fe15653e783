//! Domains whose users and groups live in a real directory server, which `scripts/slapd` starts with some people in it.

use crate::cloud::{Answer, Cloud, Subject, role_names};
use base::Json;
use keystone::Options;
use ldap3::{LdapConnAsync, Mod};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

fn server() -> (String, String) {
    let of = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    (of("FERROSTACK_TEST_LDAP"), of("FERROSTACK_TEST_LDAP_CA"))
}

/// What a domain says of its directory.
fn options() -> Json {
    let (url, authority) = server();
    json!({
        "url": url, "use_tls": true, "tls_cacertfile": authority, "user": "cn=admin,dc=example,dc=org",
        "password": "secret", "user_tree_dn": "ou=People,dc=example,dc=org", "user_id_attribute": "uid",
        "user_name_attribute": "uid", "user_enabled_attribute": "employeeType",
        "group_tree_dn": "ou=Groups,dc=example,dc=org", "group_name_attribute": "cn",
    })
}

async fn log_in(cloud: &Cloud, named: Json, password: &str, scope: Json) -> Answer {
    let mut user = named;
    user["password"] = password.into();
    let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
    if !scope.is_null() {
        auth["scope"] = scope;
    }
    cloud.ask("POST", "/v3/auth/tokens", &[], json!({"auth": auth})).await
}

fn in_sea(name: &str) -> Json {
    json!({"name": name, "domain": {"name": "sea"}})
}

async fn change(dn: &str, attribute: &str, value: &str) {
    let (connection, mut ldap) = LdapConnAsync::new(&server().0).await.unwrap();
    tokio::spawn(connection.drive());
    let bound = ldap.simple_bind("cn=admin,dc=example,dc=org", "secret").await;
    bound.unwrap().success().unwrap();
    let values = HashSet::from([value]);
    ldap.modify(dn, vec![Mod::Replace(attribute, values)]).await.unwrap().success().unwrap();
}

/// A person whom no other test touches.
async fn add(name: &str) -> String {
    let (connection, mut ldap) = LdapConnAsync::new(&server().0).await.unwrap();
    tokio::spawn(connection.drive());
    let bound = ldap.simple_bind("cn=admin,dc=example,dc=org", "secret").await;
    bound.unwrap().success().unwrap();
    let dn = format!("uid={name},ou=People,dc=example,dc=org");
    let one = |attribute: &'static str, value: &str| (attribute, HashSet::from([value.to_string()]));
    let entry = vec![
        ("objectClass", HashSet::from(["inetOrgPerson".to_string()])),
        one("cn", name),
        one("sn", name),
        one("userPassword", "pw"),
        one("employeeType", "TRUE"),
    ];
    let entry = entry.into_iter().map(|(name, values)| (name.to_string(), values)).collect();
    ldap.add(&dn, entry).await.unwrap().success().unwrap();
    dn
}

async fn remove(dn: &str) {
    let (connection, mut ldap) = LdapConnAsync::new(&server().0).await.unwrap();
    tokio::spawn(connection.drive());
    let bound = ldap.simple_bind("cn=admin,dc=example,dc=org", "secret").await;
    bound.unwrap().success().unwrap();
    ldap.delete(dn).await.unwrap().success().unwrap();
}

/// A domain that is configured through the API.
async fn by_api() -> (Cloud, String) {
    let cloud = Cloud::new().await;
    let domain = cloud.make("domains", "domain", json!({"name": "sea"})).await;
    let config = json!({"config": {"identity": {"driver": "ldap"}, "ldap": options()}});
    let made = cloud.call("PUT", &format!("/v3/domains/{domain}/config"), &cloud.admin, config).await;
    assert_eq!(made.status, 201, "{}", made.body);
    (cloud, domain)
}

fn names(answer: &Answer, plural: &str) -> Vec<String> {
    let listed = answer.body[plural].as_array().unwrap_or_else(|| panic!("{}", answer.body));
    let mut names: Vec<String> = listed.iter().map(|one| one["name"].as_str().unwrap().to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
#[ignore = "needs a directory server: make test-identity"]
async fn people_of_a_directory_log_in_with_its_passwords() {
    let (cloud, domain) = by_api().await;
    let ann = log_in(&cloud, in_sea("ann"), "annspass", Json::Null).await;
    assert_eq!(ann.status, 201, "{}", ann.body);
    let user_id = ann.body["token"]["user"]["id"].as_str().unwrap().to_string();
    assert_eq!(user_id.len(), 64, "made as upstream makes it");
    for (what, named, password) in [
        ("a wrong password", in_sea("ann"), "wrong"),
        ("no password, which a directory takes for nobody's", in_sea("ann"), ""),
        ("one who is disabled there", in_sea("bob"), "bobspass"),
        ("nobody", in_sea("nobody"), "annspass"),
        ("a filter for a name", in_sea("*"), "annspass"),
        ("a filter within a name", in_sea("ann)(uid=*"), "annspass"),
        ("the directory's own administrator", in_sea("admin"), "secret"),
        ("another domain's", json!({"name": "ann", "domain": {"id": "default"}}), "annspass"),
    ] {
        assert_eq!(log_in(&cloud, named, password, Json::Null).await.status, 401, "{what}");
    }
    let by_id = log_in(&cloud, json!({"id": user_id}), "annspass", Json::Null).await;
    assert_eq!(by_id.status, 201, "{}", by_id.body);

    let listed = cloud.call("GET", &format!("/v3/users?domain_id={domain}"), &cloud.admin, None).await;
    assert!(names(&listed, "users").contains(&"bob".to_string()), "{}", listed.body);
    let shown = cloud.call("GET", &format!("/v3/users/{user_id}"), &cloud.admin, None).await;
    assert_eq!(
        (&shown.body["user"]["name"], &shown.body["user"]["email"]),
        (&json!("ann"), &json!("ann@example.org"))
    );
    assert!(!shown.text().contains("annspass"));

    let groups = cloud.call("GET", &format!("/v3/groups?domain_id={domain}"), &cloud.admin, None).await;
    assert_eq!(names(&groups, "groups"), ["crew", "idle"]);
    let crew =
        groups.body["groups"].as_array().unwrap().iter().find(|group| group["name"] == "crew").unwrap();
    assert_eq!(crew["description"], "Those who sail");
    let crew = crew["id"].as_str().unwrap();
    let members = cloud.call("GET", &format!("/v3/groups/{crew}/users"), &cloud.admin, None).await;
    assert_eq!(names(&members, "users"), ["ann", "bob"]);
    let held = cloud.call("GET", &format!("/v3/users/{user_id}/groups"), &cloud.admin, None).await;
    assert_eq!(names(&held, "groups"), ["crew"]);
    let head = cloud.call("HEAD", &format!("/v3/groups/{crew}/users/{user_id}"), &cloud.admin, None).await;
    assert_eq!(head.status, 204);

    let project = cloud.make("projects", "project", json!({"name": "ship"})).await;
    cloud.grant(&format!("projects/{project}/groups/{crew}/roles/{}", cloud.role("member").await)).await;
    let scoped = log_in(&cloud, in_sea("ann"), "annspass", json!({"project": {"id": project}})).await;
    assert_eq!(role_names(&scoped), ["member", "reader"], "by a group of the directory");
}

#[tokio::test]
#[ignore = "needs a directory server: make test-identity"]
async fn nothing_is_written_to_a_directory() {
    let (cloud, domain) = by_api().await;
    let ann = log_in(&cloud, in_sea("ann"), "annspass", Json::Null).await;
    let user = ann.body["token"]["user"]["id"].as_str().unwrap().to_string();
    let groups =
        cloud.call("GET", &format!("/v3/groups?domain_id={domain}&name=crew"), &cloud.admin, None).await;
    let crew = groups.body["groups"][0]["id"].as_str().unwrap().to_string();
    let local = cloud.make("users", "user", json!({"name": "local"})).await;
    for (method, path, body) in [
        ("POST", "users".to_string(), json!({"user": {"name": "new", "domain_id": domain}})),
        ("PATCH", format!("users/{user}"), json!({"user": {"enabled": false}})),
        ("DELETE", format!("users/{user}"), Json::Null),
        ("POST", "groups".into(), json!({"group": {"name": "new", "domain_id": domain}})),
        ("PATCH", format!("groups/{crew}"), json!({"group": {"name": "other"}})),
        ("DELETE", format!("groups/{crew}"), Json::Null),
        ("PUT", format!("groups/{crew}/users/{local}"), Json::Null),
        ("DELETE", format!("groups/{crew}/users/{user}"), Json::Null),
    ] {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = cloud.call(method, &format!("/v3/{path}"), &cloud.admin, body).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
        assert_eq!(answer.message(), "LDAP does not support write operations", "{method} {path}");
    }
    let path = format!("/v3/users/{user}/password");
    let change = |original: &str| json!({"user": {"original_password": original, "password": "new"}});
    assert_eq!(cloud.ask("POST", &path, &[], change("wrong")).await.status, 401);
    assert_eq!(cloud.ask("POST", &path, &[], change("annspass")).await.status, 403);
}

#[tokio::test]
#[ignore = "needs a directory server: make test-identity"]
async fn what_changes_in_the_directory_changes_here() {
    let (cloud, domain) = by_api().await;
    let dn = add("eve").await;
    let token = log_in(&cloud, in_sea("eve"), "pw", Json::Null).await;
    assert_eq!(token.status, 201, "{}", token.body);
    let id = token.body["token"]["user"]["id"].as_str().unwrap().to_string();
    let is_good = async || cloud.call("GET", "/v3/auth/projects", &token.token(), None).await.status == 200;
    assert!(is_good().await);
    change(&dn, "userPassword", "other").await;
    assert_eq!(log_in(&cloud, in_sea("eve"), "pw", Json::Null).await.status, 401);
    assert_eq!(log_in(&cloud, in_sea("eve"), "other", Json::Null).await.status, 201);
    change(&dn, "employeeType", "FALSE").await;
    assert_eq!(log_in(&cloud, in_sea("eve"), "other", Json::Null).await.status, 401);
    assert!(!is_good().await, "a login that finds it disabled ends its tokens at once");
    change(&dn, "employeeType", "TRUE").await;
    assert_eq!(log_in(&cloud, in_sea("eve"), "other", Json::Null).await.status, 201);
    assert!(is_good().await);
    remove(&dn).await;
    cloud.clock.advance(Duration::from_secs(61));
    assert!(!is_good().await, "a minute later nobody is left");
    assert_eq!(cloud.call("GET", &format!("/v3/users/{id}"), &cloud.admin, None).await.status, 404);
    let listed = cloud.call("GET", &format!("/v3/users?domain_id={domain}"), &cloud.admin, None).await;
    assert!(!names(&listed, "users").contains(&"eve".to_string()));
    // The same name again is the same user.
    let dn = add("eve").await;
    let again = log_in(&cloud, in_sea("eve"), "pw", Json::Null).await;
    assert_eq!(again.body["token"]["user"]["id"], id.as_str());
    remove(&dn).await;
}

#[tokio::test]
#[ignore = "needs a directory server: make test-identity"]
async fn a_directory_in_the_configuration_file() {
    let given: BTreeMap<String, Json> = serde_json::from_value(options()).unwrap();
    let untrusting: BTreeMap<String, Json> =
        given.clone().into_iter().filter(|(name, _)| name != "tls_cacertfile").collect();
    let options = Options {
        password_hash_rounds: 4,
        ldap: BTreeMap::from([("sea".to_string(), given), ("land".to_string(), untrusting)]),
        ..Options::default()
    };
    let cloud = Cloud::with(options).await;
    cloud.make("domains", "domain", json!({"name": "sea"})).await;
    assert_eq!(log_in(&cloud, in_sea("ann"), "annspass", Json::Null).await.status, 201);
    assert_eq!(log_in(&cloud, in_sea("ann"), "wrong", Json::Null).await.status, 401);
    cloud.make("domains", "domain", json!({"name": "land"})).await;
    let named = json!({"name": "ann", "domain": {"name": "land"}});
    assert_eq!(log_in(&cloud, named, "annspass", Json::Null).await.status, 500, "a certificate of nobody's");
}
