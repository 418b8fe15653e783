//! Makes a volume as its latest snapshot has it.

use crate::{
    Cinder,
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
pub struct Revert {
    pub volume_id: String,
    pub snapshot_id: String,
}

impl Flow for Revert {
    const KIND: &'static str = "revert";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(copy_back)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        let now = cinder.clock.now();
        store::change(tx, &volume.id, now, |volume| volume.status = VolumeStatus::Error)?;
        store::change_snapshot(tx, &self.snapshot_id, now, |s| s.status = SnapshotStatus::Available)?;
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), Action::Revert, error)
    }
}

async fn copy_back(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Revert) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    cinder.agent_of(&volume)?.revert(&cinder.own(cx), &volume.id, &flow.snapshot_id).await?;
    let (cinder, snapshot_id) = (cinder.clone(), flow.snapshot_id.clone());
    Ok(Effect::write(move |tx| {
        let now = cinder.clock.now();
        store::change(tx, &volume.id, now, |volume| volume.status = VolumeStatus::Available)?;
        store::change_snapshot(tx, &snapshot_id, now, |s| s.status = SnapshotStatus::Available).map(drop)
    }))
}
