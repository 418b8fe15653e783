//! Removes a server and all that it has.

use super::{
    boot::{release_volumes, unplug},
    confirm_resize::forget_source,
    or_gone,
};
use crate::{
    Nova, actions, migrations,
    model::{InstanceExtra, TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delete {
    pub uuid: String,
}

impl Flow for Delete {
    const KIND: &'static str = "delete";
    const CANCELLABLE: bool = false;
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(destroy), step!(end_moves), step!(unplug_ports), step!(detach_volumes), step!(release)] }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        store::change(tx, &self.uuid, now, |instance| {
            instance.vm_state = VmState::Error;
            instance.task_state = None;
        })?;
        actions::fault(tx, &self.uuid, error, now)?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl Delete {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_terminate_instance";
        actions::Event { instance_uuid: &self.uuid, action: "delete", event, host }
    }
}

/// A host that is down is not waited for: its agent asks what it shall have when it comes back, and clears away
/// the rest.
async fn destroy(nova: &Arc<Nova>, cx: &Context, flow: &mut Delete) -> Result<Effect> {
    let Some(instance) = nova.undeleted(&flow.uuid).await? else { return Ok(Effect::none()) };
    if let Some(host) = &instance.host {
        match or_gone(nova.compute(host).destroy(&nova.own(cx), &flow.uuid).await) {
            Err(error) if error.is_transient() && !nova.host_is_up(host).await? => {
                tracing::warn!(server = flow.uuid, host, "deleted without its host, which is down");
            }
            other => other?,
        }
    }
    Ok(Effect::none())
}

/// What a move has left elsewhere goes, too.
async fn end_moves(nova: &Arc<Nova>, cx: &Context, flow: &mut Delete) -> Result<Effect> {
    let uuid = flow.uuid.clone();
    let extra = nova.read(move |tx| migrations::extra(tx, &uuid)).await?;
    let own = nova.own(cx);
    if let Some(resized) = &extra.resized {
        forget_source(nova, cx, &flow.uuid, resized).await?;
    }
    for left in &extra.left_behind {
        if !left.host.is_empty() {
            or_gone(nova.compute(&left.host).destroy(&own, &flow.uuid).await)?;
            nova.placement().release(&own, &left.migration_uuid).await?;
            end_bindings(nova, &own, &flow.uuid, &left.host).await?;
        }
        for id in &left.attachments {
            or_gone(nova.volumes().detach(cx, id).await)?;
        }
    }
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        if let Some(resized) = &extra.resized {
            migrations::set(tx, &resized.migration_uuid, "confirmed", nova.clock.now())?;
        }
        tx.remove::<InstanceExtra>(&uuid).map(drop)
    }))
}

/// Ports that have bindings on two hosts have one again.
async fn end_bindings(nova: &Nova, own: &Context, uuid: &str, left: &str) -> Result<()> {
    let Some(instance) = nova.undeleted(uuid).await? else { return Ok(()) };
    let host = instance.host.unwrap_or_default();
    for nic in instance.nics.iter() {
        or_gone(nova.networks().activate_binding(own, &nic.port.id, &host).await)?;
        or_gone(nova.networks().delete_binding(own, &nic.port.id, left).await)?;
    }
    Ok(())
}

async fn unplug_ports(nova: &Arc<Nova>, cx: &Context, flow: &mut Delete) -> Result<Effect> {
    let Some(instance) = nova.undeleted(&flow.uuid).await? else { return Ok(Effect::none()) };
    for nic in instance.nics.iter() {
        unplug(nova, cx, &nic.port.id, nic.ours).await?;
    }
    Ok(Effect::none())
}

async fn detach_volumes(nova: &Arc<Nova>, cx: &Context, flow: &mut Delete) -> Result<Effect> {
    let uuid = flow.uuid.clone();
    let devices = nova.read(move |tx| store::block_devices(tx, &uuid)).await?;
    release_volumes(nova, cx, &devices).await?;
    let uuid = flow.uuid.clone();
    Ok(Effect::write(move |tx| store::delete_block_devices(tx, &uuid)))
}

async fn release(nova: &Arc<Nova>, cx: &Context, flow: &mut Delete) -> Result<Effect> {
    nova.placement().release(&nova.own(cx), &flow.uuid).await?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        let mut host = None;
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.clone();
            instance.vm_state = VmState::Deleted;
            instance.task_state = None;
            instance.power_state = 0;
            instance.terminated_at = Some(now);
            instance.deleted = true;
        })?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

impl Nova {
    /// None when a repeated step finds that all is done.
    async fn undeleted(&self, uuid: &str) -> Result<Option<crate::model::Instance>> {
        let uuid = uuid.to_string();
        self.read(move |tx| Ok(store::instance(tx, &uuid).ok())).await
    }
}

/// Marks a server as being deleted and begins; repeated requests change nothing.
pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    if instance.task_state == Some(TaskState::Deleting) {
        return Ok(());
    }
    let now = nova.clock.now();
    store::change(tx, uuid, now, |instance| instance.task_state = Some(TaskState::Deleting))?;
    actions::begin(tx, cx, uuid, "delete", now)?;
    nova.flows.start_instead(tx, cx, &Delete { uuid: uuid.into() }, uuid).map(drop)
}
