//! Which host serves what: every network's DHCP and every router is on one host alone. It follows from who lives, and
//! from what an operator set; nothing has to be moved when a host dies but the word of it.

use crate::{Options, agents, model::*, ports, store};
use base::{Result, Timestamp};
use db::{List, Tx};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

/// The hosts with their agents, as they are now.
pub struct Layout {
    agents: Vec<Agent>,
    now: Timestamp,
    down_after: Duration,
    placements: HashMap<String, Option<String>>,
    /// By host.
    tunnels: HashMap<String, IpAddr>,
}

impl Layout {
    pub fn load(tx: &mut Tx, options: &Options, now: Timestamp) -> Result<Self> {
        let mut agents = tx.list::<Agent>(&List::all())?;
        agents.sort_by(|a, b| a.host.cmp(&b.host));
        let placements = tx.list::<Placement>(&List::all())?;
        let placements = placements.into_iter().map(|row| (row.resource_id, row.host)).collect();
        let down_after = Duration::from_secs(options.agent_down_time_seconds);
        let tunnels = agents.iter().filter(|agent| agent.agent_type == agents::L2.name);
        let tunnels = tunnels.filter_map(|a| Some((a.host.clone(), a.tunnel_ip.as_deref()?.parse().ok()?)));
        Ok(Self { tunnels: tunnels.collect(), agents, now, down_after, placements })
    }

    pub fn lives(&self, agent: &Agent) -> bool {
        lives(agent, self.now, self.down_after)
    }

    /// Hosts that can be told something.
    pub fn hosts(&self) -> impl Iterator<Item = &String> {
        self.agents
            .iter()
            .filter(|agent| agent.agent_type == agents::L2.name && self.lives(agent))
            .map(|a| &a.host)
    }

    /// What serves now: an agent that stops to or begins to changes it.
    pub fn serving(&self) -> BTreeSet<String> {
        serving_of(&self.agents, self.now, self.down_after)
    }

    pub fn dhcp_host(&self, network: &Network) -> Option<&str> {
        self.host_of(&agents::DHCP, &network.id, &network.availability_zone_hints)
    }

    pub fn router_host(&self, router: &Router) -> Option<&str> {
        self.host_of(&agents::L3, &router.id, &router.availability_zone_hints)
    }

    /// Always the same while the same hosts live. Where an operator put it, if that lives; nowhere if he took it away.
    fn host_of(&self, kind: &agents::Kind, id: &str, zones: &[String]) -> Option<&str> {
        let able = || {
            let all = self.agents.iter().filter(|agent| agent.agent_type == kind.name);
            all.filter(|agent| agent.admin_state_up && self.lives(agent))
        };
        match self.placements.get(id) {
            Some(None) => return None,
            Some(Some(host)) if able().any(|agent| agent.host == *host) => return Some(host),
            _ => {}
        }
        let in_zone = |agent: &&Agent| {
            zones.is_empty() || agent.availability_zone.as_ref().is_some_and(|zone| zones.contains(zone))
        };
        let weight = |agent: &&Agent| base::id::derived(&[&agent.host, id]);
        able().filter(in_zone).max_by_key(weight).map(|agent| agent.host.as_str())
    }

    /// Whether a host may have something of a kind to serve.
    fn serves(&self, kind: &agents::Kind, host: &str) -> bool {
        self.agent(kind, host).is_some_and(|agent| agent.admin_state_up && self.lives(agent))
    }

