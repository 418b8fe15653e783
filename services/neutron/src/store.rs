//! What neutron asks its database, one function per question.

use crate::{errors::missing, model::*, qos_ports, trunks};
use base::{Result, Timestamp, id};
use contracts::networks::RequestGroup;
use db::{Filter, List, Resource, Tx, params, sql};
use ipnet::IpNet;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

/// Counts every change that agents are told of.
pub const REVISION: &str = "revision";

pub type Noun = (&'static str, &'static str);

pub const NETWORK: Noun = ("NetworkNotFound", "Network {} could not be found.");
pub const SUBNET: Noun = ("SubnetNotFound", "Subnet {} could not be found.");
pub const PORT: Noun = ("PortNotFound", "Port {} could not be found.");
pub const ROUTER: Noun = ("RouterNotFound", "Router {} could not be found");
pub const FLOATING_IP: Noun = ("FloatingIPNotFound", "Floating IP {} could not be found");
pub const PORT_FORWARDING: Noun = ("PortForwardingNotFound", "Port Forwarding {} could not be found.");
pub const QOS_POLICY: Noun = ("QosPolicyNotFound", "QoS policy {} could not be found.");
pub const SECURITY_GROUP: Noun = ("SecurityGroupNotFound", "Security group {} does not exist");
pub const RULE: Noun = ("SecurityGroupRuleNotFound", "Security group rule {} does not exist");
pub const ADDRESS_GROUP: Noun = ("AddressGroupNotFound", "Address group {} could not be found.");
pub const ADDRESS_SCOPE: Noun = ("AddressScopeNotFound", "Address scope {} could not be found.");
pub const AGENT: Noun = ("AgentNotFound", "Agent {} could not be found.");
pub const DEFAULT_RULE: Noun =
    ("DefaultSecurityGroupRuleNotFound", "Default Security Group rule {} does not exist");
pub const TRUNK: Noun = ("TrunkNotFound", "Trunk {} could not be found.");
pub const SUBNET_POOL: Noun = ("SubnetPoolNotFound", "Subnet pool {} could not be found.");

pub fn get<T: Resource>(tx: &mut Tx, noun: Noun, id: &str) -> Result<T> {
    tx.find::<T>(id)?.ok_or_else(|| missing(noun.0, noun.1.replace("{}", id)))
}

pub fn count_up(tx: &mut Tx, name: &str) -> Result<()> {
    tx.execute(
        sql!(
            "INSERT INTO counters (name, value) VALUES ($1, 1)
             ON CONFLICT (name) DO UPDATE SET value = counters.value + 1"
        ),
        params![name],
    )
    .map(drop)
}

pub fn counter(tx: &mut Tx, name: &str) -> Result<u64> {
    Ok(tx.find::<Counter>(name)?.map_or(0, |counter| counter.value as u64))
}

pub fn all_of<T: Resource>(tx: &mut Tx, column: &'static str, value: &str) -> Result<Vec<T>> {
    tx.list::<T>(&List::all().eq(column, value))
}

pub fn any_of<T: Resource>(tx: &mut Tx, column: &'static str, values: &BTreeSet<String>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    let all: Vec<&String> = values.iter().collect();
    for some in all.chunks(500) {
        found
            .extend(tx.list::<T>(&List::all().filter(Filter::any(column, some.iter().map(|v| v.as_str()))))?);
    }
    Ok(found)
}

/// What a network's view says of its subnets.
#[derive(Clone, Debug, Default)]
pub struct OnNetwork {
    /// In the order they were made.
    pub subnets: Vec<String>,
    pub ipv4_address_scope: Option<String>,
    pub ipv6_address_scope: Option<String>,
    /// Where its DHCP is.
    pub availability_zones: Vec<String>,
}

