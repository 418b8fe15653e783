//! What users and nova may ask of volumes, each in one transaction: checks, the change of state, and the operation
//! that it begins.

use crate::{
    Cinder,
    errors::*,
    flows::{
        connect::Connect,
        create::{Create, place},
        delete::Delete,
        disconnect::Disconnect,
        extend::Extend,
        manage::{ManageSnapshot, ManageVolume, VOLUME_PREFIX},
        reimage::Reimage,
        snapshot,
        upload::Upload,
    },
    messages::NO_BACK_END,
    model::*,
    quota::{self, Added},
    store,
};
use base::{Context, Error, Json, Result, id};
use contracts::images::{Image, NewImage};
use db::{AsJson, List, Stored, Tx};
use flow::Outcome;
use std::{collections::BTreeMap, sync::Arc};

const GIB: u64 = 1 << 30;

/// A volume that somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    /// None: as large as what it is made from.
    pub size: Option<i64>,
    pub image: Option<Image>,
    pub snapshot_id: Option<String>,
    pub source_volid: Option<String>,
    /// Id or name.
    pub volume_type: Option<String>,
    pub availability_zone: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub group_id: Option<String>,
    pub backup_id: Option<String>,
}

/// Others' things are as if they were not there.
pub fn sees(cx: &Context, project_id: &str) -> bool {
    cx.is_admin() || cx.project_id == project_id
}

pub fn volume_for(tx: &mut Tx, cx: &Context, id: &str) -> Result<Volume> {
    store::volume(tx, id).and_then(|found| match sees(cx, &found.project_id) {
        true => Ok(found),
        false => Err(volume_not_found(id)),
    })
}

pub fn snapshot_for(tx: &mut Tx, cx: &Context, id: &str) -> Result<Snapshot> {
    store::snapshot(tx, id).and_then(|found| match sees(cx, &found.project_id) {
        true => Ok(found),
        false => Err(snapshot_not_found(id)),
    })
}

/// A type that the caller may use, by id or name.
pub fn type_for(tx: &mut Tx, cx: &Context, id_or_name: &str) -> Result<VolumeType> {
    let missing = || Error::not_found(format!("Volume type with name {id_or_name} could not be found."));
    let found = match id::is_uuid(id_or_name) {
        true => tx.find::<VolumeType>(id_or_name)?,
        false => None,
    };
    let found = match found {
        Some(found) => Some(found),
        None => tx.list::<VolumeType>(&List::all().eq("name", id_or_name))?.into_iter().next(),
    };
    found.filter(|kind| sees_type(cx, kind)).ok_or_else(missing)
}

pub fn sees_type(cx: &Context, kind: &VolumeType) -> bool {
    kind.is_public || cx.is_admin() || kind.projects.contains(&cx.project_id)
}

/// The type of volumes that name none.
pub fn default_type(cinder: &Cinder, tx: &mut Tx, project_id: &str) -> Result<VolumeType> {
    if let Some(of_project) = tx.find::<DefaultType>(project_id)?
        && let Some(kind) = tx.find::<VolumeType>(&of_project.volume_type_id)?
    {
        return Ok(kind);
    }
    let name = &cinder.options.default_volume_type;
    let found = tx.list::<VolumeType>(&List::all().eq("name", name))?.into_iter().next();
    found.ok_or_else(|| {
        Error::internal(format!(
            "The request cannot be fulfilled as the default volume type {name} cannot be found."
        ))
    })
}

pub fn is_multiattach(kind: &VolumeType) -> bool {
    kind.extra_specs.get("multiattach").is_some_and(|value| value == "<is> True")
}

