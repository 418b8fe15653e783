//! OpenID Connect as a relying party: finds a provider's keys, believes what they signed, trades codes for tokens.
//! What the claims make of somebody is the mapping's.

use crate::{mapping::Assertion, options::OpenId};
use base::{Clock, Error, Json, Result, Timestamp};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use parking_lot::Mutex;
use rsa::{BigUint, RsaPublicKey, pkcs1v15, sha2::Sha256, signature::Verifier};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// A provider's addresses and keys are asked for so often, or when a token names a key that is not known, and then
/// not again so soon.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Clocks differ.
const LEEWAY_SECONDS: i64 = 60;
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What is known of the providers, by issuer.
#[derive(Default)]
pub struct Providers(Mutex<HashMap<String, Arc<Provider>>>);

struct Provider {
    about: Json,
    keys: Vec<Json>,
    at: Timestamp,
}

/// Why somebody is not believed; told to the log alone.
fn refuse(why: impl std::fmt::Display) -> Error {
    tracing::info!(%why, "OpenID Connect refused");
    crate::authentication::unauthorized()
}

impl Providers {
    /// What a bearer token says, if the provider made it and it is meant for us.
    pub async fn bearer(&self, options: &OpenId, token: &str, clock: &Clock) -> Result<Assertion> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refuse("the token is too long"));
        }
        let claims = match token.split('.').count() {
            3 => self.signed(options, token, clock).await?,
            _ => self.introspected(options, token, clock).await?,
        };
        Ok(assertion(options, &claims))
    }

    /// Where a browser is sent to log in.
    pub async fn login_url(&self, options: &OpenId, asked: &Asked, clock: &Clock) -> Result<String> {
        let provider = self.provider(options, clock, false).await?;
        let mut query = web::form_urlencoded::Serializer::new(String::new());
        query.append_pair("response_type", "code");
        query.append_pair("client_id", &options.client_id);
        query.append_pair("redirect_uri", &asked.redirect_uri);
        query.append_pair("scope", &options.scopes.join(" "));
        query.append_pair("state", &asked.state);
        query.append_pair("nonce", &asked.nonce);
        query.append_pair("code_challenge", &challenge(&asked.verifier));
        query.append_pair("code_challenge_method", "S256");
        let at = provider.url("authorization_endpoint")?;
        let joint = if at.contains('?') { '&' } else { '?' };
        Ok(format!("{at}{joint}{}", query.finish()))
    }

    /// What the provider says of who came back with a code.
    pub async fn redeem(
        &self,
        options: &OpenId,
        code: &str,
        asked: &Asked,
        clock: &Clock,
    ) -> Result<Assertion> {
        let provider = self.provider(options, clock, false).await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &asked.redirect_uri),
            ("code_verifier", &asked.verifier),
        ];
        let answer = post(provider.url("token_endpoint")?, options, &form).await?;
        let token = answer["id_token"].as_str().ok_or_else(|| refuse("no id_token"))?;
        let claims = self.signed(options, token, clock).await?;
        if claims["nonce"] != asked.nonce.as_str() {
            return Err(refuse("another login's nonce"));
        }
        Ok(assertion(options, &claims))
    }

    /// The claims of a token that one of the provider's keys signed, for us and still good.
    async fn signed(&self, options: &OpenId, token: &str, clock: &Clock) -> Result<Json> {
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| refuse("no token"))?;
        let (header, body) = signed.split_once('.').ok_or_else(|| refuse("no token"))?;
        let (header, claims) = (part(header)?, part(body)?);
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(refuse)?;
        let mut provider = self.provider(options, clock, false).await?;
        if provider.key(&header).is_none() {
            provider = self.provider(options, clock, true).await?;
        }
        let key = provider.key(&header).ok_or_else(|| refuse("no such key"))?;
        verify(key, &header, signed.as_bytes(), &signature)?;
        check(options, &claims, clock.now())?;
        Ok(claims)
    }

    /// The provider itself says whether an opaque token is good.
    async fn introspected(&self, options: &OpenId, token: &str, clock: &Clock) -> Result<Json> {
        let provider = self.provider(options, clock, false).await?;
        let url = provider.url("introspection_endpoint")?;
        let mut claims = post(url, options, &[("token", token), ("token_type_hint", "access_token")]).await?;
        if claims["active"] != true {
            return Err(refuse("the provider says that the token is not active"));
        }
        if claims.get("iss").is_none() {
            claims["iss"] = options.issuer.as_str().into();
        }
        check(options, &claims, clock.now())?;
        Ok(claims)
    }

    async fn provider(&self, options: &OpenId, clock: &Clock, again: bool) -> Result<Arc<Provider>> {
        let known = self.0.lock().get(&options.issuer).cloned();
        let fresh_for = if again { ASKED_AGAIN_AFTER } else { KNOWN_FOR };
        if let Some(known) = known.filter(|known| clock.now().since(known.at) < fresh_for) {
            return Ok(known);
        }
        let issuer = options.issuer.trim_end_matches('/');
        let about = get(format!("{issuer}/.well-known/openid-configuration")).await?;
        if about["issuer"].as_str().map(|named| named.trim_end_matches('/')) != Some(issuer) {
            return Err(refuse("the provider calls itself otherwise"));
        }
        let keys = get(about["jwks_uri"].as_str().unwrap_or_default().to_string()).await?;
        let keys = keys["keys"].as_array().cloned().unwrap_or_default();
        let provider = Arc::new(Provider { about, keys, at: clock.now() });
        self.0.lock().insert(options.issuer.clone(), provider.clone());
        Ok(provider)
    }
}

