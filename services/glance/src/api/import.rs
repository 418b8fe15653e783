//! Bytes that do not come by an upload: what was staged, or what is elsewhere.

use super::body;
use crate::{
    Glance,
    model::{Image, STORE, Status},
    tasks::{self, Source},
    web_download,
};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, get, post};

/// How bytes may come, besides being uploaded.
pub const METHODS: [&str; 3] = ["glance-direct", "web-download", "copy-image"];

pub fn routes() -> Routes<Glance> {
    vec![get("/v2/info/import", "", methods), post("/v2/images/{image_id}/import", "modify_image", import)]
}

async fn methods(_: Arc<Glance>, _: Request) -> Result<Reply> {
    let methods = json!({"description": "Import methods available.", "type": "array", "value": METHODS});
    Ok(Reply::ok(json!({"import-methods": methods})))
}

async fn import(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let asked = body(&request)?;
    let method = method(asked)?;
    let (whole, target) = glance.image(&request).await?;
    let image = whole.image;
    check_state(&image, method)?;
    match method {
        "copy-image" => request.can_rule("copy_image", &target)?,
        _ => request.can(&target)?,
    }
    check_stores(asked)?;
    let source = match method {
        "glance-direct" => Source::Staged,
        "web-download" => {
            let uri = asked["method"]["uri"].as_str();
            let refused = || {
                let uri = uri.unwrap_or("None");
                Error::bad_request(format!("URI for web-download does not pass filtering: {uri}"))
            };
            let target = web_download::target(uri.unwrap_or_default(), &glance.options).await;
            Source::Web(target.ok_or_else(refused)?)
        }
        _ => return copied(asked),
    };
    tasks::begin(&glance, &request.ctx, image, asked, source).await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

fn method(asked: &Json) -> Result<&str> {
    let required = |name: &str| Error::bad_request(format!("Import request requires a '{name}' field."));
    let method = asked.get("method").ok_or_else(|| required("method"))?;
    let name = method.get("name").ok_or_else(|| required("name"))?;
    let unknown = || {
        let name = name.as_str().map_or_else(|| name.to_string(), str::to_string);
        Error::bad_request(format!("Unknown import method name '{name}'."))
    };
    let name = name.as_str().filter(|name| METHODS.contains(name)).ok_or_else(unknown)?;
    for flag in ["all_stores_must_succeed", "all_stores"] {
        if asked.get(flag).is_some_and(|value| !value.is_boolean()) {
            return Err(Error::bad_request(format!("'{flag}' must be boolean value only")));
        }
    }
    Ok(name)
}

fn check_state(image: &Image, method: &str) -> Result<()> {
    let is_copy = method == "copy-image";
    let problem = match image.status {
        Status::Active if !is_copy => "Image with status active cannot be target for import".into(),
        status if status != Status::Active && is_copy => {
            "Only images with status active can be targeted for copying".into()
        }
        status if status != Status::Queued && method == "web-download" => {
            format!("Image needs to be in 'queued' state to use '{method}' method")
        }
        status if status != Status::Uploading && method == "glance-direct" => {
            "Image needs to be staged before 'glance-direct' method can be used".into()
        }
        _ if image.container_format.is_none() => "'container_format' needs to be set before import".into(),
        _ if image.disk_format.is_none() => "'disk_format' needs to be set before import".into(),
        _ => return Ok(()),
    };
    Err(Error::conflict(problem))
}

fn check_stores(asked: &Json) -> Result<()> {
    let named = asked["stores"].as_array().into_iter().flatten();
    let unknown = named.map(|store| store.as_str().unwrap_or_default()).find(|store| *store != STORE);
    match unknown {
        Some(store) => Err(Error::conflict(format!("Store for identifier {store} not found"))),
        None => Ok(()),
    }
}

/// There is one store, and active images are in it.
fn copied(asked: &Json) -> Result<Reply> {
    match asked["all_stores"].as_bool() {
        Some(true) => Ok(Reply::empty(StatusCode::ACCEPTED)),
        _ => Err(Error::bad_request(format!("Image is already present at store '{STORE}'"))),
    }
}
