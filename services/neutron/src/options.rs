//! Neutron's section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The first VXLAN segment for projects' networks.
    pub vni_min: i64,
    /// The last VXLAN segment for projects' networks.
    pub vni_max: i64,
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vni_min: 1,
            vni_max: 1_000_000,
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
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "neutron";
}
