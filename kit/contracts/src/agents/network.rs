//! What neutron and the agent on a host say to each other: what the host's networks shall be, and what stands. The
//! agent has no database; every message may arrive twice or late, and its revision says which is newer.

pub use super::members::Members;
use async_trait::async_trait;
use base::{Context, Error, Result};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// The network agent of one host.
#[async_trait]
pub trait NetworkAgent: Send + Sync {
    /// Some resources are new, otherwise or gone. Returns before the host is so: `ports_reported` tells that.
    async fn changed(&self, cx: &Context, change: &Change) -> Result<()>;

    /// Something is so different that the agent shall ask for everything again.
    async fn resync(&self, cx: &Context) -> Result<()>;
}

/// What the agent tells neutron, and the one thing it asks.
#[async_trait]
pub trait NetworkReports: Send + Sync {
    /// At start and regularly as a sign of life.
    async fn agent_reported(&self, cx: &Context, agent: &AgentState) -> Result<()>;

    /// Ports that came up or went down since the last report; after a start of the agent, all of the host.
    async fn ports_reported(&self, cx: &Context, ports: &PortsState) -> Result<()>;

    /// Everything the host shall have.
    async fn host_state(&self, cx: &Context, host: &str) -> Result<HostState>;
}

bus::remote! {
    /// The agent of another host, on the topic `network_agent` and its host's name.
    pub struct RemoteNetworkAgent: NetworkAgent as network_agent_handlers {
        changed(change: &Change = Change) -> ();
        resync() -> ();
    }
}

bus::remote! {
    /// Neutron, wherever it runs, on the topic `neutron`.
    pub struct RemoteNetworkReports: NetworkReports as network_reports_handlers {
        agent_reported(agent: &AgentState = AgentState) -> ();
        ports_reported(ports: &PortsState = PortsState) -> ();
        host_state(host: &str = String) -> HostState;
    }
}

/// The service of agents' topics.
pub const AGENT_TOPIC: &str = "network_agent";
/// The service that hears agents' reports.
pub const REPORTS_TOPIC: &str = "neutron";

/// Everything, as it was at a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostState {
    /// Taken from a counter that only grows, before the state is read: no change up to it is missing.
    pub revision: u64,
    pub desired: Desired,
}

/// Whole resources as they are now; none: gone from this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Of the counter of [`HostState::revision`], taken after the change was made and before it was read.
    pub revision: u64,
    pub networks: BTreeMap<String, Option<Network>>,
    pub ports: BTreeMap<String, Option<Port>>,
    pub security_groups: BTreeMap<String, Option<SecurityGroup>>,
    pub routers: BTreeMap<String, Option<Router>>,
}

/// An agent as `GET /v2.0/agents` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentState {
    pub host: String,
    /// Where other hosts' tunnels find this one.
    pub tunnel_ip: Option<IpAddr>,
    /// Physical networks that reach this host.
    pub physical_networks: BTreeSet<String>,
    pub networks: u64,
    pub ports: u64,
    pub routers: u64,
    /// Runs guests' ports alone: no DHCP servers and no routers.
    pub only_guests: bool,
    /// Where its DHCP servers and routers are; empty: in `nova`, the default one.
    pub availability_zone: String,
    /// Set in the first report after a start.
    pub started: bool,
    /// What the host promises its guests' ports.
    pub resources: HostResources,
}

/// What a host's interfaces and its packet processing are counted as in placement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostResources {
    /// The name of the host's own provider, below which these are.
    pub hypervisor: String,
    /// By the interface, in kbit/s.
    pub bandwidths: BTreeMap<String, Bandwidth>,
    /// In thousands of packets a second.
    pub packet_rates: Rates,
    pub bandwidth_defaults: InventoryDefaults,
    pub packet_rate_defaults: InventoryDefaults,
}

