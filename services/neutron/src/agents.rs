//! Agents: what they report, and telling them what was touched.

use crate::{
    Neutron, Options, desired,
    events::{self, Event},
    model::*,
    ports,
    schedule::{self, Layout},
    store::{self, WholePort},
    trunks,
};
use async_trait::async_trait;
use base::{Context, Result, Timestamp, id};
use bus::Topic;
use contracts::agents::network::{
    self as contract, AGENT_TOPIC, AgentState, HostState, NetworkAgent, NetworkReports, PortsState,
    RemoteNetworkAgent,
};
use db::{Filter, List, Stored, Tx};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// What a host does. Clients know a process for each, of which we have one for all: they see three agents.
pub struct Kind {
    pub name: &'static str,
    pub binary: &'static str,
    pub topic: &'static str,
}

/// Wires the guests' ports.
pub const L2: Kind = Kind { name: "Linux bridge agent", binary: "neutron-linuxbridge-agent", topic: "N/A" };
pub const DHCP: Kind = Kind { name: "DHCP agent", binary: "neutron-dhcp-agent", topic: "dhcp_agent" };
pub const L3: Kind = Kind { name: "L3 agent", binary: "neutron-l3-agent", topic: "l3_agent" };

/// When no host has answered for so long, or not all have after so long, the next change goes out behind this one.
const TOLD_WITHIN: Duration = Duration::from_millis(300);
const ALL_TOLD_WITHIN: Duration = Duration::from_secs(2);
/// Before agents are told again what could not be read.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a host that missed something is told to ask for everything, until it has heard that.
const REMINDED_EVERY: Duration = Duration::from_secs(1);
/// Not all hosts ask for everything at once.
const GREETED_EVERY: Duration = Duration::from_millis(50);
/// The zone of agents that name none.
const DEFAULT_ZONE: &str = "nova";

/// Ids of what a transaction changed, as far as hosts see it.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub networks: BTreeSet<String>,
    pub ports: BTreeSet<String>,
    pub security_groups: BTreeSet<String>,
    pub routers: BTreeSet<String>,
    /// Of whose ports a host is told: they stand when it was.
    pub trunks: BTreeSet<String>,
    /// What nova is told; no host sees it.
    pub events: BTreeSet<Event>,
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
            && self.ports.is_empty()
            && self.security_groups.is_empty()
            && self.routers.is_empty()
            && self.trunks.is_empty()
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
        self.trunks.extend(other.trunks);
    }
}

/// Tells living agents of what was touched, several changes at a time. Who misses it is told to ask for
/// everything. The hosts that have a port hear of it at once; where there are many hosts, the others wait for a few
/// changes more: telling all of them takes a small part of the time, however many they are.
pub async fn tell(neutron: Arc<Neutron>, to_tell: Option<mpsc::UnboundedReceiver<Touched>>) {
    let Some(mut to_tell) = to_tell else { return };
    let (mut untold, mut all_at) = (Touched::default(), Instant::now());
    loop {
        let came = match untold.is_empty() {
            true => to_tell.recv().await.map(Some),
            false => tokio::select! {
                came = to_tell.recv() => came.map(Some),
                () = tokio::time::sleep_until(all_at) => Some(None),
            },
        };
        let Some(came) = came else { return };
        let mut touched = came.unwrap_or_default();
        while let Ok(more) = to_tell.try_recv() {
            touched.merge(more);
        }
        let began = Instant::now();
        let told = if began >= all_at {
            untold.merge(touched);
            let told = neutron.tell_all(untold.clone(), Whom::All).await;
            let mut rest = began.elapsed() * RESTS;
            match &told {
                Ok(()) => untold = Touched::default(),
                Err(_) => rest = rest.max(TOLD_AGAIN_AFTER),
            }
            all_at = Instant::now() + rest;
            told
        } else {
            untold.merge(touched.clone());
            neutron.tell_all(touched, Whom::Near).await
        };
        if let Err(error) = told {
            tracing::warn!(%error, "agents were not told of a change; they are told again");
        }
    }
}

/// After a start: what an earlier process died of telling is asked for.
pub async fn greet(neutron: Arc<Neutron>) {
    // The agents of one process begin with it, and ask by themselves.
    if !neutron.db.is_postgres() {
        return;
    }
    match neutron.living().await {
        Ok(hosts) => {
            for host in hosts {
                neutron.remind(&host);
                tokio::time::sleep(GREETED_EVERY).await;
            }
        }
        Err(error) => tracing::warn!(%error, "nobody knows which network agents live"),
    }
}

/// Between two times that all are told, it is so many times as long as that took.
const RESTS: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    All,
    /// Hosts of the ports that were touched.
    Near,
}

