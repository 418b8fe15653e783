//! Takes a volume from a server while it is there.

use super::{or_gone, power::check_state};
use crate::{
    Nova, actions,
    model::{BlockDevice, VmState},
    store,
};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DetachVolume {
    pub uuid: String,
    pub device_id: String,
}

impl Flow for DetachVolume {
    const KIND: &'static str = "detach_volume";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(detach).interruptible(), step!(release)] }
    }

    /// The guest keeps what it did not release.
    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        store::change(tx, &self.uuid, now, |_| ())?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl DetachVolume {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_detach_volume";
        actions::Event { instance_uuid: &self.uuid, action: "detach_volume", event, host }
    }
}

async fn device(nova: &Nova, flow: &DetachVolume) -> Result<Option<BlockDevice>> {
    let id = flow.device_id.clone();
    nova.read(move |tx| tx.find::<BlockDevice>(&id)).await
}

async fn detach(nova: &Arc<Nova>, cx: &Context, flow: &mut DetachVolume) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    // Somebody else's detach was faster.
    let Some(device) = device(nova, flow).await? else { return Ok(Effect::none()) };
    if let (Some(host), Some(volume_id)) = (&instance.host, &device.volume_id) {
        or_gone(nova.compute(host).detach_volume(&nova.own(cx), &flow.uuid, volume_id).await)?;
    }
    Ok(Effect::none())
}

async fn release(nova: &Arc<Nova>, cx: &Context, flow: &mut DetachVolume) -> Result<Effect> {
    if let Some(attachment_id) = device(nova, flow).await?.and_then(|device| device.attachment_id) {
        or_gone(nova.volumes().detach(cx, &attachment_id).await)?;
    }
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        tx.remove::<BlockDevice>(&flow.device_id)?;
        store::change(tx, &flow.uuid, now, |instance| host = instance.host.clone())?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

const FROM: &[VmState] = &[
    VmState::Active,
    VmState::Suspended,
    VmState::Stopped,
    VmState::Resized,
    VmState::SoftDeleted,
    VmState::Paused,
    VmState::Shelved,
    VmState::ShelvedOffloaded,
];

pub async fn begin(nova: &Arc<Nova>, cx: &Context, uuid: &str, device_id: &str) -> Result<()> {
    let (work, cx, uuid) = (nova.clone(), cx.clone(), uuid.to_string());
    let device_id = device_id.to_string();
    nova.write(move |tx| {
        check_state(&store::instance(tx, &uuid)?, FROM, &[], "detach_volume")?;
        actions::begin(tx, &cx, &uuid, "detach_volume", work.clock.now())?;
        let flow = DetachVolume { uuid: uuid.clone(), device_id: device_id.clone() };
        work.flows.start(tx, &cx, &flow, &uuid).map(drop)
    })
    .await
}