pub fn on_networks(tx: &mut Tx, networks: &BTreeSet<String>) -> Result<HashMap<String, OnNetwork>> {
    let mut subnets = any_of::<Subnet>(tx, "network_id", networks)?;
    subnets.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    let pools: BTreeSet<String> = subnets.iter().filter_map(|subnet| subnet.subnetpool_id.clone()).collect();
    let scopes: HashMap<String, Option<String>> = any_of::<SubnetPool>(tx, "id", &pools)?
        .into_iter()
        .map(|pool| (pool.id, pool.address_scope_id))
        .collect();
    let mut found: HashMap<String, OnNetwork> = HashMap::new();
    for subnet in subnets {
        let on = found.entry(subnet.network_id).or_default();
        on.subnets.push(subnet.id);
        if let Some(Some(scope)) = subnet.subnetpool_id.as_ref().and_then(|pool| scopes.get(pool)) {
            let place =
                if subnet.ip_version == 4 { &mut on.ipv4_address_scope } else { &mut on.ipv6_address_scope };
            *place = Some(scope.clone());
        }
    }
    Ok(found)
}

/// Of these networks, those with a port for a DHCP server.
pub fn with_dhcp(tx: &mut Tx, networks: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let ids = networks.iter().map(|id| id::derived(&["dhcp", id])).collect();
    Ok(any_of::<Port>(tx, "id", &ids)?.into_iter().map(|port| port.network_id).collect())
}

/// A port with its addresses and groups.
#[derive(Clone, Debug)]
pub struct WholePort {
    pub port: Port,
    pub addresses: Vec<IpAllocation>,
    pub groups: Vec<String>,
    /// The policy of its network.
    pub network_qos: Option<String>,
    /// What it asks of placement.
    pub resource_request: Vec<RequestGroup>,
    /// The trunk whose parent it is.
    pub trunk: Option<trunks::Details>,
}

impl WholePort {
    /// The QoS policy that holds for it.
    pub fn policy(&self) -> Option<&String> {
        self.port.qos_policy_id.as_ref().or(self.network_qos.as_ref())
    }
}

pub fn whole(tx: &mut Tx, ports: Vec<Port>) -> Result<Vec<WholePort>> {
    let ids: BTreeSet<String> = ports.iter().map(|port| port.id.clone()).collect();
    let mut addresses: HashMap<String, Vec<IpAllocation>> = HashMap::new();
    for row in any_of::<IpAllocation>(tx, "port_id", &ids)? {
        addresses.entry(row.port_id.clone()).or_default().push(row);
    }
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    for row in any_of::<PortGroup>(tx, "port_id", &ids)? {
        groups.entry(row.port_id).or_default().push(row.security_group_id);
    }
    let mut details = trunks::details(tx, &ids)?;
    let networks: BTreeSet<String> = ports.iter().map(|port| port.network_id.clone()).collect();
    let networks: HashMap<String, Network> = any_of::<Network>(tx, "id", &networks)?
        .into_iter()
        .map(|network| (network.id.clone(), network))
        .collect();
    let of_ports = ports.iter().filter_map(|port| port.qos_policy_id.clone());
    let of_networks = networks.values().filter_map(|network| network.qos_policy_id.clone());
    let promised = qos_ports::promised(tx, &of_ports.chain(of_networks).collect())?;
    Ok(ports
        .into_iter()
        .map(|port| {
            let network = networks.get(&port.network_id);
            let network_qos = network.and_then(|network| network.qos_policy_id.clone());
            let rules = port.qos_policy_id.as_ref().or(network_qos.as_ref()).and_then(|id| promised.get(id));
            let physical = network.and_then(|network| network.physical_network.as_deref());
            let asks = |rules: &Vec<QosRule>| qos_ports::request(&port, physical, rules);
            let resource_request = rules.map(asks).unwrap_or_default();
            let mut own = addresses.remove(&port.id).unwrap_or_default();
            own.sort_by_key(|row| row.position);
            WholePort {
                addresses: own,
                groups: groups.remove(&port.id).unwrap_or_default(),
                network_qos,
                resource_request,
                trunk: details.remove(&port.id),
                port,
            }
        })
        .collect())
}

