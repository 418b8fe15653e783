//! Makes a server: a host, its volumes, its ports, its guest.

use super::{
    or_gone,
    placing::{self, Placed, Wish},
    port_requests::{self, Allocations, PortRequest},
};
use crate::{
    Nova, actions, guest,
    model::{BlockDevice, Instance, Nic, TaskState, VmState},
    store,
};
use base::{Context, Error, ErrorKind, Result};
use contracts::{
    networks::{Binding, NewPort},
    volumes::{Connector, NewAttachment, NewVolume},
};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Boot {
    pub uuid: String,
    pub ports: Vec<PlannedPort>,
    pub forced_host: Option<String>,
    pub forced_node: Option<String>,
    /// Known once it is scheduled.
    pub host: String,
    pub host_ip: String,
    #[serde(default)]
    pub requests: Vec<PortRequest>,
}

/// A card that the server is to have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedPort {
    pub id: String,
    /// None for a port that its owner made.
    pub network_id: Option<String>,
    pub fixed_ip: Option<String>,
    pub security_group_ids: Vec<String>,
    pub tag: Option<String>,
}

impl Flow for Boot {
    const KIND: &'static str = "boot";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(schedule, undo unschedule),
                step!(make_volumes, undo unmake_volumes).interruptible(),
                step!(plug_ports, undo unplug_ports),
                step!(connect_volumes),
                step!(build, undo destroy).interruptible(),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        if !flow::is_cancelled(error) {
            store::change(tx, &self.uuid, now, |instance| {
                instance.vm_state = VmState::Error;
                instance.task_state = None;
            })?;
            actions::fault(tx, &self.uuid, error, now)?;
        }
        let event = match error.code.as_deref() {
            Some("NoValidHost") => "conductor_schedule_and_build_instances",
            _ => "compute__do_build_and_run_instance",
        };
        actions::end(tx, cx, &self.event(event), Some(error), now)
    }
}

impl Boot {
    fn event<'a>(&'a self, event: &'a str) -> actions::Event<'a> {
        let host = (!self.host.is_empty()).then(|| self.host.clone());
        actions::Event { instance_uuid: &self.uuid, action: "create", event, host }
    }
}

/// Chooses a host and takes its resources in placement's books.
async fn schedule(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    let wish = Wish {
        instance: nova.instance(&flow.uuid).await?,
        forced_host: flow.forced_host.clone(),
        forced_node: flow.forced_node.clone(),
        excluded: Vec::new(),
        requests: port_requests::of_planned(nova, cx, &flow.ports).await?,
    };
    let Placed { host, group, requests } = placing::place(nova, cx, wish).await?;
    flow.requests = requests;
    flow.host = host.node.host.clone();
    flow.host_ip = host.node.facts.host_ip.clone();
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        if group {
            placing::check_group_again(tx, &uuid, &host.node.host)?;
        }
        let with_volumes = store::block_devices(tx, &uuid)?.iter().any(is_volume);
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            instance.host = Some(host.node.host.clone());
            instance.node = Some(host.node.facts.hypervisor_hostname.clone());
            instance.availability_zone = Some(host.zone.clone());
            keep_task(
                instance,
                if with_volumes { TaskState::BlockDeviceMapping } else { TaskState::Networking },
            );
        })
        .map(drop)
    }))
}

fn is_volume(device: &BlockDevice) -> bool {
    device.destination_type == "volume"
}

async fn unschedule(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    nova.placement().release(&nova.own(cx), &flow.uuid).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            instance.host = None;
            instance.node = None;
            instance.availability_zone = None;
        })
        .map(drop)
    }))
}

