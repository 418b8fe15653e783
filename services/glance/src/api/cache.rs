//! The cache of images as its operators see it.

use super::not_found;
use crate::{
    Glance,
    model::{CacheState, Cached, Status},
};
use base::{Error, Json, Result, Timestamp};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/cache", "cache_list", list),
        delete("/v2/cache", "cache_delete", clear),
        post("/v2/cache/clean", "cache_clean", clean),
        post("/v2/cache/prune", "cache_prune", prune),
        put("/v2/cache/{image_id}", "cache_image", queue),
        delete("/v2/cache/{image_id}", "cache_delete", remove),
        get("/v2/cache/nodes/{image_id}", "list_cached_nodes", nodes),
    ]
}

fn view(entry: &Cached) -> Json {
    let seconds = |time: Timestamp| time.since(Timestamp::from_unix_seconds(0)).as_secs_f64();
    json!({
        "id": entry.number, "image_id": entry.image_id, "hits": entry.hits, "size": entry.size,
        "checksum": entry.checksum, "last_accessed": seconds(entry.last_accessed),
        "last_modified": seconds(entry.last_modified),
    })
}

async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let (cached, queued) =
        (glance.cached(CacheState::Cached).await?, glance.cached(CacheState::Queued).await?);
    let queued: Vec<&str> = queued.iter().map(|entry| entry.image_id.as_str()).collect();
    let cached: Vec<Json> = cached.iter().map(view).collect();
    Ok(Reply::ok(json!({"cached_images": cached, "queued_images": queued})))
}

async fn clear(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let states: &[CacheState] = match request.header("x-image-cache-clear-target").unwrap_or_default() {
        text if text.eq_ignore_ascii_case("cache") => &[CacheState::Cached],
        text if text.eq_ignore_ascii_case("queue") => &[CacheState::Queued],
        "" => &[CacheState::Cached, CacheState::Queued],
        _ => {
            let sentence =
                "If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.";
            return Err(Error::bad_request(sentence));
        }
    };
    for state in states {
        glance.clear_cache(*state).await?;
    }
    Ok(super::nothing())
}

async fn clean(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    glance.clean_cache().await?;
    Ok(Reply::empty(StatusCode::OK))
}

async fn prune(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let pruned = glance.prune_cache().await?;
    Ok(Reply::ok(json!({"total_files_pruned": pruned.files, "total_bytes_pruned": pruned.bytes})))
}

async fn queue(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (whole, target) = glance.image(&request).await.map_err(|error| not_found(error, &request))?;
    request.can(&target)?;
    if whole.image.status != Status::Active {
        return Err(Error::bad_request("Only images with status active can be targeted for queueing"));
    }
    glance.queue_for_cache(whole).await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

/// An image that is gone may still be cached.
async fn remove(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let target = match glance.image(&request).await {
        Ok((_, target)) => target,
        Err(error) => {
            if !glance.is_cached_or_queued(request.param("image_id")).await? {
                return Err(not_found(error, &request));
            }
            json!({})
        }
    };
    request.can(&target)?;
    glance.uncache(request.param("image_id")).await?;
    Ok(super::nothing())
}

/// A node that was given no name of its own is the one that is asked.
async fn nodes(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let (whole, _) = glance.image(&request).await.map_err(|error| not_found(error, &request))?;
    let id = whole.image.id;
    let mut nodes = glance.db.read(move |tx| crate::store::caching(tx, &id)).await?;
    for node in nodes.iter_mut().filter(|node| node.is_empty()) {
        node.clone_from(&request.base_url);
    }
    Ok(Reply::ok(json!(nodes)))
}
