//! Brings a shelved server back: on its host, or on any that has room, from the image its disk became.

use super::{
    failed_as_it_was, or_gone,
    placing::{self, Wish},
    port_requests::{self, Allocations, PortRequest},
    power::check_state,
    relocate::{self, Place, PlannedVolume},
};
use crate::{
    Nova, actions, guest, migrations,
    model::{Instance, TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use contracts::compute::InstanceImage;
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unshelve {
    pub uuid: String,
    pub image_id: Option<String>,
    pub disk_format: String,
    /// It has left its host.
    pub offloaded: bool,
    pub forced_host: Option<String>,
    pub volumes: Vec<PlannedVolume>,
    /// Known once it is scheduled.
    pub place: Place,
    #[serde(default)]
    pub requests: Vec<PortRequest>,
}

impl Flow for Unshelve {
    const KIND: &'static str = "unshelve";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(schedule, undo unschedule),
                step!(connect_devices, undo disconnect_devices),
                step!(spawn, undo destroy).interruptible(),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        failed_as_it_was(nova, tx, cx, &self.event(None), error)
    }
}

impl Unshelve {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_unshelve_instance";
        actions::Event { instance_uuid: &self.uuid, action: "unshelve", event, host }
    }
}

async fn schedule(nova: &Arc<Nova>, cx: &Context, flow: &mut Unshelve) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    if !flow.offloaded {
        flow.place = nova.read(move |tx| relocate::place_of(tx, &instance)).await?;
        return Ok(Effect::none());
    }
    let forced_host = flow.forced_host.clone();
    let requests = port_requests::of_server(nova, cx, &flow.uuid).await?;
    let wish = Wish { instance, forced_host, forced_node: None, excluded: Vec::new(), requests };
    let placed = placing::place(nova, cx, wish).await?;
    flow.place = Place::of(&placed.host);
    flow.requests = placed.requests;
    let (nova, flow) = (nova.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        if placed.group {
            placing::check_group_again(tx, &flow.uuid, &flow.place.host)?;
        }
        store::change(tx, &flow.uuid, nova.clock.now(), |instance| {
            flow.place.set(instance);
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = Some(TaskState::Spawning);
            }
        })
        .map(drop)
    }))
}

async fn unschedule(nova: &Arc<Nova>, cx: &Context, flow: &mut Unshelve) -> Result<Effect> {
    if !flow.offloaded {
        return Ok(Effect::none());
    }
    nova.placement().release(&nova.own(cx), &flow.uuid).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| (instance.host, instance.node) = (None, None))
            .map(drop)
    }))
}

async fn connect_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut Unshelve) -> Result<Effect> {
    if !flow.offloaded {
        return Ok(Effect::none());
    }
    let instance = nova.instance(&flow.uuid).await?;
    let wanted: Vec<_> = flow.volumes.iter().map(|volume| (volume, volume.old.as_str())).collect();
    let connected = relocate::connect(nova, cx, &flow.uuid, &flow.place, &wanted).await?;
    let nics = relocate::bind(nova, cx, &instance, &flow.place, &port_requests::now(&flow.requests)).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        relocate::record(tx, &uuid, &connected)?;
        store::change(tx, &uuid, nova.clock.now(), |i| i.nics = AsJson(nics.clone())).map(drop)
    }))
}

/// Volumes are spoken for by attachments that nobody has connected; ports are on no host.
async fn disconnect_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut Unshelve) -> Result<Effect> {
    if !flow.offloaded {
        return Ok(Effect::none());
    }
    let instance = nova.instance(&flow.uuid).await?;
    for volume in &flow.volumes {
        relocate::reserve(nova, cx, &flow.uuid, volume, &volume.new).await?;
        relocate::detach(nova, cx, &[&volume.old]).await?;
    }
    let nics = relocate::bind(nova, cx, &instance, &Place::default(), &Allocations::new()).await?;
    let (nova, flow) = (nova.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        relocate::record_reserved(tx, &flow.uuid, &flow.volumes)?;
        store::change(tx, &flow.uuid, nova.clock.now(), |i| i.nics = AsJson(nics.clone())).map(drop)
    }))
}

