//! Who takes what: shown, replaced and given up by consumer.

use super::{body, dashed, dated};
use crate::{
    Placement,
    claims::{self, Claim, Generation},
    model::{Allocation, Consumer},
    schemas, store,
};
use base::{Error, Json, Result, Timestamp, id};
use indexmap::IndexMap;
use serde_json::{Map, json};
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Placement> {
    const ONE: &str = "/allocations/{consumer_uuid}";
    vec![
        post("/allocations", "placement:allocations:manage", set_many).since(1, 13),
        get(ONE, "placement:allocations:list", of_consumer),
        put(ONE, "placement:allocations:update", set),
        delete(ONE, "placement:allocations:delete", remove),
        get(
            "/resource_providers/{uuid}/allocations",
            "placement:resource_providers:allocations:list",
            of_provider,
        ),
    ]
}

async fn of_consumer(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let uuid = request.param("consumer_uuid").to_string();
    let (consumer, held, providers) = placement
        .db
        .read(move |tx| {
            let held = store::allocations_of(tx, &uuid)?;
            let uuids: BTreeSet<String> = held.iter().map(|a| a.provider_uuid.clone()).collect();
            Ok((tx.find::<Consumer>(&uuid)?, held, store::providers(tx, &uuids)?))
        })
        .await?;
    let mut by_provider = Map::new();
    for Allocation { provider_uuid, resource_class, used, .. } in &held {
        let entry = by_provider.entry(provider_uuid.clone()).or_insert_with(|| {
            json!({"resources": {}, "generation": providers.get(provider_uuid).map_or(0, |p| p.generation)})
        });
        entry["resources"][resource_class] = json!(used);
    }
    let mut view = json!({"allocations": by_provider});
    if let Some(consumer) = consumer.filter(|_| !held.is_empty() && request.since(1, 12)) {
        view["project_id"] = json!(consumer.project_id);
        view["user_id"] = json!(consumer.user_id);
        if request.since(1, 28) {
            view["consumer_generation"] = json!(consumer.generation);
        }
        if request.since(1, 38) {
            view["consumer_type"] = json!(consumer.consumer_type.as_deref().unwrap_or(store::UNKNOWN_TYPE));
        }
    }
    Ok(dated(&request, Reply::ok(view), newest(&held, placement.clock.now())))
}

fn newest(held: &[Allocation], now: Timestamp) -> Timestamp {
    held.iter().map(|allocation| allocation.updated_at).max().unwrap_or(now)
}

async fn of_provider(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let uuid = request.param("uuid").to_string();
    let (provider, held, consumers) = placement
        .db
        .read(move |tx| {
            let provider = store::provider(tx, &uuid).map_err(|error| {
                Error::not_found(format!("Resource provider '{uuid}' not found: {}", error.message))
            })?;
            let held = store::allocations_on(tx, &uuid)?;
            let uuids: BTreeSet<String> = held.iter().map(|a| a.consumer_uuid.clone()).collect();
            Ok((provider, held, store::consumers(tx, &uuids)?))
        })
        .await?;
    let mut by_consumer = Map::new();
    for Allocation { consumer_uuid, resource_class, used, .. } in &held {
        let entry = by_consumer.entry(consumer_uuid.clone()).or_insert_with(|| json!({"resources": {}}));
        entry["resources"][resource_class] = json!(used);
        if request.since(1, 28) {
            entry["consumer_generation"] = json!(consumers.get(consumer_uuid).map(|c| c.generation));
        }
    }
    let view = json!({"allocations": by_consumer, "resource_provider_generation": provider.generation});
    Ok(dated(&request, Reply::ok(view), newest(&held, placement.clock.now())))
}

async fn set(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let uuid = request.param("consumer_uuid");
    if !id::is_uuid(uuid) {
        return Err(Error::bad_request(format!("Malformed consumer_uuid: {uuid}")));
    }
    let schema = schemas::ALLOCATIONS.of(&request);
    let given = body(&request, schema)?;
    let claim = claim(&placement, &request, &dashed(uuid), &given);
    let clock = placement.clock.clone();
    placement.db.write(move |tx| claims::replace(tx, std::slice::from_ref(&claim), clock.now())).await?;
    Ok(Reply::no_content())
}

async fn set_many(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let schema = schemas::MANY_ALLOCATIONS.of(&request);
    let claims = all(&placement, &request, &body(&request, schema)?);
    let clock = placement.clock.clone();
    placement.db.write(move |tx| claims::replace(tx, &claims, clock.now())).await?;
    Ok(Reply::no_content())
}

/// Claims by consumer, as `POST /allocations` and the reshaper have them.
pub fn all(placement: &Placement, request: &Request, given: &Json) -> Vec<Claim> {
    let by_consumer = given.as_object().into_iter().flatten();
    by_consumer.map(|(uuid, given)| claim(placement, request, &dashed(uuid), given)).collect()
}

fn claim(placement: &Placement, request: &Request, consumer_uuid: &str, given: &Json) -> Claim {
    let text = |name: &str| given[name].as_str().map(str::to_string);
    let (project_id, user_id) = match text("project_id") {
        Some(project_id) => (project_id, text("user_id").unwrap_or_default()),
        None => {
            let options = &placement.options;
            (options.incomplete_consumer_project_id.clone(), options.incomplete_consumer_user_id.clone())
        }
    };
    let generation = match request.since(1, 28) {
        true => Generation::Known(given["consumer_generation"].as_i64()),
        false => Generation::Any,
    };
    Claim {
        consumer_uuid: consumer_uuid.into(),
        project_id,
        user_id,
        generation,
        consumer_type: text("consumer_type"),
        allocations: allocations(&given["allocations"]),
    }
}

/// Both forms: by provider, and the list of the oldest clients.
fn allocations(given: &Json) -> IndexMap<String, IndexMap<String, i64>> {
    let resources = |one: &Json| -> IndexMap<String, i64> {
        let all = one["resources"].as_object().into_iter().flatten();
        all.map(|(class, amount)| (class.clone(), amount.as_f64().unwrap_or_default() as i64)).collect()
    };
    match given {
        Json::Array(list) => list
            .iter()
            .map(|one| {
                let uuid = one["resource_provider"]["uuid"].as_str().unwrap_or_default();
                (dashed(uuid), resources(one))
            })
            .collect(),
        given => given
            .as_object()
            .into_iter()
            .flatten()
            .map(|(uuid, one)| (dashed(uuid), resources(one)))
            .collect(),
    }
}

async fn remove(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let uuid = request.param("consumer_uuid").to_string();
    let consumer = uuid.clone();
    match placement.db.write(move |tx| claims::release(tx, &consumer)).await? {
        true => Ok(Reply::no_content()),
        false => Err(Error::not_found(format!("No allocations for consumer '{uuid}'"))),
    }
}