/// Sees when a host falls silent: what it served others serve from then on.
pub async fn watch(neutron: Arc<Neutron>) {
    let every = Duration::from_secs((neutron.options.agent_down_time_seconds / 10).clamp(1, 10));
    let mut ticks = tokio::time::interval(every);
    let mut before = BTreeSet::new();
    loop {
        ticks.tick().await;
        match neutron.serving().await {
            Ok(now) => {
                if !before.is_subset(&now) {
                    tracing::warn!("a network agent is silent: others take over what it served");
                    if let Err(error) = neutron.touch_all().await {
                        tracing::warn!(%error, "nobody was told to take over; it is tried again");
                        continue;
                    }
                }
                before = now;
            }
            Err(error) => tracing::warn!(%error, "nobody knows which network agents live"),
        }
    }
}

impl Neutron {
    async fn serving(&self) -> Result<BTreeSet<String>> {
        let (options, clock) = (self.options.clone(), self.clock.clone());
        self.read(move |tx| Ok(Layout::load(tx, &options, clock.now())?.serving())).await
    }

    async fn living(&self) -> Result<BTreeSet<String>> {
        let (options, clock) = (self.options.clone(), self.clock.clone());
        self.read(move |tx| Ok(Layout::load(tx, &options, clock.now())?.hosts().cloned().collect())).await
    }

    /// A number for what is read behind it. Whatever was committed before has no higher one, and what is committed
    /// later is told with a higher one: of two words about the same thing the one with the higher number holds.
    async fn next_revision(&self) -> Result<u64> {
        self.db
            .write(|tx| {
                store::count_up(tx, store::REVISION)?;
                store::counter(tx, store::REVISION)
            })
            .await
    }

    async fn touch_all(&self) -> Result<()> {
        let (options, clock) = (self.options.clone(), self.clock.clone());
        self.write(move |tx, touched| touch_all(tx, touched, &options, clock.now())).await
    }

    async fn tell_all(self: &Arc<Self>, touched: Touched, whom: Whom) -> Result<()> {
        let (options, clock, revision) =
            (self.options.clone(), self.clock.clone(), self.next_revision().await?);
        let trunks = touched.trunks.clone();
        let changes = self
            .read(move |tx| {
                let near = match whom {
                    Whom::All => BTreeSet::new(),
                    Whom::Near => desired::hosts_of_ports(tx, &touched.ports)?,
                };
                if whom == Whom::Near && near.is_empty() {
                    return Ok(Vec::new());
                }
                let layout = Layout::load(tx, &options, clock.now())?;
                let (mut changes, mut read) = (Vec::new(), desired::Read::default());
                for host in layout.hosts().filter(|host| whom == Whom::All || near.contains(*host)) {
                    let change = desired::change(tx, &options, &layout, host, &touched, &mut read)?;
                    changes.push((host.clone(), contract::Change { revision, ..change }));
                }
                Ok(changes)
            })
            .await?;
        let mut telling = JoinSet::new();
        for (host, change) in changes {
            let neutron = self.clone();
            let trunks = trunks.clone();
            telling.spawn(async move { neutron.tell_one(&host, change, trunks).await });
        }
        // A host that does not answer keeps the others from nothing: what comes late has an older revision.
        let answers =
            async { while let Ok(Some(_)) = tokio::time::timeout(TOLD_WITHIN, telling.join_next()).await {} };
        let _ = tokio::time::timeout(ALL_TOLD_WITHIN, answers).await;
        telling.detach_all();
        Ok(())
    }

    async fn tell_one(self: &Arc<Self>, host: &str, change: contract::Change, trunks: BTreeSet<String>) {
        let told = match self.agent(host).changed(&Context::internal(), &change).await {
            Ok(()) => {
                self.trunks_stand(trunks, host).await;
                let served = change.routers.into_iter().filter(|(_, router)| router.is_some());
                self.floating_stand(served.map(|(id, _)| id).collect()).await
            }
            Err(error) => {
                self.remind(host);
                Err(error)
            }
        };
        if let Err(error) = told {
            tracing::warn!(host, %error, "network agent was not told");
        }
    }

