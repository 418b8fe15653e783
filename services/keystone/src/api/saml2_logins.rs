//! Logging in with a SAML 2 identity provider: browsers by way of its page, programs that carry messages themselves
//! (ECP), and other keystones' users. All end where assertions are consumed, with a cookie that is good for one login.

use super::federation_auth::{AUTH, LOGIN_WITHIN, OPEN, WEBSSO_AT, cookie, cookie_of, hand_over};
use crate::{
    Keystone,
    authentication::{Asker, refuse, unauthorized},
    model::*,
    options::Saml,
    saml::{self, Believed, Expected, Provider},
    store,
};
use base::{Result, Secret, id};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use web::{Query, Reply, Request, Routes, StatusCode, get, post};

const ACS: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/saml2/acs";
const METADATA: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/saml2/metadata";

/// In the query of a browser that comes back.
pub const TAKEN: &str = "saml2";
/// Which login of ours a browser is in.
const STATE_COOKIE: &str = "keystone_saml2";
/// The right to log in with an assertion, once and soon.
const SESSION_COOKIE: &str = "keystone_saml2_session";
const SESSION_LASTS: Duration = Duration::from_secs(300);
const PAOS: &str = "application/vnd.paos+xml";

pub fn routes() -> Routes<Keystone> {
    vec![post(ACS, "", consume).marks(OPEN), get(METADATA, "", metadata).marks(OPEN)]
}

/// Who we are to one provider.
struct Us {
    entity_id: String,
    acs_url: String,
}

impl Us {
    fn to(options: &Saml, idp_id: &str, protocol_id: &str) -> Self {
        let base = options.public_url.trim_end_matches('/');
        Self {
            entity_id: place(base, METADATA, idp_id, protocol_id),
            acs_url: place(base, ACS, idp_id, protocol_id),
        }
    }

    fn ask(self, keystone: &Keystone) -> saml::Asked {
        let (id, now) = (format!("_{}", id::hex()), keystone.clock.now());
        saml::Asked { id, entity_id: self.entity_id, acs_url: self.acs_url, now }
    }
}

fn place(base: &str, path: &str, idp_id: &str, protocol_id: &str) -> String {
    format!("{base}{}", path.replace("{idp_id}", idp_id).replace("{protocol_id}", protocol_id))
}

fn options_of<'a>(keystone: &'a Keystone, idp_id: &str) -> Result<&'a Saml> {
    keystone.options.saml.get(idp_id).ok_or_else(|| refuse("no SAML provider is configured by this name"))
}

async fn metadata(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (idp_id, protocol_id) = (request.param("idp_id"), request.param("protocol_id"));
    keystone.check_provider(idp_id, protocol_id).await?;
    let us = Us::to(options_of(&keystone, idp_id)?, idp_id, protocol_id);
    Ok(Reply::body(StatusCode::OK, "text/xml", saml::service_metadata(&us.entity_id, &us.acs_url)))
}

/// A browser to its provider; the cookie remembers what for.
pub fn send(keystone: &Keystone, request: &Request, idp_id: &str, origin: &str) -> Result<Reply> {
    let (options, protocol_id) = (options_of(keystone, idp_id)?, request.param("protocol_id"));
    let provider = Provider::open(options)?;
    let redirect_url =
        provider.redirect_url.ok_or_else(|| refuse("the provider has no page for browsers"))?;
    let asked = Us::to(options, idp_id, protocol_id).ask(keystone);
    let state = json!({"idp": idp_id, "protocol": protocol_id, "origin": origin, "request": asked.id});
    let set = cookie(&options.public_url, STATE_COOKIE, &keystone.seal_state(state), LOGIN_WITHIN);
    let url = asked.url(&redirect_url);
    Ok(Reply::empty(StatusCode::FOUND).header("location", url).header("set-cookie", set))
}

/// A program that says it carries messages is given one for its provider.
pub async fn asked_by_program(keystone: &Keystone, request: &Request) -> Result<Option<Reply>> {
    let (idp_id, protocol_id) = (request.param("idp_id"), request.param("protocol_id"));
    let Some(options) = keystone.options.saml.get(idp_id) else { return Ok(None) };
    let carries = request.header("paos").is_some()
        && request.header("accept").is_some_and(|types| types.contains(PAOS))
        && cookie_of(request, SESSION_COOKIE).is_none();
    if !carries {
        return Ok(None);
    }
    keystone.check_provider(idp_id, protocol_id).await?;
    let asked = Us::to(options, idp_id, protocol_id).ask(keystone);
    Ok(Some(Reply::body(StatusCode::OK, PAOS, asked.envelope())))
}

