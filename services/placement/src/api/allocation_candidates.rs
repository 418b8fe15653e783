//! Who could take all of it.

use super::dated;
use crate::{
    Placement,
    candidates::{self, Answer, Candidate},
    groups::Wanted,
    model::Provider,
    schemas,
};
use base::Error;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use web::{Reply, Request, Routes, StatusCode, get};

pub fn routes() -> Routes<Placement> {
    vec![get("/allocation_candidates", "placement:allocation_candidates:list", list).since(1, 10)]
}

async fn list(placement: Arc<Placement>, request: Request) -> base::Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let schema = schemas::CANDIDATES_QUERY.of(&request);
    schemas::query(schema, &request.query)?;
    let wanted = Wanted::parse(&request)?;
    let classes: BTreeSet<String> =
        wanted.groups.values().flat_map(|group| group.resources.keys().cloned()).collect();
    let max = placement.options.max_allocation_candidates_per_tree;
    let found = placement
        .db
        .read(move |tx| {
            wanted.check_names(tx)?;
            candidates::find(tx, &wanted, max)
        })
        .await?;
    // Written straight to text: a thousand candidates are a million bytes.
    let body = serde_json::to_vec(&View { request: &request, found: &found, classes: &classes });
    let body = body.map_err(|e| Error::internal(format!("candidates: {e}")))?;
    let reply = Reply::body(StatusCode::OK, "application/json", body);
    Ok(dated(&request, reply, placement.clock.now()))
}

/// The answer as this microversion has it.
struct View<'a> {
    request: &'a Request,
    found: &'a Answer,
    classes: &'a BTreeSet<String>,
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        let requests = self.found.candidates.iter().map(|candidate| One(self.request, candidate));
        map.serialize_entry("allocation_requests", &Each(requests))?;
        map.serialize_entry("provider_summaries", &Summaries(self))?;
        map.end()
    }
}

/// A list that is written as it comes.
struct Each<I>(I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for Each<I> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.clone())
    }
}

struct One<'a>(&'a Request, &'a Candidate);

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(request, candidate) = self;
        let mut map = to.serialize_map(None)?;
        if !request.since(1, 12) {
            let list = candidate.allocations.iter();
            let list = list.map(
                |(uuid, resources)| json!({"resource_provider": {"uuid": uuid}, "resources": resources}),
            );
            map.serialize_entry("allocations", &Each(list))?;
            return map.end();
        }
        map.serialize_entry("allocations", &Allocations(&candidate.allocations))?;
        if request.since(1, 34) {
            map.serialize_entry("mappings", &candidate.mappings)?;
        }
        map.end()
    }
}

struct Allocations<'a>(&'a BTreeMap<String, BTreeMap<String, i64>>);

impl Serialize for Allocations<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Taken<'a> {
            resources: &'a BTreeMap<String, i64>,
        }
        to.collect_map(self.0.iter().map(|(uuid, resources)| (uuid, Taken { resources })))
    }
}

struct Summaries<'a>(&'a View<'a>);

impl Serialize for Summaries<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let providers = self.0.found.providers.iter();
        to.collect_map(providers.map(|provider| (&provider.uuid, Summary(self.0, provider))))
    }
}

struct Summary<'a>(&'a View<'a>, &'a Provider);

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(View { request, found, .. }, provider) = self;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("resources", &Resources(self.0, provider))?;
        if request.since(1, 17) {
            let traits = found.traits.get(&provider.uuid).map_or(&[][..], Vec::as_slice);
            map.serialize_entry("traits", traits)?;
        }
        if request.since(1, 29) {
            map.serialize_entry("parent_provider_uuid", &provider.parent_uuid)?;
            map.serialize_entry("root_provider_uuid", &provider.root_uuid)?;
        }
        map.end()
    }
}

struct Resources<'a>(&'a View<'a>, &'a Provider);

impl Serialize for Resources<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Room {
            capacity: i64,
            used: i64,
        }
        let Self(View { request, found, classes }, provider) = self;
        let inventories = found.inventories.get(&provider.uuid).into_iter().flatten();
        let shown = inventories.filter(|i| request.since(1, 27) || classes.contains(&i.resource_class));
        to.collect_map(shown.map(|i| (&i.resource_class, Room { capacity: i.capacity(), used: i.used })))
    }
}
