//! What goes with a server from one host to another: the bindings of its ports, the attachments of its volumes.

use super::{or_gone, port_requests::Allocations};
use crate::{
    Nova,
    model::{BlockDevice, Instance, Nic},
    store,
};
use base::{Context, Result, id};
use contracts::{
    compute::Connection,
    networks::Binding,
    peers::Peer,
    volumes::{Connector, NewAttachment},
};
use db::{AsJson, Tx};
use serde::{Deserialize, Serialize};

/// A volume of the server, with the attachments it has and may get: their ids are chosen beforehand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedVolume {
    pub device_id: String,
    pub volume_id: String,
    pub device_name: Option<String>,
    pub old: String,
    pub new: String,
    /// When all is undone.
    pub back: String,
}

/// Where something shall be reached from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    pub host: String,
    pub node: String,
    /// The id of its resource provider.
    pub node_uuid: String,
    pub ip: String,
    pub zone: Option<String>,
}

pub fn plan(devices: &[BlockDevice]) -> Vec<PlannedVolume> {
    let volumes = devices.iter().filter(|device| device.destination_type == "volume");
    let one = |device: &BlockDevice| {
        Some(PlannedVolume {
            device_id: device.id.clone(),
            volume_id: device.volume_id.clone()?,
            device_name: device.device_name.clone(),
            old: device.attachment_id.clone()?,
            new: id::uuid(),
            back: id::uuid(),
        })
    };
    volumes.filter_map(one).collect()
}

/// The place where a server is.
pub fn place_of(tx: &mut Tx, instance: &Instance) -> Result<Place> {
    let host = instance.host.clone().unwrap_or_default();
    let node = store::node_on(tx, &host)?;
    Ok(Place {
        node: instance.node.clone().unwrap_or_default(),
        node_uuid: node.as_ref().map(|node| node.uuid.clone()).unwrap_or_default(),
        ip: node.map(|node| node.facts.0.host_ip).unwrap_or_default(),
        zone: instance.availability_zone.clone(),
        host,
    })
}

impl Place {
    pub fn of(host: &crate::scheduler::Host) -> Self {
        Self {
            host: host.node.host.clone(),
            node: host.node.facts.hypervisor_hostname.clone(),
            node_uuid: host.node.uuid.clone(),
            ip: host.node.facts.host_ip.clone(),
            zone: Some(host.zone.clone()),
        }
    }

    /// As the agent of another host reaches it.
    pub fn peer(&self) -> Peer {
        Peer { host: self.host.clone(), address: self.ip.clone() }
    }

    pub fn set(&self, instance: &mut Instance) {
        instance.host = Some(self.host.clone());
        instance.node = Some(self.node.clone());
        instance.availability_zone.clone_from(&self.zone);
    }
}

/// An attachment more, spoken for and connected at the place. The answer is by device.
pub async fn connect(
    nova: &Nova,
    cx: &Context,
    uuid: &str,
    place: &Place,
    volumes: &[(&PlannedVolume, &str)],
) -> Result<Vec<(String, String, Connection)>> {
    let mut connected = Vec::new();
    for (volume, attachment_id) in volumes {
        reserve(nova, cx, uuid, volume, attachment_id).await?;
        let connector = Connector {
            host: place.host.clone(),
            ip: place.ip.clone(),
            mountpoint: volume.device_name.clone(),
        };
        let connection = nova.volumes().connect(cx, attachment_id, &connector).await?;
        connected.push((volume.device_id.clone(), attachment_id.to_string(), connection));
    }
    Ok(connected)
}

pub async fn reserve(
    nova: &Nova,
    cx: &Context,
    uuid: &str,
    volume: &PlannedVolume,
    attachment_id: &str,
) -> Result<()> {
    let attachment = NewAttachment {
        id: attachment_id.to_string(),
        volume_id: volume.volume_id.clone(),
        instance_id: uuid.into(),
        read_only: false,
    };
    nova.volumes().reserve(cx, &attachment).await
}

pub async fn detach(nova: &Nova, cx: &Context, attachment_ids: &[&str]) -> Result<()> {
    for id in attachment_ids {
        or_gone(nova.volumes().detach(cx, id).await)?;
    }
    Ok(())
}

pub async fn complete(nova: &Nova, cx: &Context, attachment_ids: &[&str]) -> Result<()> {
    for id in attachment_ids {
        nova.volumes().complete(cx, id).await?;
    }
    Ok(())
}

/// Records which attachments the devices have now.
pub fn record(tx: &mut Tx, uuid: &str, connected: &[(String, String, Connection)]) -> Result<()> {
    for mut device in store::block_devices(tx, uuid)? {
        if let Some((_, id, connection)) = connected.iter().find(|(of, ..)| *of == device.id) {
            device.attachment_id = Some(id.clone());
            device.connection = Some(AsJson(connection.clone()));
            tx.update(&device)?;
        }
    }
    Ok(())
}

/// The devices as they will be, before it is recorded.
pub fn with(devices: &mut [BlockDevice], connected: &[(String, String, Connection)]) {
    for device in devices {
        if let Some((_, id, connection)) = connected.iter().find(|(of, ..)| *of == device.id) {
            device.attachment_id = Some(id.clone());
            device.connection = Some(AsJson(connection.clone()));
        }
    }
}

/// The server's ports on another host; none: on none, but still the server's.
pub async fn bind(
    nova: &Nova,
    cx: &Context,
    instance: &Instance,
    place: &Place,
    allocations: &Allocations,
) -> Result<Vec<Nic>> {
    let zone = place.zone.as_deref().unwrap_or(&nova.options.default_availability_zone);
    let mut nics = instance.nics.0.clone();
    for nic in &mut nics {
        let binding = Binding {
            port_id: nic.port.id.clone(),
            device_id: instance.uuid.clone(),
            device_owner: format!("compute:{zone}"),
            host: place.host.clone(),
            dns_name: None,
            allocation: allocations.get(&nic.port.id).cloned().unwrap_or_default(),
        };
        nic.port = nova.networks().bind_port(&nova.own(cx), &binding).await?;
    }
    Ok(nics)
}

/// Volumes that are spoken for by their new attachments, and reached from nowhere.
pub fn record_reserved(tx: &mut Tx, uuid: &str, volumes: &[PlannedVolume]) -> Result<()> {
    for mut device in store::block_devices(tx, uuid)? {
        if let Some(volume) = volumes.iter().find(|volume| volume.device_id == device.id) {
            device.attachment_id = Some(volume.new.clone());
            device.connection = None;
            tx.update(&device)?;
        }
    }
    Ok(())
}