/// Takes its quota and begins to make the volume.
pub fn create(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, wanted: &Wanted) -> Result<Volume> {
    let sources = [
        wanted.image.is_some(),
        wanted.snapshot_id.is_some(),
        wanted.source_volid.is_some(),
        wanted.backup_id.is_some(),
    ];
    if sources.iter().filter(|given| **given).count() > 1 {
        return Err(invalid_input("May specify only one of backup, imageRef, snapshot, source volume"));
    }
    let snapshot = wanted.snapshot_id.as_deref().map(|id| snapshot_for(tx, cx, id)).transpose()?;
    let source = match (&snapshot, &wanted.source_volid) {
        (Some(snapshot), _) => Some(store::volume(tx, &snapshot.volume_id)?),
        (None, Some(id)) => Some(volume_for(tx, cx, id)?),
        (None, None) => None,
    };
    check_sources(snapshot.as_ref(), source.as_ref())?;
    let kind = kind(cinder, tx, cx, wanted, snapshot.as_ref(), source.as_ref())?;
    let size = match &wanted.backup_id {
        Some(id) => {
            let backup = crate::backups::hold(tx, cx, id, cinder.clock.now())?;
            let size = wanted.size.unwrap_or(backup.size);
            check_backup_size(size, backup.size)?;
            size
        }
        None => size(wanted, snapshot.as_ref(), source.as_ref())?,
    };
    if let Some(image) = &wanted.image {
        check_image(image, size)?;
    }
    check_type_size(&kind, size)?;
    if let Some(id) = &wanted.group_id {
        crate::groups::admit(tx, cx, id, &kind)?;
    }
    let availability_zone = zone(cinder, tx, wanted, source.as_ref())?;
    quota::check_size(tx, &cinder.options, &cx.project_id, size)?;
    let added = Added { volumes: 1, gigabytes: size, ..Added::default() };
    quota::check(tx, &cinder.options, &cx.project_id, &kind.name, added)?;
    let volume = Volume {
        id: wanted.id.clone(),
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        display_name: wanted.name.clone(),
        display_description: wanted.description.clone(),
        size,
        wanted_size: 0,
        availability_zone,
        status: VolumeStatus::Creating,
        previous_status: None,
        attach_status: AttachStatus::Detached,
        migration_status: None,
        multiattach: is_multiattach(&kind),
        volume_type_id: kind.id,
        snapshot_id: wanted.snapshot_id.clone(),
        source_volid: wanted.source_volid.clone(),
        backup_id: wanted.backup_id.clone(),
        image_id: wanted.image.as_ref().map(|image| image.id.clone()),
        image_disk_format: wanted.image.as_ref().map(|image| image.disk_format.clone()),
        bootable: false,
        readonly: None,
        attached_mode: None,
        metadata: AsJson(wanted.metadata.clone()),
        // A copy boots as its original does.
        image_metadata: match (&wanted.image, &source) {
            (Some(image), _) => AsJson(image_metadata(image)),
            (None, Some(source)) => source.image_metadata.clone(),
            (None, None) => AsJson::default(),
        },
        host: None,
        group_id: wanted.group_id.clone(),
        created_at: cinder.clock.now(),
        updated_at: None,
        launched_at: None,
    };
    tx.insert(&volume)?;
    // One that fits nowhere is told so as the operation that tries again, and fails, tells it.
    match place(cinder, tx, &volume.id) {
        Err(error) if error.code.as_deref() != Some(NO_BACK_END) => return Err(error),
        _ => {}
    }
    cinder.flows.start(tx, cx, &Create { volume_id: volume.id.clone() }, &volume.id)?;
    Ok(volume)
}

fn check_sources(snapshot: Option<&Snapshot>, source: Option<&Volume>) -> Result<()> {
    match (snapshot, source) {
        (Some(snapshot), _) if snapshot.status != SnapshotStatus::Available => {
            Err(invalid_snapshot("Originating snapshot status must be one of 'available' values"))
        }
        (None, Some(source)) if !matches!(source.status, VolumeStatus::Available | VolumeStatus::InUse) => {
            Err(invalid_volume("Originating source volume status must be one of 'available, in-use' values"))
        }
        _ => Ok(()),
    }
}

fn kind(
    cinder: &Cinder,
    tx: &mut Tx,
    cx: &Context,
    wanted: &Wanted,
    snapshot: Option<&Snapshot>,
    source: Option<&Volume>,
) -> Result<VolumeType> {
    let of_source = snapshot.map(|s| &s.volume_type_id).or(source.map(|s| &s.volume_type_id));
    let of_image = wanted.image.as_ref().and_then(|image| image.properties.get("cinder_img_volume_type"));
    match (&wanted.volume_type, of_source, of_image) {
        (Some(named), ..) => type_for(tx, cx, named),
        (None, Some(id), _) => tx.find::<VolumeType>(id)?.ok_or_else(|| type_not_found(id)),
        (None, None, Some(named)) => type_for(tx, cx, named),
        (None, None, None) => default_type(cinder, tx, &cx.project_id),
    }
}

fn check_backup_size(size: i64, least: i64) -> Result<()> {
    match size < least {
        true => Err(invalid_input(format!(
            "Volume size {size} GB cannot be smaller than the backup size {least} GB. It must be >= backup size."
        ))),
        false => Ok(()),
    }
}

