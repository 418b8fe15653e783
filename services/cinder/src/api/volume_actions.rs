//! What may be done to a volume: `POST /volumes/{id}/action`.

use super::{
    Object, attachments::check_unused, bare, body, flag, integer, no_body, of_project, text, texts,
    volumes::load,
};
use crate::{
    Cinder,
    errors::{invalid_input, invalid_volume},
    flows::revert::Revert,
    model::*,
    requests::{self, settle_after_detach, swap_or_refuse},
    schemas, store,
};
use base::{Error, ErrorKind, Json, Result, id};
use contracts::images::NewImage;
use db::Tx;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action};

const PATH: &str = "/v3/volumes/{volume_id}/action";

pub fn routes() -> Routes<Cinder> {
    vec![
        action(PATH, "os-extend", "volume:extend", extend),
        action(PATH, "os-set_bootable", "volume:update", set_bootable),
        action(PATH, "os-update_readonly_flag", "volume:update_readonly_flag", set_readonly),
        action(PATH, "os-reset_status", "volume_extension:volume_admin_actions:reset_status", reset_status),
        action(PATH, "os-force_delete", "volume_extension:volume_admin_actions:force_delete", force_delete),
        action(PATH, "os-volume_upload_image", "volume_extension:volume_actions:upload_image", upload_image),
        action(PATH, "os-unmanage", "volume_extension:volume_unmanage", unmanage),
        action(PATH, "os-reserve", "volume_extension:volume_actions:reserve", reserve),
        action(PATH, "os-unreserve", "volume_extension:volume_actions:unreserve", unreserve),
        action(
            PATH,
            "os-begin_detaching",
            "volume_extension:volume_actions:begin_detaching",
            begin_detaching,
        ),
        action(PATH, "os-roll_detaching", "volume_extension:volume_actions:roll_detaching", roll_detaching),
        action(PATH, "os-attach", "volume_extension:volume_actions:attach", attach),
        action(PATH, "os-detach", "volume_extension:volume_actions:detach", detach),
        action(PATH, "os-force_detach", "volume_extension:volume_admin_actions:force_detach", force_detach),
        action(
            PATH,
            "os-initialize_connection",
            "volume_extension:volume_actions:initialize_connection",
            initialize_connection,
        ),
        action(
            PATH,
            "os-terminate_connection",
            "volume_extension:volume_actions:terminate_connection",
            terminate_connection,
        ),
        action(
            PATH,
            "os-set_image_metadata",
            "volume_extension:volume_image_metadata:set",
            set_image_metadata,
        ),
        action(PATH, "os-show_image_metadata", "volume:get_volume_metadata", show_image_metadata),
        action(
            PATH,
            "os-unset_image_metadata",
            "volume_extension:volume_image_metadata:remove",
            unset_image_metadata,
        ),
        action(PATH, "os-reimage", "volume:reimage", reimage).since(3, 68),
        action(PATH, "revert", "volume:revert_to_snapshot", revert).since(3, 40),
    ]
}

/// A volume that the caller may do this to.
pub async fn permitted(cinder: &Cinder, request: &Request) -> Result<Volume> {
    let volume = load(cinder, request).await?;
    request.can(&of_project(&volume.project_id))?;
    Ok(volume)
}

fn accepted() -> Result<Reply> {
    Ok(no_body(StatusCode::ACCEPTED))
}

async fn extend(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::EXTEND, "os-extend")?;
    let size = given.get("new_size").and_then(integer).unwrap_or_default();
    let volume = load(&cinder, &request).await?;
    let attached = request.since(3, 42) && volume.status == VolumeStatus::InUse;
    match attached {
        true => request.can_rule("volume:extend_attached_volume", &of_project(&volume.project_id))?,
        false => request.can(&of_project(&volume.project_id))?,
    }
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::extend(&own, tx, &cx, &volume.id, size, attached)).await?;
    accepted()
}

