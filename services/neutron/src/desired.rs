//! What a host's networks shall be, made of the rows: all of it, or what was touched.

use crate::{
    Options,
    agents::Touched,
    forwardings, ipam,
    model::*,
    ports, qos_ports,
    schedule::{self, Layout},
    store::{self, Neighbour, WholePort},
    trunks,
};
use base::Result;
use contracts::agents::network::{self as contract, Members};
use db::Tx;
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

/// Everything of a host.
pub fn state(tx: &mut Tx, options: &Options, layout: &Layout, host: &str) -> Result<contract::Desired> {
    let routers = schedule::routers_on(tx, layout, host)?;
    let mut all = Touched {
        ports: store::ports_on(tx, host)?,
        routers: routers.into_iter().map(|router| router.id).collect(),
        security_groups: store::groups_on(tx, host)?,
        ..Touched::default()
    };
    let here = store::any_of::<Port>(tx, "id", &all.ports)?;
    let of_routers = store::any_of::<Port>(tx, "device_id", &all.routers)?;
    all.networks.extend(here.into_iter().chain(of_routers).map(|port| port.network_id));
    all.networks.extend(schedule::networks_on(tx, layout, host)?.into_iter().map(|network| network.id));
    let change = change(tx, options, layout, host, &all, &mut Read::default())?;
    fn there<T>(map: BTreeMap<String, Option<T>>) -> BTreeMap<String, T> {
        map.into_iter().filter_map(|(id, value)| Some((id, value?))).collect()
    }
    Ok(contract::Desired {
        networks: there(change.networks),
        ports: there(change.ports),
        security_groups: there(change.security_groups),
        routers: there(change.routers),
    })
}

/// What is the same for every host: read once, however many are told.
#[derive(Default)]
pub struct Read {
    /// The ports that were touched, and the hosts where each is or goes.
    ports: Option<Vec<(WholePort, BTreeSet<String>)>>,
    networks: HashMap<String, Option<NetworkRows>>,
    /// Addresses of security groups' ports.
    members: HashMap<String, Members>,
}

/// A network with its ports.
struct NetworkRows {
    network: Network,
    ports: Vec<Neighbour>,
    ends: Vec<End>,
    /// Those where its ports are, and those where a router of the network is.
    hosts: BTreeSet<String>,
    router_hosts: BTreeSet<String>,
    dhcp_port: Option<WholePort>,
    dhcp_host: Option<String>,
    subnets: Vec<Subnet>,
}

/// Where tunnels to a port end.
struct End {
    /// None while it moves, and where it is in several places.
    mac: Option<contract::Mac>,
    places: Vec<(String, IpAddr)>,
}

/// What was touched, as it is now for a host; its number is the caller's. All that is read with the same `read` is of
/// the same touch.
pub fn change(
    tx: &mut Tx,
    options: &Options,
    layout: &Layout,
    host: &str,
    touched: &Touched,
    read: &mut Read,
) -> Result<contract::Change> {
    let mut change = contract::Change::default();
    let mut groups = touched.security_groups.clone();
    let ports = match &mut read.ports {
        Some(ports) => ports,
        unread => unread.insert(guests(tx, &touched.ports)?),
    };
    for (whole, _) in ports.iter().filter(|(_, hosts)| hosts.contains(host)) {
        groups.extend(whole.groups.iter().cloned());
        change.ports.insert(whole.port.id.clone(), Some(guest(tx, whole)?));
    }
    for id in &touched.ports {
        change.ports.entry(id.clone()).or_insert(None);
    }
    for id in &touched.routers {
        let found = match tx.find::<Router>(id)?.filter(|router| layout.router_host(router) == Some(host)) {
            Some(router) => Some(router_of(tx, &router)?),
            None => None,
        };
        change.routers.insert(id.clone(), found);
    }
    for id in &touched.networks {
        if !read.networks.contains_key(id) {
            let rows =
                tx.find::<Network>(id)?.map(|network| network_rows(tx, layout, network)).transpose()?;
            read.networks.insert(id.clone(), rows);
        }
        let found = match &read.networks[id] {
            Some(rows) => network_of(options, host, rows)?,
            None => None,
        };
        change.networks.insert(id.clone(), found);
    }
    add_groups(tx, host, groups, &mut change, read)?;
    Ok(change)
}

