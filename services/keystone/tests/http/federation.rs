//! Users from elsewhere: logins with an OpenID Connect provider's tokens and by way of its page, and what is refused.

use crate::cloud::{Answer, Cloud, Subject};
use axum::{
    Router,
    extract::State,
    http::HeaderMap,
    routing::{get, post},
};
use base::{Json, Secret};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use keystone::{OpenId, Options};
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

const DASHBOARD: &str = "https://dash.example/auth/websso/";
const ORIGIN: &str = "origin=https%3A%2F%2Fdash.example%2Fauth%2Fwebsso%2F";

/// A provider that knows one key, and the codes that a test hands it.
struct Provider {
    url: String,
    key: SigningKey,
    /// By code: who it is for, and the challenge that the code's verifier must meet.
    codes: Mutex<HashMap<String, (Json, String)>>,
    opaque: Mutex<HashMap<String, Json>>,
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let provider = Arc::new(Self { url, key, codes: Mutex::default(), opaque: Mutex::default() });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(about))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/introspect", post(introspect))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    fn sign(&self, header: Json, claims: &Json) -> String {
        let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature: Signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }

    fn token(&self, claims: &Json) -> String {
        self.sign(json!({"alg": "ES256", "kid": "one"}), claims)
    }

    fn claims(&self, cloud: &Cloud, sub: &str) -> Json {
        let now = cloud.clock.now().unix_seconds();
        json!({"iss": self.url, "aud": "ferrostack", "sub": sub, "exp": now + 300, "email": format!("{sub}@x"),
            "groups": ["dev", "ops"]})
    }
}

async fn about(State(provider): State<Arc<Provider>>) -> String {
    let url = &provider.url;
    json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "token_endpoint": format!("{url}/token"),
        "authorization_endpoint": format!("{url}/authorize"), "introspection_endpoint": format!("{url}/introspect")}).to_string()
}

async fn keys(State(provider): State<Arc<Provider>>) -> String {
    let point = provider.key.verifying_key().to_encoded_point(false);
    let part = |bytes: Option<&p256::FieldBytes>| URL_SAFE_NO_PAD.encode(bytes.unwrap());
    let key = json!({"kty": "EC", "crv": "P-256", "kid": "one", "x": part(point.x()), "y": part(point.y())});
    json!({"keys": [key]}).to_string()
}

fn is_client(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| *value == format!("Basic {}", STANDARD.encode("ferrostack:s3cret")))
}

fn field(form: &str, name: &str) -> String {
    let found = web::Query::parse(form);
    found.get(name).unwrap_or_default().to_string()
}

async fn token(State(provider): State<Arc<Provider>>, headers: HeaderMap, form: String) -> String {
    let known = provider.codes.lock().unwrap().remove(&field(&form, "code"));
    let met = URL_SAFE_NO_PAD.encode(Sha256::digest(field(&form, "code_verifier")));
    match known {
        Some((claims, challenge)) if is_client(&headers) && challenge == met => {
            json!({"id_token": provider.token(&claims)}).to_string()
        }
        _ => json!({"error": "invalid_grant"}).to_string(),
    }
}

async fn introspect(State(provider): State<Arc<Provider>>, headers: HeaderMap, form: String) -> String {
    let known = provider.opaque.lock().unwrap().get(&field(&form, "token")).cloned();
    known.filter(|_| is_client(&headers)).unwrap_or(json!({"active": false})).to_string()
}

async fn begin() -> (Arc<Provider>, Cloud) {
    let provider = Provider::start().await;
    let openid = OpenId {
        issuer: provider.url.clone(),
        client_id: "ferrostack".into(),
        client_secret: Secret::new("s3cret"),
        ..OpenId::default()
    };
    let options = Options {
        password_hash_rounds: 4,
        openid: BTreeMap::from([("acme".to_string(), openid)]),
        trusted_dashboards: vec![DASHBOARD.into()],
        ..Options::default()
    };
    let cloud = Cloud::with(options).await;
    let rules = json!([
        {"local": [{"user": {"name": "{0}", "email": "{1}"}}],
            "remote": [{"type": "OIDC-sub"}, {"type": "HTTP_OIDC_EMAIL"}]},
        {"local": [{"groups": "{0}", "domain": {"id": "default"}}],
            "remote": [{"type": "OIDC-groups", "whitelist": ["dev", "admins"]}]},
    ]);
    put(&cloud, "mappings/m", json!({"mapping": {"rules": rules}})).await;
    let acme = json!({"identity_provider": {"enabled": true, "remote_ids": [provider.url]}});
    put(&cloud, "identity_providers/acme", acme).await;
    let protocol = json!({"protocol": {"mapping_id": "m", "remote_id_attribute": "HTTP_OIDC_ISS"}});
    put(&cloud, "identity_providers/acme/protocols/openid", protocol).await;
    (provider, cloud)
}

