//! Metadata definitions: catalogues of the properties that images, flavors, volumes and others may have, in namespaces
//! of their own. Objects, properties and tags of a namespace are regular: each says in [`Part`] what is special about
//! it, and the handlers here do the rest.

mod namespaces;
mod objects;
mod properties;
mod resource_types;
mod tags;

pub use namespaces::insert_whole;

use super::body;
use crate::{
    Glance,
    model::metadefs::{Namespace, Object, Property, Tag},
    store::metadefs as store,
};
use base::{Error, ErrorKind, Json, Result, Timestamp};
use db::{Filter, List, Resource, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Glance> {
    const OBJECTS: &str = "/v2/metadefs/namespaces/{namespace}/objects";
    const OBJECT: &str = "/v2/metadefs/namespaces/{namespace}/objects/{name}";
    const PROPERTIES: &str = "/v2/metadefs/namespaces/{namespace}/properties";
    const PROPERTY: &str = "/v2/metadefs/namespaces/{namespace}/properties/{name}";
    const TAGS: &str = "/v2/metadefs/namespaces/{namespace}/tags";
    const TAG: &str = "/v2/metadefs/namespaces/{namespace}/tags/{name}";
    let mut routes = namespaces::routes();
    routes.extend(resource_types::routes());
    routes.extend([
        get(OBJECTS, "get_metadef_objects", objects::list),
        post(OBJECTS, "add_metadef_object", create::<Object>),
        delete(OBJECTS, "delete_metadef_namespace", remove_all::<Object>),
        get(OBJECT, "get_metadef_object", show::<Object>),
        put(OBJECT, "modify_metadef_object", update::<Object>),
        delete(OBJECT, "delete_metadef_object", remove::<Object>),
        get(PROPERTIES, "get_metadef_properties", properties::list),
        post(PROPERTIES, "add_metadef_property", create::<Property>),
        delete(PROPERTIES, "delete_metadef_namespace", remove_all::<Property>),
        get(PROPERTY, "get_metadef_property", properties::show),
        put(PROPERTY, "modify_metadef_property", update::<Property>),
        delete(PROPERTY, "remove_metadef_property", remove::<Property>),
        get(TAGS, "get_metadef_tags", tags::list),
        post(TAGS, "add_metadef_tags", tags::create_many),
        delete(TAGS, "delete_metadef_tags", remove_all::<Tag>),
        get(TAG, "get_metadef_tag", show::<Tag>),
        post(TAG, "add_metadef_tag", tags::create),
        put(TAG, "modify_metadef_tag", update::<Tag>),
        delete(TAG, "delete_metadef_tag", remove::<Tag>),
    ]);
    routes
}

/// One of the things that a namespace holds, known there by its name.
trait Part: Resource + Clone {
    /// As upstream's sentences call it.
    const NOUN: &'static str;
    /// What nobody may set.
    const READ_ONLY: &'static [&'static str];
    /// The column that no two in a namespace share.
    const UNIQUE: &'static str = "name";

    fn check(given: &Json) -> Result<()>;
    /// For what is wrong with it beyond its schema, when it is made alone.
    fn check_closely(_given: &Json) -> Result<()> {
        Ok(())
    }
    fn new(tx: &mut Tx, namespace: &Namespace, given: &Json, now: Timestamp) -> Result<Self>;
    /// All that a body says takes the place of what was.
    fn change(&mut self, given: &Json, now: Timestamp) -> Result<()>;
    fn name(&self) -> &str;
    fn missing(name: &str) -> Error;
    fn taken(namespace: &Namespace, name: &str) -> Error;
    /// As kept in the unique column.
    fn unique(name: &str) -> String {
        name.to_string()
    }
    /// What the answer to a change shows.
    fn shown(&self, namespace: &Namespace) -> Json;
    fn shown_later(&self, namespace: &Namespace) -> Json {
        self.shown(namespace)
    }
    /// Who looks for a namespace that is not there is told so in other words at objects.
    fn no_namespace(name: &str) -> Error {
        not_found(name)
    }
}

fn find<P: Part>(tx: &mut Tx, namespace: &Namespace, name: &str) -> Result<Option<P>> {
    let wanted = List::all().eq("namespace_id", &namespace.id).filter(Filter::eq(P::UNIQUE, P::unique(name)));
    Ok(tx.list::<P>(&wanted.limit(1))?.pop())
}

