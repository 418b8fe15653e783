//! Roles, and which of them imply others.

use super::{
    body, check_mutable, conflict, extra, merge, merge_options, name_matches, own_url, text, users::check_id,
    view,
};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{List, Resource, Tx};
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, head, patch, post, put};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/roles", "identity:list_roles", list),
        post("/v3/roles", "identity:create_role", create),
        get("/v3/roles/{role_id}", "identity:get_role", show),
        patch("/v3/roles/{role_id}", "identity:update_role", update),
        delete("/v3/roles/{role_id}", "identity:delete_role", remove),
        get("/v3/roles/{role_id}/implies", "identity:list_implied_roles", list_implied),
        get("/v3/roles/{role_id}/implies/{implied_role_id}", "identity:get_implied_role", show_implied),
        head("/v3/roles/{role_id}/implies/{implied_role_id}", "identity:check_implied_role", check_implied),
        put("/v3/roles/{role_id}/implies/{implied_role_id}", "identity:create_implied_role", add_implied),
        delete(
            "/v3/roles/{role_id}/implies/{implied_role_id}",
            "identity:delete_implied_role",
            remove_implied,
        ),
        get("/v3/role_inferences", "identity:list_role_inference_rules", list_inferences),
    ]
}

const COLUMNS: &[&str] = &["id", "name", "domain_id", "description", "options", "links"];

/// Roles that nothing may imply.
const PROHIBITED: &[&str] = &["admin"];

