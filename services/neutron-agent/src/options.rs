//! The agent's section of the configuration file.

use base::{Error, Result, Secret, config::Section};
use contracts::agents::network::{self as contract, Bandwidth, HostResources, Rates};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What this host promises its guests' ports, in kbit/s: `interface:egress:ingress`, either of which may be left
    /// out. An interface of no physical network carries the tunnels.
    pub resource_provider_bandwidths: Vec<String>,
    pub resource_provider_inventory_defaults: InventoryDefaults,
    /// How many thousand packets a second this host processes for its guests' ports; none: nobody asks.
    pub resource_provider_packet_processing_without_direction: Option<u64>,
    /// The same by direction, `egress:ingress`, instead.
    pub resource_provider_packet_processing_with_direction: String,
    pub resource_provider_packet_processing_inventory_defaults: InventoryDefaults,
    /// By which name nova knows this host as a hypervisor; empty: the host's.
    pub resource_provider_hypervisor: String,
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
            resource_provider_bandwidths: Vec::new(),
            resource_provider_inventory_defaults: InventoryDefaults::default(),
            resource_provider_packet_processing_without_direction: None,
            resource_provider_packet_processing_with_direction: String::new(),
            resource_provider_packet_processing_inventory_defaults: InventoryDefaults::default(),
            resource_provider_hypervisor: String::new(),
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

/// How placement counts what is promised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
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

impl From<InventoryDefaults> for contract::InventoryDefaults {
    fn from(own: InventoryDefaults) -> Self {
        let InventoryDefaults { allocation_ratio, min_unit, step_size, reserved } = own;
        Self { allocation_ratio, min_unit, step_size, reserved }
    }
}

impl Options {
    /// What neutron is told that the host has for ports.
    pub fn resources(&self, host: &str) -> Result<HostResources> {
        let mut bandwidths = BTreeMap::new();
        for text in &self.resource_provider_bandwidths {
            let wrong = || wrong("resource_provider_bandwidths", text);
            let (device, rates) = text.split_once(':').unwrap_or((text, ":"));
            if device.is_empty() {
                return Err(wrong());
            }
            let mut networks = self.physical_networks.iter();
            let network = networks.find(|(_, interface)| *interface == device).map(|(name, _)| name.clone());
            let bandwidth =
                Bandwidth { physical_network: network, rates: rates_of(rates).ok_or_else(wrong)? };
            if bandwidths.insert(device.to_string(), bandwidth).is_some() {
                return Err(wrong());
            }
        }
        let directed = self.resource_provider_packet_processing_with_direction.as_str();
        let packet_rates = match (self.resource_provider_packet_processing_without_direction, directed) {
            (any, "") => Rates { any, ..Rates::default() },
            (None, directed) => rates_of(directed)
                .ok_or_else(|| wrong("resource_provider_packet_processing_with_direction", directed))?,
            (Some(_), _) => {
                return Err(Error::bad_request(
                    "[neutron_agent]: packets are processed with direction or without, not both",
                ));
            }
        };
        let hypervisor = match self.resource_provider_hypervisor.as_str() {
            "" => host,
            name => name,
        };
        Ok(HostResources {
            hypervisor: hypervisor.into(),
            bandwidths,
            packet_rates,
            bandwidth_defaults: self.resource_provider_inventory_defaults.into(),
            packet_rate_defaults: self.resource_provider_packet_processing_inventory_defaults.into(),
        })
    }
}

fn wrong(option: &str, text: &str) -> Error {
    Error::bad_request(format!("[neutron_agent] {option}: '{text}' is not what it shall be"))
}

/// `egress:ingress`
fn rates_of(text: &str) -> Option<Rates> {
    let (egress, ingress) = text.split_once(':')?;
    let rate = |text: &str| match text.trim() {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    Some(Rates { egress: rate(egress)?, ingress: rate(ingress)?, any: None })
}

impl Section for Options {
    const NAME: &'static str = "neutron_agent";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(bandwidths: &[&str]) -> Options {
        Options {
            physical_networks: [("physnet0".to_string(), "eth1".to_string())].into(),
            resource_provider_bandwidths: bandwidths.iter().map(|text| text.to_string()).collect(),
            ..Options::default()
        }
    }

    #[test]
    fn bandwidths() {
        let found = options(&["eth1:10:20", "eth2::5", "eth3"]).resources("h").unwrap();
        assert_eq!(found.hypervisor, "h");
        let eth1 = &found.bandwidths["eth1"];
        assert_eq!(eth1.physical_network.as_deref(), Some("physnet0"));
        assert_eq!((eth1.rates.egress, eth1.rates.ingress), (Some(10), Some(20)));
        let eth2 = &found.bandwidths["eth2"];
        assert_eq!(
            (eth2.physical_network.clone(), eth2.rates.egress, eth2.rates.ingress),
            (None, None, Some(5))
        );
        assert_eq!(found.bandwidths["eth3"].rates, Rates::default());
        assert!(options(&[]).resources("h").unwrap().is_empty());
        for wrong in [&[":1:2"][..], &["a:1"], &["a:1:x"], &["a:1:2:3"], &["a:-1:2"], &["a:1:1", "a:2:2"]] {
            assert!(options(wrong).resources("h").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn packets_with_direction_or_without() {
        let of = |any, directed: &str| {
            Options {
                resource_provider_packet_processing_without_direction: any,
                resource_provider_packet_processing_with_direction: directed.into(),
                ..Options::default()
            }
            .resources("h")
            .map(|found| found.packet_rates)
        };
        assert_eq!(of(Some(7), "").unwrap(), Rates { any: Some(7), ..Rates::default() });
        let both = Rates { egress: Some(1), ingress: Some(2), any: None };
        assert_eq!(of(None, "1:2").unwrap(), both);
        assert!(of(Some(7), "1:2").is_err() && of(None, "1").is_err());
    }
}