fn size(wanted: &Wanted, snapshot: Option<&Snapshot>, source: Option<&Volume>) -> Result<i64> {
    let least = snapshot.map(|s| s.volume_size).or(source.map(|s| s.size));
    let size = wanted.size.or(least).ok_or_else(malformed)?;
    match (least, snapshot) {
        (Some(least), Some(_)) if size < least => Err(invalid_input(format!(
            "Volume size '{size}'GB cannot be smaller than the snapshot size {least}GB. They must be >= original snapshot size."
        ))),
        (Some(least), None) if size < least => Err(invalid_input(format!(
            "Volume size '{size}'GB cannot be smaller than original volume size  {least}GB. They must be >= original volume size."
        ))),
        _ => Ok(size),
    }
}

/// A type's own limits on size, as an administrator may set them among its extra specs.
pub fn check_type_size(kind: &VolumeType, size: i64) -> Result<()> {
    let limit = |key: &str| kind.extra_specs.get(key).and_then(|value| value.parse::<i64>().ok());
    if let Some(min) = limit("provisioning:min_vol_size")
        && size < min
    {
        return Err(invalid_input(format!(
            "Specified volume size of '{size}' is less than the minimum required size of '{min}' for volume type '{}'.",
            kind.name
        )));
    }
    if let Some(max) = limit("provisioning:max_vol_size")
        && size > max
    {
        return Err(invalid_input(format!(
            "Specified volume size of '{size}' is greater than the maximum allowable size of '{max}' for volume type '{}'.",
            kind.name
        )));
    }
    Ok(())
}

fn check_image(image: &Image, size: i64) -> Result<()> {
    if image.status != "active" {
        return Err(invalid_input(format!("Image {} is not active.", image.id)));
    }
    let gb = |bytes: u64| bytes.div_ceil(GIB);
    let size = size.unsigned_abs();
    let larger =
        [Some(image.size_bytes), image.virtual_size_bytes].into_iter().flatten().find(|b| gb(*b) > size);
    if let Some(bytes) = larger {
        return Err(invalid_input(format!(
            "Size of specified image {}GB is larger than volume size {size}GB.",
            gb(bytes)
        )));
    }
    if size < image.min_disk_gb {
        return Err(invalid_input(format!(
            "Volume size {size}GB cannot be smaller than the image minDisk size {}GB.",
            image.min_disk_gb
        )));
    }
    Ok(())
}

/// What nova asks of a volume that was an image.
fn image_metadata(image: &Image) -> BTreeMap<String, String> {
    let own = [
        ("image_id", image.id.clone()),
        ("image_name", image.name.clone()),
        ("checksum", image.checksum.clone().unwrap_or_default()),
        ("container_format", image.container_format.clone()),
        ("disk_format", image.disk_format.clone()),
        ("min_disk", image.min_disk_gb.to_string()),
        ("min_ram", image.min_ram_mb.to_string()),
        ("size", image.size_bytes.to_string()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_string(), value));
    image.properties.clone().into_iter().chain(own).collect()
}

fn zone(cinder: &Cinder, tx: &mut Tx, wanted: &Wanted, source: Option<&Volume>) -> Result<String> {
    let default = &cinder.options.storage_availability_zone;
    let of_source = source.map(|source| &source.availability_zone);
    let zone = wanted.availability_zone.as_ref().or(of_source).unwrap_or(default).clone();
    if zone != *default && !zones(tx)?.contains_key(&zone) {
        return Err(Error::bad_request(format!("Availability zone '{zone}' is invalid.")));
    }
    match source {
        Some(source) if source.availability_zone != zone => {
            let what = if wanted.snapshot_id.is_some() { "snapshot" } else { "source volume" };
            Err(invalid_input(format!("Volume must be in the same availability zone as the {what}")))
        }
        _ => Ok(zone),
    }
}

/// Zones that back ends are in, and whether one of them is enabled.
pub fn zones(tx: &mut Tx) -> Result<BTreeMap<String, bool>> {
    let mut zones = BTreeMap::new();
    for back_end in tx.list::<BackEnd>(&List::all())? {
        *zones.entry(back_end.facts.availability_zone.clone()).or_insert(false) |= !back_end.disabled;
    }
    Ok(zones)
}

