//! Unified limits: registered defaults per resource, and overrides for a project or domain. Under the model of two
//! levels no project may have more than its domain.

use super::{Object, body, text};
use crate::{Keystone, authentication::expecting, model::*, options::LimitModel, schemas, store};
use base::{Error, Json, Result, id};
use db::{Filter, List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/registered_limits", "identity:list_registered_limits", list_registered),
        post("/v3/registered_limits", "identity:create_registered_limits", create_registered),
        get("/v3/registered_limits/{id}", "identity:get_registered_limit", show_registered),
        patch("/v3/registered_limits/{id}", "identity:update_registered_limit", update_registered),
        delete("/v3/registered_limits/{id}", "identity:delete_registered_limit", remove_registered),
        get("/v3/limits", "identity:list_limits", list),
        post("/v3/limits", "identity:create_limits", create),
        get("/v3/limits/model", "identity:get_limit_model", show_model),
        get("/v3/limits/{id}", "identity:get_limit", show),
        patch("/v3/limits/{id}", "identity:update_limit", update),
        delete("/v3/limits/{id}", "identity:delete_limit", remove),
    ]
}

async fn list_registered(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let wanted = filtered(&request, &["service_id", "region_id", "resource_name"]);
    let found = keystone.read(move |tx| tx.list::<RegisteredLimit>(&wanted)).await?;
    let shown = found.iter().map(|limit| show_one_registered(&request, limit)).collect();
    Ok(super::collection(&request, "registered_limits", shown))
}

async fn create_registered(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = items(&request, &schemas::REGISTERED_LIMITS_CREATE, "registered_limits")?;
    let made = keystone
        .write(move |tx| {
            let mut made = Vec::new();
            for one in &given {
                let limit = RegisteredLimit {
                    id: id::hex(),
                    service_id: text(one, "service_id").unwrap_or_default().to_string(),
                    region_id: text(one, "region_id").unwrap_or_default().to_string(),
                    resource_name: text(one, "resource_name").unwrap_or_default().to_string(),
                    default_limit: one["default_limit"].as_i64().unwrap_or_default(),
                    description: text(one, "description").map(str::to_string),
                };
                check_registered(tx, &limit)?;
                tx.insert(&limit).map_err(|error| duplicate(error, "registered_limit"))?;
                made.push(limit);
            }
            Ok(made)
        })
        .await?;
    let shown: Vec<Json> = made.iter().map(|limit| show_one_registered(&request, limit)).collect();
    Ok(Reply::created(json!({"registered_limits": shown})))
}

async fn show_registered(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("id").to_string();
    let limit = keystone.read(move |tx| find_registered(tx, &id)).await?;
    Ok(Reply::ok(json!({"registered_limit": show_one_registered(&request, &limit)})))
}

async fn update_registered(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::REGISTERED_LIMIT_UPDATE, "registered_limit")?;
    let id = request.param("id").to_string();
    let limit = keystone
        .write(move |tx| {
            let mut limit = find_registered(tx, &id)?;
            if ["service_id", "region_id", "resource_name"].iter().any(|key| given.contains_key(*key)) {
                check_unused(tx, &id)?;
            }
            for (key, column) in
                [("service_id", &mut limit.service_id), ("resource_name", &mut limit.resource_name)]
            {
                if let Some(value) = text(&given, key) {
                    *column = value.to_string();
                }
            }
            if let Some(region) = given.get("region_id") {
                limit.region_id = region.as_str().unwrap_or_default().to_string();
            }
            if let Some(number) = given.get("default_limit").and_then(Json::as_i64) {
                limit.default_limit = number;
            }
            if let Some(description) = given.get("description") {
                limit.description = description.as_str().map(str::to_string);
            }
            check_registered(tx, &limit)?;
            tx.update(&limit).map_err(|error| duplicate(error, "registered_limit"))?;
            Ok(limit)
        })
        .await?;
    Ok(Reply::ok(json!({"registered_limit": show_one_registered(&request, &limit)})))
}