    /// A host that missed something asks for everything as soon as it hears that it shall. One that is silent for long
    /// does so by itself when it is back.
    fn remind(self: &Arc<Self>, host: &str) {
        if !self.missed.lock().insert(host.into()) {
            return;
        }
        let (weak, host) = (Arc::downgrade(self), host.to_string());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REMINDED_EVERY).await;
                let Some(neutron) = weak.upgrade() else { return };
                // What it misses from now on is another matter.
                neutron.missed.lock().remove(&host);
                let lives = neutron.living().await.map_or(true, |living| living.contains(&host));
                let heard = !lives || neutron.agent(&host).resync(&Context::internal()).await.is_ok();
                if heard || !neutron.missed.lock().insert(host.clone()) {
                    return;
                }
            }
        });
    }

    /// Trunks whose subports are others are what their ports are once their host has heard of it.
    async fn trunks_stand(&self, trunks: BTreeSet<String>, host: &str) {
        if trunks.is_empty() {
            return;
        }
        let (host, now) = (host.to_string(), self.clock.now());
        let settled = self.write(move |tx, _| trunks::settle_all(tx, &trunks, &host, now));
        if let Err(error) = settled.await {
            tracing::warn!(%error, "trunks stay as they were");
        }
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
        let told = state.clone();
        let (state, clock, options) = (state.clone(), self.clock.clone(), self.options.clone());
        let reported = self.reported.clone();
        self.write(move |tx, touched| {
            let now = clock.now();
            let known = store::all_of::<Agent>(tx, "host", &state.host)?;
            let kinds = if state.only_guests { &[L2][..] } else { &[L2, DHCP, L3] };
            for kind in kinds {
                store_agent(tx, &state, kind, &known, now)?;
            }
            for gone in known.iter().filter(|agent| kinds.iter().all(|kind| agent.agent_type != kind.name)) {
                tx.remove::<Agent>(&gone.id)?;
            }
            let unsynced = known.iter().any(|agent| agent.resources_synced == Some(false));
            if !told.resources.is_empty() && (told.started || known.is_empty() || unsynced) {
                let (reported, told) = (reported.clone(), told.clone());
                tx.after_commit(move || drop(reported.send(told)));
            }
            // Of who serves, a report changes its own host's part alone.
            let after = store::all_of::<Agent>(tx, "host", &state.host)?;
            if tunnel_ip(&after) != tunnel_ip(&known) {
                let here = store::ports_on(tx, &state.host)?;
                let here = store::any_of::<Port>(tx, "id", &here)?;
                touched.networks.extend(here.into_iter().map(|port| port.network_id));
            }
            match schedule::serving(&after, &options, now) == schedule::serving(&known, &options, now) {
                true => Ok(()),
                false => touch_all(tx, touched, &options, now),
            }
        })
        .await
    }

    async fn ports_reported(&self, _: &Context, state: &PortsState) -> Result<()> {
        for (id, why) in &state.failed {
            tracing::warn!(host = state.host, id, why, "a network resource did not become what it shall be");
        }
        let (state, options, clock) = (state.clone(), self.options.clone(), self.clock.clone());
        self.write(move |tx, touched| {
            let now = clock.now();
            let layout = &mut |tx: &mut Tx| Layout::load(tx, &options, now);
            set_plugged(tx, touched, &state.host, &state.up, true)?;
            set_plugged(tx, touched, &state.host, &state.down, false)?;
            set_status(tx, touched, layout, (&state.host, &state.up), [DOWN, ACTIVE], now)?;
            set_status(tx, touched, layout, (&state.host, &state.down), [ACTIVE, DOWN], now)?;
            trunks::degrade(tx, &state.failed.keys().cloned().collect(), now)
        })
        .await
    }

    async fn host_state(&self, _: &Context, host: &str) -> Result<HostState> {
        let (host, options, clock) = (host.to_string(), self.options.clone(), self.clock.clone());
        let (asks, now) = (host.clone(), clock.now());
        self.write(move |tx, _| {
            let all = trunks::on_host(tx, &asks)?;
            trunks::settle_all(tx, &all, &asks, now)
        })
        .await?;
        let revision = self.next_revision().await?;
        self.read(move |tx| {
            let layout = Layout::load(tx, &options, clock.now())?;
            let desired = desired::state(tx, &options, &layout, &host)?;
            Ok(contract::HostState { revision, desired })
        })
        .await
    }
}

/// Where the tunnels to a host end, by its agents.
fn tunnel_ip(agents: &[Agent]) -> Option<&str> {
    agents.iter().find(|agent| agent.agent_type == L2.name)?.tunnel_ip.as_deref()
}

