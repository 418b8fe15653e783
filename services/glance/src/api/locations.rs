//! Where an image's bytes are, if other people's web servers keep them: said by its owner, in the newer way at its
//! locations, or in the older one by patches of the image.

use super::{body, detailed};
use crate::{
    Glance,
    api::patch::{Change, Op},
    location_import,
    model::{Image, Location, Status, Whole},
    schemas, web_download,
};
use base::{Error, Json, Result};
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, get, post};

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/images/{image_id}/locations", "fetch_image_location", list),
        post("/v2/images/{image_id}/locations", "add_image_location", add),
    ]
}

async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (whole, _) = glance.allowed(&request).await?;
    Ok(Reply::ok(glance.stores.locations(&whole)))
}

async fn add(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given: &Json = body(&request)?;
    schemas::check_location(given)?;
    let (whole, target) = glance.image(&request).await?;
    let status = whole.image.status;
    if status != Status::Queued {
        let sentence = format!("It's not allowed to add locations if image status is {status}.");
        return Err(Error::conflict(sentence));
    }
    request.can(&target)?;
    let url = given["url"].as_str().unwrap_or_default();
    let of_the_web = glance.stores.of_the_web().filter(|_| url.starts_with("http"));
    let is_service = request.ctx.roles.iter().chain(&request.ctx.service_roles).any(|role| role == "service");
    let Some(store) = of_the_web.or_else(|| glance.stores.serving(url).filter(|_| is_service)) else {
        let sentence = match is_service {
            true => format!("Unknown location {url}"),
            false => "http store must be enabled to use location API by normal user.".into(),
        };
        return Err(Error::forbidden(sentence));
    };
    let wanted = wanted_hash(&given["validation_data"])?;
    if of_the_web.is_some() {
        let refused = || Error::bad_request(format!("URI for add location does not pass filtering: {url}"));
        web_download::target(url, &glance.options).await.ok_or_else(refused)?;
    }
    let location = Location {
        image_id: whole.image.id.clone(),
        number: 0,
        store: store.id.clone(),
        url: url.into(),
        metadata: json!({}),
    };
    location_import::begin(&glance, &request.ctx, given, location, wanted).await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

/// The hash that the bytes shall have: by which algorithm, and what.
fn wanted_hash(given: &Json) -> Result<Option<(String, String)>> {
    let (Some(algorithm), Some(value)) = (given["os_hash_algo"].as_str(), given["os_hash_value"].as_str())
    else {
        return Ok(None);
    };
    let is_hex = value.len().is_multiple_of(2) && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        let sentence = format!("os_hash_value ({value}) is not a valid hexadecimal value");
        return Err(Error::bad_request(sentence));
    }
    let wanted_bytes = match algorithm {
        "md5" => 16,
        "sha1" => 20,
        "sha256" => 32,
        _ => 64,
    };
    if value.len() / 2 != wanted_bytes {
        return Err(Error::bad_request(format!(
            "os_hash_value: ({value}) is not the correct size for ({algorithm}) (should be ({wanted_bytes}) bytes)"
        )));
    }
    Ok(Some((algorithm.into(), value.into())))
}

/// The URLs that a patch names for the first time, each with how long its bytes are. Asked before the image is changed.
pub async fn judge(glance: &Glance, whole: &Whole, changes: &[Change]) -> Result<HashMap<String, u64>> {
    let mut judged = HashMap::new();
    if !glance.options.show_multiple_locations {
        return Ok(judged);
    }
    let known: Vec<Json> = glance.stores.locations(whole);
    for change in changes.iter().filter(|change| change.name == "locations") {
        let given = match &change.value {
            Json::Array(list) => list.iter().collect(),
            Json::Null => Vec::new(),
            one => vec![one],
        };
        for url in given.into_iter().filter_map(|location| location["url"].as_str()) {
            if known.iter().any(|location| location["url"] == url) {
                continue;
            }
            let bad = || Error::bad_request("Invalid location");
            glance.stores.of_the_web().ok_or_else(bad)?;
            let target = web_download::target(url, &glance.options).await.ok_or_else(bad)?;
            let (_, length) = web_download::open(target, None, &glance.options).await.map_err(|_| bad())?;
            judged.insert(url.to_string(), length.ok_or_else(bad)?);
        }
    }
    Ok(judged)
}

