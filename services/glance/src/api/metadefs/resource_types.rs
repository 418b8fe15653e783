//! The types of resources that there are, and those that a namespace is for.

use super::{ask, checked_body, name_of, namespace, not_found, still, text, with_given};
use crate::{
    Glance,
    model::metadefs::{Association, Namespace, ResourceType},
    schemas::metadefs as schemas,
};
use base::{Error, Json, Result, Timestamp};
use db::{Direction, List, Stored, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Glance> {
    const ALL: &str = "/v2/metadefs/namespaces/{namespace}/resource_types";
    const ONE: &str = "/v2/metadefs/namespaces/{namespace}/resource_types/{name}";
    vec![
        get("/v2/metadefs/resource_types", "list_metadef_resource_types", list),
        get(ALL, "list_metadef_resource_types", associated),
        post(ALL, "add_metadef_resource_type_association", associate),
        delete(ONE, "remove_metadef_resource_type_association", dissociate),
    ]
}

pub fn view(association: &Association) -> Json {
    let times = json!({
        "created_at": association.created_at.seconds(), "updated_at": association.updated_at.seconds(),
    });
    with_given(
        times,
        &[
            ("name", json!(association.name)),
            ("prefix", json!(association.prefix)),
            ("properties_target", json!(association.properties_target)),
        ],
    )
}

async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    ask(&request, None)?;
    let found = glance.db.read(|tx| tx.list::<ResourceType>(&List::all().sort("created_at", Direction::Asc)));
    let view = |kind: &ResourceType| {
        json!({
            "name": kind.name, "created_at": kind.created_at.seconds(), "updated_at": kind.updated_at.seconds(),
        })
    };
    let views: Vec<Json> = found.await?.iter().map(view).collect();
    Ok(Reply::ok(json!({"resource_types": views})))
}

async fn associated(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = namespace(&glance, &request, not_found).await?;
    ask(&request, Some(&namespace))?;
    let is_shown = request.may("get_metadef_resource_type", &super::target(&request, Some(&namespace)));
    let found = glance.db.read(move |tx| of(tx, &namespace)).await?;
    let views: Vec<Json> = found.iter().filter(|_| is_shown).map(view).collect();
    Ok(Reply::ok(json!({"resource_type_associations": views})))
}

pub fn of(tx: &mut Tx, namespace: &Namespace) -> Result<Vec<Association>> {
    tx.list(&List::all().eq("namespace_id", &namespace.id).sort("created_at", Direction::Asc))
}

/// A type that nobody has named before is made.
pub fn insert(tx: &mut Tx, namespace: &Namespace, given: &Json, now: Timestamp) -> Result<Association> {
    let name = name_of(given)?;
    if tx.find::<ResourceType>(&name)?.is_none() {
        tx.insert(&ResourceType { name: name.clone(), created_at: now, updated_at: now })?;
    }
    if tx.get::<Association>(&[namespace.id.store(), name.store()])?.is_some() {
        let namespace = &namespace.namespace;
        return Err(Error::conflict(format!(
            "The metadata definition resource-type association of resource-type={name} to namespace={namespace} \
             already exists."
        )));
    }
    let association = Association {
        namespace_id: namespace.id.clone(),
        name,
        prefix: text(given, "prefix"),
        properties_target: text(given, "properties_target"),
        created_at: now,
        updated_at: now,
    };
    tx.insert(&association)?;
    Ok(association)
}

async fn associate(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let read_only = ["created_at", "updated_at"];
    let given = checked_body(&request, &read_only, |given| schemas::ASSOCIATION.check(given))?;
    let namespace = namespace(&glance, &request, not_found).await?;
    ask(&request, Some(&namespace))?;
    let now = glance.clock.now();
    let view = glance
        .db
        .write(move |tx| {
            still(tx, &namespace)?;
            insert(tx, &namespace, &given, now).map(|association| view(&association))
        })
        .await?;
    Ok(Reply::created(view))
}

async fn dissociate(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let namespace = namespace(&glance, &request, not_found).await?;
    ask(&request, Some(&namespace))?;
    let name = request.param("name").to_string();
    let gone = glance.db.write(move |tx| {
        let key = [namespace.id.store(), name.store()];
        if tx.get::<Association>(&key)?.is_none() {
            return Err(Error::not_found(format!("Failed to find resource type {name} to delete")));
        }
        super::check_open(tx, &namespace, "resource-type-association", &name)?;
        tx.delete::<Association>(&key)
    });
    gone.await?;
    Ok(super::super::nothing())
}
