//! The real host: converges in an order in which nothing is ever open that shall be closed. What is not wanted goes
//! first, then bridges, then filters, then the ports behind them, then DHCP and routers.

use crate::{
    Depth, HostNet, Report, dhcp, filter,
    links::{Link, Links, Wanted},
    metadata::{Directory, MetadataOptions, Place, Proxy},
    names::{bridge, short, subport, tap, vlan_link},
    nat, netns,
    nft::{self, Applied, Side},
    shape, trunk,
};
use async_trait::async_trait;
use base::{Error, Result};
use contracts::agents::network::{
    Desired, Dhcp, Gateway, Interface, Mac, Network, NetworkKind, Port, Route, Router,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use tokio::sync::Mutex;

/// What marks an interface as this cloud's is kept in its alias, which has 255 characters.
const ALIAS_CHARS_MAX: usize = 250;

#[derive(Clone, Debug)]
pub struct Options {
    /// Where namespaces are held and DHCP servers have their files.
    pub dir: PathBuf,
    /// Interfaces of this host by the physical network they reach.
    pub physical_networks: BTreeMap<String, String>,
    /// None: guests get no metadata from the network.
    pub metadata: Option<MetadataOptions>,
}

pub struct Linux {
    options: Options,
    links: Links,
    alias: String,
    directory: Directory,
    state: Mutex<State>,
}

/// Why ports were not wired.
type Failures = BTreeMap<String, Error>;

/// By the id of a subport, its VLAN.
type Wires = BTreeMap<String, u16>;

/// What the last convergence made.
#[derive(Default)]
struct State {
    /// Without what failed.
    done: Desired,
    /// The index of each network's bridge.
    bridges: BTreeMap<String, u32>,
    ports: Applied,
    states: Applied,
    host: Applied,
    routers: BTreeMap<String, Applied>,
    /// The subports of each parent that are wired to it.
    trunks: BTreeMap<String, Wires>,
    /// By the name of their namespace.
    proxies: BTreeMap<String, Proxy>,
}

impl Linux {
    /// Nothing is changed on the host before the first convergence.
    pub async fn new(options: Options) -> Result<Self> {
        let missing = missing_programs();
        if !missing.is_empty() {
            return Err(Error::unavailable(format!("programs missing on this host: {}", missing.join(", "))));
        }
        tokio::fs::create_dir_all(&options.dir).await?;
        let dir = tokio::fs::canonicalize(&options.dir).await?;
        let alias = format!("ferrostack {}", dir.display()).chars().take(ALIAS_CHARS_MAX).collect();
        let options = Options { dir, ..options };
        let links = Links::here()?;
        Ok(Self { options, links, alias, directory: Directory::default(), state: Mutex::default() })
    }

    /// The file of a namespace: `qdhcp-` and the network's id, `qrouter-` and the router's.
    pub fn namespace(&self, name: &str) -> PathBuf {
        self.options.dir.join("netns").join(name)
    }

    fn dhcp_dir(&self, network_id: &str) -> PathBuf {
        self.options.dir.join("dhcp").join(network_id)
    }

    async fn remove_unwanted(&self, state: &mut State, desired: &Desired, depth: Depth) -> Result<()> {
        let (namespaces, links) = names(desired);
        let dhcp_dirs = netns::list(&self.options.dir.join("dhcp"))?;
        for dir in dhcp_dirs {
            let wanted =
                file_name(&dir).and_then(|id| desired.networks.get(id)).is_some_and(|n| n.dhcp.is_some());
            if !wanted {
                dhcp::stop(&dir).await?;
            }
        }
        state.proxies.retain(|name, _| namespaces.contains(name));
        state.routers.retain(|id, _| desired.routers.contains_key(id));
        let (mut marked, mut begun) = (names(&state.done).1, BTreeSet::new());
        if depth == Depth::Everything {
            let all = self.links.all().await?;
            let names = std::fs::read_to_string(self.begun()).unwrap_or_default();
            begun = names.lines().filter(|name| all.contains_key(*name)).map(String::from).collect();
            marked =
                all.into_values().filter(|link| link.alias == self.alias).map(|link| link.name).collect();
        }
        for link in marked.union(&begun).filter(|link| !links.contains(*link)) {
            self.links.remove(link).await?;
        }
        let new: Vec<&str> = links.difference(&marked).map(String::as_str).collect();
        if !new.is_empty() {
            std::fs::write(self.begun(), new.join("\n"))?;
        }
        for path in netns::list(&self.options.dir.join("netns"))? {
            if !file_name(&path).is_some_and(|name| namespaces.contains(name)) {
                netns::remove(&path).await?;
            }
        }
        state.bridges.retain(|id, _| desired.networks.contains_key(id));
        self.directory.keep(|id| desired.networks.contains_key(id));
        Ok(())
    }

    /// Names the interfaces that are being made: one is marked as ours a moment after it is there, and who is killed
    /// between the two must know it again.
    fn begun(&self) -> PathBuf {
        self.options.dir.join("begun")
    }

    async fn network(&self, state: &mut State, id: &str, network: &Network) -> Result<()> {
        let name = bridge(id);
        let link = self.links.bridge(&name).await?;
        // Without a MAC address of its own a bridge takes that of its first port, and changes it with the ports.
        let wanted = self.wanted(Some(bridge_mac(id)), network, None);
        self.links.make(&link, &wanted).await?;
        if !network.host_addresses.iter().any(|net| net.addr().is_ipv6()) {
            silence(&name).await?;
        }
        self.links.addresses(&link, &network.host_addresses).await?;
        state.bridges.insert(id.into(), link.index);
        match &network.kind {
            NetworkKind::Local => Ok(()),
            NetworkKind::Flat { physical_network } => {
                let Some(port) = self.interface(physical_network).await? else { return Ok(()) };
                let wanted = Wanted { controller: Some(link.index), ..Wanted::default() };
                self.links.make(&port, &wanted).await
            }
            NetworkKind::Vlan { physical_network, vlan } => {
                let Some(port) = self.interface(physical_network).await? else { return Ok(()) };
                self.links.make(&port, &Wanted::default()).await?;
                let name = vlan_link(id);
                let tagged = self.links.vlan(&name, &port, *vlan).await?;
                self.links.make(&tagged, &self.wanted(None, network, Some(link.index))).await?;
                silence(&name).await
            }
            NetworkKind::Vxlan(segment) => {
                let name = format!("vxlan-{}", segment.vni);
                let tunnel = self.links.vxlan(&name, segment.vni, segment.local).await?;
                self.links.make(&tunnel, &self.wanted(None, network, Some(link.index))).await?;
                silence(&name).await?;
                let flood = segment.remotes.iter().map(|host| (Mac([0; 6]), *host));
                let known = segment.ports.iter().map(|port| (port.mac, port.host));
                self.links.forwarding(&tunnel, &flood.chain(known).collect()).await
            }
        }
    }

    /// The interface of a physical network, where the host has one.
    async fn interface(&self, physical_network: &str) -> Result<Option<Link>> {
        let Some(name) = self.options.physical_networks.get(physical_network) else { return Ok(None) };
        let found = self.links.find(name).await?;
        found.ok_or_else(|| Error::unavailable(format!("no interface {name} on this host"))).map(Some)
    }

    fn wanted(&self, mac: Option<Mac>, network: &Network, controller: Option<u32>) -> Wanted<'_> {
        Wanted { mac, mtu: Some(network.mtu.into()), controller, alias: Some(&self.alias), down: false }
    }

    async fn filters(&self, state: &mut State, desired: &Desired, depth: Depth) -> Result<()> {
        let verify = depth == Depth::Everything;
        if verify {
            require_bridge_filter().await?;
        }
        let zones = zones(state, desired);
        state.states.apply(None, filter::state_table(&zones, &desired.ports), verify).await?;
        state.ports.apply(None, filter::ports_table(desired), verify).await?;
        match nat::host_table(&desired.networks) {
            Some(table) => {
                sysctl("/proc/sys/net/ipv4/ip_forward", "1").await?;
                state.host.apply(None, table, verify).await?;
            }
            None if state.host.table().is_some() || verify => {
                nft::remove(None, nat::HOST_TABLE).await?;
                state.host = Applied::default();
            }
            None => {}
        }
        for (network_id, address) in filter::revoked(&state.done, desired) {
            let zone = zones.get(&network_id).copied().unwrap_or(0);
            for side in [Side::From, Side::To] {
                nft::forget_connections(None, Some(zone), side, address).await?;
            }
        }
        Ok(())
    }

    async fn port(&self, state: &State, desired: &Desired, id: &str, port: &Port) -> Result<()> {
        let (network, index) = place(state, desired, &port.network_id)?;
        let name = tap(id);
        let known = state.done.ports.get(id);
        // Who begins does not know what an earlier run of ours set on a tap that stands.
        let had = match known {
            Some(known) => known.qos.bandwidth.ingress.is_some(),
            None => self.links.find(&name).await?.is_some(),
        };
        let link = match &port.subport {
            None => self.links.tap(&name).await?,
            Some(_) => self.subport(id, network, &name).await?,
        };
        silence(&name).await?;
        if known.is_none_or(|known| known.qos.bandwidth.ingress != port.qos.bandwidth.ingress) {
            shape::apply(&name, port.qos.bandwidth.ingress, had).await?;
        }
        let wanted = Wanted { down: !port.admin_state_up, ..self.wanted(None, network, Some(index)) };
        self.links.make(&link, &wanted).await
    }

    /// A pair instead of a tap: what comes out of its other end is put on the parent's tap, and the other way round.
    async fn subport(&self, id: &str, network: &Network, name: &str) -> Result<Link> {
        let other = subport(id);
        let (link, end) = self.links.pair(name, &other).await?;
        silence(&other).await?;
        self.links.make(&end, &self.wanted(None, network, None)).await?;
        Ok(link)
    }

    /// Wires the subports that stand to their parents; those of `new` are not what they were.
    async fn trunks(
        &self,
        state: &mut State,
        done: &Desired,
        new: &BTreeSet<String>,
        depth: Depth,
    ) -> Failures {
        let wanted = wires(done);
        let mut failures = Failures::new();
        let mut gone: BTreeSet<String> =
            state.trunks.keys().filter(|parent| !wanted.contains_key(*parent)).map(|id| tap(id)).collect();
        if depth == Depth::Everything {
            let taps = done.ports.keys().filter(|id| !wanted.contains_key(*id)).map(|id| tap(id));
            let wired = trunk::wired().await.unwrap_or_default();
            gone.extend(taps.filter(|tap| wired.contains(tap)));
        }
        for tap in gone {
            trunk::detach(&tap).await;
        }
        state.trunks.retain(|parent, _| wanted.contains_key(parent));
        for (parent, wires) in wanted {
            let is_new = new.contains(&parent) || wires.keys().any(|id| new.contains(id));
            if !is_new && depth == Depth::Changes && state.trunks.get(&parent) == Some(&wires) {
                continue;
            }
            match self.trunk(done, &parent, &wires).await {
                Ok(()) => drop(state.trunks.insert(parent, wires)),
                Err(error) => {
                    state.trunks.remove(&parent);
                    failures.extend(wires.into_keys().map(|id| (id, error.clone())));
                }
            }
        }
        failures
    }

    async fn trunk(&self, done: &Desired, parent: &str, wires: &Wires) -> Result<()> {
        if !done.ports.contains_key(parent) {
            return Err(Error::unavailable(format!("its parent {parent} is not on this host")));
        }
        let tap = self.links.need(&tap(parent)).await?;
        let dir = self.options.dir.join("trunks");
        tokio::fs::create_dir_all(&dir).await?;
        let mut ends = Vec::new();
        for (id, vlan) in wires {
            let end = self.links.need(&subport(id)).await?;
            trunk::attach(&dir, &end.name, trunk::INGRESS, &trunk::to_parent(*vlan, tap.index)?).await?;
            ends.push((*vlan, end.index));
        }
        trunk::attach(&dir, &tap.name, trunk::EGRESS, &trunk::guarded(&ends)?).await?;
        trunk::attach(&dir, &tap.name, trunk::INGRESS, &trunk::from_parent(&ends)?).await
    }

    /// One leg of a namespace on a network's bridge. True when it is new.
    async fn leg(&self, namespace: &Path, inside: &Links, leg: &Leg<'_>) -> Result<(Link, bool)> {
        let outer = tap(leg.port_id);
        let is_new = self.links.veth(&outer, &leg.name, namespace, inside).await?;
        let gone = || Error::internal(format!("the interface {outer} is gone"));
        let link = self.links.find(&outer).await?.ok_or_else(gone)?;
        silence(&outer).await?;
        self.links.make(&link, &self.wanted(None, leg.network, Some(leg.bridge))).await?;
        let link = inside.find(&leg.name).await?.ok_or_else(gone)?;
        let mtu = Some(leg.network.mtu.into());
        inside.make(&link, &Wanted { mac: Some(leg.mac), mtu, ..Wanted::default() }).await?;
        Ok((link, is_new))
    }

    async fn enter(&self, namespace: &Path) -> Result<Links> {
        netns::ensure(namespace).await?;
        let inside = Links::inside(namespace).await?;
        if let Some(lo) = inside.find("lo").await? {
            inside.make(&lo, &Wanted::default()).await?;
        }
        Ok(inside)
    }

    async fn dhcp(&self, state: &mut State, id: &str, network: &Network, dhcp: &Dhcp) -> Result<()> {
        let name = format!("qdhcp-{id}");
        let namespace = self.namespace(&name);
        let inside = self.enter(&namespace).await?;
        let bridge = *state.bridges.get(id).ok_or_else(|| no_bridge(id))?;
        let leg = Leg { port_id: &dhcp.port_id, name: dhcp::leg(dhcp), mac: dhcp.mac, network, bridge };
        let (link, is_new) = self.leg(&namespace, &inside, &leg).await?;
        inside.addresses(&link, &dhcp::addresses(dhcp)).await?;
        inside.routes(&dhcp::routes(dhcp)).await?;
        dhcp::ensure(&self.dhcp_dir(id), &namespace, network, dhcp, is_new).await?;
        let place = Place { header: "x-neutron-network-id", id: id.into(), networks: vec![id.into()] };
        let address = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80));
        self.proxy(state, &name, address, place).await
    }

    async fn router(&self, state: &mut State, desired: &Desired, id: &str, depth: Depth) -> Result<()> {
        let router = &desired.routers[id];
        let name = format!("qrouter-{id}");
        let namespace = self.namespace(&name);
        let inside = self.enter(&namespace).await?;
        netns::within(&namespace, forward_packets).await?;
        let table = nat::router_table(router);
        let applied = state.routers.entry(id.into()).or_default();
        applied.apply(Some(&namespace), table, depth == Depth::Everything).await?;
        for (interface, name, addresses) in legs(router) {
            let (network, bridge) = place(state, desired, &interface.network_id)?;
            let leg = Leg { port_id: &interface.port_id, name, mac: interface.mac, network, bridge };
            let (link, _) = self.leg(&namespace, &inside, &leg).await?;
            inside.addresses(&link, if router.down { &[] } else { &addresses }).await?;
        }
        inside.routes(&if router.down { Vec::new() } else { router_routes(router) }).await?;
        self.floating_ips(state, &namespace, id, router).await?;
        let networks = router.interfaces.iter().map(|interface| interface.network_id.clone()).collect();
        let place = Place { header: "x-neutron-router-id", id: id.into(), networks };
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, nat::METADATA_PORT));
        self.proxy(state, &name, address, place).await
    }

    /// Addresses that came may have been elsewhere; connections through those that went must end.
    async fn floating_ips(&self, state: &State, namespace: &Path, id: &str, router: &Router) -> Result<()> {
        let none = Router::default();
        let before = state.done.routers.get(id).unwrap_or(&none);
        for gone in before.floating_ips.iter().filter(|fip| !router.floating_ips.contains(fip)) {
            for (side, address) in [(Side::To, gone.floating), (Side::From, gone.fixed)] {
                nft::forget_connections(Some(namespace), None, side, address).await?;
            }
        }
        for gone in before.port_forwardings.iter().filter(|old| !router.port_forwardings.contains(old)) {
            nft::forget_connections(Some(namespace), None, Side::To, gone.floating).await?;
        }
        let Some(gateway) = &router.gateway else { return Ok(()) };
        let Some(link) = self.links.find(&bridge(&gateway.interface.network_id)).await? else {
            return Ok(());
        };
        let own = gateway.interface.addresses.iter().map(IpNet::addr);
        let had = before.floating_addresses();
        let came = router.floating_addresses().into_iter().filter(|address| !had.contains(address));
        let own = own.filter(|_| before.gateway.as_ref() != Some(gateway));
        for address in came.chain(own) {
            self.links.forget_neighbour(&link, address).await?;
        }
        Ok(())
    }

    async fn proxy(&self, state: &mut State, name: &str, address: SocketAddr, place: Place) -> Result<()> {
        let Some(options) = &self.options.metadata else { return Ok(()) };
        if state.proxies.get(name).is_some_and(|proxy| proxy.runs() && proxy.place == place) {
            return Ok(());
        }
        // The old one holds the address.
        if let Some(old) = state.proxies.remove(name) {
            old.end().await;
        }
        let namespace = self.namespace(name);
        let proxy = Proxy::start(&namespace, address, place, self.directory.clone(), options.clone()).await?;
        state.proxies.insert(name.into(), proxy);
        Ok(())
    }
}

