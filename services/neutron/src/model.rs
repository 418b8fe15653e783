//! The nouns of neutron as tables. Names in bodies are upstream's.

use base::{Json, Result, Timestamp};
use db::{AsJson, Resource, Tx};
use serde::{Deserialize, Serialize};

pub static TABLES: &[&db::Table] = &[
    Network::TABLE,
    Subnet::TABLE,
    Port::TABLE,
    IpAllocation::TABLE,
    PortGroup::TABLE,
    SecurityGroup::TABLE,
    SecurityGroupRule::TABLE,
    Router::TABLE,
    FloatingIp::TABLE,
    PortForwarding::TABLE,
    SubnetPool::TABLE,
    AddressScope::TABLE,
    AddressGroup::TABLE,
    RbacPolicy::TABLE,
    DefaultRule::TABLE,
    QosPolicy::TABLE,
    QosRule::TABLE,
    Quota::TABLE,
    Agent::TABLE,
    Placement::TABLE,
    PortBinding::TABLE,
    Trunk::TABLE,
    Subport::TABLE,
    Counter::TABLE,
    flow::TABLES[0],
    flow::TABLES[1],
    flow::TABLES[2],
];

pub static MIGRATIONS: &[db::Migration] = &[
    db::Migration {
        number: 1,
        name: "rules for address groups",
        statements: &["ALTER TABLE security_group_rules ADD COLUMN remote_address_group_id TEXT"],
    },
    db::Migration {
        number: 2,
        name: "agents by what they do; zones of routers",
        statements: &[
            "DROP TABLE IF EXISTS agents",
            "ALTER TABLE routers ADD COLUMN availability_zone_hints TEXT NOT NULL DEFAULT '[]'",
        ],
    },
    db::Migration {
        number: 3,
        name: "qos policies of networks and ports",
        statements: &[
            "ALTER TABLE networks ADD COLUMN qos_policy_id TEXT",
            "ALTER TABLE ports ADD COLUMN qos_policy_id TEXT",
        ],
    },
    db::Migration {
        number: 4,
        name: "what placement knows of agents",
        statements: &[
            // Databases from before the second migration have none yet.
            "CREATE TABLE IF NOT EXISTS network_agents (id TEXT NOT NULL, agent_type TEXT NOT NULL,
               program TEXT NOT NULL, topic TEXT NOT NULL, host TEXT NOT NULL, admin_state_up BOOLEAN NOT NULL,
               description TEXT, availability_zone TEXT, tunnel_ip TEXT, configurations TEXT NOT NULL,
               created_at BIGINT NOT NULL, started_at BIGINT NOT NULL, heartbeat_timestamp BIGINT NOT NULL,
               PRIMARY KEY (id))",
            "ALTER TABLE network_agents ADD COLUMN resources_synced BOOLEAN",
        ],
    },
];

/// What most nouns have in common, upstream's standard attributes: whose it is, and which change it last saw.
pub trait Standard: Resource {
    /// Its project, revision, and when it was made and last changed.
    fn standard(&self) -> (&str, i64, Timestamp, Timestamp);

    /// Stores it as changed.
    fn change(&mut self, tx: &mut Tx, now: Timestamp) -> Result<()>;
}

