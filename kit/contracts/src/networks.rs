//! What nova asks of neutron. Ids are chosen by the caller, so that a repeated call makes nothing twice.

use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[async_trait]
pub trait Networks: Send + Sync {
    /// Of these networks, those that the caller may see. None asked: those on which the caller's project may have
    /// servers without naming one, its own and if there are none the shared ones.
    async fn networks(&self, cx: &Context, ids: &[String]) -> Result<Vec<Network>>;

    /// A port that the caller may see; `NotFound` otherwise.
    async fn port(&self, cx: &Context, port_id: &str) -> Result<Port>;

    /// The security groups of the caller's project that have these ids or names; a name that several have is
    /// answered several times.
    async fn security_groups(&self, cx: &Context, wanted: &[String]) -> Result<Vec<SecurityGroup>>;

    /// How many more ports the caller's project may have; none: no limit.
    async fn ports_left(&self, cx: &Context) -> Result<Option<u64>>;

    /// Makes the port, or answers the one that has this id already.
    async fn create_port(&self, cx: &Context, port: &NewPort) -> Result<Port>;

    /// Gives the port to a server on a host, with the cloud's own rights.
    async fn bind_port(&self, cx: &Context, binding: &Binding) -> Result<Port>;

    /// Takes the port from its server, with the cloud's own rights; one that is gone is fine.
    async fn unbind_port(&self, cx: &Context, port_id: &str) -> Result<()>;

    /// Gives the port a second binding, an inactive one, on a host to which its server is to move. The port's tap is
    /// made there, and nova hears `network-vif-plugged` when it stands. One that is there already is fine.
    async fn create_binding(
        &self,
        cx: &Context,
        port_id: &str,
        host: &str,
        allocation: &PortAllocation,
    ) -> Result<Port>;

    /// From now on the port is on that host, where it has a binding; the binding that it had until now becomes the
    /// inactive one. Active already: fine.
    async fn activate_binding(&self, cx: &Context, port_id: &str, host: &str) -> Result<Port>;

    /// Takes the inactive binding on a host from the port; none is fine.
    async fn delete_binding(&self, cx: &Context, port_id: &str, host: &str) -> Result<()>;

    /// With the cloud's own rights; one that is gone is fine.
    async fn delete_port(&self, cx: &Context, port_id: &str) -> Result<()>;

    /// The ports of servers, with the cloud's own rights.
    async fn ports_of(&self, cx: &Context, device_ids: &[String]) -> Result<Vec<Port>>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub project_id: String,
    pub shared: bool,
    pub external: bool,
    pub mtu: u16,
    pub port_security_enabled: bool,
    /// Without a subnet no server can have a port on it.
    pub has_subnets: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroup {
    pub id: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewPort {
    pub id: String,
    pub network_id: String,
    pub fixed_ip: Option<String>,
    pub security_group_ids: Vec<String>,
    pub device_id: String,
    pub dns_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Binding {
    pub port_id: String,
    pub device_id: String,
    /// `compute:nova`
    pub device_owner: String,
    pub host: String,
    pub dns_name: Option<String>,
    /// Who gives what the port asks of placement; it is in the port's binding profile.
    pub allocation: PortAllocation,
}

/// Providers by the ids of request groups.
pub type PortAllocation = BTreeMap<String, String>;

/// What a port asks of placement, by one of its QoS rules: all of it from one provider. The providers of a port's groups
/// lie below one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestGroup {
    pub id: String,
    pub resources: BTreeMap<String, u64>,
    pub required: Vec<String>,
}

/// A port with all that a server's owner and the guest itself are told about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    pub id: String,
    pub project_id: String,
    pub mac: String,
    pub network: Network,
    pub fixed_ips: Vec<FixedIp>,
    pub subnets: Vec<Subnet>,
    pub security_groups: Vec<SecurityGroup>,
    pub device_id: String,
    pub device_owner: String,
    /// Where it is bound; empty when it is not.
    pub host: String,
    pub active: bool,
    pub resource_request: Vec<RequestGroup>,
    pub allocation: PortAllocation,
    /// On hosts between which its server moves.
    pub inactive_bindings: Vec<InactiveBinding>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InactiveBinding {
    pub host: String,
    /// The port's tap stands there.
    pub plugged: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FixedIp {
    pub address: String,
    pub subnet_id: String,
    pub floating_ips: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnet {
    pub id: String,
    pub cidr: String,
    pub gateway_ip: Option<String>,
    pub dns_nameservers: Vec<String>,
    pub enable_dhcp: bool,
    pub host_routes: Vec<Route>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: String,
    pub nexthop: String,
}
