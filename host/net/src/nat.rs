//! Address translation as nft tables: in a router's namespace for its gateway, floating addresses and metadata;
//! on the host for external networks that it hides behind itself.

use crate::{names::short, nft::Table};
use contracts::agents::network::{Network, PortForwarding, Router};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

pub const ROUTER_TABLE: &str = "ip ferrostack_router";
pub const HOST_TABLE: &str = "ip ferrostack_host";
/// Where the metadata proxy of a router listens.
pub const METADATA_PORT: u16 = 9697;

pub fn router_table(router: &Router) -> Table {
    let mut table = Table::new(ROUTER_TABLE);
    table.map("to_fixed", "type ipv4_addr : ipv4_addr;");
    table.map("to_floating", "type ipv4_addr : ipv4_addr;");
    // A fixed address speaks through one of its floating addresses: a map has one value for a key.
    let mut speaks_as = BTreeMap::new();
    for floating_ip in &router.floating_ips {
        if let (IpAddr::V4(floating), IpAddr::V4(fixed)) = (floating_ip.floating, floating_ip.fixed) {
            table.element("to_fixed", format!("{floating} : {fixed}"));
            speaks_as.entry(fixed).or_insert(floating);
        }
    }
    for (fixed, floating) in speaks_as {
        table.element("to_floating", format!("{fixed} : {floating}"));
    }
    table.map("to_ports", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;");
    for forwarding in &router.port_forwardings {
        forwarded(forwarding).for_each(|element| table.element("to_ports", element));
    }
    table.chain(
        "arriving",
        "type nat hook prerouting priority dstnat; policy accept;",
        vec![
            format!("iifname \"qr-*\" ip daddr 169.254.169.254 tcp dport 80 redirect to :{METADATA_PORT}"),
            "dnat to ip daddr map @to_fixed".into(),
            "dnat ip to ip daddr . meta l4proto . th dport map @to_ports".into(),
        ],
    );
    let mut leaving = Vec::new();
    if let Some(gateway) = &router.gateway {
        let leg = short("qg-", &gateway.interface.port_id);
        leaving.push(format!("oifname \"{leg}\" snat to ip saddr map @to_floating"));
        leaving.push(format!("oifname \"{leg}\" ct status dnat accept"));
        let first = gateway.interface.addresses.iter().find_map(|net| v4(net.addr()));
        if let (true, Some(address)) = (gateway.enable_snat, first) {
            leaving.push(format!("oifname \"{leg}\" snat to {address}"));
        }
    }
    // Neighbours that meet by a floating address: the answer must come back through here.
    leaving.push("iifname \"qr-*\" oifname \"qr-*\" ct status dnat masquerade".into());
    table.chain("leaving", "type nat hook postrouting priority srcnat; policy accept;", leaving);
    table.chain(
        "own",
        "type filter hook input priority filter; policy accept;",
        vec![format!("tcp dport {METADATA_PORT} iifname != \"qr-*\" iifname != \"lo\" drop")],
    );
    table
}

fn forwarded(forwarding: &PortForwarding) -> impl Iterator<Item = String> {
    let (first, last) = forwarding.external_ports;
    let (inside, inside_last) = forwarding.internal_ports;
    let PortForwarding { floating, fixed, protocol, .. } = forwarding.clone();
    let is_v4 = floating.is_ipv4() && fixed.is_ipv4();
    (first..=last).filter(move |_| is_v4).map(move |port| {
        let to = inside.saturating_add(port - first).min(inside_last);
        format!("{floating} . {protocol} . {port} : {fixed} . {to}")
    })
}

/// None when no network asks for it.
pub fn host_table(networks: &BTreeMap<String, Network>) -> Option<Table> {
    let mut rules = Vec::new();
    for network in networks.values().filter(|network| network.masquerade) {
        for net in network.host_addresses.iter().filter(|net| net.addr().is_ipv4()) {
            // What is bridged passes here as well, with the bridge as its way out: that stays as it is.
            rules.push(format!("ip saddr {} oifname != \"brq*\" masquerade", net.trunc()));
        }
    }
    if rules.is_empty() {
        return None;
    }
    let mut table = Table::new(HOST_TABLE);
    table.chain("leaving", "type nat hook postrouting priority srcnat; policy accept;", rules);
    Some(table)
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(address) = address { Some(address) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        let leg = |id: &str, address: &str| {
            serde_json::json!({"port_id": format!("{id}-0000-4000-8000-000000000001"),
                "network_id": "n", "mac": "fa:16:3e:00:00:01", "addresses": [address]})
        };
        serde_json::from_value(serde_json::json!({
            "interfaces": [leg("11111111", "10.0.0.1/24")],
            "gateway": {"interface": leg("22222222", "172.24.4.5/24"), "next_hops": ["172.24.4.1"], "enable_snat": true},
            "floating_ips": [{"floating": "172.24.4.10", "fixed": "10.0.0.11"}]}))
        .unwrap()
    }

    #[test]
    fn floating_addresses_are_elements() {
        let old = router_table(&Router { floating_ips: vec![], ..router() });
        assert_eq!(
            router_table(&router()).change(&old),
            "add element ip ferrostack_router to_fixed { 172.24.4.10 : 10.0.0.11 }\n\
             add element ip ferrostack_router to_floating { 10.0.0.11 : 172.24.4.10 }\n"
        );
    }

    #[test]
    fn forwarded_ports_are_elements() {
        let forwarding = |external_ports, internal_ports| PortForwarding {
            floating: "172.24.4.11".parse().unwrap(),
            protocol: 6,
            external_ports,
            fixed: "10.0.0.12".parse().unwrap(),
            internal_ports,
        };
        let mut router = router();
        router.port_forwardings = vec![
            forwarding((2022, 2022), (22, 22)),
            forwarding((3000, 3001), (1000, 1001)),
            forwarding((8, 9), (7, 7)),
        ];
        let elements: Vec<String> = router_table(&router).sets["to_ports"].elements.iter().cloned().collect();
        assert_eq!(
            elements,
            [
                "172.24.4.11 . 6 . 2022 : 10.0.0.12 . 22",
                "172.24.4.11 . 6 . 3000 : 10.0.0.12 . 1000",
                "172.24.4.11 . 6 . 3001 : 10.0.0.12 . 1001",
                "172.24.4.11 . 6 . 8 : 10.0.0.12 . 7",
                "172.24.4.11 . 6 . 9 : 10.0.0.12 . 7",
            ]
        );
    }

    #[test]
    fn source_nat_only_when_enabled() {
        let mut router = router();
        let snat = "oifname \"qg-22222222-00\" snat to 172.24.4.5".to_string();
        assert!(router_table(&router).chains["leaving"].rules.contains(&snat));
        router.gateway.as_mut().unwrap().enable_snat = false;
        assert!(!router_table(&router).chains["leaving"].rules.contains(&snat));
        router.gateway = None;
        assert_eq!(router_table(&router).chains["leaving"].rules.len(), 1);
    }

    #[test]
    fn the_host_hides_only_what_asks_for_it() {
        let network: Network = serde_json::from_value(serde_json::json!({"mtu": 1500,
            "kind": {"flat": {"physical_network": "public"}}, "host_addresses": ["172.24.4.1/24"], "masquerade": true}))
        .unwrap();
        let id = "33333333-0000-4000-8000-000000000001".to_string();
        let table = host_table(&[(id.clone(), network.clone())].into()).unwrap();
        assert_eq!(table.chains["leaving"].rules, ["ip saddr 172.24.4.0/24 oifname != \"brq*\" masquerade"]);
        assert!(host_table(&[(id, Network { masquerade: false, ..network })].into()).is_none());
    }
}
