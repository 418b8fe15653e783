//! The route table of placement, and what its nouns share: times in headers, links, errors of generations.

mod aggregates;
mod allocation_candidates;
mod allocations;
mod inventories;
mod reshaper;
mod resource_classes;
mod resource_providers;
mod traits;
mod usages;
mod versions;

pub use resource_providers::remove as remove_provider;

use crate::{Placement, model::Provider, schemas::CONCURRENT_UPDATE};
use base::{Error, Json, Result, Timestamp};
use schema::Schema;
use web::{Mark, Method, Reply, Request, Route, Routes};

pub fn routes() -> Routes<Placement> {
    let mut routes = versions::routes();
    for table in [
        resource_providers::routes(),
        inventories::routes(),
        usages::routes(),
        aggregates::routes(),
        traits::routes(),
        resource_classes::routes(),
        allocations::routes(),
        allocation_candidates::routes(),
        reshaper::routes(),
    ] {
        routes.extend(table);
    }
    let is_given = |route: &&mut Route<Placement>| matches!(route.method, Method::POST | Method::PUT);
    for route in routes.iter_mut().filter(is_given).filter(|route| route.marks.is_empty()) {
        route.marks = &[Mark::Raw];
    }
    routes
}

/// The body, checked: it must be JSON and say so. Whether what it is for is there is looked at before.
fn body(request: &Request, schema: &Schema) -> Result<Json> {
    let media_type = request.header("content-type").map(|text| text.split(';').next().unwrap_or(text).trim());
    if media_type != Some("application/json") {
        let given = media_type.filter(|text| !text.is_empty()).unwrap_or("None");
        return Err(Error::unsupported_media_type(format!(
            "The media type {given} is not supported, use application/json"
        )));
    }
    let bytes = request.bytes();
    if bytes.is_empty() {
        return Err(Error::bad_request("Malformed JSON: Expecting value: line 1 column 1 (char 0)"));
    }
    let malformed = |at| Error::bad_request(format!("Malformed JSON: {at}"));
    let given = serde_json::from_slice(&bytes).map_err(|at: serde_json::Error| malformed(at))?;
    crate::schemas::body(schema, &given)?;
    Ok(given)
}

/// Answers are JSON: who accepts none of it is told so.
fn check_accept(request: &Request) -> Result<()> {
    let Some(accepted) = request.header("accept").filter(|accepted| !accepted.is_empty()) else {
        return Ok(());
    };
    let mut kinds = accepted.split(',').map(|kind| kind.split(';').next().unwrap_or(kind).trim());
    match kinds.any(|kind| matches!(kind, "*/*" | "application/*" | "application/json")) {
        true => Ok(()),
        false => Err(Error::not_acceptable("Only application/json is provided")),
    }
}

/// Since 1.15 answers say when what they show has changed, and are not to be cached.
fn dated(request: &Request, reply: Reply, changed: Timestamp) -> Reply {
    match request.since(1, 15) {
        true => reply
            .header("last-modified", changed.format("%a, %d %b %Y %H:%M:%S GMT"))
            .header("cache-control", "no-cache"),
        false => reply,
    }
}

/// The caller's generation must be the provider's.
fn check_generation(provider: &Provider, given: &Json, sentence: &str) -> Result<()> {
    match given["resource_provider_generation"].as_i64() == Some(provider.generation) {
        true => Ok(()),
        false => Err(Error::conflict(sentence).code(CONCURRENT_UPDATE)),
    }
}

const GENERATION_CHANGED: &str =
    "Resource provider's generation already changed. Please update the generation and try again.";

fn texts(list: &Json) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_string).collect()
}

/// A UUID as it is stored: lower case with dashes.
fn dashed(uuid: &str) -> String {
    let hex: String = uuid.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    match hex.len() {
        32 => [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"),
        _ => uuid.to_string(),
    }
}