fn refuse_frozen(tx: &mut Tx, volume: &Volume) -> Result<()> {
    let back_end = volume.back_end().map(|host| tx.find::<BackEnd>(host)).transpose()?.flatten();
    match back_end.is_some_and(|back_end| back_end.frozen) {
        true => Err(invalid_input("Modification operations are not allowed on frozen storage backends.")),
        false => Ok(()),
    }
}

const DELETABLE: &[VolumeStatus] = &[
    VolumeStatus::Available,
    VolumeStatus::Error,
    VolumeStatus::ErrorRestoring,
    VolumeStatus::ErrorExtending,
    VolumeStatus::ErrorManaging,
];

pub fn delete(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    id: &str,
    cascade: bool,
    force: bool,
) -> Result<()> {
    refuse_in_group(tx, id)?;
    end(cinder, tx, cx, id, cascade, force, false)
}

/// With its group, whose snapshots are looked at before.
pub fn delete_with_group(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str) -> Result<()> {
    end(cinder, tx, cx, id, false, true, false)
}

fn refuse_in_group(tx: &mut Tx, id: &str) -> Result<()> {
    match store::volume(tx, id)?.group_id {
        None => Ok(()),
        Some(_) => Err(undeletable(false)),
    }
}

fn undeletable(force: bool) -> Error {
    let statuses = match force {
        true => String::new(),
        false => format!(" status must be {} and", or_list(DELETABLE)),
    };
    invalid_volume(format!(
        "Volume{statuses} must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer."
    ))
}

/// As a delete, and the disk stays where it is.
pub fn unmanage(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str) -> Result<()> {
    refuse_in_group(tx, id)?;
    end(cinder, tx, cx, id, false, false, true)
}

fn end(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    id: &str,
    cascade: bool,
    force: bool,
    unmanage: bool,
) -> Result<()> {
    let volume = store::volume(tx, id)?;
    refuse_frozen(tx, &volume)?;
    let snapshots = store::snapshots(tx, id)?;
    let kept = match (cascade, force) {
        (false, _) => !snapshots.is_empty(),
        (true, true) => false,
        (true, false) => {
            let undeletable = |s: &Snapshot| {
                !matches!(
                    s.status,
                    SnapshotStatus::Available | SnapshotStatus::Error | SnapshotStatus::Deleting
                ) || !sees(cx, &s.project_id)
            };
            snapshots.iter().any(undeletable)
        }
    };
    let status_fits = force || DELETABLE.contains(&volume.status);
    if !status_fits || kept || volume.attach_status == AttachStatus::Attached {
        return Err(undeletable(force));
    }
    let now = cinder.clock.now();
    store::change(tx, id, now, |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = VolumeStatus::Deleting;
    })?;
    for snapshot in &snapshots {
        store::change_snapshot(tx, &snapshot.id, now, |s| s.status = SnapshotStatus::Deleting)?;
    }
    // What is still being done to it, and may stop, stops.
    let flow = Delete { volume_id: id.into(), unmanage };
    cinder.flows.start_instead(tx, cx, &flow, id).map(drop)
}

/// `a or b or c`, as upstream's messages list states.
pub fn or_list(statuses: &[VolumeStatus]) -> String {
    statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(" or ")
}

/// `attached`: the caller may extend a volume that servers have, and the volume is one.
pub fn extend(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    id: &str,
    size: i64,
    attached: bool,
) -> Result<()> {
    let volume = store::volume(tx, id)?;
    if size <= volume.size {
        return Err(invalid_input(format!(
            "New size for extend must be greater than current size. (current: {}, extended: {size}).",
            volume.size
        )));
    }
    let kind = tx.find::<VolumeType>(&volume.volume_type_id)?;
    if let Some(kind) = &kind {
        check_type_size(kind, size)?;
    }
    let expected = if attached { VolumeStatus::InUse } else { VolumeStatus::Available };
    if volume.status != expected {
        return Err(invalid_volume(format!(
            "Volume {id} status must be '{{'status': '{expected}'}}' to extend, currently {}.",
            volume.status
        )));
    }
    let back_end = volume.back_end().map(|host| tx.find::<BackEnd>(host)).transpose()?.flatten();
    if attached && !back_end.is_some_and(|back_end| back_end.facts.online_extend) {
        return Err(invalid_volume(format!(
            "Volume {id} is attached, and its back end extends no attached volumes: detach it first."
        )));
    }
    quota::check_size(tx, &cinder.options, &volume.project_id, size)?;
    let added = Added { gigabytes: size - volume.size, ..Added::default() };
    let type_name = kind.map(|kind| kind.name).unwrap_or_default();
    quota::check(tx, &cinder.options, &volume.project_id, &type_name, added)?;
    store::change(tx, id, cinder.clock.now(), |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = VolumeStatus::Extending;
        volume.wanted_size = size;
    })?;
    cinder.flows.start(tx, cx, &Extend { volume_id: id.into(), size }, id).map(drop)
}

