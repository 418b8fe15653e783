//! Mappings: rules that make of an identity provider's assertion a user. What they mean is `mapping`'s.

use super::{collection, conflict, view, whole_body};
use crate::{Keystone, mapping, model::*, store};
use base::{Json, Result};
use db::List;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, put};

const ONE: &str = "/v3/OS-FEDERATION/mappings/{mapping_id}";

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/OS-FEDERATION/mappings", "identity:list_mappings", list),
        get(ONE, "identity:get_mapping", show),
        put(ONE, "identity:create_mapping", create),
        patch(ONE, "identity:update_mapping", update),
        delete(ONE, "identity:delete_mapping", remove),
    ]
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let found = keystone.read(|tx| tx.list::<Mapping>(&List::all())).await?;
    Ok(collection(&request, "mappings", found.iter().map(|mapping| show_one(&request, mapping)).collect()))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("mapping_id").to_string();
    let mapping = keystone.read(move |tx| store::find::<Mapping>(tx, &id)).await?;
    Ok(Reply::ok(json!({"mapping": show_one(&request, &mapping)})))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mapping = given(&request)?;
    let row = mapping.clone();
    keystone
        .write(move |tx| match tx.find::<Mapping>(&row.id)? {
            Some(_) => Err(conflict("mapping", "Duplicate entry")),
            None => tx.insert(&row),
        })
        .await?;
    Ok(Reply::created(json!({"mapping": show_one(&request, &mapping)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mapping = given(&request)?;
    let row = mapping.clone();
    keystone
        .write(move |tx| {
            store::find::<Mapping>(tx, &row.id)?;
            tx.update(&row).map(drop)
        })
        .await?;
    Ok(Reply::ok(json!({"mapping": show_one(&request, &mapping)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("mapping_id").to_string();
    keystone
        .write(move |tx| {
            store::find::<Mapping>(tx, &id)?;
            tx.remove::<Mapping>(&id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

fn given(request: &Request) -> Result<Mapping> {
    let body = whole_body(request)?;
    let given = body.get("mapping").cloned().unwrap_or_else(|| json!({}));
    let schema_version = mapping::check(&given)?;
    let id = request.param("mapping_id").to_string();
    Ok(Mapping { id, schema_version, rules: given["rules"].clone() })
}

fn show_one(request: &Request, mapping: &Mapping) -> Json {
    let columns = json!({"id": mapping.id, "schema_version": mapping.schema_version, "rules": mapping.rules});
    view(request, "OS-FEDERATION/mappings", &mapping.id, &json!({}), columns)
}
