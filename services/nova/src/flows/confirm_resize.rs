//! A server stays what it became: what it was goes.

use super::{or_gone, power::check_state};
use crate::{
    Nova, actions, migrations,
    model::{Resized, TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfirmResize {
    pub uuid: String,
    pub resized: Resized,
}

impl Flow for ConfirmResize {
    const KIND: &'static str = "confirm_resize";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(forget), step!(complete)] }
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
        migrations::set(tx, &self.resized.migration_uuid, "error", now)?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl ConfirmResize {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_confirm_resize";
        actions::Event { instance_uuid: &self.uuid, action: "confirmResize", event, host }
    }
}

async fn forget(nova: &Arc<Nova>, cx: &Context, flow: &mut ConfirmResize) -> Result<Effect> {
    forget_source(nova, cx, &flow.uuid, &flow.resized).await?;
    Ok(Effect::none())
}

/// The disks that wait at the source go, and the room that the move holds there.
pub async fn forget_source(nova: &Nova, cx: &Context, uuid: &str, resized: &Resized) -> Result<()> {
    let own = nova.own(cx);
    match or_gone(nova.compute(&resized.source.host).confirm_resize(&own, uuid).await) {
        Err(error) if error.is_transient() && !nova.host_is_up(&resized.source.host).await? => {
            tracing::warn!(server = uuid, host = resized.source.host, "disks stay on a host that is down");
        }
        other => other?,
    }
    nova.placement().release(&own, &resized.migration_uuid).await
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut ConfirmResize) -> Result<Effect> {
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.clone();
            instance.vcpus = instance.flavor.vcpus;
            instance.memory_mb = instance.flavor.memory_mb;
            instance.vm_state =
                if instance.power_state == SHUTDOWN { VmState::Stopped } else { VmState::Active };
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        migrations::set(tx, &flow.resized.migration_uuid, "confirmed", now)?;
        migrations::change_extra(tx, &flow.uuid, |extra| extra.resized = None)?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

const SHUTDOWN: i64 = contracts::compute::PowerState::Shutdown as i64;

/// The move that waits for its owner's word; the refusal in upstream's words otherwise.
pub fn resized(tx: &mut Tx, uuid: &str, name: &str) -> Result<Resized> {
    let instance = store::instance(tx, uuid)?;
    check_state(&instance, &[VmState::Resized], &[], name)?;
    let missing = || Error::bad_request("Instance has not been resized.");
    migrations::extra(tx, uuid)?.resized.ok_or_else(missing)
}

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str) -> Result<()> {
    let flow = ConfirmResize { uuid: uuid.into(), resized: resized(tx, uuid, "confirmResize")? };
    let now = nova.clock.now();
    store::change(tx, uuid, now, |instance| instance.task_state = Some(TaskState::ResizeConfirming))?;
    migrations::set(tx, &flow.resized.migration_uuid, "confirming", now)?;
    actions::begin(tx, cx, uuid, "confirmResize", now)?;
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
