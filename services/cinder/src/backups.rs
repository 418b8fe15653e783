//! Backups: what may be asked of them, each in one transaction, and the operation that it begins.

use crate::{
    Cinder,
    errors::*,
    flows::backup::{DeleteBackup, MakeBackup, Restore},
    model::*,
    quota,
    requests::{self, sees, snapshot_for, volume_for},
    scheduler, store,
};
use base::{Context, Error, Json, Result, Timestamp, id};
use base64::{Engine, prelude::BASE64_STANDARD};
use db::{AsJson, Filter, List, Tx};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// The driver's name in records that clouds hand each other.
pub const SERVICE: &str = "cinder.backup.drivers.ferrostack";
/// The volume of backups that came from elsewhere.
const NO_VOLUME: &str = "00000000-0000-0000-0000-000000000000";
const GIB: u64 = 1 << 30;

/// A backup that somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub volume_id: String,
    pub snapshot_id: Option<String>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub container: Option<String>,
    pub incremental: bool,
    /// Of a volume that servers have, too.
    pub force: bool,
    pub availability_zone: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

pub fn backup_not_found(id: &str) -> Error {
    Error::not_found(format!("Backup {id} could not be found."))
}

pub fn invalid_backup(reason: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Invalid backup: {reason}"))
}

pub fn backup_for(tx: &mut Tx, cx: &Context, id: &str) -> Result<Backup> {
    let found = tx.find::<Backup>(id)?.filter(|backup| sees(cx, &backup.project_id));
    found.ok_or_else(|| backup_not_found(id))
}

pub fn create(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, wanted: &Wanted) -> Result<Backup> {
    let volume = volume_for(tx, cx, &wanted.volume_id)?;
    let snapshot = wanted.snapshot_id.as_deref().map(|id| snapshot_for(tx, cx, id)).transpose()?;
    check_source(&volume, snapshot.as_ref(), wanted.force)?;
    quota::check_backup(tx, &cinder.options, &cx.project_id, volume.size)?;
    let parent = match wanted.incremental {
        true => Some(latest(tx, cx, &volume, snapshot.as_ref())?),
        false => None,
    };
    let host = volume.back_end().ok_or_else(|| invalid_volume("it is on no back end"))?.to_string();
    let (now, id) = (cinder.clock.now(), id::uuid());
    let backup = Backup {
        stored_as: id.clone(),
        volume_metadata: volume.metadata.clone(),
        image_metadata: volume.image_metadata.clone(),
        bootable: volume.bootable,
        id,
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        display_name: wanted.name.clone(),
        display_description: wanted.description.clone(),
        volume_id: volume.id.clone(),
        snapshot_id: snapshot.as_ref().map(|snapshot| snapshot.id.clone()),
        parent_id: parent.map(|parent| parent.id),
        status: BackupStatus::Creating,
        size: volume.size,
        object_count: 0,
        container: wanted.container.clone(),
        availability_zone: wanted.availability_zone.clone(),
        fail_reason: None,
        host,
        data_timestamp: snapshot.as_ref().map_or(now, |snapshot| snapshot.created_at),
        metadata: AsJson(wanted.metadata.clone()),
        created_at: now,
        updated_at: None,
    };
    tx.insert(&backup)?;
    match &snapshot {
        Some(snapshot) => {
            store::change_snapshot(tx, &snapshot.id, now, |s| s.status = SnapshotStatus::BackingUp)?
        }
        None => store::change(tx, &volume.id, now, |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::BackingUp;
        })?,
    };
    cinder.flows.start(tx, cx, &MakeBackup { backup_id: backup.id.clone() }, &volume.id)?;
    Ok(backup)
}

fn check_source(volume: &Volume, snapshot: Option<&Snapshot>, force: bool) -> Result<()> {
    match snapshot {
        Some(snapshot) if snapshot.volume_id != volume.id => Err(invalid_volume(format!(
            "Volume {} does not match with snapshot.volume_id {}.",
            volume.id, snapshot.volume_id
        ))),
        Some(snapshot) if snapshot.status != SnapshotStatus::Available => Err(invalid_snapshot(format!(
            "Snapshot to be backed up must be available, but the current status is \"{}\".",
            snapshot.status
        ))),
        Some(_) => Ok(()),
        None if volume.status == VolumeStatus::Available => Ok(()),
        None if volume.status != VolumeStatus::InUse => Err(invalid_volume(format!(
            "Volume to be backed up must be available or in-use, but the current status is \"{}\".",
            volume.status
        ))),
        None if !force => Err(invalid_volume("Backing up an in-use volume must use the force flag.")),
        None => Ok(()),
    }
}

