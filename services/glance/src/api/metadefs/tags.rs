//! Tags of a namespace.

use super::{Part, allowed, check_list, find, insert, name_of, namespace, order, remove_parts, still};
use crate::{
    Glance,
    model::metadefs::{Namespace, Tag},
    schemas::metadefs as schemas,
    store::metadefs as store,
};
use base::{Error, Json, Result, Timestamp};
use db::{List, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request};

impl Part for Tag {
    const NOUN: &'static str = "tag";
    const READ_ONLY: &'static [&'static str] = &["created_at", "updated_at"];
    const UNIQUE: &'static str = "folded";

    fn check(given: &Json) -> Result<()> {
        schemas::TAG.check(given)
    }

    fn new(tx: &mut Tx, namespace: &Namespace, given: &Json, now: Timestamp) -> Result<Self> {
        let mut tag = Self {
            id: store::next_id::<Self>(tx, |last| &last.id)?,
            namespace_id: namespace.id.clone(),
            name: String::new(),
            folded: String::new(),
            created_at: now,
            updated_at: now,
        };
        tag.change(given, now)?;
        Ok(tag)
    }

    fn change(&mut self, given: &Json, now: Timestamp) -> Result<()> {
        self.name = name_of(given)?;
        self.folded = Self::unique(&self.name);
        self.updated_at = now;
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn missing(name: &str) -> Error {
        Error::not_found(format!("Could not find metadata tag {name}"))
    }

    fn taken(namespace: &Namespace, name: &str) -> Error {
        let namespace = &namespace.namespace;
        Error::conflict(format!(
            "A metadata tag with name={name} already exists in namespace={namespace}. (Please note that metadata tag \
             names are case insensitive)."
        ))
    }

    fn unique(name: &str) -> String {
        name.to_lowercase()
    }

    fn shown(&self, _namespace: &Namespace) -> Json {
        json!({
            "name": self.name, "created_at": self.created_at.seconds(), "updated_at": self.updated_at.seconds(),
        })
    }
}

/// What lists show.
pub fn names(tags: &[Tag]) -> Vec<Json> {
    tags.iter().map(|tag| json!({"name": tag.name})).collect()
}

/// The newest first, as upstream shows those of a namespace.
pub fn newest_first(namespace: &Namespace) -> List {
    List::all().eq("namespace_id", &namespace.id).sort("created_at", db::Direction::Desc)
}

/// One, by its name in the path.
pub async fn create(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = namespace(&glance, &request, super::not_found).await?;
    let given = json!({"name": request.param("name")});
    schemas::TAG.check(&given)?;
    super::ask(&request, Some(&namespace))?;
    let now = glance.clock.now();
    let view = glance
        .db
        .write(move |tx| {
            still(tx, &namespace)?;
            Ok(insert::<Tag>(tx, &namespace, &given, now)?.shown(&namespace))
        })
        .await?;
    Ok(Reply::created(view))
}

/// Many take the place of all there are, or with `x-openstack-append` join them.
pub async fn create_many(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = super::checked_body(&request, Tag::READ_ONLY, |given| schemas::TAGS.check(given))?;
    let namespace = allowed::<Tag>(&glance, &request).await?;
    let append = request.header("x-openstack-append").unwrap_or_default().trim().to_lowercase();
    let append = ["t", "true", "on", "y", "yes", "1"].contains(&append.as_str());
    let wanted: Vec<Json> = given["tags"].as_array().cloned().unwrap_or_default();
    let reply = json!({"tags": wanted});
    let now = glance.clock.now();
    glance
        .db
        .write(move |tx| {
            still(tx, &namespace)?;
            if !append && !wanted.is_empty() {
                remove_parts::<Tag>(tx, &namespace)?;
            }
            wanted.iter().try_for_each(|tag| insert::<Tag>(tx, &namespace, tag, now).map(drop))
        })
        .await?;
    Ok(Reply::created(reply))
}

pub async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    const COLUMNS: [&str; 5] = ["id", "namespace_id", "name", "created_at", "updated_at"];
    let limit = check_list(&request, 0, &["public", "private", "shared"])?;
    let (column, direction) = order(&request, &COLUMNS)?;
    let namespace = allowed::<Tag>(&glance, &request).await?;
    let marker = request.query.get("marker").filter(|marker| !marker.is_empty()).map(str::to_string);
    let found = glance.db.read(move |tx| {
        let mut wanted = List::all().eq("namespace_id", &namespace.id);
        wanted = wanted.sort(column, direction).sort("created_at", direction);
        wanted.limit = limit;
        if let Some(name) = &marker {
            let behind = find::<Tag>(tx, &namespace, name)?.ok_or_else(|| Tag::missing(name))?;
            wanted = wanted.marker(behind.id);
        }
        tx.list::<Tag>(&wanted)
    });
    Ok(Reply::ok(json!({"tags": names(&found.await?)})))
}
