//! Where bytes are kept: the stores there are, and the places of an image's bytes in them.

use super::body;
use crate::{
    Glance,
    model::{STORE, Status},
    schemas,
};
use base::{Error, ErrorKind, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

/// As upstream tells them to who creates an image.
pub const ALL: &str = "file,os_glance_staging_store,os_glance_tasks_store";

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/info/stores", "", stores),
        get("/v2/info/stores/detail", "stores_info_detail", detail),
        get("/v2/info/usage", "", usage),
        delete("/v2/stores/{store_id}/{image_id}", "delete_image_location", remove),
        get("/v2/images/{image_id}/locations", "fetch_image_location", locations),
        post("/v2/images/{image_id}/locations", "add_image_location", add_location),
    ]
}

async fn stores(_: Arc<Glance>, _: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"stores": [{"id": STORE, "default": "true"}]})))
}

async fn detail(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let properties = json!({
        "data_dir": glance.files.directory().display().to_string(),
        "chunk_size": super::image_data::CHUNK_BYTES, "thin_provisioning": true,
    });
    let store =
        json!({"id": STORE, "default": "true", "type": "file", "properties": properties, "weight": 0});
    Ok(Reply::ok(json!({"stores": [store]})))
}

/// No limits are registered, so there is none to be used up.
async fn usage(_: Arc<Glance>, _: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"usage": {}})))
}

/// An image's bytes are in one store, from which they go with the image alone.
async fn remove(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (store, id) = (request.param("store_id"), request.param("image_id"));
    if store != STORE {
        let sentence = format!("The selected store {store} is not available on this node.");
        return Err(Error::conflict(sentence));
    }
    let (whole, target) = glance.image(&request).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => Error::not_found(format!("Failed to find image {id}")),
        _ => error,
    })?;
    request.can_rule("get_image_location", &target)?;
    request.can(&target)?;
    if whole.image.status != Status::Active {
        let sentence = "It's not allowed to remove image data from store if image status is not 'active'";
        return Err(Error::conflict(sentence));
    }
    let sentence =
        "Cannot delete image data from the only store containing it. Consider deleting the image instead.";
    Err(Error::forbidden(sentence))
}

async fn locations(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (whole, _) = glance.allowed(&request).await?;
    let url = format!("file://{}", glance.files.path(&whole.image.id).display());
    let locations = match whole.image.stores {
        Some(_) => json!([{"url": url, "metadata": {"store": STORE}}]),
        None => json!([]),
    };
    Ok(Reply::ok(locations))
}

/// Upstream takes URLs from users for an HTTP store alone. There is none.
async fn add_location(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given: &Json = body(&request)?;
    schemas::check_location(given)?;
    let (whole, target) = glance.image(&request).await?;
    let status = whole.image.status;
    if status != Status::Queued {
        let sentence = format!("It's not allowed to add locations if image status is {status}.");
        return Err(Error::conflict(sentence));
    }
    request.can(&target)?;
    Err(Error::forbidden("http store must be enabled to use location API by normal user."))
}
