//! Logins with SAML 2 providers: browsers, programs that carry messages, other keystones; and every message that must
//! not be believed.

use crate::cloud::{Answer, Cloud, Subject};
use base::{Json, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD};

use keystone::{Options, Saml};
use p256::{
    ecdsa::{Signature, SigningKey, signature::Signer},
    pkcs8::DecodePrivateKey,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::Path, time::Duration};

const IDP: &str = "https://idp.example/metadata";
const BASE: &str = "http://127.0.0.1:5000";
const PROTOCOL: &str = "/v3/OS-FEDERATION/identity_providers/acme/protocols/saml2";
const WEBSSO: &str = "/v3/auth/OS-FEDERATION/identity_providers/acme/protocols/saml2/websso";
const ORIGIN: &str = "origin=https%3A%2F%2Fdash.example%2Fauth%2Fwebsso%2F";

/// What an honest provider would write, to be spoiled one thing at a time.
#[derive(Clone)]
struct Word {
    id: &'static str,
    issuer: String,
    audience: String,
    recipient: String,
    in_response_to: String,
    not_before: Timestamp,
    until: Timestamp,
    name: &'static str,
}

impl Word {
    fn now(cloud: &Cloud, id: &'static str) -> Self {
        let now = cloud.clock.now();
        Self {
            id,
            issuer: IDP.into(),
            audience: format!("{BASE}{PROTOCOL}/saml2/metadata"),
            recipient: format!("{BASE}{PROTOCOL}/saml2/acs"),
            in_response_to: String::new(),
            not_before: now,
            until: now.plus(Duration::from_secs(300)),
            name: "bob",
        }
    }

    /// In canonical form.
    fn assertion(&self) -> String {
        let Self { id, issuer, audience, recipient, name, .. } = self;
        let (begin, until) = (self.not_before.seconds(), self.until.seconds());
        let answers = match self.in_response_to.as_str() {
            "" => String::new(),
            request => format!(" InResponseTo=\"{request}\""),
        };
        format!(
            "<a:Assertion xmlns:a=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"{id}\" IssueInstant=\"{begin}\" \
             Version=\"2.0\"><a:Issuer>{issuer}</a:Issuer><a:Subject><a:NameID>{name}</a:NameID>\
             <a:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\"><a:SubjectConfirmationData\
             {answers} NotOnOrAfter=\"{until}\" Recipient=\"{recipient}\"></a:SubjectConfirmationData>\
             </a:SubjectConfirmation></a:Subject><a:Conditions NotBefore=\"{begin}\" NotOnOrAfter=\"{until}\">\
             <a:AudienceRestriction><a:Audience>{audience}</a:Audience></a:AudienceRestriction></a:Conditions>\
             <a:AttributeStatement><a:Attribute Name=\"groups\"><a:AttributeValue>dev</a:AttributeValue>\
             <a:AttributeValue>ops</a:AttributeValue></a:Attribute></a:AttributeStatement></a:Assertion>"
        )
    }

    fn signed(&self) -> String {
        sign(&self.assertion(), self.id, true)
    }

    fn response(&self) -> String {
        respond(&self.signed())
    }
}

/// With a signature before its last element's end.
fn sign(element: &str, id: &str, rightly: bool) -> String {
    let key = SigningKey::from_pkcs8_pem(include_str!("saml2/idp.key")).unwrap();
    let key = if rightly { key } else { SigningKey::from_slice(&[9; 32]).unwrap() };
    let digest = STANDARD.encode(Sha256::digest(element));
    let info = |namespace: &str| {
        format!(
            "<d:SignedInfo{namespace}><d:CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\">\
             </d:CanonicalizationMethod><d:SignatureMethod \
             Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256\"></d:SignatureMethod>\
             <d:Reference URI=\"#{id}\"><d:Transforms><d:Transform \
             Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></d:Transform><d:Transform \
             Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"></d:Transform></d:Transforms><d:DigestMethod \
             Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"></d:DigestMethod>\
             <d:DigestValue>{digest}</d:DigestValue></d:Reference></d:SignedInfo>"
        )
    };
    let namespace = " xmlns:d=\"http://www.w3.org/2000/09/xmldsig#\"";
    let value: Signature = key.sign(info(namespace).as_bytes());
    let value = STANDARD.encode(value.to_bytes());
    let signature = format!(
        "<d:Signature{namespace}>{}<d:SignatureValue>{value}</d:SignatureValue></d:Signature>",
        info("")
    );
    let (before, end) = element.rsplit_once("</").unwrap();
    format!("{before}{signature}</{end}")
}

