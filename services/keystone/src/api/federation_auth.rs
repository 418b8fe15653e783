//! Logging in with an identity provider: with its token for programs, by way of its page for browsers.

use super::{auth::described, saml2_logins};
use crate::{
    Keystone,
    authentication::{Answer, Asker},
    model::*,
    openid::Asked,
    saml::{self, Holder},
    schemas, store,
};
use base::{Error, Json, Result, Secret, Timestamp};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use web::{Mark, Query, Reply, Request, Routes, StatusCode, get, post};

pub(super) const AUTH: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth";
const WEBSSO: &str = "/v3/auth/OS-FEDERATION/websso/{protocol_id}";
pub(super) const WEBSSO_AT: &str =
    "/v3/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso";
pub(super) const OPEN: &[Mark] = &[Mark::Open, Mark::Raw];

/// So long one may take at the provider's page.
pub(super) const LOGIN_WITHIN: Duration = Duration::from_secs(600);
/// Binds a login to the browser that began it.
const COOKIE: &str = "keystone_sso";

pub fn routes() -> Routes<Keystone> {
    vec![
        get(AUTH, "", login).marks(OPEN),
        post(AUTH, "", login).marks(OPEN),
        get(WEBSSO, "", page).marks(OPEN),
        post(WEBSSO, "", page).marks(OPEN),
        get(WEBSSO_AT, "", page).marks(OPEN),
        post(WEBSSO_AT, "", page).marks(OPEN),
        get("/v3/OS-FEDERATION/saml2/metadata", "", metadata).marks(OPEN),
        // The token in the body is the right to ask.
        post("/v3/auth/OS-FEDERATION/saml2", "", assertion).marks(&[Mark::Open]),
        post("/v3/auth/OS-FEDERATION/saml2/ecp", "", enveloped).marks(&[Mark::Open]),
    ]
}

async fn login(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    if let Some(asked) = saml2_logins::asked_by_program(&keystone, &request).await? {
        return Ok(asked);
    }
    let given =
        json!({"identity_provider": request.param("idp_id"), "protocol": request.param("protocol_id")});
    let identity = json!({"methods": ["mapped"], "mapped": given});
    match keystone.authenticate(&request, &json!({"auth": {"identity": identity}})).await? {
        Answer::Token(token, valid) => {
            let reply = described(&request, StatusCode::CREATED, &token, &valid);
            let by_saml = keystone.options.saml.contains_key(request.param("idp_id"));
            Ok(if by_saml { saml2_logins::without_session(reply) } else { reply })
        }
        // What a provider vouches for is one method, and all that there is.
        Answer::More(_) => Err(crate::authentication::unauthorized()),
    }
}

/// First a browser is sent to the provider, then it comes back with a code or an assertion and is sent where it wanted
/// to.
async fn page(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    if let (Some(code), Some(state)) = (request.query.get("code"), request.query.get("state")) {
        return back(&keystone, &request, code, state).await;
    }
    if request.query.has(saml2_logins::TAKEN) {
        return saml2_logins::back(&keystone, &request).await;
    }
    let protocol_id = request.param("protocol_id");
    let idp_id = match request.param("idp_id") {
        "" => keystone.only_provider(protocol_id).await?,
        id => id.to_string(),
    };
    let origin = trusted_origin(&keystone, &request)?;
    keystone.check_provider(&idp_id, protocol_id).await?;
    if keystone.options.saml.contains_key(&idp_id) {
        return saml2_logins::send(&keystone, &request, &idp_id, &origin);
    }
    let options = keystone.openid_of(&idp_id)?;
    let random = || Secret::random().expose().to_string();
    let (nonce, verifier, browser) = (random(), random() + &random(), random());
    let state = json!({"idp": idp_id, "protocol": protocol_id, "origin": origin, "nonce": nonce,
        "verifier": verifier, "browser": browser});
    let asked = Asked {
        redirect_uri: redirect_uri(&request, &idp_id, protocol_id),
        state: keystone.seal_state(state),
        nonce,
        verifier,
    };
    let url = keystone.providers.login_url(options, &asked, &keystone.clock).await?;
    let set = cookie(&request.base_url, COOKIE, &browser, LOGIN_WITHIN);
    Ok(Reply::empty(StatusCode::FOUND).header("location", url).header("set-cookie", set))
}

async fn back(keystone: &Keystone, request: &Request, code: &str, state: &str) -> Result<Reply> {
    let refuse = crate::authentication::unauthorized;
    let state = keystone.open_state(request, state)?;
    let text = |name: &str| state[name].as_str().unwrap_or_default().to_string();
    if text("browser").is_empty() || cookie_of(request, COOKIE) != Some(&text("browser")) {
        return Err(refuse());
    }
    let (idp_id, protocol_id) = (text("idp"), text("protocol"));
    let options = keystone.openid_of(&idp_id)?;
    let asked = Asked {
        redirect_uri: redirect_uri(request, &idp_id, &protocol_id),
        state: String::new(),
        nonce: text("nonce"),
        verifier: text("verifier"),
    };
    let assertion = keystone.providers.redeem(options, code, &asked, &keystone.clock).await?;
    let asker = keystone.vouched(&idp_id, &protocol_id, assertion).await?;
    hand_over(keystone, asker, &text("origin")).await
}

/// The token of who was vouched for, to the page that it wanted to go to.
pub(super) async fn hand_over(keystone: &Keystone, asker: Asker, origin: &str) -> Result<Reply> {
    match keystone.admit(asker).await? {
        Answer::Token(token, _) => Ok(Reply::body(StatusCode::OK, "text/html", form(origin, &token))),
        Answer::More(_) => Err(crate::authentication::unauthorized()),
    }
}

