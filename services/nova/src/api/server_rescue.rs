//! `rescue` and `unrescue`.

use super::{check_unlocked, checked, server_actions::accepted, server_create::password};
use crate::{Nova, flows::rescue, model::Instance, schemas::moves};
use base::{Error, ErrorKind, Result};
use contracts::compute::{InstanceImage, Rescue};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, action};

pub fn routes() -> Routes<Nova> {
    const PATH: &str = "/v2.1/servers/{server_id}/action";
    vec![
        action(PATH, "rescue", "os_compute_api:os-rescue", begin),
        action(PATH, "unrescue", "os_compute_api:os-unrescue", end),
    ]
}

async fn begin(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &moves::RESCUE)?["rescue"].clone();
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    rescue::check(&instance)?;
    let image = image(&nova, &request, &instance, given["rescue_image_ref"].as_str()).await?;
    let has = |key: &str| image.properties.contains_key(key);
    let stable = has("hw_rescue_device") || has("hw_rescue_bus");
    let may_boot_volumes = request.since(2, 87) && has("hw_rescue_device") && has("hw_rescue_bus");
    if instance.image_ref.is_empty() && !may_boot_volumes {
        return Err(Error::bad_request(format!(
            "Instance {} cannot be rescued: Cannot rescue a volume-backed instance",
            instance.uuid
        )));
    }
    let flow = rescue::Rescue { uuid: instance.uuid, with: Some(Rescue { image, stable }) };
    let (work, cx) = (nova.clone(), request.ctx.clone());
    nova.write(move |tx| rescue::begin(&work, tx, &cx, &flow)).await?;
    let password = given["adminPass"].as_str().map_or_else(|| password(&nova), String::from);
    Ok(Reply::ok(json!({"adminPass": password})))
}

/// The image that was named, or the server's own.
async fn image(
    nova: &Nova,
    request: &Request,
    instance: &Instance,
    wanted: Option<&str>,
) -> Result<InstanceImage> {
    let Some(id) = wanted else {
        return Ok(InstanceImage {
            id: instance.image_ref.clone(),
            disk_format: instance.image.disk_format.clone(),
            properties: instance.image.properties.clone(),
        });
    };
    let unfit = || Error::bad_request(format!("Requested rescue image '{id}' is not supported"));
    let found = nova.images().show(&request.ctx, id).await.map_err(|error| match error.kind {
        ErrorKind::NotFound | ErrorKind::BadRequest => unfit(),
        _ => error,
    })?;
    if found.status != "active" || found.properties.contains_key("block_device_mapping") {
        return Err(unfit());
    }
    Ok(InstanceImage { id: found.id, disk_format: found.disk_format, properties: found.properties })
}

async fn end(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &moves::UNRESCUE)?;
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    let flow = rescue::Rescue { uuid: instance.uuid, with: None };
    let (work, cx) = (nova.clone(), request.ctx.clone());
    nova.write(move |tx| rescue::begin(&work, tx, &cx, &flow)).await?;
    Ok(accepted())
}
