//! Types of groups and their specs.

use super::{Object, bare, body, flag, lists, text};
use crate::{
    Cinder,
    model::{Group, GroupType},
    schemas,
};
use base::{Error, Json, Result, id};
use db::{AsJson, Filter, List, Resource, Tx};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

const ONE: &str = "/v3/group_types/{group_type_id}";
const SPECS: &str = "/v3/group_types/{group_type_id}/group_specs";
const SPEC: &str = "/v3/group_types/{group_type_id}/group_specs/{key}";

pub fn routes() -> Routes<Cinder> {
    let routes = vec![
        get("/v3/group_types", "", list),
        post("/v3/group_types", "group:group_types:create", create),
        get("/v3/group_types/default", "", show_default),
        get(ONE, "", show),
        put(ONE, "group:group_types:update", update),
        delete(ONE, "group:group_types:delete", remove),
        get(SPECS, "group:group_types_specs:get_all", list_specs),
        post(SPECS, "group:group_types_specs:create", add_specs),
        get(SPEC, "group:group_types_specs:get", show_spec),
        put(SPEC, "group:group_types_specs:update", set_spec),
        delete(SPEC, "group:group_types_specs:delete", remove_spec),
    ];
    routes.into_iter().map(|route| route.since(3, 11)).collect()
}

pub fn not_found(id: &str) -> Error {
    Error::not_found(format!("Group type {id} could not be found."))
}

fn find(tx: &mut Tx, id: &str) -> Result<GroupType> {
    tx.find::<GroupType>(id)?.ok_or_else(|| not_found(id))
}

/// Anyone with a token may ask; only administrators choose between public and private ones.
async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let page = lists::page(&request, &cinder.options, GroupType::TABLE, &[])?;
    let wanted = super::types::is_public(&request, request.query.get("is_public"))?;
    let filters: Vec<Filter> = wanted.map(|public| Filter::eq("is_public", public)).into_iter().collect();
    let paging = page.clone();
    let (found, _) = cinder
        .read(move |tx| {
            lists::fetch::<GroupType>(tx, &paging, &filters, None, |one| one.id.as_str(), not_found)
        })
        .await?;
    let shown: Vec<Json> = found.iter().map(|kind| view(&request, kind)).collect();
    let mut answer = json!({"group_types": shown});
    let last = found.last().map(|kind| kind.id.as_str());
    if let Some(next) = lists::next_links(&request, "group_types", &page, last, found.len()) {
        answer["group_type_links"] = next;
    }
    Ok(Reply::ok(answer))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_TYPE_CREATE, "group_type")?;
    request.can(&())?;
    let kind = GroupType {
        id: id::uuid(),
        name: text(&given, "name").unwrap_or_default().to_string(),
        description: text(&given, "description").map(String::from),
        is_public: given.get("is_public").is_none_or(flag),
        group_specs: AsJson(specs(given.get("group_specs"))),
        created_at: cinder.clock.now(),
        updated_at: None,
    };
    let row = kind.clone();
    cinder
        .write(move |tx| {
            refuse_taken_name(tx, &row.name, &row.id)?;
            tx.insert(&row)
        })
        .await?;
    Ok(Reply::accepted(json!({"group_type": view(&request, &kind)})))
}

fn refuse_taken_name(tx: &mut Tx, name: &str, id: &str) -> Result<()> {
    let same = tx.list::<GroupType>(&List::all().eq("name", name))?;
    match same.iter().any(|other| other.id != id) {
        true => Err(Error::conflict(format!("Group Type {name} already exists."))),
        false => Ok(()),
    }
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let id = request.param("group_type_id").to_string();
    let kind = cinder.read(move |tx| find(tx, &id)).await?;
    Ok(Reply::ok(json!({"group_type": view(&request, &kind)})))
}

