//! Volumes of a server: `os-volume_attachments`.

use super::{check_unlocked, checked, is_true, server_actions::accepted, server_devices};
use crate::{
    Nova,
    flows::{attach_volume, detach_volume, power::check_state, swap_volume},
    model::{BlockDevice, Instance, VmState},
    schemas, store,
};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/servers/{server_id}/os-volume_attachments";
    const ONE: &str = "/v2.1/servers/{server_id}/os-volume_attachments/{volume_id}";
    vec![
        get(ALL, "os_compute_api:os-volumes-attachments:index", index),
        post(ALL, "os_compute_api:os-volumes-attachments:create", create),
        get(ONE, "os_compute_api:os-volumes-attachments:show", show),
        put(ONE, "os_compute_api:os-volumes-attachments:update", update),
        delete(ONE, "os_compute_api:os-volumes-attachments:delete", remove),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let uuid = instance.uuid.clone();
    let devices = nova.read(move |tx| store::block_devices(tx, &uuid)).await?;
    let number = |name: &str| -> Result<Option<usize>> {
        let wrong = |_| Error::bad_request(format!("{name} param must be an integer"));
        request.query.get(name).map(str::parse).transpose().map_err(wrong)
    };
    let (offset, limit) = (number("offset")?.unwrap_or(0), number("limit")?);
    let limit = limit.unwrap_or(usize::MAX).min(nova.options.max_limit as usize);
    let page = devices.iter().filter(|device| device.volume_id.is_some()).skip(offset).take(limit);
    let shown: Vec<Json> = page.map(|device| view(&request, device)).collect();
    Ok(Reply::ok(json!({"volumeAttachments": shown})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let (_, device) = find(&nova, &request).await?;
    Ok(Reply::ok(json!({"volumeAttachment": view(&request, &device)})))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::VOLUME_ATTACHMENT_CREATE)?["volumeAttachment"].clone();
    let instance = nova.server(&request).await?;
    check_shelved(&request, &instance, "attach_volume")?;
    check_unlocked(&request, &instance)?;
    let text = |name: &str| given[name].as_str().map(String::from);
    let volume_id = text("volumeId").unwrap_or_default();
    let volume = nova.volumes().show(&request.ctx, &volume_id).await?;
    let wanted = BlockDevice {
        source_type: "volume".into(),
        destination_type: "volume".into(),
        volume_id: Some(volume_id.clone()),
        volume_size_gb: i64::try_from(volume.size_gb).ok(),
        device_name: text("device"),
        delete_on_termination: is_true(&given["delete_on_termination"]),
        tag: text("tag"),
        ..BlockDevice::default()
    };
    let attached = attach_volume::begin(&nova, &request.ctx, &instance.uuid, wanted, &volume).await?;
    if request.since(2, 101) {
        return Ok(accepted());
    }
    let mut shown = json!({
        "id": volume_id, "volumeId": volume_id, "serverId": instance.uuid, "device": attached.device_name,
    });
    if request.since(2, 70) {
        shown["tag"] = json!(attached.tag);
    }
    if request.since(2, 79) {
        shown["delete_on_termination"] = attached.delete_on_termination.into();
    }
    Ok(Reply::ok(json!({"volumeAttachment": shown})))
}

/// Another volume takes its place, or it is said whether the volume goes with the server.
async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::VOLUME_ATTACHMENT_UPDATE)?["volumeAttachment"].clone();
    let (instance, mut device) = find(&nova, &request).await?;
    if given["volumeId"].as_str() != device.volume_id.as_deref() {
        return swap(&nova, &request, &instance, device, &given).await;
    }
    let kept = [
        ("id", json!(device.volume_id)),
        ("serverId", json!(device.instance_uuid)),
        ("device", json!(device.device_name)),
        ("tag", json!(device.tag)),
    ];
    for (name, current) in kept {
        if given.get(name).is_some_and(|value| *value != current) {
            return Err(Error::bad_request(format!("The {name} property is not mutable")));
        }
    }
    if let Some(flag) = given.get("delete_on_termination") {
        device.delete_on_termination = is_true(flag);
    }
    nova.write(move |tx| tx.update(&device)).await?;
    Ok(accepted())
}