/// Volumes that are to be made are made; all of them are spoken for.
async fn make_volumes(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    let (instance, mut devices) = nova.instance_with_devices(&flow.uuid).await?;
    if !devices.iter().any(is_volume) {
        return Ok(Effect::none());
    }
    let volumes = nova.volumes();
    for device in devices.iter_mut().filter(|device| is_volume(device)) {
        let Some(volume_id) = device.volume_id.clone() else { continue };
        let attachment = NewAttachment {
            id: device.attachment_id.clone().unwrap_or_default(),
            volume_id: volume_id.clone(),
            instance_id: instance.uuid.clone(),
            read_only: false,
        };
        if device.source_type != "volume" {
            let image = device.source_type == "image";
            let snapshot = device.source_type == "snapshot";
            let wanted = NewVolume {
                id: volume_id.clone(),
                size_gb: device.volume_size_gb.unwrap_or(1).max(1).unsigned_abs(),
                image_id: device.source_id.clone().filter(|_| image),
                snapshot_id: device.source_id.clone().filter(|_| snapshot),
                volume_type: device.volume_type.clone(),
                attachment: Some(attachment.clone()),
                ..NewVolume::default()
            };
            volumes.create(cx, &wanted).await?;
            wait_until_available(nova, cx, &volume_id).await?;
        }
        volumes.reserve(cx, &attachment).await?;
    }
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |i| keep_task(i, TaskState::Networking)).map(drop)
    }))
}

async fn wait_until_available(nova: &Nova, cx: &Context, volume_id: &str) -> Result<()> {
    let why = wait_until_written(nova, cx, volume_id).await;
    why.map_err(|error| match error.is(ErrorKind::Conflict) {
        true => Error::conflict(format!("Build of instance aborted: {}", error.message)),
        false => error,
    })
}

/// Until a volume is neither made nor written to any more; `Conflict` when that failed or takes too long.
pub async fn wait_until_written(nova: &Nova, cx: &Context, volume_id: &str) -> Result<()> {
    let patience = nova.options.block_device_timeout_seconds;
    for _ in 0..patience.max(1) {
        let volume = nova.volumes().show(cx, volume_id).await?;
        match volume.status.as_str() {
            "creating" | "downloading" => {}
            "error" => {
                return Err(Error::conflict(format!(
                    "Volume {volume_id} did not finish being created even after we waited: it is in status error."
                )));
            }
            _ => return Ok(()),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(Error::conflict(format!(
        "Volume {volume_id} did not finish being created even after we waited {patience} seconds."
    )))
}

async fn unmake_volumes(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    let (_, devices) = nova.instance_with_devices(&flow.uuid).await?;
    release_volumes(nova, cx, &devices).await?;
    let ids: Vec<String> = devices.into_iter().map(|device| device.id).collect();
    Ok(Effect::write(move |tx| store::forget_connections(tx, &ids)))
}

/// Attachments end; volumes that were made for the server, or shall go with it, are deleted.
pub async fn release_volumes(nova: &Nova, cx: &Context, devices: &[BlockDevice]) -> Result<()> {
    for device in devices.iter().filter(|device| is_volume(device)) {
        let (Some(volume_id), Some(attachment_id)) = (&device.volume_id, &device.attachment_id) else {
            continue;
        };
        or_gone(nova.volumes().detach(cx, attachment_id).await)?;
        if device.delete_on_termination || device.source_type != "volume" && device.connection.is_none() {
            match or_gone(nova.volumes().delete(cx, volume_id).await) {
                // Its owner made a snapshot of it, say: then it stays.
                Err(error) if error.is(ErrorKind::BadRequest) => {
                    tracing::warn!(volume_id, %error, "the volume stays when its server goes");
                }
                other => other?,
            }
        }
    }
    Ok(())
}

/// Ports are made where the server shall have new ones, and all are bound to its host.
async fn plug_ports(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let allocations = port_requests::now(&flow.requests);
    let bound = futures::future::try_join_all(
        flow.ports.iter().map(|planned| plug(nova, cx, &instance, planned, &flow.host, &allocations)),
    );
    let nics = bound.await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            instance.nics = AsJson(nics.clone());
            keep_task(instance, TaskState::Spawning);
        })
        .map(drop)
    }))
}

