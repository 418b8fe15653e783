//! Aggregates: hosts with something in common, such as an availability zone.

use super::{checked, queries, server_actions::accepted};
use crate::{Nova, model::Aggregate, schemas, schemas::Form, store};
use base::{Context, Error, Json, Result, Timestamp, id};
use contracts::compute::InstanceImage;
use db::{AsJson, Filter, List, Tx, params};
use serde_json::{Map, json};
use std::{collections::HashSet, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, action, delete, get, post, put};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/os-aggregates";
    const ONE: &str = "/v2.1/os-aggregates/{aggregate_id}";
    const ACTION: &str = "/v2.1/os-aggregates/{aggregate_id}/action";
    vec![
        get(ALL, "os_compute_api:os-aggregates:index", index),
        post(ALL, "os_compute_api:os-aggregates:create", create),
        get(ONE, "os_compute_api:os-aggregates:show", show),
        put(ONE, "os_compute_api:os-aggregates:update", update),
        delete(ONE, "os_compute_api:os-aggregates:delete", remove),
        post("/v2.1/os-aggregates/{aggregate_id}/images", "compute:aggregates:images", cache_images)
            .since(2, 81),
        action(ACTION, "add_host", "os_compute_api:os-aggregates:add_host", add_host),
        action(ACTION, "remove_host", "os_compute_api:os-aggregates:remove_host", remove_host),
        action(ACTION, "set_metadata", "os_compute_api:os-aggregates:set_metadata", set_metadata),
    ]
}

const ZONE: &str = "availability_zone";

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let all = nova.read(|tx| tx.list::<Aggregate>(&List::all())).await?;
    let one = |aggregate: &Aggregate| view(&request, aggregate);
    Ok(Reply::ok(json!({"aggregates": all.iter().map(one).collect::<Vec<_>>()})))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &CREATE)?["aggregate"].clone();
    request.can(&())?;
    let name = given["name"].as_str().unwrap_or_default().trim().to_string();
    let zone = given[ZONE].as_str().map(|zone| zone.trim().to_string());
    let now = nova.clock.now();
    let aggregate = nova
        .write(move |tx| {
            check_name(tx, &name)?;
            let aggregate = Aggregate {
                id: store::next_aggregate_id(tx)?,
                uuid: id::uuid(),
                name: name.clone(),
                metadata: AsJson(zone.iter().map(|zone| (ZONE.to_string(), zone.clone())).collect()),
                hosts: Vec::new(),
                created_at: now,
                updated_at: None,
            };
            tx.insert(&aggregate)?;
            Ok(aggregate)
        })
        .await?;
    let mut one = view(&request, &aggregate);
    if let Some(one) = one.as_object_mut() {
        one.remove("hosts");
        one.remove("metadata");
    }
    Ok(Reply::ok(json!({ "aggregate": one })))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let id = number(&request)?;
    let aggregate = nova.read(move |tx| find(tx, id)).await?;
    Ok(Reply::ok(json!({"aggregate": view(&request, &aggregate)})))
}

async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &UPDATE)?["aggregate"].clone();
    request.can(&())?;
    let name = given["name"].as_str().map(|name| name.trim().to_string());
    let zone: Map<String, Json> =
        given.get(ZONE).map(|zone| (ZONE.to_string(), zone.clone())).into_iter().collect();
    change(&nova, &request, move |tx, aggregate| {
        if let Some(name) = &name {
            if *name != aggregate.name {
                check_name(tx, name)?;
            }
            aggregate.name.clone_from(name);
        }
        merge(tx, aggregate, &zone, "Cannot update aggregate")
    })
    .await
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = number(&request)?;
    nova.write(move |tx| {
        if !find(tx, id)?.hosts.is_empty() {
            return Err(Error::bad_request(format!(
                "Cannot remove host from aggregate {id}. Reason: Host aggregate is not empty."
            )));
        }
        tx.delete::<Aggregate>(params![id])
    })
    .await?;
    Ok(Reply::empty(StatusCode::OK))
}

