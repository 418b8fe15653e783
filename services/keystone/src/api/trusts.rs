//! Trusts: a user lets another act with some of its roles on a project, in its own name or not.

use super::{Object, roles, text, whole_body};
use crate::{Keystone, authentication::expecting, fernet::Scope, model::*, store};
use base::{Error, Json, Result, Timestamp, id};
use db::{Filter, List, Tx};
use schema::Schema;
use serde_json::json;
use std::sync::{Arc, LazyLock};
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/OS-TRUST/trusts", "identity:list_trusts", list),
        post("/v3/OS-TRUST/trusts", "identity:create_trust", create),
        get("/v3/OS-TRUST/trusts/{trust_id}", "identity:get_trust", show),
        delete("/v3/OS-TRUST/trusts/{trust_id}", "identity:delete_trust", remove),
        get("/v3/OS-TRUST/trusts/{trust_id}/roles", "identity:list_roles_for_trust", list_roles),
        get("/v3/OS-TRUST/trusts/{trust_id}/roles/{role_id}", "identity:get_role_for_trust", show_role),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    let id = || json!({"type": "string"});
    Schema::new(json!({
        "type": "object",
        "properties": {
            "trustor_user_id": id(), "trustee_user_id": id(), "impersonation": {"type": "boolean"},
            "project_id": {"type": ["string", "null"]},
            "remaining_uses": {"type": ["integer", "null"], "minimum": 1},
            "expires_at": {"type": ["null", "string"]},
            "allow_redelegation": {"type": ["boolean", "null"]},
            "redelegation_count": {"type": ["integer", "null"], "minimum": 0},
            "roles": {"type": "array", "items": {"type": "object", "properties": {"id": id(), "name": id()}}},
        },
        "required": ["trustee_user_id", "trustor_user_id", "impersonation"],
        "additionalProperties": true,
    }))
});

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (trustor, trustee) = (request.query.get("trustor_user_id"), request.query.get("trustee_user_id"));
    if trustor.is_none() && trustee.is_none() {
        request.can(&())?;
    }
    let mut wanted = List::all();
    for (column, value, rule) in [
        ("trustor_user_id", trustor, "identity:list_trusts_for_trustor"),
        ("trustee_user_id", trustee, "identity:list_trusts_for_trustee"),
    ] {
        if let Some(value) = value {
            request.can_rule(rule, &json!({"target": {"trust": {column: value}}}))?;
            wanted = wanted.eq(column, value);
        }
    }
    let now = keystone.clock.now();
    let found = keystone.read(move |tx| tx.list::<Trust>(&wanted)).await?;
    let living = found.iter().filter(|trust| trust.expires_at.is_none_or(|moment| moment > now));
    Ok(super::collection(&request, "trusts", living.map(|trust| show_one(&request, trust)).collect()))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let body = whole_body(&request)?;
    let given = body.get("trust").ok_or_else(|| expecting("trust", "request body"))?;
    CREATE.resource(given)?;
    let given = given.as_object().cloned().unwrap_or_default();
    let valid = keystone.valid(&request.ctx.token).await?;
    if matches!(valid.payload.scope, Scope::Trust { .. } | Scope::Application { .. }) {
        // Neither a trust nor a restricted credential is handed on.
        return Err(Error::forbidden("You are not authorized to perform the requested action."));
    }
    request.can(&json!({"target": {"trust": {"trustor_user_id": text(&given, "trustor_user_id")}}}))?;
    let trust = Trust {
        id: id::hex(),
        trustor_user_id: text(&given, "trustor_user_id").unwrap_or_default().to_string(),
        trustee_user_id: text(&given, "trustee_user_id").unwrap_or_default().to_string(),
        project_id: text(&given, "project_id").map(str::to_string),
        impersonation: given["impersonation"] == true,
        expires_at: expiry(&given, keystone.clock.now())?,
        remaining_uses: given.get("remaining_uses").and_then(Json::as_i64),
        roles: Vec::new(),
    };
    let (trust, roles) = keystone.write(move |tx| insert(tx, &trust, &given)).await?;
    Ok(Reply::created(json!({"trust": show_with_roles(&request, &trust, &roles)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (trust, roles) = load(&keystone, &request).await?;
    Ok(Reply::ok(json!({"trust": show_with_roles(&request, &trust, &roles)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (trust, _) = load(&keystone, &request).await?;
    keystone.write(move |tx| tx.remove::<Trust>(&trust.id)).await?;
    Ok(Reply::no_content())
}

async fn list_roles(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (trust, held) = load(&keystone, &request).await?;
    let shown: Vec<Json> = held.iter().map(|role| roles::show_one(&request, role)).collect();
    Ok(Reply::ok(json!({"roles": shown, "links": roles_links(&request, &trust)})))
}

async fn show_role(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (_, held) = load(&keystone, &request).await?;
    let id = request.param("role_id");
    let role = held.iter().find(|role| role.id == id).ok_or_else(|| store::not_found("role", id))?;
    Ok(Reply::ok(json!({"role": roles::show_one(&request, role)})))
}

/// The trust that the path names with its roles, if the rule allows. An admin too reads others' trusts only.
async fn load(keystone: &Keystone, request: &Request) -> Result<(Trust, Vec<Role>)> {
    let (id, now) = (request.param("trust_id").to_string(), keystone.clock.now());
    let found = keystone
        .read(move |tx| {
            let trust: Trust = store::find(tx, &id)?;
            if trust.expires_at.is_some_and(|moment| moment <= now) {
                return Err(store::not_found("trust", &id));
            }
            let ids = trust.roles.iter().map(String::as_str);
            let roles = tx.list::<Role>(&List::all().filter(Filter::any("id", ids)))?;
            Ok((trust, roles))
        })
        .await;
    let (trust, roles) = match found {
        Ok(found) => found,
        Err(error) => {
            // Asked so that the refusal is logged; what is not there is told to everybody alike.
            let _ = request.can(&json!({"target": {"trust": {}}}));
            return Err(error);
        }
    };
    let parties = json!({"trustor_user_id": trust.trustor_user_id, "trustee_user_id": trust.trustee_user_id});
    request.can(&json!({"target": {"trust": parties}}))?;
    Ok((trust, roles))
}

/// The trustor can give only what it holds itself.
fn insert(tx: &mut Tx, trust: &Trust, given: &Object) -> Result<(Trust, Vec<Role>)> {
    store::find::<User>(tx, &trust.trustor_user_id)?;
    store::find::<User>(tx, &trust.trustee_user_id)?;
    let mut held = Vec::new();
    if let Some(project_id) = &trust.project_id {
        store::find::<Project>(tx, project_id)?;
        let ids = store::role_ids_on_project(tx, &trust.trustor_user_id, project_id)?;
        held = store::with_implied(tx, ids)?;
    }
    let mut roles = Vec::new();
    for one in given.get("roles").and_then(Json::as_array).into_iter().flatten() {
        roles.push(wanted_role(tx, one, &held)?);
    }
    if trust.project_id.is_some() && roles.is_empty() {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: At least one role should be specified.",
        ));
    }
    let trust = Trust { roles: roles.iter().map(|role| role.id.clone()).collect(), ..trust.clone() };
    tx.insert(&trust)?;
    Ok((trust, roles))
}

fn wanted_role(tx: &mut Tx, one: &Json, held: &[Role]) -> Result<Role> {
    let word = |key: &str| one.get(key).and_then(Json::as_str);
    let role = match (word("id"), word("name")) {
        (Some(id), _) => store::find::<Role>(tx, id)?,
        (None, Some(name)) => {
            let wanted = List::all().eq("domain_id", "").eq("name", name);
            let found = tx.list::<Role>(&wanted)?.into_iter().next();
            found.ok_or_else(|| Error::not_found(format!("Role {name} is not defined")))?
        }
        (None, None) => return Err(expecting("id or name", "role")),
    };
    match held.iter().any(|other| other.id == role.id) {
        true => Ok(role),
        false => Err(store::not_found("role", &role.id)),
    }
}

fn expiry(given: &Object, now: Timestamp) -> Result<Option<Timestamp>> {
    let refuse = |what: &str| {
        Error::bad_request(format!(
            "{what} The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error."
        ))
    };
    let Some(text) = text(given, "expires_at") else { return Ok(None) };
    match Timestamp::parse(text).ok_or_else(|| refuse("Timestamp not in expected format."))? {
        moment if moment <= now => Err(refuse("The 'expires_at' must not be before now.")),
        moment => Ok(Some(moment)),
    }
}

fn show_one(request: &Request, trust: &Trust) -> Json {
    let columns = json!({
        "id": trust.id, "trustor_user_id": trust.trustor_user_id, "trustee_user_id": trust.trustee_user_id,
        "project_id": trust.project_id, "impersonation": trust.impersonation,
        "expires_at": trust.expires_at.map(Timestamp::micros_z), "deleted_at": null,
        "remaining_uses": trust.remaining_uses, "redelegation_count": 0, "redelegated_trust_id": null,
    });
    super::view(request, "OS-TRUST/trusts", &trust.id, &json!({}), columns)
}

fn show_with_roles(request: &Request, trust: &Trust, held: &[Role]) -> Json {
    let mut shown = show_one(request, trust);
    shown["roles"] = held.iter().map(|role| roles::show_one(request, role)).collect::<Vec<_>>().into();
    shown["roles_links"] = roles_links(request, trust);
    shown
}

/// As upstream writes it, without the middle of the path.
fn roles_links(request: &Request, trust: &Trust) -> Json {
    json!({"next": null, "self": format!("{}/v3/{}/roles", request.base_url, trust.id), "previous": null})
}