/// Takes a response, posted by a browser's form or carried in an envelope, and hands out a cookie for it.
async fn consume(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (idp_id, protocol_id) =
        (request.param("idp_id").to_string(), request.param("protocol_id").to_string());
    keystone.check_provider(&idp_id, &protocol_id).await?;
    let options = options_of(&keystone, &idp_id)?;
    let (provider, us) = (Provider::open(options)?, Us::to(options, &idp_id, &protocol_id));
    let (text, by_program) = posted(&request)?;
    let expected = Expected { entity_id: &us.entity_id, acs_url: &us.acs_url, now: keystone.clock.now() };
    let believed = saml::judge(&text, &provider, &expected).map_err(|why| refuse(&why))?;
    let session = keystone.take(&idp_id, &protocol_id, believed).await?;
    let base = options.public_url.trim_end_matches('/');
    let next = match by_program {
        true => place(base, AUTH, &idp_id, &protocol_id),
        false => format!("{}?{TAKEN}", place(base, WEBSSO_AT, &idp_id, &protocol_id)),
    };
    let set = cookie(&options.public_url, SESSION_COOKIE, &session, SESSION_LASTS);
    Ok(Reply::empty(StatusCode::SEE_OTHER).header("location", next).header("set-cookie", set))
}

/// What is used up need not be sent again.
pub fn without_session(reply: Reply) -> Reply {
    reply.header("set-cookie", cookie("", SESSION_COOKIE, "", Duration::ZERO))
}

/// The response's text, and whether a program brought it.
fn posted(request: &Request) -> Result<(String, bool)> {
    let body = String::from_utf8(request.bytes().to_vec()).map_err(|_| refuse("not UTF-8"))?;
    if request.header("content-type").is_some_and(|kind| kind.starts_with(PAOS)) {
        return Ok((body, true));
    }
    let form = Query::parse(&body);
    let text: String = form.get("SAMLResponse").unwrap_or_default().split_whitespace().collect();
    let text = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.filter(|text| !text.is_empty()).map(|text| (text, false)).ok_or_else(|| refuse("no SAMLResponse"))
}

/// The browser is back with its cookies: the one that says what it wanted, and the one for the assertion.
pub async fn back(keystone: &Keystone, request: &Request) -> Result<Reply> {
    let state = keystone.open_state(request, cookie_of(request, STATE_COOKIE).unwrap_or_default())?;
    let taken = keystone.taken(request).await?;
    let asked = state["request"].as_str();
    if asked.is_none() || taken.in_response_to.as_deref() != asked {
        return Err(refuse("an answer to another login"));
    }
    let said = serde_json::from_value(taken.said)?;
    let asker = keystone.vouched(&taken.idp_id, &taken.protocol_id, said).await?;
    hand_over(keystone, asker, state["origin"].as_str().unwrap_or_default()).await
}

impl Keystone {
    /// Who brings the cookie of an assertion that was taken for this provider and protocol.
    pub(crate) async fn by_assertion(
        &self,
        request: &Request,
        idp_id: &str,
        protocol_id: &str,
    ) -> Result<Asker> {
        let taken = self.taken(request).await?;
        if taken.idp_id != idp_id || taken.protocol_id != protocol_id {
            return Err(refuse("an assertion of another provider"));
        }
        self.vouched(idp_id, protocol_id, serde_json::from_value(taken.said)?).await
    }

    /// Remembers an assertion, so that it is not taken again. Answers the right to log in with it.
    async fn take(&self, idp_id: &str, protocol_id: &str, believed: Believed) -> Result<String> {
        let session = Secret::random().expose().to_string();
        let row = TakenAssertion {
            idp_id: idp_id.into(),
            id: believed.id,
            protocol_id: protocol_id.into(),
            session: digest(&session),
            in_response_to: believed.in_response_to,
            said: json!(believed.said),
            taken_at: self.clock.now(),
            until: believed.until,
        };
        let work = self.db.write(move |tx| {
            tx.insert(&row).map_err(|error| match db::is_constraint(&error) {
                true => refuse("it was brought before"),
                false => error,
            })
        });
        work.await.map(|()| session)
    }

    /// The assertion that the request's cookie is good for, and from now on is not any more.
    async fn taken(&self, request: &Request) -> Result<TakenAssertion> {
        let session = cookie_of(request, SESSION_COOKIE).ok_or_else(|| refuse("no assertion"))?;
        let (session, now) = (digest(session), self.clock.now());
        let found = self.db.write(move |tx| {
            let Some(mut taken) = store::taken_assertion(tx, &session)? else { return Ok(None) };
            taken.session = String::new();
            tx.update(&taken)?;
            Ok(Some(taken))
        });
        let found: Option<TakenAssertion> = found.await?;
        found.filter(|taken| taken.taken_at.plus(SESSION_LASTS) > now).ok_or_else(unauthorized)
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