macro_rules! standard {
    ($(#[$of_struct:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        #[derive(Clone, Debug, Resource)]
        $(#[$of_struct])*
        pub struct $name {
            #[field(key, filter, sort)]
            pub id: String,
            #[field(filter, sort)]
            pub project_id: String,
            $($fields)*
            #[field(filter)]
            pub revision_number: i64,
            #[field(sort)]
            pub created_at: Timestamp,
            #[field(sort)]
            pub updated_at: Timestamp,
        }

        impl Standard for $name {
            fn standard(&self) -> (&str, i64, Timestamp, Timestamp) {
                (&self.project_id, self.revision_number, self.created_at, self.updated_at)
            }

            fn change(&mut self, tx: &mut Tx, now: Timestamp) -> Result<()> {
                self.revision_number += 1;
                self.updated_at = now;
                tx.update(self).map(drop)
            }
        }
    };
}

standard! {
    #[resource(
        table = "networks",
        singular = "network",
        index = "project_id, id",
        index = "name",
        index = "qos_policy_id",
        index = "shared",
        index = "external",
        unique = "network_type, physical_network, segmentation_id"
    )]
    pub struct Network {
        #[field(filter, sort)]
        pub name: String,
        #[field(filter, sort)]
        pub description: String,
        #[field(filter, sort)]
        pub admin_state_up: bool,
        #[field(filter, sort)]
        pub status: String,
        #[field(filter, sort)]
        pub mtu: i64,
        #[field(filter, sort)]
        pub shared: bool,
        #[field(filter, sort, json = "router:external")]
        pub external: bool,
        #[field(filter)]
        pub is_default: bool,
        #[field(filter)]
        pub port_security_enabled: bool,
        #[field(filter, json = "provider:network_type")]
        pub network_type: String,
        #[field(filter, json = "provider:physical_network")]
        pub physical_network: Option<String>,
        #[field(filter, json = "provider:segmentation_id")]
        pub segmentation_id: Option<i64>,
        pub availability_zone_hints: Vec<String>,
        pub qos_policy_id: Option<String>,
        pub tags: Vec<String>,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub start: std::net::IpAddr,
    pub end: std::net::IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    pub destination: String,
    pub nexthop: String,
}

standard! {
    #[resource(
        table = "subnets",
        singular = "subnet",
        index = "network_id",
        index = "project_id, id",
        index = "subnetpool_id"
    )]
    pub struct Subnet {
        #[field(filter, sort)]
        pub network_id: String,
        #[field(filter, sort)]
        pub name: String,
        #[field(filter, sort)]
        pub description: String,
        #[field(filter, sort)]
        pub ip_version: i64,
        #[field(filter, sort)]
        pub cidr: String,
        #[field(filter, sort)]
        pub gateway_ip: Option<String>,
        #[field(filter, sort)]
        pub enable_dhcp: bool,
        #[field(filter)]
        pub ipv6_ra_mode: Option<String>,
        #[field(filter)]
        pub ipv6_address_mode: Option<String>,
        pub allocation_pools: AsJson<Vec<Pool>>,
        pub dns_nameservers: Vec<String>,
        pub host_routes: AsJson<Vec<HostRoute>>,
        #[field(filter)]
        pub subnetpool_id: Option<String>,
        pub service_types: Vec<String>,
        pub tags: Vec<String>,
    }
}

standard! {
    #[resource(
        table = "ports",
        singular = "port",
        unique = "network_id, mac_address",
        index = "project_id, id",
        index = "device_id",
        index = "qos_policy_id",
        index = "host_id",
        index = "device_owner"
    )]
    pub struct Port {
        #[field(filter, sort)]
        pub network_id: String,
        #[field(filter, sort)]
        pub name: String,
        #[field(filter, sort)]
        pub description: String,
        #[field(filter, sort)]
        pub admin_state_up: bool,
        #[field(filter, sort)]
        pub status: String,
        #[field(filter, sort)]
        pub mac_address: String,
        #[field(filter, sort)]
        pub device_id: String,
        #[field(filter, sort)]
        pub device_owner: String,
        #[field(filter, json = "binding:host_id")]
        pub host_id: String,
        #[field(filter, json = "binding:vnic_type")]
        pub vnic_type: String,
        #[field(filter, json = "binding:vif_type")]
        pub vif_type: String,
        #[field(json = "binding:profile")]
        pub profile: Json,
        #[field(filter)]
        pub port_security_enabled: bool,
        pub allowed_address_pairs: Json,
        pub extra_dhcp_opts: Json,
        pub dns_name: String,
        pub qos_policy_id: Option<String>,
        pub tags: Vec<String>,
    }
}

/// An address that a port has. Its key keeps two ports from having it.
#[derive(Clone, Debug, Resource)]
#[resource(table = "ip_allocations", index = "port_id", index = "network_id, ip_address")]
pub struct IpAllocation {
    #[field(key)]
    pub subnet_id: String,
    #[field(key)]
    pub ip_address: String,
    pub port_id: String,
    pub network_id: String,
    /// Its place among the port's addresses.
    pub position: i64,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "port_security_groups", index = "security_group_id")]
pub struct PortGroup {
    #[field(key)]
    pub port_id: String,
    #[field(key)]
    pub security_group_id: String,
}

standard! {
    #[resource(table = "security_groups", singular = "security_group", index = "project_id, name")]
    pub struct SecurityGroup {
        #[field(filter, sort)]
        pub name: String,
        #[field(filter, sort)]
        pub description: String,
        #[field(filter)]
        pub stateful: bool,
        #[field(filter)]
        pub shared: bool,
        pub tags: Vec<String>,
    }
}

standard! {
    #[resource(
        table = "security_group_rules",
        singular = "security_group_rule",
        index = "security_group_id",
        index = "project_id, id",
        index = "remote_group_id",
        index = "remote_address_group_id"
    )]
    pub struct SecurityGroupRule {
        #[field(filter, sort)]
        pub security_group_id: String,
        #[field(filter, sort)]
        pub direction: String,
        #[field(filter, sort)]
        pub ethertype: String,
        #[field(filter, sort)]
        pub protocol: Option<String>,
        #[field(filter, sort)]
        pub port_range_min: Option<i64>,
        #[field(filter, sort)]
        pub port_range_max: Option<i64>,
        #[field(filter, sort)]
        pub remote_ip_prefix: Option<String>,
        #[field(filter, sort)]
        pub remote_group_id: Option<String>,
        #[field(filter, sort)]
        pub remote_address_group_id: Option<String>,
        #[field(filter)]
        pub description: Option<String>,
    }
}

