//! Ways to log in, and what makes a login fail: lockout, expiry, history, several methods, signed requests.

use crate::cloud::{Answer, Cloud, Subject};
use base::{Json, Secret};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use keystone::{Options, SecurityCompliance, TokenProvider};
use serde_json::json;
use std::time::Duration;

fn compliant(security_compliance: SecurityCompliance) -> Options {
    Options { password_hash_rounds: 4, security_compliance, ..Options::default() }
}

async fn change(cloud: &Cloud, user: &str, old: &str, new: &str) -> Answer {
    let body = json!({"user": {"original_password": old, "password": new}});
    cloud.ask("POST", &format!("/v3/users/{user}/password"), &[], Some(body)).await
}

#[tokio::test]
async fn accounts_are_locked_after_failures_and_freed_by_time_or_an_admin() {
    let rules = SecurityCompliance {
        lockout_failure_attempts: Some(2),
        lockout_duration_seconds: Some(10),
        ..SecurityCompliance::default()
    };
    let cloud = Cloud::with(compliant(rules)).await;
    let (_, user, _) = cloud.person("ann", "member").await;
    let login = async |password: &str| cloud.sign_in("ann", password, Json::Null).await.status;
    assert_eq!(login("bad").await, 401);
    assert_eq!(login("pw").await, 201, "one failure does not lock");
    assert_eq!((login("bad").await, login("bad").await), (401, 401));
    assert_eq!(login("pw").await, 401, "locked");
    assert_eq!(change(&cloud, &user, "pw", "new").await.status, 401, "locked for this too");
    cloud.clock.advance(Duration::from_secs(10));
    assert_eq!(login("pw").await, 201, "time frees it");
    assert_eq!((login("bad").await, login("bad").await, login("pw").await), (401, 401, 401));
    let enable = json!({"user": {"enabled": true}});
    let freed = cloud.call("PATCH", &format!("/v3/users/{user}"), &cloud.admin, Some(enable)).await;
    assert_eq!(freed.status, 200);
    assert_eq!(login("pw").await, 201, "an admin frees it");
}

#[tokio::test]
async fn of_many_guesses_at_once_none_gets_past_the_lock() {
    let rules = SecurityCompliance { lockout_failure_attempts: Some(3), ..SecurityCompliance::default() };
    let cloud = Cloud::with(compliant(rules)).await;
    cloud.person("ann", "member").await;
    let guesses = (0..20).map(|_| cloud.sign_in("ann", "bad", Json::Null));
    let answers = futures::future::join_all(guesses).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    assert_eq!(cloud.sign_in("ann", "pw", Json::Null).await.status, 401);
}

#[tokio::test]
async fn passwords_do_not_come_again_and_end() {
    let rules = SecurityCompliance {
        unique_last_password_count: 2,
        password_expires_days: Some(1),
        minimum_password_age_days: 0,
        password_regex: Some("pw".into()),
        ..SecurityCompliance::default()
    };
    let cloud = Cloud::with(compliant(rules)).await;
    let (_, user, _) = cloud.person("ann", "member").await;
    for (old, new, status) in [
        ("pw", "pw", 400),
        ("pw", "no", 400),
        ("bad", "pw2", 401),
        ("pw", "pw2", 204),
        ("pw2", "pw", 400),
        ("pw2", "pw3", 204),
        ("pw3", "pw", 204),
    ] {
        assert_eq!(change(&cloud, &user, old, new).await.status, status, "{old} → {new}");
    }
    let weak = json!({"user": {"name": "bob", "password": "weak"}});
    assert_eq!(cloud.call("POST", "/v3/users", &cloud.admin, Some(weak.clone())).await.status, 400);
    let path = format!("/v3/users/{user}");
    assert_eq!(cloud.call("PATCH", &path, &cloud.admin, Some(weak)).await.status, 400);
    cloud.clock.advance(Duration::from_secs(86_400));
    let expired = cloud.sign_in("ann", "pw", Json::Null).await;
    assert_eq!(expired.status, 401);
    let told = format!("The password is expired and needs to be changed for user: {user}.");
    assert_eq!(expired.body["error"]["message"], told);
    assert_eq!(
        cloud.sign_in("ann", "bad", Json::Null).await.body["error"]["message"].as_str().unwrap(),
        "The request you have made requires authentication."
    );
    assert_eq!(change(&cloud, &user, "pw", "pw9").await.status, 204, "an expired password is good for this");
    assert_eq!(cloud.sign_in("ann", "pw9", Json::Null).await.status, 201);
}