/// The image is there, and waits for its bytes, when this answers.
async fn upload_image(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let with_visibility = request.since(3, 1);
    let form = if with_visibility { &schemas::UPLOAD_IMAGE_V31 } else { &schemas::UPLOAD_IMAGE };
    let given = body(&request, form, "os-volume_upload_image")?;
    let volume = permitted(&cinder, &request).await?;
    let word = |key: &str, default: &str| text(&given, key).unwrap_or(default).to_string();
    let visibility = word("visibility", "private");
    if visibility == "public" {
        request.can_rule("volume_extension:volume_actions:upload_public", &of_project(&volume.project_id))?;
    }
    let image = NewImage {
        id: id::uuid(),
        name: word("image_name", ""),
        disk_format: word("disk_format", "raw"),
        container_format: word("container_format", "bare"),
        visibility,
        protected: given.get("protected").is_some_and(flag),
        ..requests::described_by(&volume)
    };
    let force = given.get("force").is_some_and(flag) && cinder.options.enable_force_upload;
    let (own, cx, wanted) = (cinder.clone(), request.ctx.clone(), image.clone());
    let kind = cinder.write(move |tx| requests::upload(&own, tx, &cx, &volume.id, &wanted, force)).await?;
    let volume = load(&cinder, &request).await?;
    cinder.until_image_waits(&request.ctx, &volume.id, &image.id).await?;
    let shown = json!({
        "id": volume.id,
        "updated_at": volume.updated_at.map(|time| time.micros()),
        "status": VolumeStatus::Uploading.as_str(),
        "display_description": volume.display_description,
        "size": volume.size,
        "volume_type": kind.map(|kind| whole_type(&kind)),
        "image_id": image.id,
        "container_format": image.container_format,
        "disk_format": image.disk_format,
        "image_name": image.name,
        "protected": image.protected,
        "visibility": image.visibility,
    });
    Ok(Reply::accepted(json!({"os-volume_upload_image": shown})))
}

/// All of a type's row, as upstream shows it here alone.
fn whole_type(kind: &VolumeType) -> Json {
    json!({
        "id": kind.id,
        "name": kind.name,
        "description": kind.description,
        "is_public": kind.is_public,
        "extra_specs": kind.extra_specs.0,
        "qos_specs_id": kind.qos_specs_id,
        "created_at": kind.created_at.micros(),
        "updated_at": kind.updated_at.map(|time| time.micros()),
        "deleted_at": null,
        "deleted": false,
    })
}

async fn unmanage(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    schemas::UNMANAGE.body(request.json())?;
    let volume = permitted(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::unmanage(&own, tx, &cx, &volume.id)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn set_bootable(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::SET_BOOTABLE, "os-set_bootable")?;
    let bootable = flag(&given["bootable"]);
    let volume = permitted(&cinder, &request).await?;
    change(&cinder, &volume, move |volume| volume.bootable = bootable).await?;
    Ok(no_body(StatusCode::OK))
}

async fn set_readonly(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::READONLY, "os-update_readonly_flag")?;
    let readonly = flag(&given["readonly"]);
    let volume = permitted(&cinder, &request).await?;
    if volume.status != VolumeStatus::Available {
        return Err(invalid_volume(format!(
            "Volume {} status must be available to update readonly flag, but current status is: {}.",
            volume.id, volume.status
        )));
    }
    change(&cinder, &volume, move |volume| volume.readonly = Some(readonly)).await?;
    accepted()
}

/// An administrator says what a volume is; nothing is done to its disk.
async fn reset_status(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::RESET_STATUS_VOLUME, "os-reset_status")?;
    let word = |key: &str| text(&given, key).filter(|word| !word.is_empty()).map(str::to_lowercase);
    let (status, attach_status, migration) =
        (word("status"), word("attach_status"), word("migration_status"));
    if status.is_none() && attach_status.is_none() && migration.is_none() {
        return Err(Error::bad_request(
            "Must specify 'status', 'attach_status' or 'migration_status' for update.",
        ));
    }
    let status = status.map(|word| known_status(&word)).transpose()?;
    let attach_status = attach_status.map(|word| known_attach_status(&word)).transpose()?;
    let volume = permitted(&cinder, &request).await?;
    if status == Some(VolumeStatus::Deleting) {
        return Err(Error::bad_request("Cannot reset-state to deleting"));
    }
    let now = cinder.clock.now();
    cinder
        .write(move |tx| {
            let attachments = store::attachments(tx, &volume.id)?;
            if status == Some(VolumeStatus::InUse) && attachments.is_empty() {
                return Err(Error::bad_request(
                    "Cannot reset-state to in-use because volume does not have any attachments.",
                ));
            }
            if attach_status == Some(AttachStatus::Detached) {
                store::delete_attachments(tx, &volume.id)?;
            }
            let migration = migration.clone();
            store::change(tx, &volume.id, now, |volume| {
                volume.status = status.unwrap_or(volume.status);
                volume.attach_status = attach_status.unwrap_or(volume.attach_status);
                if attach_status == Some(AttachStatus::Detached) {
                    volume.attached_mode = None;
                }
                if let Some(migration) = migration {
                    volume.migration_status = Some(migration).filter(|word| word != "none");
                }
            })
            .map(drop)
        })
        .await?;
    accepted()
}

