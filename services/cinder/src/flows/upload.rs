//! Makes an image of a volume: the image that waits, then its bytes.

use crate::{
    Cinder,
    messages::{self, Action},
    model::*,
    store,
};
use base::{Context, Error, Result};
use contracts::images::NewImage;
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upload {
    pub volume_id: String,
    pub image: NewImage,
}

impl Flow for Upload {
    const KIND: &'static str = "upload";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(make_image, undo discard_image), step!(send)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        give_back(cinder, tx, &volume.id)?;
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), Action::UploadImage, error)
    }
}

async fn make_image(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Upload) -> Result<Effect> {
    cinder.peers.image_maker.create(cx, &flow.image).await?;
    Ok(Effect::none())
}

async fn discard_image(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Upload) -> Result<Effect> {
    super::or_gone(cinder.peers.image_maker.discard(cx, &flow.image.id).await)?;
    Ok(Effect::none())
}

/// As the caller, whose image it is.
async fn send(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Upload) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    let image = &flow.image;
    cinder.agent_of(&volume)?.upload(cx, &volume.id, &image.id, &image.disk_format).await?;
    let cinder = cinder.clone();
    Ok(Effect::write(move |tx| give_back(&cinder, tx, &volume.id)))
}

/// The volume is again what it was.
fn give_back(cinder: &Cinder, tx: &mut Tx, volume_id: &str) -> Result<()> {
    store::change(tx, volume_id, cinder.clock.now(), |volume| {
        if volume.status == VolumeStatus::Uploading {
            volume.status = volume.previous_status.take().unwrap_or(VolumeStatus::Available);
        }
    })
    .map(drop)
}
