//! Users, and the password that each may change itself.

use super::{
    Object, asked, body, conflict, extra, flag, merge, merge_options, name_matches, narrowed, page, text,
    unknown_marker, view,
};
use crate::{
    Keystone,
    authentication::{expecting, unauthorized},
    compliance::{Refusal, Setter, set_password},
    model::*,
    schemas, store,
};
use base::{Error, Json, Result, Secret, id};
use db::List;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use web::{Mark, Reply, Request, Routes, delete, get, patch, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/users", "identity:list_users", list),
        post("/v3/users", "identity:create_user", create),
        get("/v3/users/{user_id}", "identity:get_user", show),
        patch("/v3/users/{user_id}", "identity:update_user", update),
        delete("/v3/users/{user_id}", "identity:delete_user", remove),
        // The old password is the right to change it.
        post("/v3/users/{user_id}/password", "", change_password).marks(&[Mark::Open]),
        delete("/v3/users/{user_id}/tokens", "identity:revoke_tokens_for_user", revoke_tokens),
        get("/v3/users/{user_id}/groups", "identity:list_groups_for_user", list_groups),
        get("/v3/users/{user_id}/projects", "identity:list_user_projects", list_projects),
    ]
}

const COLUMNS: &[&str] = &[
    "id",
    "name",
    "domain_id",
    "enabled",
    "default_project_id",
    "password",
    "options",
    "links",
    "federated",
    "password_expires_at",
];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let asked_domain = request.query.get("domain_id").map(str::to_string);
    let domain_id =
        if request.ctx.domain_id.is_empty() { asked_domain } else { Some(request.ctx.domain_id.clone()) };
    request.can(&json!({"target": {"domain_id": domain_id}}))?;
    keystone.refresh_users(domain_id.as_deref(), request.query.get("name")).await?;
    let mut wanted = List::all();
    if let Some(domain_id) = domain_id {
        wanted = wanted.eq("domain_id", domain_id);
    }
    if let Some(name) = request.query.get("name") {
        wanted = wanted.eq("name", name);
    }
    if request.query.has("enabled") {
        wanted = wanted.eq("enabled", asked(&request, "enabled"));
    }
    let wanted = narrowed(&request, &keystone, wanted);
    let found = keystone.read(move |tx| tx.list::<User>(&wanted)).await.map_err(unknown_marker(&request))?;
    let matching = found.into_iter().filter(|user| name_matches(&request, &user.name));
    let shown = matching.map(|user| (user.id.clone(), show_one(&request, &user))).collect();
    page(&request, &keystone, "users", shown)
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::USER_CREATE, "user")?;
    let domain_id = domain_of(&request, &given)?;
    request.can(&json!({"target": {"user": {"domain_id": domain_id}}}))?;
    keystone.check_writable(&domain_id).await?;
    let mut user = User {
        id: id::hex(),
        name: text(&given, "name").unwrap_or_default().trim().to_string(),
        domain_id,
        enabled: flag(&given, "enabled", true),
        default_project_id: text(&given, "default_project_id").map(str::to_string),
        password_hash: None,
        password_changed_at: None,
        password_expires_at: None,
        password_set_by_owner: false,
        failed_logins: 0,
        failed_login_at: None,
        last_active_at: Some(keystone.clock.now()),
        options: json!({}),
        extra: extra(&given, COLUMNS),
    };
    merge_options(&mut user.options, &given);
    let hash = match text(&given, "password") {
        None => None,
        Some(password) => Some(keystone.hash_new(password).await?),
    };
    let (compliance, now) = (keystone.options.security_compliance.clone(), keystone.clock.now());
    let user = keystone
        .write(move |tx| {
            let mut user = user.clone();
            store::domain(tx, &user.domain_id)?;
            check_default_project(tx, user.default_project_id.as_deref())?;
            if let Some(hash) = &hash {
                set_password(tx, &compliance, &mut user, hash, Setter::Other, now)?;
            }
            tx.insert(&user).map_err(|error| duplicate(error, &user))?;
            Ok(user)
        })
        .await?;
    Ok(Reply::created(json!({"user": show_one(&request, &user)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let user = load(&keystone, &request).await?;
    Ok(Reply::ok(json!({"user": show_one(&request, &user)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let user = load(&keystone, &request).await?;
    let given = body(&request, &schemas::USER_UPDATE, "user")?;
    if text(&given, "domain_id").is_some_and(|domain_id| domain_id != user.domain_id) {
        return Err(Error::bad_request("Cannot change Domain ID"));
    }
    check_id(&given, &user.id)?;
    keystone.check_writable(&user.domain_id).await?;
    let hash = match text(&given, "password") {
        None => None,
        Some(password) => Some(keystone.hash_new(password).await?),
    };
    let (compliance, now) = (keystone.options.security_compliance.clone(), keystone.clock.now());
    let user = keystone
        .write(move |tx| {
            let mut user: User = store::find(tx, &user.id)?;
            apply(&mut user, &given);
            if let Some(hash) = &hash {
                set_password(tx, &compliance, &mut user, hash, Setter::Other, now)?;
            }
            if flag(&given, "enabled", false) {
                user.forget_failures();
                user.last_active_at = Some(now);
            }
            if given.contains_key("default_project_id") {
                check_default_project(tx, user.default_project_id.as_deref())?;
            }
            if hash.is_some() || !user.enabled {
                void_tokens(tx, &user.id, now)?;
            }
            tx.update(&user).map_err(|error| duplicate(error, &user))?;
            Ok(user)
        })
        .await?;
    let mut shown = show_one(&request, &user);
    // Upstream shows the extras twice here, and clients' tests compare.
    shown["extra"] = user.extra.clone();
    Ok(Reply::ok(json!({"user": shown})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let user = load(&keystone, &request).await?;
    keystone.check_writable(&user.domain_id).await?;
    let now = keystone.clock.now();
    keystone
        .write(move |tx| {
            store::forget_actor(tx, &user.id)?;
            store::forget_user_secrets(tx, &user.id)?;
            void_tokens(tx, &user.id, now)?;
            match tx.remove::<User>(&user.id)? {
                true => Ok(()),
                false => Err(store::not_found("user", &user.id)),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

async fn change_password(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = request.json().get("user").cloned().ok_or_else(|| expecting("user", "request body"))?;
    schemas::PASSWORD_CHANGE.resource(&given)?;
    let secret = |key: &str| Secret::new(given[key].as_str().unwrap_or_default());
    let user_id = request.param("user_id").to_string();
    let user = keystone.read(move |tx| tx.find::<User>(&user_id)).await?;
    let original = secret("original_password");
    if let Some(user) = &user {
        let named = json!({"id": user.id});
        match keystone.by_directory(&user.domain_id, &named, &original).await? {
            None => {}
            Some(None) => return Err(unauthorized()),
            Some(Some(_)) => keystone.check_writable(&user.domain_id).await?,
        }
    }
    let user = match keystone.check_password(user, original).await {
        Ok(user) => user.ok_or_else(unauthorized)?,
        // An expired password is good for this alone.
        Err(Refusal::Expired(user)) => *user,
        Err(refusal) => return Err(refusal.into_error()),
    };
    let password = secret("password");
    keystone.check_change(&user, &password).await?;
    let hash = keystone.hash_new(password.expose()).await?;
    let (compliance, now) = (keystone.options.security_compliance.clone(), keystone.clock.now());
    keystone
        .write(move |tx| {
            let mut row: User = store::find(tx, &user.id)?;
            // Changed twice at once: the old password was right for one of them only.
            if row.password_hash != user.password_hash {
                return Err(unauthorized());
            }
            set_password(tx, &compliance, &mut row, &hash, Setter::Owner, now)?;
            void_tokens(tx, &row.id, now)?;
            tx.update(&row).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

/// For who cannot change its password: all that was issued until now is void.
async fn revoke_tokens(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let user = load(&keystone, &request).await?;
    let now = keystone.clock.now();
    keystone.write(move |tx| void_tokens(tx, &user.id, now)).await?;
    Ok(Reply::no_content())
}

async fn list_groups(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let user = find(&keystone, request.param("user_id")).await?;
    request.can(
        &json!({"user_id": user.id, "target": {"user": {"id": user.id, "domain_id": user.domain_id}}}),
    )?;
    let found = keystone.read(move |tx| store::groups_of(tx, &user.id)).await?;
    let matching = found.iter().filter(|group| name_matches(&request, &group.name));
    let shown = |group: &Group| {
        let mut shown = super::groups::show_one(&request, group);
        shown["membership_expires_at"] = Json::Null;
        shown
    };
    Ok(super::collection(&request, "groups", matching.map(shown).collect()))
}

async fn list_projects(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let user = find(&keystone, request.param("user_id")).await?;
    request.can(&target(&user))?;
    let found = keystone.read(move |tx| store::projects_of(tx, &user.id)).await?;
    let matching = found.iter().filter(|project| name_matches(&request, &project.name));
    let shown = matching.map(|project| super::projects::show_one(&request, project)).collect();
    Ok(super::collection(&request, "projects", shown))
}

/// The user that the path names, if the rule allows. Who may not see users at all is told so first.
async fn load(keystone: &Keystone, request: &Request) -> Result<User> {
    let found = find(keystone, request.param("user_id")).await;
    match found {
        Ok(user) => request.can(&target(&user)).map(|()| user),
        Err(error) => {
            request.can(&json!({"target": {"user": {}}}))?;
            Err(error)
        }
    }
}

pub async fn find(keystone: &Keystone, id: &str) -> Result<User> {
    keystone.refresh_user(id, Duration::ZERO).await?;
    let id = id.to_string();
    keystone.read(move |tx| store::find::<User>(tx, &id)).await
}

fn target(user: &User) -> Json {
    json!({"user_id": user.id, "target": {"user": {"id": user.id, "domain_id": user.domain_id}}})
}

fn apply(user: &mut User, given: &Object) {
    if let Some(name) = text(given, "name") {
        user.name = name.trim().to_string();
    }
    user.enabled = flag(given, "enabled", user.enabled);
    if let Some(project) = given.get("default_project_id") {
        user.default_project_id = project.as_str().map(str::to_string);
    }
    if given.get("password").is_some_and(Json::is_null) {
        user.password_hash = None;
    }
    merge_options(&mut user.options, given);
    merge(&mut user.extra, extra(given, COLUMNS));
}

/// A domain cannot be one's project; a project that is not there is only noticed at login.
fn check_default_project(tx: &mut db::Tx, id: Option<&str>) -> Result<()> {
    let Some(id) = id else { return Ok(()) };
    match tx.find::<Project>(id)?.is_some_and(|project| project.is_domain) {
        true => Err(Error::bad_request("User's default project ID cannot be a domain ID: ".to_string() + id)),
        false => Ok(()),
    }
}

fn void_tokens(tx: &mut db::Tx, user_id: &str, now: base::Timestamp) -> Result<()> {
    let user_id = Some(user_id.to_string());
    tx.insert(&Revocation {
        id: id::hex(),
        revoked_at: now,
        issued_before: now,
        user_id,
        ..Revocation::default()
    })
}

fn duplicate(error: Error, user: &User) -> Error {
    match db::is_constraint(&error) {
        true => conflict(
            "user",
            &format!("Duplicate entry found with name {} at domain ID {}", user.name, user.domain_id),
        ),
        false => error,
    }
}

pub fn check_id(given: &Object, id: &str) -> Result<()> {
    match text(given, "id").is_some_and(|other| other != id) {
        true => Err(Error::bad_request("Cannot change id")),
        false => Ok(()),
    }
}

/// The domain a new thing belongs to: the body's, else the token's.
pub fn domain_of(request: &Request, given: &Object) -> Result<String> {
    let context = &request.ctx;
    let own = [&context.domain_id, &context.project_domain_id].into_iter().find(|id| !id.is_empty());
    match text(given, "domain_id").or(own.map(String::as_str)) {
        Some(id) => Ok(id.to_string()),
        None => Err(Error::bad_request(
            "You have tried to create a resource using the admin token. As this token is not within a domain you must explicitly include a domain for this resource to belong to.",
        )),
    }
}

pub fn show_one(request: &Request, user: &User) -> Json {
    let mut columns = json!({
        "id": user.id, "name": user.name, "domain_id": user.domain_id, "enabled": user.enabled,
        "password_expires_at": user.password_expires_at.map(base::Timestamp::micros), "options": user.options,
    });
    if let Some(project) = &user.default_project_id {
        columns["default_project_id"] = project.as_str().into();
    }
    view(request, "users", &user.id, &user.extra, columns)
}