fn respond(content: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<p:Response xmlns:p=\"urn:oasis:names:tc:SAML:2.0:protocol\" ID=\"_r\" Version=\"2.0\">\
         <p:Status><p:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"/></p:Status>\n{content}\n</p:Response>"
    )
}

fn metadata() -> String {
    let lines = include_str!("saml2/idp.pem").lines().filter(|line| !line.starts_with('-'));
    let certificate: String = lines.collect();
    format!(
        "<!-- ours --><m:EntityDescriptor xmlns:m=\"urn:oasis:names:tc:SAML:2.0:metadata\" entityID=\"{IDP}\">\
         <m:IDPSSODescriptor><m:KeyDescriptor use=\"signing\"><d:KeyInfo xmlns:d=\"http://www.w3.org/2000/09/xmldsig#\">\
         <d:X509Data><d:X509Certificate>{certificate}</d:X509Certificate></d:X509Data></d:KeyInfo></m:KeyDescriptor>\
         <m:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect\" \
         Location=\"https://idp.example/sso\"/></m:IDPSSODescriptor></m:EntityDescriptor>"
    )
}

async fn begin_with(metadata: &str, directory: &Path, rules: Json) -> Cloud {
    let path = directory.join("idp.xml");
    std::fs::write(&path, metadata).unwrap();
    let saml = Saml { metadata: path, public_url: BASE.into(), ..Saml::default() };
    let options = Options {
        password_hash_rounds: 4,
        saml: BTreeMap::from([("acme".to_string(), saml)]),
        trusted_dashboards: vec!["https://dash.example/auth/websso/".into()],
        ..Options::default()
    };
    let cloud = Cloud::with(options).await;
    for (path, body) in [
        ("mappings/m", json!({"mapping": {"rules": rules}})),
        ("identity_providers/acme", json!({"identity_provider": {"enabled": true, "remote_ids": [IDP]}})),
        (
            "identity_providers/acme/protocols/saml2",
            json!({"protocol": {"mapping_id": "m", "remote_id_attribute": "MELLON_IDP"}}),
        ),
    ] {
        let answer = cloud.call("PUT", &format!("/v3/OS-FEDERATION/{path}"), &cloud.admin, Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    cloud
}

async fn begin(directory: &Path) -> Cloud {
    let rules = json!([
        {"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "REMOTE_USER"}]},
        {"local": [{"groups": "{0}", "domain": {"id": "default"}}], "remote": [{"type": "groups"}]},
    ]);
    begin_with(&metadata(), directory, rules).await
}

/// As a program posts it.
async fn carry(cloud: &Cloud, response: &str) -> Answer {
    let headers = [("content-type", "application/vnd.paos+xml")];
    let soap = "http://schemas.xmlsoap.org/soap/envelope/";
    let response = response.trim_start_matches("<?xml version=\"1.0\"?>\n");
    let body = format!("<S:Envelope xmlns:S=\"{soap}\"><S:Header/><S:Body>{response}</S:Body></S:Envelope>");
    cloud.send("POST", &format!("{PROTOCOL}/saml2/acs"), &headers, body).await
}

/// As a browser's form posts it.
async fn post(cloud: &Cloud, response: &str) -> Answer {
    let encoded = STANDARD.encode(response);
    let form: String = web::form_urlencoded::byte_serialize(encoded.as_bytes()).collect();
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    cloud.send("POST", &format!("{PROTOCOL}/saml2/acs"), &headers, format!("SAMLResponse={form}")).await
}

fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_string()
}

async fn log_in(cloud: &Cloud, cookie: &str) -> Answer {
    cloud.ask("GET", &format!("{PROTOCOL}/auth"), &[("cookie", cookie)], None).await
}

#[tokio::test]
async fn a_program_carries_a_request_there_and_an_assertion_back() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = begin(directory.path()).await;
    let group = cloud.make("groups", "group", json!({"name": "dev"})).await;
    let headers =
        [("accept", "text/html; application/vnd.paos+xml"), ("paos", "ver=\"urn:liberty:paos:2003-08\"")];
    let asked = cloud.ask("GET", &format!("{PROTOCOL}/auth"), &headers, None).await;
    assert_eq!(asked.status, 200, "{}", asked.text());
    assert_eq!(asked.header("content-type"), "application/vnd.paos+xml");
    let acs = format!("{BASE}{PROTOCOL}/saml2/acs");
    assert!(asked.text().contains(&format!("responseConsumerURL=\"{acs}\"")), "{}", asked.text());
    let about = cloud.ask("GET", &format!("{PROTOCOL}/saml2/metadata"), &[], None).await;
    assert!(about.text().contains(&format!("Location=\"{acs}\"")), "{}", about.text());

    let word = Word::now(&cloud, "_1");
    let taken = carry(&cloud, &word.response()).await;
    assert_eq!(taken.status, 303, "{}", taken.text());
    assert_eq!(taken.header("location"), format!("{BASE}{PROTOCOL}/auth"));
    let token = log_in(&cloud, &cookie(&taken)).await;
    assert_eq!(token.status, 201, "{}", token.body);
    let user = &token.body["token"]["user"];
    assert_eq!((&user["name"], &user["OS-FEDERATION"]["groups"]), (&json!("bob"), &json!([{"id": group}])));

    assert_eq!(log_in(&cloud, &cookie(&taken)).await.status, 401, "a cookie is good once");
    assert_eq!(carry(&cloud, &word.response()).await.status, 401, "and so is an assertion");
    let late = carry(&cloud, &Word::now(&cloud, "_2").response()).await;
    cloud.clock.advance(Duration::from_secs(301));
    assert_eq!(log_in(&cloud, &cookie(&late)).await.status, 401, "the cookie is for now");
    let signed_whole = respond(&Word::now(&cloud, "_3").assertion());
    let (declaration, element) = signed_whole.split_once('\n').unwrap();
    let canonical = element.replace("\"/>", "\"></p:StatusCode>");
    let whole = format!("{declaration}\n{}", sign(&canonical, "_r", true));
    assert_eq!(carry(&cloud, &whole).await.status, 303, "the response may be what is signed");
}

#[tokio::test]
async fn what_the_provider_did_not_sign_for_us_now_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = begin(directory.path()).await;
    let good = Word::now(&cloud, "_g");
    let evil = Word { id: "_e", name: "root", ..good.clone() };
    let spoil = |change: &dyn Fn(&mut Word)| {
        let mut word = good.clone();
        change(&mut word);
        word.response()
    };
    let (signed, minute) = (good.signed(), Duration::from_secs(60));
    let signature = &signed[signed.find("<d:Signature").unwrap()..signed.find("</a:Assertion>").unwrap()];
    // Somebody else's assertion around, before, after or within the signed one (signature wrapping).
    let moved_in = evil.assertion().replace("</a:Assertion>", &format!("{signature}</a:Assertion>"));
    let carrying = evil.assertion().replace(
        "</a:Assertion>",
        &format!("<d:Signature xmlns:d=\"http://www.w3.org/2000/09/xmldsig#\"><d:Object>{signed}</d:Object></d:Signature></a:Assertion>"),
    );
    let same_id = Word { id: "_g", ..evil.clone() }.assertion();
    let same_id_signed = same_id.replace("</a:Assertion>", &format!("{signature}</a:Assertion>"));
    let bomb: String =
        (1..9).map(|n| format!("<!ENTITY e{n} \"{}\">", format!("&e{};", n - 1).repeat(10))).collect();
    let bombed =
        format!("<!DOCTYPE r [<!ENTITY e0 \"ha\">{bomb}]>{}", respond(&signed).split_once('\n').unwrap().1)
            .replace(">bob<", ">&e8;<");
    let outside = format!(
        "<!DOCTYPE r [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>{}",
        respond(&signed).split_once('\n').unwrap().1
    );
    for (what, response) in [
        ("unsigned", respond(&good.assertion())),
        ("signed by a stranger", respond(&sign(&good.assertion(), "_g", false))),
        ("another name", good.response().replace(">bob<", ">root<")),
        ("a comment in the name", good.response().replace(">bob<", ">bo<!-- -->b<")),
        ("a comment that cuts it", {
            let long = Word { name: "root.evil.example", ..good.clone() }.response();
            long.replace(">root.evil", ">root<!-- -->.evil")
        }),
        ("an instruction in it", good.response().replace(">bob<", ">bo<?x?>b<")),
        ("another group", good.response().replace(">dev<", ">admins<")),
        ("another's audience", spoil(&|word| word.audience = "https://other.example".into())),
        ("another's address", spoil(&|word| word.recipient = "https://other.example/acs".into())),
        ("another provider's", spoil(&|word| word.issuer = "https://evil.example".into())),
        ("over", spoil(&|word| word.until = cloud.clock.now().minus(2 * minute))),
        ("not begun", spoil(&|word| word.not_before = cloud.clock.now().plus(2 * minute))),
        ("signature moved to another", respond(&moved_in)),
        ("the signed one within another", respond(&carrying)),
        ("another before it", respond(&format!("{}{signed}", evil.assertion()))),
        ("another after it", respond(&format!("{signed}{}", evil.assertion()))),
        ("another of the same name", respond(&same_id_signed)),
        ("two of one name", respond(&format!("{same_id}{signed}"))),
        ("the signed one in an extension", {
            let extension = format!("<p:Extensions>{signed}</p:Extensions>{}", evil.assertion());
            respond(&extension)
        }),
        ("its own key within", {
            let info = "<d:KeyInfo xmlns:d=\"http://www.w3.org/2000/09/xmldsig#\"/></d:Signature>";
            respond(&sign(&evil.assertion(), "_e", false).replace("</d:Signature>", info))
        }),
        ("two signatures", respond(&signed.replace("</a:Assertion>", &format!("{signature}</a:Assertion>")))),
        ("no transform", good.response().replace("enveloped-signature", "base64")),
        ("SHA-1", good.response().replace("2001/04/xmlenc#sha256", "2000/09/xmldsig#sha1")),
        ("no algorithm", good.response().replace("xmldsig-more#ecdsa-sha256", "xmldsig-more#none")),
        ("a failure", good.response().replace("status:Success", "status:Responder")),
        ("encrypted", respond("<a:EncryptedAssertion xmlns:a=\"urn:oasis:names:tc:SAML:2.0:assertion\"/>")),
        ("entities that multiply", bombed),
        ("an entity from a file", outside),
        ("a tower", format!("{}{}", "<a>".repeat(8000), "</a>".repeat(8000))),
        ("many nodes", respond(&"<a/>".repeat(12_000))),
        ("no XML", "rubbish".into()),
        ("nothing", String::new()),
    ] {
        assert_eq!(post(&cloud, &response).await.status, 401, "{what}");
        assert_eq!(carry(&cloud, &response).await.status, 401, "{what}, carried");
    }
    assert_eq!(
        post(&cloud, &format!("{}{}", good.response(), " ".repeat(200_000))).await.status,
        413,
        "much"
    );
    let unknown = PROTOCOL.replace("acme", "none");
    let form = format!("SAMLResponse={}", STANDARD.encode(good.response()));
    assert_eq!(cloud.send("POST", &format!("{unknown}/saml2/acs"), &[], form).await.status, 404);
    assert_eq!(log_in(&cloud, "keystone_saml2_session=guessed").await.status, 401);
    let forged = [("remote_user", "admin"), ("mellon_name_id", "admin"), ("mellon_idp", IDP)];
    assert_eq!(cloud.ask("GET", &format!("{PROTOCOL}/auth"), &forged, None).await.status, 401);
    assert_eq!(post(&cloud, &good.response()).await.status, 303, "the good one all the while");
}