/// Begins to write an image over a volume; over one that is spoken for when `reserved`, as nova asks.
pub fn reimage(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    id: &str,
    image: &Image,
    reserved: bool,
) -> Result<()> {
    let volume = store::volume(tx, id)?;
    if store::attachments(tx, id)?.len() > 1 {
        return Err(Error::conflict("Cannot re-image a volume which is attached to more than one server."));
    }
    let (may, expected): (&[VolumeStatus], _) = match reserved {
        true => (
            &[VolumeStatus::Available, VolumeStatus::Error, VolumeStatus::Reserved],
            "available or error or reserved",
        ),
        false => (&[VolumeStatus::Available, VolumeStatus::Error], "available or error"),
    };
    if !may.contains(&volume.status) {
        return Err(invalid_volume(format!(
            "Volume {id} status must be {expected}, but current status is {}.",
            volume.status
        )));
    }
    check_image(image, volume.size)?;
    store::change(tx, id, cinder.clock.now(), |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = VolumeStatus::Downloading;
    })?;
    let flow = Reimage {
        volume_id: id.into(),
        disk_id: base::id::uuid(),
        image_id: image.id.clone(),
        image_disk_format: image.disk_format.clone(),
        image_metadata: image_metadata(image),
    };
    cinder.flows.start(tx, cx, &flow, id).map(drop)
}

/// A snapshot that somebody wants.
#[derive(Clone, Debug, Default)]
pub struct WantedSnapshot {
    pub volume_id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Of a volume that is in use, too.
    pub in_use: bool,
    /// That of the group whose snapshot it belongs to.
    pub group_snapshot_id: Option<String>,
}

fn new_snapshot(cinder: &Cinder, cx: &Context, volume: &Volume, wanted: &WantedSnapshot) -> Snapshot {
    Snapshot {
        id: id::uuid(),
        volume_id: volume.id.clone(),
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        display_name: wanted.name.clone(),
        display_description: wanted.description.clone(),
        status: SnapshotStatus::Creating,
        progress: "0%".into(),
        volume_size: volume.size,
        volume_type_id: volume.volume_type_id.clone(),
        group_snapshot_id: wanted.group_snapshot_id.clone(),
        metadata: AsJson(wanted.metadata.clone()),
        created_at: cinder.clock.now(),
        updated_at: None,
    }
}

pub fn create_snapshot(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    wanted: &WantedSnapshot,
) -> Result<Snapshot> {
    let volume = store::volume(tx, &wanted.volume_id)?;
    refuse_frozen(tx, &volume)?;
    if volume.status == VolumeStatus::Maintenance {
        return Err(invalid_volume("The snapshot cannot be created when the volume is in maintenance mode."));
    }
    if volume.status == VolumeStatus::Error {
        return Err(invalid_volume("The snapshot cannot be created when the volume is in error status."));
    }
    let allowed: &[VolumeStatus] = match wanted.in_use {
        true => &[VolumeStatus::Available, VolumeStatus::InUse],
        false => &[VolumeStatus::Available],
    };
    if !allowed.contains(&volume.status) {
        let allowed = allowed.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
        return Err(invalid_volume(format!(
            "Volume {} status must be {allowed}, but current status is: {}.",
            volume.id, volume.status
        )));
    }
    let type_name = tx.find::<VolumeType>(&volume.volume_type_id)?.map(|kind| kind.name).unwrap_or_default();
    let added = Added { snapshots: 1, gigabytes: volume.size, ..Added::default() };
    quota::check(tx, &cinder.options, &cx.project_id, &type_name, added)?;
    let snapshot = new_snapshot(cinder, cx, &volume, wanted);
    tx.insert(&snapshot)?;
    let flow = snapshot::CreateSnapshot { snapshot_id: snapshot.id.clone(), volume_id: volume.id.clone() };
    cinder.flows.start(tx, cx, &flow, &volume.id)?;
    Ok(snapshot)
}

pub fn delete_snapshot(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str, force: bool) -> Result<()> {
    refuse_in_group_snapshot(tx, id)?;
    end_snapshot(cinder, tx, cx, id, force, false)
}

