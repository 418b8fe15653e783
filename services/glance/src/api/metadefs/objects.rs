//! Objects: groups of properties that belong together.

use super::{Part, allowed, check_list, name_of, text, with_given};
use crate::{
    Glance,
    model::metadefs::{Namespace, Object},
    schemas::metadefs as schemas,
    store::metadefs as store,
};
use base::{Error, Json, Result, Timestamp};
use db::{List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request};

impl Part for Object {
    const NOUN: &'static str = "object";
    const READ_ONLY: &'static [&'static str] = &["self", "schema", "created_at", "updated_at"];

    fn check(given: &Json) -> Result<()> {
        schemas::OBJECT.check(given)
    }

    fn check_closely(given: &Json) -> Result<()> {
        schemas::check_properties(given)
    }

    fn new(tx: &mut Tx, namespace: &Namespace, given: &Json, now: Timestamp) -> Result<Self> {
        let mut object = Self {
            id: store::next_id::<Self>(tx, |last| &last.id)?,
            namespace_id: namespace.id.clone(),
            name: String::new(),
            description: None,
            required: Json::Null,
            properties: Json::Null,
            created_at: now,
            updated_at: now,
        };
        object.change(given, now)?;
        Ok(object)
    }

    fn change(&mut self, given: &Json, now: Timestamp) -> Result<()> {
        self.name = name_of(given)?;
        self.description = text(given, "description");
        self.required = given.get("required").cloned().unwrap_or_default();
        self.properties = kept_properties(given)?;
        self.updated_at = now;
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn missing(name: &str) -> Error {
        Error::not_found(format!("Could not find metadata object {name}"))
    }

    fn taken(namespace: &Namespace, name: &str) -> Error {
        let namespace = &namespace.namespace;
        Error::conflict(format!(
            "A metadata definition object with name={name} already exists in namespace={namespace}."
        ))
    }

    fn shown(&self, namespace: &Namespace) -> Json {
        let view = json!({
            "name": self.name, "created_at": self.created_at.seconds(), "updated_at": self.updated_at.seconds(),
            "self": format!("/v2/metadefs/namespaces/{}/objects/{}", namespace.namespace, self.name),
            "schema": "/v2/schemas/metadefs/object",
        });
        let optional = [
            ("description", json!(self.description)),
            ("required", self.required.clone()),
            ("properties", self.properties.clone()),
        ];
        with_given(view, &optional)
    }

    /// What was not given is shown empty later on.
    fn shown_later(&self, namespace: &Namespace) -> Json {
        let mut view = self.shown(namespace);
        for (name, empty) in [("required", json!([])), ("properties", json!({}))] {
            if view.get(name).is_none() {
                view[name] = empty;
            }
        }
        view
    }

    fn no_namespace(name: &str) -> Error {
        super::no_such(name)
    }
}

/// An object's or a namespace's properties by name; null when none are given.
pub fn kept_properties(given: &Json) -> Result<Json> {
    let Some(properties) = given.get("properties").and_then(Json::as_object) else { return Ok(Json::Null) };
    let kept = properties.iter().map(|(name, value)| Ok((name.clone(), schemas::kept_property(value)?)));
    Ok(Json::Object(kept.collect::<Result<_>>()?))
}

/// Upstream checks the limit and does not keep to it.
pub async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    check_list(&request, 1, &["public", "private", "shared"])?;
    let namespace = allowed::<Object>(&glance, &request).await?;
    let views = glance.db.read(move |tx| {
        let found = tx.list::<Object>(&List::all().eq("namespace_id", &namespace.id))?;
        Ok(found.iter().map(|object| object.shown_later(&namespace)).collect::<Vec<_>>())
    });
    Ok(Reply::ok(json!({"objects": views.await?, "schema": "v2/schemas/metadefs/objects"})))
}
