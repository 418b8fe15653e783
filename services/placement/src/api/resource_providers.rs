//! Resource providers, which may be trees.

use super::{body, dashed, dated};
use crate::{
    Placement, groups,
    model::{Inventory, Provider},
    schemas, store,
};
use base::{Error, Json, Result, Timestamp, id};
use db::{Filter, List, Tx, params, sql};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Placement> {
    vec![
        get("/resource_providers", "placement:resource_providers:list", list),
        post("/resource_providers", "placement:resource_providers:create", create),
        get("/resource_providers/{uuid}", "placement:resource_providers:show", show),
        put("/resource_providers/{uuid}", "placement:resource_providers:update", update),
        delete("/resource_providers/{uuid}", "placement:resource_providers:delete", destroy),
    ]
}

const DUPLICATE_NAME: &str = "placement.duplicate_name";
const IN_USE: &str = "placement.resource_provider.inuse";
const CANNOT_DELETE_PARENT: &str = "placement.resource_provider.cannot_delete_parent";

async fn create(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let schema = schemas::PROVIDER_CREATE.of(&request);
    let given = body(&request, schema)?;
    let (uuid, clock) = (given["uuid"].as_str().map_or_else(id::uuid, dashed), placement.clock.clone());
    let provider = placement.db
        .write(move |tx| {
            let (name, now) = (given["name"].as_str().unwrap_or_default(), clock.now());
            check_unique(tx, name, Some(&uuid), "")?;
            let parent_uuid = given["parent_provider_uuid"].as_str().map(dashed);
            let unable = |why: &str| {
                Error::bad_request(format!(
                    "Unable to create resource provider \"{name}\", {uuid}: Object action create failed because: {why}"
                ))
            };
            let root_uuid = match &parent_uuid {
                None => uuid.clone(),
                Some(parent) if *parent == uuid => {
                    return Err(unable("parent provider UUID cannot be same as UUID. Please set parent provider UUID to None if there is no parent."));
                }
                Some(parent) => tx
                    .find::<Provider>(parent)?
                    .ok_or_else(|| unable("parent provider UUID does not exist."))?
                    .root_uuid,
            };
            let provider = Provider {
                uuid: uuid.clone(),
                name: name.into(),
                generation: 0,
                parent_uuid,
                root_uuid,
                created_at: now,
                updated_at: now,
            };
            tx.insert(&provider)?;
            Ok(provider)
        })
        .await?;
    let location = format!("{}/resource_providers/{}", request.base_url, provider.uuid);
    Ok(match request.since(1, 20) {
        true => dated(&request, Reply::ok(view(&request, &provider)), provider.updated_at),
        false => Reply::empty(web::StatusCode::CREATED),
    }
    .header("location", location))
}

fn check_unique(tx: &mut Tx, name: &str, uuid: Option<&str>, own_uuid: &str) -> Result<()> {
    let mut doubles = Vec::new();
    if let Some(uuid) = uuid
        && tx.find::<Provider>(uuid)?.is_some()
    {
        doubles.push(format!("uuid: {uuid}"));
    }
    let same_name = tx.list::<Provider>(&List::all().eq("name", name))?;
    if same_name.iter().any(|other| other.uuid != own_uuid) {
        doubles.push(if uuid.is_some() { format!("name: {name}") } else { name.to_string() });
    }
    match doubles.as_slice() {
        [] => Ok(()),
        found => {
            let sentence = format!("Conflicting resource provider {} already exists.", found.join(", "));
            Err(Error::conflict(sentence).code(DUPLICATE_NAME))
        }
    }
}

async fn show(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let uuid = request.param("uuid").to_string();
    let provider = placement.db.read(move |tx| store::provider(tx, &uuid)).await?;
    Ok(dated(&request, Reply::ok(view(&request, &provider)), provider.updated_at))
}

