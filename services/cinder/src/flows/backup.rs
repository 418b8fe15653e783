//! Makes a backup, removes it, makes a volume as it has it.

use super::or_gone;
use crate::{
    Cinder, backups,
    messages::{self, Action},
    model::*,
    store,
};
use base::{Context, Error, Result};
use contracts::agents::volume::NewBackup;
use db::{Filter, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MakeBackup {
    pub backup_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteBackup {
    pub backup_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restore {
    pub backup_id: String,
    pub volume_id: String,
}

impl Flow for MakeBackup {
    const KIND: &'static str = "make_backup";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(save, undo unsave)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(backup) = tx.find::<Backup>(&self.backup_id)? else { return Ok(()) };
        release_source(cinder, tx, &backup)?;
        ended(cinder, tx, &backup, BackupStatus::Error, error)?;
        let about = ("VOLUME_BACKUP", backup.id.as_str(), backup.project_id.as_str());
        messages::tell(cinder, tx, cx, about, Action::BackupCreate, error)
    }
}

impl Flow for DeleteBackup {
    const KIND: &'static str = "delete_backup";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(remove)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(backup) = tx.find::<Backup>(&self.backup_id)? else { return Ok(()) };
        ended(cinder, tx, &backup, BackupStatus::ErrorDeleting, error)?;
        let about = ("VOLUME_BACKUP", backup.id.as_str(), backup.project_id.as_str());
        messages::tell(cinder, tx, cx, about, Action::BackupDelete, error)
    }
}

impl Flow for Restore {
    const KIND: &'static str = "restore_backup";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(copy_back)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = cinder.clock.now();
        backups::release(tx, &self.backup_id, now)?;
        store::change(tx, &self.volume_id, now, |volume| {
            if volume.status == VolumeStatus::RestoringBackup {
                volume.status = VolumeStatus::ErrorRestoring;
            }
        })?;
        let Some(backup) = tx.find::<Backup>(&self.backup_id)? else { return Ok(()) };
        let about = ("VOLUME_BACKUP", backup.id.as_str(), backup.project_id.as_str());
        messages::tell(cinder, tx, cx, about, Action::BackupRestore, error)
    }
}

fn ended(cinder: &Cinder, tx: &mut Tx, backup: &Backup, status: BackupStatus, error: &Error) -> Result<()> {
    backups::change(tx, &backup.id, cinder.clock.now(), |backup| {
        backup.status = status;
        backup.fail_reason = Some(error.message.chars().take(255).collect());
    })
}

/// What was backed up is again what it was.
fn release_source(cinder: &Cinder, tx: &mut Tx, backup: &Backup) -> Result<()> {
    let now = cinder.clock.now();
    match &backup.snapshot_id {
        Some(id) => store::change_snapshot(tx, id, now, |snapshot| {
            if snapshot.status == SnapshotStatus::BackingUp {
                snapshot.status = SnapshotStatus::Available;
            }
        }),
        None => store::change(tx, &backup.volume_id, now, |volume| {
            if volume.status == VolumeStatus::BackingUp {
                volume.status = volume.previous_status.take().unwrap_or(VolumeStatus::Available);
            }
        }),
    }
    .map(drop)
}

impl Cinder {
    async fn is_alone(&self, backup: &Backup) -> Result<bool> {
        let stored_as = backup.stored_as.clone();
        Ok(self.read(move |tx| tx.count::<Backup>(&[Filter::eq("stored_as", &stored_as)])).await? <= 1)
    }

    pub(super) async fn backup(&self, id: &str) -> Result<Option<Backup>> {
        let id = id.to_string();
        self.read(move |tx| tx.find::<Backup>(&id)).await
    }
}

async fn save(cinder: &Arc<Cinder>, cx: &Context, flow: &mut MakeBackup) -> Result<Effect> {
    let found = cinder.backup(&flow.backup_id).await?;
    let backup = found.ok_or_else(|| backups::backup_not_found(&flow.backup_id))?;
    let parent_id = match &backup.parent_id {
        Some(id) => cinder.backup(id).await?.map(|parent| parent.stored_as),
        None => None,
    };
    let wanted = NewBackup {
        id: backup.stored_as.clone(),
        volume_id: backup.volume_id.clone(),
        snapshot_id: backup.snapshot_id.clone(),
        parent_id,
    };
    let saved = cinder.agent(&backup.host).back_up(&cinder.own(cx), &wanted).await?;
    let cinder = cinder.clone();
    Ok(Effect::write(move |tx| {
        release_source(&cinder, tx, &backup)?;
        backups::change(tx, &backup.id, cinder.clock.now(), |backup| {
            backup.object_count = i64::try_from(saved.objects).unwrap_or(i64::MAX);
            if backup.status == BackupStatus::Creating {
                backup.status = BackupStatus::Available;
            }
        })
    }))
}

async fn unsave(cinder: &Arc<Cinder>, cx: &Context, flow: &mut MakeBackup) -> Result<Effect> {
    if let Some(backup) = cinder.backup(&flow.backup_id).await? {
        or_gone(cinder.agent(&backup.host).delete_backup(&cinder.own(cx), &backup.stored_as).await)?;
    }
    Ok(Effect::none())
}

/// What another backup of this cloud is kept as, too, stays.
async fn remove(cinder: &Arc<Cinder>, cx: &Context, flow: &mut DeleteBackup) -> Result<Effect> {
    if let Some(backup) = cinder.backup(&flow.backup_id).await?
        && cinder.is_alone(&backup).await?
    {
        or_gone(cinder.agent(&backup.host).delete_backup(&cinder.own(cx), &backup.stored_as).await)?;
    }
    let id = flow.backup_id.clone();
    Ok(Effect::write(move |tx| tx.remove::<Backup>(&id).map(drop)))
}

async fn copy_back(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Restore) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    let found = cinder.backup(&flow.backup_id).await?;
    let backup = found.ok_or_else(|| backups::backup_not_found(&flow.backup_id))?;
    cinder.agent_of(&volume)?.restore(&cinder.own(cx), &backup.stored_as, &volume.id).await?;
    let cinder = cinder.clone();
    Ok(Effect::write(move |tx| {
        let now = cinder.clock.now();
        backups::release(tx, &backup.id, now)?;
        store::change(tx, &volume.id, now, |volume| {
            backups::describe(&backup, volume);
            if volume.status == VolumeStatus::RestoringBackup {
                volume.status = VolumeStatus::Available;
            }
        })
        .map(drop)
    }))
}
