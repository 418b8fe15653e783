//! Signs of life: what hosts say, and what control nodes make of it.

use crate::{Hosts, model::*};
use async_trait::async_trait;
use base::{Context, Result};
use bus::{Bus, Topic};
use contracts::agents::host::{HostAlive, HostOrder, HostReports, REPORTS_TOPIC, RemoteHostReports};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

pub const REPORT_EVERY: Duration = Duration::from_secs(5);

#[async_trait]
impl HostReports for Hosts {
    async fn host_alive(&self, _cx: &Context, host: &HostAlive) -> Result<HostOrder> {
        let (host, now) = (host.clone(), self.clock.now());
        let state = self
            .write(move |tx| {
                let Some(mut row) = tx.find::<HostRow>(&host.name)? else { return Ok(HostState::Removed) };
                if row.state != HostState::Removed {
                    row.last_seen_at = Some(now);
                    row.roles.clone_from(&host.roles);
                    row.version.clone_from(&host.version);
                    tx.update(&row)?;
                }
                Ok(row.state)
            })
            .await?;
        Ok(match state {
            HostState::Active => HostOrder::Serve,
            HostState::Draining => HostOrder::Drain,
            HostState::Removed => HostOrder::Leave,
        })
    }
}

/// Says again and again that the host lives. Returns when it shall leave the cloud.
pub async fn alive(bus: Bus, host: HostAlive) {
    let reports = RemoteHostReports::new(bus.with_patience(REPORT_EVERY), Topic::any(REPORTS_TOPIC));
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match reports.host_alive(&Context::internal(), &host).await {
            Ok(HostOrder::Leave) => {
                tracing::error!(host = host.name, "this host is no part of the cloud any more");
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "no control node hears this host"),
        }
    }
}