/// None is configured.
async fn show_default(_cinder: Arc<Cinder>, _request: Request) -> Result<Reply> {
    Err(Error::not_found("Default group type can not be found."))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_TYPE_UPDATE, "group_type")?;
    request.can(&())?;
    let (name, description) = (text(&given, "name").map(String::from), text(&given, "description"));
    if name.as_deref().is_some_and(|name| !name.is_empty() && name.trim().is_empty()) {
        return Err(Error::bad_request("Group type name can not be empty."));
    }
    let is_public = given.get("is_public").map(flag);
    if name.is_none() && description.is_none() && is_public.is_none() {
        return Err(Error::bad_request("Specify group type name, description or a combination thereof."));
    }
    let (description, now) = (description.map(String::from), cinder.clock.now());
    let kind = change(&cinder, &request, move |tx, kind| {
        if let Some(name) = name.as_ref().filter(|name| !name.is_empty()) {
            refuse_taken_name(tx, name, &kind.id)?;
            kind.name.clone_from(name);
        }
        kind.description = description.clone().or(kind.description.take());
        kind.is_public = is_public.unwrap_or(kind.is_public);
        kind.updated_at = Some(now);
        Ok(())
    });
    Ok(Reply::ok(json!({"group_type": view(&request, &kind.await?)})))
}

async fn change(
    cinder: &Arc<Cinder>,
    request: &Request,
    change: impl Fn(&mut Tx, &mut GroupType) -> Result<()> + Send + 'static,
) -> Result<GroupType> {
    let id = request.param("group_type_id").to_string();
    cinder
        .write(move |tx| {
            let mut kind = find(tx, &id)?;
            change(tx, &mut kind)?;
            tx.update(&kind)?;
            Ok(kind)
        })
        .await
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("group_type_id").to_string();
    cinder
        .write(move |tx| {
            find(tx, &id)?;
            if tx.count::<Group>(&[Filter::eq("group_type_id", &id)])? > 0 {
                return Err(Error::bad_request(format!(
                    "Target group type is still in use. Group Type {id} deletion is not allowed with groups present with the type."
                )));
            }
            tx.remove::<GroupType>(&id)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn list_specs(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("group_type_id").to_string();
    let kind = cinder.read(move |tx| find(tx, &id)).await?;
    Ok(Reply::ok(json!({"group_specs": kind.group_specs.0})))
}

async fn add_specs(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_SPECS, "group_specs")?;
    request.can(&())?;
    add(&cinder, &request, &given).await?;
    Ok(Reply::accepted(json!({"group_specs": given})))
}

async fn show_spec(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("group_type_id").to_string();
    let kind = cinder.read(move |tx| find(tx, &id)).await?;
    let key = request.param("key");
    let value = kind.group_specs.get(key).ok_or_else(|| {
        Error::not_found(format!("Group Type {} has no extra spec with key {key}.", kind.id))
    })?;
    Ok(Reply::ok(json!({key: value})))
}

async fn set_spec(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = request.json().clone();
    schemas::GROUP_SPEC.body(&given)?;
    request.can(&())?;
    let given = given.as_object().cloned().unwrap_or_default();
    if !given.contains_key(request.param("key")) {
        let id = request.param("group_type_id").to_string();
        cinder.read(move |tx| find(tx, &id)).await?;
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    add(&cinder, &request, &given).await?;
    Ok(Reply::ok(Json::Object(given)))
}

async fn add(cinder: &Arc<Cinder>, request: &Request, given: &Object) -> Result<()> {
    let (more, now) = (specs(Some(&given.clone().into())), cinder.clock.now());
    let changed = change(cinder, request, move |_, kind| {
        kind.group_specs.0.extend(more.clone());
        kind.updated_at = Some(now);
        Ok(())
    });
    changed.await.map(drop)
}

async fn remove_spec(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let key = request.param("key").to_string();
    let changed = change(&cinder, &request, move |_, kind| {
        let found = kind.group_specs.0.remove(&key);
        found
            .map(drop)
            .ok_or_else(|| Error::not_found(format!("Group Type {} has no specs with key {key}.", kind.id)))
    });
    changed.await?;
    Ok(bare(StatusCode::ACCEPTED))
}

/// Unlike those of volume types they may be null.
fn specs(given: Option<&Json>) -> BTreeMap<String, Option<String>> {
    let pairs = given.and_then(Json::as_object).into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().map(String::from))).collect()
}

fn view(request: &Request, kind: &GroupType) -> Json {
    let mut shown = json!({
        "id": kind.id,
        "name": kind.name,
        "description": kind.description,
        "is_public": kind.is_public,
    });
    if request.may("group:access_group_types_specs", &()) {
        shown["group_specs"] = json!(kind.group_specs.0);
    }
    shown
}
