//! Servers that ask for it start elsewhere when their host is silent for too long: those with `HA_Enabled=True` among
//! their metadata, as Masakari has it. That none runs twice is the hosts' doing: each stops such guests when nova does
//! not answer it, long before nova starts them elsewhere; and nova starts only those of which the host has said so.

use crate::{
    Nova, Options,
    flows::evacuate,
    model::{ComputeNode, Instance, Service, VmState},
    store,
};
use base::{Context, ErrorKind, Result, Timestamp};
use contracts::compute::Lease;
use db::Tx;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;

const METADATA: &str = "HA_Enabled";
/// Before an evacuation that failed is tried again.
const PAUSE: Duration = Duration::from_secs(60);

impl Nova {
    /// From now on, when it is configured.
    pub(crate) fn watch_hosts(self: &Arc<Self>) {
        let Some(after) = self.options.evacuate_after() else { return };
        let (weak, started): (Weak<Self>, _) = (Arc::downgrade(self), Instant::now());
        let every = (after / 8).clamp(Duration::from_millis(500), Duration::from_secs(10));
        self.flows.every("evacuate silent hosts", every, move || {
            let nova = weak.upgrade();
            async move {
                match nova {
                    // After a start every host first gets the time to be heard.
                    Some(nova) if started.elapsed() >= after => nova.evacuate_silent_hosts(after).await,
                    _ => Ok(()),
                }
            }
        });
    }

    async fn evacuate_silent_hosts(self: &Arc<Self>, after: Duration) -> Result<()> {
        let hosts = self.read(store::hosts).await?;
        let now = self.clock.now();
        let (silent, heard): (Vec<_>, Vec<_>) =
            hosts.into_iter().partition(|(_, service)| is_silent(service, now, after));
        let lately =
            silent.iter().filter(|(_, service)| now.since(service.last_seen_at) < after * 10).count();
        // Then it is rather this cloud's own network or broker that fails.
        if lately > heard.len() {
            tracing::error!(silent = lately, heard = heard.len(), "most hosts are silent: none is evacuated");
            return Ok(());
        }
        for (node, _) in silent {
            for uuid in node.facts.fenced.clone() {
                let (own, host) = (self.clone(), node.host.clone());
                let begun = self.write(move |tx| evacuate_one(&own, tx, &host, &uuid, after)).await;
                // Something else has begun with it.
                begun.or_else(|error| if error.is(ErrorKind::Conflict) { Ok(()) } else { Err(error) })?;
            }
        }
        Ok(())
    }
}

/// What was thought of it is looked at again, in the transaction that a report of the host would be in the way of.
fn evacuate_one(nova: &Arc<Nova>, tx: &mut Tx, host: &str, uuid: &str, after: Duration) -> Result<()> {
    let now = nova.clock.now();
    let (service, node) = (store::service_on(tx, host)?, store::node_on(tx, host)?);
    let (Some(service), Some(node)) = (service, node) else { return Ok(()) };
    let Some(server) = tx.find::<Instance>(uuid)?.filter(|server| wants(server, host)) else { return Ok(()) };
    let may = is_silent(&service, now, after) && node.facts.fenced.iter().any(|fenced| fenced == uuid);
    if !may || server.task_state.is_some() || failed_lately(tx, uuid, now)? {
        return Ok(());
    }
    if !matches!(server.vm_state, VmState::Active | VmState::Stopped | VmState::Error) {
        return Ok(());
    }
    tracing::warn!(server = uuid, host, "its host is silent: it starts elsewhere");
    evacuate::begin(nova, tx, &Context::internal(), uuid, &evacuate::Wanted::default())
}

fn is_silent(service: &Service, now: Timestamp, after: Duration) -> bool {
    now.since(service.last_seen_at) > after
}

fn wants(server: &Instance, host: &str) -> bool {
    let asked = server.metadata.get(METADATA).is_some_and(|word| word.eq_ignore_ascii_case("true"));
    asked && !server.deleted && server.host.as_deref() == Some(host)
}

fn failed_lately(tx: &mut Tx, uuid: &str, now: Timestamp) -> Result<bool> {
    let moves = store::migrations_of(tx, uuid)?;
    Ok(moves.iter().any(|one| {
        one.migration_type == "evacuation" && one.status == "failed" && now.since(one.created_at) < PAUSE
    }))
}

/// What a host hears that has reported. It stops at half the time at which nova goes on without it.
pub fn lease(options: &Options, tx: &mut Tx, node: &ComputeNode) -> Result<Lease> {
    let Some(after) = options.evacuate_after() else { return Ok(Lease::default()) };
    let mut servers = store::servers_of_host(tx, &node.host)?;
    servers.retain(|server| wants(server, &node.host));
    let ha = servers.into_iter().map(|server| server.uuid).collect();
    Ok(Lease { fence_after_seconds: after.as_secs() / 2, ha })
}
