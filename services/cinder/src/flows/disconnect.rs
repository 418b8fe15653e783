//! Ends an attachment, and the volume's export with the last one.

use crate::{
    Cinder,
    messages::{self, Action},
    model::*,
    requests,
};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disconnect {
    pub attachment_id: String,
    pub volume_id: String,
    /// By an administrator, whatever the volume's state.
    #[serde(default)]
    pub forced: bool,
}

impl Flow for Disconnect {
    const KIND: &'static str = "disconnect";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(unexport)] }
    }

    /// The attachment stays, so that it can be tried again.
    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        if let Some(mut attachment) = tx.find::<Attachment>(&self.attachment_id)? {
            attachment.attach_status = AttachStatus::ErrorDetaching;
            tx.update(&attachment)?;
        }
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), Action::Attach, error)
    }
}

async fn unexport(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Disconnect) -> Result<Effect> {
    cinder.disconnect_unless_shared(cx, &flow.volume_id, &flow.attachment_id).await?;
    let (cinder, flow) = (cinder.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        tx.remove::<Attachment>(&flow.attachment_id)?;
        requests::settle_after_detach(tx, &flow.volume_id, cinder.clock.now(), flow.forced)
    }))
}