/// The newest backup of the volume as it was before what is saved now.
fn latest(tx: &mut Tx, cx: &Context, volume: &Volume, snapshot: Option<&Snapshot>) -> Result<Backup> {
    let of_volume = List::all().eq("volume_id", &volume.id).eq("project_id", &cx.project_id);
    let usable = |backup: &Backup| {
        backup.status == BackupStatus::Available
            && snapshot.is_none_or(|snapshot| backup.data_timestamp < snapshot.created_at)
    };
    let found = tx.list::<Backup>(&of_volume)?.into_iter().filter(usable);
    found
        .max_by_key(|backup| backup.data_timestamp)
        .ok_or_else(|| invalid_backup("No backups available to do an incremental backup."))
}

/// What a restore makes.
pub struct Restored {
    pub volume_id: String,
    pub volume_name: Option<String>,
}

/// Onto a volume that is there, or a new one.
pub fn restore(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    backup_id: &str,
    volume_id: Option<&str>,
    name: Option<String>,
) -> Result<Restored> {
    let backup = backup_for(tx, cx, backup_id)?;
    if backup.status != BackupStatus::Available {
        return Err(invalid_backup("Backup status must be available"));
    }
    let now = cinder.clock.now();
    let Some(volume_id) = volume_id else {
        let wanted = requests::Wanted {
            id: id::uuid(),
            name: name.or_else(|| Some(format!("restore_backup_{backup_id}"))),
            description: Some("auto-created_from_restore_from_backup".into()),
            size: Some(backup.size),
            backup_id: Some(backup_id.into()),
            metadata: backup.volume_metadata.0.clone(),
            ..requests::Wanted::default()
        };
        let volume = requests::create(cinder, tx, cx, &wanted)?;
        return Ok(Restored { volume_id: volume.id, volume_name: volume.display_name });
    };
    let volume = volume_for(tx, cx, volume_id)?;
    if volume.status != VolumeStatus::Available {
        return Err(invalid_volume("Volume to be restored to must be available"));
    }
    if backup.size > volume.size {
        return Err(invalid_volume(format!(
            "volume size {} is too small to restore backup of size {}.",
            volume.size, backup.size
        )));
    }
    change(tx, backup_id, now, |backup| backup.status = BackupStatus::Restoring)?;
    store::change(tx, volume_id, now, |volume| {
        volume.status = VolumeStatus::RestoringBackup;
        volume.metadata.0.extend(backup.volume_metadata.0.clone());
    })?;
    let flow = Restore { backup_id: backup_id.into(), volume_id: volume_id.into() };
    cinder.flows.start(tx, cx, &flow, volume_id)?;
    Ok(Restored { volume_id: volume.id, volume_name: volume.display_name })
}

/// For a new volume: the backup is there and is held until the volume is made.
pub fn hold(tx: &mut Tx, cx: &Context, backup_id: &str, now: Timestamp) -> Result<Backup> {
    let backup = backup_for(tx, cx, backup_id)?;
    if backup.status != BackupStatus::Available {
        return Err(invalid_input(format!(
            "Invalid backup: Backup status must be available, but is {}.",
            backup.status
        )));
    }
    change(tx, backup_id, now, |backup| backup.status = BackupStatus::Restoring)?;
    Ok(backup)
}

/// A volume that has the backup's bytes starts servers when the one did that was backed up.
pub fn describe(backup: &Backup, volume: &mut Volume) {
    volume.bootable |= backup.bootable;
    volume.image_metadata.0.extend(backup.image_metadata.0.clone());
}

pub fn release(tx: &mut Tx, backup_id: &str, now: Timestamp) -> Result<()> {
    change(tx, backup_id, now, |backup| {
        if backup.status == BackupStatus::Restoring {
            backup.status = BackupStatus::Available;
        }
    })
}

pub fn delete(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str, force: bool) -> Result<()> {
    let backup = backup_for(tx, cx, id)?;
    if !force && !matches!(backup.status, BackupStatus::Available | BackupStatus::Error) {
        return Err(invalid_backup("Backup status must be available or error"));
    }
    if tx.count::<Backup>(&[Filter::eq("parent_id", id)])? > 0 {
        return Err(invalid_backup("Incremental backups exist for this backup."));
    }
    change(tx, id, cinder.clock.now(), |backup| backup.status = BackupStatus::Deleting)?;
    cinder.flows.start(tx, cx, &DeleteBackup { backup_id: id.into() }, id).map(drop)
}

