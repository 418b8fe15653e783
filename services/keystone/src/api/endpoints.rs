//! Endpoints of the catalog. `region` is the old name of `region_id`, and makes the region where there is none.

use super::{Object, body, extra, flag, merge, text, users::check_id, view};
use crate::{Keystone, authentication::expecting, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/endpoints", "identity:list_endpoints", list),
        post("/v3/endpoints", "identity:create_endpoint", create),
        get("/v3/endpoints/{endpoint_id}", "identity:get_endpoint", show),
        patch("/v3/endpoints/{endpoint_id}", "identity:update_endpoint", update),
        delete("/v3/endpoints/{endpoint_id}", "identity:delete_endpoint", remove),
    ]
}

const COLUMNS: &[&str] = &["id", "interface", "region", "region_id", "service_id", "url", "enabled", "links"];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut wanted = List::all();
    for column in ["interface", "service_id", "region_id"] {
        if let Some(value) = request.query.get(column) {
            wanted = wanted.eq(column, value);
        }
    }
    let found = keystone.read(move |tx| tx.list::<Endpoint>(&wanted)).await?;
    Ok(super::collection(
        &request,
        "endpoints",
        found.iter().map(|endpoint| show_one(&request, endpoint)).collect(),
    ))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::ENDPOINT_CREATE, "endpoint")?;
    let mut endpoint = Endpoint {
        id: id::hex(),
        service_id: String::new(),
        interface: String::new(),
        region_id: None,
        url: String::new(),
        enabled: true,
        extra: json!({}),
    };
    let endpoint = keystone
        .write(move |tx| {
            apply(tx, &mut endpoint, &given)?;
            tx.insert(&endpoint)?;
            Ok(endpoint.clone())
        })
        .await?;
    Ok(Reply::created(json!({"endpoint": show_one(&request, &endpoint)})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("endpoint_id").to_string();
    let endpoint = keystone.read(move |tx| store::find::<Endpoint>(tx, &id)).await?;
    Ok(Reply::ok(json!({"endpoint": show_one(&request, &endpoint)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::ENDPOINT_UPDATE, "endpoint")?;
    let id = request.param("endpoint_id").to_string();
    let endpoint = keystone
        .write(move |tx| {
            let mut endpoint: Endpoint = store::find(tx, &id)?;
            check_id(&given, &endpoint.id)?;
            apply(tx, &mut endpoint, &given)?;
            tx.update(&endpoint)?;
            Ok(endpoint)
        })
        .await?;
    Ok(Reply::ok(json!({"endpoint": show_one(&request, &endpoint)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("endpoint_id").to_string();
    keystone
        .write(move |tx| {
            store::forget_endpoint(tx, &id)?;
            match tx.remove::<Endpoint>(&id)? {
                true => Ok(()),
                false => Err(store::not_found("endpoint", &id)),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

fn apply(tx: &mut Tx, endpoint: &mut Endpoint, given: &Object) -> Result<()> {
    if let Some(region) = text(given, "region") {
        if tx.find::<Region>(region)?.is_none() {
            let row = Region {
                id: region.into(),
                description: String::new(),
                parent_region_id: None,
                extra: json!({}),
            };
            tx.insert(&row)?;
        }
        endpoint.region_id = Some(region.to_string());
    }
    if let Some(region) = given.get("region_id") {
        endpoint.region_id = region.as_str().map(str::to_string);
        if let Some(region) = &endpoint.region_id
            && tx.find::<Region>(region)?.is_none()
        {
            return Err(expecting("endpoint region_id", "region table"));
        }
    }
    if let Some(service_id) = text(given, "service_id") {
        if tx.find::<Service>(service_id)?.is_none() {
            return Err(expecting("endpoint service_id", "service table"));
        }
        endpoint.service_id = service_id.to_string();
    }
    if let Some(interface) = text(given, "interface") {
        endpoint.interface = interface.to_string();
    }
    if let Some(url) = text(given, "url") {
        check_url(url)?;
        endpoint.url = url.to_string();
    }
    endpoint.enabled = flag(given, "enabled", endpoint.enabled);
    merge(&mut endpoint.extra, extra(given, COLUMNS));
    Ok(())
}

/// Only what every catalog can fill in may stand in a URL.
fn check_url(url: &str) -> Result<()> {
    let known = [
        "project_id",
        "tenant_id",
        "user_id",
        "public_bind_host",
        "admin_bind_host",
        "compute_host",
        "public_port",
        "admin_port",
        "compute_port",
        "public_endpoint",
        "admin_endpoint",
    ];
    for part in url.split(['$', '%']).skip(1) {
        let Some(inner) = part.strip_prefix('(') else { continue };
        let name = inner.split_once(")s").map(|(name, _)| name);
        if !name.is_some_and(|name| known.contains(&name)) {
            return Err(Error::bad_request(format!("Cannot create an endpoint with an invalid URL: {url}.")));
        }
    }
    Ok(())
}

pub fn show_one(request: &Request, endpoint: &Endpoint) -> Json {
    let columns = json!({
        "id": endpoint.id, "interface": endpoint.interface, "region_id": endpoint.region_id,
        "service_id": endpoint.service_id, "url": endpoint.url, "enabled": endpoint.enabled,
        "region": endpoint.region_id,
    });
    view(request, "endpoints", &endpoint.id, &endpoint.extra, columns)
}
