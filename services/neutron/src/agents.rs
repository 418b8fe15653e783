//! Agents: what they report, and telling them what was touched.

use crate::{
    Neutron, api, desired,
    events::{self, Event},
    model::*,
    store::{self, WholePort},
};
use async_trait::async_trait;
use base::{Context, Result, Timestamp, id};
use bus::Topic;
use contracts::agents::network::{
    self as contract, AGENT_TOPIC, AgentState, HostState, NetworkAgent, NetworkReports, PortsState,
    RemoteNetworkAgent,
};
use db::{Filter, List, Stored, Tx};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Ids of what a transaction changed, as far as hosts see it.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub networks: BTreeSet<String>,
    pub ports: BTreeSet<String>,
    pub security_groups: BTreeSet<String>,
    pub routers: BTreeSet<String>,
    /// What nova is told; no host sees it.
    pub events: BTreeSet<Event>,
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
            && self.ports.is_empty()
            && self.security_groups.is_empty()
            && self.routers.is_empty()
    }

    /// Nova is told of a port, if a server has it.
    pub fn server(&mut self, port: &Port, name: &'static str) {
        self.events.extend(events::of(port, name));
    }

    /// A port, and whatever shows it elsewhere: its network, its groups' members, its router.
    pub fn port(&mut self, whole: &WholePort) {
        self.ports.insert(whole.port.id.clone());
        self.networks.insert(whole.port.network_id.clone());
        self.security_groups.extend(whole.groups.iter().cloned());
        if matches!(whole.port.device_owner.as_str(), OWNER_ROUTER | OWNER_GATEWAY) {
            self.routers.insert(whole.port.device_id.clone());
        }
    }

    fn merge(&mut self, other: Self) {
        self.networks.extend(other.networks);
        self.ports.extend(other.ports);
        self.security_groups.extend(other.security_groups);
        self.routers.extend(other.routers);
    }
}

/// Tells every living agent of what was touched, several changes at a time. What is lost is found again when the
/// agent asks for everything.
pub async fn tell(neutron: Arc<Neutron>, to_tell: Option<mpsc::UnboundedReceiver<Touched>>) {
    let Some(mut to_tell) = to_tell else { return };
    while let Some(mut touched) = to_tell.recv().await {
        while let Ok(more) = to_tell.try_recv() {
            touched.merge(more);
        }
        if let Err(error) = neutron.tell_all(touched).await {
            tracing::warn!(%error, "agents were not told of a change; they ask for everything later");
        }
    }
}

impl Neutron {
    async fn tell_all(&self, touched: Touched) -> Result<()> {
        let (options, clock) = (self.options.clone(), self.clock.clone());
        let changes = self
            .read(move |tx| {
                let layout = desired::Layout::load(tx, &options, clock.now())?;
                let mut changes = Vec::new();
                for host in layout.hosts() {
                    changes.push((host.clone(), desired::change(tx, &options, &layout, host, &touched)?));
                }
                Ok(changes)
            })
            .await?;
        let cx = Context::internal();
        let mut routers = BTreeSet::new();
        for (host, change) in changes {
            let agent = self.agent(&host);
            match agent.changed(&cx, &change).await {
                Ok(()) => {
                    let served = change.routers.into_iter().filter(|(_, router)| router.is_some());
                    routers.extend(served.map(|(id, _)| id));
                }
                Err(error) => tracing::warn!(host, %error, "network agent was not told"),
            }
        }
        self.floating_stand(routers).await
    }

    /// Floating addresses that point somewhere are `ACTIVE` once their router's host was told and its gateway stands.
    async fn floating_stand(&self, routers: BTreeSet<String>) -> Result<()> {
        if routers.is_empty() {
            return Ok(());
        }
        self.write(move |tx, _| {
            let mut standing = Vec::new();
            for router in store::any_of::<Router>(tx, "id", &routers)? {
                let gateway =
                    router.gw_port_id.as_deref().map(|id| tx.find::<Port>(id)).transpose()?.flatten();
                standing.extend(gateway.filter(|port| port.status == ACTIVE).map(|_| router.id));
            }
            for router in standing {
                let known = [Filter::eq("router_id", &*router), Filter::eq("status", DOWN)];
                tx.set::<FloatingIp>(&known, &[("status", ACTIVE.store())])?;
            }
            Ok(())
        })
        .await
    }