async fn swap(
    nova: &Arc<Nova>,
    request: &Request,
    instance: &Instance,
    device: BlockDevice,
    given: &Json,
) -> Result<Reply> {
    request.can_rule("os_compute_api:os-volumes-attachments:swap", &super::target(instance))?;
    check_unlocked(request, instance)?;
    let new_id = given["volumeId"].as_str().unwrap_or_default();
    let old_id = device.volume_id.clone().unwrap_or_default();
    let missing = |error: Error| match error.is(base::ErrorKind::NotFound) {
        true => Error::bad_request(error.message),
        false => error,
    };
    let old = nova.volumes().show(&request.ctx, &old_id).await?;
    let new = nova.volumes().show(&request.ctx, new_id).await.map_err(missing)?;
    if new.size_gb < old.size_gb {
        return Err(Error::bad_request("Invalid volume: New volume must be the same size or larger."));
    }
    server_devices::check_available(&new)?;
    let (work, cx, size) =
        (nova.clone(), request.ctx.clone(), i64::try_from(new.size_gb).unwrap_or_default());
    nova.write(move |tx| swap_volume::begin(&work, tx, &cx, &device, &new.id, size)).await?;
    Ok(accepted())
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let (instance, device) = find(&nova, &request).await?;
    check_shelved(&request, &instance, "detach_volume")?;
    check_unlocked(&request, &instance)?;
    if device.boot_index == Some(0) {
        return Err(Error::bad_request("Cannot detach a root device volume"));
    }
    detach_volume::begin(&nova, &request.ctx, &instance.uuid, &device.id).await?;
    Ok(accepted())
}

/// Volumes of what is shelved come and go since 2.20.
fn check_shelved(request: &Request, instance: &Instance, name: &str) -> Result<()> {
    let shelved = [VmState::Shelved, VmState::ShelvedOffloaded];
    if !request.since(2, 20) && shelved.contains(&instance.vm_state) {
        return check_state(instance, &[], &[], name);
    }
    Ok(())
}

async fn find(nova: &Nova, request: &Request) -> Result<(Instance, BlockDevice)> {
    let instance = nova.server(request).await?;
    let (uuid, volume_id) = (instance.uuid.clone(), request.param("volume_id").to_string());
    let devices = nova.read(move |tx| store::block_devices(tx, &uuid)).await?;
    let found = devices.into_iter().find(|device| device.volume_id.as_deref() == Some(&volume_id));
    let missing = || {
        let volume_id = request.param("volume_id");
        Error::not_found(format!("Instance {} is not attached to volume {volume_id}", instance.uuid))
    };
    let device = found.ok_or_else(missing)?;
    Ok((instance, device))
}

fn view(request: &Request, device: &BlockDevice) -> Json {
    let mut shown = json!({
        "volumeId": device.volume_id, "serverId": device.instance_uuid, "device": device.device_name,
    });
    if !request.since(2, 89) {
        shown["id"] = json!(device.volume_id);
    }
    if request.since(2, 70) {
        shown["tag"] = json!(device.tag);
    }
    if request.since(2, 79) {
        shown["delete_on_termination"] = device.delete_on_termination.into();
    }
    if request.since(2, 89) {
        shown["attachment_id"] = json!(device.attachment_id);
        shown["bdm_uuid"] = json!(device.id);
    }
    shown
}

/// A name that the user chose, or the first that is free.
pub fn choose_name(wanted: Option<String>, instance: &Instance, devices: &[BlockDevice]) -> Result<String> {
    let mut taken: Vec<String> = devices.iter().filter_map(|device| device.device_name.clone()).collect();
    taken.push(server_devices::ROOT_DEVICE.into());
    let flavor = &instance.flavor;
    let local = [flavor.ephemeral_gb, flavor.swap].iter().filter(|size| **size > 0).count();
    taken.extend((1..=local).map(server_devices::nth_name));
    if let Some(name) = wanted {
        let in_use = Error::conflict(format!("The supplied device path ({name}) is in use."));
        return if taken.contains(&name) { Err(in_use) } else { Ok(name) };
    }
    let none =
        "The maximum allowed number of disk devices (26) to attach to a single instance has been exceeded.";
    server_devices::next_name(&taken).ok_or_else(|| Error::forbidden(none))
}