#[tokio::test]
async fn a_browser_comes_back_with_a_token_for_its_dashboard() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = begin(directory.path()).await;
    let evil = "/v3/auth/OS-FEDERATION/websso/saml2?origin=https%3A%2F%2Fevil.example%2F";
    assert_eq!(cloud.ask("GET", evil, &[], None).await.status, 401);
    let sent = cloud.ask("GET", &format!("/v3/auth/OS-FEDERATION/websso/saml2?{ORIGIN}"), &[], None).await;
    assert_eq!(sent.status, 302, "{}", sent.text());
    let (page, query) = sent.header("location").split_once('?').unwrap();
    assert_eq!(page, "https://idp.example/sso");
    let query = web::Query::parse(query);
    let deflated = STANDARD.decode(query.get("SAMLRequest").unwrap()).unwrap();
    let request = String::from_utf8(deflated[5..].to_vec()).unwrap();
    assert!(request.starts_with("<samlp:AuthnRequest"), "one stored block: {request}");
    let asked = request.split("ID=\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    let state = cookie(&sent);

    let come = async |session: &str, state: &str| {
        let both = format!("{session}; {state}");
        cloud.ask("GET", &format!("{WEBSSO}?saml2"), &[("cookie", &both)], None).await
    };
    let unasked = post(&cloud, &Word::now(&cloud, "_u").response()).await;
    assert_eq!(come(&cookie(&unasked), &state).await.status, 401, "an answer that nobody asked for");
    let answer = |id| Word { in_response_to: asked.clone(), ..Word::now(&cloud, id) };
    let brought = post(&cloud, &answer("_1").response()).await;
    assert_eq!(brought.header("location"), format!("{BASE}{WEBSSO}?saml2"));
    assert_eq!(come(&cookie(&brought), "").await.status, 401, "another browser");
    let brought = post(&cloud, &answer("_2").response()).await;
    let done = come(&cookie(&brought), &state).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.text().contains("action=\"https://dash.example/auth/websso/\""), "{}", done.text());
    let token = done.text().split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(cloud.call("GET", "/v3/auth/projects", token, None).await.status, 200);
    assert_eq!(come(&cookie(&brought), &state).await.status, 401, "once");
}