/// Roles of a domain have rules of their own: `identity:get_domain_role` for `identity:get_role`.
fn rule(verb: &str, domain_id: Option<&str>) -> String {
    match domain_id.is_some_and(|id| !id.is_empty()) {
        true => format!("identity:{verb}_domain_role"),
        false => format!("identity:{verb}_role"),
    }
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let domain_id = request.query.get("domain_id").unwrap_or_default().to_string();
    match domain_id.is_empty() {
        true => request.can(&())?,
        false => request.can_rule("identity:list_domain_roles", &())?,
    }
    let wanted = List::all().eq("domain_id", domain_id);
    let found = keystone.read(move |tx| tx.list::<Role>(&wanted)).await?;
    let matching = found.iter().filter(|role| name_matches(&request, &role.name));
    Ok(super::collection(&request, "roles", matching.map(|role| show_one(&request, role)).collect()))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ROLE_CREATE, "role")?;
    let domain_id = text(&given, "domain_id").unwrap_or_default().to_string();
    request.can_rule(&rule("create", Some(&domain_id)), &())?;
    let mut role = Role {
        id: id::hex(),
        name: text(&given, "name").unwrap_or_default().trim().to_string(),
        domain_id,
        description: text(&given, "description").map(str::to_string),
        options: json!({}),
        extra: extra(&given, COLUMNS),
    };
    merge_options(&mut role.options, &given);
    let row = role.clone();
    keystone.write(move |tx| tx.insert(&row).map_err(|error| duplicate(error, &row))).await?;
    Ok(Reply::created(json!({"role": show_one(&request, &role)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let role = load(&keystone, &request, "get").await?;
    Ok(Reply::ok(json!({"role": show_one(&request, &role)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ROLE_UPDATE, "role")?;
    let role = load(&keystone, &request, "update").await?;
    let role = keystone
        .write(move |tx| {
            let mut role: Role = store::find(tx, &role.id)?;
            check_mutable("role", "update", &role.id, &role.options, &given)?;
            check_id(&given, &role.id)?;
            if text(&given, "domain_id").is_some_and(|domain_id| domain_id != role.domain_id) {
                return Err(Error::bad_request("Cannot change Domain ID"));
            }
            if let Some(name) = text(&given, "name") {
                role.name = name.trim().to_string();
            }
            if let Some(description) = given.get("description") {
                role.description = description.as_str().map(str::to_string);
            }
            merge_options(&mut role.options, &given);
            merge(&mut role.extra, extra(&given, COLUMNS));
            tx.update(&role).map_err(|error| duplicate(error, &role))?;
            Ok(role)
        })
        .await?;
    Ok(Reply::ok(json!({"role": show_one(&request, &role)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let role = load(&keystone, &request, "delete").await?;
    keystone
        .write(move |tx| {
            let role: Role = store::find(tx, &role.id)?;
            check_mutable("role", "delete", &role.id, &role.options, &Default::default())?;
            store::forget_role(tx, &role.id)?;
            tx.remove::<Role>(&role.id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_implied(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("role_id").to_string();
    let (prior, implied) = keystone
        .read(move |tx| {
            let prior: Role = store::find(tx, &id)?;
            let ids = store::implications(tx)?.remove(&prior.id).unwrap_or_default();
            Ok((prior, roles_by_id(tx, ids)?))
        })
        .await?;
    let implied: Vec<Json> = implied.values().map(|role| reference(&request, role)).collect();
    let inference = json!({"prior_role": reference(&request, &prior), "implies": implied});
    Ok(Reply::ok(json!({"role_inference": inference, "links": {"self": own_url(&request)}})))
}

async fn show_implied(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let (prior, implied) = load_implied(&keystone, &request).await?;
    Ok(Reply::ok(inference(&request, &prior, &implied)))
}

async fn check_implied(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    load_implied(&keystone, &request).await?;
    Ok(Reply::no_content())
}

async fn add_implied(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let edge = edge(&request);
    let (prior, implied) = keystone
        .write(move |tx| {
            let (prior, implied): (Role, Role) =
                (store::find(tx, &edge.prior_role_id)?, store::find(tx, &edge.implied_role_id)?);
            // A role of the whole cloud cannot imply one of a domain.
            let narrows = prior.domain_id.is_empty() && !implied.domain_id.is_empty();
            if narrows || PROHIBITED.contains(&implied.name.as_str()) {
                return Err(Error::forbidden(format!("{} cannot be an implied roles.", implied.id)));
            }
            if tx.get::<ImpliedRole>(&edge.values())?.is_none() {
                tx.insert(&edge)?;
            }
            Ok((prior, implied))
        })
        .await?;
    Ok(Reply::json(StatusCode::CREATED, inference(&request, &prior, &implied)))
}

async fn remove_implied(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    load_implied(&keystone, &request).await?;
    let edge = edge(&request);
    keystone.write(move |tx| tx.delete::<ImpliedRole>(&edge.values())).await?;
    Ok(Reply::no_content())
}

async fn list_inferences(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let work = |tx: &mut Tx| Ok((store::implications(tx)?, tx.list::<Role>(&List::all())?));
    let (edges, roles) = keystone.read(work).await?;
    let by_id: HashMap<&str, &Role> = roles.iter().map(|role| (role.id.as_str(), role)).collect();
    let shown: Vec<Json> = edges
        .iter()
        .filter_map(|(prior, implied)| {
            let implied = implied.iter().filter_map(|id| by_id.get(id.as_str()));
            let implied: Vec<Json> = implied.map(|role| reference(&request, role)).collect();
            Some(json!({"prior_role": reference(&request, by_id.get(prior.as_str())?), "implies": implied}))
        })
        .collect();
    Ok(Reply::ok(json!({"role_inferences": shown})))
}

fn edge(request: &Request) -> ImpliedRole {
    let (prior, implied) = (request.param("role_id"), request.param("implied_role_id"));
    ImpliedRole { prior_role_id: prior.into(), implied_role_id: implied.into() }
}

async fn load_implied(keystone: &Keystone, request: &Request) -> Result<(Role, Role)> {
    request.can(&())?;
    let edge = edge(request);
    keystone
        .read(move |tx| {
            let (prior, implied): (Role, Role) =
                (store::find(tx, &edge.prior_role_id)?, store::find(tx, &edge.implied_role_id)?);
            match tx.get::<ImpliedRole>(&edge.values())? {
                Some(_) => Ok((prior, implied)),
                None => Err(Error::not_found(format!("{} does not imply {}.", prior.id, implied.id))),
            }
        })
        .await
}

fn roles_by_id(tx: &mut Tx, ids: Vec<String>) -> Result<HashMap<String, Role>> {
    let roles = tx.list::<Role>(&List::all().filter(db::Filter::any("id", ids)))?;
    Ok(roles.into_iter().map(|role| (role.id.clone(), role)).collect())
}

fn inference(request: &Request, prior: &Role, implied: &Role) -> Json {
    json!({
        "role_inference": {"prior_role": reference(request, prior), "implies": reference(request, implied)},
        "links": {"self": own_url(request)},
    })
}

fn reference(request: &Request, role: &Role) -> Json {
    let url = format!("{}/v3/roles/{}", request.base_url, role.id);
    json!({"id": role.id, "links": {"self": url}, "name": role.name})
}

/// The role that the path names, if its rule allows.
async fn load(keystone: &Keystone, request: &Request, verb: &str) -> Result<Role> {
    let id = request.param("role_id").to_string();
    match keystone.read(move |tx| store::find::<Role>(tx, &id)).await {
        Ok(role) => {
            request.can_rule(
                &rule(verb, Some(&role.domain_id)),
                &json!({"target": {"role": {"name": role.name}}}),
            )?;
            Ok(role)
        }
        Err(error) => {
            request.can_rule(&rule(verb, None), &())?;
            Err(error)
        }
    }
}

fn duplicate(error: Error, role: &Role) -> Error {
    match db::is_constraint(&error) {
        true => conflict("role", &format!("Duplicate entry found with name {}", role.name)),
        false => error,
    }
}

pub fn show_one(request: &Request, role: &Role) -> Json {
    let domain_id = if role.domain_id.is_empty() { Json::Null } else { role.domain_id.as_str().into() };
    let columns = json!({
        "id": role.id, "name": role.name, "domain_id": domain_id, "description": role.description,
        "options": role.options,
    });
    view(request, "roles", &role.id, &role.extra, columns)
}