async fn update(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let uuid = request.param("uuid").to_string();
    let known = uuid.clone();
    placement.db.read(move |tx| store::provider(tx, &known)).await?;
    let schema = schemas::PROVIDER_UPDATE.of(&request);
    let given = body(&request, schema)?;
    let (may_move, clock) = (request.since(1, 37), placement.clock.clone());
    let provider = placement
        .db
        .write(move |tx| {
            let mut provider = store::provider(tx, &uuid)?;
            let name = given["name"].as_str().unwrap_or_default();
            check_unique(tx, name, None, &provider.uuid)?;
            provider.name = name.into();
            if let Some(parent) = given.get("parent_provider_uuid") {
                set_parent(tx, &mut provider, parent.as_str().map(dashed), may_move)?;
            }
            provider.updated_at = clock.now();
            tx.update(&provider)?;
            Ok(provider)
        })
        .await?;
    Ok(dated(&request, Reply::ok(view(&request, &provider)), provider.updated_at))
}

/// Hangs a provider and all below it elsewhere.
fn set_parent(tx: &mut Tx, provider: &mut Provider, parent: Option<String>, may_move: bool) -> Result<()> {
    if provider.parent_uuid == parent {
        return Ok(());
    }
    let (uuid, root) = (provider.uuid.clone(), provider.uuid.clone());
    let unable_to = |act: &str, why: &str| {
        Error::bad_request(format!(
            "Unable to save resource provider {uuid}: Object action {act} failed because: {why}"
        ))
    };
    let unable = |why: &str| unable_to("update", why);
    if provider.parent_uuid.is_some() && !may_move {
        let why = match parent {
            None => "un-parenting a provider is not currently allowed.",
            Some(_) => "re-parenting a provider is not currently allowed.",
        };
        return Err(unable(why));
    }
    let root = match &parent {
        None => root,
        Some(parent) => {
            let found = tx.find::<Provider>(parent)?;
            // Upstream says "create" here, too.
            found.ok_or_else(|| unable_to("create", "parent provider UUID does not exist."))?.root_uuid
        }
    };
    let below = subtree(tx, provider)?;
    if parent.as_ref().is_some_and(|parent| below.contains(parent)) {
        return Err(unable("creating loop in the provider tree is not allowed."));
    }
    for uuid in &below {
        tx.execute(
            sql!("UPDATE resource_providers SET root_uuid = $2 WHERE uuid = $1"),
            params![uuid, root],
        )?;
    }
    provider.parent_uuid = parent;
    provider.root_uuid = root;
    Ok(())
}

/// The provider and all below it.
fn subtree(tx: &mut Tx, top: &Provider) -> Result<BTreeSet<String>> {
    let tree = store::trees(tx, &BTreeSet::from([top.root_uuid.clone()]))?;
    let mut found = BTreeSet::from([top.uuid.clone()]);
    loop {
        let more: Vec<String> = tree
            .iter()
            .filter(|p| p.parent_uuid.as_ref().is_some_and(|parent| found.contains(parent)))
            .filter(|p| !found.contains(&p.uuid))
            .map(|p| p.uuid.clone())
            .collect();
        if more.is_empty() {
            return Ok(found);
        }
        found.extend(more);
    }
}

async fn destroy(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let uuid = request.param("uuid").to_string();
    placement.db.write(move |tx| remove(tx, &uuid)).await?;
    Ok(Reply::no_content())
}

/// With inventories, traits and memberships. Not while it has allocations or children.
pub fn remove(tx: &mut Tx, uuid: &str) -> Result<()> {
    if tx.find::<Provider>(uuid)?.is_none() {
        return Err(Error::not_found(format!("{} {uuid} found for delete", store::MISSING_PROVIDER)));
    }
    if !store::children(tx, uuid)?.is_empty() {
        let sentence =
            format!("Unable to delete parent resource provider {uuid}: It has child resource providers.");
        return Err(Error::conflict(sentence).code(CANNOT_DELETE_PARENT));
    }
    if !store::allocations_on(tx, uuid)?.is_empty() {
        let sentence =
            format!("Unable to delete resource provider {uuid}: Resource provider has allocations.");
        return Err(Error::conflict(sentence).code(IN_USE));
    }
    tx.execute(sql!("DELETE FROM inventories WHERE provider_uuid = $1"), params![uuid])?;
    store::set_traits(tx, uuid, &[])?;
    store::set_aggregates(tx, uuid, &[])?;
    tx.remove::<Provider>(uuid).map(drop)
}

