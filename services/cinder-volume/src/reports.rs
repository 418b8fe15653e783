//! The signs of life of a back end, with the room it has.

use crate::Agent;
use base::Context;
use contracts::agents::volume::VolumeReports;
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;

/// Runs until dropped. Cinder may not be there yet, and may go away: everything is tried again.
pub async fn run(agent: Arc<Agent>, reports: Arc<dyn VolumeReports>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(agent.options.report_interval_seconds.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reported =
            async { reports.back_end_reported(&Context::internal(), &agent.back_end().await?).await };
        if let Err(error) = reported.await {
            tracing::warn!(%error, "report failed, it is repeated");
        }
    }
}
