//! What a provider has of each class.

use super::{body, check_generation, dated, resource_providers::newest};
use crate::{
    Placement,
    claims::{self, INVENTORY_IN_USE},
    model::{Inventory, Provider},
    schemas::{self, CONCURRENT_UPDATE},
    store,
};
use base::{Error, ErrorKind, Json, Result, Timestamp};
use db::{Stored, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, delete, get, post, put};

const MAX_INT: i64 = 0x7FFF_FFFF;

pub fn routes() -> Routes<Placement> {
    const ALL: &str = "/resource_providers/{uuid}/inventories";
    const ONE: &str = "/resource_providers/{uuid}/inventories/{resource_class}";
    vec![
        get(ALL, "placement:resource_providers:inventories:list", list),
        post(ALL, "placement:resource_providers:inventories:create", create),
        put(ALL, "placement:resource_providers:inventories:update", set),
        delete(ALL, "", not_yet).until(1, 4).marks(&[Mark::Gone]),
        delete(ALL, "placement:resource_providers:inventories:delete", remove_all).since(1, 5),
        get(ONE, "placement:resource_providers:inventories:show", show),
        put(ONE, "placement:resource_providers:inventories:update", update),
        delete(ONE, "placement:resource_providers:inventories:delete", remove),
    ]
}

async fn list(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let uuid = request.param("uuid").to_string();
    let (provider, found) = placement
        .db
        .read(move |tx| {
            let provider = store::provider(tx, &uuid).map_err(|e| missing(&uuid, &e))?;
            let found = store::inventories(tx, &provider.uuid)?;
            Ok((provider, found))
        })
        .await?;
    Ok(all(&placement, &request, &provider, &found))
}

fn missing(uuid: &str, error: &Error) -> Error {
    Error::not_found(format!("{} {uuid} found : {}", store::MISSING_PROVIDER, error.message))
}

fn all(placement: &Placement, request: &Request, provider: &Provider, found: &[Inventory]) -> Reply {
    let by_class: serde_json::Map<String, Json> =
        found.iter().map(|inventory| (inventory.resource_class.clone(), view(inventory))).collect();
    let body = json!({"resource_provider_generation": provider.generation, "inventories": by_class});
    dated(request, Reply::ok(body), newest(found, placement.clock.now()))
}

async fn show(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let (uuid, class) = (request.param("uuid").to_string(), request.param("resource_class").to_string());
    let (provider, inventory) = placement
        .db
        .read(move |tx| {
            let provider = store::provider(tx, &uuid).map_err(|e| missing(&uuid, &e))?;
            let none = || Error::not_found(format!("No inventory of class {class} for {uuid}"));
            let inventory = store::inventory(tx, &uuid, &class)?.ok_or_else(none)?;
            Ok((provider, inventory))
        })
        .await?;
    Ok(one(&request, &provider, &inventory, Reply::ok))
}

fn one(request: &Request, provider: &Provider, inventory: &Inventory, reply: fn(Json) -> Reply) -> Reply {
    let mut body = view(inventory);
    if provider.generation > 0 {
        body["resource_provider_generation"] = json!(provider.generation);
    }
    dated(request, reply(body), inventory.updated_at)
}

fn view(inventory: &Inventory) -> Json {
    json!({
        "total": inventory.total, "reserved": inventory.reserved, "min_unit": inventory.min_unit,
        "max_unit": inventory.max_unit, "step_size": inventory.step_size,
        "allocation_ratio": inventory.allocation_ratio,
    })
}

/// An inventory of a body, with defaults for what it does not say.
pub fn parse(provider_uuid: &str, class: &str, given: &Json, now: Timestamp) -> Inventory {
    let amount = |name: &str, default: i64| given[name].as_f64().map_or(default, |number| number as i64);
    Inventory {
        provider_uuid: provider_uuid.into(),
        resource_class: class.into(),
        total: amount("total", 0),
        reserved: amount("reserved", 0),
        min_unit: amount("min_unit", 1),
        max_unit: amount("max_unit", MAX_INT),
        step_size: amount("step_size", 1),
        allocation_ratio: given["allocation_ratio"].as_f64().unwrap_or(1.0),
        used: 0,
        updated_at: now,
    }
}

/// Until 1.26 something had to be left when all that is reserved is taken away.
pub fn check_capacity(may_be_empty: bool, inventory: &Inventory) -> Result<()> {
    let (capacity, sentence) = (
        inventory.capacity(),
        match may_be_empty {
            true => "The reserved value is greater than total.",
            false => "The reserved value is greater than or equal to total.",
        },
    );
    if capacity > 0 || (may_be_empty && capacity == 0) {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "Invalid inventory for '{}' on resource provider '{}'. {sentence}",
        inventory.resource_class, inventory.provider_uuid
    )))
}

async fn create(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (uuid, clock) = (request.param("uuid").to_string(), placement.clock.clone());
    let known = uuid.clone();
    placement.db.read(move |tx| store::provider(tx, &known)).await?;
    let given = body(&request, &schemas::INVENTORY_CREATE)?;
    let may_be_empty = request.since(1, 26);
    let (provider, inventory) = placement
        .db
        .write(move |tx| {
            let (mut provider, now) = (store::provider(tx, &uuid)?, clock.now());
            let class = given["resource_class"].as_str().unwrap_or_default();
            let inventory = parse(&uuid, class, &given, now);
            let unable = |error: Error| {
                let message = error.message;
                Error::bad_request(format!(
                    "Unable to create inventory for resource provider {uuid}: {message}"
                ))
            };
            check_capacity(may_be_empty, &inventory).map_err(unable)?;
            store::check_class(tx, class).map_err(unable)?;
            if store::inventory(tx, &uuid, class)?.is_some() {
                let sentence = format!("Update conflict: Inventory of class {class} exists already.");
                return Err(Error::conflict(sentence).code(CONCURRENT_UPDATE));
            }
            tx.insert(&inventory)?;
            store::bump(tx, &mut provider, now)?;
            Ok((provider, inventory))
        })
        .await?;
    let (uuid, class) = (&provider.uuid, &inventory.resource_class);
    let location = format!("{}/resource_providers/{uuid}/inventories/{class}", request.base_url);
    Ok(one(&request, &provider, &inventory, Reply::created).header("location", location))
}