fn known_status(word: &str) -> Result<VolumeStatus> {
    let list = || VolumeStatus::ALL.iter().map(|s| format!("'{s}'")).collect::<Vec<_>>().join(", ");
    VolumeStatus::parse(word).ok_or_else(|| {
        Error::bad_request(format!("Volume status: {word} is invalid, valid statuses are: ({}).", list()))
    })
}

fn known_attach_status(word: &str) -> Result<AttachStatus> {
    match AttachStatus::parse(word) {
        Some(status @ (AttachStatus::Attached | AttachStatus::Detached)) => Ok(status),
        _ => Err(Error::bad_request(format!(
            "Volume attach status: {word} is invalid, valid statuses are: ['attached', 'detached']."
        ))),
    }
}

async fn force_delete(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let volume = permitted(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::delete(&own, tx, &cx, &volume.id, false, true)).await?;
    accepted()
}

async fn reserve(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let volume = permitted(&cinder, &request).await?;
    let own = cinder.clone();
    cinder
        .write(move |tx| {
            let from: &[VolumeStatus] = match volume.multiattach {
                true => &[VolumeStatus::Available, VolumeStatus::InUse],
                false => &[VolumeStatus::Available],
            };
            swap_or_refuse(&own, tx, &volume.id, from, VolumeStatus::Attaching, |volume| {
                let expected = requests::or_list(from);
                format!("Volume status must be {expected} to reserve, but the status is {}.", volume.status)
            })
        })
        .await?;
    accepted()
}

/// What was not reserved stays as it is.
async fn unreserve(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let volume = permitted(&cinder, &request).await?;
    let now = cinder.clock.now();
    cinder
        .write(move |tx| {
            let attached = !store::attachments(tx, &volume.id)?.is_empty();
            let to = if attached { VolumeStatus::InUse } else { VolumeStatus::Available };
            store::swap(
                tx,
                &volume.id,
                &[VolumeStatus::Attaching],
                now,
                &[("status", db::Stored::store(&to))],
            )
        })
        .await?;
    accepted()
}

async fn begin_detaching(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let volume = permitted(&cinder, &request).await?;
    let own = cinder.clone();
    cinder
        .write(move |tx| {
            let refusal = "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach.";
            if store::volume(tx, &volume.id)?.attach_status != AttachStatus::Attached {
                return Err(invalid_volume(refusal));
            }
            let from = &[VolumeStatus::InUse];
            swap_or_refuse(&own, tx, &volume.id, from, VolumeStatus::Detaching, |_| refusal.into())
        })
        .await?;
    accepted()
}

async fn roll_detaching(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let volume = permitted(&cinder, &request).await?;
    let now = cinder.clock.now();
    let to = db::Stored::store(&VolumeStatus::InUse);
    cinder
        .write(move |tx| {
            store::swap(tx, &volume.id, &[VolumeStatus::Detaching], now, &[("status", to.clone())])
        })
        .await?;
    accepted()
}

/// The older way: the caller has connected the volume by itself and says so.
async fn attach(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ATTACH, "os-attach")?;
    let volume = permitted(&cinder, &request).await?;
    if volume.status == VolumeStatus::Maintenance {
        return Err(invalid_volume("The volume cannot be attached in maintenance mode."));
    }
    let mode = text(&given, "mode").unwrap_or("rw").to_string();
    if volume.readonly == Some(true) && mode != "ro" {
        return Err(Error::bad_request(format!("Invalid attaching mode '{mode}' for volume {}.", volume.id)));
    }
    let now = cinder.clock.now();
    cinder.write(move |tx| record_attachment(tx, &volume.id, &given, &mode, now)).await?;
    accepted()
}

fn record_attachment(
    tx: &mut Tx,
    volume_id: &str,
    given: &Object,
    mode: &str,
    now: base::Timestamp,
) -> Result<()> {
    let volume = store::volume(tx, volume_id)?;
    let (server, host) = (text(given, "instance_uuid"), text(given, "host_name"));
    let same = |one: &Attachment| match server {
        Some(server) => one.instance_uuid.as_deref() == Some(server),
        None => one.attached_host.as_deref() == host,
    };
    let known = store::attachments(tx, volume_id)?.iter().any(same);
    if !known {
        if volume.status == VolumeStatus::InUse && !volume.multiattach {
            return Err(Error::bad_request(
                "Error attaching volume - InvalidVolume: Invalid volume: volume is already attached and multiple attachments are not enabled",
            ));
        }
        tx.insert(&Attachment {
            id: id::uuid(),
            volume_id: volume_id.into(),
            project_id: volume.project_id,
            instance_uuid: server.map(String::from),
            attached_host: host.map(String::from),
            mountpoint: text(given, "mountpoint").map(String::from),
            attach_mode: mode.into(),
            attach_status: AttachStatus::Attached,
            attach_time: Some(now),
            detach_time: None,
            connector: Json::Null,
            connection: None,
            created_at: now,
        })?;
    }
    store::change(tx, volume_id, now, |volume| {
        volume.status = VolumeStatus::InUse;
        volume.attach_status = AttachStatus::Attached;
        volume.attached_mode = Some(mode.into());
        volume.readonly.get_or_insert(false);
    })
    .map(drop)
}

