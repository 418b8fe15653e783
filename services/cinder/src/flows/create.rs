//! Makes a volume: a back end, if the request found none, and the disk there.

use super::or_gone;
use crate::{
    Cinder, backups, groups,
    messages::{self, Action, NO_BACK_END},
    model::*,
    requests::is_multiattach,
    scheduler, store,
};
use base::{Context, Error, Result};
use contracts::agents::volume::{DiskSource, NewDisk};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    pub volume_id: String,
}

impl Flow for Create {
    const KIND: &'static str = "create";
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(make, undo unmake).interruptible()] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        if flow::is_cancelled(error) {
            return Ok(());
        }
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        let now = cinder.clock.now();
        store::change(tx, &volume.id, now, |volume| volume.status = VolumeStatus::Error)?;
        settle(tx, &volume, now)?;
        let action = match (&volume.image_id, error.code.as_deref()) {
            (_, Some(NO_BACK_END)) => Action::Schedule,
            (Some(_), _) => Action::CopyImage,
            (None, _) => Action::Create,
        };
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), action, error)
    }
}

/// Gives the volume a back end; one that has its own keeps it. Mostly within the request, so that only the disk is
/// left to be made.
pub fn place(cinder: &Cinder, tx: &mut Tx, id: &str) -> Result<()> {
    let volume = store::volume(tx, id)?;
    if volume.host.is_some() {
        return Ok(());
    }
    let kind = tx.find::<VolumeType>(&volume.volume_type_id)?;
    let kind = kind.ok_or_else(|| crate::errors::type_not_found(&volume.volume_type_id))?;
    let beside = source_host(tx, &volume)?;
    let near = near_backup(tx, &volume)?;
    let now = cinder.clock.now();
    let wanted = scheduler::Wanted {
        size: volume.size,
        availability_zone: &volume.availability_zone,
        multiattach: is_multiattach(&kind),
        kind: &kind,
        encrypted: store::is_encrypted(tx, &kind.id)?,
        beside: beside.as_deref().or(near.as_deref()),
    };
    let host = match scheduler::choose(tx, &cinder.options, now, &wanted) {
        Err(error) if near.is_some() && error.code.as_deref() == Some(NO_BACK_END) => {
            scheduler::choose(tx, &cinder.options, now, &scheduler::Wanted { beside: None, ..wanted })
        }
        other => other,
    }?;
    store::change(tx, id, now, |volume| {
        volume.host = Some(host);
        if volume.image_id.is_some() && volume.status == VolumeStatus::Creating {
            volume.status = VolumeStatus::Downloading;
        }
    })
    .map(drop)
}

impl Cinder {
    async fn stored_as(&self, backup_id: &str) -> Result<String> {
        let backup = self.backup(backup_id).await?;
        backup.map(|backup| backup.stored_as).ok_or_else(|| backups::backup_not_found(backup_id))
    }
}

async fn make(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Create) -> Result<Effect> {
    let (own, id) = (cinder.clone(), flow.volume_id.clone());
    let mut volume = cinder.volume(&id).await?;
    if volume.host.is_none() {
        cinder.write(move |tx| place(&own, tx, &id)).await?;
        volume = cinder.volume(&flow.volume_id).await?;
    }
    let disk = NewDisk {
        id: volume.id.clone(),
        size_gb: volume.size.unsigned_abs(),
        source: match (&volume.image_id, &volume.snapshot_id, &volume.source_volid, &volume.backup_id) {
            (Some(id), ..) => DiskSource::Image {
                id: id.clone(),
                disk_format: volume.image_disk_format.clone().unwrap_or_default(),
            },
            (None, Some(id), ..) => DiskSource::Snapshot { id: id.clone() },
            (None, None, Some(id), _) => DiskSource::Volume { id: id.clone() },
            (None, None, None, Some(id)) => DiskSource::Backup { id: cinder.stored_as(id).await? },
            (None, None, None, None) => DiskSource::Empty,
        },
    };
    cinder.agent_of(&volume)?.create(&cinder.own(cx), &disk).await?;
    let cinder = cinder.clone();
    Ok(Effect::write(move |tx| {
        let bootable = volume.image_id.is_some() || source_is_bootable(tx, &volume)?;
        let now = cinder.clock.now();
        let is_reserved = !store::attachments(tx, &volume.id)?.is_empty();
        let backup = volume.backup_id.as_ref().map(|id| tx.find::<Backup>(id)).transpose()?.flatten();
        store::change(tx, &volume.id, now, |volume| {
            // A server may have spoken for it while its image was written.
            if matches!(volume.status, VolumeStatus::Creating | VolumeStatus::Downloading) {
                let made = if is_reserved { VolumeStatus::Reserved } else { VolumeStatus::Available };
                volume.status = made;
            }
            volume.bootable |= bootable;
            if let Some(backup) = &backup {
                backups::describe(backup, volume);
            }
            volume.launched_at = Some(now);
        })?;
        settle(tx, &volume, now)
    }))
}

async fn unmake(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Create) -> Result<Effect> {
    let volume = cinder.volume_if_there(&flow.volume_id).await?;
    if let Some(volume) = volume.filter(|volume| volume.host.is_some()) {
        or_gone(cinder.agent_of(&volume)?.delete(&cinder.own(cx), &volume.id).await)?;
    }
    let (cinder, id) = (cinder.clone(), flow.volume_id.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &id, cinder.clock.now(), |volume| volume.host = None).map(drop)
    }))
}

/// What it belongs to, or was made from, has waited for its end.
fn settle(tx: &mut Tx, volume: &Volume, now: base::Timestamp) -> Result<()> {
    volume.backup_id.as_ref().map_or(Ok(()), |id| backups::release(tx, id, now))?;
    volume.group_id.as_ref().map_or(Ok(()), |id| groups::settle(tx, id, now))
}

/// The back end that made the backup sees it surely; others do when they share its place.
fn near_backup(tx: &mut Tx, volume: &Volume) -> Result<Option<String>> {
    let Some(id) = &volume.backup_id else { return Ok(None) };
    let Some(backup) = tx.find::<Backup>(id)? else { return Ok(None) };
    Ok(tx.find::<BackEnd>(&backup.host)?.map(|back_end| scheduler::pool(&back_end)))
}

/// Copies are made where the original is, and volumes of a group where the group is.
fn source_host(tx: &mut Tx, volume: &Volume) -> Result<Option<String>> {
    if let Some(id) = &volume.group_id
        && let Some(group) = tx.find::<Group>(id)?
    {
        return Ok(group.host);
    }
    Ok(source(tx, volume)?.and_then(|source| source.host))
}

fn source_is_bootable(tx: &mut Tx, volume: &Volume) -> Result<bool> {
    Ok(source(tx, volume)?.is_some_and(|source| source.bootable))
}

fn source(tx: &mut Tx, volume: &Volume) -> Result<Option<Volume>> {
    match (&volume.snapshot_id, &volume.source_volid) {
        (Some(id), _) => match tx.find::<Snapshot>(id)? {
            Some(snapshot) => tx.find::<Volume>(&snapshot.volume_id),
            None => Ok(None),
        },
        (None, Some(id)) => tx.find::<Volume>(id),
        (None, None) => Ok(None),
    }
}