async fn set(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (uuid, clock) = (request.param("uuid").to_string(), placement.clock.clone());
    let known = uuid.clone();
    placement.db.read(move |tx| store::provider(tx, &known)).await?;
    let given = body(&request, &schemas::INVENTORIES)?;
    let may_be_empty = request.since(1, 26);
    let (provider, found) = placement
        .db
        .write(move |tx| {
            let (mut provider, now) = (store::provider(tx, &uuid)?, clock.now());
            check_generation(&provider, &given, "resource provider generation conflict")?;
            let wanted = parse_all(&uuid, &given, now);
            for inventory in &wanted {
                check_capacity(may_be_empty, inventory).map_err(|e| unable_to_update(&uuid, &e))?;
            }
            for inventory in &wanted {
                store::check_class(tx, &inventory.resource_class).map_err(|error| {
                    Error::bad_request(format!(
                        "Unknown resource class in inventory for resource provider {uuid}: {}",
                        error.message
                    ))
                })?;
            }
            claims::set_inventories(tx, &mut provider, &wanted, now).map_err(update_conflict)?;
            Ok((provider, wanted))
        })
        .await?;
    Ok(all(&placement, &request, &provider, &found))
}

pub fn parse_all(provider_uuid: &str, given: &Json, now: Timestamp) -> Vec<Inventory> {
    let all = given["inventories"].as_object().into_iter().flatten();
    all.map(|(class, given)| parse(provider_uuid, class, given, now)).collect()
}

fn unable_to_update(uuid: &str, error: &Error) -> Error {
    Error::bad_request(format!("Unable to update inventory for resource provider {uuid}: {}", error.message))
}

pub fn update_conflict(mut error: Error) -> Error {
    if error.is(ErrorKind::Conflict) {
        error.message = format!("update conflict: {}", error.message);
    }
    error
}

async fn update(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (uuid, class) = (request.param("uuid").to_string(), request.param("resource_class").to_string());
    let (known, clock) = (uuid.clone(), placement.clock.clone());
    placement.db.read(move |tx| store::provider(tx, &known)).await?;
    let given = body(&request, &schemas::INVENTORY_UPDATE)?;
    let may_be_empty = request.since(1, 26);
    let (provider, inventory) = placement.db
        .write(move |tx| {
            let (mut provider, now) = (store::provider(tx, &uuid)?, clock.now());
            check_generation(&provider, &given, "resource provider generation conflict")?;
            let inventory = parse(&uuid, &class, &given, now);
            check_capacity(may_be_empty, &inventory).map_err(|e| unable_to_update(&uuid, &e))?;
            let Some(old) = store::inventory(tx, &uuid, &class)? else {
                return Err(Error::bad_request(format!(
                    "No inventory record with resource class for resource provider {uuid}: No inventory of class \
                     {class} found."
                )));
            };
            let inventory = Inventory { used: old.used, ..inventory };
            tx.update(&inventory)?;
            store::bump(tx, &mut provider, now)?;
            Ok((provider, inventory))
        })
        .await?;
    Ok(one(&request, &provider, &inventory, Reply::ok))
}

async fn remove(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (uuid, class) = (request.param("uuid").to_string(), request.param("resource_class").to_string());
    let clock = placement.clock.clone();
    placement
        .db
        .write(move |tx| {
            let mut provider = store::provider(tx, &uuid)?;
            remove_one(tx, &mut provider, &class, clock.now())
        })
        .await?;
    Ok(Reply::no_content())
}

fn remove_one(tx: &mut Tx, provider: &mut Provider, class: &str, now: Timestamp) -> Result<()> {
    let uuid = provider.uuid.clone();
    let Some(inventory) = store::inventory(tx, &uuid, class)? else {
        return Err(Error::not_found(format!(
            "No inventory of class {class} found for delete: No inventory of class {class} found."
        )));
    };
    if inventory.used > 0 {
        let why = claims::in_use_error(class, &uuid).message;
        let sentence = format!("Unable to delete inventory of class {class}: {why}");
        return Err(Error::conflict(sentence).code(CONCURRENT_UPDATE));
    }
    tx.delete::<Inventory>(&[uuid.store(), class.store()])?;
    store::bump(tx, provider, now)
}

/// The path was there, but not this method.
async fn not_yet(_: Arc<Placement>, _: Request) -> Result<Reply> {
    Err(Error::method_not_allowed("").code("method:DELETE"))
}

async fn remove_all(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (uuid, clock) = (request.param("uuid").to_string(), placement.clock.clone());
    placement.db
        .write(move |tx| {
            let mut provider = store::provider(tx, &uuid)?;
            claims::set_inventories(tx, &mut provider, &[], clock.now())
        })
        .await
        .map_err(|error| match error.code.as_deref() {
            Some(INVENTORY_IN_USE) | None => error,
            Some(_) => Error::conflict(
                "Unable to delete inventory because the inventory was updated by another process. Please retry your \
                 request.",
            )
            .code(CONCURRENT_UPDATE),
        })?;
    Ok(Reply::no_content())
}