fn insert<P: Part>(tx: &mut Tx, namespace: &Namespace, given: &Json, now: Timestamp) -> Result<P> {
    let part = P::new(tx, namespace, given, now)?;
    if find::<P>(tx, namespace, part.name())?.is_some() {
        return Err(P::taken(namespace, part.name()));
    }
    tx.insert(&part)?;
    Ok(part)
}

async fn create<P: Part>(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = checked_body(&request, P::READ_ONLY, P::check)?;
    P::check_closely(&given)?;
    let namespace = allowed::<P>(&glance, &request).await?;
    let now = glance.clock.now();
    let view = glance
        .db
        .write(move |tx| {
            still(tx, &namespace)?;
            Ok(insert::<P>(tx, &namespace, &given, now)?.shown(&namespace))
        })
        .await?;
    Ok(Reply::created(view))
}

async fn show<P: Part>(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = allowed::<P>(&glance, &request).await?;
    let name = request.param("name").to_string();
    let view = glance.db.read(move |tx| match find::<P>(tx, &namespace, &name)? {
        Some(part) => Ok(part.shown_later(&namespace)),
        None => Err(P::missing(&name)),
    });
    Ok(Reply::ok(view.await?))
}

async fn update<P: Part>(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = checked_body(&request, P::READ_ONLY, P::check)?;
    let namespace = allowed::<P>(&glance, &request).await?;
    let (name, now) = (request.param("name").to_string(), glance.clock.now());
    let view = glance
        .db
        .write(move |tx| {
            let mut part = find::<P>(tx, &namespace, &name)?.ok_or_else(|| P::missing(&name))?;
            let old = P::unique(part.name());
            part.change(&given, now)?;
            let is_renamed = P::unique(part.name()) != old;
            if is_renamed && find::<P>(tx, &namespace, part.name())?.is_some() {
                return Err(P::taken(&namespace, part.name()));
            }
            tx.update(&part)?;
            Ok(part.shown(&namespace))
        })
        .await?;
    Ok(Reply::ok(view))
}

async fn remove<P: Part>(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = allowed::<P>(&glance, &request).await?;
    let name = request.param("name").to_string();
    let gone = glance.db.write(move |tx| {
        let part = find::<P>(tx, &namespace, &name)?.ok_or_else(|| P::missing(&name))?;
        check_open(tx, &namespace, P::NOUN, part.name())?;
        tx.delete::<P>(&part.values()[..1])
    });
    gone.await?;
    Ok(super::nothing())
}

/// Upstream asks whether the namespace itself might be deleted.
async fn remove_all<P: Part>(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = namespace(&glance, &request, not_found).await?;
    ask_rule(&request, "delete_metadef_namespace", Some(&namespace))?;
    ask(&request, Some(&namespace))?;
    glance
        .db
        .write(move |tx| {
            check_open(tx, &namespace, "namespace", &namespace.namespace)?;
            remove_parts::<P>(tx, &namespace)
        })
        .await?;
    Ok(super::nothing())
}

fn remove_parts<P: Part>(tx: &mut Tx, namespace: &Namespace) -> Result<()> {
    let all = tx.list::<P>(&List::all().eq("namespace_id", &namespace.id))?;
    all.iter().try_for_each(|part| tx.delete::<P>(&part.values()[..1]).map(drop))
}

/// The namespace of the path, if the route's rule allows it to the caller.
async fn allowed<P: Part>(glance: &Glance, request: &Request) -> Result<Namespace> {
    let namespace = namespace(glance, request, P::no_namespace).await?;
    ask(request, Some(&namespace))?;
    Ok(namespace)
}

/// The namespace of the path. One that the caller may not see is not there.
async fn namespace(glance: &Glance, request: &Request, missing: fn(&str) -> Error) -> Result<Namespace> {
    let name = request.param("namespace").to_string();
    let wanted = name.clone();
    let found = glance.db.read(move |tx| store::namespace(tx, &wanted)).await?;
    let found = found.ok_or_else(|| missing(&name))?;
    match store::is_visible(&request.ctx, &found) {
        true => Ok(found),
        false => Err(not_found(&name)),
    }
}

fn not_found(name: &str) -> Error {
    Error::not_found(format!("Namespace {name} not found"))
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("Metadata definition namespace={name} was not found."))
}

