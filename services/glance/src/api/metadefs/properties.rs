//! Properties of a namespace: what they are called, of which type they are, which values they take.

use super::{Part, allowed, ask_rule, find, name_of};
use crate::{
    Glance,
    model::metadefs::{Association, Namespace, Property, ResourceType},
    schemas::metadefs as schemas,
    store::metadefs as store,
};
use base::{Error, Json, Result, Timestamp};
use db::{List, Stored, Tx};
use serde_json::{Map, json};
use std::sync::Arc;
use web::{Reply, Request};

impl Part for Property {
    const NOUN: &'static str = "property";
    const READ_ONLY: &'static [&'static str] = &["created_at", "updated_at"];

    fn check(given: &Json) -> Result<()> {
        schemas::PROPERTY.check(given)
    }

    fn new(tx: &mut Tx, namespace: &Namespace, given: &Json, now: Timestamp) -> Result<Self> {
        let mut property = Self {
            id: store::next_id::<Self>(tx, |last| &last.id)?,
            namespace_id: namespace.id.clone(),
            name: String::new(),
            body: Json::Null,
            created_at: now,
            updated_at: now,
        };
        property.change(given, now)?;
        Ok(property)
    }

    fn change(&mut self, given: &Json, now: Timestamp) -> Result<()> {
        self.name = name_of(given)?;
        self.body = schemas::kept_property(given)?;
        self.updated_at = now;
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn missing(name: &str) -> Error {
        Error::not_found(format!("Could not find property {name}"))
    }

    fn taken(namespace: &Namespace, name: &str) -> Error {
        let namespace = &namespace.namespace;
        Error::conflict(format!(
            "A metadata definition property with name={name} already exists in namespace={namespace}."
        ))
    }

    fn shown(&self, _namespace: &Namespace) -> Json {
        let mut view = self.body.clone();
        view["name"] = json!(self.name);
        view
    }
}

/// A property that came with its namespace has its name as key alone.
pub fn insert_nested(
    tx: &mut Tx,
    namespace: &Namespace,
    name: &str,
    given: &Json,
    now: Timestamp,
) -> Result<()> {
    let id = store::next_id::<Property>(tx, |last| &last.id)?;
    let body = schemas::kept_property(given)?;
    let namespace_id = namespace.id.clone();
    tx.insert(&Property { id, namespace_id, name: name.into(), body, created_at: now, updated_at: now })
}

/// Of a namespace, by name.
pub fn all(tx: &mut Tx, namespace: &Namespace) -> Result<Map<String, Json>> {
    let found = tx.list::<Property>(&List::all().eq("namespace_id", &namespace.id))?;
    Ok(found.into_iter().map(|property| (property.name, property.body)).collect())
}

pub async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = allowed::<Property>(&glance, &request).await?;
    let found = glance.db.read(move |tx| all(tx, &namespace)).await?;
    Ok(Reply::ok(json!({"properties": found})))
}

/// With `resource_type`, the name begins with what names begin with at such a resource.
pub async fn show(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = allowed::<Property>(&glance, &request).await?;
    let (mut name, kind) = (request.param("name").to_string(), request.query.get("resource_type"));
    if let Some(kind) = kind.filter(|kind| !kind.is_empty()) {
        ask_rule(&request, "get_metadef_resource_type", Some(&namespace))?;
        let prefix = association(&glance, &namespace, kind).await?.prefix;
        let bare = prefix.as_deref().filter(|prefix| !prefix.is_empty());
        let bare = bare.and_then(|prefix| name.strip_prefix(prefix)).map(str::to_string);
        name = bare.ok_or_else(|| {
            let prefix = prefix.as_deref().unwrap_or("None");
            Error::not_found(format!(
                "Property {name} does not start with the expected resource type association prefix of '{prefix}'."
            ))
        })?;
    }
    let view = glance.db.read(move |tx| match find::<Property>(tx, &namespace, &name)? {
        Some(property) => Ok(property.shown(&namespace)),
        None => Err(Property::missing(&name)),
    });
    Ok(Reply::ok(view.await?))
}

async fn association(glance: &Glance, namespace: &Namespace, kind: &str) -> Result<Association> {
    let (namespace, kind) = (namespace.clone(), kind.to_string());
    let found = glance.db.read(move |tx| {
        if tx.find::<ResourceType>(&kind)?.is_none() {
            return Err(Error::not_found(format!(
                "The metadata definition resource-type with name={kind}, was not found."
            )));
        }
        let found = tx.get::<Association>(&[namespace.id.store(), kind.store()])?;
        found.ok_or_else(|| {
            let namespace = &namespace.namespace;
            Error::not_found(format!(
                "The metadata definition resource-type association of resource-type={kind} to \
                 namespace={namespace}, was not found."
            ))
        })
    });
    found.await
}