/// With the snapshot of its group.
pub fn delete_snapshot_with_group(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str) -> Result<()> {
    end_snapshot(cinder, tx, cx, id, true, false)
}

fn refuse_in_group_snapshot(tx: &mut Tx, id: &str) -> Result<()> {
    match store::snapshot(tx, id)?.group_snapshot_id {
        None => Ok(()),
        Some(_) => Err(invalid_snapshot(
            "Snapshot status must be available or error and must not be part of a group.",
        )),
    }
}

/// As a delete, and its data stays where it is.
pub fn unmanage_snapshot(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str) -> Result<()> {
    refuse_in_group_snapshot(tx, id)?;
    end_snapshot(cinder, tx, cx, id, false, true)
}

fn end_snapshot(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    id: &str,
    force: bool,
    unmanage: bool,
) -> Result<()> {
    let snapshot = store::snapshot(tx, id)?;
    let volume = store::volume(tx, &snapshot.volume_id)?;
    refuse_frozen(tx, &volume)?;
    if !force && !matches!(snapshot.status, SnapshotStatus::Available | SnapshotStatus::Error) {
        return Err(invalid_snapshot(
            "Snapshot status must be available or error and must not be part of a group.",
        ));
    }
    let status = if unmanage { SnapshotStatus::Unmanaging } else { SnapshotStatus::Deleting };
    store::change_snapshot(tx, id, cinder.clock.now(), |s| s.status = status)?;
    let volume_id = snapshot.volume_id.clone();
    let flow = snapshot::DeleteSnapshot { snapshot_id: id.into(), volume_id, unmanage };
    cinder.flows.start(tx, cx, &flow, &snapshot.volume_id).map(drop)
}

/// A disk that is on a back end, and shall be a volume.
#[derive(Clone, Debug, Default)]
pub struct WantedDisk {
    pub id: String,
    /// With or without the pool.
    pub host: String,
    /// Its name there.
    pub source: Option<String>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub volume_type: Option<String>,
    pub availability_zone: Option<String>,
    pub bootable: bool,
    pub metadata: BTreeMap<String, String>,
}

/// Its size is known when the back end has looked at it.
pub fn manage(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, wanted: &WantedDisk) -> Result<Volume> {
    let kind = match &wanted.volume_type {
        None => default_type(cinder, tx, &cx.project_id)?,
        Some(name) => type_for(tx, cx, name).map_err(|_| {
            Error::bad_request(format!("Invalid volume type: Cannot find requested '{name}' volume type"))
        })?,
    };
    if store::is_encrypted(tx, &kind.id)? {
        return Err(Error::bad_request("Managing to an encrypted volume type is not supported."));
    }
    let source_id = wanted.source.as_deref().map(|name| name.strip_prefix(VOLUME_PREFIX).unwrap_or(name));
    if let Some(id) = source_id
        && tx.find::<Volume>(id)?.is_some()
    {
        return Err(Error::bad_request("Unable to manage existing volume. The volume is already managed"));
    }
    let name = wanted.host.split('#').next().unwrap_or(&wanted.host);
    let back_end = tx.find::<BackEnd>(name)?;
    let back_end = back_end.ok_or_else(|| Error::bad_request(format!("Host '{}' not found", wanted.host)))?;
    let added = Added { volumes: 1, ..Added::default() };
    quota::check(tx, &cinder.options, &cx.project_id, &kind.name, added)?;
    let zone = wanted.availability_zone.clone();
    let volume = Volume {
        id: wanted.id.clone(),
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        display_name: wanted.name.clone(),
        display_description: wanted.description.clone(),
        size: 0,
        wanted_size: 0,
        availability_zone: zone.unwrap_or_else(|| back_end.facts.availability_zone.clone()),
        status: VolumeStatus::Managing,
        previous_status: None,
        attach_status: AttachStatus::Detached,
        migration_status: None,
        multiattach: is_multiattach(&kind),
        volume_type_id: kind.id,
        snapshot_id: None,
        source_volid: None,
        backup_id: None,
        image_id: None,
        image_disk_format: None,
        bootable: wanted.bootable,
        readonly: None,
        attached_mode: None,
        metadata: AsJson(wanted.metadata.clone()),
        image_metadata: AsJson::default(),
        host: Some(crate::scheduler::pool(&back_end)),
        group_id: None,
        created_at: cinder.clock.now(),
        updated_at: None,
        launched_at: None,
    };
    tx.insert(&volume)?;
    let flow = ManageVolume { volume_id: volume.id.clone(), source: wanted.source.clone() };
    cinder.flows.start(tx, cx, &flow, &volume.id)?;
    Ok(volume)
}

