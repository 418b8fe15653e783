//! The long operations on servers, each in a file named by its verb, and what they share.

pub mod attach_interface;
pub mod attach_volume;
pub mod boot;
pub mod confirm_resize;
pub mod delete;
pub mod detach_interface;
pub mod detach_volume;
pub mod evacuate;
pub mod live_migrate;
pub(crate) mod placing;
pub mod port_requests;
pub mod power;
pub mod rebuild;
pub mod relocate;
pub mod rescue;
pub mod resize;
pub mod revert_resize;
pub mod shelve;
pub mod snapshot;
pub mod swap_volume;
pub mod unshelve;

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
    nova.flows.register::<swap_volume::SwapVolume>(nova.clone());
    nova.flows.register::<swap_volume::LetGo>(nova.clone());
    nova.flows.register::<snapshot::Snapshot>(nova.clone());
    nova.flows.register::<rescue::Rescue>(nova.clone());
    nova.flows.register::<shelve::Shelve>(nova.clone());
    nova.flows.register::<shelve::Offload>(nova.clone());
    nova.flows.register::<unshelve::Unshelve>(nova.clone());
    nova.flows.register::<unshelve::RemoveImage>(nova.clone());
    nova.flows.register::<resize::Resize>(nova.clone());
    nova.flows.register::<confirm_resize::ConfirmResize>(nova.clone());
    nova.flows.register::<revert_resize::RevertResize>(nova.clone());
    nova.flows.register::<live_migrate::LiveMigrate>(nova.clone());
    nova.flows.register::<live_migrate::PostLiveMigrate>(nova.clone());
    nova.flows.register::<evacuate::Evacuate>(nova.clone());
}

impl Nova {
    pub(crate) async fn instance(&self, uuid: &str) -> Result<Instance> {
        let uuid = uuid.to_string();
        self.read(move |tx| store::instance(tx, &uuid)).await
    }

    async fn instance_with_devices(&self, uuid: &str) -> Result<(Instance, Vec<BlockDevice>)> {
        let uuid = uuid.to_string();
        self.read(move |tx| Ok((store::instance(tx, &uuid)?, store::block_devices(tx, &uuid)?))).await
    }

    /// The host that the server is on.
    async fn host_of(&self, uuid: &str) -> Result<String> {
        let host = self.instance(uuid).await?.host;
        host.ok_or_else(|| Error::conflict("The server is on no host."))
    }

    /// Whether the agent of a host is there to be asked.
    pub(crate) async fn host_is_up(&self, host: &str) -> Result<bool> {
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