#[async_trait]
impl HostNet for Linux {
    async fn converge(&self, desired: &Desired, depth: Depth) -> Result<Report> {
        desired.check()?;
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let fresh = depth == Depth::Everything;
        let mut report = Report::default();
        let mut done = desired.clone();
        self.remove_unwanted(state, desired, depth).await?;
        for (id, network) in &desired.networks {
            self.directory.set(id, network);
            let same = state.done.networks.get(id).is_some_and(|old| same_segment(old, network));
            if (fresh || !same)
                && let Err(error) = self.network(state, id, network).await
            {
                failed(&mut report, id, &error);
                done.networks.remove(id);
            }
        }
        // Without filters no port is plugged.
        self.filters(state, desired, depth).await?;
        let mut new = BTreeSet::new();
        for (id, port) in &desired.ports {
            if !fresh && state.done.ports.get(id) == Some(port) {
                continue;
            }
            new.insert(id.clone());
            if let Err(error) = self.port(state, desired, id, port).await {
                failed(&mut report, id, &error);
                done.ports.remove(id);
            }
        }
        for (id, error) in self.trunks(state, &done, &new, depth).await {
            failed(&mut report, &id, &error);
            done.ports.remove(&id);
        }
        for (id, network) in &desired.networks {
            let Some(dhcp) = &network.dhcp else { continue };
            if (fresh || state.done.networks.get(id) != Some(network))
                && let Err(error) = self.dhcp(state, id, network, dhcp).await
            {
                failed(&mut report, id, &error);
                done.networks.remove(id);
            }
        }
        for (id, router) in &desired.routers {
            if (fresh || state.done.routers.get(id) != Some(router))
                && let Err(error) = self.router(state, desired, id, depth).await
            {
                failed(&mut report, id, &error);
                done.routers.remove(id);
            }
        }
        if report.failed.is_empty() {
            let _ = std::fs::remove_file(self.begun());
        }
        report.up = up(&done);
        state.done = done;
        Ok(report)
    }