standard! {
    #[resource(table = "routers", singular = "router", index = "project_id, id", index = "gw_port_id")]
    pub struct Router {
        #[field(filter, sort)]
        pub name: String,
        #[field(filter, sort)]
        pub description: String,
        #[field(filter, sort)]
        pub admin_state_up: bool,
        #[field(filter, sort)]
        pub status: String,
        pub gw_port_id: Option<String>,
        pub gw_network_id: Option<String>,
        pub enable_snat: bool,
        pub routes: AsJson<Vec<HostRoute>>,
    pub availability_zone_hints: Vec<String>,
        pub tags: Vec<String>,
    }
}

standard! {
    #[resource(
        table = "floating_ips",
        singular = "floatingip",
        index = "project_id, id",
        index = "port_id",
        index = "router_id",
        index = "floating_port_id"
    )]
    pub struct FloatingIp {
        #[field(filter)]
        pub description: String,
        #[field(filter, sort)]
        pub floating_network_id: String,
        #[field(filter, sort)]
        pub floating_ip_address: String,
        pub floating_port_id: String,
        #[field(filter, sort)]
        pub fixed_ip_address: Option<String>,
        #[field(filter, sort)]
        pub port_id: Option<String>,
        #[field(filter, sort)]
        pub router_id: Option<String>,
        #[field(filter, sort)]
        pub status: String,
        pub tags: Vec<String>,
    }
}

standard! {
    #[resource(table = "subnetpools", singular = "subnetpool", index = "project_id, id")]
    pub struct SubnetPool {
        #[field(filter, sort)]
        pub name: String,
        #[field(filter)]
        pub description: String,
        #[field(filter)]
        pub ip_version: i64,
        pub prefixes: Vec<String>,
        #[field(filter)]
        pub default_prefixlen: i64,
        #[field(filter)]
        pub min_prefixlen: i64,
        #[field(filter)]
        pub max_prefixlen: i64,
        pub default_quota: Option<i64>,
        #[field(filter)]
        pub address_scope_id: Option<String>,
        #[field(filter)]
        pub shared: bool,
        #[field(filter)]
        pub is_default: bool,
        pub tags: Vec<String>,
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "address_scopes", singular = "address_scope", index = "project_id, id")]
pub struct AddressScope {
    #[field(key, filter, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub project_id: String,
    #[field(filter, sort)]
    pub name: String,
    #[field(filter)]
    pub ip_version: i64,
    #[field(filter)]
    pub shared: bool,
}

standard! {
    #[resource(table = "address_groups", singular = "address_group", index = "project_id, id")]
    pub struct AddressGroup {
        #[field(filter, sort)]
        pub name: String,
        #[field(filter, sort)]
        pub description: String,
        pub addresses: Vec<String>,
        pub shared: bool,
    }
}

/// Who sees a thing that is not its own: a project, or everybody.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "rbac_policies",
    singular = "rbac_policy",
    unique = "object_id, object_type, action, target_tenant",
    index = "object_type, target_tenant",
    index = "project_id, id"
)]
pub struct RbacPolicy {
    #[field(key, filter, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub project_id: String,
    #[field(filter, sort)]
    pub object_type: String,
    #[field(filter, sort)]
    pub object_id: String,
    #[field(filter, sort)]
    pub action: String,
    #[field(filter, sort)]
    pub target_tenant: String,
}

/// A rule that every new security group begins with.
#[derive(Clone, Debug, Resource)]
#[resource(table = "default_security_group_rules", singular = "default_security_group_rule")]
pub struct DefaultRule {
    #[field(key, filter, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub direction: String,
    #[field(filter, sort)]
    pub ethertype: String,
    #[field(filter, sort)]
    pub protocol: Option<String>,
    #[field(filter, sort)]
    pub port_range_min: Option<i64>,
    #[field(filter, sort)]
    pub port_range_max: Option<i64>,
    #[field(filter, sort)]
    pub remote_ip_prefix: Option<String>,
    /// `PARENT`: the group itself.
    #[field(filter, sort)]
    pub remote_group_id: Option<String>,
    #[field(filter)]
    pub description: Option<String>,
    #[field(filter, sort)]
    pub used_in_default_sg: bool,
    #[field(filter, sort)]
    pub used_in_non_default_sg: bool,
}

standard! {
    #[resource(table = "qos_policies", singular = "policy", plural = "policies", index = "project_id, id")]
    pub struct QosPolicy {
        #[field(filter, sort)]
        pub name: String,
        #[field(filter, sort)]
        pub description: String,
        #[field(filter)]
        pub shared: bool,
        /// Networks of its project begin with it.
        #[field(filter)]
        pub is_default: bool,
        pub tags: Vec<String>,
    }
}