async fn put(cloud: &Cloud, path: &str, body: Json) {
    let path = format!("/v3/OS-FEDERATION/{path}");
    let answer = cloud.call("PUT", &path, &cloud.admin, Some(body)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

const AUTH: &str = "/v3/OS-FEDERATION/identity_providers/acme/protocols/openid/auth";

async fn bearer(cloud: &Cloud, token: &str) -> Answer {
    cloud.ask("POST", AUTH, &[("authorization", &format!("Bearer {token}"))], None).await
}

async fn rescope(cloud: &Cloud, token: &str, scope: Json) -> Answer {
    let auth = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": scope}});
    cloud.ask("POST", "/v3/auth/tokens", &[], Some(auth)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_s_token_logs_in_with_the_groups_that_it_vouches_for() {
    let (provider, cloud) = begin().await;
    let group = cloud.make("groups", "group", json!({"name": "dev"})).await;
    let project = cloud.make("projects", "project", json!({"name": "theirs"})).await;
    cloud.grant(&format!("projects/{project}/groups/{group}/roles/{}", cloud.role("member").await)).await;

    let first = bearer(&cloud, &provider.token(&provider.claims(&cloud, "bob"))).await;
    assert_eq!(first.status, 201, "{}", first.body);
    let user = first.body["token"]["user"].clone();
    assert_eq!((&user["name"], &first.body["token"]["methods"]), (&json!("bob"), &json!(["mapped"])));
    let vouched =
        json!({"groups": [{"id": group}], "identity_provider": {"id": "acme"}, "protocol": {"id": "openid"}});
    assert_eq!(user["OS-FEDERATION"], vouched);
    let projects = cloud.call("GET", "/v3/OS-FEDERATION/projects", &first.token(), None).await;
    assert_eq!(projects.body["projects"][0]["id"], project, "{}", projects.body);

    let scoped = rescope(&cloud, &first.token(), json!({"project": {"id": project}})).await;
    assert_eq!(scoped.status, 201, "{}", scoped.body);
    assert_eq!(crate::cloud::role_names(&scoped), ["member", "reader"]);
    assert_eq!(scoped.body["token"]["user"]["OS-FEDERATION"], vouched, "who vouched stays");
    let admin = cloud.keystone_project("admin").await;
    assert_eq!(rescope(&cloud, &first.token(), json!({"project": {"id": admin}})).await.status, 401);
    assert_eq!(rescope(&cloud, &first.token(), json!({"system": {"all": true}})).await.status, 401);

    let again = bearer(&cloud, &provider.token(&provider.claims(&cloud, "bob"))).await;
    assert_eq!(again.body["token"]["user"]["id"], user["id"], "the same user");
    let other = bearer(&cloud, &provider.token(&provider.claims(&cloud, "eve"))).await;
    assert_ne!(other.body["token"]["user"]["id"], user["id"]);
    let shown =
        cloud.call("GET", &format!("/v3/users/{}", user["id"].as_str().unwrap()), &cloud.admin, None).await;
    assert_eq!(shown.body["user"]["email"], "bob@x");

    let disable = json!({"identity_provider": {"enabled": false}});
    let path = "/v3/OS-FEDERATION/identity_providers/acme";
    assert_eq!(cloud.call("PATCH", path, &cloud.admin, Some(disable)).await.status, 200);
    assert_eq!(bearer(&cloud, &provider.token(&provider.claims(&cloud, "bob"))).await.status, 403);
    assert_eq!(
        cloud.call("GET", "/v3/auth/projects", &scoped.token(), None).await.status,
        401,
        "void at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_did_not_say_to_us_now_is_refused() {
    let (provider, cloud) = begin().await;
    let good = provider.claims(&cloud, "bob");
    let with = |name: &str, value: Json| {
        let mut claims = good.clone();
        claims[name] = value;
        provider.token(&claims)
    };
    let unsigned = provider.sign(json!({"alg": "none"}), &good);
    let unknown_key = provider.sign(json!({"alg": "ES256", "kid": "two"}), &good);
    let genuine = provider.token(&good);
    let forged = {
        let parts: Vec<&str> = genuine.split('.').collect();
        let claims = URL_SAFE_NO_PAD.encode(provider.claims(&cloud, "root").to_string());
        format!("{}.{claims}.{}", parts[0], parts[2])
    };
    for (what, token) in [
        ("another's", with("aud", json!("other"))),
        ("another issuer", with("iss", json!("http://evil.example"))),
        ("over", with("exp", json!(1))),
        ("unsigned", unsigned),
        ("unknown key", unknown_key),
        ("forged", forged),
        ("nobody", with("sub", Json::Null)),
        ("rubbish", "a.b.c".into()),
        ("opaque", "unknown".into()),
        ("long", "x".repeat(20_000)),
        ("none", String::new()),
    ] {
        assert_eq!(bearer(&cloud, &token).await.status, 401, "{what}");
    }
    assert_eq!(cloud.ask("GET", AUTH, &[], None).await.status, 401, "nothing shown");
    let forged = [("remote_user", "admin"), ("http_oidc_sub", "admin"), ("oidc-sub", "admin")];
    assert_eq!(
        cloud.ask("GET", AUTH, &forged, None).await.status,
        401,
        "headers are not the provider's word"
    );
    for (path, status) in [
        ("/v3/OS-FEDERATION/identity_providers/none/protocols/openid/auth", 404),
        ("/v3/OS-FEDERATION/identity_providers/acme/protocols/none/auth", 404),
    ] {
        let header = format!("Bearer {genuine}");
        assert_eq!(cloud.ask("GET", path, &[("authorization", &header)], None).await.status, status);
    }
    let opaque =
        json!({"active": true, "client_id": "ferrostack", "sub": "bob", "email": "b", "exp": good["exp"]});
    let others =
        json!({"active": true, "client_id": "other", "sub": "bob", "email": "b", "exp": good["exp"]});
    provider.opaque.lock().unwrap().extend([("good".into(), opaque), ("others".into(), others)]);
    assert_eq!(bearer(&cloud, "others").await.status, 401, "an opaque token of another client");
    assert_eq!(bearer(&cloud, "good").await.status, 201, "the provider itself says that it is good");
    assert_eq!(bearer(&cloud, &genuine).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_follow_what_the_provider_says() {
    let (provider, cloud) = begin().await;
    let rules = json!({"mapping": {"schema_version": "3.0", "rules": [
        {"local": [{"user": {"name": "{0}"}, "domain": {"id": "default"}, "projects_json": "{1}"}],
            "remote": [{"type": "OIDC-sub"}, {"type": "OIDC-projects"}]}]}});
    let path = "/v3/OS-FEDERATION/mappings/m";
    assert_eq!(cloud.call("PATCH", path, &cloud.admin, Some(rules)).await.status, 200);
    let log_in = async |projects: Json| {
        let mut claims = provider.claims(&cloud, "bob");
        claims["projects"] = projects.to_string().into();
        bearer(&cloud, &provider.token(&claims)).await
    };
    let names = async |token: &str| {
        let listed = cloud.call("GET", "/v3/auth/projects", token, None).await;
        let listed = listed.body["projects"].as_array().unwrap().clone();
        let mut names: Vec<String> =
            listed.iter().map(|one| one["name"].as_str().unwrap().to_string()).collect();
        names.sort();
        names
    };
    let both =
        json!([{"name": "a", "roles": [{"name": "member"}]}, {"name": "b", "roles": [{"name": "reader"}]}]);
    let token = log_in(both).await;
    assert_eq!(token.status, 201, "{}", token.body);
    assert_eq!(names(&token.token()).await, ["a", "b"]);
    let token = log_in(json!([{"name": "b", "roles": [{"name": "member"}]}])).await.token();
    assert_eq!(names(&token).await, ["b"]);
    let scoped =
        rescope(&cloud, &token, json!({"project": {"name": "b", "domain": {"id": "default"}}})).await;
    assert_eq!(crate::cloud::role_names(&scoped), ["member", "reader"]);
    assert_eq!(log_in(json!([{"name": "b", "roles": [{"name": "no-such-role"}]}])).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_goes_to_the_provider_and_comes_back_with_a_token_for_its_dashboard() {
    let (provider, cloud) = begin().await;
    let page = "/v3/auth/OS-FEDERATION/websso/openid";
    assert_eq!(cloud.ask("GET", page, &[], None).await.status, 400);
    let evil = format!("{page}?origin=https%3A%2F%2Fevil.example%2F");
    assert_eq!(cloud.ask("GET", &evil, &[], None).await.status, 401);
    let sent = cloud.ask("GET", &format!("{page}?{ORIGIN}"), &[], None).await;
    assert_eq!(sent.status, 302, "{}", sent.text());
    let (url, query) = sent.headers["location"].to_str().unwrap().split_once('?').unwrap();
    assert_eq!(url, format!("{}/authorize", provider.url));
    let cookie = sent.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_string();
    let back = "/v3/auth/OS-FEDERATION/identity_providers/acme/protocols/openid/websso";
    assert_eq!(field(query, "redirect_uri"), format!("http://127.0.0.1:5000{back}"));

    let mut claims = provider.claims(&cloud, "bob");
    claims["nonce"] = field(query, "nonce").into();
    let hand_out = |code: &str, claims: &Json| {
        let known = (claims.clone(), field(query, "code_challenge"));
        provider.codes.lock().unwrap().insert(code.into(), known);
    };
    let state: String = web::form_urlencoded::byte_serialize(field(query, "state").as_bytes()).collect();
    let come = async |code: &str, state: &str, cookie: &str| {
        cloud.ask("GET", &format!("{back}?code={code}&state={state}"), &[("cookie", cookie)], None).await
    };
    hand_out("c1", &claims);
    assert_eq!(come("c1", &state, "").await.status, 401, "another browser");
    assert_eq!(come("c1", "rubbish", &cookie).await.status, 401);
    assert_eq!(come("wrong", &state, &cookie).await.status, 401);
    let mut others = claims.clone();
    others["nonce"] = "other".into();
    hand_out("c2", &others);
    assert_eq!(come("c2", &state, &cookie).await.status, 401, "a token of another login");
    let done = come("c1", &state, &cookie).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.text().contains(&format!("action=\"{DASHBOARD}\"")), "{}", done.text());
    let token = done.text().split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(cloud.call("GET", "/v3/auth/projects", token, None).await.status, 200);
    assert_eq!(come("c1", &state, &cookie).await.status, 401, "a code is good once");
    hand_out("c3", &claims);
    cloud.clock.advance(Duration::from_secs(601));
    assert_eq!(come("c3", &state, &cookie).await.status, 401, "too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_s_user_never_takes_a_local_account() {
    let (provider, cloud) = begin().await;
    let rules = json!({"mapping": {"rules": [{"local": [{"user": {"name": "{0}", "domain": {"id": "default"}}}],
        "remote": [{"type": "OIDC-sub"}]}], "schema_version": "2.0"}});
    assert_eq!(
        cloud.call("PATCH", "/v3/OS-FEDERATION/mappings/m", &cloud.admin, Some(rules)).await.status,
        200
    );
    assert_eq!(bearer(&cloud, &provider.token(&provider.claims(&cloud, "admin"))).await.status, 409);
    let local = json!({"mapping": {"rules": [{"local": [{"user": {"name": "{0}", "domain": {"id": "default"},
        "type": "local"}}], "remote": [{"type": "OIDC-sub"}]}]}});
    assert_eq!(
        cloud.call("PATCH", "/v3/OS-FEDERATION/mappings/m", &cloud.admin, Some(local)).await.status,
        200
    );
    let (project, user, _) = cloud.person("ann", "member").await;
    let ann = bearer(&cloud, &provider.token(&provider.claims(&cloud, "ann"))).await;
    assert_eq!(ann.body["token"]["user"]["id"], user, "{}", ann.body);
    assert!(ann.body["token"]["user"].get("OS-FEDERATION").is_none());
    assert_eq!(rescope(&cloud, &ann.token(), json!({"project": {"id": project}})).await.status, 201);
    assert_eq!(bearer(&cloud, &provider.token(&provider.claims(&cloud, "nobody"))).await.status, 401);
}

/// The text of the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split_once(&format!("</{name}>")).unwrap().0
}

fn is_signed(response: &str, certificate: &str) -> bool {
    use rsa::{pkcs1v15, pkcs8::DecodePublicKey, signature::Verifier};
    use x509_cert::der::{Decode, Encode};
    let (head, rest) = response.split_once("<saml:Assertion").unwrap();
    let assertion =
        format!("<saml:Assertion{}</saml:Assertion>", rest.split_once("</saml:Assertion>").unwrap().0);
    let (before, signature) = assertion.split_once("<ds:Signature").unwrap();
    let (signature, after) = signature.split_once("</ds:Signature>").unwrap();
    let info = element(signature, "ds:SignedInfo");
    let digest = STANDARD.encode(Sha256::digest(format!("{before}{after}")));
    let signed =
        format!("<ds:SignedInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">{info}</ds:SignedInfo>");
    let value = STANDARD.decode(element(signature, "ds:SignatureValue")).unwrap();
    let certificate = x509_cert::Certificate::from_der(&STANDARD.decode(certificate).unwrap()).unwrap();
    let key = certificate.tbs_certificate.subject_public_key_info.to_der().unwrap();
    let key = rsa::RsaPublicKey::from_public_key_der(&key).unwrap();
    let key = pkcs1v15::VerifyingKey::<rsa::sha2::Sha256>::new(key);
    let value = pkcs1v15::Signature::try_from(value.as_slice()).unwrap();
    head.starts_with("<samlp:Response")
        && element(info, "ds:DigestValue") == digest
        && key.verify(signed.as_bytes(), &value).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cloud_gets_our_signed_word() {
    let cloud = Cloud::new().await;
    let urls = json!({"service_provider": {"auth_url": "https://sp/a", "sp_url": "https://sp/b?x=1&y=2", "enabled": true}});
    put(&cloud, "service_providers/sp", urls).await;
    let name = "ann <&\"> \u{e9}";
    let (project, user, token) = cloud.person("ann", "member").await;
    let rename = json!({"user": {"name": name}});
    cloud.call("PATCH", &format!("/v3/users/{user}"), &cloud.admin, Some(rename)).await;
    let group = cloud.make("groups", "group", json!({"name": "dev"})).await;
    cloud.grant(&format!("groups/{group}/users/{user}")).await;
    let shown = [("x-auth-token", token.as_str()), ("x-subject-token", token.as_str())];
    let shown = cloud.ask("GET", "/v3/auth/tokens", &shown, None).await;
    let told = json!([{"id": "sp", "auth_url": "https://sp/a", "sp_url": "https://sp/b?x=1&y=2"}]);
    assert_eq!(shown.body["token"]["service_providers"], told);

    let metadata = cloud.ask("GET", "/v3/OS-FEDERATION/saml2/metadata", &[], None).await;
    assert_eq!((metadata.status, metadata.headers["content-type"].to_str().unwrap()), (200, "text/xml"));
    let certificate = element(metadata.text(), "ds:X509Certificate").to_string();
    let ask = async |path: &str, token: &str| {
        let auth = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}},
            "scope": {"service_provider": {"id": "sp"}}}});
        cloud.ask("POST", &format!("/v3/auth/OS-FEDERATION/{path}"), &[], Some(auth)).await
    };
    let answer = ask("saml2", &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["x-sp-url"], "https://sp/b?x=1&y=2");
    assert_eq!(answer.headers["x-auth-url"], "https://sp/a");
    assert!(is_signed(answer.text(), &certificate), "{}", answer.text());
    assert!(!is_signed(&answer.text().replace("member", "admin"), &certificate), "a changed role is noticed");
    assert_eq!(element(answer.text(), "saml:NameID"), "ann &lt;&amp;\"&gt; \u{e9}");
    assert!(
        answer.text().contains("JSON:{\"name\":\"dev\",\"domain\":{\"name\":\"Default\"}}"),
        "{}",
        answer.text()
    );
    let carried = ask("saml2/ecp", &token).await;
    assert!(
        carried.text().starts_with("<soap:Envelope") && carried.text().contains("ss:mem:"),
        "{}",
        carried.text()
    );

    assert_eq!(ask("saml2", "rubbish").await.status, 404);
    let unscoped = rescope(&cloud, &token, json!("unscoped")).await.token();
    assert_eq!(ask("saml2", &unscoped).await.status, 403, "it is for a project");
    let body =
        json!({"application_credential": {"name": "robot", "secret": "s3", "roles": [{"name": "reader"}]}});
    let path = format!("/v3/users/{user}/application_credentials");
    let made = cloud.call("POST", &path, &token, Some(body)).await;
    let id = &made.body["application_credential"]["id"];
    let proof =
        json!({"methods": ["application_credential"], "application_credential": {"id": id, "secret": "s3"}});
    let robot = cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({"auth": {"identity": proof}}))).await;
    assert_eq!((robot.status, ask("saml2", &robot.token()).await.status), (201, 403), "{project}");
}