    /// Converges to nothing and takes the tables and folders away as well.
    async fn clean(&self) -> Result<()> {
        self.converge(&Desired::default(), Depth::Everything).await?;
        let mut state = self.state.lock().await;
        for table in [filter::STATE_TABLE, filter::PORTS_TABLE, nat::HOST_TABLE] {
            nft::remove(None, table).await?;
        }
        *state = State::default();
        for dir in ["netns", "dhcp", "trunks"] {
            let _ = tokio::fs::remove_dir_all(self.options.dir.join(dir)).await;
        }
        Ok(())
    }
}

fn missing_programs() -> Vec<&'static str> {
    let programs = crate::PROGRAMS.into_iter().map(|(program, _)| program);
    programs.filter(|program| host_run::find(program).is_none()).collect()
}

struct Leg<'a> {
    port_id: &'a str,
    /// Inside the namespace.
    name: String,
    mac: Mac,
    network: &'a Network,
    bridge: u32,
}

/// Namespaces and interfaces of a state.
fn names(desired: &Desired) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut namespaces = BTreeSet::new();
    let mut links = BTreeSet::new();
    for (id, network) in &desired.networks {
        links.insert(bridge(id));
        if let NetworkKind::Vxlan(segment) = &network.kind {
            links.insert(format!("vxlan-{}", segment.vni));
        }
        if let NetworkKind::Vlan { .. } = &network.kind {
            links.insert(vlan_link(id));
        }
        if let Some(dhcp) = &network.dhcp {
            namespaces.insert(format!("qdhcp-{id}"));
            links.insert(tap(&dhcp.port_id));
        }
    }
    links.extend(desired.ports.keys().map(|id| tap(id)));
    let subports = desired.ports.iter().filter(|(_, port)| port.subport.is_some());
    links.extend(subports.map(|(id, _)| subport(id)));
    for (id, router) in &desired.routers {
        namespaces.insert(format!("qrouter-{id}"));
        links.extend(legs(router).map(|(interface, _, _)| tap(&interface.port_id)));
    }
    (namespaces, links)
}