#[tokio::test]
async fn a_user_of_one_keystone_logs_in_to_another() {
    let home = Cloud::new().await;
    let about = home.ask("GET", "/v3/OS-FEDERATION/saml2/metadata", &[], None).await;
    let directory = tempfile::tempdir().unwrap();
    let rules = json!([{"local": [{"user": {"name": "{0}"}}, {"projects": [{"name": "{1} of {0}", "roles": [{"name": "member"}]}]}],
        "remote": [{"type": "openstack_user"}, {"type": "openstack_project"}, {"type": "openstack_roles", "any_one_of": ["member"]}]}]);
    let away = begin_with(about.text(), directory.path(), rules).await;
    let named = json!({"identity_provider": {"remote_ids": [format!("{BASE}/v3/OS-FEDERATION/saml2/idp")]}});
    let path = "/v3/OS-FEDERATION/identity_providers/acme";
    assert_eq!(away.call("PATCH", path, &away.admin, Some(named)).await.status, 200);
    let urls = json!({"service_provider": {"enabled": true, "auth_url": format!("{BASE}{PROTOCOL}/auth"),
        "sp_url": format!("{BASE}{PROTOCOL}/saml2/acs")}});
    let made = home.call("PUT", "/v3/OS-FEDERATION/service_providers/away", &home.admin, Some(urls)).await;
    assert_eq!(made.status, 201, "{}", made.body);

    let (_, _, token) = home.person("ann", "member").await;
    let auth = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}},
        "scope": {"service_provider": {"id": "away"}}}});
    let envelope = home.ask("POST", "/v3/auth/OS-FEDERATION/saml2/ecp", &[], Some(auth)).await;
    assert_eq!(envelope.status, 200, "{}", envelope.text());
    let acs = format!("{PROTOCOL}/saml2/acs");
    let headers = [("content-type", "application/vnd.paos+xml")];
    let forged = envelope.text().replace(">ann<", ">root<");
    assert_eq!(away.send("POST", &acs, &headers, forged).await.status, 401);
    let taken = away.send("POST", &acs, &headers, envelope.text().to_string()).await;
    assert_eq!(taken.status, 303, "{}", taken.text());
    let token = log_in(&away, &cookie(&taken)).await;
    assert_eq!(token.status, 201, "{}", token.body);
    assert_eq!(token.body["token"]["user"]["name"], "ann");
    let projects = away.call("GET", "/v3/auth/projects", &token.token(), None).await;
    assert_eq!(projects.body["projects"][0]["name"], "of-ann of ann", "{}", projects.body);
}
