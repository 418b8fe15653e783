//! The route table of block storage, and what its nouns share: bodies, links, empty answers.

mod attachments;
mod back_ends;
mod backups;
mod clusters;
mod default_types;
mod encryption;
mod extensions;
mod group_types;
mod groups;
mod lists;
mod manageable;
mod messages;
mod metadata;
mod qos_specs;
mod quotas;
mod snapshots;
mod transfers;
mod type_access;
mod types;
mod versions;
mod volume_actions;
mod volume_moves;
mod volumes;

use crate::Cinder;
use base::{Error, Json, Result};
use schema::Schema;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use web::{Reply, Request, Routes, StatusCode};

pub fn routes() -> Routes<Cinder> {
    let mut routes = versions::routes();
    for table in [
        volumes::routes(),
        volume_actions::routes(),
        volume_moves::routes(),
        metadata::routes(),
        attachments::routes(),
        snapshots::routes(),
        types::routes(),
        type_access::routes(),
        group_types::routes(),
        groups::routes(),
        encryption::routes(),
        manageable::routes(),
        qos_specs::routes(),
        default_types::routes(),
        quotas::routes(),
        back_ends::routes(),
        backups::routes(),
        clusters::routes(),
        messages::routes(),
        transfers::routes(),
        extensions::routes(),
    ] {
        routes.extend(table);
    }
    routes
}

type Object = Map<String, Json>;

/// The object under the body's one key, checked.
fn body(request: &Request, form: &Schema, key: &str) -> Result<Object> {
    let body = match request.json() {
        Json::Null => &json!({}),
        body => body,
    };
    form.body(body)?;
    Ok(body.get(key).and_then(Json::as_object).cloned().unwrap_or_default())
}

fn text<'a>(given: &'a Object, key: &str) -> Option<&'a str> {
    given.get(key).and_then(Json::as_str)
}

/// Without outer white space; null is none.
fn trimmed(given: &Object, key: &str) -> Option<String> {
    text(given, key).map(|text| text.trim().to_string())
}

/// A flag that a form has let through.
fn flag(value: &Json) -> bool {
    match value {
        Json::Bool(flag) => *flag,
        Json::String(word) => word_is_true(word),
        _ => false,
    }
}

fn word_is_true(word: &str) -> bool {
    matches!(word.trim().to_lowercase().as_str(), "1" | "t" | "true" | "on" | "y" | "yes")
}

/// A flag in the query; another word than upstream's is refused in its words.
fn query_flag(request: &Request, name: &str) -> Result<bool> {
    let Some(word) = request.query.get(name) else { return Ok(false) };
    match word.trim().to_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Ok(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Ok(false),
        _ => Err(Error::bad_request(format!("Value '{word}' for '{name}' is not a valid boolean."))),
    }
}

fn integer(value: &Json) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// An object of texts; null is an empty one.
fn texts(value: Option<&Json>) -> BTreeMap<String, String> {
    let pairs = value.and_then(Json::as_object).into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string()))).collect()
}

/// Where the rule is asked about a project's things.
fn of_project(project_id: &str) -> [(&'static str, &str); 1] {
    [("project_id", project_id)]
}

/// No body, and yet announced as JSON: as upstream answers most actions.
fn no_body(status: StatusCode) -> Reply {
    Reply::empty(status).header("content-type", "application/json")
}

/// As upstream answers where it hands out a bare webob response.
fn bare(status: StatusCode) -> Reply {
    Reply::empty(status).header("content-type", "text/html; charset=UTF-8")
}

/// The root under which links stand: the version and project as the caller wrote them.
fn prefix(request: &Request) -> String {
    let version = if request.path.starts_with("/v2") { "v2" } else { "v3" };
    format!("{}/{version}{}", request.base_url, project_part(request))
}

fn project_part(request: &Request) -> String {
    let project = &request.ctx.project_id;
    match !project.is_empty() && request.path.contains(&format!("/{project}")) {
        true => format!("/{project}"),
        false => String::new(),
    }
}

fn links(request: &Request, plural: &str, id: &str) -> Json {
    json!([
        {"rel": "self", "href": format!("{}/{plural}/{id}", prefix(request))},
        {"rel": "bookmark", "href": format!("{}{}/{plural}/{id}", request.base_url, project_part(request))},
    ])
}

/// What others may not know of is as if it were not there.
fn hide(refusal: Error, missing: Error) -> Error {
    if refusal.is(base::ErrorKind::Forbidden) { missing } else { refusal }
}