/// Those of these ports that are guests', with the hosts where each is or goes.
fn guests(tx: &mut Tx, ids: &BTreeSet<String>) -> Result<Vec<(WholePort, BTreeSet<String>)>> {
    let moving = store::inactive_bindings(tx, ids)?;
    let mut ports = store::any_of::<Port>(tx, "id", ids)?;
    ports.retain(|port| !port.device_owner.starts_with("network:") && !port.host_id.is_empty());
    let with_hosts = |whole: WholePort| {
        let hosts = hosts_of(&whole.port.id, &whole.port.host_id, &moving);
        (whole, hosts)
    };
    Ok(store::whole(tx, ports)?.into_iter().map(with_hosts).collect())
}

/// Where these ports are and where they go.
pub fn hosts_of_ports(tx: &mut Tx, ids: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let moving = store::inactive_bindings(tx, ids)?;
    let ports = store::any_of::<Port>(tx, "id", ids)?;
    Ok(ports.iter().flat_map(|port| hosts_of(&port.id, &port.host_id, &moving)).collect())
}

/// Where a guest's port is and where it goes.
fn hosts_of(port_id: &str, host_id: &str, moving: &HashMap<String, Vec<PortBinding>>) -> BTreeSet<String> {
    let others = moving.get(port_id).into_iter().flatten().map(|binding| binding.host.clone());
    others.chain([host_id.to_string()]).filter(|host| !host.is_empty()).collect()
}

fn addresses(whole: &WholePort) -> Vec<IpAddr> {
    whole.addresses.iter().filter_map(|row| row.ip_address.parse().ok()).collect()
}

fn guest(tx: &mut Tx, whole: &WholePort) -> Result<contract::Port> {
    let groups = store::any_of::<SecurityGroup>(tx, "id", &whole.groups.iter().cloned().collect())?;
    let port = &whole.port;
    let pairs = port.allowed_address_pairs.as_array().into_iter().flatten();
    let pair = |pair: &base::Json| {
        let text = pair["ip_address"].as_str()?;
        let address = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
        Some(contract::AddressPair {
            mac: pair["mac_address"].as_str().and_then(|mac| mac.parse().ok()),
            address,
        })
    };
    Ok(contract::Port {
        network_id: port.network_id.clone(),
        mac: port.mac_address.parse()?,
        addresses: addresses(whole),
        allowed_address_pairs: pairs.filter_map(pair).collect(),
        security_groups: whole.groups.iter().cloned().collect(),
        port_security: port.port_security_enabled,
        qos: qos(tx, whole.policy())?,
        stateless: !groups.is_empty() && groups.iter().all(|group| !group.stateful),
        admin_state_up: port.admin_state_up,
        subport: subport(tx, port)?,
    })
}

/// The VLAN of another port that it is.
fn subport(tx: &mut Tx, port: &Port) -> Result<Option<contract::Subport>> {
    let found = match port.device_owner.as_str() {
        trunks::OWNER_SUBPORT => trunks::place_of(tx, &port.id)?,
        _ => None,
    };
    Ok(found.map(|(parent, vlan)| contract::Subport { parent, vlan }))
}

fn qos(tx: &mut Tx, policy_id: Option<&String>) -> Result<contract::Qos> {
    let mut made = contract::Qos::default();
    let Some(id) = policy_id else { return Ok(made) };
    for rule in store::all_of::<QosRule>(tx, "qos_policy_id", id)? {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        let limit = contract::Limit { rate: number(rule.rate), burst: number(rule.burst) };
        let place = match rule.kind.as_str() {
            "bandwidth_limit" => &mut made.bandwidth,
            "packet_rate_limit" => &mut made.packets,
            kind if qos_ports::promises(kind) => continue,
            _ => {
                made.dscp = rule.dscp_mark.and_then(|mark| u8::try_from(mark).ok());
                continue;
            }
        };
        // A limit of nothing limits nothing.
        let limit = (limit.rate > 0).then_some(limit);
        match rule.direction.as_deref() {
            Some("ingress") => place.ingress = limit,
            _ => place.egress = limit,
        }
    }
    Ok(made)
}

