//! The long operations on servers, each in a file named by its verb, and what they share.

pub mod attach_interface;
pub mod attach_volume;
pub mod boot;
pub mod delete;
pub mod detach_interface;
pub mod detach_volume;
pub mod power;
pub mod rebuild;

use crate::{
    Nova, actions,
    model::{BlockDevice, Instance},
    store,
};
use base::{Context, Error, Result};
use db::Tx;
use std::sync::Arc;

pub fn register(nova: &Arc<Nova>) {
    nova.flows.register::<boot::Boot>(nova.clone());
    nova.flows.register::<delete::Delete>(nova.clone());
    nova.flows.register::<power::Power>(nova.clone());
    nova.flows.register::<rebuild::Rebuild>(nova.clone());
    nova.flows.register::<attach_volume::AttachVolume>(nova.clone());
    nova.flows.register::<detach_volume::DetachVolume>(nova.clone());
    nova.flows.register::<attach_interface::AttachInterface>(nova.clone());
    nova.flows.register::<detach_interface::DetachInterface>(nova.clone());
}

impl Nova {
    async fn instance(&self, uuid: &str) -> Result<Instance> {
        let uuid = uuid.to_string();
        self.read(move |tx| store::instance(tx, &uuid)).await
    }

    async fn instance_with_devices(&self, uuid: &str) -> Result<(Instance, Vec<BlockDevice>)> {
        let uuid = uuid.to_string();
        self.read(move |tx| Ok((store::instance(tx, &uuid)?, store::block_devices(tx, &uuid)?))).await
    }

    /// Whether the agent of a host is there to be asked.
    async fn host_is_up(&self, host: &str) -> Result<bool> {
        let (host, now) = (host.to_string(), self.clock.now());
        let down_after = std::time::Duration::from_secs(self.options.service_down_time_seconds);
        let work = move |tx: &mut Tx| {
            let found = store::service_on(tx, &host)?;
            Ok(found.is_some_and(|service| crate::scheduler::is_up(&service, now, down_after)))
        };
        self.read(work).await
    }
}

/// What is already gone is a success.
fn or_gone<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(error) if error.is(base::ErrorKind::NotFound) => Ok(T::default()),
        other => other,
    }
}

/// An operation failed and left the server as it was: the task is over, the owner is told why.
fn failed_as_it_was(
    nova: &Nova,
    tx: &mut Tx,
    cx: &Context,
    event: &actions::Event,
    error: &Error,
) -> Result<()> {
    let now = nova.clock.now();
    let cancelled = flow::is_cancelled(error);
    store::change(tx, event.instance_uuid, now, |instance| {
        // A delete that cancelled this has its own task.
        if !cancelled {
            instance.task_state = None;
        }
    })?;
    if !cancelled {
        actions::fault(tx, event.instance_uuid, error, now)?;
    }
    actions::end(tx, cx, event, Some(error), now)
}
