//! OAuth 1: programs (consumers) that act for users within roles that the users authorized.
//! Consumers sign what they send; logging in with an access token is `authentication`'s.

use super::{Object, collection, extra, merge, roles, text, view, whole_body};
use crate::{
    Keystone,
    authentication::{expecting, unauthorized},
    model::*,
    oauth1::{Signed, encode},
    schemas, store,
};
use base::{Error, Json, Result, Timestamp, id};
use db::{Filter, List, Tx};
use rand::seq::IndexedRandom;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{collections::HashSet, sync::Arc, time::Duration};
use web::{Mark, Reply, Request, Routes, StatusCode, delete, get, patch, post, put};

const TOKENS: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens";
const TOKEN: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}";
const TOKEN_ROLES: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles";
const TOKEN_ROLE: &str = "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}";

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/OS-OAUTH1/consumers", "identity:list_consumers", list),
        post("/v3/OS-OAUTH1/consumers", "identity:create_consumer", create),
        get("/v3/OS-OAUTH1/consumers/{consumer_id}", "identity:get_consumer", show),
        patch("/v3/OS-OAUTH1/consumers/{consumer_id}", "identity:update_consumer", update),
        delete("/v3/OS-OAUTH1/consumers/{consumer_id}", "identity:delete_consumer", remove),
        // The signature is the right to ask.
        post("/v3/OS-OAUTH1/request_token", "", request_token).marks(&[Mark::Open, Mark::Raw]),
        post("/v3/OS-OAUTH1/access_token", "", access_token).marks(&[Mark::Open, Mark::Raw]),
        put("/v3/OS-OAUTH1/authorize/{request_token_id}", "identity:authorize_request_token", authorize),
        get(TOKENS, "identity:list_access_tokens", list_tokens),
        get(TOKEN, "identity:get_access_token", show_token),
        // Upstream asks this rule, and operators' policies are written for it.
        delete(TOKEN, "identity:ec2_delete_credential", remove_token),
        get(TOKEN_ROLES, "identity:list_access_token_roles", list_token_roles),
        get(TOKEN_ROLE, "identity:get_access_token_role", show_token_role),
    ]
}

const COLUMNS: &[&str] = &["id", "description", "secret", "links"];