fn network_rows(tx: &mut Tx, layout: &Layout, network: Network) -> Result<NetworkRows> {
    let all = store::neighbours(tx, &network.id)?;
    let dhcp_port = ports::dhcp_port(tx, &network.id)?;
    let dhcp_host = layout.dhcp_host(&network).map(str::to_string);
    let moving = store::moving_on(tx, &network.id)?;
    let of_routers =
        all.iter().filter(|port| matches!(port.device_owner.as_str(), OWNER_ROUTER | OWNER_GATEWAY));
    let routers = of_routers.map(|port| port.device_id.clone()).collect();
    let routers = store::any_of::<Router>(tx, "id", &routers)?;
    let places = |port: &Neighbour| -> BTreeSet<String> {
        match port.device_owner.as_str() {
            OWNER_DHCP => dhcp_host.clone().into_iter().collect(),
            OWNER_ROUTER | OWNER_GATEWAY => {
                let router = routers.iter().find(|router| router.id == port.device_id);
                router.and_then(|router| layout.router_host(router)).map(str::to_string).into_iter().collect()
            }
            OWNER_FLOATING => BTreeSet::new(),
            _ => hosts_of(&port.id, &port.host_id, &moving),
        }
    };
    let (mut ends, mut hosts, mut router_hosts) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for port in &all {
        let places = places(port);
        let with_tunnels = places.iter().filter_map(|host| Some((host.clone(), layout.tunnel_ip(host)?)));
        let with_tunnels: Vec<(String, IpAddr)> = with_tunnels.collect();
        if !with_tunnels.is_empty() {
            let mac = if places.len() == 1 { port.mac_address.parse().ok() } else { None };
            ends.push(End { mac, places: with_tunnels });
        }
        if port.device_owner == OWNER_ROUTER {
            router_hosts.extend(places.iter().cloned());
        }
        hosts.extend(places);
    }
    let subnets = store::all_of::<Subnet>(tx, "network_id", &network.id)?;
    Ok(NetworkRows { network, ports: all, ends, hosts, router_hosts, dhcp_port, dhcp_host, subnets })
}

fn network_of(options: &Options, host: &str, rows: &NetworkRows) -> Result<Option<contract::Network>> {
    let NetworkRows { network, ports: all, ends, hosts, router_hosts, dhcp_port, dhcp_host, subnets } = rows;
    if !hosts.contains(host) {
        return Ok(None);
    }
    let serves = dhcp_port.is_some() && dhcp_host.as_deref() == Some(host);
    let kind = match network.network_type.as_str() {
        "vxlan" => contract::NetworkKind::Vxlan(segment(host, network, ends)),
        "flat" => {
            let physical_network = network.physical_network.clone().unwrap_or_default();
            contract::NetworkKind::Flat { physical_network }
        }
        "vlan" => contract::NetworkKind::Vlan {
            physical_network: network.physical_network.clone().unwrap_or_default(),
            vlan: network.segmentation_id.and_then(|id| u16::try_from(id).ok()).unwrap_or(0),
        },
        _ => contract::NetworkKind::Local,
    };
    let mut host_addresses = Vec::new();
    if network.external {
        for subnet in subnets {
            if let Some(gateway) = subnet.gateway_ip.as_deref().and_then(|text| text.parse::<IpAddr>().ok())
                && let Ok(address) = IpNet::new(gateway, ipam::cidr(subnet)?.prefix_len())
            {
                host_addresses.push(address);
            }
        }
    }
    let dhcp = match dhcp_port.as_ref().filter(|_| serves) {
        Some(port) => Some(dhcp_of(options, port, subnets)?),
        None => None,
    };
    // Who is who, DHCP servers ask and metadata proxies, which are with them and with routers.
    let is_asked = serves || router_hosts.contains(host);
    let hosts = all
        .iter()
        .filter(|_| is_asked)
        .filter(|port| !matches!(port.device_owner.as_str(), OWNER_DHCP | OWNER_FLOATING))
        .filter_map(|port| {
            Some(contract::DhcpHost {
                port_id: port.id.clone(),
                mac: port.mac_address.parse().ok()?,
                addresses: port.addresses.clone(),
                hostname: (!port.dns_name.is_empty()).then(|| port.dns_name.clone()),
                device_id: port.device_id.clone(),
                project_id: port.project_id.clone(),
            })
        })
        .collect();
    let mtu = u16::try_from(network.mtu).unwrap_or(1450);
    Ok(Some(contract::Network { mtu, kind, host_addresses, masquerade: false, dhcp, hosts }))
}

/// Frames for a port go to its host alone; those for nobody known go to all hosts of the network. While a port moves
/// it is nobody known, so that what is for it arrives wherever it is at the moment.
fn segment(host: &str, network: &Network, ends: &[End]) -> contract::Segment {
    let mut remotes = BTreeSet::new();
    let mut ports = Vec::new();
    for End { mac, places } in ends {
        for (_, address) in places.iter().filter(|(place, _)| place != host) {
            remotes.insert(*address);
            ports.extend(mac.map(|mac| contract::RemotePort { mac, host: *address }));
        }
    }
    let vni = network.segmentation_id.and_then(|vni| u32::try_from(vni).ok()).unwrap_or(0);
    contract::Segment { vni, local: None, remotes, ports }
}