/// One login of one browser.
pub struct Asked {
    pub redirect_uri: String,
    pub state: String,
    pub nonce: String,
    /// Only who asked can trade the code (RFC 7636).
    pub verifier: String,
}

impl Provider {
    fn url(&self, name: &str) -> Result<String> {
        let url = self.about[name].as_str().map(str::to_string);
        url.ok_or_else(|| refuse(format!("the provider has no {name}")))
    }

    /// The key that a token's header names; without a name the only one of the kind.
    fn key(&self, header: &Json) -> Option<&Json> {
        let kind = match header["alg"].as_str()? {
            "RS256" => "RSA",
            "ES256" => "EC",
            _ => return None,
        };
        let mut usable = self.keys.iter().filter(|key| key["kty"] == kind && key["use"] != "enc");
        match header.get("kid") {
            Some(name) => usable.find(|key| key["kid"] == *name),
            None => usable.next().filter(|_| usable.next().is_none()),
        }
    }
}

fn part(text: &str) -> Result<Json> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(refuse)?;
    serde_json::from_slice(&bytes).map_err(refuse)
}

fn verify(key: &Json, header: &Json, signed: &[u8], signature: &[u8]) -> Result<()> {
    let number = |name: &str| {
        let text = key[name].as_str().unwrap_or_default();
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(refuse)
    };
    if header["alg"] == "RS256" {
        let (n, e) = (BigUint::from_bytes_be(&number("n")?), BigUint::from_bytes_be(&number("e")?));
        let key = pkcs1v15::VerifyingKey::<Sha256>::new(RsaPublicKey::new(n, e).map_err(refuse)?);
        let signature = pkcs1v15::Signature::try_from(signature).map_err(refuse)?;
        return key.verify(signed, &signature).map_err(refuse);
    }
    if key["crv"] != "P-256" {
        return Err(refuse("a curve that is not understood"));
    }
    let point = [vec![4], number("x")?, number("y")?].concat();
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).map_err(refuse)?;
    let signature = p256::ecdsa::Signature::from_slice(signature).map_err(refuse)?;
    key.verify(signed, &signature).map_err(refuse)
}

/// Made by the provider, for us, and now.
fn check(options: &OpenId, claims: &Json, now: Timestamp) -> Result<()> {
    let same = |text: &str| text.trim_end_matches('/') == options.issuer.trim_end_matches('/');
    if !claims["iss"].as_str().is_some_and(same) {
        return Err(refuse("another issuer"));
    }
    let names_us = |claim: &Json| match claim {
        Json::String(one) => *one == options.client_id,
        Json::Array(several) => several.iter().any(|one| *one == options.client_id.as_str()),
        _ => false,
    };
    if !["aud", "azp", "client_id"].iter().any(|name| names_us(&claims[*name])) {
        return Err(refuse("meant for somebody else"));
    }
    let now = now.unix_seconds();
    let ends = claims["exp"].as_i64().ok_or_else(|| refuse("it never ends"))?;
    let begins = claims["nbf"].as_i64().unwrap_or(i64::MIN);
    match ends + LEEWAY_SECONDS > now && begins.saturating_sub(LEEWAY_SECONDS) <= now {
        true => Ok(()),
        false => Err(refuse("it is over, or has not begun")),
    }
}

