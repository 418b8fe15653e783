//! Gives a server a volume while it is there.

use super::{or_gone, power::check_state};
use crate::{
    Nova, actions,
    api::server_volumes::choose_name,
    guest,
    model::{BlockDevice, VmState},
    store,
};
use base::{Context, Error, Result, id};
use contracts::volumes::{Connector, NewAttachment, Volume};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachVolume {
    pub uuid: String,
    /// Its row.
    pub device_id: String,
    pub volume_id: String,
    pub attachment_id: String,
}

impl Flow for AttachVolume {
    const KIND: &'static str = "attach_volume";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(reserve, undo release),
                step!(connect),
                step!(attach, undo detach).interruptible(),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        tx.remove::<BlockDevice>(&self.device_id)?;
        store::change(tx, &self.uuid, now, |_| ())?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl AttachVolume {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_attach_volume";
        actions::Event { instance_uuid: &self.uuid, action: "attach_volume", event, host }
    }
}

async fn reserve(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachVolume) -> Result<Effect> {
    let attachment = NewAttachment {
        id: flow.attachment_id.clone(),
        volume_id: flow.volume_id.clone(),
        instance_id: flow.uuid.clone(),
        read_only: false,
    };
    nova.volumes().reserve(cx, &attachment).await?;
    Ok(Effect::none())
}

async fn release(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachVolume) -> Result<Effect> {
    or_gone(nova.volumes().detach(cx, &flow.attachment_id).await)?;
    Ok(Effect::none())
}

/// A server that has left its host has the volume in name: it is connected when the server comes back.
async fn is_on_no_host(nova: &Nova, flow: &AttachVolume) -> Result<bool> {
    Ok(nova.instance(&flow.uuid).await?.vm_state == VmState::ShelvedOffloaded)
}

async fn connect(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachVolume) -> Result<Effect> {
    if is_on_no_host(nova, flow).await? {
        return Ok(Effect::none());
    }
    let (uuid, device_id) = (flow.uuid.clone(), flow.device_id.clone());
    let found = nova.read(move |tx| {
        let instance = store::instance(tx, &uuid)?;
        let node = match &instance.host {
            Some(host) => store::node_on(tx, host)?,
            None => None,
        };
        Ok((instance, node, tx.find::<BlockDevice>(&device_id)?))
    });
    let (instance, node, device) = found.await?;
    let mut device = device.ok_or_else(|| Error::internal("attach: the device's row is gone"))?;
    let connector = Connector {
        host: instance.host.unwrap_or_default(),
        ip: node.map(|node| node.facts.0.host_ip).unwrap_or_default(),
        mountpoint: device.device_name.clone(),
    };
    let connection = nova.volumes().connect(cx, &flow.attachment_id, &connector).await?;
    device.connection = Some(AsJson(connection));
    Ok(Effect::write(move |tx| tx.update(&device).map(drop)))
}

async fn attach(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachVolume) -> Result<Effect> {
    if is_on_no_host(nova, flow).await? {
        return Ok(Effect::none());
    }
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let device = devices.into_iter().find(|device| device.id == flow.device_id);
    let mut device = device.ok_or_else(|| Error::internal("attach: the device's row is gone"))?;
    let host = instance.host.ok_or_else(|| Error::conflict("The server is on no host."))?;
    let volume = guest::volume(&device).ok_or_else(|| Error::internal("attach: no connection"))?;
    let name = nova.compute(&host).attach_volume(&nova.own(cx), &flow.uuid, &volume).await?;
    device.device_name = Some(name);
    Ok(Effect::write(move |tx| tx.update(&device).map(drop)))
}

async fn detach(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachVolume) -> Result<Effect> {
    let Ok(instance) = nova.instance(&flow.uuid).await else { return Ok(Effect::none()) };
    if let Some(host) = &instance.host {
        or_gone(nova.compute(host).detach_volume(&nova.own(cx), &flow.uuid, &flow.volume_id).await)?;
    }
    Ok(Effect::none())
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachVolume) -> Result<Effect> {
    nova.volumes().complete(cx, &flow.attachment_id).await?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
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
    VmState::Shelved,
    VmState::ShelvedOffloaded,
    VmState::Paused,
];

/// Records the volume as the server's and begins. Answers its row.
pub async fn begin(
    nova: &Arc<Nova>,
    cx: &Context,
    uuid: &str,
    wanted: BlockDevice,
    volume: &Volume,
) -> Result<BlockDevice> {
    let (nova, cx, uuid, volume) = (nova.clone(), cx.clone(), uuid.to_string(), volume.clone());
    let work = nova.clone();
    nova.write(move |tx| {
        let instance = store::instance(tx, &uuid)?;
        check_state(&instance, FROM, &[], "attach_volume")?;
        let devices = store::block_devices(tx, &uuid)?;
        check_free(tx, &uuid, &volume)?;
        let device = BlockDevice {
            id: id::uuid(),
            instance_uuid: uuid.clone(),
            attachment_id: Some(id::uuid()),
            device_name: Some(choose_name(wanted.device_name.clone(), &instance, &devices)?),
            ..wanted.clone()
        };
        tx.insert(&device)?;
        actions::begin(tx, &cx, &uuid, "attach_volume", work.clock.now())?;
        let flow = AttachVolume {
            uuid: uuid.clone(),
            device_id: device.id.clone(),
            volume_id: volume.id.clone(),
            attachment_id: device.attachment_id.clone().unwrap_or_default(),
        };
        work.flows.start(tx, &cx, &flow, &uuid)?;
        Ok(device)
    })
    .await
}

/// A volume is one server's, unless it may be several's; and one server's only once.
fn check_free(tx: &mut Tx, uuid: &str, volume: &Volume) -> Result<()> {
    let held = store::holders_of_volume(tx, &volume.id)?;
    let holders: Vec<&str> = held.iter().map(|device| device.instance_uuid.as_str()).collect();
    if !holders.is_empty() && !volume.multiattach {
        return Err(Error::bad_request(format!(
            "Invalid volume: volume {} is already attached to instances: {}",
            volume.id,
            holders.join(", ")
        )));
    }
    if holders.contains(&uuid) {
        return Err(Error::bad_request(format!("Invalid volume: volume {} already attached", volume.id)));
    }
    crate::api::server_devices::check_available(volume)
}
