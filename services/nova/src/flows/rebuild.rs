//! Gives a server a new disk of an image, on the host where it is, with the volumes and ports it has.

use super::{or_gone, power::check_state};
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
}

impl Flow for Rebuild {
    const KIND: &'static str = "rebuild";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(destroy), step!(build).interruptible(), step!(complete)] }
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
    let flow = Rebuild { uuid: uuid.into(), stopped: instance.vm_state == VmState::Stopped };
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
