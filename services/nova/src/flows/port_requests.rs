//! What a server's ports ask of placement besides what its flavor does: bandwidth and packets, each from a provider below
//! the host's own.

use super::boot::PlannedPort;
use crate::Nova;
use base::{Context, ErrorKind, Result};
use contracts::{
    networks::{Port, PortAllocation, RequestGroup},
    placement::{Group, Resources, Wanted},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one port asks for, who gives it now, and who gave it before its server moved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRequest {
    pub port_id: String,
    pub groups: Vec<RequestGroup>,
    pub was: PortAllocation,
    pub now: PortAllocation,
}

/// By port.
pub type Allocations = BTreeMap<String, PortAllocation>;

/// Of some ports, those that ask for something.
pub fn of(ports: &[Port]) -> Vec<PortRequest> {
    let request = |port: &Port| PortRequest {
        port_id: port.id.clone(),
        groups: port.resource_request.clone(),
        was: port.allocation.clone(),
        now: PortAllocation::new(),
    };
    let asks = |request: &PortRequest| !request.groups.is_empty() || !request.was.is_empty();
    ports.iter().map(request).filter(asks).collect()
}

/// Of a server's ports.
pub async fn of_server(nova: &Nova, cx: &Context, uuid: &str) -> Result<Vec<PortRequest>> {
    Ok(of(&nova.networks().ports_of(&nova.own(cx), &[uuid.to_string()]).await?))
}

/// Of the ports that a server is to have and that are there already; those that are made for it ask for nothing.
pub async fn of_planned(nova: &Nova, cx: &Context, planned: &[PlannedPort]) -> Result<Vec<PortRequest>> {
    let mut ports = Vec::new();
    for port in planned.iter().filter(|port| port.network_id.is_none()) {
        match nova.networks().port(&nova.own(cx), &port.id).await {
            // Who plugs it says so.
            Err(error) if error.is(ErrorKind::NotFound) => {}
            found => ports.push(found?),
        }
    }
    // What is written at a port that nobody has is nobody's.
    let free = |request: PortRequest| PortRequest { was: PortAllocation::new(), ..request };
    Ok(of(&ports).into_iter().map(free).collect())
}

/// Adds to what placement is asked.
pub fn ask(wanted: &mut Wanted, requests: &[PortRequest]) {
    for request in requests {
        let groups = request.groups.iter().map(|group| Group {
            id: group.id.clone(),
            resources: there(&group.resources),
            required_traits: group.required.clone(),
        });
        let groups: Vec<Group> = groups.filter(|group| !group.resources.is_empty()).collect();
        if groups.len() > 1 {
            wanted.same_subtrees.push(groups.iter().map(|group| group.id.clone()).collect());
        }
        wanted.groups.extend(groups);
    }
}

/// A promise of nothing takes nothing.
fn there(resources: &Resources) -> Resources {
    resources
        .iter()
        .filter(|(_, amount)| **amount > 0)
        .map(|(class, amount)| (class.clone(), *amount))
        .collect()
}

/// Notes who gives what was asked for.
pub fn given(requests: &mut [PortRequest], mappings: &BTreeMap<String, String>) {
    for request in requests {
        let of_port = |group: &RequestGroup| Some((group.id.clone(), mappings.get(&group.id)?.clone()));
        request.now = request.groups.iter().filter_map(of_port).collect();
    }
}

pub fn now(requests: &[PortRequest]) -> Allocations {
    requests.iter().map(|request| (request.port_id.clone(), request.now.clone())).collect()
}

pub fn was(requests: &[PortRequest]) -> Allocations {
    requests.iter().map(|request| (request.port_id.clone(), request.was.clone())).collect()
}

/// What ports take of whom, added to what the server takes otherwise.
pub fn add(resources: &mut BTreeMap<String, Resources>, requests: &[PortRequest]) {
    for request in requests {
        for group in &request.groups {
            let Some(provider) = request.was.get(&group.id) else { continue };
            let of_provider = resources.entry(provider.clone()).or_default();
            for (class, amount) in there(&group.resources) {
                *of_provider.entry(class).or_default() += amount;
            }
        }
    }
    resources.retain(|_, of_provider| !of_provider.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, class: &str, amount: u64) -> RequestGroup {
        RequestGroup {
            id: id.into(),
            resources: [(class.to_string(), amount)].into(),
            required: vec!["T".into()],
        }
    }

    fn port(id: &str, groups: Vec<RequestGroup>, given: &[(&str, &str)]) -> Port {
        let allocation = given.iter().map(|(group, by)| (group.to_string(), by.to_string())).collect();
        Port { id: id.into(), resource_request: groups, allocation, ..Port::default() }
    }

    #[test]
    fn what_is_asked_and_who_gives_it() {
        let two = port("p2", vec![group("b", "BW", 5), group("c", "PPS", 7), group("d", "BW", 0)], &[]);
        let mut requests = of(&[port("p1", vec![group("a", "BW", 3)], &[]), port("none", vec![], &[]), two]);
        assert_eq!(requests.len(), 2);
        let mut wanted = Wanted::default();
        ask(&mut wanted, &requests);
        let ids: Vec<&str> = wanted.groups.iter().map(|group| group.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(wanted.same_subtrees, [["b", "c"]]);
        let mappings = [("a", "x"), ("b", "x"), ("c", "y")].map(|(id, by)| (id.into(), by.into()));
        given(&mut requests, &mappings.into());
        assert_eq!(now(&requests)["p2"].len(), 2);
    }

    #[test]
    fn what_ports_take_is_what_their_providers_give() {
        let mut resources = BTreeMap::new();
        let first = port("p1", vec![group("a", "BW", 3)], &[("a", "x")]);
        // The second rule came when the server was there: nobody gives what it promises.
        let second = port("p2", vec![group("b", "BW", 5), group("c", "PPS", 7)], &[("b", "x")]);
        add(&mut resources, &of(&[first, second]));
        assert_eq!(resources, [("x".to_string(), [("BW".to_string(), 8)].into())].into());
    }
}
