//! Who could take all of it.

use super::dated;
use crate::{
    Placement,
    candidates::{self, Answer, Candidate},
    groups::Wanted,
    schemas,
    trees::{At, Node, Number},
};
use base::{Error, Json};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, get};

pub fn routes() -> Routes<Placement> {
    vec![get("/allocation_candidates", "placement:allocation_candidates:list", list).since(1, 10)]
}

async fn list(placement: Arc<Placement>, request: Request) -> base::Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let schema = schemas::CANDIDATES_QUERY.of(&request);
    schemas::query(schema, &request.query)?;
    let wanted = Arc::new(Wanted::parse(&request)?);
    let max = placement.options.max_allocation_candidates_per_tree;
    let asked = wanted.clone();
    let found = placement
        .db
        .read(move |tx| {
            asked.check_names(tx)?;
            candidates::find(tx, &asked, max)
        })
        .await?;
    // Written straight to text: a thousand candidates are half a million bytes.
    let body = serde_json::to_vec(&View { request: &request, found: &found, wanted: &wanted });
    let body = body.map_err(|e| Error::internal(format!("candidates: {e}")))?;
    let reply = Reply::body(StatusCode::OK, "application/json", body);
    Ok(dated(&request, reply, placement.clock.now()))
}

/// The answer as this microversion has it.
struct View<'a> {
    request: &'a Request,
    found: &'a Answer,
    wanted: &'a Wanted,
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        let suffixes: Vec<&String> = self.wanted.groups.keys().collect();
        let requests =
            self.found.candidates.iter().map(|candidate| One { view: self, suffixes: &suffixes, candidate });
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

struct One<'a> {
    view: &'a View<'a>,
    suffixes: &'a [&'a String],
    candidate: &'a Candidate,
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { view: View { request, found, .. }, suffixes, candidate } = self;
        let uuid = |at: &At| &found.trees.nodes[*at].uuid;
        let mut map = to.serialize_map(None)?;
        let of_providers = candidate.taken.chunk_by(|one, next| one.0 == next.0);
        let taken = of_providers.map(|taken| (uuid(&taken[0].0), Taken { resources: Amounts(found, taken) }));
        if !request.since(1, 12) {
            let list: Vec<Json> = taken
                .map(|(uuid, taken)| json!({"resource_provider": {"uuid": uuid}, "resources": taken.resources}))
                .collect();
            map.serialize_entry("allocations", &list)?;
            return map.end();
        }
        map.serialize_entry("allocations", &Map(taken))?;
        if request.since(1, 34) {
            let of_groups = candidate.mapped.chunk_by(|one, next| one.0 == next.0);
            let mappings =
                of_groups.map(|mapped| (suffixes[mapped[0].0], Each(mapped.iter().map(|(_, at)| uuid(at)))));
            map.serialize_entry("mappings", &Map(mappings))?;
        }
        map.end()
    }
}

/// Pairs that are written as they come.
struct Map<I>(I);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)> + Clone> Serialize for Map<I> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.clone())
    }
}

#[derive(Serialize)]
struct Taken<'a> {
    resources: Amounts<'a>,
}

/// What is taken of one provider.
struct Amounts<'a>(&'a Answer, &'a [(At, Number, i64)]);

impl Serialize for Amounts<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let classes = &self.0.trees.classes;
        to.collect_map(self.1.iter().map(|(_, class, amount)| (classes.name(*class), amount)))
    }
}

struct Summaries<'a>(&'a View<'a>);

impl Serialize for Summaries<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Answer { trees, shown, .. } = self.0.found;
        to.collect_map(shown.iter().map(|at| (&trees.nodes[*at].uuid, Summary(self.0, &trees.nodes[*at]))))
    }
}

struct Summary<'a>(&'a View<'a>, &'a Node);

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(View { request, found, .. }, node) = self;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("resources", &Resources(self.0, node))?;
        if request.since(1, 17) {
            let traits = node.traits.iter().map(|number| found.trees.traits.name(*number));
            map.serialize_entry("traits", &Each(traits))?;
        }
        if request.since(1, 29) {
            map.serialize_entry("parent_provider_uuid", &node.parent_uuid)?;
            map.serialize_entry("root_provider_uuid", found.trees.root_uuid(node))?;
        }
        map.end()
    }
}

struct Resources<'a>(&'a View<'a>, &'a Node);

impl Serialize for Resources<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            capacity: i64,
            used: i64,
        }
        let Self(View { request, found, wanted }, node) = self;
        let is_asked = |class: &str| wanted.groups.values().any(|group| group.resources.contains_key(class));
        let rooms = node.inventories.iter().map(|room| (found.trees.classes.name(room.class), room));
        let shown = rooms.filter(|(class, _)| request.since(1, 27) || is_asked(class));
        to.collect_map(shown.map(|(class, room)| (class, Shown { capacity: room.capacity, used: room.used })))
    }
}