/// One rule of a policy; which numbers it has depends on its kind.
#[derive(Clone, Debug, Resource)]
#[resource(table = "qos_rules", singular = "rule", index = "qos_policy_id")]
pub struct QosRule {
    #[field(key, filter, sort)]
    pub id: String,
    pub qos_policy_id: String,
    pub kind: String,
    /// The most in a second, or the least.
    pub rate: i64,
    pub burst: i64,
    #[field(filter)]
    pub direction: Option<String>,
    #[field(filter)]
    pub dscp_mark: Option<i64>,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "quotas")]
pub struct Quota {
    #[field(key)]
    pub project_id: String,
    #[field(key)]
    pub resource: String,
    pub hard_limit: i64,
}

standard! {
    #[resource(table = "trunks", singular = "trunk", plural = "trunks", unique = "port_id", index = "project_id, id")]
    pub struct Trunk {
        #[field(filter, sort)]
        pub name: String,
        #[field(filter)]
        pub description: String,
        /// The parent, on whose interface a guest has the subports' VLANs.
        #[field(filter, sort)]
        pub port_id: String,
        #[field(filter, sort)]
        pub admin_state_up: bool,
        #[field(filter, sort)]
        pub status: String,
        pub tags: Vec<String>,
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "subports", unique = "trunk_id, segmentation_type, segmentation_id")]
pub struct Subport {
    #[field(key)]
    pub port_id: String,
    pub trunk_id: String,
    pub segmentation_type: String,
    pub segmentation_id: i64,
}

/// Ports of a floating address that are forwarded to a port inside.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "port_forwardings",
    singular = "port_forwarding",
    index = "floatingip_id",
    index = "internal_port_id"
)]
pub struct PortForwarding {
    #[field(key, filter)]
    pub id: String,
    pub floatingip_id: String,
    #[field(filter)]
    pub internal_port_id: String,
    #[field(filter)]
    pub internal_ip_address: String,
    #[field(filter)]
    pub protocol: String,
    pub internal_first: i64,
    pub internal_last: i64,
    #[field(filter, json = "external_port")]
    pub external_first: i64,
    pub external_last: i64,
    pub description: String,
}

impl PortForwarding {
    pub fn internal(&self) -> (i64, i64) {
        (self.internal_first, self.internal_last)
    }

    pub fn external(&self) -> (i64, i64) {
        (self.external_first, self.external_last)
    }
}

/// What a host does for networks: one row each for its guests' ports, its DHCP servers and its routers.
#[derive(Clone, Debug, Resource)]
#[resource(table = "network_agents", singular = "agent", unique = "host, agent_type")]
pub struct Agent {
    #[field(key, filter, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub agent_type: String,
    /// `binary` is a word of PostgreSQL's own.
    #[field(filter, sort, json = "binary")]
    pub program: String,
    #[field(filter, sort)]
    pub topic: String,
    #[field(filter, sort)]
    pub host: String,
    #[field(filter, sort)]
    pub admin_state_up: bool,
    #[field(filter)]
    pub description: Option<String>,
    #[field(filter, sort)]
    pub availability_zone: Option<String>,
    pub tunnel_ip: Option<String>,
    pub configurations: Json,
    /// Whether placement knows what the host has for ports; none: there is nothing to know.
    pub resources_synced: Option<bool>,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub started_at: Timestamp,
    #[field(sort)]
    pub heartbeat_timestamp: Timestamp,
}

/// Where an operator put a network's DHCP or a router: on a host, or nowhere.
#[derive(Clone, Debug, Resource)]
#[resource(table = "placements")]
pub struct Placement {
    #[field(key)]
    pub resource_id: String,
    pub host: Option<String>,
}

/// A port's place on another host, while its server moves. The active binding is in the port.
#[derive(Clone, Debug, Resource)]
#[resource(table = "port_bindings", singular = "binding", index = "host")]
pub struct PortBinding {
    #[field(key)]
    pub port_id: String,
    #[field(key, filter, sort)]
    pub host: String,
    #[field(filter, sort)]
    pub vif_type: String,
    #[field(filter, sort)]
    pub vnic_type: String,
    pub profile: Json,
    /// The tap stands there.
    pub plugged: bool,
}

/// Numbers that only grow.
#[derive(Clone, Debug, Resource)]
#[resource(table = "counters")]
pub struct Counter {
    #[field(key)]
    pub name: String,
    pub value: i64,
}

pub const ACTIVE: &str = "ACTIVE";
pub const DOWN: &str = "DOWN";

pub const OWNER_DHCP: &str = "network:dhcp";
pub const OWNER_ROUTER: &str = "network:router_interface";
pub const OWNER_GATEWAY: &str = "network:router_gateway";
pub const OWNER_FLOATING: &str = "network:floatingip";