async fn add_host(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let host = host_of(checked(&request, &ADD_HOST)?, "add_host");
    request.can(&())?;
    change(&nova, &request, move |tx, aggregate| {
        if store::service_on(tx, &host)?.is_none() {
            return Err(Error::not_found(format!("Compute host {host} could not be found.")));
        }
        let zone = aggregate.metadata.get(ZONE).cloned();
        if let Some(why) = zone
            .map(|zone| other_zones(tx, aggregate, &zone, std::slice::from_ref(&host)))
            .transpose()?
            .flatten()
        {
            let id = aggregate.id;
            return Err(Error::conflict(format!("Cannot add host to aggregate {id}. Reason: {why}.")));
        }
        if aggregate.hosts.contains(&host) {
            let id = aggregate.id;
            return Err(Error::conflict(format!("Aggregate {id} already has host {host}.")));
        }
        aggregate.hosts.push(host.clone());
        Ok(())
    })
    .await
}

async fn remove_host(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let host = host_of(checked(&request, &REMOVE_HOST)?, "remove_host");
    request.can(&())?;
    let id = number(&request)?;
    let missing = format!("Cannot remove host {host} in aggregate {id}");
    let changed = change(&nova, &request, move |_, aggregate| {
        let place = aggregate.hosts.iter().position(|held| *held == host);
        aggregate.hosts.remove(place.ok_or_else(|| Error::not_found("no such host"))?);
        Ok(())
    });
    changed.await.map_err(|error| match error.kind {
        base::ErrorKind::NotFound => Error::not_found(missing),
        _ => error,
    })
}

async fn set_metadata(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &SET_METADATA)?["set_metadata"]["metadata"].clone();
    request.can(&())?;
    let given = given.as_object().cloned().unwrap_or_default();
    change(&nova, &request, move |tx, aggregate| {
        merge(tx, aggregate, &given, "Cannot update metadata of aggregate")
    })
    .await
}

fn number(request: &Request) -> Result<i64> {
    let wrong = |_| Error::bad_request("Invalid input received: id must be an integer");
    request.param("aggregate_id").trim().parse().map_err(wrong)
}

fn find(tx: &mut Tx, id: i64) -> Result<Aggregate> {
    let missing = || Error::not_found(format!("Aggregate {id} could not be found."));
    tx.get::<Aggregate>(params![id])?.ok_or_else(missing)
}

/// Begins: who is down then or fails to fetch an image fetches it when a server needs it.
async fn cache_images(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &IMAGES)?["cache"].clone();
    request.can(&())?;
    let id = number(&request)?;
    let ids: Vec<String> = given
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["id"].as_str().map(String::from))
        .collect();
    if ids.iter().collect::<HashSet<_>>().len() < ids.len() {
        return Err(Error::bad_request("Duplicate images in request"));
    }
    let hosts = nova.read(move |tx| find(tx, id)).await?.hosts;
    let cx = request.ctx.clone();
    tokio::spawn(async move {
        for image in ids {
            if let Err(error) = nova.cache_image(&cx, &hosts, &image).await {
                tracing::warn!(%error, image, "not fetched beforehand");
            }
        }
    });
    Ok(accepted())
}

impl Nova {
    async fn cache_image(&self, cx: &Context, hosts: &[String], image_id: &str) -> Result<()> {
        let found = self.images().show(cx, image_id).await?;
        let image =
            InstanceImage { id: found.id, disk_format: found.disk_format, ..InstanceImage::default() };
        for host in hosts {
            if self.host_is_up(host).await? {
                let fetched = self.compute(host).cache_image(&self.own(cx), &image).await;
                tracing::info!(image = image.id, host, ?fetched, "fetched beforehand");
            }
        }
        Ok(())
    }
}

fn check_name(tx: &mut Tx, name: &str) -> Result<()> {
    match tx.count::<Aggregate>(&[Filter::eq("name", name)])? {
        0 => Ok(()),
        _ => Err(Error::conflict(format!("Aggregate {name} already exists."))),
    }
}

async fn change(
    nova: &Nova,
    request: &Request,
    change: impl Fn(&mut Tx, &mut Aggregate) -> Result<()> + Send + 'static,
) -> Result<Reply> {
    let (id, now): (i64, Timestamp) = (number(request)?, nova.clock.now());
    let aggregate = nova
        .write(move |tx| {
            let mut aggregate = find(tx, id)?;
            change(tx, &mut aggregate)?;
            aggregate.updated_at = Some(now);
            tx.update(&aggregate)?;
            Ok(aggregate)
        })
        .await?;
    Ok(Reply::ok(json!({"aggregate": view(request, &aggregate)})))
}

