//! The route table of identity, and what all of its nouns share: bodies, lists, links, options.

mod application_credentials;
mod assignments;
mod auth;
mod credentials;
mod domain_config;
mod domains;
mod ec2;
mod endpoint_filter;
mod endpoints;
mod federation_auth;
mod grants;
mod groups;
pub(crate) mod identity_providers;
mod json_home;
mod limits;
mod mappings;
mod oauth1;
mod oauth2;
mod parties;
mod policies;
pub(crate) mod projects;
mod regions;
mod roles;
mod saml2_logins;
mod service_providers;
mod services;
mod signatures;
mod trusts;
mod users;
mod versions;

use crate::{Keystone, authentication::expecting};
use base::{Error, Json, Result};
use db::List;
use schema::Schema;
use serde_json::{Map, json};
use web::{Reply, Request, Routes};

pub fn routes() -> Routes<Keystone> {
    let mut routes = versions::routes();
    for table in [
        auth::routes(),
        users::routes(),
        application_credentials::routes(),
        projects::routes(),
        domains::routes(),
        groups::routes(),
        roles::routes(),
        grants::routes(),
        assignments::routes(),
        services::routes(),
        endpoints::routes(),
        regions::routes(),
        credentials::routes(),
        ec2::routes(),
        trusts::routes(),
        limits::routes(),
        oauth1::routes(),
        oauth2::routes(),
        signatures::routes(),
        policies::routes(),
        endpoint_filter::routes(),
        domain_config::routes(),
        identity_providers::routes(),
        federation_auth::routes(),
        saml2_logins::routes(),
        mappings::routes(),
        service_providers::routes(),
    ] {
        routes.extend(table);
    }
    routes
}

type Object = Map<String, Json>;

/// A body as an object; none at all is an empty one.
fn whole_body(request: &Request) -> Result<Json> {
    match request.json() {
        Json::Null => Ok(json!({})),
        body if body.is_object() => Ok(body.clone()),
        _ => Err(expecting("valid JSON", "request body")),
    }
}

/// The object under the body's one key, checked.
fn body(request: &Request, form: &Schema, key: &str) -> Result<Object> {
    let body = whole_body(request)?;
    form.body(&body)?;
    Ok(body.get(key).and_then(Json::as_object).cloned().unwrap_or_default())
}

fn text<'a>(given: &'a Object, key: &str) -> Option<&'a str> {
    given.get(key).and_then(Json::as_str)
}

/// A flag as upstream's lists of words have it; absent and null mean `default`.
fn flag(given: &Object, key: &str, default: bool) -> bool {
    match given.get(key) {
        Some(Json::Bool(flag)) => *flag,
        Some(Json::String(text)) => word_is_true(text),
        _ => default,
    }
}

/// A query's flag: there without a value, or with any but `0` and its like.
fn asked(request: &Request, name: &str) -> bool {
    request.query.get(name).is_some_and(|value| value.is_empty() || word_is_true(value))
}

fn word_is_true(word: &str) -> bool {
    !matches!(word.to_lowercase().as_str(), "0" | "false" | "n" | "no" | "off")
}