/// Subports by their parents.
fn wires(desired: &Desired) -> BTreeMap<String, Wires> {
    let mut wires: BTreeMap<String, Wires> = BTreeMap::new();
    for (id, port) in &desired.ports {
        if let Some(place) = &port.subport {
            wires.entry(place.parent.clone()).or_default().insert(id.clone(), place.vlan);
        }
    }
    wires
}

/// Interfaces of a router with their names and addresses inside.
fn legs(router: &Router) -> impl Iterator<Item = (&Interface, String, Vec<IpNet>)> {
    let inner = router
        .interfaces
        .iter()
        .map(|interface| (interface, short("qr-", &interface.port_id), interface.addresses.clone()));
    let outer = router.gateway.iter().map(|gateway| {
        let floating = router.floating_addresses().into_iter().map(IpNet::from);
        let addresses = gateway.interface.addresses.iter().copied().chain(floating).collect();
        (&gateway.interface, short("qg-", &gateway.interface.port_id), addresses)
    });
    inner.chain(outer)
}

fn router_routes(router: &Router) -> Vec<Route> {
    let default = |nexthop: &IpAddr| {
        let everywhere = if nexthop.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        Some(Route { destination: everywhere.parse().ok()?, nexthop: *nexthop })
    };
    let next_hops = router.gateway.iter().flat_map(|gateway: &Gateway| &gateway.next_hops);
    next_hops.filter_map(default).chain(router.routes.iter().cloned()).collect()
}