pub fn whole_port(tx: &mut Tx, id: &str) -> Result<WholePort> {
    let port = get::<Port>(tx, PORT, id)?;
    Ok(whole(tx, vec![port])?.remove(0))
}

/// The router's ports towards networks inside.
pub fn interfaces(tx: &mut Tx, router_id: &str) -> Result<Vec<WholePort>> {
    let ports = tx.list::<Port>(&List::all().eq("device_id", router_id).eq("device_owner", OWNER_ROUTER))?;
    whole(tx, ports)
}

/// A project's default group; made when it is first asked for, with the rules that upstream gives it.
pub fn default_group(tx: &mut Tx, project_id: &str, now: Timestamp) -> Result<SecurityGroup> {
    let wanted = List::all().eq("project_id", project_id).eq("name", DEFAULT);
    if let Some(group) = tx.list::<SecurityGroup>(&wanted)?.into_iter().next() {
        return Ok(group);
    }
    let group = SecurityGroup {
        id: id::uuid(),
        project_id: project_id.into(),
        name: DEFAULT.into(),
        description: "Default security group".into(),
        stateful: true,
        shared: false,
        tags: Vec::new(),
        revision_number: 1,
        created_at: now,
        updated_at: now,
    };
    tx.insert(&group)?;
    first_rules(tx, &group, now)?;
    Ok(group)
}

pub const DEFAULT: &str = "default";
/// In a default rule: the group that has the rule.
pub const PARENT: &str = "PARENT";
/// Counts how often the default rules were written: once.
const DEFAULT_RULES: &str = "default rules";

/// What new groups begin with; at first as upstream's: everything may go out, and the default group's members may talk.
pub fn default_rules(tx: &mut Tx) -> Result<Vec<DefaultRule>> {
    if counter(tx, DEFAULT_RULES)? == 0 {
        count_up(tx, DEFAULT_RULES)?;
        for (direction, remote_group_id) in [("egress", None), ("ingress", Some(PARENT))] {
            for ethertype in ["IPv4", "IPv6"] {
                tx.insert(&DefaultRule {
                    id: id::uuid(),
                    direction: direction.into(),
                    ethertype: ethertype.into(),
                    protocol: None,
                    port_range_min: None,
                    port_range_max: None,
                    remote_ip_prefix: None,
                    remote_group_id: remote_group_id.map(str::to_string),
                    description: Some(format!("Legacy default SG rule for {direction} traffic")),
                    used_in_default_sg: true,
                    used_in_non_default_sg: direction == "egress",
                })?;
            }
        }
    }
    tx.list::<DefaultRule>(&List::all())
}

/// Gives a new group the rules that such groups begin with.
pub fn first_rules(tx: &mut Tx, group: &SecurityGroup, now: Timestamp) -> Result<()> {
    let is_default = group.name == DEFAULT;
    let of_group = |rule: &DefaultRule| match is_default {
        true => rule.used_in_default_sg,
        false => rule.used_in_non_default_sg,
    };
    let mut rules = default_rules(tx)?;
    rules.retain(of_group);
    for rule in rules {
        let own = |remote: String| if remote == PARENT { group.id.clone() } else { remote };
        tx.insert(&SecurityGroupRule {
            id: id::uuid(),
            project_id: group.project_id.clone(),
            security_group_id: group.id.clone(),
            direction: rule.direction,
            ethertype: rule.ethertype,
            protocol: rule.protocol,
            port_range_min: rule.port_range_min,
            port_range_max: rule.port_range_max,
            remote_ip_prefix: rule.remote_ip_prefix,
            remote_group_id: rule.remote_group_id.map(own),
            remote_address_group_id: None,
            description: None,
            revision_number: 0,
            created_at: now,
            updated_at: now,
        })?;
    }
    Ok(())
}