async fn remove_registered(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("id").to_string();
    keystone
        .write(move |tx| {
            find_registered(tx, &id)?;
            check_unused(tx, &id)?;
            tx.remove::<RegisteredLimit>(&id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

/// Everybody may ask; who is no admin sees the limits of its own project or domain.
async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut wanted =
        filtered(&request, &["service_id", "region_id", "resource_name", "project_id", "domain_id"]);
    let context = &request.ctx;
    if context.system_scope.is_empty() && !context.is_admin() {
        wanted = match context.domain_id.as_str() {
            "" => wanted.eq("project_id", context.project_id.as_str()),
            id => wanted.eq("domain_id", id),
        };
    }
    let found = keystone.read(move |tx| tx.list::<Limit>(&wanted)).await?;
    Ok(super::collection(&request, "limits", found.iter().map(|limit| show_one(&request, limit)).collect()))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = items(&request, &schemas::LIMITS_CREATE, "limits")?;
    let model = keystone.options.limit_model;
    let made = keystone
        .write(move |tx| {
            let mut made = Vec::new();
            for one in &given {
                let limit = new_limit(tx, one)?;
                tx.insert(&limit).map_err(|error| duplicate(error, "limit"))?;
                made.push(limit);
            }
            // When all are there: a domain's may come after those of its projects.
            made.iter().try_for_each(|limit| check_model(tx, model, limit))?;
            Ok(made)
        })
        .await?;
    let shown: Vec<Json> = made.iter().map(|limit| show_one(&request, limit)).collect();
    Ok(Reply::created(json!({"limits": shown})))
}

async fn show_model(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (name, description) = match keystone.options.limit_model {
        LimitModel::Flat => {
            ("flat", "Limit enforcement and validation does not take project hierarchy into consideration.")
        }
        LimitModel::StrictTwoLevel => {
            ("strict_two_level", "This model requires project hierarchy never exceeds a depth of two")
        }
    };
    Ok(Reply::ok(json!({"model": {"name": name, "description": description}})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let id = request.param("id").to_string();
    let (limit, project) = keystone
        .read(move |tx| {
            let limit = find(tx, &id)?;
            let project = tx.find::<Project>(&limit.project_id)?;
            Ok((limit, project))
        })
        .await
        .or_else(|missing| request.can(&()).and(Err(missing)))?;
    let mut target = json!({"project_id": or_null(&limit.project_id)});
    if let Some(project) = project {
        target["project"] = json!({"domain_id": project.domain_id});
    }
    if !limit.domain_id.is_empty() {
        target["domain"] = json!({"id": limit.domain_id});
    }
    request.can(&json!({"target": {"limit": target}}))?;
    Ok(Reply::ok(json!({"limit": show_one(&request, &limit)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let id = existing(&keystone, &request).await?;
    request.can(&())?;
    let given = body(&request, &schemas::LIMIT_UPDATE, "limit")?;
    let model = keystone.options.limit_model;
    let limit = keystone
        .write(move |tx| {
            let mut limit = find(tx, &id)?;
            if let Some(number) = given.get("resource_limit").and_then(Json::as_i64) {
                limit.resource_limit = number;
            }
            if let Some(description) = given.get("description") {
                limit.description = description.as_str().map(str::to_string);
            }
            tx.update(&limit)?;
            check_model(tx, model, &limit)?;
            Ok(limit)
        })
        .await?;
    Ok(Reply::ok(json!({"limit": show_one(&request, &limit)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let id = existing(&keystone, &request).await?;
    request.can(&())?;
    keystone.write(move |tx| find(tx, &id).and_then(|limit| tx.remove::<Limit>(&limit.id))).await?;
    Ok(Reply::no_content())
}

/// What is not there is told to everybody, as upstream tells it.
async fn existing(keystone: &Keystone, request: &Request) -> Result<String> {
    let id = request.param("id").to_string();
    keystone.read(move |tx| find(tx, &id).map(|limit| limit.id)).await
}

fn filtered(request: &Request, columns: &[&'static str]) -> List {
    let mut wanted = List::all();
    for column in columns {
        if let Some(value) = request.query.get(column) {
            wanted = wanted.eq(column, value);
        }
    }
    wanted
}

fn items(request: &Request, form: &schema::Schema, key: &str) -> Result<Vec<Object>> {
    form.body(request.json())?;
    let items = request.json()[key].as_array().into_iter().flatten();
    Ok(items.filter_map(Json::as_object).cloned().collect())
}

fn find_registered(tx: &mut Tx, id: &str) -> Result<RegisteredLimit> {
    let missing = || Error::not_found(format!("Could not find registered limit for {id}."));
    tx.find::<RegisteredLimit>(id)?.ok_or_else(missing)
}

fn find(tx: &mut Tx, id: &str) -> Result<Limit> {
    tx.find::<Limit>(id)?.ok_or_else(|| Error::not_found(format!("Could not find limit for {id}.")))
}

fn check_registered(tx: &mut Tx, limit: &RegisteredLimit) -> Result<()> {
    if tx.find::<Service>(&limit.service_id)?.is_none() {
        return Err(expecting("service_id", "registered_limit"));
    }
    if !limit.region_id.is_empty() && tx.find::<Region>(&limit.region_id)?.is_none() {
        return Err(expecting("region_id", "registered_limit"));
    }
    Ok(())
}

fn check_unused(tx: &mut Tx, id: &str) -> Result<()> {
    match tx.count::<Limit>(&[Filter::eq("registered_limit_id", id)])? {
        0 => Ok(()),
        _ => Err(Error::forbidden(format!(
            "Unable to update or delete registered limit {id} because there are project limits associated with it."
        ))),
    }
}

/// The override that a body asks for, with the registered limit that it overrides.
fn new_limit(tx: &mut Tx, given: &Object) -> Result<Limit> {
    let word = |key: &str| text(given, key).unwrap_or_default().to_string();
    let (project_id, domain_id) = (word("project_id"), word("domain_id"));
    if !project_id.is_empty() && tx.find::<Project>(&project_id)?.is_none() {
        return Err(expecting("project_id", "limit"));
    }
    if !domain_id.is_empty() && store::domain(tx, &domain_id).is_err() {
        return Err(expecting("domain_id", "limit"));
    }
    let wanted = List::all()
        .eq("service_id", word("service_id"))
        .eq("region_id", word("region_id"))
        .eq("resource_name", word("resource_name"));
    let registered = tx.list::<RegisteredLimit>(&wanted)?.into_iter().next().ok_or_else(|| {
        Error::forbidden("Unable to create a limit that has no corresponding registered limit.")
    })?;
    Ok(Limit {
        id: id::hex(),
        registered_limit_id: registered.id,
        project_id,
        domain_id,
        service_id: registered.service_id,
        region_id: registered.region_id,
        resource_name: registered.resource_name,
        resource_limit: given["resource_limit"].as_i64().unwrap_or_default(),
        description: text(given, "description").map(str::to_string),
    })
}

/// Of two levels, a project has no more than its domain: where the domain has no limit, no more than the default.
fn check_model(tx: &mut Tx, model: LimitModel, limit: &Limit) -> Result<()> {
    if model == LimitModel::Flat {
        return Ok(());
    }
    let fits = match limit.domain_id.as_str() {
        "" => {
            let project: Project = store::find(tx, &limit.project_id)?;
            let parent_id = project.parent_id.unwrap_or_default();
            limit_of_domain(tx, limit, &parent_id)?.is_none_or(|most| limit.resource_limit <= most)
        }
        domain_id => {
            let below: Vec<String> = store::subtree(tx, domain_id)?.into_iter().map(|one| one.id).collect();
            let same = List::all().eq("registered_limit_id", limit.registered_limit_id.as_str());
            let children = tx.list::<Limit>(&same.filter(Filter::any("project_id", below)))?;
            children.iter().all(|child| child.resource_limit <= limit.resource_limit)
        }
    };
    if fits {
        return Ok(());
    }
    let (level, id) = match limit.domain_id.as_str() {
        "" => ("project_id", &limit.project_id),
        _ => ("domain_id", &limit.domain_id),
    };
    let region = if limit.region_id.is_empty() { "None" } else { &limit.region_id };
    Err(Error::forbidden(format!(
        "Invalid resource limit: The resource limit ({level}: {id}, resource_name: {}, resource_limit: {}, \
         service_id: {}, region_id: {region}) doesn't satisfy current hierarchy model..",
        limit.resource_name, limit.resource_limit, limit.service_id
    )))
}

/// None for a parent that is a project: only domains bound what is below.
fn limit_of_domain(tx: &mut Tx, limit: &Limit, parent_id: &str) -> Result<Option<i64>> {
    if store::domain(tx, parent_id).is_err() {
        return Ok(None);
    }
    let same = List::all().eq("registered_limit_id", limit.registered_limit_id.as_str());
    let of_domain = tx.list::<Limit>(&same.eq("domain_id", parent_id))?.into_iter().next();
    match of_domain {
        Some(found) => Ok(Some(found.resource_limit)),
        None => {
            find_registered(tx, &limit.registered_limit_id).map(|registered| Some(registered.default_limit))
        }
    }
}

fn duplicate(error: Error, noun: &str) -> Error {
    if db::is_constraint(&error) { super::conflict(noun, "Duplicate entry") } else { error }
}

fn or_null(text: &str) -> Json {
    if text.is_empty() { Json::Null } else { text.into() }
}

fn show_one_registered(request: &Request, limit: &RegisteredLimit) -> Json {
    let columns = json!({
        "id": limit.id, "service_id": limit.service_id, "region_id": or_null(&limit.region_id),
        "resource_name": limit.resource_name, "default_limit": limit.default_limit, "description": limit.description,
    });
    super::view(request, "registered_limits", &limit.id, &json!({}), columns)
}

fn show_one(request: &Request, limit: &Limit) -> Json {
    let columns = json!({
        "id": limit.id, "project_id": or_null(&limit.project_id), "domain_id": or_null(&limit.domain_id),
        "resource_limit": limit.resource_limit, "description": limit.description, "service_id": limit.service_id,
        "region_id": or_null(&limit.region_id), "resource_name": limit.resource_name,
    });
    super::view(request, "limits", &limit.id, &json!({}), columns)
}
