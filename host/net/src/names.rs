//! Names of interfaces by OpenStack's rule: a prefix and the first eleven characters of an id, for fifteen is all
//! the kernel takes.

pub use contracts::compute::tap_name as tap;

pub fn bridge(network_id: &str) -> String {
    short("brq", network_id)
}

/// The interface with a network's VLAN.
pub fn vlan_link(network_id: &str) -> String {
    short("vlan", network_id)
}

/// The other end of a subport's pair, which is on no bridge.
pub fn subport(port_id: &str) -> String {
    short("sub", port_id)
}

pub fn short(prefix: &str, id: &str) -> String {
    format!("{prefix}{}", id.chars().take(11).collect::<String>())
}