fn dhcp_of(options: &Options, port: &WholePort, subnets: &[Subnet]) -> Result<contract::Dhcp> {
    let mut served = Vec::new();
    for row in &port.addresses {
        let Some(subnet) = subnets.iter().find(|subnet| subnet.id == row.subnet_id) else { continue };
        let Ok(address) = row.ip_address.parse() else { continue };
        let route = |route: &HostRoute| {
            let destination = route.destination.parse().ok()?;
            Some(contract::Route { destination, nexthop: route.nexthop.parse().ok()? })
        };
        served.push(contract::DhcpSubnet {
            id: subnet.id.clone(),
            cidr: ipam::cidr(subnet)?,
            address,
            gateway: subnet.gateway_ip.as_deref().and_then(|text| text.parse().ok()),
            dns_servers: subnet.dns_nameservers.iter().filter_map(|text| text.parse().ok()).collect(),
            host_routes: subnet.host_routes.0.iter().filter_map(route).collect(),
            enable_dhcp: subnet.enable_dhcp,
        });
    }
    Ok(contract::Dhcp {
        port_id: port.port.id.clone(),
        mac: port.port.mac_address.parse()?,
        subnets: served,
        domain: options.dns_domain.clone(),
    })
}

fn interface(tx: &mut Tx, whole: &WholePort) -> Result<contract::Interface> {
    let mut found = Vec::new();
    for row in &whole.addresses {
        if let (Some(subnet), Ok(address)) =
            (tx.find::<Subnet>(&row.subnet_id)?, row.ip_address.parse::<IpAddr>())
            && let Ok(address) = IpNet::new(address, ipam::cidr(&subnet)?.prefix_len())
        {
            found.push(address);
        }
    }
    Ok(contract::Interface {
        port_id: whole.port.id.clone(),
        network_id: whole.port.network_id.clone(),
        mac: whole.port.mac_address.parse()?,
        addresses: found,
    })
}

fn router_of(tx: &mut Tx, router: &Router) -> Result<contract::Router> {
    let mut made = contract::Router { down: !router.admin_state_up, ..contract::Router::default() };
    for whole in store::interfaces(tx, &router.id)? {
        made.interfaces.push(interface(tx, &whole)?);
    }
    if let Some(port_id) = &router.gw_port_id
        && let Some(port) = tx.find::<Port>(port_id)?
    {
        let whole = store::whole(tx, vec![port])?.remove(0);
        let mut next_hops = Vec::new();
        for row in &whole.addresses {
            let subnet = tx.find::<Subnet>(&row.subnet_id)?;
            next_hops.extend(
                subnet.and_then(|subnet| subnet.gateway_ip).and_then(|text| text.parse::<IpAddr>().ok()),
            );
        }
        made.gateway = Some(contract::Gateway {
            interface: interface(tx, &whole)?,
            next_hops,
            enable_snat: router.enable_snat,
        });
    }
    for floating in store::all_of::<FloatingIp>(tx, "router_id", &router.id)? {
        let fixed = floating.fixed_ip_address.as_deref().and_then(|text| text.parse().ok());
        if let (Ok(floating), Some(fixed)) = (floating.floating_ip_address.parse(), fixed) {
            made.floating_ips.push(contract::FloatingIp { floating, fixed });
        }
    }
    for (floating, forwarding) in forwardings::of_router(tx, &router.id)? {
        let range = |(first, last): (i64, i64)| Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?));
        if let (Ok(floating), Ok(fixed), Some(protocol), Some(external_ports), Some(internal_ports)) = (
            floating.parse(),
            forwarding.internal_ip_address.parse(),
            protocol_number(&forwarding.protocol, false),
            range(forwarding.external()),
            range(forwarding.internal()),
        ) {
            made.port_forwardings.push(contract::PortForwarding {
                floating,
                protocol,
                external_ports,
                fixed,
                internal_ports,
            });
        }
    }
    for route in &router.routes.0 {
        if let (Ok(destination), Ok(nexthop)) = (route.destination.parse(), route.nexthop.parse()) {
            made.routes.push(contract::Route { destination, nexthop });
        }
    }
    Ok(made)
}