pub fn manage_snapshot(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    wanted: &WantedSnapshot,
    source: Option<String>,
) -> Result<Snapshot> {
    let volume = store::volume(tx, &wanted.volume_id)?;
    if volume.host.is_none() {
        return Err(invalid_volume("it is on no back end"));
    }
    let type_name = tx.find::<VolumeType>(&volume.volume_type_id)?.map(|kind| kind.name).unwrap_or_default();
    let added = Added { snapshots: 1, gigabytes: volume.size, ..Added::default() };
    quota::check(tx, &cinder.options, &cx.project_id, &type_name, added)?;
    let snapshot = new_snapshot(cinder, cx, &volume, wanted);
    tx.insert(&snapshot)?;
    let flow = ManageSnapshot { snapshot_id: snapshot.id.clone(), volume_id: volume.id.clone(), source };
    cinder.flows.start(tx, cx, &flow, &volume.id)?;
    Ok(snapshot)
}

/// What an image of a volume says of itself: what the image said that the volume was made of.
pub fn described_by(volume: &Volume) -> NewImage {
    const OF_THE_OLD_ONE: &[&str] = &[
        "checksum",
        "image_id",
        "image_name",
        "container_format",
        "disk_format",
        "size",
        "min_disk",
        "min_ram",
    ];
    let number = |key: &str| volume.image_metadata.get(key).and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut properties = volume.image_metadata.0.clone();
    properties.retain(|key, _| !OF_THE_OLD_ONE.contains(&key.as_str()));
    NewImage {
        min_disk_gb: number("min_disk"),
        min_ram_mb: number("min_ram"),
        properties,
        ..NewImage::default()
    }
}

/// Begins to make an image of a volume; answers the volume's type.
pub fn upload(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    id: &str,
    image: &NewImage,
    force: bool,
) -> Result<Option<VolumeType>> {
    let volume = store::volume(tx, id)?;
    let allowed: &[VolumeStatus] = match force {
        true => &[VolumeStatus::Available, VolumeStatus::InUse],
        false => &[VolumeStatus::Available],
    };
    if !allowed.contains(&volume.status) {
        return Err(invalid_volume(format!("Volume {id} status must be {}", or_list(allowed))));
    }
    store::change(tx, id, cinder.clock.now(), |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = VolumeStatus::Uploading;
    })?;
    cinder.flows.start(tx, cx, &Upload { volume_id: id.into(), image: image.clone() }, id)?;
    tx.find::<VolumeType>(&volume.volume_type_id)
}

/// An attachment without a connector: the volume is spoken for.
pub fn reserve(
    cinder: &Cinder,
    tx: &mut Tx,
    volume_id: &str,
    attachment_id: &str,
    instance_uuid: Option<&str>,
    mode: &str,
) -> Result<Attachment> {
    let volume = store::volume(tx, volume_id)?;
    if volume.status.as_str().contains("error") {
        return Err(invalid_volume(format!(
            "Volume attachments can not be created if the volume is in an error state. The Volume {volume_id} currently has a status of: {} ",
            volume.status
        )));
    }
    use VolumeStatus::{Available, Downloading, InUse, Reserved};
    let allowed: &[VolumeStatus] =
        if volume.multiattach { &[Available, InUse, Downloading] } else { &[Available, Downloading] };
    let now = cinder.clock.now();
    if allowed.contains(&volume.status) {
        store::change(tx, volume_id, now, |volume| volume.status = Reserved)?;
    } else {
        // The same server on another host: it is being migrated.
        let same_server = |attachment: &Attachment| attachment.instance_uuid.as_deref() == instance_uuid;
        let moves = instance_uuid.is_some()
            && matches!(volume.status, InUse | Reserved)
            && store::attachments(tx, volume_id)?.iter().any(same_server);
        if !moves {
            return Err(invalid_volume(format!(
                "Volume {volume_id} status must be {} to reserve, but the current status is {}.",
                or_list(allowed),
                volume.status
            )));
        }
    }
    speak_for(tx, volume, attachment_id, instance_uuid, mode, now)
}