async fn detach(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::DETACH, "os-detach")?;
    let volume = permitted(&cinder, &request).await?;
    if volume.status == VolumeStatus::Maintenance {
        return Err(invalid_volume("The volume cannot be detached in maintenance mode."));
    }
    detach_one(&cinder, &request, volume, text(&given, "attachment_id").map(String::from), false).await
}

async fn force_detach(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::FORCE_DETACH, "os-force_detach")?;
    let volume = permitted(&cinder, &request).await?;
    detach_one(&cinder, &request, volume, text(&given, "attachment_id").map(String::from), true).await
}

/// The one attachment that is named, or the only one.
async fn detach_one(
    cinder: &Arc<Cinder>,
    request: &Request,
    volume: Volume,
    attachment_id: Option<String>,
    forced: bool,
) -> Result<Reply> {
    let (id, now) = (volume.id.clone(), cinder.clock.now());
    let found = cinder
        .write(move |tx| {
            let attachments = store::attachments(tx, &id)?;
            let named = attachments.iter().find(|one| Some(&one.id) == attachment_id.as_ref());
            match (named, attachments.as_slice()) {
                (Some(named), _) => Ok(Some(named.clone())),
                (None, _) if attachment_id.is_some() => Err(Error::bad_request(format!(
                    "Error detaching volume - VolumeAttachmentNotFound: Volume attachment could not be found with filter: attachment_id = {}.",
                    attachment_id.clone().unwrap_or_default()
                ))),
                (None, [only]) => Ok(Some(only.clone())),
                (None, []) => {
                    // Nothing is attached: what says so is put right.
                    settle_after_detach(tx, &id, now, forced)?;
                    Ok(None)
                }
                (None, _) => Err(Error::bad_request(
                    "Error detaching volume - InvalidVolume: Invalid volume: Detach volume failed: More than one attachment, but no attachment_id provided.",
                )),
            }
        })
        .await?;
    if let Some(attachment) = found {
        check_unused(cinder, request, &attachment).await?;
        cinder.disconnect_and_wait(&request.ctx, &attachment.id, forced).await?;
    }
    accepted()
}

/// For callers that connect hosts themselves; the connection goes with [`terminate_connection`].
async fn initialize_connection(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::INITIALIZE_CONNECTION, "os-initialize_connection")?;
    let volume = permitted(&cinder, &request).await?;
    if volume.status == VolumeStatus::Maintenance {
        return Err(invalid_volume("The volume connection cannot be initialized in maintenance mode."));
    }
    let connector = &given["connector"];
    let word = |key: &str| connector.get(key).and_then(Json::as_str).unwrap_or_default().to_string();
    let from = contracts::agents::volume::Reach {
        host: word("host"),
        ip: word("ip"),
        read_only: volume.readonly == Some(true),
    };
    if from.host.is_empty() {
        return Err(invalid_input("Connector doesn't have required information: host"));
    }
    let host = volume.back_end().ok_or_else(|| invalid_volume("it is on no back end"))?;
    let connection = cinder.agent(host).connect(&cinder.own(&request.ctx), &volume.id, &from).await?;
    let mut info = serde_json::to_value(connection)?;
    info["data"]["access_mode"] = if from.read_only { "ro" } else { "rw" }.into();
    info["enforce_multipath"] = false.into();
    Ok(Reply::ok(json!({"connection_info": info})))
}

async fn terminate_connection(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    body(&request, &schemas::TERMINATE_CONNECTION, "os-terminate_connection")?;
    let volume = permitted(&cinder, &request).await?;
    let (id, now) = (volume.id.clone(), cinder.clock.now());
    let attachments = cinder.read(move |tx| store::attachments(tx, &id)).await?;
    if let [only] = attachments.as_slice() {
        check_unused(&cinder, &request, only).await?;
    }
    let connected = attachments.iter().any(|one| one.connection.is_some());
    // Attachments of the newer kind keep their own connections.
    if let Some(host) = volume.back_end().filter(|_| !connected) {
        cinder.agent(host).disconnect(&cinder.own(&request.ctx), &volume.id, &[]).await?;
    }
    let to = db::Stored::store(&VolumeStatus::Available);
    let id = volume.id.clone();
    cinder
        .write(move |tx| store::swap(tx, &id, &[VolumeStatus::Attaching], now, &[("status", to.clone())]))
        .await?;
    accepted()
}

