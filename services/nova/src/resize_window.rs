//! Resizes and migrations that their owner neither confirms nor reverts for `resize_confirm_window_seconds` are
//! confirmed, so that the room and the disks that wait at their source come free.

use crate::{
    Nova,
    flows::confirm_resize,
    model::{Migration, VmState},
    store,
};
use base::{Context, ErrorKind, Result, Timestamp};
use db::{Filter, List, Tx};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Nova {
    /// From now on, when it is configured.
    pub(crate) fn watch_resizes(self: &Arc<Self>) {
        let window = Duration::from_secs(self.options.resize_confirm_window_seconds);
        if window.is_zero() {
            return;
        }
        let weak: Weak<Self> = Arc::downgrade(self);
        self.flows.every("confirm resizes", LOOK_EVERY.min(window), move || {
            let nova = weak.upgrade();
            async move {
                match nova {
                    Some(nova) => nova.confirm_old_resizes(window).await,
                    None => Ok(()),
                }
            }
        });
    }

    pub(crate) async fn confirm_old_resizes(self: &Arc<Self>, window: Duration) -> Result<()> {
        let before = self.clock.now().minus(window);
        for uuid in self.read(move |tx| waiting_since(tx, before)).await? {
            let (own, server) = (self.clone(), uuid.clone());
            let begun = self.write(move |tx| confirm_resize::begin(&own, tx, &Context::internal(), &server));
            match begun.await {
                // Its owner was quicker.
                Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => {
                    tracing::debug!(server = uuid, %error, "not confirmed");
                }
                other => {
                    other?;
                    tracing::info!(server = uuid, "its resize is confirmed: nobody did so in time");
                }
            }
        }
        Ok(())
    }
}

/// Servers that wait for their owner's word, and have nothing else to do.
fn waiting_since(tx: &mut Tx, before: Timestamp) -> Result<Vec<String>> {
    let hosts: Vec<String> = store::hosts(tx)?.into_iter().map(|(node, _)| node.host).collect();
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    let finished = List::all().filter(Filter::any("dest_compute", &hosts)).eq("status", "finished");
    let mut waiting = Vec::new();
    for migration in tx.list::<Migration>(&finished)? {
        let since = migration.updated_at.unwrap_or(migration.created_at);
        if since <= before
            && let Ok(server) = store::instance(tx, &migration.instance_uuid)
            && server.vm_state == VmState::Resized
            && server.task_state.is_none()
        {
            waiting.push(server.uuid);
        }
    }
    Ok(waiting)
}