/// What a user copies by hand: letters and digits that are not mistaken for others.
const VERIFIER_LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789";
const VERIFIER_LENGTH: usize = 8;

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let found = keystone.read(|tx| tx.list::<Consumer>(&List::all())).await?;
    Ok(collection(&request, "consumers", found.iter().map(|consumer| show_one(&request, consumer)).collect()))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = given(&request, &schemas::CONSUMER_CREATE)?;
    let secret = id::hex();
    let consumer = Consumer {
        id: id::hex(),
        description: text(&given, "description").map(str::to_string),
        secret: keystone.seal(&secret),
        extra: extra(&given, COLUMNS),
    };
    let row = consumer.clone();
    keystone.write(move |tx| tx.insert(&row)).await?;
    let mut shown = show_one(&request, &consumer);
    // This once.
    shown["secret"] = secret.into();
    Ok(Reply::created(json!({"consumer": shown})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("consumer_id").to_string();
    let consumer = keystone.read(move |tx| find_consumer(tx, &id)).await?;
    Ok(Reply::ok(json!({"consumer": show_one(&request, &consumer)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = given(&request, &schemas::CONSUMER_UPDATE)?;
    let id = request.param("consumer_id").to_string();
    if text(&given, "id").is_some_and(|other| other != id) {
        return Err(Error::bad_request("Cannot change ID"));
    }
    let consumer = keystone
        .write(move |tx| {
            let mut consumer = find_consumer(tx, &id)?;
            if let Some(description) = given.get("description") {
                consumer.description = description.as_str().map(str::to_string);
            }
            merge(&mut consumer.extra, extra(&given, COLUMNS));
            tx.update(&consumer)?;
            Ok(consumer)
        })
        .await?;
    Ok(Reply::ok(json!({"consumer": show_one(&request, &consumer)})))
}

/// What it was given goes with it; tokens made of that are void at once.
async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("consumer_id").to_string();
    keystone
        .write(move |tx| {
            find_consumer(tx, &id)?;
            store::forget_consumer(tx, &id)?;
            tx.remove::<Consumer>(&id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn request_token(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let signed = signed(&request)?;
    let consumer_id = needed(&signed, "oauth_consumer_key")?.to_string();
    let project_id = request.header("requested-project-id").filter(|id| !id.is_empty());
    let project_id = project_id.ok_or_else(|| expecting("Requested-Project-Id", "request"))?.to_string();
    let wanted = project_id.clone();
    let consumer = keystone
        .read(move |tx| {
            store::find::<Project>(tx, &wanted)?;
            find_consumer(tx, &consumer_id)
        })
        .await?;
    keystone.check_signed(&request, &signed, &consumer.secret, "").await?;
    let secret = id::hex();
    let token = RequestToken {
        id: id::hex(),
        secret: keystone.seal(&secret),
        verifier: None,
        authorizing_user_id: None,
        requested_project_id: project_id,
        roles: Vec::new(),
        consumer_id: consumer.id,
        expires_at: keystone.expiry(keystone.options.oauth1_request_token_seconds),
    };
    let row = token.clone();
    keystone.write(move |tx| tx.insert(&row)).await?;
    Ok(form(&token.id, &secret, token.expires_at))
}

/// The user says yes, within roles it holds itself.
async fn authorize(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let body = whole_body(&request)?;
    let wanted = body.get("roles").cloned().unwrap_or(json!([]));
    schemas::REQUEST_TOKEN_ROLES.resource(&wanted)?;
    refuse_delegated(&keystone, &request, "authorize a request token").await?;
    let (id, user_id, now) =
        (request.param("request_token_id").to_string(), request.ctx.user_id.clone(), keystone.clock.now());
    let verifier = verifier();
    let shown = verifier.clone();
    keystone
        .write(move |tx| {
            let token = living(tx, &id, now)?;
            let roles = named_roles(tx, &wanted)?;
            let held = store::role_ids_on_project(tx, &user_id, &token.requested_project_id)?;
            let held: HashSet<String> =
                store::with_implied(tx, held)?.into_iter().map(|role| role.id).collect();
            if !roles.iter().all(|role| held.contains(role)) {
                tracing::info!(user_id, "the authorizing user has not all the roles");
                return Err(unauthorized());
            }
            let (verifier, authorizing_user_id) = (Some(verifier.clone()), Some(user_id.clone()));
            tx.update(&RequestToken { verifier, authorizing_user_id, roles, ..token }).map(drop)
        })
        .await?;
    Ok(Reply::ok(json!({"token": {"oauth_verifier": shown}})))
}

/// Trades an authorized request token, once.
async fn access_token(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let signed = signed(&request)?;
    let consumer_id = needed(&signed, "oauth_consumer_key")?.to_string();
    let request_token_id = needed(&signed, "oauth_token")?.to_string();
    let verifier = needed(&signed, "oauth_verifier")?.to_string();
    let now = keystone.clock.now();
    let (wanted, of) = (request_token_id.clone(), consumer_id.clone());
    let work = move |tx: &mut Tx| Ok((living(tx, &wanted, now)?, tx.find::<Consumer>(&of)?));
    let (asked, consumer) = keystone.read(work).await?;
    let consumer = consumer.filter(|consumer| consumer.id == asked.consumer_id).ok_or_else(unauthorized)?;
    let token_secret = keystone.reveal(&asked.secret)?;
    keystone.check_signed(&request, &signed, &consumer.secret, &token_secret).await?;
    let secret = id::hex();
    let sealed = keystone.seal(&secret);
    let (id, expires_at) = (id::hex(), keystone.expiry(keystone.options.oauth1_access_token_seconds));
    let token = keystone
        .write(move |tx| {
            let asked = living(tx, &request_token_id, now)?;
            let right = asked.verifier.as_ref().is_some_and(|held| crate::signature::same(held, &verifier));
            let user_id = asked.authorizing_user_id.clone().filter(|_| right).ok_or_else(unauthorized)?;
            let token = AccessToken {
                id: id.clone(),
                secret: sealed.clone(),
                authorizing_user_id: user_id,
                project_id: asked.requested_project_id,
                roles: asked.roles,
                consumer_id: asked.consumer_id,
                expires_at,
            };
            tx.remove::<RequestToken>(&asked.id)?;
            tx.insert(&token)?;
            Ok(token)
        })
        .await?;
    Ok(form(&token.id, &secret, token.expires_at))
}

fn verifier() -> String {
    let mut random = rand::rng();
    let letters = (0..VERIFIER_LENGTH).filter_map(|_| VERIFIER_LETTERS.choose(&mut random));
    letters.map(|letter| char::from(*letter)).collect()
}

async fn list_tokens(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    refuse_delegated(&keystone, &request, "manage OAuth access tokens").await?;
    let wanted = List::all().eq("authorizing_user_id", request.param("user_id"));
    let found = keystone.read(move |tx| tx.list::<AccessToken>(&wanted)).await?;
    let shown = found.iter().map(|token| show_token_one(&request, token)).collect();
    Ok(collection(&request, "access_tokens", shown))
}

async fn show_token(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    refuse_delegated(&keystone, &request, "manage OAuth access tokens").await?;
    let token = own_token(&keystone, &request).await?;
    Ok(Reply::ok(json!({"access_token": show_token_one(&request, &token)})))
}

async fn remove_token(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    refuse_delegated(&keystone, &request, "manage OAuth access tokens").await?;
    let (id, user_id) = (request.param("access_token_id").to_string(), request.param("user_id").to_string());
    keystone
        .write(move |tx| match find_token(tx, &id)? {
            token if token.authorizing_user_id != user_id => Err(unauthorized()),
            _ => tx.remove::<AccessToken>(&id).map(drop),
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_token_roles(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let held = token_roles(&keystone, &request).await?;
    let shown = held.iter().map(|role| role_view(&request, role)).collect();
    Ok(collection(&request, "roles", shown))
}

async fn show_token_role(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let held = token_roles(&keystone, &request).await?;
    let id = request.param("role_id");
    let role = held.iter().find(|role| role.id == id).ok_or_else(|| store::not_found("role", id))?;
    Ok(Reply::ok(json!({"role": role_view(&request, role)})))
}

impl Keystone {
    /// Refuses a request that was not signed with these secrets, not lately, or came before. The consumer's is as
    /// stored.
    pub(crate) async fn check_signed(
        &self,
        request: &Request,
        signed: &Signed,
        consumer_secret: &str,
        token_secret: &str,
    ) -> Result<()> {
        let invalid = |detail: &str| {
            Error::bad_request(format!(
                "Validation failed with errors: invalid_request, detail message is: {detail}."
            ))
        };
        if !signed.is_complete() {
            return Err(invalid("Missing mandatory OAuth parameters."));
        }
        let at = signed.get("oauth_timestamp").and_then(|text| text.parse::<i64>().ok());
        let at = at.ok_or_else(|| invalid("Invalid timestamp size"))?;
        if (self.clock.now().unix_seconds() - at).abs() > TIMESTAMP_SECONDS {
            return Err(invalid("Timestamp given is invalid, differ from allowed by over 600 seconds."));
        }
        let url = format!("{}{}", request.base_url, request.path);
        let secret = self.reveal(consumer_secret)?;
        if !signed.verify(request.method.as_str(), &url, &request.query.0, &secret, token_secret) {
            return Err(unauthorized());
        }
        let said = |name: &str| signed.get(name).unwrap_or_default();
        let once = format!("{} {}", said("oauth_consumer_key"), said("oauth_signature"));
        let digest = Sha256::digest(once).iter().map(|byte| format!("{byte:02x}")).collect();
        let used = UsedSignature { digest, at: self.clock.now() };
        let work = move |tx: &mut Tx| {
            tx.insert(&used).map_err(|error| if db::is_constraint(&error) { unauthorized() } else { error })
        };
        self.db.write(work).await
    }

    fn expiry(&self, seconds: u64) -> Option<Timestamp> {
        (seconds > 0).then(|| self.clock.now().plus(Duration::from_secs(seconds)))
    }
}

/// How far a signature's time may be from ours.
const TIMESTAMP_SECONDS: i64 = 600;

/// Who acts by delegation does not make another one of it.
async fn refuse_delegated(keystone: &Keystone, request: &Request, what: &str) -> Result<()> {
    match keystone.valid(&request.ctx.token).await?.is_delegated() {
        true => Err(Error::forbidden(format!("Cannot {what} with a token issued via delegation."))),
        false => Ok(()),
    }
}

fn signed(request: &Request) -> Result<Signed> {
    Signed::parse(request.header("authorization")).ok_or_else(unauthorized)
}

fn needed<'a>(signed: &'a Signed, name: &str) -> Result<&'a str> {
    signed.get(name).ok_or_else(|| expecting(name, "request"))
}

fn find_consumer(tx: &mut Tx, id: &str) -> Result<Consumer> {
    tx.find::<Consumer>(id)?.ok_or_else(|| Error::not_found("Consumer not found"))
}

fn find_token(tx: &mut Tx, id: &str) -> Result<AccessToken> {
    tx.find::<AccessToken>(id)?.ok_or_else(|| Error::not_found("Access token not found"))
}

fn living(tx: &mut Tx, id: &str, now: Timestamp) -> Result<RequestToken> {
    let token = tx.find::<RequestToken>(id)?.ok_or_else(|| Error::not_found("Request token not found"))?;
    match token.expires_at.is_some_and(|at| at < now) {
        true => Err(unauthorized()),
        false => Ok(token),
    }
}

async fn own_token(keystone: &Keystone, request: &Request) -> Result<AccessToken> {
    let id = request.param("access_token_id").to_string();
    let token = keystone.read(move |tx| find_token(tx, &id)).await?;
    match token.authorizing_user_id == request.param("user_id") {
        true => Ok(token),
        false => Err(Error::not_found("Access token not found")),
    }
}

async fn token_roles(keystone: &Keystone, request: &Request) -> Result<Vec<Role>> {
    let token = own_token(keystone, request).await?;
    keystone
        .read(move |tx| tx.list::<Role>(&List::all().filter(Filter::any("id", token.roles.clone()))))
        .await
}

fn named_roles(tx: &mut Tx, wanted: &Json) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for one in wanted.as_array().into_iter().flatten() {
        let id = match one.get("name").and_then(Json::as_str) {
            None => one["id"].as_str().unwrap_or_default().to_string(),
            Some(name) => {
                let found =
                    tx.list::<Role>(&List::all().eq("domain_id", "").eq("name", name))?.into_iter().next();
                found.ok_or_else(|| Error::not_found(format!("Role {name} is not defined")))?.id
            }
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn given(request: &Request, form: &schema::Schema) -> Result<Object> {
    let given = whole_body(request)?.get("consumer").cloned().unwrap_or(json!({}));
    form.resource(&given)?;
    Ok(given.as_object().cloned().unwrap_or_default())
}

fn form(id: &str, secret: &str, expires_at: Option<Timestamp>) -> Reply {
    let mut body = format!("oauth_token={}&oauth_token_secret={}", encode(id), encode(secret));
    if let Some(at) = expires_at {
        body.push_str(&format!("&oauth_expires_at={}", at.micros_z()));
    }
    Reply::body(StatusCode::CREATED, "application/x-www-form-urlencoded", body)
}

fn show_one(request: &Request, consumer: &Consumer) -> Json {
    let columns = json!({"id": consumer.id, "description": consumer.description});
    view(request, "OS-OAUTH1/consumers", &consumer.id, &consumer.extra, columns)
}

fn show_token_one(request: &Request, token: &AccessToken) -> Json {
    let url = format!(
        "{}/v3/users/{}/OS-OAUTH1/access_tokens/{}",
        request.base_url, token.authorizing_user_id, token.id
    );
    json!({
        "id": token.id, "consumer_id": token.consumer_id, "authorizing_user_id": token.authorizing_user_id,
        "project_id": token.project_id, "expires_at": token.expires_at.map(Timestamp::micros_z),
        "links": {"roles": format!("{url}/roles"), "self": url},
    })
}

fn role_view(request: &Request, role: &Role) -> Json {
    let mut shown = roles::show_one(request, role);
    if let Some(shown) = shown.as_object_mut() {
        shown.remove("description");
    }
    shown
}
