//! Neutron's section of the configuration file.

use base::{Error, Result, config::Section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::RangeInclusive};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The first VXLAN segment for projects' networks.
    pub vni_min: i64,
    /// The last VXLAN segment for projects' networks.
    pub vni_max: i64,
    /// Physical networks with VLANs, as upstream names them: `physnet1` where an administrator may name any,
    /// `physnet1:100:199` with those that are given to networks that name none.
    pub network_vlan_ranges: Vec<String>,
    /// The MTU of the network between hosts; VXLAN takes 50 bytes of it.
    pub global_physnet_mtu: i64,
    /// The domain of names that DHCP gives.
    pub dns_domain: String,
    /// An agent that has not reported for this long is down.
    pub agent_down_time_seconds: u64,
    /// The first three bytes of MAC addresses.
    pub base_mac: String,
    /// The most entries that one list answers; 0: no limit.
    pub pagination_max_limit: u64,
    pub max_dns_nameservers: usize,
    pub max_subnet_host_routes: usize,
    pub max_allowed_address_pairs: usize,
    /// The physical network and the addresses of the external network `public` that a new cloud begins with.
    pub public_physical_network: String,
    pub public_cidr: String,
    pub public_gateway: String,
    pub public_pool_first: String,
    pub public_pool_last: String,
    pub quota_network: i64,
    pub quota_subnet: i64,
    pub quota_subnetpool: i64,
    pub quota_port: i64,
    pub quota_router: i64,
    pub quota_router_route: i64,
    pub quota_floatingip: i64,
    pub quota_security_group: i64,
    pub quota_security_group_rule: i64,
    pub quota_rbac_policy: i64,
    pub quota_trunk: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vni_min: 1,
            vni_max: 1_000_000,
            network_vlan_ranges: Vec::new(),
            global_physnet_mtu: 1500,
            dns_domain: "openstacklocal".into(),
            agent_down_time_seconds: 75,
            base_mac: "fa:16:3e".into(),
            pagination_max_limit: 0,
            max_dns_nameservers: 5,
            max_subnet_host_routes: 20,
            max_allowed_address_pairs: 10,
            public_physical_network: "public".into(),
            public_cidr: "172.24.4.0/24".into(),
            public_gateway: "172.24.4.1".into(),
            public_pool_first: "172.24.4.2".into(),
            public_pool_last: "172.24.4.254".into(),
            quota_network: 100,
            quota_subnet: 100,
            quota_subnetpool: -1,
            quota_port: 500,
            quota_router: 10,
            quota_router_route: 30,
            quota_floatingip: 50,
            quota_security_group: 10,
            quota_security_group_rule: 100,
            quota_rbac_policy: 10,
            quota_trunk: -1,
        }
    }
}

impl Options {
    /// By physical network the VLANs that are given to networks that name none.
    pub fn vlan_ranges(&self) -> Result<BTreeMap<String, Vec<RangeInclusive<i64>>>> {
        let mut found: BTreeMap<String, Vec<RangeInclusive<i64>>> = BTreeMap::new();
        for text in &self.network_vlan_ranges {
            let wrong = || {
                Error::bad_request(format!("[neutron] network_vlan_ranges: '{text}' is no range of VLANs"))
            };
            let parts: Vec<&str> = text.split(':').map(str::trim).collect();
            let vlan = |text: &str| {
                text.parse::<i64>().ok().filter(|vlan| (1..=4094).contains(vlan)).ok_or_else(wrong)
            };
            let (name, range) = match parts.as_slice() {
                [name] => (*name, None),
                [name, first, last] => (*name, Some(vlan(first)?..=vlan(last)?)),
                _ => return Err(wrong()),
            };
            if name.is_empty() || range.as_ref().is_some_and(RangeInclusive::is_empty) {
                return Err(wrong());
            }
            found.entry(name.into()).or_default().extend(range);
        }
        Ok(found)
    }
}

impl Section for Options {
    const NAME: &'static str = "neutron";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_ranges() {
        let of = |texts: &[&str]| {
            let network_vlan_ranges = texts.iter().map(|text| text.to_string()).collect();
            Options { network_vlan_ranges, ..Options::default() }.vlan_ranges()
        };
        let found = of(&["a:1:3", "b", "a:7:7"]).unwrap();
        assert_eq!(found["a"], [1..=3, 7..=7]);
        assert!(found["b"].is_empty());
        for wrong in ["", "a:1", "a:3:1", "a:0:1", "a:1:4095", "a:x:2", "a:1:2:3"] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }
}
