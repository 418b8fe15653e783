//! Removes a volume with its snapshots and all that knows of it.

use super::or_gone;
use crate::{
    Cinder, groups,
    messages::{self, Action},
    model::*,
    store,
};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delete {
    pub volume_id: String,
    /// The disk stays on the back end.
    #[serde(default)]
    pub unmanage: bool,
}

impl Flow for Delete {
    const KIND: &'static str = "delete";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(remove_snapshots), step!(remove)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        let now = cinder.clock.now();
        store::change(tx, &volume.id, now, |volume| volume.status = VolumeStatus::ErrorDeleting)?;
        for snapshot in store::snapshots(tx, &volume.id)? {
            store::change_snapshot(tx, &snapshot.id, now, |s| s.status = SnapshotStatus::ErrorDeleting)?;
        }
        if let Some(id) = &volume.backup_id {
            crate::backups::release(tx, id, now)?;
        }
        if let Some(id) = &volume.group_id {
            groups::settle(tx, id, now)?;
        }
        let action = if self.unmanage { Action::Unmanage } else { Action::Delete };
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), action, error)
    }
}

async fn remove_snapshots(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Delete) -> Result<Effect> {
    let Some(volume) = cinder.volume_if_there(&flow.volume_id).await? else { return Ok(Effect::none()) };
    if volume.host.is_some() && !flow.unmanage {
        let id = volume.id.clone();
        for snapshot in cinder.read(move |tx| store::snapshots(tx, &id)).await? {
            or_gone(cinder.agent_of(&volume)?.delete_snapshot(&cinder.own(cx), &snapshot.id).await)?;
        }
    }
    Ok(Effect::write(move |tx| store::delete_snapshots(tx, &volume.id)))
}

async fn remove(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Delete) -> Result<Effect> {
    let Some(volume) = cinder.volume_if_there(&flow.volume_id).await? else { return Ok(Effect::none()) };
    // One that was never placed is nowhere.
    if volume.host.is_some() && !flow.unmanage {
        or_gone(cinder.agent_of(&volume)?.delete(&cinder.own(cx), &volume.id).await)?;
    }
    let cinder = cinder.clone();
    Ok(Effect::write(move |tx| {
        store::delete_attachments(tx, &volume.id)?;
        store::delete_transfer_of(tx, &volume.id)?;
        tx.remove::<Volume>(&volume.id)?;
        let now = cinder.clock.now();
        volume.group_id.as_ref().map_or(Ok(()), |id| groups::settle(tx, id, now))
    }))
}