/// Ids of ports that stand.
pub fn up(done: &Desired) -> BTreeSet<String> {
    let guests = done.ports.iter().filter(|(_, port)| port.admin_state_up).map(|(id, _)| id.clone());
    let dhcp = done.networks.values().filter_map(|network| Some(network.dhcp.as_ref()?.port_id.clone()));
    let routers = done.routers.values().flat_map(legs).map(|(interface, _, _)| interface.port_id.clone());
    guests.chain(dhcp).chain(routers).collect()
}

/// A zone of connections per network, for their addresses may overlap. The host itself speaks in zone 0 only, so
/// networks on which it has an address stay there.
fn zones(state: &State, desired: &Desired) -> BTreeMap<String, u16> {
    let mut taken = BTreeSet::new();
    let mut zones = BTreeMap::new();
    for (id, network) in &desired.networks {
        let Some(index) = state.bridges.get(id).filter(|_| network.host_addresses.is_empty()) else {
            continue;
        };
        let first = (index % 65535) as u16;
        let free =
            (0..=u16::MAX).map(|step| first.wrapping_add(step).max(1)).find(|zone| taken.insert(*zone));
        zones.extend(free.map(|zone| (id.clone(), zone)));
    }
    zones
}

fn place<'a>(state: &State, desired: &'a Desired, network_id: &str) -> Result<(&'a Network, u32)> {
    let network = desired.networks.get(network_id);
    let bridge = state.bridges.get(network_id);
    network.zip(bridge.copied()).ok_or_else(|| no_bridge(network_id))
}

