//! Metadata and tags of servers.

use super::checked;
use crate::{Nova, model::Instance, quota, schemas, store};
use base::{Error, Json, Result};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/servers/{server_id}/metadata";
    const ONE: &str = "/v2.1/servers/{server_id}/metadata/{key}";
    const TAGS: &str = "/v2.1/servers/{server_id}/tags";
    const TAG: &str = "/v2.1/servers/{server_id}/tags/{tag}";
    vec![
        get(ALL, "os_compute_api:server-metadata:index", index),
        post(ALL, "os_compute_api:server-metadata:create", create),
        put(ALL, "os_compute_api:server-metadata:update_all", update_all),
        get(ONE, "os_compute_api:server-metadata:show", show),
        put(ONE, "os_compute_api:server-metadata:update", update),
        delete(ONE, "os_compute_api:server-metadata:delete", remove),
        get(TAGS, "os_compute_api:os-server-tags:index", index_tags).since(2, 26),
        put(TAGS, "os_compute_api:os-server-tags:update_all", replace_tags).since(2, 26),
        delete(TAGS, "os_compute_api:os-server-tags:delete_all", remove_tags).since(2, 26),
        get(TAG, "os_compute_api:os-server-tags:show", show_tag).since(2, 26),
        put(TAG, "os_compute_api:os-server-tags:update", add_tag).since(2, 26),
        delete(TAG, "os_compute_api:os-server-tags:delete", remove_tag).since(2, 26),
    ]
}

type Metadata = BTreeMap<String, String>;

pub fn given(metadata: &Json) -> Metadata {
    let pairs = metadata.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string()))).collect()
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"metadata": nova.server(&request).await?.metadata.0})))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let more = given(&checked(&request, &schemas::METADATA)?["metadata"]);
    let changed = change(&nova, &request, move |metadata| metadata.extend(more.clone())).await?;
    Ok(Reply::ok(json!({"metadata": changed})))
}

async fn update_all(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let new = given(&checked(&request, &schemas::METADATA)?["metadata"]);
    let changed = change(&nova, &request, move |metadata| *metadata = new.clone()).await?;
    Ok(Reply::ok(json!({"metadata": changed})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let (instance, key) = (nova.server(&request).await?, request.param("key"));
    let value = instance.metadata.get(key).ok_or_else(missing)?;
    Ok(Reply::ok(json!({"meta": {key: value}})))
}

async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let item = given(&checked(&request, &schemas::METADATA_ITEM)?["meta"]);
    let key = request.param("key");
    let Some(value) = item.get(key).cloned() else {
        return Err(Error::bad_request("Request body and URI mismatch"));
    };
    let (name, new) = (key.to_string(), value.clone());
    change(&nova, &request, move |metadata| drop(metadata.insert(name.clone(), new.clone()))).await?;
    Ok(Reply::ok(json!({"meta": {key: value}})))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let key = request.param("key").to_string();
    if !nova.server(&request).await?.metadata.contains_key(&key) {
        return Err(missing());
    }
    change(&nova, &request, move |metadata| drop(metadata.remove(&key))).await?;
    Ok(Reply::no_content().header("content-type", "application/json"))
}

fn missing() -> Error {
    Error::not_found("Metadata item was not found")
}

/// Answers the metadata after the change.
async fn change(
    nova: &Arc<Nova>,
    request: &Request,
    change: impl Fn(&mut Metadata) + Send + 'static,
) -> Result<Metadata> {
    let instance = nova.server(request).await?;
    super::check_unlocked(request, &instance)?;
    let limit = quota::limit(nova, &instance.project_id, "metadata_items").await?;
    let now = nova.clock.now();
    nova.write(move |tx| {
        let mut metadata = store::instance(tx, &instance.uuid)?.metadata.0;
        change(&mut metadata);
        if limit >= 0 && metadata.len() as i64 > limit {
            return Err(Error::over_quota(format!("Maximum number of metadata items exceeds {limit}")));
        }
        let new = metadata.clone();
        store::change(tx, &instance.uuid, now, |row| row.metadata.0 = new.clone())?;
        Ok(metadata)
    })
    .await
}

async fn index_tags(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"tags": nova.server(&request).await?.tags})))
}

async fn show_tag(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    has_tag(&instance, request.param("tag"))?;
    Ok(Reply::no_content().header("content-type", "application/json"))
}

async fn replace_tags(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::TAGS)?["tags"].as_array().cloned().unwrap_or_default();
    let mut tags: Vec<String> = given.iter().filter_map(|tag| tag.as_str().map(String::from)).collect();
    tags.sort();
    tags.dedup();
    let instance = nova.server(&request).await?;
    set_tags(&nova, &instance, tags.clone()).await?;
    Ok(Reply::ok(json!({"tags": tags})))
}

async fn remove_tags(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    set_tags(&nova, &instance, Vec::new()).await?;
    Ok(Reply::no_content().header("content-type", "application/json"))
}

const TAGS_MAX: usize = 50;

async fn add_tag(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let tag = request.param("tag").to_string();
    if let Err(wrong) = schemas::TAG.at(request.version()).check(&Json::from(tag.clone())) {
        return Err(Error::bad_request(format!("Tag '{tag}' is invalid. {}", wrong.message)));
    }
    const HTML: &str = "text/html; charset=UTF-8";
    if instance.tags.contains(&tag) {
        return Ok(Reply::no_content().header("content-type", HTML));
    }
    if instance.tags.len() >= TAGS_MAX {
        return Err(Error::bad_request(format!(
            "The number of tags exceeded the per-server limit {TAGS_MAX}"
        )));
    }
    let mut tags = instance.tags.clone();
    tags.push(tag.clone());
    set_tags(&nova, &instance, tags).await?;
    let location = format!("{}/v2.1/servers/{}/tags/{tag}", request.base_url, instance.uuid);
    Ok(Reply::empty(StatusCode::CREATED).header("location", location).header("content-type", HTML))
}

async fn remove_tag(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    has_tag(&instance, request.param("tag"))?;
    let kept = instance.tags.iter().filter(|tag| *tag != request.param("tag")).cloned().collect();
    set_tags(&nova, &instance, kept).await?;
    Ok(Reply::no_content().header("content-type", "application/json"))
}

fn has_tag(instance: &Instance, tag: &str) -> Result<()> {
    if instance.tags.iter().any(|held| held == tag) {
        return Ok(());
    }
    Err(Error::not_found(format!("Instance {} has no tag '{tag}'", instance.uuid)))
}

async fn set_tags(nova: &Nova, instance: &Instance, tags: Vec<String>) -> Result<()> {
    let (uuid, now) = (instance.uuid.clone(), nova.clock.now());
    nova.write(move |tx| store::change(tx, &uuid, now, |row| row.tags = tags.clone())).await.map(drop)
}
