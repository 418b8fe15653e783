//! Keeps a volume as it is now, and removes what was kept.

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
pub struct CreateSnapshot {
    pub snapshot_id: String,
    pub volume_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteSnapshot {
    pub snapshot_id: String,
    pub volume_id: String,
    /// It stays on the back end.
    #[serde(default)]
    pub unmanage: bool,
}

impl Flow for CreateSnapshot {
    const KIND: &'static str = "create_snapshot";
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(take, undo untake)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        if flow::is_cancelled(error) {
            return Ok(());
        }
        let Some(snapshot) = tx.find::<Snapshot>(&self.snapshot_id)? else { return Ok(()) };
        store::change_snapshot(tx, &snapshot.id, cinder.clock.now(), |s| s.status = SnapshotStatus::Error)?;
        settle_group(tx, &snapshot)?;
        let about = ("VOLUME_SNAPSHOT", snapshot.id.as_str(), snapshot.project_id.as_str());
        messages::tell(cinder, tx, cx, about, Action::SnapshotCreate, error)
    }
}

impl Flow for DeleteSnapshot {
    const KIND: &'static str = "delete_snapshot";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(remove)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(snapshot) = tx.find::<Snapshot>(&self.snapshot_id)? else { return Ok(()) };
        let now = cinder.clock.now();
        store::change_snapshot(tx, &snapshot.id, now, |s| s.status = SnapshotStatus::ErrorDeleting)?;
        settle_group(tx, &snapshot)?;
        let about = ("VOLUME_SNAPSHOT", snapshot.id.as_str(), snapshot.project_id.as_str());
        messages::tell(cinder, tx, cx, about, Action::SnapshotDelete, error)
    }
}

async fn take(cinder: &Arc<Cinder>, cx: &Context, flow: &mut CreateSnapshot) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    cinder.agent_of(&volume)?.create_snapshot(&cinder.own(cx), &flow.snapshot_id, &volume.id).await?;
    let (cinder, id) = (cinder.clone(), flow.snapshot_id.clone());
    Ok(Effect::write(move |tx| {
        store::change_snapshot(tx, &id, cinder.clock.now(), |snapshot| {
            snapshot.progress = "100%".into();
            if snapshot.status == SnapshotStatus::Creating {
                snapshot.status = SnapshotStatus::Available;
            }
        })?;
        match tx.find::<Snapshot>(&id)? {
            Some(snapshot) => settle_group(tx, &snapshot),
            None => Ok(()),
        }
    }))
}

async fn untake(cinder: &Arc<Cinder>, cx: &Context, flow: &mut CreateSnapshot) -> Result<Effect> {
    if let Some(volume) = cinder.volume_if_there(&flow.volume_id).await? {
        or_gone(cinder.agent_of(&volume)?.delete_snapshot(&cinder.own(cx), &flow.snapshot_id).await)?;
    }
    Ok(Effect::none())
}

async fn remove(cinder: &Arc<Cinder>, cx: &Context, flow: &mut DeleteSnapshot) -> Result<Effect> {
    let volume = cinder.volume_if_there(&flow.volume_id).await?;
    if let Some(volume) = volume.filter(|volume| volume.host.is_some() && !flow.unmanage) {
        or_gone(cinder.agent_of(&volume)?.delete_snapshot(&cinder.own(cx), &flow.snapshot_id).await)?;
    }
    let id = flow.snapshot_id.clone();
    Ok(Effect::write(move |tx| {
        let Some(snapshot) = tx.find::<Snapshot>(&id)? else { return Ok(()) };
        tx.remove::<Snapshot>(&id)?;
        settle_group(tx, &snapshot)
    }))
}

fn settle_group(tx: &mut Tx, snapshot: &Snapshot) -> Result<()> {
    snapshot.group_snapshot_id.as_ref().map_or(Ok(()), |id| groups::settle_snapshot(tx, id))
}