/// What no column takes is kept and shown again.
fn extra(given: &Object, known: &[&str]) -> Json {
    let rest = given.iter().filter(|(key, _)| !known.contains(&key.as_str()));
    Json::Object(rest.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// New extras over old ones; null stays, as upstream keeps it.
fn merge(old: &mut Json, new: Json) {
    if let (Some(old), Json::Object(new)) = (old.as_object_mut(), new) {
        old.extend(new);
    }
}

/// Options of a resource: null removes one.
fn merge_options(old: &mut Json, given: &Object) {
    let Some(old) = old.as_object_mut() else { return };
    for (key, value) in given.get("options").and_then(Json::as_object).into_iter().flatten() {
        match value {
            Json::Null => drop(old.remove(key)),
            value => drop(old.insert(key.clone(), value.clone())),
        }
    }
}

/// Immutable resources can only be made mutable again.
fn check_mutable(noun: &str, verb: &str, id: &str, options: &Json, given: &Object) -> Result<()> {
    let frees = given.len() == 1
        && given.get("options").is_some_and(|options| options.get("immutable") == Some(&json!(false)));
    if options["immutable"] != true || frees {
        return Ok(());
    }
    Err(Error::forbidden(format!(
        "Unable to {verb} immutable {noun} resource: `{id}. Set resource option \"immutable\" to false first."
    )))
}

fn conflict(noun: &str, details: &str) -> Error {
    Error::conflict(format!("Conflict occurred attempting to store {noun} - {details}."))
}

/// Extras, then columns, then the link to itself.
fn view(request: &Request, plural: &str, id: &str, extra: &Json, columns: Json) -> Json {
    let mut shown = extra.as_object().cloned().unwrap_or_default();
    if let Json::Object(columns) = columns {
        shown.extend(columns);
    }
    shown.insert("links".into(), json!({"self": format!("{}/v3/{plural}/{id}", request.base_url)}));
    Json::Object(shown)
}

/// `{"users": […], "links": {…}}`
fn collection(request: &Request, plural: &str, items: Vec<Json>) -> Reply {
    Reply::ok(json!({
        plural: items,
        "links": {"next": null, "self": own_url(request), "previous": null},
    }))
}

/// As the caller wrote it.
fn own_url(request: &Request) -> String {
    let query: Vec<String> = request
        .query
        .0
        .iter()
        .map(|(name, value)| match value.as_str() {
            "" => name.clone(),
            value => format!("{name}={value}"),
        })
        .collect();
    match query.is_empty() {
        true => format!("{}{}", request.base_url, request.path),
        false => format!("{}{}?{}", request.base_url, request.path, query.join("&")),
    }
}

/// The page that is asked for of a list, and one entry more, as far as the database can tell: filters that look into
/// names and tags it does not know.
fn narrowed(request: &Request, keystone: &Keystone, wanted: List) -> List {
    if is_matched_here(request) {
        return wanted;
    }
    let wanted = match limit_of(request, keystone) {
        0 => wanted,
        limit => wanted.limit(limit as u64 + 1),
    };
    match request.query.get("marker") {
        Some(marker) => wanted.marker(marker),
        None => wanted,
    }
}

fn is_matched_here(request: &Request) -> bool {
    request.query.0.iter().any(|(key, _)| key.starts_with("name__") || key.contains("tags"))
}

fn limit_of(request: &Request, keystone: &Keystone) -> usize {
    let most = keystone.options.list_limit_max;
    let asked = request.query.get("limit").and_then(|text| text.parse::<u64>().ok());
    asked.map_or(most, |asked| asked.min(most)) as usize
}

/// Upstream's words for a marker that is not there.
fn unknown_marker(request: &Request) -> impl Fn(Error) -> Error {
    let marker = request.query.get("marker").unwrap_or_default().to_string();
    move |error| match error.code.as_deref() {
        Some("marker") => Error::bad_request(format!("Marker {marker} could not be found")),
        _ => error,
    }
}

/// A page of a list that upstream pages: `limit` (cut to the most allowed) and `marker`, a `next` link when
/// there may be more. What was [`narrowed`] begins after the marker already.
fn page(
    request: &Request,
    keystone: &Keystone,
    plural: &str,
    mut items: Vec<(String, Json)>,
) -> Result<Reply> {
    let limit = limit_of(request, keystone);
    if let Some(marker) = request.query.get("marker").filter(|_| is_matched_here(request)) {
        let at = items.iter().position(|(id, _)| id == marker);
        let at = at.ok_or_else(|| Error::bad_request(format!("Marker {marker} could not be found")))?;
        items.drain(..=at);
    }
    // Upstream offers a next page as soon as this one is full.
    let full = request.query.has("limit") && items.len() == limit;
    let more = limit > 0 && (full || items.len() > limit);
    items.truncate(if more { limit } else { items.len() });
    let next = match (more, items.last()) {
        (true, Some((id, _))) => {
            let mut query = request.query.without(&["marker"]);
            query.append_pair("marker", id);
            Json::from(format!("{}{}?{}", request.base_url, request.path, query.finish()))
        }
        _ => Json::Null,
    };
    let shown: Vec<Json> = items.into_iter().map(|(_, item)| item).collect();
    let mut body =
        json!({plural: shown, "links": {"next": next, "self": own_url(request), "previous": null}});
    if more {
        body["truncated"] = true.into();
    }
    Ok(Reply::ok(body))
}

/// Filters that compare parts of names: `name__contains`, `name__startswith`, …; upstream offers them everywhere.
fn name_matches(request: &Request, name: &str) -> bool {
    let lower = name.to_lowercase();
    request.query.0.iter().all(|(key, wanted)| match key.as_str() {
        "name" => name == wanted,
        "name__contains" => name.contains(wanted.as_str()),
        "name__icontains" => lower.contains(&wanted.to_lowercase()),
        "name__startswith" => name.starts_with(wanted.as_str()),
        "name__istartswith" => lower.starts_with(&wanted.to_lowercase()),
        "name__endswith" => name.ends_with(wanted.as_str()),
        "name__iendswith" => lower.ends_with(&wanted.to_lowercase()),
        _ => true,
    })
}