async fn set_image_metadata(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::SET_IMAGE_METADATA, "os-set_image_metadata")?;
    let metadata = texts(given.get("metadata"));
    let volume = permitted(&cinder, &request).await?;
    let mut all = volume.image_metadata.0.clone();
    all.extend(metadata.clone());
    change(&cinder, &volume, move |volume| volume.image_metadata.0.extend(metadata.clone())).await?;
    Ok(Reply::ok(json!({"metadata": all})))
}

async fn show_image_metadata(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let volume = permitted(&cinder, &request).await?;
    Ok(Reply::ok(json!({"metadata": volume.image_metadata.0})))
}

async fn unset_image_metadata(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::UNSET_IMAGE_METADATA, "os-unset_image_metadata")?;
    let key = text(&given, "key").unwrap_or_default().to_string();
    let volume = permitted(&cinder, &request).await?;
    if !volume.image_metadata.contains_key(&key) {
        return Err(Error::not_found("Metadata item was not found."));
    }
    change(&cinder, &volume, move |volume| drop(volume.image_metadata.0.remove(&key))).await?;
    Ok(no_body(StatusCode::OK))
}

async fn reimage(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::REIMAGE, "os-reimage")?;
    let volume = load(&cinder, &request).await?;
    let image_id = text(&given, "image_id").unwrap_or_default();
    let found = cinder.peers.images.show(&request.ctx, image_id).await;
    let missing = || Error::not_found(format!("Image {image_id} could not be found."));
    let target = of_project(&volume.project_id);
    match volume.status {
        VolumeStatus::Reserved => request.can_rule("volume:reimage_reserved", &target)?,
        _ => request.can(&target)?,
    }
    let image = found.map_err(|error| if error.is(ErrorKind::NotFound) { missing() } else { error })?;
    let reserved = given.get("reimage_reserved").is_some_and(flag);
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::reimage(&own, tx, &cx, &volume.id, &image, reserved)).await?;
    accepted()
}

async fn revert(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::REVERT, "revert")?;
    let wanted = text(&given, "snapshot_id").map(String::from);
    let volume = permitted(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder
        .write(move |tx| {
            let volume = store::volume(tx, &volume.id)?;
            let newest = store::snapshots(tx, &volume.id)?.into_iter().next();
            let newest = newest.ok_or_else(|| {
                Error::bad_request(format!("Volume {} doesn't have any snapshots.", volume.id))
            })?;
            let named = wanted.clone().unwrap_or_else(|| "None".into());
            if named != newest.id {
                return Err(Error::bad_request(format!(
                    "Specified snapshot {named} is None or not the latest one of volume {}.",
                    volume.id
                )));
            }
            if volume.size != newest.volume_size {
                return Err(Error::bad_request(format!(
                    "Can't revert volume {} to its latest snapshot {named}. The volume size must be equal to the snapshot size.",
                    volume.id
                )));
            }
            let refuse = |what: &str, noun: &str| {
                Err(Error::conflict(format!(
                    "Invalid {what}: Can't revert volume {} to its latest snapshot {named}. {noun}'s status must be 'available'.",
                    volume.id
                )))
            };
            if volume.status != VolumeStatus::Available {
                return refuse("volume", "Volume");
            }
            if newest.status != SnapshotStatus::Available {
                return refuse("snapshot", "Snapshot");
            }
            let now = own.clock.now();
            store::change(tx, &volume.id, now, |volume| volume.status = VolumeStatus::Reverting)?;
            store::change_snapshot(tx, &newest.id, now, |s| s.status = SnapshotStatus::Restoring)?;
            let flow = Revert { volume_id: volume.id.clone(), snapshot_id: newest.id };
            own.flows.start(tx, &cx, &flow, &volume.id).map(drop)
        })
        .await?;
    accepted()
}

async fn change(
    cinder: &Arc<Cinder>,
    volume: &Volume,
    change: impl Fn(&mut Volume) + Send + 'static,
) -> Result<()> {
    let (id, now) = (volume.id.clone(), cinder.clock.now());
    cinder.write(move |tx| store::change(tx, &id, now, &change).map(drop)).await
}