/// Takes metadata over; null removes. A host is in one zone only, and its servers stay in theirs.
fn merge(tx: &mut Tx, aggregate: &mut Aggregate, given: &Map<String, Json>, what: &str) -> Result<()> {
    if let Some(zone) = given.get(ZONE) {
        let zone = zone.as_str().unwrap_or_default();
        let refused =
            |why: String| Err(Error::bad_request(format!("{what} {}. Reason: {why}.", aggregate.id)));
        if zone.is_empty() {
            let name = &aggregate.name;
            return refused(format!("Aggregate {name} does not support empty named availability zone"));
        }
        if let Some(why) = other_zones(tx, aggregate, zone, &aggregate.hosts)? {
            return refused(why);
        }
        let same = aggregate.metadata.get(ZONE).is_some_and(|held| held == zone);
        if !same && store::servers_on(tx, &aggregate.hosts)? > 0 {
            return refused("One or more hosts contain instances in this zone".into());
        }
    }
    for (key, value) in given {
        match value.as_str() {
            Some(value) => drop(aggregate.metadata.0.insert(key.clone(), value.to_string())),
            None => drop(aggregate.metadata.0.remove(key)),
        }
    }
    Ok(())
}

/// Why hosts cannot be in the zone: other aggregates have them in others.
fn other_zones(tx: &mut Tx, aggregate: &Aggregate, zone: &str, hosts: &[String]) -> Result<Option<String>> {
    let others = tx.list::<Aggregate>(&List::all())?;
    let zones: Vec<Json> = others
        .iter()
        .filter(|other| other.id != aggregate.id && other.hosts.iter().any(|host| hosts.contains(host)))
        .filter_map(|other| other.metadata.get(ZONE).filter(|held| *held != zone))
        .map(|zone| zone.as_str().into())
        .collect();
    let told = schema::python::repr(&Json::Array(zones.clone()));
    Ok((!zones.is_empty()).then(|| format!("One or more hosts already in availability zone(s) {told}")))
}

fn view(request: &Request, aggregate: &Aggregate) -> Json {
    let mut one = json!({
        "id": aggregate.id,
        "name": aggregate.name,
        "hosts": aggregate.hosts,
        "metadata": aggregate.metadata.0,
        ZONE: aggregate.metadata.get(ZONE),
        "created_at": aggregate.created_at.micros(),
        "updated_at": aggregate.updated_at.map(Timestamp::micros),
        "deleted": false,
        "deleted_at": null,
    });
    if request.since(2, 41) {
        one["uuid"] = aggregate.uuid.clone().into();
    }
    one
}

fn host_of(body: &Json, key: &str) -> String {
    body[key]["host"].as_str().unwrap_or_default().to_string()
}

fn body(key: &str, properties: Json, required: &[&str]) -> Json {
    json!({
        "type": "object",
        "properties": {key: {
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        }},
        "required": [key],
        "additionalProperties": false,
    })
}

fn zone() -> Json {
    json!({"oneOf": [
        {"type": "string", "format": "az_name", "minLength": 1, "maxLength": 255}, {"type": "null"},
    ]})
}

static CREATE: Form =
    Form::new(|| body("aggregate", json!({"name": schemas::name(), ZONE: zone()}), &["name"]));

static UPDATE: Form = Form::new(|| {
    let name = json!({"type": "string", "format": "name_with_leading_trailing_spaces", "minLength": 1,
                      "maxLength": 255});
    let mut form = body("aggregate", json!({"name": name, ZONE: zone()}), &[]);
    let inner = &mut form["properties"]["aggregate"];
    inner["anyOf"] = json!([{"required": ["name"]}, {"required": [ZONE]}]);
    inner.as_object_mut().map(|inner| inner.remove("required"));
    form
});

static IMAGES: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"cache": {"type": ["array"], "minItems": 1, "items": {
            "type": "object",
            "properties": {"id": {"type": "string", "format": "uuid"}},
            "required": ["id"],
            "additionalProperties": false,
        }}},
        "required": ["cache"],
        "additionalProperties": false,
    })
});

fn host() -> Json {
    json!({"host": {"type": "string", "pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255}})
}

static ADD_HOST: Form = Form::new(|| body("add_host", host(), &["host"]));
static REMOVE_HOST: Form = Form::new(|| body("remove_host", host(), &["host"]));

static SET_METADATA: Form = Form::new(|| {
    let metadata = json!({
        "type": "object",
        "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "null"], "maxLength": 255}},
        "additionalProperties": false,
    });
    body("set_metadata", json!({ "metadata": metadata }), &["metadata"])
});
