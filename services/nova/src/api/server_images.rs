//! `createImage` and `createBackup`: a server's disk becomes an image.

use super::{check_unlocked, checked, server_actions::accepted, target};
use crate::{
    Nova, actions,
    flows::snapshot::{self, Rotation, Snapshot, add_metadata, image_of},
    model::{BlockDevice, Instance},
    quota,
    schemas::moves,
    store,
};
use base::{Context, Error, ErrorKind, Json, Result, id};
use contracts::images::NewImage;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action};

pub fn routes() -> Routes<Nova> {
    const PATH: &str = "/v2.1/servers/{server_id}/action";
    vec![
        action(PATH, "createImage", "os_compute_api:servers:create_image", create_image),
        action(PATH, "createBackup", "os_compute_api:os-create-backup", create_backup),
    ]
}

async fn create_image(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &moves::CREATE_IMAGE)?["createImage"].clone();
    let instance = nova.server(&request).await?;
    check_metadata(&nova, &request, &given["metadata"]).await?;
    let name = given["name"].as_str().unwrap_or_default().trim();
    let mut image = image_of(&request.ctx, &instance, &id::uuid(), name, "snapshot");
    add_metadata(&mut image, &given["metadata"]);
    if instance.image_ref.is_empty() {
        request.can_rule("os_compute_api:servers:create_image:allow_volume_backed", &target(&instance))?;
        of_volumes(&nova, &request, &instance, &mut image).await?;
    } else {
        begin(&nova, &request.ctx, Snapshot { uuid: instance.uuid, image: image.clone(), rotation: None })
            .await?;
    }
    Ok(made(&nova, &request, &image.id, true))
}

async fn create_backup(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &moves::CREATE_BACKUP)?["createBackup"].clone();
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    check_metadata(&nova, &request, &given["metadata"]).await?;
    let backup_type = given["backup_type"].as_str().unwrap_or_default().to_string();
    let keep = given["rotation"].as_u64().or_else(|| given["rotation"].as_str()?.parse().ok()).unwrap_or(0);
    let rotation = Rotation { backup_type, keep: usize::try_from(keep).unwrap_or(usize::MAX) };
    snapshot::check(&instance, Some(&rotation))?;
    if instance.image_ref.is_empty() {
        return Err(Error::bad_request("Backup is not supported for volume-backed instances."));
    }
    let name = given["name"].as_str().unwrap_or_default().trim();
    let mut image = image_of(&request.ctx, &instance, &id::uuid(), name, "backup");
    add_metadata(&mut image, &given["metadata"]);
    image.properties.insert("backup_type".into(), rotation.backup_type.clone());
    let flow = Snapshot { uuid: instance.uuid, image: image.clone(), rotation: Some(rotation) };
    begin(&nova, &request.ctx, flow).await?;
    Ok(made(&nova, &request, &image.id, keep > 0))
}

/// The image is there when the request is answered; its bytes come later.
async fn begin(nova: &Arc<Nova>, cx: &Context, flow: Snapshot) -> Result<()> {
    let instance = nova.instance(&flow.uuid).await?;
    snapshot::check(&instance, flow.rotation.as_ref())?;
    snapshot::make(nova, cx, &instance, &flow.image).await?;
    let (work, cx, wanted) = (nova.clone(), cx.clone(), flow.clone());
    let own = cx.clone();
    let begun = nova.write(move |tx| snapshot::begin(&work, tx, &cx, &wanted)).await;
    if begun.is_err() {
        nova.image_maker().discard(&own, &flow.image.id).await?;
    }
    begun
}

fn made(nova: &Nova, request: &Request, image_id: &str, with_location: bool) -> Reply {
    if request.since(2, 45) {
        return Reply::accepted(json!({"image_id": image_id}));
    }
    match with_location {
        true => {
            let url = format!("{}/v2/images/{image_id}", nova.peers.apis.image.url());
            Reply::empty(StatusCode::ACCEPTED)
                .header("content-type", "application/json")
                .header("location", url)
        }
        false => accepted(),
    }
}

