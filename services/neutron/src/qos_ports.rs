//! What ports with QoS policies ask of placement, and what changes in its books when a server's port gets another policy.

use crate::{
    agents::Touched,
    model::*,
    store::{self, WholePort},
};
use base::{Error, Json, Result};
use contracts::{
    networks::{PortAllocation, RequestGroup},
    placement::AllocationChange,
};
use db::Tx;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

pub const MINIMUM_BANDWIDTH: &str = "minimum_bandwidth";
pub const MINIMUM_PACKET_RATE: &str = "minimum_packet_rate";
/// Both directions together.
pub const ANY: &str = "any";
const KINDS: [&str; 2] = [MINIMUM_BANDWIDTH, MINIMUM_PACKET_RATE];

/// What a host has for tunnels.
pub const TUNNEL_TRAIT: &str = "CUSTOM_NETWORK_TUNNEL_PROVIDER";
/// Where a port's binding profile says who gives what it asks for.
const ALLOCATION: &str = "allocation";

/// Whether a rule of the kind takes something that placement counts.
pub fn promises(kind: &str) -> bool {
    KINDS.contains(&kind)
}

pub fn is_servers(port: &Port) -> bool {
    port.device_owner.starts_with("compute:")
}

/// Ports that have a policy, by themselves or by their network.
pub fn with_policy(tx: &mut Tx, policy_id: &str) -> Result<Vec<Port>> {
    let mut found = store::all_of::<Port>(tx, "qos_policy_id", policy_id)?;
    let networks = store::all_of::<Network>(tx, "qos_policy_id", policy_id)?;
    let networks = networks.into_iter().map(|network| network.id).collect();
    let others = store::any_of::<Port>(tx, "network_id", &networks)?;
    found.extend(others.into_iter().filter(|port| port.qos_policy_id.is_none()));
    Ok(found)
}

/// The rules of policies that promise something, by policy.
pub fn promised(tx: &mut Tx, policies: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<QosRule>>> {
    let mut found: BTreeMap<String, Vec<QosRule>> = BTreeMap::new();
    for rule in store::any_of::<QosRule>(tx, "qos_policy_id", policies)? {
        if promises(&rule.kind) {
            found.entry(rule.qos_policy_id.clone()).or_default().push(rule);
        }
    }
    found.values_mut().for_each(|rules| rules.sort_by(|a, b| a.id.cmp(&b.id)));
    Ok(found)
}

/// What a port asks for by these rules: a group for each kind of them.
pub fn request(port: &Port, physical_network: Option<&str>, rules: &[QosRule]) -> Vec<RequestGroup> {
    KINDS.iter().filter_map(|kind| group(port, physical_network, rules, kind)).collect()
}

fn group(port: &Port, physical_network: Option<&str>, rules: &[QosRule], kind: &str) -> Option<RequestGroup> {
    let of_kind: Vec<&QosRule> = rules.iter().filter(|rule| rule.kind == kind).collect();
    let ids = of_kind.iter().map(|rule| rule.id.as_str());
    let parts: Vec<&str> = ["request group", port.id.as_str()].into_iter().chain(ids).collect();
    let mut required = vec![vnic_trait(&port.vnic_type)];
    if kind == MINIMUM_BANDWIDTH {
        required.insert(0, physical_network.map_or(TUNNEL_TRAIT.into(), physical_trait));
    }
    (!of_kind.is_empty()).then(|| RequestGroup {
        id: base::id::derived(&parts),
        resources: of_kind.iter().map(|rule| (class(rule).into(), rule.rate.unsigned_abs())).collect(),
        required,
    })
}

fn class(rule: &QosRule) -> &'static str {
    match (rule.kind.as_str(), rule.direction.as_deref()) {
        (MINIMUM_BANDWIDTH, Some("ingress")) => BANDWIDTH_INGRESS,
        (MINIMUM_BANDWIDTH, _) => BANDWIDTH_EGRESS,
        (_, Some("ingress")) => PACKETS_INGRESS,
        (_, Some(ANY)) => PACKETS_ANY,
        _ => PACKETS_EGRESS,
    }
}

pub const BANDWIDTH_EGRESS: &str = "NET_BW_EGR_KILOBIT_PER_SEC";
pub const BANDWIDTH_INGRESS: &str = "NET_BW_IGR_KILOBIT_PER_SEC";
pub const PACKETS_EGRESS: &str = "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC";
pub const PACKETS_INGRESS: &str = "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC";
pub const PACKETS_ANY: &str = "NET_PACKET_RATE_KILOPACKET_PER_SEC";

pub fn physical_trait(physical_network: &str) -> String {
    custom(&format!("PHYSNET_{physical_network}"))
}

pub fn vnic_trait(vnic_type: &str) -> String {
    custom(&format!("VNIC_TYPE_{vnic_type}"))
}

