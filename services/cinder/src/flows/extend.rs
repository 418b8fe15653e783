//! Grows a volume. What has grown is not made smaller again: the bytes beyond the end are nobody's.

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
pub struct Extend {
    pub volume_id: String,
    pub size: i64,
}

impl Flow for Extend {
    const KIND: &'static str = "extend";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(grow)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        store::change(tx, &volume.id, cinder.clock.now(), |volume| {
            volume.wanted_size = 0;
            if volume.status == VolumeStatus::Extending {
                volume.status = VolumeStatus::ErrorExtending;
            }
        })?;
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), Action::Extend, error)
    }
}

async fn grow(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Extend) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    let size_gb = flow.size.unsigned_abs();
    cinder.agent_of(&volume)?.extend(&cinder.own(cx), &volume.id, size_gb).await?;
    let (cinder, size) = (cinder.clone(), flow.size);
    Ok(Effect::write(move |tx| {
        store::change(tx, &volume.id, cinder.clock.now(), |volume| {
            volume.size = size;
            volume.wanted_size = 0;
            if volume.status == VolumeStatus::Extending {
                volume.status = VolumeStatus::Available;
            }
        })
        .map(drop)
    }))
}