impl HostResources {
    pub fn is_empty(&self) -> bool {
        self.bandwidths.is_empty() && self.packet_rates == Rates::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// The network behind the interface; none: that of the tunnels.
    pub physical_network: Option<String>,
    pub rates: Rates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    pub egress: Option<u64>,
    pub ingress: Option<u64>,
    /// Whichever way.
    pub any: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InventoryDefaults {
    pub allocation_ratio: f64,
    pub min_unit: u64,
    pub step_size: u64,
    pub reserved: u64,
}

impl Default for InventoryDefaults {
    fn default() -> Self {
        Self { allocation_ratio: 1.0, min_unit: 1, step_size: 1, reserved: 0 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortsState {
    pub host: String,
    /// Guests', DHCP servers' and routers' ports alike.
    pub up: BTreeSet<String>,
    pub down: BTreeSet<String>,
    /// Why something did not become what it shall be, by the id of the port, network or router.
    pub failed: BTreeMap<String, String>,
}

/// All of it, by id. A host has what is listed here and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desired {
    pub networks: BTreeMap<String, Network>,
    /// Ports of guests on this host. Their taps are made here, and only here.
    pub ports: BTreeMap<String, Port>,
    /// Every group that a port here has or that a rule of such a group names.
    pub security_groups: BTreeMap<String, SecurityGroup>,
    pub routers: BTreeMap<String, Router>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub mtu: u16,
    pub kind: NetworkKind,
    /// Addresses of the host itself on the network. Neutron names an external network's gateway addresses; the agent
    /// keeps them where its host is to be the gateway, so that it reaches floating addresses and routers the world.
    #[serde(default)]
    pub host_addresses: Vec<IpNet>,
    /// Whether the host hides the network's addresses behind its own towards the world.
    #[serde(default)]
    pub masquerade: bool,
    /// The DHCP server and metadata proxy, where this host has them.
    #[serde(default)]
    pub dhcp: Option<Dhcp>,
    /// Who is who on the network, for DHCP and for the metadata proxy.
    #[serde(default)]
    pub hosts: Vec<DhcpHost>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// A bridge of this host alone.
    Local,
    /// A bridge of this host with the interface in it that the host has for the physical network, if it has one.
    Flat {
        physical_network: String,
    },
    /// The same with that interface's frames of one VLAN.
    Vlan {
        physical_network: String,
        vlan: u16,
    },
    Vxlan(Segment),
}

/// A VXLAN segment and what is known of the other hosts in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub vni: u32,
    /// This host's address in the underlay; none: nothing but this host.
    pub local: Option<IpAddr>,
    /// Hosts that have a part in the network: unknown and broadcast frames go to each.
    #[serde(default)]
    pub remotes: BTreeSet<IpAddr>,
    #[serde(default)]
    pub ports: Vec<RemotePort>,
}

/// Behind which host a MAC address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePort {
    pub mac: Mac,
    pub host: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    pub port_id: String,
    pub mac: Mac,
    pub subnets: Vec<DhcpSubnet>,
    pub domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpSubnet {
    pub id: String,
    pub cidr: IpNet,
    /// The DHCP port's address in it.
    pub address: IpAddr,
    pub gateway: Option<IpAddr>,
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    #[serde(default)]
    pub host_routes: Vec<Route>,
    pub enable_dhcp: bool,
}

/// A port as the network knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpHost {
    pub port_id: String,
    pub mac: Mac,
    pub addresses: Vec<IpAddr>,
    /// Its name without domain; derived from the address when not said.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The instance behind the port, for the metadata proxy.
    #[serde(default)]
    pub device_id: String,
    #[serde(default)]
    pub project_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: IpNet,
    pub nexthop: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub network_id: String,
    pub mac: Mac,
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub allowed_address_pairs: Vec<AddressPair>,
    #[serde(default)]
    pub security_groups: BTreeSet<String>,
    /// Without it the port may send what it likes and its groups do not count.
    pub port_security: bool,
    #[serde(default)]
    pub qos: Qos,
    /// Its groups know no connections: each packet is judged for itself.
    #[serde(default)]
    pub stateless: bool,
    pub admin_state_up: bool,
    /// Its guest has it as a VLAN of another port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subport: Option<Subport>,
}

/// A port without an interface of its own: its frames are those of a VLAN on another port of the same host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subport {
    /// The id of the other port.
    pub parent: String,
    pub vlan: u16,
}

/// How much a port may send and get, and how what it sends is marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Qos {
    /// In kilobits a second.
    pub bandwidth: Directions,
    /// In thousands of packets a second.
    pub packets: Directions,
    pub dscp: Option<u8>,
}