#[tokio::test]
async fn who_stays_away_is_disabled_for_good() {
    let rules =
        SecurityCompliance { disable_user_account_days_inactive: Some(30), ..SecurityCompliance::default() };
    let cloud = Cloud::with(compliant(rules)).await;
    let (_, user, _) = cloud.person("ann", "member").await;
    let half = Duration::from_secs(15 * 86_400);
    cloud.clock.advance(half);
    assert_eq!(cloud.sign_in("admin", "secret", Json::Null).await.status, 201);
    cloud.clock.advance(half);
    assert_eq!(cloud.sign_in("ann", "pw", Json::Null).await.status, 401);
    let admin =
        cloud.sign_in("admin", "secret", json!({"project": crate::cloud::named("admin")})).await.token();
    let shown = cloud.call("GET", &format!("/v3/users/{user}"), &admin, None).await;
    assert_eq!(shown.body["user"]["enabled"], false);
}

/// The secret of RFC 6238's examples, and its passcode at a moment.
const TOTP_SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

fn passcode(cloud: &Cloud) -> String {
    let period = (cloud.clock.now().unix_seconds() / 30).to_be_bytes();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"12345678901234567890").unwrap();
    mac.update(&period);
    let digest = mac.finalize().into_bytes();
    let at = usize::from(digest[19] & 15);
    let number = u32::from_be_bytes(digest[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

#[tokio::test]
async fn several_methods_where_the_user_s_rules_ask_for_them() {
    let cloud = Cloud::new().await;
    let (project, user, _) = cloud.person("ann", "member").await;
    let secret = json!({"user_id": user, "type": "totp", "blob": TOTP_SECRET});
    cloud.make("credentials", "credential", secret).await;
    let rules = json!({"user": {"options": {"multi_factor_auth_rules": [["password", "totp"]]}}});
    let path = format!("/v3/users/{user}");
    assert_eq!(cloud.call("PATCH", &path, &cloud.admin, Some(rules)).await.status, 200);

    let more = cloud.sign_in("ann", "pw", json!({"project": {"id": project}})).await;
    assert_eq!(more.status, 401);
    assert_eq!(more.body["receipt"]["methods"], json!(["password"]));
    assert_eq!(more.body["required_auth_methods"], json!([["password", "totp"]]));
    assert!(more.token().is_empty());
    let receipt = more.headers["openstack-auth-receipt"].to_str().unwrap().to_string();
    assert_eq!(
        cloud.call("GET", "/v3/auth/projects", &receipt, None).await.status,
        401,
        "a receipt is no token"
    );

    let totp = |passcode: String| {
        let user = json!({"id": user, "passcode": passcode});
        Some(json!({"auth": {"identity": {"methods": ["totp"], "totp": {"user": user}},
            "scope": {"project": {"id": project}}}}))
    };
    let tokens = "/v3/auth/tokens";
    let with = [("openstack-auth-receipt", receipt.as_str())];
    assert_eq!(cloud.ask("POST", tokens, &with, totp("000000".into())).await.status, 401, "wrong passcode");
    let alone = cloud.ask("POST", tokens, &[], totp(passcode(&cloud))).await;
    assert_eq!((alone.status, alone.token().as_str()), (401, ""), "one method is not enough");
    let both = cloud.ask("POST", tokens, &with, totp(passcode(&cloud))).await;
    assert_eq!(both.status, 201, "{}", both.body);
    let mut methods: Vec<String> = serde_json::from_value(both.body["token"]["methods"].clone()).unwrap();
    methods.sort();
    assert_eq!(methods, ["password", "totp"]);
    assert_eq!(
        cloud.ask("POST", tokens, &[("openstack-auth-receipt", "x")], totp(passcode(&cloud))).await.status,
        401
    );
    cloud.clock.advance(Duration::from_secs(301));
    assert_eq!(cloud.ask("POST", tokens, &with, totp(passcode(&cloud))).await.status, 401, "receipts end");
}

#[tokio::test]
async fn a_reset_lets_the_admin_in_again() {
    let rules = SecurityCompliance { lockout_failure_attempts: Some(1), ..SecurityCompliance::default() };
    let cloud = Cloud::with(compliant(rules)).await;
    assert_eq!(cloud.sign_in("admin", "bad", Json::Null).await.status, 401);
    assert_eq!(cloud.sign_in("admin", "secret", Json::Null).await.status, 401, "locked");
    cloud.keystone.reset_admin(Secret::new("anew")).await.unwrap();
    assert_eq!(
        cloud.sign_in("admin", "anew", json!({"project": crate::cloud::named("admin")})).await.status,
        201
    );
    assert_eq!(cloud.sign_in("admin", "anew", json!({"system": {"all": true}})).await.status, 201);
    assert_eq!(
        cloud.call("GET", "/v3/auth/projects", &cloud.admin, None).await.status,
        401,
        "old tokens are void"
    );
    assert_eq!(cloud.sign_in("admin", "secret", Json::Null).await.status, 401);
}

#[tokio::test]
async fn signed_tokens_do_what_encrypted_ones_do() {
    let options =
        Options { token_provider: TokenProvider::Jws, password_hash_rounds: 4, ..Options::default() };
    let cloud = Cloud::with(options).await;
    let (project, _, token) = cloud.person("ann", "member").await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    let subject = [("x-auth-token", token.as_str()), ("x-subject-token", token.as_str())];
    let shown = cloud.ask("GET", "/v3/auth/tokens", &subject, None).await;
    assert_eq!((shown.status, &shown.body["token"]["project"]["id"]), (200, &json!(project)));
    let again =
        json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": "unscoped"}});
    let unscoped = cloud.ask("POST", "/v3/auth/tokens", &[], Some(again)).await;
    assert_eq!(unscoped.status, 201, "{}", unscoped.body);
    assert_eq!(cloud.ask("DELETE", "/v3/auth/tokens", &subject, None).await.status, 204);
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens", &subject, None).await.status, 401, "revoked");
}

#[tokio::test]
async fn what_has_ended_is_forgotten_when_no_token_can_need_it() {
    let cloud = Cloud::new().await;
    let (_, user, _) = cloud.person("ann", "member").await;
    let path = format!("/v3/users/{user}/tokens");
    assert_eq!(cloud.call("DELETE", &path, &cloud.admin, None).await.status, 204);
    assert_eq!(cloud.keystone.purge().await.unwrap(), 0);
    cloud.clock.advance(Duration::from_secs(3600 + 172_800 + 1));
    assert_eq!(cloud.keystone.purge().await.unwrap(), 1);
}

#[tokio::test]
async fn client_credentials_are_application_credentials() {
    let cloud = Cloud::new().await;
    let (_, user, token) = cloud.person("ann", "member").await;
    let body = json!({"application_credential": {"name": "robot", "secret": "s3"}});
    let path = format!("/v3/users/{user}/application_credentials");
    let made = cloud.call("POST", &path, &token, Some(body)).await;
    let id = made.body["application_credential"]["id"].as_str().unwrap().to_string();
    let ask = async |basic: String, form: &str| {
        let header = format!("Basic {}", STANDARD.encode(basic));
        cloud.send("POST", "/v3/OS-OAUTH2/token", &[("authorization", &header)], form.to_string()).await
    };
    let right = format!("{id}:s3");
    let answer = ask(right.clone(), "grant_type=client_credentials").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((&answer.body["token_type"], &answer.body["expires_in"]), (&json!("Bearer"), &json!(3600)));
    let token = answer.body["access_token"].as_str().unwrap();
    assert_eq!(cloud.call("GET", "/v3/auth/projects", token, None).await.status, 200);
    for (basic, form, status, error) in [
        (right.clone(), "", 400, "invalid_request"),
        (right.clone(), "grant_type=password", 400, "unsupported_grant_type"),
        (format!("{id}:bad"), "grant_type=client_credentials", 401, "invalid_client"),
        (format!("{id}:"), "grant_type=client_credentials", 401, "invalid_client"),
        (String::new(), "grant_type=client_credentials", 401, "invalid_client"),
        ("none:s3".into(), "grant_type=client_credentials", 404, "other_error"),
    ] {
        let answer = ask(basic, form).await;
        assert_eq!((answer.status, &answer.body["error"]), (status, &json!(error)), "{form}");
    }
}

struct Signing<'a> {
    consumer: (&'a str, &'a str),
    token: (&'a str, &'a str),
    verifier: &'a str,
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn sign(cloud: &Cloud, path: &str, with: &Signing) -> String {
    let at = cloud.clock.now().unix_seconds().to_string();
    let mut pairs = vec![
        ("oauth_consumer_key", with.consumer.0),
        ("oauth_nonce", "n0nce"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", at.as_str()),
        ("oauth_version", "1.0"),
    ];
    if !with.token.0.is_empty() {
        pairs.push(("oauth_token", with.token.0));
    }
    if !with.verifier.is_empty() {
        pairs.push(("oauth_verifier", with.verifier));
    }
    pairs.sort_unstable();
    let joined: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let url = format!("http://127.0.0.1:5000{path}");
    let base = format!("POST&{}&{}", encode(&url), encode(&joined.join("&")));
    let key = format!("{}&{}", with.consumer.1, with.token.1);
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(base.as_bytes());
    let signature = encode(&STANDARD.encode(mac.finalize().into_bytes()));
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", encode(value))).collect();
    format!("OAuth {}, oauth_signature=\"{signature}\"", pairs.join(", "))
}

fn form(answer: &Answer, name: &str) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text());
    let found = answer.text().split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    found.unwrap().to_string()
}

#[tokio::test]
async fn a_consumer_acts_within_what_was_authorized() {
    let cloud = Cloud::new().await;
    let consumer =
        cloud.call("POST", "/v3/OS-OAUTH1/consumers", &cloud.admin, Some(json!({"consumer": {}}))).await;
    let (key, secret) = (
        consumer.body["consumer"]["id"].as_str().unwrap(),
        consumer.body["consumer"]["secret"].as_str().unwrap(),
    );
    let admin = cloud.keystone_user("admin").await;
    let project = cloud.keystone_project("admin").await;
    let path = "/v3/OS-OAUTH1/request_token";
    let unsigned = Signing { consumer: (key, secret), token: ("", ""), verifier: "" };
    let forged = Signing { consumer: (key, "wrong"), ..unsigned };
    let unsigned = Signing { consumer: (key, secret), token: ("", ""), verifier: "" };
    let ask = async |header: String, path: &str| {
        let headers = [("authorization", header.as_str()), ("requested-project-id", project.as_str())];
        cloud.ask("POST", path, &headers, None).await
    };
    assert_eq!(ask(sign(&cloud, path, &forged), path).await.status, 401);
    assert_eq!(ask(String::new(), path).await.status, 401);
    let old = sign(&cloud, path, &unsigned);
    cloud.clock.advance(Duration::from_secs(601));
    assert_eq!(ask(old, path).await.status, 400, "too old");
    let asked = ask(sign(&cloud, path, &unsigned), path).await;
    let (request, request_secret) = (form(&asked, "oauth_token"), form(&asked, "oauth_token_secret"));

    let early = Signing { consumer: (key, secret), token: (&request, &request_secret), verifier: "12345678" };
    let access_path = "/v3/OS-OAUTH1/access_token";
    assert_eq!(ask(sign(&cloud, access_path, &early), access_path).await.status, 401, "not authorized yet");

    let member = cloud.role("member").await;
    let foreign = cloud.make("roles", "role", json!({"name": "foreign"})).await;
    let authorize = format!("/v3/OS-OAUTH1/authorize/{request}");
    let roles = |id: &str| Some(json!({"roles": [{"id": id}]}));
    assert_eq!(
        cloud.call("PUT", &authorize, &cloud.admin, roles(&foreign)).await.status,
        401,
        "a role not held"
    );
    let yes = cloud.call("PUT", &authorize, &cloud.admin, roles(&member)).await;
    assert_eq!(yes.status, 200, "{}", yes.body);
    let verifier = yes.body["token"]["oauth_verifier"].as_str().unwrap().to_string();

    let wrong = Signing {
        verifier: "12345678",
        ..Signing { consumer: (key, secret), token: (&request, &request_secret), verifier: "" }
    };
    assert_eq!(ask(sign(&cloud, access_path, &wrong), access_path).await.status, 401, "a wrong verifier");
    let right = Signing { consumer: (key, secret), token: (&request, &request_secret), verifier: &verifier };
    let traded = ask(sign(&cloud, access_path, &right), access_path).await;
    let (access, access_secret) = (form(&traded, "oauth_token"), form(&traded, "oauth_token_secret"));
    assert_eq!(ask(sign(&cloud, access_path, &right), access_path).await.status, 404, "only once");

    let login = Some(json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}}));
    let tokens = "/v3/auth/tokens";
    let with = Signing { consumer: (key, secret), token: (&access, &access_secret), verifier: "" };
    let header = sign(&cloud, tokens, &with);
    let answer = cloud.ask("POST", tokens, &[("authorization", &header)], login.clone()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(crate::cloud::role_names(&answer), ["member", "reader"], "no more than was authorized");
    assert_eq!(answer.body["token"]["OS-OAUTH1"]["access_token_id"], access);
    let copy = cloud.ask("POST", tokens, &[("authorization", &header)], login.clone()).await;
    assert_eq!(copy.status, 401, "a copy of the login");
    let again = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": answer.token()}}}});
    assert_eq!(cloud.ask("POST", tokens, &[], Some(again)).await.status, 403, "it is not rescoped");
    let bad = Signing { consumer: (key, secret), token: (&access, "wrong"), verifier: "" };
    let header = sign(&cloud, tokens, &bad);
    assert_eq!(cloud.ask("POST", tokens, &[("authorization", &header)], login.clone()).await.status, 401);

    let path = format!("/v3/users/{admin}/OS-OAUTH1/access_tokens");
    let held = cloud.call("GET", &path, &cloud.admin, None).await;
    assert_eq!(held.body["access_tokens"][0]["id"], access, "{}", held.body);
    let gone = cloud.call("DELETE", &format!("{path}/{access}"), &cloud.admin, None).await;
    assert_eq!(gone.status, 204);
    assert_eq!(
        cloud.call("GET", "/v3/auth/projects", &answer.token(), None).await.status,
        401,
        "void at once"
    );
    let header = sign(&cloud, tokens, &with);
    assert_eq!(cloud.ask("POST", tokens, &[("authorization", &header)], login).await.status, 404);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[tokio::test]
async fn signed_requests_are_told_to_services_alone() {
    let cloud = Cloud::new().await;
    let (project, user, token) = cloud.person("ann", "member").await;
    let path = format!("/v3/users/{user}/credentials/OS-EC2");
    let pair = cloud.call("POST", &path, &token, Some(json!({"tenant_id": project}))).await;
    assert_eq!(pair.status, 201, "{}", pair.body);
    let (access, secret) = (
        pair.body["credential"]["access"].clone(),
        pair.body["credential"]["secret"].as_str().unwrap().to_string(),
    );

    let text = "GET\nswift.example:8080\n/\nAWSAccessKeyId=x&SignatureMethod=HmacSHA256&SignatureVersion=2";
    let right = STANDARD.encode(sha256(secret.as_bytes(), text.as_bytes()));
    let ec2 = |signature: &str| {
        Some(json!({"credentials": {"access": access, "signature": signature, "verb": "GET", "path": "/",
            "host": "swift.example:8080",
            "params": {"SignatureVersion": "2", "SignatureMethod": "HmacSHA256", "AWSAccessKeyId": "x"}}}))
    };
    assert_eq!(cloud.call("POST", "/v3/ec2tokens", "", ec2(&right)).await.status, 401);
    assert_eq!(cloud.call("POST", "/v3/ec2tokens", &token, ec2(&right)).await.status, 403, "not for users");
    let answer = cloud.call("POST", "/v3/ec2tokens", &cloud.admin, ec2(&right)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["token"]["user"]["id"], user);
    assert_eq!(answer.body["token"]["methods"], json!(["ec2credential"]));
    assert_eq!(cloud.call("POST", "/v3/ec2tokens", &cloud.admin, ec2("x")).await.status, 401);

    let text = "AWS4-HMAC-SHA256\n20261120T081530Z\n20261120/RegionOne/s3/aws4_request\nabc";
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in ["20261120", "RegionOne", "s3", "aws4_request"] {
        key = sha256(&key, part.as_bytes());
    }
    let signature = hex(&sha256(&key, text.as_bytes()));
    let s3 = |text: &str, signature: &str| {
        let token = base64::engine::general_purpose::URL_SAFE.encode(text);
        Some(json!({"credentials": {"access": access, "signature": signature, "token": token}}))
    };
    let answer = cloud.call("POST", "/v3/s3tokens", &cloud.admin, s3(text, &signature)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.token().is_empty(), "no token is given away");
    for wrong in [text.replace("abc", "abd"), text.replace("/s3/", "/ec2/"), "AWS4".into()] {
        assert_eq!(
            cloud.call("POST", "/v3/s3tokens", &cloud.admin, s3(&wrong, &signature)).await.status,
            401
        );
    }
    let disable = json!({"user": {"enabled": false}});
    cloud.call("PATCH", &format!("/v3/users/{user}"), &cloud.admin, Some(disable)).await;
    assert_eq!(cloud.call("POST", "/v3/ec2tokens", &cloud.admin, ec2(&right)).await.status, 401, "disabled");
}