impl Keystone {
    /// What we want to know again when a browser comes back from its provider; readable by nobody else.
    pub(super) fn seal_state(&self, mut state: Json) -> String {
        state["until"] = self.clock.now().plus(LOGIN_WITHIN).0.into();
        self.token_keys.encrypt(state.to_string().as_bytes())
    }

    /// The state of the login that the request's path is of, if it is not too late for it.
    pub(super) fn open_state(&self, request: &Request, sealed: &str) -> Result<Json> {
        let refuse = crate::authentication::unauthorized;
        let state = self.token_keys.decrypt(sealed).ok_or_else(refuse)?;
        let state: Json = serde_json::from_slice(&state).map_err(|_| refuse())?;
        let same_place =
            state["idp"] == request.param("idp_id") && state["protocol"] == request.param("protocol_id");
        let until = state["until"].as_i64().unwrap_or_default();
        match same_place && Timestamp(until) >= self.clock.now() {
            true => Ok(state),
            false => Err(refuse()),
        }
    }
}

/// A cookie for our own login pages alone.
pub(super) fn cookie(base_url: &str, name: &str, value: &str, lasts: Duration) -> String {
    let secure = if base_url.starts_with("https:") { "; Secure" } else { "" };
    let seconds = lasts.as_secs();
    format!("{name}={value}; Path=/v3; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

pub(super) fn cookie_of<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut pairs = request.header("cookie")?.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// Tokens are only handed to pages that the operator names.
fn trusted_origin(keystone: &Keystone, request: &Request) -> Result<String> {
    let body = request.bytes();
    let form = Query::parse(&String::from_utf8_lossy(&body));
    let origin = request.query.get("origin").or(form.get("origin"));
    let origin =
        origin.ok_or_else(|| Error::bad_request("Request must have an origin query parameter"))?.to_string();
    match keystone.options.trusted_dashboards.contains(&origin) {
        true => Ok(origin),
        false => {
            tracing::info!(origin, "not a trusted dashboard");
            Err(crate::authentication::unauthorized())
        }
    }
}

fn redirect_uri(request: &Request, idp_id: &str, protocol_id: &str) -> String {
    let path = WEBSSO_AT.replace("{idp_id}", idp_id).replace("{protocol_id}", protocol_id);
    format!("{}{path}", request.base_url)
}

async fn metadata(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let pair = keystone.saml.pair().await?;
    let sso = format!("{}/v3/OS-FEDERATION/saml2/sso", request.base_url);
    Ok(Reply::body(StatusCode::OK, "text/xml", pair.metadata(&entity_id(&request), &sso)))
}

async fn assertion(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (response, provider) = asserted(&keystone, &request).await?;
    Ok(for_provider(response, &provider))
}

async fn enveloped(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (response, provider) = asserted(&keystone, &request).await?;
    Ok(for_provider(saml::envelope(&response, &provider.relay_state_prefix), &provider))
}

fn for_provider(body: String, provider: &ServiceProvider) -> Reply {
    Reply::body(StatusCode::OK, "text/xml", body)
        .header("x-sp-url", provider.sp_url.clone())
        .header("x-auth-url", provider.auth_url.clone())
}

fn entity_id(request: &Request) -> String {
    format!("{}/v3/OS-FEDERATION/saml2/idp", request.base_url)
}

/// What we say of the holder of the token in the body to the service provider that it names.
async fn asserted(keystone: &Keystone, request: &Request) -> Result<(String, ServiceProvider)> {
    let body = super::whole_body(request)?;
    let auth = body.get("auth").cloned().unwrap_or_else(|| json!({}));
    schemas::SAML_CREATE.resource(&auth)?;
    let id = auth["scope"]["service_provider"]["id"].as_str().unwrap_or_default().to_string();
    let provider = keystone.read(move |tx| store::find::<ServiceProvider>(tx, &id)).await?;
    let refuse =
        |why: &str| Error::forbidden(format!("You are not authorized to perform the requested action{why}."));
    if !provider.enabled {
        return Err(refuse(""));
    }
    let valid = keystone.valid(auth["identity"]["token"]["id"].as_str().unwrap_or_default()).await?;
    let context = &valid.context;
    if context.project_id.is_empty() {
        return Err(refuse(": Use a project scoped token when attempting to create a SAML assertion"));
    }
    if valid.is_delegated() {
        // Elsewhere it would be good for more than was lent.
        return Err(refuse(""));
    }
    let user_id = context.user_id.clone();
    let groups = keystone
        .read(move |tx| {
            let mut groups = Vec::new();
            for group in store::groups_of(tx, &user_id)? {
                let domain = store::domain(tx, &group.domain_id)?;
                let named = json!({"name": group.name, "domain": {"name": domain.name}});
                groups.push(format!("JSON:{named}"));
            }
            Ok(groups)
        })
        .await?;
    let holder = Holder {
        user: context.user_name.clone(),
        user_domain: context.user_domain_name.clone(),
        roles: context.roles.clone(),
        project: context.project_name.clone(),
        project_domain: context.project_domain_name.clone(),
        groups,
    };
    let pair = keystone.saml.pair().await?;
    let response = pair.response(&entity_id(request), &provider.sp_url, &holder, keystone.clock.now());
    Ok((response, provider))
}

/// A page that takes the token to the dashboard at once.
fn form(origin: &str, token: &str) -> String {
    let (origin, token) = (escaped(origin), escaped(token));
    format!(
        "<!DOCTYPE html>\n<html><head><title>Keystone WebSSO redirect</title></head>\n<body \
         onload=\"document.forms[0].submit()\">\n<form action=\"{origin}\" method=\"post\">\nPlease wait...<br>\n\
         <input type=\"hidden\" name=\"token\" value=\"{token}\">\n<noscript><input type=\"submit\"></noscript>\n\
         </form></body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}
