//! Services of the catalog.

use super::{body, extra, flag, merge, name_matches, text, users::check_id, view};
use crate::{Keystone, model::*, schemas, store};
use base::{Json, Result, id};
use db::{List, params, sql};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/services", "identity:list_services", list),
        post("/v3/services", "identity:create_service", create),
        get("/v3/services/{service_id}", "identity:get_service", show),
        patch("/v3/services/{service_id}", "identity:update_service", update),
        delete("/v3/services/{service_id}", "identity:delete_service", remove),
    ]
}

const COLUMNS: &[&str] = &["id", "type", "name", "enabled", "links"];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut wanted = List::all();
    if let Some(kind) = request.query.get("type") {
        wanted = wanted.eq("kind", kind);
    }
    let found = keystone.read(move |tx| tx.list::<Service>(&wanted)).await?;
    let matching = found.iter().filter(|service| name_matches(&request, &service.name));
    Ok(super::collection(&request, "services", matching.map(|service| show_one(&request, service)).collect()))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::SERVICE_CREATE, "service")?;
    let service = Service {
        id: id::hex(),
        kind: text(&given, "type").unwrap_or_default().to_string(),
        name: text(&given, "name").unwrap_or_default().to_string(),
        enabled: flag(&given, "enabled", true),
        extra: extra(&given, COLUMNS),
    };
    let row = service.clone();
    keystone.write(move |tx| tx.insert(&row)).await?;
    Ok(Reply::created(json!({"service": show_one(&request, &service)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("service_id").to_string();
    let service = keystone.read(move |tx| store::find::<Service>(tx, &id)).await?;
    Ok(Reply::ok(json!({"service": show_one(&request, &service)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::SERVICE_UPDATE, "service")?;
    let id = request.param("service_id").to_string();
    let service = keystone
        .write(move |tx| {
            let mut service: Service = store::find(tx, &id)?;
            check_id(&given, &service.id)?;
            if let Some(kind) = text(&given, "type") {
                service.kind = kind.to_string();
            }
            if let Some(name) = text(&given, "name") {
                service.name = name.to_string();
            }
            service.enabled = flag(&given, "enabled", service.enabled);
            merge(&mut service.extra, extra(&given, COLUMNS));
            tx.update(&service)?;
            Ok(service)
        })
        .await?;
    Ok(Reply::ok(json!({"service": show_one(&request, &service)})))
}

/// Its endpoints go with it.
async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("service_id").to_string();
    keystone
        .write(move |tx| {
            tx.execute(sql!("DELETE FROM endpoints WHERE service_id = $1"), params![id])?;
            match tx.remove::<Service>(&id)? {
                true => Ok(()),
                false => Err(store::not_found("service", &id)),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

fn show_one(request: &Request, service: &Service) -> Json {
    let columns =
        json!({"name": service.name, "id": service.id, "type": service.kind, "enabled": service.enabled});
    view(request, "services", &service.id, &service.extra, columns)
}