/// It may have been deleted since it was looked for.
fn still(tx: &mut Tx, namespace: &Namespace) -> Result<Namespace> {
    tx.find::<Namespace>(&namespace.id)?.ok_or_else(|| not_found(&namespace.namespace))
}

fn check_open(tx: &mut Tx, namespace: &Namespace, noun: &str, name: &str) -> Result<()> {
    match still(tx, namespace)?.protected {
        false => Ok(()),
        true => Err(Error::forbidden(format!(
            "Metadata definition {noun} {name} is protected and cannot be deleted."
        ))),
    }
}

/// What rules are asked about a namespace, or about none.
fn target(request: &Request, namespace: Option<&Namespace>) -> Json {
    match namespace {
        Some(namespace) => json!({"project_id": namespace.owner, "visibility": namespace.visibility}),
        None => json!({"project_id": request.ctx.project_id, "visibility": ""}),
    }
}

/// Asks the route's rule. Whoever may not even see the namespace learns that it is not there.
fn ask(request: &Request, namespace: Option<&Namespace>) -> Result<()> {
    let target = target(request, namespace);
    request.can(&target).map_err(|error| hidden(request, &target, error))
}

/// The same with another rule.
fn ask_rule(request: &Request, rule: &str, namespace: Option<&Namespace>) -> Result<()> {
    let target = target(request, namespace);
    request.can_rule(rule, &target).map_err(|error| hidden(request, &target, error))
}

fn hidden(request: &Request, target: &Json, error: Error) -> Error {
    match error.kind {
        ErrorKind::Forbidden if !request.may("get_metadef_namespace", target) => {
            Error::not_found("The resource could not be found.")
        }
        _ => error,
    }
}

fn checked_body(request: &Request, read_only: &[&str], check: fn(&Json) -> Result<()>) -> Result<Json> {
    let given = body(request)?;
    if !given.is_object() {
        return Err(Error::bad_request("Malformed JSON in request body."));
    }
    if let Some(name) = read_only.iter().find(|name| given.get(name).is_some()) {
        return Err(Error::forbidden(format!("Attribute '{name}' is read-only.")));
    }
    check(given)?;
    Ok(given.clone())
}

fn text(given: &Json, name: &str) -> Option<String> {
    given[name].as_str().map(str::to_string)
}

/// `name`, which what is nested in a namespace's body may lack.
fn name_of(given: &Json) -> Result<String> {
    text(given, "name").ok_or_else(|| Error::bad_request("Mandatory field missing: name"))
}

/// Adds what is not null.
fn with_given(mut view: Json, optional: &[(&str, Json)]) -> Json {
    for (name, value) in optional.iter().filter(|(_, value)| !value.is_null()) {
        view[*name] = value.clone();
    }
    view
}

/// `limit`, `sort_dir` and `visibility` of lists, in upstream's words.
fn check_list(request: &Request, limit_min: i64, visibilities: &[&str]) -> Result<Option<u64>> {
    if let Some(direction) = request.query.get("sort_dir").filter(|text| !["asc", "desc"].contains(text)) {
        return Err(Error::bad_request(format!("Invalid sort direction: {direction}")));
    }
    let visibility = request.query.get("visibility").filter(|text| !text.is_empty());
    if let Some(visibility) = visibility.filter(|text| !visibilities.contains(text)) {
        return Err(Error::bad_request(format!("Invalid visibility value: {visibility}")));
    }
    let Some(text) = request.query.get("limit") else { return Ok(None) };
    let number: i64 = text.parse().map_err(|_| Error::bad_request("limit param must be an integer"))?;
    match number < limit_min {
        true => Err(Error::bad_request("limit param must be positive")),
        false => Ok(Some(number.unsigned_abs())),
    }
}

/// The column to sort by and the direction; upstream answers 500 for a column that there is not.
fn order(request: &Request, columns: &[&'static str]) -> Result<(&'static str, db::Direction)> {
    let wanted = request.query.get("sort_key").unwrap_or("created_at");
    let unknown = || Error::bad_request("Sort key supplied was not valid.");
    let column = columns.iter().find(|column| **column == wanted).ok_or_else(unknown)?;
    let direction = match request.query.get("sort_dir") {
        Some("asc") => db::Direction::Asc,
        _ => db::Direction::Desc,
    };
    Ok((column, direction))
}
