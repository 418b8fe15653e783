//! Who could take all of it.

use super::dated;
use crate::{
    Placement,
    candidates::{self, Answer, Candidate},
    groups::Wanted,
    schemas::{self, of_version},
};
use base::{Json, Result};
use serde_json::{Map, json};
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Placement> {
    vec![get("/allocation_candidates", "placement:allocation_candidates:list", list).since(1, 10)]
}

async fn list(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let schema = of_version(
        &request,
        &[
            (10, &schemas::CANDIDATES_QUERY_1_10),
            (16, &schemas::CANDIDATES_QUERY_1_16),
            (17, &schemas::CANDIDATES_QUERY_1_17),
            (21, &schemas::CANDIDATES_QUERY_1_21),
            (25, &schemas::CANDIDATES_QUERY_1_25),
            (31, &schemas::CANDIDATES_QUERY_1_31),
            (33, &schemas::CANDIDATES_QUERY_1_33),
            (35, &schemas::CANDIDATES_QUERY_1_35),
            (36, &schemas::CANDIDATES_QUERY_1_36),
        ],
    );
    schemas::query(schema, &request.query)?;
    let wanted = Wanted::parse(&request)?;
    let classes: BTreeSet<String> =
        wanted.groups.values().flat_map(|group| group.resources.keys().cloned()).collect();
    let max = placement.options.max_allocation_candidates_per_tree;
    let found = placement
        .read(move |tx| {
            wanted.check_names(tx)?;
            candidates::find(tx, &wanted, max)
        })
        .await?;
    let requests: Vec<Json> = found.candidates.iter().map(|candidate| one(&request, candidate)).collect();
    let summaries = summaries(&request, &found, &classes);
    let body = json!({"allocation_requests": requests, "provider_summaries": summaries});
    Ok(dated(&request, Reply::ok(body), placement.clock.now()))
}

fn one(request: &Request, candidate: &Candidate) -> Json {
    if !request.since(1, 12) {
        let list: Vec<Json> = candidate
            .allocations
            .iter()
            .map(|(uuid, resources)| json!({"resource_provider": {"uuid": uuid}, "resources": resources}))
            .collect();
        return json!({"allocations": list});
    }
    let by_provider: Map<String, Json> = candidate
        .allocations
        .iter()
        .map(|(uuid, resources)| (uuid.clone(), json!({"resources": resources})))
        .collect();
    let mut view = json!({"allocations": by_provider});
    if request.since(1, 34) {
        view["mappings"] = json!(candidate.mappings);
    }
    view
}

fn summaries(request: &Request, found: &Answer, classes: &BTreeSet<String>) -> Map<String, Json> {
    let mut summaries = Map::new();
    for provider in &found.providers {
        let inventories = found.inventories.get(&provider.uuid).into_iter().flatten();
        let shown = inventories.filter(|i| request.since(1, 27) || classes.contains(&i.resource_class));
        let resources: Map<String, Json> = shown
            .map(|i| (i.resource_class.clone(), json!({"capacity": i.capacity(), "used": i.used})))
            .collect();
        let mut view = json!({"resources": resources});
        if request.since(1, 17) {
            view["traits"] = json!(found.traits.get(&provider.uuid).map_or(&[][..], Vec::as_slice));
        }
        if request.since(1, 29) {
            view["parent_provider_uuid"] = json!(provider.parent_uuid);
            view["root_provider_uuid"] = json!(provider.root_uuid);
        }
        summaries.insert(provider.uuid.clone(), view);
    }
    summaries
}
