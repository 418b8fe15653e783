//! Application credentials: a secret that stands for some of a user's roles on one project.

use super::{Object, body, conflict, text};
use crate::{Keystone, fernet::Scope, model::*, password, schemas, store};
use base::{Error, Json, Result, Secret, Timestamp, id};
use db::{Filter, List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/users/{user_id}/application_credentials", "identity:list_application_credentials", list),
        post("/v3/users/{user_id}/application_credentials", "identity:create_application_credential", create),
        get("/v3/users/{user_id}/application_credentials/{id}", "identity:get_application_credential", show),
        delete(
            "/v3/users/{user_id}/application_credentials/{id}",
            "identity:delete_application_credential",
            remove,
        ),
        get("/v3/users/{user_id}/access_rules", "identity:list_access_rules", list_rules),
        get("/v3/users/{user_id}/access_rules/{id}", "identity:get_access_rule", show_one_rule),
        delete("/v3/users/{user_id}/access_rules/{id}", "identity:delete_access_rule", remove_rule),
    ]
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&target(&request))?;
    let mut wanted = List::all().eq("user_id", request.param("user_id"));
    if let Some(name) = request.query.get("name") {
        wanted = wanted.eq("name", name);
    }
    let (found, roles) = keystone
        .read(move |tx| {
            let found = tx.list::<ApplicationCredential>(&wanted)?;
            let ids: Vec<String> = found.iter().flat_map(|credential| credential.roles.clone()).collect();
            Ok((found, tx.list::<Role>(&List::all().filter(Filter::any("id", ids)))?))
        })
        .await?;
    let shown = found.iter().map(|credential| show_one(&request, credential, &roles)).collect();
    Ok(super::collection(&request, "application_credentials", shown))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::APPLICATION_CREDENTIAL_CREATE, "application_credential")?;
    request.can(&target(&request))?;
    let valid = keystone.valid(&request.ctx.token).await?;
    check_unrestricted(&keystone, &valid.payload.scope).await?;
    let roles = wanted_roles(&given, &valid.roles)?;
    let secret = text(&given, "secret").map_or_else(random_secret, str::to_string);
    let rounds = keystone.options.password_hash_rounds;
    let credential = ApplicationCredential {
        id: id::hex(),
        name: text(&given, "name").unwrap_or_default().to_string(),
        user_id: request.ctx.user_id.clone(),
        project_id: request.ctx.project_id.clone(),
        description: text(&given, "description").map(str::to_string),
        secret_hash: password::hash(Secret::new(secret.as_str()), rounds).await?,
        expires_at: expiry(&given, keystone.clock.now())?,
        unrestricted: given.get("unrestricted").and_then(Json::as_bool),
        roles: roles.iter().map(|role| role.id.clone()).collect(),
        access_rules: given.get("access_rules").cloned().unwrap_or(json!([])),
    };
    let row = credential;
    let credential = keystone
        .write(move |tx| {
            let mut row = row.clone();
            row.access_rules = shared_rules(tx, &row.user_id, row.access_rules)?;
            tx.insert(&row).map_err(|error| match db::is_constraint(&error) {
                true => conflict(
                    "application_credential",
                    &format!("Duplicate entry found with name {}", row.name),
                ),
                false => error,
            })?;
            Ok(row)
        })
        .await?;
    let mut shown = show_one(&request, &credential, &roles);
    shown["secret"] = secret.into();
    Ok(Reply::created(json!({"application_credential": shown})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&target(&request))?;
    let credential = find(&keystone, &request).await?;
    let ids = credential.roles.clone();
    let roles =
        keystone.read(move |tx| tx.list::<Role>(&List::all().filter(Filter::any("id", ids.clone())))).await?;
    Ok(Reply::ok(json!({"application_credential": show_one(&request, &credential, &roles)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&target(&request))?;
    let valid = keystone.valid(&request.ctx.token).await?;
    check_unrestricted(&keystone, &valid.payload.scope).await?;
    let credential = find(&keystone, &request).await?;
    keystone.write(move |tx| tx.remove::<ApplicationCredential>(&credential.id)).await?;
    Ok(Reply::no_content())
}

fn target(request: &Request) -> Json {
    let user_id = request.param("user_id");
    json!({"user_id": user_id, "target": {"user": {"id": user_id}}})
}

async fn find(keystone: &Keystone, request: &Request) -> Result<ApplicationCredential> {
    let (id, user_id) = (request.param("id").to_string(), request.param("user_id").to_string());
    keystone
        .read(move |tx| {
            let found =
                tx.find::<ApplicationCredential>(&id)?.filter(|credential| credential.user_id == user_id);
            found.ok_or_else(|| store::not_found("Application Credential", &id))
        })
        .await
}

/// A restricted credential's token cannot make or delete others.
async fn check_unrestricted(keystone: &Keystone, scope: &Scope) -> Result<()> {
    let Scope::Application { credential_id, .. } = scope else { return Ok(()) };
    let id = credential_id.clone();
    let credential = keystone.read(move |tx| tx.find::<ApplicationCredential>(&id)).await?;
    match credential.is_some_and(|credential| credential.unrestricted == Some(true)) {
        true => Ok(()),
        false => Err(Error::forbidden(
            "You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for managing additional application credentials.",
        )),
    }
}

/// The roles that the body names, which the caller must hold; all of the caller's when it names none.
fn wanted_roles(given: &Object, held: &[Role]) -> Result<Vec<Role>> {
    let Some(named) = given.get("roles").and_then(Json::as_array) else { return Ok(held.to_vec()) };
    let mut roles = Vec::new();
    for one in named {
        let fits = |role: &&Role| {
            one.get("id").is_some_and(|id| *id == role.id)
                || one.get("name").is_some_and(|name| *name == role.name)
        };
        let role = held.iter().find(fits).ok_or_else(|| {
            Error::bad_request(
                "Invalid application credential: Cannot create an application credential with unassigned role",
            )
        })?;
        roles.push(role.clone());
    }
    Ok(roles)
}

const MALFORMED: &str = "The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.";

fn expiry(given: &Object, now: Timestamp) -> Result<Option<Timestamp>> {
    let Some(text) = text(given, "expires_at") else { return Ok(None) };
    let refuse = |message: &str| Error::bad_request(format!("{message} {MALFORMED}"));
    match Timestamp::parse(text).ok_or_else(|| refuse("Timestamp not in expected format."))? {
        moment if moment <= now => Err(refuse("The 'expires_at' must not be before now.")),
        moment => Ok(Some(moment)),
    }
}

/// The rules with their ids: those the user has already, and new ones.
fn shared_rules(tx: &mut Tx, user_id: &str, given: Json) -> Result<Json> {
    let mut rules = Vec::new();
    for one in given.as_array().into_iter().flatten() {
        let word = |key: &str| one.get(key).and_then(Json::as_str).unwrap_or_default().to_string();
        if !word("id").is_empty() {
            let known: AccessRule = tx
                .find(&word("id"))?
                .filter(|rule: &AccessRule| rule.user_id == user_id)
                .ok_or_else(|| no_rule(&word("id")))?;
            rules.push(rule_json(&known));
            continue;
        }
        let (service, path, method) = (word("service"), word("path"), word("method"));
        let wanted = List::all().eq("user_id", user_id).eq("service", service.as_str());
        let wanted = wanted.eq("path", path.as_str()).eq("method", method.as_str());
        let rule = match tx.list::<AccessRule>(&wanted)?.into_iter().next() {
            Some(rule) => rule,
            None => {
                let rule = AccessRule { id: id::hex(), user_id: user_id.into(), service, path, method };
                tx.insert(&rule)?;
                rule
            }
        };
        rules.push(rule_json(&rule));
    }
    Ok(rules.into())
}

async fn list_rules(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&target(&request))?;
    let mut wanted = List::all().eq("user_id", request.param("user_id"));
    for column in ["service", "path", "method"] {
        if let Some(value) = request.query.get(column) {
            wanted = wanted.eq(column, value);
        }
    }
    let found = keystone.read(move |tx| tx.list::<AccessRule>(&wanted)).await?;
    Ok(super::collection(
        &request,
        "access_rules",
        found.iter().map(|rule| show_rule(&request, rule)).collect(),
    ))
}

async fn show_one_rule(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&target(&request))?;
    let (id, user_id) = (request.param("id").to_string(), request.param("user_id").to_string());
    let rule = keystone.read(move |tx| find_rule(tx, &id, &user_id)).await?;
    Ok(Reply::ok(json!({"access_rule": show_rule(&request, &rule)})))
}

async fn remove_rule(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&target(&request))?;
    let (id, user_id) = (request.param("id").to_string(), request.param("user_id").to_string());
    keystone
        .write(move |tx| {
            let rule = find_rule(tx, &id, &user_id)?;
            let held = tx.list::<ApplicationCredential>(&List::all().eq("user_id", user_id.as_str()))?;
            let uses = |credential: &ApplicationCredential| {
                credential
                    .access_rules
                    .as_array()
                    .is_some_and(|rules| rules.iter().any(|one| one["id"] == *rule.id))
            };
            if held.iter().any(uses) {
                return Err(Error::forbidden("May not delete access rule in use"));
            }
            tx.remove::<AccessRule>(&rule.id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

fn find_rule(tx: &mut Tx, id: &str, user_id: &str) -> Result<AccessRule> {
    tx.find::<AccessRule>(id)?.filter(|rule| rule.user_id == user_id).ok_or_else(|| no_rule(id))
}

fn no_rule(id: &str) -> Error {
    store::not_found("Access Rule", id)
}

fn rule_json(rule: &AccessRule) -> Json {
    json!({"id": rule.id, "path": rule.path, "method": rule.method, "service": rule.service})
}

fn show_rule(request: &Request, rule: &AccessRule) -> Json {
    super::view(request, "access_rules", &rule.id, &json!({}), rule_json(rule))
}

/// 64 random bytes as keystone's own secrets: 86 letters, digits, `-` and `_`.
fn random_secret() -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = [0u8; 64];
    rand::Rng::fill(&mut rand::rng(), &mut bytes[..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn show_one(request: &Request, credential: &ApplicationCredential, roles: &[Role]) -> Json {
    let held = roles.iter().filter(|role| credential.roles.contains(&role.id));
    let role = |role: &Role| {
        let domain_id = if role.domain_id.is_empty() { Json::Null } else { role.domain_id.as_str().into() };
        json!({"id": role.id, "name": role.name, "domain_id": domain_id, "description": role.description,
            "options": role.options})
    };
    let url = format!("{}/v3/application_credentials/{}", request.base_url, credential.id);
    let mut shown = json!({
        "id": credential.id, "name": credential.name, "description": credential.description,
        "project_id": credential.project_id, "user_id": credential.user_id, "system": null,
        "expires_at": credential.expires_at.map(Timestamp::micros), "unrestricted": credential.unrestricted,
        "roles": held.map(role).collect::<Vec<_>>(), "links": {"self": url},
    });
    if credential.access_rules.as_array().is_some_and(|rules| !rules.is_empty()) {
        shown["access_rules"] = credential.access_rules.clone();
    }
    shown
}