/// Makes the port unless its owner did, and binds it.
pub async fn plug(
    nova: &Nova,
    cx: &Context,
    instance: &Instance,
    planned: &PlannedPort,
    host: &str,
    allocations: &Allocations,
) -> Result<Nic> {
    let networks = nova.networks();
    if let Some(network_id) = &planned.network_id {
        let port = NewPort {
            id: planned.id.clone(),
            network_id: network_id.clone(),
            fixed_ip: planned.fixed_ip.clone(),
            security_group_ids: planned.security_group_ids.clone(),
            device_id: instance.uuid.clone(),
            dns_name: Some(instance.hostname.clone()),
        };
        let made = networks.create_port(cx, &port).await?;
        // Nobody asked placement for it.
        if !made.resource_request.is_empty() {
            return Err(Error::bad_request(format!(
                "Using networks with QoS policy is not supported for instance {}. (Network ID is {network_id})",
                instance.uuid
            )));
        }
    }
    let zone = instance.availability_zone.as_deref().unwrap_or(&nova.options.default_availability_zone);
    let binding = Binding {
        port_id: planned.id.clone(),
        device_id: instance.uuid.clone(),
        device_owner: format!("compute:{zone}"),
        host: host.into(),
        dns_name: None,
        allocation: allocations.get(&planned.id).cloned().unwrap_or_default(),
    };
    let port = networks.bind_port(&nova.own(cx), &binding).await?;
    Ok(Nic { port, ours: planned.network_id.is_some(), tag: planned.tag.clone() })
}

async fn unplug_ports(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    for planned in &flow.ports {
        unplug(nova, cx, &planned.id, planned.network_id.is_some()).await?;
    }
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| instance.nics = AsJson(Vec::new())).map(drop)
    }))
}

/// A port that was made for the server goes; its owner's own is given back.
pub async fn unplug(nova: &Nova, cx: &Context, port_id: &str, ours: bool) -> Result<()> {
    let own = nova.own(cx);
    let networks = nova.networks();
    or_gone(if ours {
        networks.delete_port(&own, port_id).await
    } else {
        networks.unbind_port(&own, port_id).await
    })
}

/// Volumes are made reachable from the host. Undone with the attachments themselves.
async fn connect_volumes(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    let (_, mut devices) = nova.instance_with_devices(&flow.uuid).await?;
    devices.retain(is_volume);
    if devices.is_empty() {
        return Ok(Effect::none());
    }
    for device in &mut devices {
        let attachment_id = device.attachment_id.clone().unwrap_or_default();
        let connector = Connector {
            host: flow.host.clone(),
            ip: flow.host_ip.clone(),
            mountpoint: device.device_name.clone(),
        };
        let connection = nova.volumes().connect(cx, &attachment_id, &connector).await?;
        device.connection = Some(AsJson(connection));
    }
    Ok(Effect::write(move |tx| devices.iter().try_for_each(|device| tx.update(device).map(drop))))
}

async fn build(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let wanted = guest::instance(nova, &instance, &devices)?;
    let observed = nova.compute(&flow.host).build(&nova.own(cx), &wanted).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            instance.power_state = observed.power_state as i64;
        })
        .map(drop)
    }))
}

async fn destroy(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    or_gone(nova.compute(&flow.host).destroy(&nova.own(cx), &flow.uuid).await)?;
    Ok(Effect::none())
}

/// The guest has its volumes; the server is there.
async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut Boot) -> Result<Effect> {
    let (_, devices) = nova.instance_with_devices(&flow.uuid).await?;
    for device in devices.iter().filter(|device| is_volume(device)) {
        let attachment_id = device.attachment_id.as_deref().unwrap_or_default();
        nova.volumes().complete(cx, attachment_id).await?;
    }
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        store::change(tx, &flow.uuid, now, |instance| {
            instance.vm_state = VmState::Active;
            instance.task_state = None;
            instance.launched_at = Some(now);
        })?;
        actions::end(tx, &cx, &flow.event("compute__do_build_and_run_instance"), None, now)
    }))
}

/// Progress does not hide that somebody is deleting the server.
fn keep_task(instance: &mut Instance, task: TaskState) {
    if instance.task_state != Some(TaskState::Deleting) {
        instance.task_state = Some(task);
    }
}
