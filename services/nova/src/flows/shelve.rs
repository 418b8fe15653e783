//! Puts a server away: off, its disk as an image; and, as a flow of its own, off its host, where it takes nothing.

use super::{
    failed_as_it_was, or_gone,
    port_requests::Allocations,
    power::check_state,
    relocate::{self, Place, PlannedVolume},
    snapshot::{task, to_image},
};
use crate::{
    Nova, actions, guest, migrations,
    model::{Shelved, TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use contracts::images::NewImage;
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shelve {
    pub uuid: String,
    pub was: VmState,
    pub image: NewImage,
}

impl Flow for Shelve {
    const KIND: &'static str = "shelve";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(make_image, undo discard_image),
                step!(power_off, undo power_on),
                step!(upload).interruptible(),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        failed_as_it_was(nova, tx, cx, &self.event(None), error)
    }
}

impl Shelve {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_shelve_instance";
        actions::Event { instance_uuid: &self.uuid, action: "shelve", event, host }
    }
}

async fn power_off(nova: &Arc<Nova>, cx: &Context, flow: &mut Shelve) -> Result<Effect> {
    let host = nova.host_of(&flow.uuid).await?;
    let grace_seconds = nova.options.shutdown_timeout_seconds;
    nova.compute(&host).stop(&nova.own(cx), &flow.uuid, grace_seconds).await?;
    Ok(task(nova, &flow.uuid, TaskState::ShelvingImageUploading))
}

/// What was suspended has lost its memory; it is off then.
async fn power_on(nova: &Arc<Nova>, cx: &Context, flow: &mut Shelve) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let Some(host) = &instance.host else { return Ok(Effect::none()) };
    let (own, agent) = (nova.own(cx), nova.compute(host));
    if matches!(flow.was, VmState::Active | VmState::Paused) {
        agent.start(&own, &guest::instance(nova, &instance, &devices)?).await?;
        if flow.was == VmState::Paused {
            agent.pause(&own, &flow.uuid).await?;
        }
    }
    Ok(Effect::none())
}

async fn make_image(nova: &Arc<Nova>, cx: &Context, flow: &mut Shelve) -> Result<Effect> {
    nova.image_maker().create(cx, &flow.image).await?;
    Ok(task(nova, &flow.uuid, TaskState::ShelvingImagePendingUpload))
}

async fn discard_image(nova: &Arc<Nova>, cx: &Context, flow: &mut Shelve) -> Result<Effect> {
    nova.image_maker().discard(cx, &flow.image.id).await?;
    Ok(Effect::none())
}

async fn upload(nova: &Arc<Nova>, cx: &Context, flow: &mut Shelve) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    to_image(nova, cx, &instance, &flow.image).await?;
    Ok(Effect::none())
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut Shelve) -> Result<Effect> {
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.clone();
            instance.vm_state = VmState::Shelved;
            instance.power_state = contracts::compute::PowerState::Shutdown as i64;
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        let image_id = Some(flow.image.id.clone());
        migrations::change_extra(tx, &flow.uuid, |extra| extra.shelved = Some(Shelved { image_id }))?;
        actions::end(tx, &cx, &flow.event(host), None, now)?;
        match nova.options.shelved_offload_time {
            0 => begin_offload(&nova, tx, &cx, &flow.uuid, None),
            _ => Ok(()),
        }
    }))
}

/// Takes a shelved server off its host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offload {
    pub uuid: String,
    /// As `os-instance-actions` names it; none when it is a part of another action.
    pub action: Option<String>,
    pub volumes: Vec<PlannedVolume>,
}

impl Flow for Offload {
    const KIND: &'static str = "shelve_offload";
    const CANCELLABLE: bool = false;
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(leave_host), step!(release_devices), step!(release_room)] }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        store::change(tx, &self.uuid, now, |instance| {
            instance.vm_state = VmState::Error;
            instance.task_state = None;
        })?;
        actions::fault(tx, &self.uuid, error, now)?;
        migrations::leave_behind(tx, &self.uuid, None, &self.volumes)?;
        match self.event(None) {
            Some(event) => actions::end(tx, cx, &event, Some(error), now),
            None => Ok(()),
        }
    }
}

impl Offload {
    fn event(&self, host: Option<String>) -> Option<actions::Event<'_>> {
        let event = "compute_shelve_offload_instance";
        let action = self.action.as_deref()?;
        Some(actions::Event { instance_uuid: &self.uuid, action, event, host })
    }
}

async fn leave_host(nova: &Arc<Nova>, cx: &Context, flow: &mut Offload) -> Result<Effect> {
    let host = nova.host_of(&flow.uuid).await?;
    or_gone(nova.compute(&host).destroy(&nova.own(cx), &flow.uuid).await)?;
    Ok(Effect::none())
}

/// Volumes stay spoken for; ports stay the server's, on no host.
async fn release_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut Offload) -> Result<Effect> {
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

async fn release_room(nova: &Arc<Nova>, cx: &Context, flow: &mut Offload) -> Result<Effect> {
    nova.placement().release(&nova.own(cx), &flow.uuid).await?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.take();
            instance.node = None;
            instance.availability_zone = None;
            instance.vm_state = VmState::ShelvedOffloaded;
            instance.power_state = contracts::compute::PowerState::Shutdown as i64;
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        match flow.event(host) {
            Some(event) => actions::end(tx, &cx, &event, None, now),
            None => Ok(()),
        }
    }))
}

const FROM: &[VmState] = &[VmState::Active, VmState::Stopped, VmState::Paused, VmState::Suspended];

pub fn check(instance: &crate::model::Instance) -> Result<()> {
    check_state(instance, FROM, &[], "shelve")
}

/// With the image that its disk becomes; none for a server of volumes, whose disk stays what it is.
pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str, image: Option<NewImage>) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    check(&instance)?;
    let now = nova.clock.now();
    actions::begin(tx, cx, uuid, "shelve", now)?;
    let Some(image) = image else {
        migrations::change_extra(tx, uuid, |extra| extra.shelved = Some(Shelved { image_id: None }))?;
        return begin_offload(nova, tx, cx, uuid, Some("shelve"));
    };
    store::change(tx, uuid, now, |instance| instance.task_state = Some(TaskState::Shelving))?;
    let flow = Shelve { uuid: uuid.into(), was: instance.vm_state, image };
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}

/// What an administrator asks for.
pub fn begin_offload_alone(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    check_state(&instance, &[VmState::Shelved], &[], "shelveOffload")?;
    actions::begin(tx, cx, uuid, "shelveOffload", nova.clock.now())?;
    begin_offload(nova, tx, cx, uuid, Some("shelveOffload"))
}

fn begin_offload(
    nova: &Arc<Nova>,
    tx: &mut Tx,
    cx: &Context,
    uuid: &str,
    action: Option<&str>,
) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    if instance.task_state == Some(TaskState::Deleting) {
        return Ok(());
    }
    store::change(tx, uuid, nova.clock.now(), |i| i.task_state = Some(TaskState::ShelvingOffloading))?;
    let flow = Offload {
        uuid: uuid.into(),
        action: action.map(String::from),
        volumes: relocate::plan(&store::block_devices(tx, uuid)?),
    };
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
