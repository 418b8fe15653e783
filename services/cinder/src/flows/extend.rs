//! Grows a volume, and tells nova when a server has it. What has grown is not made smaller again: the bytes beyond the
//! end are nobody's.

use crate::{
    Cinder,
    messages::{self, Action},
    model::*,
    store,
};
use base::{Context, Error, Result};
use contracts::servers::ExternalEvent;
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
        const { &[step!(grow), step!(tell)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        if volume.wanted_size == 0 {
            // It has grown; only its server was not told.
            return Ok(());
        }
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
                volume.status = volume.previous_status.take().unwrap_or(VolumeStatus::Available);
            }
        })
        .map(drop)
    }))
}

/// The volume has grown whatever nova says: what its guests do not see now they see when they start again.
async fn tell(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Extend) -> Result<Effect> {
    let id = flow.volume_id.clone();
    let attachments = cinder.read(move |tx| store::attachments(tx, &id)).await?;
    let attached = attachments.into_iter().filter(|one| one.attach_status == AttachStatus::Attached);
    for server_id in attached.filter_map(|one| one.instance_uuid) {
        let Some(servers) = cinder.servers() else { break };
        let event = ExternalEvent {
            server_id,
            name: "volume-extended".into(),
            tag: Some(flow.volume_id.clone()),
            status: "completed".into(),
        };
        if let Err(error) = servers.external_event(&cinder.own(cx), &event).await {
            tracing::warn!(volume = flow.volume_id, server = event.server_id, %error, "server not told of its volume's size");
        }
    }
    Ok(Effect::none())
}
