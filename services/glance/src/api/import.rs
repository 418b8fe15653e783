//! Staged bytes become an image, and what the cloud offers for that.

use super::{body, image_data};
use crate::{Glance, model::Status};
use base::{Error, Result};
use serde_json::json;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use web::{Reply, Request, Routes, get, post};

/// How bytes may come, besides being uploaded.
pub const METHODS: [&str; 1] = ["glance-direct"];

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/info/import", "", methods),
        get("/v2/info/stores", "", stores),
        get("/v2/info/usage", "", usage),
        post("/v2/images/{image_id}/import", "modify_image", import),
    ]
}

async fn methods(_: Arc<Glance>, _: Request) -> Result<Reply> {
    let methods = json!({"description": "Import methods available.", "type": "array", "value": METHODS});
    Ok(Reply::ok(json!({"import-methods": methods})))
}

async fn stores(_: Arc<Glance>, _: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"stores": [{"id": crate::model::STORE, "default": "true"}]})))
}

/// No limits are registered, so there is none to be used up.
async fn usage(_: Arc<Glance>, _: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"usage": {}})))
}

async fn import(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let Some(method) = body(&request)?["method"]["name"].as_str() else {
        return Err(Error::bad_request("Import request requires a 'name' field."));
    };
    if !METHODS.contains(&method) {
        return Err(Error::bad_request(format!("Unknown import method name '{method}'.")));
    }
    let (whole, _) = glance.allowed(&request).await?;
    let image = whole.image;
    if image.status != Status::Uploading {
        return Err(Error::conflict(format!(
            "Image needs to be staged before '{method}' method can be used"
        )));
    }
    let (Some(disk_format), Some(container_format)) =
        (image.disk_format.clone(), image.container_format.clone())
    else {
        return Err(Error::bad_request("'disk_format' and 'container_format' need to be set before import"));
    };
    image_data::turn(&glance, &image.id, &[Status::Uploading], Status::Importing).await?;
    let id = image.id;
    let working = glance.clone();
    tokio::spawn(async move {
        if let Err(error) = bring_in(&working, &id, &disk_format, &container_format).await {
            tracing::warn!(image = id, %error, "import failed");
            // The staged bytes are no good: another attempt begins with new ones.
            let _ = working.files.remove(&id);
            let _ = image_data::turn(&working, &id, &[Status::Importing], Status::Queued).await;
        }
    });
    Ok(Reply::empty(web::StatusCode::ACCEPTED))
}

async fn bring_in(glance: &Glance, id: &str, disk_format: &str, container_format: &str) -> Result<()> {
    let staged = glance.files.staged_path(id);
    let mut file = tokio::fs::File::open(&staged).await?;
    let mut incoming = glance.files.begin(&base::id::uuid())?;
    loop {
        let mut chunk = vec![0; 256 * 1024];
        let count = file.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        chunk.truncate(count);
        incoming.write(chunk.into()).await?;
    }
    let facts = incoming.finish(disk_format, container_format, &glance.files.path(id)).await?;
    image_data::activate(glance, id, Status::Importing, facts).await?;
    Ok(tokio::fs::remove_file(staged).await?)
}
