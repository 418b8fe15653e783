//! Service providers: other clouds that take our users on our word.

use super::{Object, asked, body, collection, conflict, flag, text, view};
use crate::{Keystone, model::*, schemas, store};
use base::{Json, Result};
use db::List;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, put};

const ONE: &str = "/v3/OS-FEDERATION/service_providers/{service_provider_id}";

/// What Shibboleth wants before the state that it is handed.
const RELAY_STATE_PREFIX: &str = "ss:mem:";

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/OS-FEDERATION/service_providers", "identity:list_service_providers", list),
        get(ONE, "identity:get_service_provider", show),
        put(ONE, "identity:create_service_provider", create),
        patch(ONE, "identity:update_service_provider", update),
        delete(ONE, "identity:delete_service_provider", remove),
    ]
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut wanted = List::all();
    if let Some(id) = request.query.get("id") {
        wanted = wanted.eq("id", id);
    }
    if request.query.has("enabled") {
        wanted = wanted.eq("enabled", asked(&request, "enabled"));
    }
    let found = keystone.read(move |tx| tx.list::<ServiceProvider>(&wanted)).await?;
    let shown = found.iter().map(|provider| show_one(&request, provider)).collect();
    Ok(collection(&request, "service_providers", shown))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("service_provider_id").to_string();
    let provider = keystone.read(move |tx| store::find::<ServiceProvider>(tx, &id)).await?;
    Ok(Reply::ok(json!({"service_provider": show_one(&request, &provider)})))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::SERVICE_PROVIDER_CREATE, "service_provider")?;
    request.can(&())?;
    let mut provider = ServiceProvider {
        id: request.param("service_provider_id").to_string(),
        enabled: false,
        description: None,
        auth_url: String::new(),
        sp_url: String::new(),
        relay_state_prefix: RELAY_STATE_PREFIX.into(),
    };
    apply(&mut provider, &given);
    let row = provider.clone();
    keystone
        .write(move |tx| match tx.find::<ServiceProvider>(&row.id)? {
            Some(_) => {
                Err(conflict("service_provider", &format!("Duplicate entry found with ID {}", row.id)))
            }
            None => tx.insert(&row),
        })
        .await?;
    Ok(Reply::created(json!({"service_provider": show_one(&request, &provider)})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::SERVICE_PROVIDER_UPDATE, "service_provider")?;
    request.can(&())?;
    let id = request.param("service_provider_id").to_string();
    let provider = keystone
        .write(move |tx| {
            let mut provider: ServiceProvider = store::find(tx, &id)?;
            apply(&mut provider, &given);
            tx.update(&provider)?;
            Ok(provider)
        })
        .await?;
    Ok(Reply::ok(json!({"service_provider": show_one(&request, &provider)})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("service_provider_id").to_string();
    keystone
        .write(move |tx| {
            store::find::<ServiceProvider>(tx, &id)?;
            tx.remove::<ServiceProvider>(&id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

fn apply(provider: &mut ServiceProvider, given: &Object) {
    provider.enabled = flag(given, "enabled", provider.enabled);
    if let Some(description) = given.get("description") {
        provider.description = description.as_str().map(str::to_string);
    }
    for (column, key) in [
        (&mut provider.auth_url, "auth_url"),
        (&mut provider.sp_url, "sp_url"),
        (&mut provider.relay_state_prefix, "relay_state_prefix"),
    ] {
        if let Some(value) = text(given, key) {
            *column = value.to_string();
        }
    }
}

fn show_one(request: &Request, provider: &ServiceProvider) -> Json {
    let columns = json!({
        "id": provider.id, "enabled": provider.enabled, "description": provider.description,
        "auth_url": provider.auth_url, "sp_url": provider.sp_url,
        "relay_state_prefix": provider.relay_state_prefix,
    });
    view(request, "OS-FEDERATION/service_providers", &provider.id, &json!({}), columns)
}