/// A volume that is being made becomes reserved, not available, once somebody has spoken for it.
pub fn speak_for(
    tx: &mut Tx,
    volume: Volume,
    attachment_id: &str,
    instance_uuid: Option<&str>,
    mode: &str,
    now: base::Timestamp,
) -> Result<Attachment> {
    let mode = if volume.readonly == Some(true) { "ro" } else { mode };
    let attachment = Attachment {
        id: attachment_id.into(),
        volume_id: volume.id,
        project_id: volume.project_id,
        instance_uuid: instance_uuid.map(String::from),
        attached_host: None,
        mountpoint: None,
        attach_mode: mode.into(),
        attach_status: AttachStatus::Reserved,
        attach_time: None,
        detach_time: None,
        connector: Json::Null,
        connection: None,
        created_at: now,
    };
    tx.insert(&attachment)?;
    Ok(attachment)
}

/// Begins to make the volume reachable for an attachment; the outcome is waited for.
pub fn connect(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    attachment_id: &str,
    connector: &Json,
) -> Result<Outcome> {
    let attachment = store::attachment(tx, attachment_id)?;
    let volume = store::volume(tx, &attachment.volume_id)?;
    if volume.status.as_str().contains("error") {
        return Err(Error::conflict(format!(
            "Volume attachments can not be updated if the volume is in an error state. The Volume {} currently has a status of: {} ",
            volume.id, volume.status
        )));
    }
    let flow = Connect {
        attachment_id: attachment_id.into(),
        volume_id: volume.id.clone(),
        connector: connector.clone(),
    };
    cinder.flows.start(tx, cx, &flow, &volume.id)
}

/// The guest has it.
pub fn complete(cinder: &Cinder, tx: &mut Tx, attachment_id: &str) -> Result<()> {
    let mut attachment = store::attachment(tx, attachment_id)?;
    attachment.attach_status = AttachStatus::Attached;
    tx.update(&attachment)?;
    store::change(tx, &attachment.volume_id, cinder.clock.now(), |volume| {
        volume.status = VolumeStatus::InUse;
        volume.attach_status = AttachStatus::Attached;
    })
    .map(drop)
}

/// Begins to end an attachment; the outcome is waited for.
pub fn disconnect(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    attachment_id: &str,
    forced: bool,
) -> Result<Outcome> {
    let attachment = store::attachment(tx, attachment_id)?;
    let volume_id = attachment.volume_id.clone();
    let flow = Disconnect { attachment_id: attachment_id.into(), volume_id, forced };
    cinder.flows.start(tx, cx, &flow, &attachment.volume_id)
}

/// What a volume is once an attachment of it is gone.
/// Forced: an administrator says that all is well again with a volume that was in error.
pub fn settle_after_detach(tx: &mut Tx, volume_id: &str, now: base::Timestamp, forced: bool) -> Result<()> {
    let left = store::attachments(tx, volume_id)?;
    let any = |status: AttachStatus| left.iter().any(|attachment| attachment.attach_status == status);
    let (status, attach_status) = if any(AttachStatus::Attached) {
        (VolumeStatus::InUse, AttachStatus::Attached)
    } else if any(AttachStatus::Attaching) {
        (VolumeStatus::Attaching, AttachStatus::Attaching)
    } else if !left.is_empty() {
        (VolumeStatus::Reserved, AttachStatus::Detached)
    } else {
        (VolumeStatus::Available, AttachStatus::Detached)
    };
    store::change(tx, volume_id, now, |volume| {
        // An operation that began meanwhile, such as a forced delete, has its own say.
        let attaching =
            [VolumeStatus::InUse, VolumeStatus::Attaching, VolumeStatus::Reserved, VolumeStatus::Detaching];
        let mended = forced && volume.status == VolumeStatus::Error;
        if attaching.contains(&volume.status) || mended {
            volume.status = status;
        }
        volume.attach_status = attach_status;
        if attach_status == AttachStatus::Detached {
            volume.attached_mode = None;
        }
    })
    .map(drop)
}

/// Volumes that attach and detach may go through, by the older calls.
pub fn swap_or_refuse(
    cinder: &Cinder,
    tx: &mut Tx,
    id: &str,
    from: &[VolumeStatus],
    to: VolumeStatus,
    refusal: impl FnOnce(&Volume) -> String,
) -> Result<()> {
    if store::swap(tx, id, from, cinder.clock.now(), &[("status", to.store())])? {
        return Ok(());
    }
    let volume = store::volume(tx, id)?;
    Err(invalid_volume(refusal(&volume)))
}