/// Changes a backup, if it is there.
pub fn change(tx: &mut Tx, id: &str, now: Timestamp, change: impl FnOnce(&mut Backup)) -> Result<()> {
    let Some(mut backup) = tx.find::<Backup>(id)? else { return Ok(()) };
    change(&mut backup);
    backup.updated_at = Some(now);
    tx.update(&backup).map(drop)
}

/// What another cloud needs to know of a backup that both reach.
pub fn record(backup: &Backup) -> Result<String> {
    if backup.status != BackupStatus::Available {
        return Err(invalid_backup(format!("Backup status must be available and not {}.", backup.status)));
    }
    let record = json!({
        "id": backup.id,
        "display_name": backup.display_name,
        "display_description": backup.display_description,
        "size": backup.size,
        "object_count": backup.object_count,
        "container": backup.container,
        "parent_id": backup.parent_id,
        "data_timestamp": backup.data_timestamp.micros(),
        "metadata": backup.metadata.0,
        "volume_metadata": backup.volume_metadata.0,
        "image_metadata": backup.image_metadata.0,
        "bootable": backup.bootable,
        "service_metadata": backup.stored_as,
    });
    Ok(BASE64_STANDARD.encode(record.to_string()))
}

/// What a record tells, before anybody has looked for the backup.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub id: String,
    /// Its id where it is kept.
    pub stored_as: String,
    size: i64,
    record: Json,
}

pub fn read_record(service: &str, text: &str) -> Result<Recorded> {
    let unreadable = || invalid_input("Can't parse backup record.");
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| unreadable())?;
    let record: Json = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    let id = record["id"].as_str().ok_or_else(|| invalid_input("Provided backup record is missing an id"))?;
    if !id::is_uuid(id) {
        return Err(unreadable());
    }
    let size = record["size"].as_i64().filter(|size| *size > 0);
    let size = size.ok_or_else(|| invalid_input("Provided backup record is missing size attribute"))?;
    if service != SERVICE {
        return Err(Error::unavailable(format!("Service {service} could not be found.")));
    }
    let stored_as = record["service_metadata"].as_str().unwrap_or(id);
    if !id::is_uuid(stored_as) {
        return Err(unreadable());
    }
    Ok(Recorded { id: id.into(), stored_as: stored_as.into(), size, record })
}

/// The backups' place has it, of a disk of so many bytes.
pub fn import(
    cinder: &Cinder,
    tx: &mut Tx,
    cx: &Context,
    recorded: &Recorded,
    host: &str,
    bytes: u64,
) -> Result<Backup> {
    if tx.find::<Backup>(&recorded.id)?.is_some() {
        return Err(invalid_backup("Backup already exists in database."));
    }
    quota::check_backup(tx, &cinder.options, &cx.project_id, recorded.size)?;
    if bytes.div_ceil(GIB) > recorded.size.unsigned_abs() {
        return Err(invalid_backup("it is larger than its record says"));
    }
    let record = &recorded.record;
    let text = |key: &str| record[key].as_str().map(String::from);
    let now = cinder.clock.now();
    let texts = |key: &str| {
        let pairs = record[key].as_object().into_iter().flatten();
        AsJson(pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into()))).collect())
    };
    let backup = Backup {
        id: recorded.id.clone(),
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        display_name: text("display_name"),
        display_description: text("display_description"),
        volume_id: NO_VOLUME.into(),
        snapshot_id: None,
        parent_id: text("parent_id"),
        status: BackupStatus::Available,
        size: recorded.size,
        object_count: record["object_count"].as_i64().unwrap_or_default(),
        container: text("container"),
        availability_zone: None,
        fail_reason: None,
        host: host.into(),
        data_timestamp: text("data_timestamp").and_then(|time| Timestamp::parse(&time)).unwrap_or(now),
        metadata: texts("metadata"),
        stored_as: recorded.stored_as.clone(),
        volume_metadata: texts("volume_metadata"),
        image_metadata: texts("image_metadata"),
        bootable: record["bootable"] == true,
        created_at: now,
        updated_at: None,
    };
    tx.insert(&backup)?;
    Ok(backup)
}

/// Back ends whose agents answer, any of which may see a backup.
pub fn hosts(cinder: &Cinder, tx: &mut Tx) -> Result<Vec<String>> {
    let now = cinder.clock.now();
    let all = tx.list::<BackEnd>(&List::all())?.into_iter();
    let up = all.filter(|one| !one.disabled && scheduler::is_up(one, &cinder.options, now));
    let hosts: Vec<String> = up.map(|one| one.host).collect();
    match hosts.is_empty() {
        true => Err(Error::unavailable("Service cinder-backup could not be found.")),
        false => Ok(hosts),
    }
}