    pub fn agent(&self, kind: &agents::Kind, host: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.agent_type == kind.name && agent.host == host)
    }

    /// Whether somebody else can serve what an agent does.
    pub fn has_other(&self, than: &Agent) -> bool {
        self.agents.iter().any(|agent| {
            agent.agent_type == than.agent_type
                && agent.host != than.host
                && agent.admin_state_up
                && self.lives(agent)
        })
    }

    /// Where a host's tunnels end. Also of one whose agent is silent: its guests go on.
    pub fn tunnel_ip(&self, host: &str) -> Option<IpAddr> {
        self.tunnels.get(host).copied()
    }

    /// The zones in which a network is served.
    pub fn network_zones(&self, network: &Network) -> Vec<String> {
        self.zone_of(&agents::DHCP, self.dhcp_host(network))
    }

    pub fn router_zones(&self, router: &Router) -> Vec<String> {
        self.zone_of(&agents::L3, self.router_host(router))
    }

    fn zone_of(&self, kind: &agents::Kind, host: Option<&str>) -> Vec<String> {
        let agent = host.and_then(|host| self.agent(kind, host));
        agent.and_then(|agent| agent.availability_zone.clone()).into_iter().collect()
    }

    /// Zones by what they are for and name, and whether somebody in them lives.
    pub fn zones(&self) -> BTreeMap<(&'static str, String), bool> {
        let mut zones = BTreeMap::new();
        for (kind, resource) in [(&agents::DHCP, "network"), (&agents::L3, "router")] {
            for agent in self.agents.iter().filter(|agent| agent.agent_type == kind.name) {
                if let Some(zone) = &agent.availability_zone {
                    *zones.entry((resource, zone.clone())).or_insert(false) |=
                        self.lives(agent) && agent.admin_state_up;
                }
            }
        }
        zones
    }
}

/// Routers that a host has.
pub fn routers_on(tx: &mut Tx, layout: &Layout, host: &str) -> Result<Vec<Router>> {
    if !layout.serves(&agents::L3, host) {
        return Ok(Vec::new());
    }
    let mut routers = tx.list::<Router>(&List::all())?;
    routers.retain(|router| layout.router_host(router) == Some(host));
    Ok(routers)
}

/// Those of some agents that serve.
pub fn serving(agents: &[Agent], options: &Options, now: Timestamp) -> BTreeSet<String> {
    serving_of(agents, now, Duration::from_secs(options.agent_down_time_seconds))
}

fn serving_of(agents: &[Agent], now: Timestamp, down_after: Duration) -> BTreeSet<String> {
    let able = agents.iter().filter(|agent| agent.agent_type != agents::L2.name);
    let serving = able.filter(|agent| agent.admin_state_up && lives(agent, now, down_after));
    serving.map(|agent| agent.id.clone()).collect()
}

fn lives(agent: &Agent, now: Timestamp, down_after: Duration) -> bool {
    now.since(agent.heartbeat_timestamp) < down_after
}

/// Says where a network's DHCP or a router is to be; none: nowhere.
pub fn place(tx: &mut Tx, resource_id: &str, host: Option<String>) -> Result<()> {
    let placement = Placement { resource_id: resource_id.into(), host };
    match tx.find::<Placement>(resource_id)? {
        Some(_) => tx.update(&placement).map(drop),
        None => tx.insert(&placement),
    }
}

/// Whether one host serves a network's DHCP: there is something to serve, or an operator put it there.
pub fn is_served_on(tx: &mut Tx, layout: &Layout, network: &Network, host: &str) -> Result<bool> {
    let is_placed = layout.placements.get(&network.id).is_some_and(|on| on.as_deref() == Some(host));
    Ok(layout.dhcp_host(network) == Some(host) && (is_placed || ports::dhcp_port(tx, &network.id)?.is_some()))
}

/// Networks whose DHCP one host serves: those with something to serve, and those that an operator put there.
pub fn networks_on(tx: &mut Tx, layout: &Layout, host: &str) -> Result<Vec<Network>> {
    if !layout.serves(&agents::DHCP, host) {
        return Ok(Vec::new());
    }
    let served = tx.list::<Port>(&List::all().eq("device_owner", OWNER_DHCP))?;
    let mut ids: BTreeSet<String> = served.into_iter().map(|port| port.network_id).collect();
    ids.extend(
        layout.placements.iter().filter(|(_, on)| on.as_deref() == Some(host)).map(|(id, _)| id.clone()),
    );
    let mut networks = store::any_of::<Network>(tx, "id", &ids)?;
    networks.retain(|network| layout.dhcp_host(network) == Some(host));
    Ok(networks)
}
