//! Traits: those that every cloud knows, custom ones, and which a provider has.

use super::{GENERATION_CHANGED, body, check_generation, dated, texts};
use crate::{
    Placement,
    model::{ProviderTrait, Trait},
    schemas, standard, store,
};
use base::{Error, Result};
use db::{Filter, List, Tx};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, delete, get, put};

pub fn routes() -> Routes<Placement> {
    const OF_PROVIDER: &str = "/resource_providers/{uuid}/traits";
    vec![
        get("/traits", "placement:traits:list", list).since(1, 6),
        get("/traits/{name}", "placement:traits:show", show).since(1, 6),
        put("/traits/{name}", "placement:traits:update", create).since(1, 6),
        delete("/traits/{name}", "placement:traits:delete", remove).since(1, 6),
        get(OF_PROVIDER, "placement:resource_providers:traits:list", of_provider).since(1, 6),
        put(OF_PROVIDER, "placement:resource_providers:traits:update", set_of_provider).since(1, 6),
        delete(OF_PROVIDER, "placement:resource_providers:traits:delete", remove_of_provider).since(1, 6),
    ]
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("No such trait(s): {name}."))
}

async fn list(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    schemas::query(&schemas::TRAITS_QUERY, &request.query)?;
    let suits = by_name(request.query.get("name"))?;
    let associated = match request.query.get("associated").map(str::to_lowercase).as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => {
            let sentence = "The query parameter \"associated\" only accepts \"true\" or \"false\"";
            return Err(Error::bad_request(sentence));
        }
    };
    let found = placement
        .db
        .read(move |tx| {
            let custom = tx.list::<Trait>(&List::all())?.into_iter().map(|row| row.name);
            let mut names: Vec<String> = standard::traits().map(str::to_string).chain(custom).collect();
            names.retain(|name| suits(name));
            if let Some(associated) = associated {
                let used = in_use(tx)?;
                names.retain(|name| used.contains(name) == associated);
            }
            Ok(names)
        })
        .await?;
    Ok(dated(&request, Reply::ok(json!({"traits": found})), placement.clock.now()))
}

fn in_use(tx: &mut Tx) -> Result<BTreeSet<String>> {
    let rows = tx.query(db::sql!("SELECT DISTINCT trait_name FROM provider_traits"), &[])?;
    rows.iter().map(|row| row.at(0)).collect()
}

type Suits = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// `in:A,B` or `startswith:PREFIX`.
fn by_name(query: Option<&str>) -> Result<Suits> {
    let Some(text) = query else { return Ok(Box::new(|_| true)) };
    let Some((form, value)) = text.split_once(':') else {
        return Err(Error::bad_request(format!(
            "Badly formatted name parameter. Expected name query string parameter in form: \
             ?name=[in|startswith]:[name1,name2|prefix]. Got: \"{text}\""
        )));
    };
    let value = value.to_string();
    Ok(match form {
        "in" => Box::new(move |name| value.split(',').any(|wanted| wanted == name)),
        "startswith" => Box::new(move |name| name.starts_with(&value)),
        _ => Box::new(|_| true),
    })
}

async fn show(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let name = request.param("name").to_string();
    let now = placement.clock.now();
    let made = placement
        .db
        .read(move |tx| match standard::is_trait(&name) {
            true => Ok(now),
            false => tx.find::<Trait>(&name)?.map(|row| row.created_at).ok_or_else(|| unknown(&name)),
        })
        .await?;
    Ok(dated(&request, Reply::no_content(), made))
}

async fn create(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let name = request.param("name").to_string();
    if !standard::is_custom(&name) {
        return Err(Error::bad_request(
            "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \
             \"CUSTOM_\" and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\"",
        ));
    }
    let location = format!("{}/traits/{name}", request.base_url);
    let clock = placement.clock.clone();
    let (made, at) = placement
        .db
        .write(move |tx| match tx.find::<Trait>(&name)? {
            Some(row) => Ok((false, row.created_at)),
            None => {
                let row = Trait { name: name.clone(), created_at: clock.now() };
                tx.insert(&row)?;
                Ok((true, row.created_at))
            }
        })
        .await?;
    let status = if made { web::StatusCode::CREATED } else { web::StatusCode::NO_CONTENT };
    Ok(dated(&request, Reply::empty(status), at).header("location", location))
}

async fn remove(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let name = request.param("name").to_string();
    if standard::is_trait(&name) {
        return Err(Error::bad_request(format!("Cannot delete standard trait {name}.")));
    }
    placement
        .db
        .write(move |tx| {
            if tx.find::<Trait>(&name)?.is_none() {
                return Err(unknown(&name));
            }
            if tx.count::<ProviderTrait>(&[Filter::eq("trait_name", &*name)])? > 0 {
                return Err(Error::conflict(format!("The trait {name} is in use by a resource provider.")));
            }
            tx.remove::<Trait>(&name)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn of_provider(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    super::check_accept(&request)?;
    let uuid = request.param("uuid").to_string();
    let (generation, found) = placement
        .db
        .read(move |tx| {
            let provider = store::provider(tx, &uuid).map_err(|error| {
                Error::not_found(format!("{} {uuid} found: {}", store::MISSING_PROVIDER, error.message))
            })?;
            Ok((provider.generation, store::traits(tx, &uuid)?))
        })
        .await?;
    Ok(view(&placement, &request, generation, &found))
}

fn view(placement: &Placement, request: &Request, generation: i64, traits: &[String]) -> Reply {
    let body = json!({"traits": traits, "resource_provider_generation": generation});
    dated(request, Reply::ok(body), placement.clock.now())
}

async fn set_of_provider(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::PROVIDER_TRAITS)?;
    let (uuid, clock) = (request.param("uuid").to_string(), placement.clock.clone());
    let (generation, found) = placement
        .db
        .write(move |tx| {
            let mut provider = store::provider(tx, &uuid)?;
            check_generation(&provider, &given, GENERATION_CHANGED)?;
            let wanted: BTreeSet<String> = texts(&given["traits"]).into_iter().collect();
            let missing = store::unknown_traits(tx, wanted.iter())?;
            if !missing.is_empty() {
                return Err(Error::bad_request(format!("No such trait {}", missing.join(", "))));
            }
            let wanted: Vec<String> = wanted.into_iter().collect();
            let mut has = store::traits(tx, &uuid)?;
            has.sort_unstable();
            if has != wanted {
                store::set_traits(tx, &uuid, &wanted)?;
                store::bump(tx, &mut provider, clock.now())?;
            }
            Ok((provider.generation, wanted))
        })
        .await?;
    Ok(view(&placement, &request, generation, &found))
}

async fn remove_of_provider(placement: Arc<Placement>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (uuid, clock) = (request.param("uuid").to_string(), placement.clock.clone());
    placement
        .db
        .write(move |tx| {
            let mut provider = store::provider(tx, &uuid)?;
            if !store::traits(tx, &uuid)?.is_empty() {
                store::set_traits(tx, &uuid, &[])?;
                store::bump(tx, &mut provider, clock.now())?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}