/// The older way: `/locations` and `/locations/-`.
pub fn patch(
    glance: &Glance,
    whole: &mut Whole,
    change: &Change,
    judged: &HashMap<String, u64>,
) -> Result<()> {
    let (verb, status) = (change.op, whole.image.status);
    if verb == Op::Replace && change.value.as_array().is_some_and(Vec::is_empty) {
        return Err(detailed(Error::forbidden("Cannot set locations to empty list.")));
    }
    if !glance.options.show_multiple_locations {
        let word = if verb == Op::Replace { "update" } else { verb.as_str() };
        return Err(Error::forbidden(format!(
            "It's not allowed to {word} locations if locations are invisible."
        )));
    }
    let is_allowed = status == Status::Active || (status == Status::Queued && verb != Op::Remove);
    if !is_allowed {
        let verb = verb.as_str();
        let sentence = format!("It's not allowed to {verb} locations if image status is {status}.");
        return Err(Error::conflict(sentence));
    }
    match verb {
        Op::Add => insert(glance, whole, change, judged),
        Op::Replace => replace(glance, whole, change, judged),
        Op::Remove => remove(glance, whole, change),
    }
}

fn insert(glance: &Glance, whole: &mut Whole, change: &Change, judged: &HashMap<String, u64>) -> Result<()> {
    let facts = validated(&whole.image, std::slice::from_ref(&change.value))?;
    let length = whole.locations.len();
    let at = match change.rest.as_deref().unwrap_or_default() {
        "-" => length,
        text => text.parse().map_err(|_| Error::bad_request("Invalid position for adding a location."))?,
    };
    let url = change.value["url"].as_str().unwrap_or_default();
    if glance.stores.locations(whole).iter().any(|location| location["url"] == url) {
        return Err(Error::bad_request(format!("The location {url} already exists")));
    }
    let added = location(glance, whole, &change.value)?;
    whole.locations.insert(at.min(length), added);
    settled(glance, whole, judged, facts)
}

fn replace(glance: &Glance, whole: &mut Whole, change: &Change, judged: &HashMap<String, u64>) -> Result<()> {
    let given = change.value.as_array().ok_or_else(|| Error::bad_request("Invalid locations"))?;
    let facts = validated(&whole.image, given)?;
    let before = glance.stores.locations(whole);
    let urls = |list: &[Json]| {
        let mut urls: Vec<String> =
            list.iter().filter_map(|location| location["url"].as_str().map(str::to_string)).collect();
        urls.sort();
        urls
    };
    let (mut wanted, known) = (urls(given), urls(&before));
    if !known.is_empty() && wanted != known {
        let sentence = format!("Original locations is not empty: {}", Json::from(before));
        return Err(Error::bad_request(sentence));
    }
    wanted.dedup();
    if wanted.len() != given.len() {
        return Err(Error::bad_request("Invalid locations"));
    }
    // What a store of ours has tells nothing but itself.
    let elsewhere = |one: &&Json| {
        let url = one["url"].as_str().unwrap_or_default();
        judged.contains_key(url) || whole.locations.iter().any(|location| location.url == url)
    };
    let replaced: Result<Vec<Location>> =
        given.iter().filter(elsewhere).map(|one| location(glance, whole, one)).collect();
    whole.locations = replaced?;
    settled(glance, whole, judged, facts)
}

fn remove(glance: &Glance, whole: &mut Whole, change: &Change) -> Result<()> {
    if glance.stores.locations(whole).len() == 1 {
        return Err(Error::forbidden("Cannot remove last location in the image."));
    }
    let last = whole.locations.len().checked_sub(1);
    let at = match change.rest.as_deref() {
        Some("-") => last,
        text => text.and_then(|text| text.parse().ok()).filter(|at| last.is_some_and(|last| *at <= last)),
    };
    let at = at.ok_or_else(|| Error::bad_request("Invalid position for removing a location."))?;
    whole.locations.remove(at);
    settled(glance, whole, &HashMap::new(), None)
}