async fn spawn(nova: &Arc<Nova>, cx: &Context, flow: &mut Unshelve) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let mut wanted = guest::instance(nova, &instance, &devices)?;
    let (own, agent) = (nova.own(cx), nova.compute(&flow.place.host));
    let observed = if flow.offloaded {
        if let (Some(image), Some(id)) = (&mut wanted.image, &flow.image_id) {
            *image = InstanceImage { id: id.clone(), disk_format: flow.disk_format.clone(), ..image.clone() };
        }
        agent.build(&own, &wanted).await?
    } else {
        agent.start(&own, &wanted).await?
    };
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        let state = observed.power_state as i64;
        store::change(tx, &uuid, nova.clock.now(), |instance| instance.power_state = state).map(drop)
    }))
}

async fn destroy(nova: &Arc<Nova>, cx: &Context, flow: &mut Unshelve) -> Result<Effect> {
    let (own, agent) = (nova.own(cx), nova.compute(&flow.place.host));
    if flow.offloaded {
        or_gone(agent.destroy(&own, &flow.uuid).await)?;
    } else {
        or_gone(agent.stop(&own, &flow.uuid, 0).await.map(drop))?;
    }
    Ok(Effect::none())
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut Unshelve) -> Result<Effect> {
    if flow.offloaded {
        let ids: Vec<&str> = flow.volumes.iter().map(|volume| volume.old.as_str()).collect();
        relocate::complete(nova, cx, &ids).await?;
    }
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        store::change(tx, &flow.uuid, now, |instance| {
            instance.vm_state = VmState::Active;
            instance.launched_at = Some(now);
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        migrations::change_extra(tx, &flow.uuid, |extra| extra.shelved = None)?;
        actions::end(tx, &cx, &flow.event(Some(flow.place.host.clone())), None, now)?;
        match &flow.image_id {
            Some(id) => {
                nova.flows.start(tx, &cx, &RemoveImage { image_id: id.clone() }, &flow.uuid).map(drop)
            }
            None => Ok(()),
        }
    }))
}

/// Removes the image of a server that has come back. Its owner may have deleted it, or forbidden that: then it stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveImage {
    pub image_id: String,
}

impl Flow for RemoveImage {
    const KIND: &'static str = "remove_image";
    const CANCELLABLE: bool = false;
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(remove_image)] }
    }

    fn failed(&self, _: &Nova, _: &mut Tx, _: &Context, error: &Error) -> Result<()> {
        tracing::warn!(image = self.image_id, %error, "the image of a shelved server stays");
        Ok(())
    }
}

async fn remove_image(nova: &Arc<Nova>, cx: &Context, flow: &mut RemoveImage) -> Result<Effect> {
    nova.peers.image_keeper.delete(cx, &flow.image_id).await?;
    Ok(Effect::none())
}

pub fn check(instance: &Instance) -> Result<()> {
    check_state(instance, &[VmState::Shelved, VmState::ShelvedOffloaded], &[], "unshelve")
}

/// Where it shall go; what is none stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub availability_zone: Option<Option<String>>,
    pub host: Option<String>,
}

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str, wanted: &Wanted) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    check(&instance)?;
    let (now, shelved) = (nova.clock.now(), migrations::extra(tx, uuid)?.shelved.unwrap_or_default());
    store::change(tx, uuid, now, |instance| {
        instance.task_state = Some(TaskState::Unshelving);
        if let Some(zone) = &wanted.availability_zone {
            instance.pinned_availability_zone.clone_from(zone);
        }
    })?;
    actions::begin(tx, cx, uuid, "unshelve", now)?;
    let flow = Unshelve {
        uuid: uuid.into(),
        image_id: shelved.image_id,
        disk_format: guest::local_disk_format(&instance).into(),
        offloaded: instance.vm_state == VmState::ShelvedOffloaded,
        forced_host: wanted.host.clone(),
        volumes: relocate::plan(&store::block_devices(tx, uuid)?),
        place: Place::default(),
        requests: Vec::new(),
    };
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
