//! Starts a server from another disk so that its owner can mend its own, and from its own again.

use super::{failed_as_it_was, power::check_state};
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
pub struct Rescue {
    pub uuid: String,
    /// None: it ends.
    pub with: Option<contracts::compute::Rescue>,
}

impl Flow for Rescue {
    const KIND: &'static str = "rescue";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(ask_the_host).interruptible()] }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        failed_as_it_was(nova, tx, cx, &self.event(None), error)
    }
}

impl Rescue {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let (action, event) = match self.with {
            Some(_) => ("rescue", "compute_rescue_instance"),
            None => ("unrescue", "compute_unrescue_instance"),
        };
        actions::Event { instance_uuid: &self.uuid, action, event, host }
    }
}

async fn ask_the_host(nova: &Arc<Nova>, cx: &Context, flow: &mut Rescue) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let host = instance.host.clone().ok_or_else(|| Error::conflict("The server is on no host."))?;
    let wanted = guest::instance(nova, &instance, &devices)?;
    let (own, agent) = (nova.own(cx), nova.compute(&host));
    let observed = match &flow.with {
        Some(rescue) => agent.rescue(&own, &wanted, rescue).await?,
        None => agent.unrescue(&own, &wanted).await?,
    };
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        store::change(tx, &flow.uuid, now, |instance| {
            instance.vm_state = if flow.with.is_some() { VmState::Rescued } else { VmState::Active };
            instance.power_state = observed.power_state as i64;
            if flow.with.is_some() {
                instance.launched_at = Some(now);
            }
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        actions::end(tx, &cx, &flow.event(Some(host.clone())), None, now)
    }))
}

const FROM: &[VmState] = &[VmState::Active, VmState::Stopped, VmState::Error];

pub fn check(instance: &Instance) -> Result<()> {
    check_state(instance, FROM, &[], "rescue")
}

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, flow: &Rescue) -> Result<()> {
    let instance = store::instance(tx, &flow.uuid)?;
    let task = match flow.with {
        Some(_) => {
            check(&instance)?;
            TaskState::Rescuing
        }
        None => {
            check_state(&instance, &[VmState::Rescued], &[], "unrescue")?;
            TaskState::Unrescuing
        }
    };
    let now = nova.clock.now();
    store::change(tx, &flow.uuid, now, |instance| instance.task_state = Some(task))?;
    actions::begin(tx, cx, &flow.uuid, flow.event(None).action, now)?;
    nova.flows.start(tx, cx, flow, &flow.uuid).map(drop)
}