/// Before 2.39 an image's metadata counted as a server's.
async fn check_metadata(nova: &Nova, request: &Request, metadata: &Json) -> Result<()> {
    if request.since(2, 39) {
        return Ok(());
    }
    let limit = quota::limit(nova, &request.ctx.project_id, "metadata_items").await?;
    let count = metadata.as_object().map_or(0, serde_json::Map::len) as i64;
    match limit >= 0 && count > limit {
        true => Err(Error::over_quota("Image property count exceeded quota")),
        false => Ok(()),
    }
}

/// A server of volumes: each gets a snapshot, and the image has no bytes but says what a server is made of.
async fn of_volumes(
    nova: &Arc<Nova>,
    request: &Request,
    instance: &Instance,
    image: &mut NewImage,
) -> Result<()> {
    snapshot::check(instance, None)?;
    let uuid = instance.uuid.clone();
    let devices = nova.read(move |tx| store::block_devices(tx, &uuid)).await?;
    let mut mapping = Vec::new();
    for device in &devices {
        let snapshot_id = match device.destination_type == "volume" {
            true => Some(snapshot_of(nova, request, device, &image.name).await?),
            false => None,
        };
        mapping.push(mapped(device, snapshot_id));
    }
    for kind in ["image_type", "instance_uuid", "user_id", "owner_project_name", "owner_user_name"] {
        image.properties.remove(kind);
    }
    if let Some(name) = &instance.root_device_name {
        image.properties.insert("root_device_name".into(), name.clone());
    }
    image.properties.insert("block_device_mapping".into(), Json::Array(mapping).to_string());
    image.properties.insert("bdm_v2".into(), "True".into());
    image.disk_format = "raw".into();
    nova.image_maker().create(&request.ctx, image).await?;
    nova.peers.image_sink.upload(&request.ctx, &image.id, &mut tokio::io::empty()).await?;
    let (cx, uuid, now) = (request.ctx.clone(), instance.uuid.clone(), nova.clock.now());
    nova.write(move |tx| {
        actions::begin(tx, &cx, &uuid, "createImage", now)?;
        let event = "api_snapshot_instance";
        let event = actions::Event { instance_uuid: &uuid, action: "createImage", event, host: None };
        actions::end(tx, &cx, &event, None, now)
    })
    .await
}

async fn snapshot_of(nova: &Nova, request: &Request, device: &BlockDevice, name: &str) -> Result<String> {
    let body = json!({"snapshot": {
        "volume_id": device.volume_id, "name": format!("snapshot for {name}"), "force": true,
    }});
    let path = format!("/v3/{}/snapshots", request.ctx.project_id);
    let made = nova.peers.apis.volume.call(&request.ctx, "POST", &path, Some(&body)).await;
    let made = made.map_err(|error| match error.kind {
        ErrorKind::OverQuota => Error::forbidden("Quota exceeded for resources: ['snapshots']"),
        _ => error,
    })?;
    made["snapshot"]["id"]
        .as_str()
        .map(String::from)
        .ok_or_else(|| Error::internal("a snapshot without an id"))
}

/// A device as an image's property has it: upstream's words.
fn mapped(device: &BlockDevice, snapshot_id: Option<String>) -> Json {
    let of_volume = snapshot_id.is_some();
    json!({
        "source_type": if of_volume { "snapshot" } else { &device.source_type },
        "destination_type": device.destination_type,
        "snapshot_id": snapshot_id,
        "image_id": device.source_id.clone().filter(|_| device.source_type == "image" && !of_volume),
        "volume_id": null,
        "volume_size": device.volume_size_gb,
        "volume_type": device.volume_type,
        "device_name": device.device_name,
        "boot_index": device.boot_index,
        "delete_on_termination": device.delete_on_termination,
        "guest_format": device.guest_format,
        "tag": device.tag,
        "disk_bus": if of_volume { Some("virtio") } else { None },
        "device_type": if of_volume { Some("disk") } else { None },
        "no_device": null,
        "encrypted": null,
        "encryption_format": null,
        "encryption_options": null,
        "encryption_secret_uuid": null,
    })
}