    fn agent(&self, host: &str) -> RemoteNetworkAgent {
        RemoteNetworkAgent::new(self.bus.with_patience(Duration::from_secs(5)), Topic::on(AGENT_TOPIC, host))
    }
}

#[async_trait]
impl NetworkReports for Neutron {
    async fn agent_reported(&self, _: &Context, state: &AgentState) -> Result<()> {
        let (state, clock, options) = (state.clone(), self.clock.clone(), self.options.clone());
        self.write(move |tx, touched| {
            let now = clock.now();
            let known = store::all_of::<Agent>(tx, "host", &state.host)?.into_iter().next();
            let down_after = Duration::from_secs(options.agent_down_time_seconds);
            let was_down =
                known.as_ref().is_none_or(|agent| now.since(agent.heartbeat_timestamp) >= down_after);
            let agent = Agent {
                id: known.as_ref().map_or_else(id::uuid, |agent| agent.id.clone()),
                host: state.host.clone(),
                admin_state_up: known.as_ref().is_none_or(|agent| agent.admin_state_up),
                description: known.as_ref().and_then(|agent| agent.description.clone()),
                tunnel_ip: state.tunnel_ip.map(|ip| ip.to_string()),
                physical_networks: state.physical_networks.iter().cloned().collect(),
                networks: state.networks as i64,
                ports: state.ports as i64,
                routers: state.routers as i64,
                created_at: known.as_ref().map_or(now, |agent| agent.created_at),
                started_at: match (&known, state.started) {
                    (Some(agent), false) => agent.started_at,
                    _ => now,
                },
                heartbeat_timestamp: now,
            };
            match &known {
                Some(_) => drop(tx.update(&agent)?),
                None => tx.insert(&agent)?,
            }
            match was_down {
                true => api::agents::touch_all(tx, touched, &options, now),
                false => Ok(()),
            }
        })
        .await
    }

    async fn ports_reported(&self, _: &Context, state: &PortsState) -> Result<()> {
        for (id, why) in &state.failed {
            tracing::warn!(host = state.host, id, why, "a network resource did not become what it shall be");
        }
        let (state, clock) = (state.clone(), self.clock.clone());
        self.write(move |tx, touched| {
            let now = clock.now();
            set_status(tx, touched, &state.up, [DOWN, ACTIVE], now)?;
            set_status(tx, touched, &state.down, [ACTIVE, DOWN], now)
        })
        .await
    }

    async fn host_state(&self, _: &Context, host: &str) -> Result<HostState> {
        let (host, options, clock) = (host.to_string(), self.options.clone(), self.clock.clone());
        self.read(move |tx| {
            let revision = store::counter(tx, store::REVISION)?;
            let layout = desired::Layout::load(tx, &options, clock.now())?;
            let desired = desired::state(tx, &options, &layout, &host)?;
            Ok(contract::HostState { revision, desired })
        })
        .await
    }
}

/// Ports, and floating addresses whose gateway's port it is.
fn set_status(
    tx: &mut Tx,
    touched: &mut Touched,
    ids: &BTreeSet<String>,
    [from, to]: [&str; 2],
    now: Timestamp,
) -> Result<()> {
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    for some in all.chunks(500) {
        let known = [Filter::any("id", some.iter().copied()), Filter::eq("status", from)];
        let name = if to == ACTIVE { events::PLUGGED } else { events::UNPLUGGED };
        for port in tx.list::<Port>(&List { filters: known.to_vec(), ..List::all() })? {
            touched.server(&port, name);
        }
        tx.set::<Port>(&known, &[("status", to.store()), ("updated_at", now.store())])?;
        let routers =
            tx.list::<Router>(&List::all().filter(Filter::any("gw_port_id", some.iter().copied())))?;
        for router in routers {
            let known = [Filter::eq("router_id", &*router.id), Filter::eq("status", from)];
            tx.set::<FloatingIp>(&known, &[("status", to.store())])?;
        }
    }
    Ok(())
}
