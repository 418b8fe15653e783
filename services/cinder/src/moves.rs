//! Volumes that become another type or go to another back end: what may, and what then begins.

use crate::{
    Cinder,
    errors::{invalid_input, invalid_volume, type_not_found},
    flows::migrate::Migrate,
    model::*,
    quota::{self, Added},
    requests::{self, is_multiattach},
    scheduler, store,
};
use base::{Context, Error, Result};
use db::Tx;
use std::sync::Arc;

/// By itself where its back end serves the new type, too; else, if it may, it goes to one that does.
pub fn retype(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    id: &str,
    new_type: &str,
    may_move: bool,
) -> Result<()> {
    let volume = store::volume(tx, id)?;
    let kind = requests::type_for(tx, cx, new_type)?;
    check_retype(&volume, &kind)?;
    check_type_quota(cinder, tx, &volume, &kind)?;
    match stays(cinder, tx, &volume, &kind)? {
        Ok(()) => store::change(tx, id, cinder.clock.now(), |volume| {
            volume.multiattach = is_multiattach(&kind);
            volume.volume_type_id = kind.id;
        })
        .map(drop),
        Err(_) if may_move => {
            check_movable(tx, &volume)?;
            let to = elsewhere(cinder, tx, &volume, &kind, None)?;
            begin(cinder, tx, cx, &volume, to, Some(kind.id))
        }
        Err(reason) => Err(invalid_volume(format!(
            "The volume would have to move, for {reason}; that needs the migration policy on-demand."
        ))),
    }
}

/// `host`: with or without the pool.
pub fn migrate(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str, host: &str) -> Result<()> {
    let volume = store::volume(tx, id)?;
    let name = host.split('#').next().unwrap_or(host);
    let now = cinder.clock.now();
    let target = tx.find::<BackEnd>(name)?;
    let target = target.filter(|one| !one.disabled && scheduler::is_up(one, &cinder.options, now));
    let target = target.ok_or_else(|| no_service(host))?;
    let refused = || {
        invalid_volume(format!(
            "Volume {id} status must be available or in-use, must not be migrating, have snapshots, be replicated, be part of a group and destination host/cluster must be different than the current one"
        ))
    };
    if volume.back_end() == Some(&target.host) {
        return Err(refused());
    }
    check_movable(tx, &volume).map_err(|_| refused())?;
    let kind = tx.find::<VolumeType>(&volume.volume_type_id)?;
    let kind = kind.ok_or_else(|| type_not_found(&volume.volume_type_id))?;
    let to = elsewhere(cinder, tx, &volume, &kind, Some(&scheduler::pool(&target)))?;
    begin(cinder, tx, cx, &volume, to, None)
}

pub fn no_service(name: &str) -> Error {
    Error::bad_request(format!("Invalid host: No available service named '{name}'"))
}

fn check_retype(volume: &Volume, kind: &VolumeType) -> Result<()> {
    requests::check_type_size(kind, volume.size)?;
    if is_multiattach(kind) != volume.multiattach && volume.status != VolumeStatus::Available {
        return Err(invalid_input(format!(
            "Invalid volume_type passed, retypes affecting multiattach are only allowed on available volumes, the specified volume however currently has a status of: {}.",
            volume.status
        )));
    }
    let may = matches!(volume.status, VolumeStatus::Available | VolumeStatus::InUse)
        && volume.volume_type_id != kind.id;
    match may {
        true => Ok(()),
        false => Err(invalid_volume(
            "Retype needs volume to be in available or in-use state, not be part of an active migration or a consistency group, requested type has to be different that the one from the volume, and for in-use volumes front-end qos specs cannot change.",
        )),
    }
}

/// Only the limits of the new type: the project has the volume already.
fn check_type_quota(cinder: &Cinder, tx: &mut Tx, volume: &Volume, kind: &VolumeType) -> Result<()> {
    let limits = quota::limits(tx, &cinder.options, &volume.project_id)?;
    let used = quota::used(tx, &volume.project_id)?;
    let added = Added { volumes: 1, gigabytes: volume.size, ..Added::default() };
    for (resource, amount) in [("volumes", added.volumes), ("gigabytes", added.gigabytes)] {
        let name = format!("{resource}_{}", kind.name);
        let limit = limits.get(&name).copied().unwrap_or(-1);
        if limit >= 0 && used.get(&name).copied().unwrap_or(0) + amount > limit {
            return Err(Error::over_quota(format!(
                "VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{name}'."
            )));
        }
    }
    Ok(())
}

/// Whether the volume's own back end serves the type, or why not.
fn stays(cinder: &Cinder, tx: &mut Tx, volume: &Volume, kind: &VolumeType) -> Result<Result<(), String>> {
    let Some(host) = volume.back_end() else { return Ok(Ok(())) };
    let Some(back_end) = tx.find::<BackEnd>(host)? else { return Ok(Ok(())) };
    scheduler::fits_type(tx, &back_end, &cinder.options, cinder.clock.now(), volume, kind)
}

/// A volume that a guest writes to does not move, nor one that others hang on.
fn check_movable(tx: &mut Tx, volume: &Volume) -> Result<()> {
    let movable = volume.status == VolumeStatus::Available
        && volume.group_id.is_none()
        && volume.host.is_some()
        && store::snapshots(tx, &volume.id)?.is_empty();
    match movable {
        true => Ok(()),
        false => Err(invalid_volume(format!(
            "Volume {} must be available, and have no snapshots and no group, to move to another back end.",
            volume.id
        ))),
    }
}

/// Another back end for the volume, or the named one if it fits.
fn elsewhere(
    cinder: &Cinder,
    tx: &mut Tx,
    volume: &Volume,
    kind: &VolumeType,
    named: Option<&str>,
) -> Result<String> {
    let wanted = scheduler::Wanted {
        size: volume.size,
        availability_zone: &volume.availability_zone,
        multiattach: is_multiattach(kind),
        kind,
        encrypted: store::is_encrypted(tx, &kind.id)?,
        beside: named,
    };
    let host = scheduler::choose(tx, &cinder.options, cinder.clock.now(), &wanted);
    host.map_err(|error| Error::bad_request(error.message.as_str()).cause(error))
}

/// Where a volume can go that must leave its back end; or why it cannot.
pub fn somewhere_else(
    cinder: &Cinder,
    tx: &mut Tx,
    volume: &Volume,
) -> Result<std::result::Result<String, String>> {
    if check_movable(tx, volume).is_err() {
        return Ok(Err("it has snapshots or a group".into()));
    }
    let kind = tx.find::<VolumeType>(&volume.volume_type_id)?;
    let kind = kind.ok_or_else(|| type_not_found(&volume.volume_type_id))?;
    Ok(elsewhere(cinder, tx, volume, &kind, None).map_err(|error| error.message.to_string()))
}

pub fn begin(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    volume: &Volume,
    to: String,
    new_type_id: Option<String>,
) -> Result<()> {
    let status = if new_type_id.is_some() { VolumeStatus::Retyping } else { VolumeStatus::Maintenance };
    store::change(tx, &volume.id, cinder.clock.now(), |volume| {
        volume.previous_status = Some(volume.status);
        volume.status = status;
        volume.migration_status = Some("migrating".into());
    })?;
    let from = volume.host.clone().unwrap_or_default();
    let flow = Migrate { volume_id: volume.id.clone(), from, to, new_type_id };
    cinder.flows.start(tx, cx, &flow, &volume.id).map(drop)
}
