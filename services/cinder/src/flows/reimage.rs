//! Writes an image over a volume that nobody is connected to: a new disk is made of the image beside the old one, and
//! takes its place. Snapshots of the volume stay what they are.

use super::or_gone;
use crate::{
    Cinder,
    messages::{self, Action},
    model::*,
    store,
};
use base::{Context, Error, Result};
use contracts::agents::volume::{DiskSource, NewDisk};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reimage {
    pub volume_id: String,
    /// The new disk's until it takes the volume's place.
    pub disk_id: String,
    pub image_id: String,
    pub image_disk_format: String,
    pub image_metadata: BTreeMap<String, String>,
}

impl Flow for Reimage {
    const KIND: &'static str = "reimage";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(make, undo unmake), step!(remove_old), step!(put_in_place)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        store::change(tx, &volume.id, cinder.clock.now(), |volume| {
            volume.previous_status = Some(volume.status);
            volume.status = VolumeStatus::Error;
        })?;
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), Action::Reimage, error)
    }
}

async fn make(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Reimage) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    let (id, disk_format) = (flow.image_id.clone(), flow.image_disk_format.clone());
    let disk = NewDisk {
        id: flow.disk_id.clone(),
        size_gb: volume.size.unsigned_abs(),
        source: DiskSource::Image { id, disk_format },
    };
    cinder.agent_of(&volume)?.create(&cinder.own(cx), &disk).await?;
    Ok(Effect::none())
}

async fn unmake(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Reimage) -> Result<Effect> {
    if let Some(volume) = cinder.volume_if_there(&flow.volume_id).await? {
        or_gone(cinder.agent_of(&volume)?.delete(&cinder.own(cx), &flow.disk_id).await)?;
    }
    Ok(Effect::none())
}

/// Apart from what follows: done once more after that it would remove the new one.
async fn remove_old(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Reimage) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    or_gone(cinder.agent_of(&volume)?.delete(&cinder.own(cx), &volume.id).await)?;
    Ok(Effect::none())
}

async fn put_in_place(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Reimage) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    cinder.agent_of(&volume)?.adopt(&cinder.own(cx), &flow.disk_id, &volume.id).await?;
    let (cinder, flow) = (cinder.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &flow.volume_id, cinder.clock.now(), |volume| {
            if volume.status == VolumeStatus::Downloading {
                volume.status = volume.previous_status.take().unwrap_or(VolumeStatus::Available);
            }
            volume.image_metadata = AsJson(flow.image_metadata.clone());
            volume.bootable = true;
        })
        .map(drop)
    }))
}