/// One of a host's agents as the host reports it; what an operator set of it stays.
fn store_agent(tx: &mut Tx, state: &AgentState, kind: &Kind, known: &[Agent], now: Timestamp) -> Result<()> {
    let known = known.iter().find(|agent| agent.agent_type == kind.name);
    let zone = if state.availability_zone.is_empty() { DEFAULT_ZONE } else { &state.availability_zone };
    let configurations = match kind.name {
        name if name == L2.name => json!({
            "tunneling_ip": state.tunnel_ip, "physical_networks": state.physical_networks, "devices": state.ports,
            "resource_provider_bandwidths": bandwidths(state),
        }),
        name if name == DHCP.name => json!({"networks": state.networks}),
        _ => json!({"agent_mode": "legacy", "routers": state.routers}),
    };
    let agent = Agent {
        id: known.map_or_else(id::uuid, |agent| agent.id.clone()),
        agent_type: kind.name.into(),
        program: kind.binary.into(),
        topic: kind.topic.into(),
        host: state.host.clone(),
        admin_state_up: known.is_none_or(|agent| agent.admin_state_up),
        description: known.and_then(|agent| agent.description.clone()),
        availability_zone: (kind.name != L2.name).then(|| zone.into()),
        tunnel_ip: state.tunnel_ip.map(|ip| ip.to_string()),
        configurations,
        resources_synced: (kind.name == L2.name && !state.resources.is_empty())
            .then(|| known.and_then(|agent| agent.resources_synced).unwrap_or(false)),
        created_at: known.map_or(now, |agent| agent.created_at),
        started_at: known.filter(|_| !state.started).map_or(now, |agent| agent.started_at),
        heartbeat_timestamp: now,
    };
    match known {
        Some(_) => tx.update(&agent).map(drop),
        None => tx.insert(&agent),
    }
}

fn bandwidths(state: &AgentState) -> base::Json {
    let of = |rates: &contract::Rates| json!({"egress": rates.egress, "ingress": rates.ingress});
    let all = state.resources.bandwidths.iter().map(|(device, one)| (device.clone(), of(&one.rates)));
    all.collect::<serde_json::Map<_, _>>().into()
}

/// Another serves than until now: everybody is told who.
pub fn touch_all(tx: &mut Tx, touched: &mut Touched, options: &Options, now: Timestamp) -> Result<()> {
    for network in tx.list::<Network>(&List::all())? {
        ports::ensure_dhcp(tx, touched, options, &network.id, now)?;
        touched.networks.insert(network.id);
    }
    touched.routers.extend(tx.list::<Router>(&List::all())?.into_iter().map(|router| router.id));
    Ok(())
}

/// Taps of ports that come to a host, or leave it, while another has them.
fn set_plugged(
    tx: &mut Tx,
    touched: &mut Touched,
    host: &str,
    ids: &BTreeSet<String>,
    plugged: bool,
) -> Result<()> {
    let bindings = store::inactive_bindings(tx, ids)?;
    for mut binding in bindings.into_values().flatten().filter(|binding| binding.host == host) {
        binding.plugged = plugged;
        tx.update(&binding)?;
        if plugged && let Some(port) = tx.find::<Port>(&binding.port_id)? {
            touched.server(&port, events::PLUGGED);
        }
    }
    Ok(())
}

/// Ports, and floating addresses whose gateway's port it is. Only the host that has a port at the moment says how it
/// is: the one that it left reports late.
fn set_status(
    tx: &mut Tx,
    touched: &mut Touched,
    layout: &mut dyn FnMut(&mut Tx) -> Result<Layout>,
    (host, ids): (&str, &BTreeSet<String>),
    [from, to]: [&str; 2],
    now: Timestamp,
) -> Result<()> {
    let name = if to == ACTIVE { events::PLUGGED } else { events::UNPLUGGED };
    let mut changed = BTreeSet::new();
    for port in store::any_of::<Port>(tx, "id", ids)? {
        if port.status == from && is_on(tx, layout, &port, host)? {
            touched.server(&port, name);
            changed.insert(port.id);
        }
    }
    let all: Vec<&str> = changed.iter().map(String::as_str).collect();
    for some in all.chunks(500) {
        let known = [Filter::any("id", some.iter().copied())];
        tx.set::<Port>(&known, &[("status", to.store()), ("updated_at", now.store())])?;
        let routers =
            tx.list::<Router>(&List::all().filter(Filter::any("gw_port_id", some.iter().copied())))?;
        for router in routers {
            let known = [Filter::eq("router_id", &*router.id), Filter::eq("status", from)];
            tx.set::<FloatingIp>(&known, &[("status", to.store())])?;
        }
    }
    trunks::settle_of(tx, &all, now)
}

/// Guests' ports, which are many, say so themselves.
fn is_on(
    tx: &mut Tx,
    layout: &mut dyn FnMut(&mut Tx) -> Result<Layout>,
    port: &Port,
    host: &str,
) -> Result<bool> {
    Ok(match port.device_owner.as_str() {
        OWNER_DHCP => {
            let (network, layout) = (tx.find::<Network>(&port.network_id)?, layout(tx)?);
            network.is_some_and(|network| layout.dhcp_host(&network) == Some(host))
        }
        OWNER_ROUTER | OWNER_GATEWAY => {
            let (router, layout) = (tx.find::<Router>(&port.device_id)?, layout(tx)?);
            router.is_some_and(|router| layout.router_host(&router) == Some(host))
        }
        _ => port.host_id == host,
    })
}
