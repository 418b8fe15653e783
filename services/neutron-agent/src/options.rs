//! The agent's section of the configuration file.

use base::{Secret, config::Section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The host's name, by which ports are bound to it; empty: the machine's host name.
    pub host: String,
    /// The address by which tunnels of other hosts reach this one. Empty: tenants' networks end at this host.
    pub local_ip: Option<IpAddr>,
    /// Whether this host runs DHCP servers and routers beside the ports of its guests.
    pub dhcp_and_routers: bool,
    /// The availability zone of this host's DHCP servers and routers.
    pub availability_zone: String,
    /// Interfaces of this host by the physical network they reach. A flat network without one is a bridge of its own.
    pub physical_networks: BTreeMap<String, String>,
    /// Whether this host is the gateway of external networks: it takes their gateway addresses on their bridges, so
    /// that it reaches floating addresses.
    pub external_gateway: bool,
    /// Whether this host, as gateway of external networks, hides their addresses behind its own towards the world.
    pub external_masquerade: bool,
    /// Where nova's metadata service listens. Empty: no metadata over the network.
    pub metadata_address: String,
    /// What nova's metadata service knows the proxy by; both must have the same.
    pub metadata_shared_secret: Secret,
    /// How often the agent gives a sign of life, in seconds.
    pub report_interval_seconds: u64,
    /// How often the whole host is compared with what it shall be and repaired, in seconds.
    pub repair_interval_seconds: u64,
    /// How often the agent asks neutron for everything, in seconds, for messages may be lost.
    pub resync_interval_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: String::new(),
            local_ip: None,
            dhcp_and_routers: true,
            availability_zone: "nova".into(),
            physical_networks: BTreeMap::new(),
            external_gateway: true,
            external_masquerade: true,
            metadata_address: "127.0.0.1:8775".into(),
            metadata_shared_secret: Secret::default(),
            report_interval_seconds: 30,
            repair_interval_seconds: 10,
            resync_interval_seconds: 300,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "neutron_agent";
}
