//! The whole way of a browser through a real OpenID Connect provider, which `scripts/openid-provider` starts: from the
//! dashboard to the provider's page, its login, its question, and back with a code for a token.

use crate::cloud::{Cloud, Subject, role_names};
use base::{Clock, Json, Secret};
use keystone::{OpenId, Options};
use serde_json::json;
use std::collections::BTreeMap;

const DASHBOARD: &str = "https://dash.example/auth/websso/";
const PAGE: &str =
    "/v3/auth/OS-FEDERATION/websso/openid?origin=https%3A%2F%2Fdash.example%2Fauth%2Fwebsso%2F";

/// Of one person: cookies by name, sent wherever they came from.
struct Browser {
    provider: String,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn ask(&mut self, method: &str, url: &str, form: &str) -> compat::Answer {
        let url = if url.starts_with('/') { format!("{}{url}", self.provider) } else { url.to_string() };
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers = [
            ("cookie".to_string(), cookies.join("; ")),
            ("accept".to_string(), "text/html".to_string()),
            ("content-type".to_string(), "application/x-www-form-urlencoded".to_string()),
        ];
        let answer = compat::send(method, &url, &headers, form.into()).await.unwrap();
        for (_, set) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.into(), value.into());
        }
        answer
    }

    /// Answers the provider's pages until it sends the browser back to us: with which URL.
    async fn log_in(&mut self, url: &str, name: &str) -> String {
        let mut answer = self.ask("GET", url, "").await;
        for _ in 0..10 {
            if let Some(next) = answer.header("location").map(str::to_string) {
                if next.starts_with("http://127.0.0.1:5000/") {
                    return next;
                }
                answer = self.ask("GET", &next, "").await;
                continue;
            }
            let page = String::from_utf8_lossy(&answer.body).into_owned();
            let action = page.split("action=\"").nth(1).unwrap_or_else(|| panic!("no form: {page}"));
            let action = action.split('"').next().unwrap().to_string();
            let form = match page.contains("name=\"login\"") {
                true => format!("prompt=login&login={name}&password=any"),
                false => "prompt=consent".to_string(),
            };
            answer = self.ask("POST", &action, &form).await;
        }
        panic!("the provider asks and asks");
    }
}

async fn begin() -> (Cloud, String) {
    let issuer = std::env::var("FERROSTACK_TEST_OPENID").expect("FERROSTACK_TEST_OPENID is set");
    let openid = OpenId {
        issuer: issuer.clone(),
        client_id: "ferrostack".into(),
        client_secret: Secret::new("a-secret-of-the-test"),
        ..OpenId::default()
    };
    let options = Options {
        password_hash_rounds: 4,
        openid: BTreeMap::from([("acme".to_string(), openid)]),
        trusted_dashboards: vec![DASHBOARD.into()],
        ..Options::default()
    };
    let cloud = Cloud::with(options).await;
    // The provider lives now.
    cloud.clock.advance(Clock::real().now().since(cloud.clock.now()));
    let admin = cloud.sign_in("admin", "secret", json!({"project": crate::cloud::named("admin")})).await;
    let rules = json!([
        {"local": [{"user": {"name": "{0}", "email": "{1}"}}], "remote": [{"type": "OIDC-sub"}, {"type": "OIDC-email"}]},
        {"local": [{"groups": "{0}", "domain": {"id": "default"}}], "remote": [{"type": "OIDC-groups"}]},
    ]);
    for (path, body) in [
        ("mappings/m", json!({"mapping": {"rules": rules}})),
        ("identity_providers/acme", json!({"identity_provider": {"enabled": true, "remote_ids": [issuer]}})),
        (
            "identity_providers/acme/protocols/openid",
            json!({"protocol": {"mapping_id": "m", "remote_id_attribute": "OIDC-iss"}}),
        ),
    ] {
        let answer = cloud.call("PUT", &format!("/v3/OS-FEDERATION/{path}"), &admin.token(), body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    (Cloud { admin: admin.token(), ..cloud }, issuer)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an OpenID Connect provider: make test-identity"]
async fn a_browser_logs_in_at_a_real_provider() {
    let (cloud, issuer) = begin().await;
    let group = cloud.make("groups", "group", json!({"name": "crew"})).await;
    let project = cloud.make("projects", "project", json!({"name": "ship"})).await;
    cloud.grant(&format!("projects/{project}/groups/{group}/roles/{}", cloud.role("member").await)).await;

    let sent = cloud.ask("GET", PAGE, &[], None).await;
    assert_eq!(sent.status, 302, "{}", sent.text());
    let cookie = sent.header("set-cookie").split(';').next().unwrap().to_string();
    let mut browser = Browser { provider: issuer, cookies: BTreeMap::new() };
    let back = browser.log_in(sent.header("location"), "ann").await;
    let path = back.strip_prefix("http://127.0.0.1:5000").unwrap();
    assert_eq!(cloud.ask("GET", path, &[], None).await.status, 401, "another browser has no cookie");
    let done = cloud.ask("GET", path, &[("cookie", &cookie)], None).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.text().contains(&format!("action=\"{DASHBOARD}\"")), "{}", done.text());
    let token = done.text().split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let auth = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}},
        "scope": {"project": {"id": project}}}});
    let scoped = cloud.ask("POST", "/v3/auth/tokens", &[], auth).await;
    assert_eq!(scoped.status, 201, "{}", scoped.body);
    assert_eq!(role_names(&scoped), ["member", "reader"], "by the group that the provider named");
    let user = scoped.body["token"]["user"]["id"].as_str().unwrap();
    let shown = cloud.call("GET", &format!("/v3/users/{user}"), &cloud.admin, None).await;
    assert_eq!(
        (&shown.body["user"]["name"], &shown.body["user"]["email"]),
        (&json!("ann"), &json!("ann@example.org"))
    );
    let again = cloud.ask("GET", path, &[("cookie", &cookie)], None).await;
    assert_eq!(again.status, 401, "the provider takes a code once");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an OpenID Connect provider: make test-identity"]
async fn who_gives_up_at_the_provider_gets_nothing() {
    let (cloud, _) = begin().await;
    let sent = cloud.ask("GET", PAGE, &[], None).await;
    let (_, query) = sent.header("location").split_once('?').unwrap();
    let state = web::Query::parse(query).get("state").unwrap().to_string();
    let state: String = web::form_urlencoded::byte_serialize(state.as_bytes()).collect();
    let cookie = sent.header("set-cookie").split(';').next().unwrap().to_string();
    let at = "/v3/auth/OS-FEDERATION/identity_providers/acme/protocols/openid/websso";
    for query in [format!("error=access_denied&state={state}"), format!("code=made-up&state={state}")] {
        let back = cloud.ask("GET", &format!("{at}?{query}"), &[("cookie", &cookie)], None).await;
        assert!([400, 401].contains(&back.status), "{query}: {}", back.status);
        assert!(!back.text().contains("name=\"token\""), "{query}: {:?}", Json::from(back.text()));
    }
}
