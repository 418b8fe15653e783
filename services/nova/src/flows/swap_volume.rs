//! Puts another volume in the place of one a server has, with its bytes, while the server runs.

use super::{or_gone, power::check_state};
use crate::{
    Nova, actions, guest, migrations,
    model::{BlockDevice, LeftBehind, VmState},
    store,
};
use base::{Context, Error, Result, id};
use contracts::volumes::{Connector, NewAttachment};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SwapVolume {
    pub uuid: String,
    /// As it was.
    pub device: BlockDevice,
    pub new_volume_id: String,
    pub new_volume_size_gb: i64,
    pub new_attachment_id: String,
}

impl Flow for SwapVolume {
    const KIND: &'static str = "swap_volume";
    const CANCELLABLE: bool = false;
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(reserve, undo release), step!(swap, undo swap_back), step!(complete)] }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        store::change(tx, &self.uuid, now, |_| ())?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl SwapVolume {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_swap_volume";
        actions::Event { instance_uuid: &self.uuid, action: "swap_volume", event, host }
    }

    fn old_volume_id(&self) -> &str {
        self.device.volume_id.as_deref().unwrap_or_default()
    }
}

async fn reserve(nova: &Arc<Nova>, cx: &Context, flow: &mut SwapVolume) -> Result<Effect> {
    let attachment = NewAttachment {
        id: flow.new_attachment_id.clone(),
        volume_id: flow.new_volume_id.clone(),
        instance_id: flow.uuid.clone(),
        read_only: false,
    };
    nova.volumes().reserve(cx, &attachment).await?;
    Ok(Effect::none())
}

async fn release(nova: &Arc<Nova>, cx: &Context, flow: &mut SwapVolume) -> Result<Effect> {
    or_gone(nova.volumes().detach(cx, &flow.new_attachment_id).await)?;
    Ok(Effect::none())
}

async fn swap(nova: &Arc<Nova>, cx: &Context, flow: &mut SwapVolume) -> Result<Effect> {
    let host = nova.host_of(&flow.uuid).await?;
    let of_host = host.clone();
    let node = nova.read(move |tx| store::node_on(tx, &of_host)).await?;
    let connector = Connector {
        host: host.clone(),
        ip: node.map(|node| node.facts.0.host_ip).unwrap_or_default(),
        mountpoint: flow.device.device_name.clone(),
    };
    let connection = nova.volumes().connect(cx, &flow.new_attachment_id, &connector).await?;
    let mut device = flow.device.clone();
    device.volume_id = Some(flow.new_volume_id.clone());
    device.volume_size_gb = Some(flow.new_volume_size_gb);
    device.attachment_id = Some(flow.new_attachment_id.clone());
    device.connection = Some(AsJson(connection));
    let new = guest::volume(&device).ok_or_else(|| Error::internal("swap: no connection"))?;
    nova.compute(&host).swap_volume(&nova.own(cx), &flow.uuid, flow.old_volume_id(), &new).await?;
    Ok(Effect::write(move |tx| tx.update(&device).map(drop)))
}

async fn swap_back(nova: &Arc<Nova>, cx: &Context, flow: &mut SwapVolume) -> Result<Effect> {
    let host = nova.host_of(&flow.uuid).await?;
    let old = guest::volume(&flow.device).ok_or_else(|| Error::internal("swap: no connection"))?;
    let agent = nova.compute(&host);
    // Never swapped: the guest has the old one still, and that is what is wanted.
    agent.swap_volume(&nova.own(cx), &flow.uuid, &flow.new_volume_id, &old).await?;
    let device = flow.device.clone();
    Ok(Effect::write(move |tx| tx.update(&device).map(drop)))
}

/// The new one is the server's; the old one is let go by a flow of its own, for nothing is undone any more.
async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut SwapVolume) -> Result<Effect> {
    nova.volumes().complete(cx, &flow.new_attachment_id).await?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| host = instance.host.clone())?;
        let attachment_id = flow.device.attachment_id.clone().unwrap_or_default();
        let old = LetGo { uuid: flow.uuid.clone(), attachment_id };
        nova.flows.start(tx, &cx, &old, &flow.uuid)?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

/// Ends an attachment that nobody uses any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LetGo {
    pub uuid: String,
    pub attachment_id: String,
}

impl Flow for LetGo {
    const KIND: &'static str = "let_go";
    const CANCELLABLE: bool = false;
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(let_go)] }
    }

    fn failed(&self, _: &Nova, tx: &mut Tx, _: &Context, error: &Error) -> Result<()> {
        tracing::warn!(attachment = self.attachment_id, %error, "an attachment stays that nobody uses");
        let left = LeftBehind { attachments: vec![self.attachment_id.clone()], ..LeftBehind::default() };
        migrations::change_extra(tx, &self.uuid, |extra| extra.left_behind.push(left))
    }
}

async fn let_go(nova: &Arc<Nova>, cx: &Context, flow: &mut LetGo) -> Result<Effect> {
    or_gone(nova.volumes().detach(cx, &flow.attachment_id).await)?;
    Ok(Effect::none())
}

const FROM: &[VmState] = &[VmState::Active, VmState::Paused, VmState::Resized];

pub fn begin(
    nova: &Arc<Nova>,
    tx: &mut Tx,
    cx: &Context,
    device: &BlockDevice,
    new_volume_id: &str,
    new_volume_size_gb: i64,
) -> Result<()> {
    let uuid = &device.instance_uuid;
    let instance = store::instance(tx, uuid)?;
    check_state(&instance, FROM, &[], "swap_volume")?;
    actions::begin(tx, cx, uuid, "swap_volume", nova.clock.now())?;
    let flow = SwapVolume {
        uuid: uuid.clone(),
        device: device.clone(),
        new_volume_id: new_volume_id.into(),
        new_volume_size_gb,
        new_attachment_id: id::uuid(),
    };
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
