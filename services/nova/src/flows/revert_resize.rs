//! A server is again what it was before it was resized or migrated.

use super::{
    confirm_resize::resized,
    or_gone,
    relocate::{self, Place, PlannedVolume},
    resize::{apply, unhold},
};
use crate::{
    Nova, actions, guest, migrations,
    model::{Resized, TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevertResize {
    pub uuid: String,
    pub resized: Resized,
    /// Where it is now.
    pub dest: Place,
    pub volumes: Vec<PlannedVolume>,
}

impl Flow for RevertResize {
    const KIND: &'static str = "revert_resize";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(destroy), step!(move_devices), step!(take_room), step!(come_back), step!(complete)] }
    }

    /// It is neither here nor there; who asks again goes on with it.
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
        migrations::leave_behind(tx, &self.uuid, Some(&self.resized), &self.volumes)?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl RevertResize {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_finish_revert_resize";
        actions::Event { instance_uuid: &self.uuid, action: "revertResize", event, host }
    }

    fn same_host(&self) -> bool {
        self.dest.host == self.resized.source.host
    }

    fn ids(&self, which: impl Fn(&PlannedVolume) -> &str) -> Vec<&str> {
        self.volumes.iter().map(which).collect()
    }
}

async fn destroy(nova: &Arc<Nova>, cx: &Context, flow: &mut RevertResize) -> Result<Effect> {
    or_gone(nova.compute(&flow.dest.host).destroy(&nova.own(cx), &flow.uuid).await)?;
    Ok(Effect::none())
}

async fn move_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut RevertResize) -> Result<Effect> {
    let (instance, source) = (nova.instance(&flow.uuid).await?, &flow.resized.source);
    let allocations = &flow.resized.allocations;
    if flow.same_host() {
        if !allocations.is_empty() {
            relocate::bind(nova, cx, &instance, source, allocations).await?;
        }
        return Ok(Effect::none());
    }
    let wanted: Vec<_> = flow.volumes.iter().map(|volume| (volume, volume.new.as_str())).collect();
    let connected = relocate::connect(nova, cx, &flow.uuid, source, &wanted).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.old)).await?;
    let nics = relocate::bind(nova, cx, &instance, source, allocations).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        relocate::record(tx, &uuid, &connected)?;
        store::change(tx, &uuid, nova.clock.now(), |i| i.nics = AsJson(nics.clone())).map(drop)
    }))
}

/// The room that the move held is the server's again.
async fn take_room(nova: &Arc<Nova>, cx: &Context, flow: &mut RevertResize) -> Result<Effect> {
    unhold(nova, cx, &flow.uuid, &flow.resized.migration_uuid).await?;
    Ok(Effect::none())
}

async fn come_back(nova: &Arc<Nova>, cx: &Context, flow: &mut RevertResize) -> Result<Effect> {
    let (mut instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    apply(&mut instance, &flow.resized.old_flavor);
    let mut wanted = guest::instance(nova, &instance, &devices)?;
    wanted.power_on = flow.resized.was == VmState::Active;
    let agent = nova.compute(&flow.resized.source.host);
    let observed = agent.finish_revert_resize(&nova.own(cx), &wanted).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        let state = observed.power_state as i64;
        store::change(tx, &uuid, nova.clock.now(), |instance| instance.power_state = state).map(drop)
    }))
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut RevertResize) -> Result<Effect> {
    if !flow.same_host() {
        relocate::complete(nova, cx, &flow.ids(|volume| &volume.new)).await?;
    }
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, resized) = (nova.clock.now(), &flow.resized);
        store::change(tx, &flow.uuid, now, |instance| {
            resized.source.set(instance);
            apply(instance, &resized.old_flavor);
            instance.vm_state = resized.was;
            instance.launched_at = Some(now);
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        migrations::set(tx, &resized.migration_uuid, "reverted", now)?;
        migrations::change_extra(tx, &flow.uuid, |extra| extra.resized = None)?;
        actions::end(tx, &cx, &flow.event(Some(resized.source.host.clone())), None, now)
    }))
}

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str) -> Result<()> {
    let resized = resized(tx, uuid, "revertResize")?;
    let instance = store::instance(tx, uuid)?;
    let flow = RevertResize {
        uuid: uuid.into(),
        dest: relocate::place_of(tx, &instance)?,
        volumes: relocate::plan(&store::block_devices(tx, uuid)?),
        resized,
    };
    let now = nova.clock.now();
    store::change(tx, uuid, now, |instance| instance.task_state = Some(TaskState::ResizeReverting))?;
    migrations::set(tx, &flow.resized.migration_uuid, "reverting", now)?;
    actions::begin(tx, cx, uuid, "revertResize", now)?;
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