async fn list(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let schema = schemas::PROVIDERS_QUERY.of(&request);
    schemas::query(schema, &request.query)?;
    let wanted = Wanted::parse(&request)?;
    let found = placement.db.read(move |tx| wanted.find(tx)).await?;
    let now = placement.clock.now();
    let changed = found.iter().map(|provider| provider.updated_at).max().unwrap_or(now);
    let views: Vec<Json> = found.iter().map(|provider| view(&request, provider)).collect();
    Ok(dated(&request, Reply::ok(json!({"resource_providers": views})), changed))
}

struct Wanted {
    list: List,
    in_tree: Option<String>,
    resources: std::collections::BTreeMap<String, i64>,
    traits: groups::Traits,
    aggregates: groups::Aggregates,
}

impl Wanted {
    fn parse(request: &Request) -> Result<Self> {
        let query = &request.query;
        let mut list = List::all().sort("created_at", db::Direction::Asc);
        if let Some(name) = query.get("name") {
            list = list.eq("name", name);
        }
        if let Some(uuid) = query.get("uuid") {
            list = list.eq("uuid", dashed(uuid));
        }
        Ok(Self {
            list,
            in_tree: query.get("in_tree").map(dashed),
            resources: query.get("resources").map(groups::resources).transpose()?.unwrap_or_default(),
            traits: match query.has("required") {
                true => groups::traits(request, "required")?,
                false => groups::Traits::default(),
            },
            aggregates: groups::aggregates(request, "member_of")?,
        })
    }

    fn find(&self, tx: &mut Tx) -> Result<Vec<Provider>> {
        let mut list = self.list.clone();
        if let Some(uuid) = &self.in_tree {
            let Some(member) = tx.find::<Provider>(uuid)? else { return Ok(Vec::new()) };
            list = list.eq("root_uuid", member.root_uuid);
        }
        let unknown = store::unknown_traits(tx, self.traits.names())?;
        if !unknown.is_empty() {
            return Err(Error::bad_request(format!(
                "Invalid trait(s) in \"required\" parameter: No such trait(s): {}.",
                unknown.join(", ")
            )));
        }
        let mut among: Option<BTreeSet<String>> = None;
        let mut only = |some: BTreeSet<String>| {
            among = Some(match among.take() {
                Some(all) => all.intersection(&some).cloned().collect(),
                None => some,
            });
        };
        for (class, amount) in &self.resources {
            store::check_class(tx, class).map_err(groups::invalid_class)?;
            only(store::with_room(tx, class, *amount)?);
        }
        for any in &self.traits.required {
            let mut some = BTreeSet::new();
            for name in any {
                some.extend(store::with_trait(tx, name)?);
            }
            only(some);
        }
        for any in &self.aggregates.any_of {
            only(store::in_aggregates(tx, any)?);
        }
        let mut without = BTreeSet::new();
        for name in &self.traits.forbidden {
            without.extend(store::with_trait(tx, name)?);
        }
        if !self.aggregates.forbidden.is_empty() {
            without.extend(store::in_aggregates(tx, &self.aggregates.forbidden)?);
        }
        let mut found = match &among {
            Some(uuids) if uuids.len() <= 500 => {
                tx.list::<Provider>(&list.filter(Filter::any("uuid", uuids.iter().map(String::as_str))))?
            }
            _ => tx.list::<Provider>(&list)?,
        };
        found
            .retain(|p| among.as_ref().is_none_or(|all| all.contains(&p.uuid)) && !without.contains(&p.uuid));
        Ok(found)
    }
}

pub fn view(request: &Request, provider: &Provider) -> Json {
    let url = format!("/resource_providers/{}", provider.uuid);
    let mut links = vec![json!({"rel": "self", "href": url})];
    for (minor, rel) in
        [(0, "inventories"), (0, "usages"), (1, "aggregates"), (6, "traits"), (11, "allocations")]
    {
        if request.since(1, minor) {
            links.push(json!({"rel": rel, "href": format!("{url}/{rel}")}));
        }
    }
    let mut view = json!({
        "uuid": provider.uuid, "name": provider.name, "generation": provider.generation, "links": links,
    });
    if request.since(1, 14) {
        view["parent_provider_uuid"] = json!(provider.parent_uuid);
        view["root_provider_uuid"] = json!(provider.root_uuid);
    }
    view
}

/// When the newest of them changed.
pub fn newest(inventories: &[Inventory], now: Timestamp) -> Timestamp {
    inventories.iter().map(|inventory| inventory.updated_at).max().unwrap_or(now)
}
