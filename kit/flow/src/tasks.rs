//! Tasks that run again and again, in one process at a time, and the leases that say in which.

use crate::{
    Flows, Shared,
    store::{self, Lease},
};
use base::Result;
use futures::future::BoxFuture;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::MissedTickBehavior;

pub(crate) type Task = Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Leases that lapsed so long ago belong to nobody who comes back.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

pub(crate) async fn run(shared: Weak<Shared>, name: &'static str, interval: Duration, task: Task) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(flows) = shared.upgrade().map(Flows) else { return };
        let done = async {
            if hold_lease_for(&flows.0, name, interval + flows.0.options.lease).await? {
                task().await?;
            }
            Ok::<_, base::Error>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(task = name, ?error, "a task failed; it is tried again at its time");
        }
    }
}

pub(crate) async fn hold_lease(shared: &Arc<Shared>, name: &str) -> Result<bool> {
    hold_lease_for(shared, name, shared.options.lease).await
}

async fn hold_lease_for(shared: &Arc<Shared>, name: &str, span: Duration) -> Result<bool> {
    // A database file has one process only: nobody to share with.
    if !shared.db.is_postgres() {
        return Ok(true);
    }
    let now = shared.clock.now();
    let wanted = Lease { name: name.into(), owner: shared.owner.clone(), expires_at: now.plus(span) };
    shared
        .db
        .write(move |tx| {
            store::forget_leases(tx, now.minus(FORGOTTEN_AFTER))?;
            store::hold_lease(tx, &wanted, now)
        })
        .await
}