fn no_bridge(network_id: &str) -> Error {
    Error::internal(format!("network {network_id} has no bridge on this host"))
}

/// Whether nothing about the bridge and the tunnel differs.
fn same_segment(old: &Network, new: &Network) -> bool {
    old.mtu == new.mtu && old.kind == new.kind && old.host_addresses == new.host_addresses
}

fn bridge_mac(network_id: &str) -> Mac {
    let derived = base::id::derived(&["bridge", network_id]).into_bytes();
    let nibble = |at: usize| (derived[at] as char).to_digit(16).unwrap_or(0) as u8;
    // Locally administered, and above the addresses neutron gives to ports.
    Mac([
        0xfe,
        nibble(0) << 4 | nibble(1),
        nibble(2) << 4 | nibble(3),
        nibble(4) << 4 | nibble(5),
        nibble(6) << 4 | nibble(7),
        nibble(9) << 4 | nibble(10),
    ])
}

fn failed(report: &mut Report, id: &str, error: &Error) {
    tracing::warn!(id, %error, "not converged");
    report.failed.insert(id.into(), error.message.clone());
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The host has no IPv6 address of its own where guests are: they must not reach it by link-local addresses.
async fn silence(interface: &str) -> Result<()> {
    sysctl(&format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").await
}

/// A kernel without IPv6 has no such switch.
async fn sysctl(path: &str, value: &str) -> Result<()> {
    match tokio::fs::write(path, value).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::internal(format!("{path}: {error}"))),
        Ok(()) => Ok(()),
    }
}

fn forward_packets() -> Result<()> {
    for (name, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/arp_ignore", "1"),
        ("ipv4/conf/all/arp_announce", "2"),
        ("ipv6/conf/all/forwarding", "1"),
    ] {
        match std::fs::write(format!("/proc/sys/net/{name}"), value) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::internal(format!("/proc/sys/net/{name}: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Without br_netfilter no bridged packet would be tracked, and security groups would not be stateful.
async fn require_bridge_filter() -> Result<()> {
    const SWITCHES: [&str; 2] =
        ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"];
    if !Path::new(SWITCHES[0]).exists() {
        host_run::run("modprobe").arg("br_netfilter").output().await?;
    }
    for switch in SWITCHES {
        sysctl(switch, "1").await?;
    }
    Ok(())
}