/// As the guest sees it: egress is what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Directions {
    pub egress: Option<Limit>,
    pub ingress: Option<Limit>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub rate: u64,
    /// 0: what is usual.
    pub burst: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// The port's own when not said.
    pub mac: Option<Mac>,
    pub address: IpNet,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroup {
    pub rules: Vec<Rule>,
    /// Addresses of the ports in the group, wherever they are.
    pub members: Members,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub direction: Direction,
    pub ethertype: Ethertype,
    /// The IP protocol number; none: any.
    #[serde(default)]
    pub protocol: Option<u8>,
    /// First port, or ICMP type.
    #[serde(default)]
    pub port_min: Option<u16>,
    /// Last port, or ICMP code.
    #[serde(default)]
    pub port_max: Option<u16>,
    pub remote: Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ethertype {
    IPv4,
    IPv6,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Remote {
    Any,
    Cidr(IpNet),
    /// The members of a group.
    Group(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Router {
    pub interfaces: Vec<Interface>,
    pub gateway: Option<Gateway>,
    pub floating_ips: Vec<FloatingIp>,
    pub port_forwardings: Vec<PortForwarding>,
    pub routes: Vec<Route>,
    /// Administratively down: its interfaces are there, without addresses and routes.
    pub down: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub port_id: String,
    pub network_id: String,
    pub mac: Mac,
    /// Addresses with the prefix of their subnet.
    pub addresses: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    pub interface: Interface,
    pub next_hops: Vec<IpAddr>,
    pub enable_snat: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    pub floating: IpAddr,
    pub fixed: IpAddr,
}

/// Ports of a floating address that are forwarded, each to the one beside it in the other range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwarding {
    pub floating: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    pub external_ports: (u16, u16),
    pub fixed: IpAddr,
    /// As many as outside, or one for all.
    pub internal_ports: (u16, u16),
}

impl Router {
    /// Addresses that the gateway has besides its own.
    pub fn floating_addresses(&self) -> BTreeSet<IpAddr> {
        let forwarded = self.port_forwardings.iter().map(|forwarding| forwarding.floating);
        self.floating_ips.iter().map(|fip| fip.floating).chain(forwarded).collect()
    }
}

/// A MAC address; `fa:16:3e:00:00:01` in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address an interface with this MAC gives itself on its link.
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::bad_request(format!("'{text}' is not a MAC address"));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or_else(wrong)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|e: Error| serde::de::Error::custom(e.message))
    }
}

impl Desired {
    /// Ids become names of interfaces, files and chains: only what neutron makes is taken.
    pub fn check(&self) -> Result<()> {
        let router_ports = self.routers.values().flat_map(|router| {
            router.interfaces.iter().chain(router.gateway.iter().map(|gateway| &gateway.interface))
        });
        let networks = self.networks.values();
        let ids = (self.networks.keys())
            .chain(self.ports.keys())
            .chain(self.routers.keys())
            .chain(self.security_groups.keys())
            .chain(self.ports.values().flat_map(|port| &port.security_groups))
            .chain(self.ports.values().map(|port| &port.network_id))
            .chain(self.ports.values().filter_map(|port| Some(&port.subport.as_ref()?.parent)))
            .chain(router_ports.flat_map(|interface| [&interface.port_id, &interface.network_id]))
            .chain(networks.clone().filter_map(|network| network.dhcp.as_ref()).map(|dhcp| &dhcp.port_id))
            .chain(networks.filter_map(|n| n.dhcp.as_ref()).flat_map(|d| d.subnets.iter().map(|s| &s.id)))
            .chain(self.security_groups.values().flat_map(|group| &group.rules).filter_map(Rule::group));
        match ids.into_iter().find(|id| !base::id::is_uuid(id) || id.len() != 36) {
            None => Ok(()),
            Some(id) => Err(Error::bad_request(format!("'{id}' is not an id of a network resource"))),
        }
    }
}

impl Rule {
    fn group(&self) -> Option<&String> {
        match &self.remote {
            Remote::Group(id) => Some(id),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs() {
        let mac: Mac = "fa:16:3e:0a:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "fa:16:3e:0a:00:01");
        assert_eq!(mac.link_local().to_string(), "fe80::f816:3eff:fe0a:1");
        for wrong in ["", "fa:16:3e:0a:00", "fa:16:3e:0a:00:01:02", "fa:16:3e:0a:00:0g", "fa163e0a0001"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_that_are_no_ids_are_refused() {
        let mut desired = Desired::default();
        desired.security_groups.insert("x; flush ruleset".into(), SecurityGroup::default());
        assert!(desired.check().is_err());
        desired.security_groups.clear();
        desired.routers.insert("../../etc".into(), Router::default());
        assert!(desired.check().is_err());
        desired.routers.clear();
        desired.routers.insert(base::id::uuid(), Router::default());
        desired.check().unwrap();
    }

    #[test]
    fn crosses_the_bus() {
        let text = serde_json::json!({"ports": {"p": {"network_id": "n", "mac": "fa:16:3e:00:00:01",
            "addresses": ["10.0.0.1"], "port_security": true, "admin_state_up": true}}});
        let desired: Desired = serde_json::from_value(text).unwrap();
        let again: Desired = serde_json::from_str(&serde_json::to_string(&desired).unwrap()).unwrap();
        assert_eq!(again, desired);
    }
}
