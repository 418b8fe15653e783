//! Regions, which may lie in each other.

use super::{Object, body, conflict, extra, merge, text, view};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{Filter, List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, post, put};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/regions", "identity:list_regions", list),
        post("/v3/regions", "identity:create_region", create),
        get("/v3/regions/{region_id}", "identity:get_region", show),
        put("/v3/regions/{region_id}", "identity:create_region", create_named),
        patch("/v3/regions/{region_id}", "identity:update_region", update),
        delete("/v3/regions/{region_id}", "identity:delete_region", remove),
    ]
}

const COLUMNS: &[&str] = &["id", "description", "parent_region_id", "links"];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut wanted = List::all();
    if let Some(parent) = request.query.get("parent_region_id") {
        wanted = wanted.eq("parent_region_id", parent);
    }
    let found = keystone.read(move |tx| tx.list::<Region>(&wanted)).await?;
    Ok(super::collection(
        &request,
        "regions",
        found.iter().map(|region| show_one(&request, region)).collect(),
    ))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::REGION_CREATE, "region")?;
    let id = text(&given, "id").filter(|id| !id.is_empty()).map_or_else(id::hex, str::to_string);
    insert(&keystone, &request, id, given).await
}

async fn create_named(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::REGION_CREATE, "region")?;
    let id = request.param("region_id").to_string();
    if text(&given, "id").is_some_and(|other| other != id) {
        return Err(Error::bad_request("Conflicting region IDs specified: \"%(url_id)s\" != \"%(ref_id)s\""));
    }
    insert(&keystone, &request, id, given).await
}

async fn insert(keystone: &Keystone, request: &Request, id: String, given: Object) -> Result<Reply> {
    let region = keystone
        .write(move |tx| {
            let (id, description) = (id.clone(), String::new());
            let mut region = Region { id, description, parent_region_id: None, extra: json!({}) };
            apply(tx, &mut region, &given)?;
            if tx.find::<Region>(&region.id)?.is_some() {
                return Err(conflict("region", &format!("Duplicate ID, {}.", region.id)));
            }
            tx.insert(&region)?;
            Ok(region)
        })
        .await?;
    Ok(Reply::created(json!({"region": show_one(request, &region)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("region_id").to_string();
    let region = keystone.read(move |tx| store::find::<Region>(tx, &id)).await?;
    Ok(Reply::ok(json!({"region": show_one(&request, &region)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::REGION_UPDATE, "region")?;
    let id = request.param("region_id").to_string();
    let region = keystone
        .write(move |tx| {
            let mut region: Region = store::find(tx, &id)?;
            super::users::check_id(&given, &region.id)?;
            apply(tx, &mut region, &given)?;
            tx.update(&region)?;
            Ok(region)
        })
        .await?;
    Ok(Reply::ok(json!({"region": show_one(&request, &region)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("region_id").to_string();
    keystone
        .write(move |tx| {
            let region: Region = store::find(tx, &id)?;
            let gone = with_children(tx, region.id)?;
            if tx.count::<Endpoint>(&[Filter::any("region_id", gone.iter().map(String::as_str))])? > 0 {
                return Err(Error::forbidden(format!(
                    "Unable to delete region {id} because it or its child regions have associated endpoints."
                )));
            }
            for id in &gone {
                tx.remove::<Region>(id)?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

fn with_children(tx: &mut Tx, id: String) -> Result<Vec<String>> {
    let regions = tx.list::<Region>(&List::all())?;
    let mut found = vec![id];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next].clone();
        let below = regions.iter().filter(|region| region.parent_region_id.as_deref() == Some(&parent));
        found.extend(below.map(|region| region.id.clone()).filter(|id| *id != parent).collect::<Vec<_>>());
        next += 1;
    }
    Ok(found)
}

fn apply(tx: &mut Tx, region: &mut Region, given: &Object) -> Result<()> {
    if let Some(description) = given.get("description") {
        region.description = description.as_str().unwrap_or_default().to_string();
    }
    if let Some(parent) = given.get("parent_region_id") {
        region.parent_region_id = parent.as_str().filter(|parent| !parent.is_empty()).map(str::to_string);
        if let Some(parent) = &region.parent_region_id {
            store::find::<Region>(tx, parent)?;
            if with_children(tx, region.id.clone())?.contains(parent) {
                return Err(Error::bad_request(format!("Unable to create a circular region: {parent}.")));
            }
        }
    }
    merge(&mut region.extra, extra(given, COLUMNS));
    Ok(())
}

fn show_one(request: &Request, region: &Region) -> Json {
    let columns = json!({
        "id": region.id, "description": region.description, "parent_region_id": region.parent_region_id,
    });
    view(request, "regions", &region.id, &region.extra, columns)
}