/// Bindings of ports that are not their active ones.
pub fn inactive_bindings(tx: &mut Tx, ports: &BTreeSet<String>) -> Result<HashMap<String, Vec<PortBinding>>> {
    let mut found: HashMap<String, Vec<PortBinding>> = HashMap::new();
    for row in any_of::<PortBinding>(tx, "port_id", ports)? {
        found.entry(row.port_id.clone()).or_default().push(row);
    }
    Ok(found)
}

/// A port as others on its network know it.
#[derive(Clone, Debug)]
pub struct Neighbour {
    pub id: String,
    pub mac_address: String,
    pub device_owner: String,
    pub device_id: String,
    pub project_id: String,
    pub dns_name: String,
    pub host_id: String,
    pub addresses: Vec<IpAddr>,
}

/// All ports of a network.
pub fn neighbours(tx: &mut Tx, network_id: &str) -> Result<Vec<Neighbour>> {
    let rows = tx.query(
        sql!("SELECT port_id, ip_address FROM ip_allocations WHERE network_id = $1 ORDER BY position"),
        params![network_id],
    )?;
    let mut addresses: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for mut row in rows {
        if let Ok(address) = row.take::<String>(1)?.parse() {
            addresses.entry(row.take(0)?).or_default().push(address);
        }
    }
    let rows = tx.query(
        sql!(
            "SELECT id, mac_address, device_owner, device_id, project_id, dns_name, host_id
             FROM ports WHERE network_id = $1 ORDER BY mac_address"
        ),
        params![network_id],
    )?;
    let neighbour = |mut row: db::Row| {
        let id: String = row.take(0)?;
        Ok(Neighbour {
            addresses: addresses.remove(&id).unwrap_or_default(),
            id,
            mac_address: row.take(1)?,
            device_owner: row.take(2)?,
            device_id: row.take(3)?,
            project_id: row.take(4)?,
            dns_name: row.take(5)?,
            host_id: row.take(6)?,
        })
    };
    rows.into_iter().map(neighbour).collect()
}

/// Bindings of a network's ports that are not their active ones.
pub fn moving_on(tx: &mut Tx, network_id: &str) -> Result<HashMap<String, Vec<PortBinding>>> {
    let rows = tx.query(
        sql!(
            "SELECT b.port_id FROM ports p JOIN port_bindings b ON b.port_id = p.id WHERE p.network_id = $1"
        ),
        params![network_id],
    )?;
    inactive_bindings(tx, &rows.iter().map(|row| row.at(0)).collect::<Result<_>>()?)
}

/// The addresses of a security group's ports.
pub fn members(tx: &mut Tx, group_id: &str) -> Result<BTreeSet<IpNet>> {
    let rows = tx.query(
        sql!(
            "SELECT a.ip_address FROM port_security_groups g JOIN ip_allocations a ON a.port_id = g.port_id
             WHERE g.security_group_id = $1"
        ),
        params![group_id],
    )?;
    let mut found = BTreeSet::new();
    for row in rows {
        found.extend(row.at::<String>(0)?.parse::<IpAddr>().map(IpNet::from));
    }
    Ok(found)
}

/// Ports of guests that are on a host or come to it.
pub fn ports_on(tx: &mut Tx, host: &str) -> Result<BTreeSet<String>> {
    let rows = tx.query(
        sql!(
            "SELECT id FROM ports WHERE host_id = $1
             UNION SELECT port_id FROM port_bindings WHERE host = $1"
        ),
        params![host],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// Groups of the ports that are on a host or come to it.
pub fn groups_on(tx: &mut Tx, host: &str) -> Result<BTreeSet<String>> {
    let rows = tx.query(
        sql!(
            "SELECT g.security_group_id FROM port_security_groups g
             JOIN ports p ON p.id = g.port_id WHERE p.host_id = $1
             UNION SELECT g.security_group_id FROM port_security_groups g
             JOIN port_bindings b ON b.port_id = g.port_id WHERE b.host = $1"
        ),
        params![host],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}
