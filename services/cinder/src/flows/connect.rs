//! Makes a volume reachable from the host that an attachment names.

use crate::{
    Cinder,
    messages::{self, Action},
    model::*,
    store,
};
use base::{Context, Error, Json, Result};
use contracts::agents::volume::Reach;
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connect {
    pub attachment_id: String,
    pub volume_id: String,
    /// As the host sent it.
    pub connector: Json,
}

impl Flow for Connect {
    const KIND: &'static str = "connect";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(export, undo unexport)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), Action::Attach, error)
    }
}

impl Connect {
    fn text(&self, key: &str) -> Option<String> {
        self.connector.get(key).and_then(Json::as_str).map(String::from)
    }
}

async fn export(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Connect) -> Result<Effect> {
    let id = flow.attachment_id.clone();
    let (attachment, volume) = cinder
        .read(move |tx| {
            let attachment = store::attachment(tx, &id)?;
            let volume = store::volume(tx, &attachment.volume_id)?;
            Ok((attachment, volume))
        })
        .await?;
    // What the attachment was made with counts more than what its host says.
    let mode = match attachment.attach_mode.as_str() {
        "null" => flow.text("mode").unwrap_or_else(|| "rw".into()),
        chosen => chosen.to_string(),
    };
    let from = Reach {
        host: flow.text("host").unwrap_or_default(),
        ip: flow.text("ip").unwrap_or_default(),
        read_only: mode == "ro",
    };
    let connection = cinder.agent_of(&volume)?.connect(&cinder.own(cx), &volume.id, &from).await?;
    let (cinder, flow) = (cinder.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let Some(mut attachment) = tx.find::<Attachment>(&flow.attachment_id)? else {
            return Err(crate::errors::attachment_not_found(&flow.attachment_id));
        };
        let now = cinder.clock.now();
        attachment.attached_host = Some(from.host.clone());
        attachment.mountpoint = Some(flow.text("mountpoint").unwrap_or_else(|| "na".into()));
        attachment.attach_mode = mode.clone();
        attachment.connector = flow.connector.clone();
        attachment.connection = Some(AsJson(connection.clone()));
        attachment.attach_time = Some(now);
        if attachment.attach_status != AttachStatus::Attached {
            attachment.attach_status = AttachStatus::Attaching;
        }
        tx.update(&attachment)?;
        store::change(tx, &flow.volume_id, now, |volume| {
            if volume.status == VolumeStatus::Reserved {
                volume.status = VolumeStatus::Attaching;
            }
            if volume.attach_status == AttachStatus::Detached {
                volume.attach_status = AttachStatus::Attaching;
            }
            volume.attached_mode = Some(mode.clone());
        })
        .map(drop)
    }))
}

/// Others' connections stay.
async fn unexport(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Connect) -> Result<Effect> {
    cinder.disconnect_unless_shared(cx, &flow.volume_id, &flow.attachment_id).await?;
    let (cinder, flow) = (cinder.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let Some(mut attachment) = tx.find::<Attachment>(&flow.attachment_id)? else { return Ok(()) };
        attachment.attach_status = AttachStatus::Reserved;
        attachment.connection = None;
        attachment.connector = Json::Null;
        attachment.attach_time = None;
        tx.update(&attachment)?;
        crate::requests::settle_after_detach(tx, &flow.volume_id, cinder.clock.now(), false)
    }))
}

impl Cinder {
    /// Leaves the volume to the hosts of its other attachments; without any the export ends.
    pub(super) async fn disconnect_unless_shared(
        &self,
        cx: &Context,
        volume_id: &str,
        attachment_id: &str,
    ) -> Result<()> {
        let Some(volume) = self.volume_if_there(volume_id).await? else { return Ok(()) };
        let id = volume_id.to_string();
        let attachments = self.read(move |tx| store::attachments(tx, &id)).await?;
        if volume.host.is_none() {
            return Ok(());
        }
        let others =
            attachments.into_iter().filter(|other| other.id != attachment_id && other.connection.is_some());
        let left: Vec<String> = others.filter_map(|other| other.attached_host).collect();
        super::or_gone(self.agent_of(&volume)?.disconnect(&self.own(cx), volume_id, &left).await)
    }
}
