//! What one message to the host does: start, stop, reboot, pause and their like.

use super::failed_as_it_was;
use crate::{
    Nova, actions, guest,
    model::{Instance, TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use contracts::compute::Reboot;
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    Start,
    Stop,
    RebootSoft,
    RebootHard,
    Pause,
    Unpause,
    Suspend,
    Resume,
}

/// What a verb needs and what comes of it.
pub struct Facts {
    pub verb: Verb,
    /// As `os-instance-actions` names it.
    pub action: &'static str,
    pub event: &'static str,
    /// States from which it may begin.
    pub from: &'static [VmState],
    /// Tasks that may be under way then; mostly none.
    pub during: &'static [TaskState],
    pub task: TaskState,
    pub to: VmState,
}

const ANY_REBOOTABLE: &[VmState] =
    &[VmState::Active, VmState::Stopped, VmState::Paused, VmState::Suspended, VmState::Error];

pub const VERBS: &[Facts] = &[
    Facts {
        verb: Verb::Start,
        action: "start",
        event: "compute_start_instance",
        from: &[VmState::Stopped],
        during: &[],
        task: TaskState::PoweringOn,
        to: VmState::Active,
    },
    Facts {
        verb: Verb::Stop,
        action: "stop",
        event: "compute_stop_instance",
        from: &[VmState::Active, VmState::Rescued, VmState::Error],
        during: &[],
        task: TaskState::PoweringOff,
        to: VmState::Stopped,
    },
    Facts {
        verb: Verb::RebootSoft,
        action: "reboot",
        event: "compute_reboot_instance",
        from: &[VmState::Active],
        during: &[],
        task: TaskState::Rebooting,
        to: VmState::Active,
    },
    Facts {
        verb: Verb::RebootHard,
        action: "reboot",
        event: "compute_reboot_instance",
        from: ANY_REBOOTABLE,
        during: &[
            TaskState::Rebooting,
            TaskState::RebootingHard,
            TaskState::Resuming,
            TaskState::Unpausing,
            TaskState::Suspending,
        ],
        task: TaskState::RebootingHard,
        to: VmState::Active,
    },
    Facts {
        verb: Verb::Pause,
        action: "pause",
        event: "compute_pause_instance",
        from: &[VmState::Active],
        during: &[],
        task: TaskState::Pausing,
        to: VmState::Paused,
    },
    Facts {
        verb: Verb::Unpause,
        action: "unpause",
        event: "compute_unpause_instance",
        from: &[VmState::Paused],
        during: &[],
        task: TaskState::Unpausing,
        to: VmState::Active,
    },
    Facts {
        verb: Verb::Suspend,
        action: "suspend",
        event: "compute_suspend_instance",
        from: &[VmState::Active],
        during: &[],
        task: TaskState::Suspending,
        to: VmState::Suspended,
    },
    Facts {
        verb: Verb::Resume,
        action: "resume",
        event: "compute_resume_instance",
        from: &[VmState::Suspended],
        during: &[],
        task: TaskState::Resuming,
        to: VmState::Active,
    },
];

impl Verb {
    pub fn facts(self) -> &'static Facts {
        let found = VERBS.iter().find(|facts| facts.verb == self);
        found.expect("a test walks all verbs through the table")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Power {
    pub uuid: String,
    pub verb: Verb,
}

impl Flow for Power {
    const KIND: &'static str = "power";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(ask_the_host).interruptible()] }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        failed_as_it_was(nova, tx, cx, &self.event(None), error)
    }
}

impl Power {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let Facts { action, event, .. } = self.verb.facts();
        actions::Event { instance_uuid: &self.uuid, action, event, host }
    }
}

async fn ask_the_host(nova: &Arc<Nova>, cx: &Context, flow: &mut Power) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let host = instance.host.clone().ok_or_else(|| Error::conflict("The server is on no host."))?;
    let (own, agent) = (nova.own(cx), nova.compute(&host));
    let grace_seconds = nova.options.shutdown_timeout_seconds;
    let uuid = &flow.uuid;
    let wanted = guest::instance(nova, &instance, &devices)?;
    let observed = match flow.verb {
        Verb::Start | Verb::Resume => agent.start(&own, &wanted).await?,
        Verb::Stop => agent.stop(&own, uuid, grace_seconds).await?,
        Verb::RebootSoft => agent.reboot(&own, &wanted, Reboot::Soft { grace_seconds }).await?,
        Verb::RebootHard => agent.reboot(&own, &wanted, Reboot::Hard).await?,
        Verb::Pause => agent.pause(&own, uuid).await?,
        Verb::Unpause => agent.unpause(&own, uuid).await?,
        Verb::Suspend => agent.suspend(&own, uuid).await?,
    };
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        let to = flow.verb.facts().to;
        store::change(tx, &flow.uuid, now, |instance| {
            instance.vm_state = to;
            instance.power_state = observed.power_state as i64;
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        actions::end(tx, &cx, &flow.event(Some(host.clone())), None, now)
    }))
}

/// Begins if the server's state allows it; the refusal in upstream's words otherwise.
pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str, verb: Verb, name: &str) -> Result<()> {
    let facts = verb.facts();
    let instance = store::instance(tx, uuid)?;
    check_state(&instance, facts.from, facts.during, name)?;
    let now = nova.clock.now();
    store::change(tx, uuid, now, |instance| instance.task_state = Some(facts.task))?;
    actions::begin(tx, cx, uuid, facts.action, now)?;
    nova.flows.start(tx, cx, &Power { uuid: uuid.into(), verb }, uuid).map(drop)
}

/// `Cannot 'stop' instance … while it is in vm_state stopped`
pub fn check_state(instance: &Instance, from: &[VmState], during: &[TaskState], name: &str) -> Result<()> {
    let refuse = |what: &str, value: &str| {
        Err(Error::conflict(format!(
            "Cannot '{name}' instance {} while it is in {what} {value}",
            instance.uuid
        )))
    };
    if !from.contains(&instance.vm_state) {
        return refuse("vm_state", instance.vm_state.as_str());
    }
    match instance.task_state {
        Some(task) if !during.contains(&task) => refuse("task_state", task.as_str()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_facts() {
        for verb in [
            Verb::Start,
            Verb::Stop,
            Verb::RebootSoft,
            Verb::RebootHard,
            Verb::Pause,
            Verb::Unpause,
            Verb::Suspend,
            Verb::Resume,
        ] {
            assert_eq!(verb.facts().verb, verb);
        }
    }
}