fn location(glance: &Glance, whole: &Whole, given: &Json) -> Result<Location> {
    let web = glance.stores.of_the_web().ok_or_else(|| Error::bad_request("Invalid location"))?;
    let mut metadata = given["metadata"].clone();
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("store");
    }
    let url = given["url"].as_str().unwrap_or_default();
    Ok(Location {
        image_id: whole.image.id.clone(),
        number: 0,
        store: web.id.clone(),
        url: url.into(),
        metadata,
    })
}

/// The image has bytes now: it is active, as long as they are and with the hashes that were said.
fn settled(
    glance: &Glance,
    whole: &mut Whole,
    judged: &HashMap<String, u64>,
    facts: Option<Json>,
) -> Result<()> {
    for (number, location) in whole.locations.iter_mut().enumerate() {
        location.number = number as i64;
    }
    let image = &mut whole.image;
    let web = glance.stores.of_the_web().map(|store| store.id.clone()).unwrap_or_default();
    let mut stores: Vec<&str> = crate::stores::ids(image).filter(|id| *id != web).collect();
    if !whole.locations.is_empty() {
        stores.push(&web);
    }
    image.stores = (!stores.is_empty()).then(|| stores.join(","));
    if image.size.is_none() {
        let length = whole.locations.iter().find_map(|location| judged.get(&location.url));
        image.size = length.and_then(|length| i64::try_from(*length).ok());
    }
    if image.status == Status::Queued && !whole.locations.is_empty() {
        if image.disk_format.is_none() || image.container_format.is_none() {
            let sentence = "Properties disk_format, container_format must be set prior to saving data.";
            return Err(Error::bad_request(sentence));
        }
        image.status = Status::Active;
        if let Some(facts) = facts {
            let text = |name: &str| facts[name].as_str().map(str::to_string);
            image.checksum = text("checksum").or(image.checksum.take());
            image.os_hash_algo = text("os_hash_algo");
            image.os_hash_value = text("os_hash_value");
        }
    }
    Ok(())
}

/// The checksums that locations bring along: the same from all, and the image's own where it has some.
fn validated(image: &Image, given: &[Json]) -> Result<Option<Json>> {
    const ALGORITHM: &str = "sha512";
    let conflict = |sentence: String| detailed(Error::conflict(sentence));
    let mut said = serde_json::Map::new();
    for (name, value) in given.iter().filter_map(|one| one["validation_data"].as_object()).flatten() {
        if said.get(name).is_some_and(|known| known != value) {
            return Err(conflict(format!("Conflicting values for {name}")));
        }
        said.insert(name.clone(), value.clone());
    }
    let mut new = Vec::new();
    for (name, value) in &said {
        let current = match name.as_str() {
            "checksum" => &image.checksum,
            "os_hash_algo" => &image.os_hash_algo,
            _ => &image.os_hash_value,
        };
        match current.as_deref() {
            Some(current) if value == current => {}
            Some(_) => return Err(conflict(format!("{name} is already set with a different value"))),
            None => new.push(name.as_str()),
        }
    }
    if new.is_empty() {
        return Ok(None);
    }
    if image.status != Status::Queued {
        let names = new.join(", ");
        let sentence = format!("New value(s) for {names} may only be provided when image status is 'queued'");
        return Err(conflict(sentence));
    }
    let algorithm = said.get("os_hash_algo").and_then(Json::as_str).unwrap_or("None");
    if algorithm != ALGORITHM {
        return Err(conflict(format!("os_hash_algo must be {ALGORITHM}, not {algorithm}")));
    }
    for (name, bytes) in [("checksum", 16), ("os_hash_value", 64)] {
        let Some(value) = said.get(name).and_then(Json::as_str) else { continue };
        if !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(conflict(format!("{name} ({value}) is not a valid hexadecimal value")));
        }
        if value.len() != 2 * bytes {
            let algorithm = if name == "checksum" { "md5" } else { algorithm };
            return Err(conflict(format!(
                "{name} ({value}) is not the correct size for {algorithm} (should be {bytes} bytes)"
            )));
        }
    }
    Ok(Some(Json::Object(said)))
}