/// The groups of the host's ports and those that their rules name, with members; none for groups nobody needs here.
fn add_groups(
    tx: &mut Tx,
    host: &str,
    touched: BTreeSet<String>,
    change: &mut contract::Change,
    read: &mut Read,
) -> Result<()> {
    if touched.is_empty() {
        return Ok(());
    }
    let used = store::groups_on(tx, host)?;
    let used_rules = store::any_of::<SecurityGroupRule>(tx, "security_group_id", &used)?;
    let named: BTreeSet<String> = used_rules.iter().filter_map(|rule| rule.remote_group_id.clone()).collect();
    let mut wanted = touched;
    for rule in &used_rules {
        if wanted.contains(&rule.security_group_id) {
            wanted.extend(rule.remote_group_id.clone());
        }
    }
    let needed: BTreeSet<String> =
        wanted.iter().filter(|id| used.contains(*id) || named.contains(*id)).cloned().collect();
    let mut rules: HashMap<String, Vec<contract::Rule>> = HashMap::new();
    let of_needed = store::any_of::<SecurityGroupRule>(tx, "security_group_id", &needed)?;
    let addresses = address_groups(tx, &of_needed)?;
    for rule in of_needed {
        let made = rules_of(&rule, &addresses);
        rules.entry(rule.security_group_id).or_default().extend(made);
    }
    for id in &needed {
        if !read.members.contains_key(id) {
            read.members.insert(id.clone(), store::members(tx, id)?.into());
        }
    }
    for id in wanted {
        let group = needed.contains(&id).then(|| contract::SecurityGroup {
            rules: rules.remove(&id).unwrap_or_default(),
            members: read.members.get(&id).cloned().unwrap_or_default(),
        });
        change.security_groups.insert(id, group);
    }
    Ok(())
}

/// The addresses of the address groups that rules name.
fn address_groups(tx: &mut Tx, rules: &[SecurityGroupRule]) -> Result<HashMap<String, Vec<IpNet>>> {
    let named: BTreeSet<String> =
        rules.iter().filter_map(|rule| rule.remote_address_group_id.clone()).collect();
    let groups = store::any_of::<AddressGroup>(tx, "id", &named)?;
    let nets = |group: &AddressGroup| group.addresses.iter().filter_map(|text| text.parse().ok()).collect();
    Ok(groups.into_iter().map(|group| (group.id.clone(), nets(&group))).collect())
}

/// What a rule is on a host: one of each address of its version where it names an address group.
fn rules_of(rule: &SecurityGroupRule, addresses: &HashMap<String, Vec<IpNet>>) -> Vec<contract::Rule> {
    let Some(group) = &rule.remote_address_group_id else { return rule_of(rule).into_iter().collect() };
    let of_version = |net: &&IpNet| net.network().is_ipv4() == (rule.ethertype == "IPv4");
    let nets = addresses.get(group).into_iter().flatten().filter(of_version);
    let made = nets
        .filter_map(|net| Some(contract::Rule { remote: contract::Remote::Cidr(*net), ..rule_of(rule)? }));
    made.collect()
}

fn rule_of(rule: &SecurityGroupRule) -> Option<contract::Rule> {
    let six = rule.ethertype == "IPv6";
    let small = |number: Option<i64>| number.and_then(|number| u16::try_from(number).ok());
    Some(contract::Rule {
        direction: match rule.direction.as_str() {
            "ingress" => contract::Direction::Ingress,
            _ => contract::Direction::Egress,
        },
        ethertype: if six { contract::Ethertype::IPv6 } else { contract::Ethertype::IPv4 },
        protocol: match rule.protocol.as_deref() {
            None | Some("any" | "0") => None,
            Some(name) => Some(protocol_number(name, six)?),
        },
        port_min: small(rule.port_range_min),
        port_max: small(rule.port_range_max),
        remote: match (&rule.remote_group_id, &rule.remote_ip_prefix) {
            (Some(group), _) => contract::Remote::Group(group.clone()),
            (None, Some(prefix)) => contract::Remote::Cidr(prefix.parse().ok()?),
            (None, None) => contract::Remote::Any,
        },
    })
}

/// IANA's numbers of the names that upstream takes.
pub const PROTOCOLS: [(&str, u8); 24] = [
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ip", 4),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
];

pub fn protocol_number(name: &str, six: bool) -> Option<u8> {
    if name == "vrrp" {
        return Some(112);
    }
    if name == "icmp" && six {
        return Some(58);
    }
    let known = PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    known.or_else(|| name.parse().ok())
}