/// A trait's name of any words: what is no letter and no digit becomes one underscore.
fn custom(words: &str) -> String {
    let mut name = String::from("CUSTOM_");
    for letter in words.to_uppercase().chars() {
        match letter {
            'A'..='Z' | '0'..='9' => name.push(letter),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    name
}

/// As the port's view has it.
pub fn view(groups: &[RequestGroup]) -> Json {
    if groups.is_empty() {
        return Json::Null;
    }
    let ids: Vec<&String> = groups.iter().map(|group| &group.id).collect();
    json!({"request_groups": groups, "same_subtree": ids})
}

/// Who gives what a port asks for, as its binding profile says.
pub fn allocation(profile: &Json) -> PortAllocation {
    serde_json::from_value(profile[ALLOCATION].clone()).unwrap_or_default()
}

/// Says so in a binding profile; nobody: it says nothing.
pub fn set_allocation(profile: &mut Json, allocation: &PortAllocation) {
    if !profile.is_object() {
        *profile = json!({});
    }
    match (profile.as_object_mut(), allocation.is_empty()) {
        (Some(profile), true) => drop(profile.remove(ALLOCATION)),
        (Some(profile), false) => drop(profile.insert(ALLOCATION.into(), json!(allocation))),
        (None, _) => {}
    }
}

/// Another policy of a server's port, as placement is to count it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reallocation {
    pub port_id: String,
    pub change: AllocationChange,
    allocation: PortAllocation,
}

/// What changes in placement's books; none: nothing is counted there. What a server's port did not ask for when it was
/// placed it is not promised later: nobody looked whether its host has it.
pub fn reallocation(tx: &mut Tx, whole: &WholePort, policy: Option<&String>) -> Result<Option<Reallocation>> {
    let port = &whole.port;
    let (held, was) = (allocation(&port.profile), whole.policy());
    if !is_servers(port) || held.is_empty() || was == policy {
        return Ok(None);
    }
    let network = tx.find::<Network>(&port.network_id)?;
    let physical = network.as_ref().and_then(|network| network.physical_network.as_deref());
    let rules = promised(tx, &[was, policy].into_iter().flatten().cloned().collect())?;
    let rules = |policy: Option<&String>| policy.and_then(|id| rules.get(id)).map_or(&[][..], Vec::as_slice);
    let (mut difference, mut given) =
        (BTreeMap::<String, BTreeMap<String, i64>>::new(), PortAllocation::new());
    for kind in KINDS {
        let of = |policy| group(port, physical, rules(policy), kind);
        let (Some(old), new) = (of(was), of(policy)) else { continue };
        let Some(provider) = held.get(&old.id) else { continue };
        let of_provider = difference.entry(provider.clone()).or_default();
        for (class, amount) in &old.resources {
            *of_provider.entry(class.clone()).or_default() -= *amount as i64;
        }
        let Some(new) = new else { continue };
        let both_ways = |group: &RequestGroup| group.resources.contains_key(PACKETS_ANY);
        if both_ways(&old) != both_ways(&new) {
            return Err(Error::not_implemented(
                "Changing from direction-less QoS minimum packet rate rule to a direction-oriented minimum packet rate \
                 rule, or vice versa, is not supported.",
            ));
        }
        for (class, amount) in &new.resources {
            *of_provider.entry(class.clone()).or_default() += *amount as i64;
        }
        given.insert(new.id, provider.clone());
    }
    for resources in difference.values_mut() {
        resources.retain(|_, amount| *amount != 0);
    }
    difference.retain(|_, resources| !resources.is_empty());
    Ok(Some(Reallocation {
        port_id: port.id.clone(),
        change: AllocationChange { consumer_id: port.device_id.clone(), difference },
        allocation: given,
    }))
}

impl Reallocation {
    pub fn apply(&self, port: &mut Port) {
        set_allocation(&mut port.profile, &self.allocation);
    }
}

/// Into the ports of a network that gets another policy.
pub fn apply_all(
    tx: &mut Tx,
    touched: &mut Touched,
    all: &[Reallocation],
    now: base::Timestamp,
) -> Result<()> {
    for one in all {
        let mut port = store::get::<Port>(tx, store::PORT, &one.port_id)?;
        one.apply(&mut port);
        port.change(tx, now)?;
        touched.ports.insert(port.id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_traits() {
        for (made, name) in [
            (physical_trait("physnet0"), "CUSTOM_PHYSNET_PHYSNET0"),
            (physical_trait("my net--1"), "CUSTOM_PHYSNET_MY_NET_1"),
            (vnic_trait("direct-physical"), "CUSTOM_VNIC_TYPE_DIRECT_PHYSICAL"),
        ] {
            assert_eq!(made, name);
        }
    }

    #[test]
    fn allocations_in_profiles() {
        let mut profile = json!({"a": 1});
        let given = PortAllocation::from([("g".into(), "p".into())]);
        set_allocation(&mut profile, &given);
        assert_eq!(allocation(&profile), given);
        set_allocation(&mut profile, &PortAllocation::new());
        assert_eq!(profile, json!({"a": 1}));
        // An operator may write what he likes there.
        assert!(allocation(&json!({"allocation": "x"})).is_empty());
    }
}