/// The claims under the names that mappings know: `OIDC-email`, `HTTP_OIDC_EMAIL`, and who it is as `REMOTE_USER`.
fn assertion(options: &OpenId, claims: &Json) -> Assertion {
    let mut assertion = Assertion::new();
    for (name, value) in claims.as_object().into_iter().flatten() {
        let text = match value {
            Json::String(text) => text.clone(),
            Json::Number(_) | Json::Bool(_) => value.to_string(),
            Json::Array(items) if items.iter().all(Json::is_string) => {
                items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(";")
            }
            Json::Null => continue,
            other => other.to_string(),
        };
        assertion.insert(format!("HTTP_OIDC_{}", name.to_uppercase().replace('-', "_")), text.clone());
        assertion.insert(format!("OIDC-{name}"), text);
    }
    if let Some(user) = claims[options.remote_user_claim.as_str()].as_str() {
        assertion.insert("REMOTE_USER".into(), user.to_string());
    }
    assertion
}

pub fn challenge(verifier: &str) -> String {
    use sha2::Digest;
    URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()))
}

async fn get(url: String) -> Result<Json> {
    tokio::task::spawn_blocking(move || read(agent().get(&url).call()))
        .await
        .map_err(|e| Error::internal(e.to_string()))?
}

async fn post(url: String, options: &OpenId, form: &[(&str, &str)]) -> Result<Json> {
    let body = web::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let named = format!("{}:{}", encode(&options.client_id), encode(options.client_secret.expose()));
    let basic = format!("Basic {}", STANDARD.encode(named));
    let work = move || {
        let request = agent().post(&url).header("authorization", basic);
        read(request.header("content-type", "application/x-www-form-urlencoded").send(body))
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?
}

fn encode(text: &str) -> String {
    web::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN)).max_redirects(0).build().into()
}

fn read(answer: Result<web::Response<ureq::Body>, ureq::Error>) -> Result<Json> {
    let away = |e: ureq::Error| {
        tracing::warn!(error = %e, "an OpenID provider does not answer");
        crate::authentication::unauthorized()
    };
    let mut answer = answer.map_err(away)?;
    let bytes = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(away)?;
    serde_json::from_slice(&bytes).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options() -> OpenId {
        OpenId { issuer: "https://idp.example/".into(), client_id: "us".into(), ..OpenId::default() }
    }

    #[test]
    fn only_what_is_meant_for_us_now_is_believed() {
        let now = Timestamp::from_unix_seconds(1000);
        let good = json!({"iss": "https://idp.example", "aud": "us", "exp": 1100});
        let with = |name: &str, value: Json| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        for (claims, believed) in [
            (good.clone(), true),
            (with("aud", json!(["other", "us"])), true),
            (with("aud", json!(["other"])), false),
            (with("aud", json!("usual")), false),
            (with("iss", json!("https://evil.example")), false),
            (with("iss", Json::Null), false),
            (with("exp", json!(900)), false),
            (with("exp", json!(950)), true),
            (with("exp", Json::Null), false),
            (with("nbf", json!(1100)), false),
        ] {
            assert_eq!(check(&options(), &claims, now).is_ok(), believed, "{claims}");
        }
    }

    #[test]
    fn claims_have_the_names_that_mappings_know() {
        let claims = json!({"sub": "bob", "email": "b@x", "groups": ["a", "b"], "n": 1, "none": null});
        let found = assertion(&options(), &claims);
        assert_eq!(found["OIDC-groups"], "a;b");
        assert_eq!(found["HTTP_OIDC_EMAIL"], "b@x");
        assert_eq!((found["REMOTE_USER"].as_str(), found["OIDC-n"].as_str()), ("bob", "1"));
        assert!(!found.contains_key("OIDC-none"));
    }

    #[test]
    fn a_key_is_named_or_the_only_one() {
        let key = |kid: &str, kty: &str| json!({"kid": kid, "kty": kty});
        let provider = |keys: Vec<Json>| Provider { about: Json::Null, keys, at: Timestamp(0) };
        let two = provider(vec![key("a", "RSA"), key("b", "RSA"), key("c", "EC")]);
        for (header, found) in [
            (json!({"alg": "RS256", "kid": "b"}), Some("b")),
            (json!({"alg": "RS256", "kid": "c"}), None),
            (json!({"alg": "RS256"}), None),
            (json!({"alg": "ES256"}), Some("c")),
            (json!({"alg": "none", "kid": "a"}), None),
            (json!({"alg": "HS256", "kid": "a"}), None),
        ] {
            let chosen = two.key(&header).map(|key| key["kid"].as_str().unwrap());
            assert_eq!(chosen, found, "{header}");
        }
    }
}
