//! Gives a server a new disk of an image, on the host where it is, with the volumes and ports it has. Where its disk is
//! a volume, that stays what it is, or the image is written over it.

use super::{
    boot::wait_until_written,
    or_gone,
    power::check_state,
    relocate::{self, PlannedVolume},
};
use crate::{
    Nova, actions, guest,
    model::{Instance, TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rebuild {
    pub uuid: String,
    /// It was stopped, and is so again afterwards.
    pub stopped: bool,
    #[serde(default)]
    pub reimage: Option<Reimage>,
}

/// The volume that the server boots from, and what is written over it. Nobody may be connected to it meanwhile, so
/// that it gets another attachment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reimage {
    pub volume: PlannedVolume,
    pub image_id: String,
}

impl Flow for Rebuild {
    const KIND: &'static str = "rebuild";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(destroy),
                step!(let_go_of_root, undo stay_without_root),
                step!(write_image).interruptible(),
                step!(connect_root),
                step!(build).interruptible(),
                step!(complete),
            ]
        }
    }

    /// Its old disk is gone; it can be rebuilt once more.
    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        if !flow::is_cancelled(error) {
            store::change(tx, &self.uuid, now, |instance| {
                instance.vm_state = VmState::Error;
                instance.task_state = None;
            })?;
            actions::fault(tx, &self.uuid, error, now)?;
        }
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl Rebuild {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_rebuild_instance";
        actions::Event { instance_uuid: &self.uuid, action: "rebuild", event, host }
    }
}

fn host(instance: &Instance) -> Result<&str> {
    instance.host.as_deref().ok_or_else(|| Error::conflict("The server is on no host."))
}

async fn destroy(nova: &Arc<Nova>, cx: &Context, flow: &mut Rebuild) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    or_gone(nova.compute(host(&instance)?).destroy(&nova.own(cx), &flow.uuid).await)?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            if instance.task_state == Some(TaskState::Rebuilding) {
                instance.task_state = Some(TaskState::RebuildSpawning);
            }
        })
        .map(drop)
    }))
}

/// The volume is spoken for all the time.
async fn let_go_of_root(nova: &Arc<Nova>, cx: &Context, flow: &mut Rebuild) -> Result<Effect> {
    let Some(Reimage { volume, .. }) = flow.reimage.clone() else { return Ok(Effect::none()) };
    relocate::reserve(nova, cx, &flow.uuid, &volume, &volume.new).await?;
    relocate::detach(nova, cx, &[&volume.old]).await?;
    let uuid = flow.uuid.clone();
    Ok(Effect::write(move |tx| relocate::record_reserved(tx, &uuid, std::slice::from_ref(&volume))))
}

/// The old attachment may be gone: then the server has the new one, whatever became of the rest. An attachment more
/// could not be had of a volume that was not written.
async fn stay_without_root(nova: &Arc<Nova>, cx: &Context, flow: &mut Rebuild) -> Result<Effect> {
    let Some(Reimage { volume, .. }) = &flow.reimage else { return Ok(Effect::none()) };
    let (_, devices) = nova.instance_with_devices(&flow.uuid).await?;
    match devices.iter().any(|device| device.attachment_id.as_ref() == Some(&volume.new)) {
        true => Ok(Effect::none()),
        false => let_go_of_root(nova, cx, flow).await,
    }
}

async fn write_image(nova: &Arc<Nova>, cx: &Context, flow: &mut Rebuild) -> Result<Effect> {
    if let Some(Reimage { volume, image_id }) = &flow.reimage {
        nova.volumes().reimage(cx, &volume.volume_id, image_id).await?;
        wait_until_written(nova, cx, &volume.volume_id).await?;
    }
    Ok(Effect::none())
}

async fn connect_root(nova: &Arc<Nova>, cx: &Context, flow: &mut Rebuild) -> Result<Effect> {
    let Some(Reimage { volume, .. }) = &flow.reimage else { return Ok(Effect::none()) };
    let uuid = flow.uuid.clone();
    let place = nova.read(move |tx| {
        let instance = store::instance(tx, &uuid)?;
        relocate::place_of(tx, &instance)
    });
    let place = place.await?;
    let connected = relocate::connect(nova, cx, &flow.uuid, &place, &[(volume, &volume.new)]).await?;
    let uuid = flow.uuid.clone();
    Ok(Effect::write(move |tx| relocate::record(tx, &uuid, &connected)))
}

async fn build(nova: &Arc<Nova>, cx: &Context, flow: &mut Rebuild) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let mut wanted = guest::instance(nova, &instance, &devices)?;
    wanted.power_on = !flow.stopped;
    let observed = nova.compute(host(&instance)?).build(&nova.own(cx), &wanted).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            instance.power_state = observed.power_state as i64;
        })
        .map(drop)
    }))
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut Rebuild) -> Result<Effect> {
    if let Some(Reimage { volume, .. }) = &flow.reimage {
        relocate::complete(nova, cx, &[&volume.new]).await?;
    }
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.clone();
            instance.vm_state = if flow.stopped { VmState::Stopped } else { VmState::Active };
            instance.launched_at = Some(now);
            instance.fault = None;
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

const FROM: &[VmState] = &[VmState::Active, VmState::Stopped, VmState::Error];

/// Records what the server is to be and begins, if its state allows it.
pub fn begin(
    nova: &Arc<Nova>,
    tx: &mut Tx,
    cx: &Context,
    uuid: &str,
    reimage: Option<&str>,
    change: impl Fn(&mut Instance),
) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    check_state(&instance, FROM, &[], "rebuild")?;
    host(&instance)?;
    let now = nova.clock.now();
    store::change(tx, uuid, now, |instance| {
        change(instance);
        instance.task_state = Some(TaskState::Rebuilding);
        instance.progress = 0;
    })?;
    actions::begin(tx, cx, uuid, "rebuild", now)?;
    let reimage = reimage.map(|image_id| root_of(tx, uuid, image_id)).transpose()?;
    let flow = Rebuild { uuid: uuid.into(), stopped: instance.vm_state == VmState::Stopped, reimage };
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}

fn root_of(tx: &mut Tx, uuid: &str, image_id: &str) -> Result<Reimage> {
    let mut devices = store::block_devices(tx, uuid)?;
    devices.retain(|device| device.boot_index == Some(0));
    let volume = relocate::plan(&devices).pop();
    let volume = volume.ok_or_else(|| Error::internal("rebuild: no volume to boot from"))?;
    Ok(Reimage { volume, image_id: image_id.into() })
}
