//! Inventories and allocations changed together, for who turns one provider into a tree.

use super::{allocations, body, check_generation, dashed, inventories};
use crate::{
    Placement, claims,
    model::Provider,
    schemas::{self, PROVIDER_NOT_FOUND},
    store,
};
use base::{Error, Json, Result};
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, post};

pub fn routes() -> Routes<Placement> {
    vec![post("/reshaper", "placement:reshaper:reshape", reshape).since(1, 30)]
}

fn conflict(provider: &Provider, wanted: &Json) -> String {
    let (uuid, actual, given) =
        (&provider.uuid, provider.generation, &wanted["resource_provider_generation"]);
    format!("resource provider generation conflict for provider {uuid}: actual: {actual}, given: {given}")
}

async fn reshape(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let schema = schemas::RESHAPER.of(&request);
    let given = body(&request, schema)?;
    let claims = allocations::all(&placement, &request, &given["allocations"]);
    let clock = placement.clock.clone();
    placement
        .db
        .write(move |tx| {
            let now = clock.now();
            let mut changes = Vec::new();
            for (uuid, wanted) in given["inventories"].as_object().into_iter().flatten() {
                let uuid = dashed(uuid);
                let provider = store::provider(tx, &uuid).map_err(|error| {
                    Error::bad_request(format!(
                        "Resource provider {uuid} in inventories not found: {}",
                        error.message
                    ))
                    .code(PROVIDER_NOT_FOUND)
                })?;
                check_generation(&provider, wanted, &conflict(&provider, wanted))?;
                let new = inventories::parse_all(&uuid, wanted, now);
                for inventory in &new {
                    inventories::check_capacity(true, inventory)?;
                    store::check_class(tx, &inventory.resource_class).map_err(|error| {
                        Error::bad_request(format!("malformed reshaper data: {}", error.message))
                    })?;
                }
                changes.push((provider, new));
            }
            // First the room for both shapes, then the claims, then the old shape goes.
            for (provider, new) in &mut changes {
                let kept = store::inventories(tx, &provider.uuid)?;
                let named: BTreeSet<&String> =
                    new.iter().map(|inventory| &inventory.resource_class).collect();
                let old = kept.iter().filter(|old| !named.contains(&old.resource_class)).cloned();
                let both: Vec<_> = new.iter().cloned().chain(old).collect();
                claims::set_inventories(tx, provider, &both, now)?;
            }
            claims::replace(tx, &claims, now)?;
            for (provider, new) in &changes {
                let mut provider = store::provider(tx, &provider.uuid)?;
                claims::set_inventories(tx, &mut provider, new, now).map_err(inventories::update_conflict)?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}
