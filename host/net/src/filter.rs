//! Security groups and anti-spoofing as two nft tables: one in the inet family, where connections are tracked and
//! packets marked by their state, and one in the bridge family, which cannot see connections but sees the ports.
//! Bridged packets pass the first on their way because the kernel's br_netfilter sends them there.

use crate::{
    names::{bridge, short, tap},
    nft::Table,
};
use contracts::agents::network::{
    Desired, Direction, Ethertype, Limit, Mac, Port, Qos, Remote, Rule, SecurityGroup,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A burst of less than a few packets stops everything.
pub const BURST_BYTES_MIN: u64 = 16_000;

/// Marks on packets: part of a known connection; part of none and beginning none.
const KNOWN: u32 = 0x10000;
const INVALID: u32 = 0x20000;

pub const STATE_TABLE: &str = "inet ferrostack_state";
pub const PORTS_TABLE: &str = "bridge ferrostack_ports";

/// Connection tracking, in a zone per network, for addresses of networks overlap. What ports of stateless groups send
/// and get is not tracked.
pub fn state_table(zones: &BTreeMap<String, u16>, ports: &BTreeMap<String, Port>) -> Table {
    let mut table = Table::new(STATE_TABLE);
    let mut first = Vec::new();
    for port in ports.values().filter(|port| port.port_security && port.stateless) {
        let bridge = bridge(&port.network_id);
        for (family, version) in [("ip", "ipv4"), ("ip6", "ipv6")] {
            let set = format!("{version}-{bridge}");
            for side in ["saddr", "daddr"] {
                // Accepted at once: a zone that is set later would have it tracked again.
                first.push(format!("iifname \"{bridge}\" {family} {side} @{set} notrack accept"));
            }
            table.set(&set, &format!("type {version}_addr;"));
            let own = port.addresses.iter().filter(|address| address.is_ipv4() == (family == "ip"));
            own.for_each(|address| table.element(&set, address.to_string()));
        }
    }
    first.sort();
    first.dedup();
    let zone = |(network_id, zone): (&String, &u16)| format!("\"{}\" : {zone}", bridge(network_id));
    let zones: Vec<String> = zones.iter().map(zone).collect();
    // A named map cannot hold zones: nft has no type for them.
    let zone = match zones.is_empty() {
        true => Vec::new(),
        false => vec![format!("ct zone set meta iifname map {{ {} }}", zones.join(", "))],
    };
    let mark = |direction: &str, state: &str, mark: u32| {
        format!("{direction} \"brq*\" ct state {state} meta mark set meta mark or {mark:#x}")
    };
    let both = |direction: &str| {
        vec![mark(direction, "established,related", KNOWN), mark(direction, "invalid", INVALID)]
    };
    first.extend(zone);
    table.chain("zone", "type filter hook prerouting priority raw; policy accept;", first);
    table.chain("arriving", "type filter hook prerouting priority mangle; policy accept;", both("iifname"));
    table.chain("own", "type filter hook output priority mangle; policy accept;", both("oifname"));
    table
}

/// Who may send as whom, and what the groups let pass. Ports have a chain per direction that jumps to chains of
/// their groups; a port more or less is some elements and two chains.
pub fn ports_table(desired: &Desired) -> Table {
    let mut table = Table::new(PORTS_TABLE);
    table.set("guarded", "type ifname;");
    table.set("mac", "type ifname . ether_addr;");
    table.set("ipv4", "type ifname . ether_addr . ipv4_addr;");
    table.set("ipv6", "type ifname . ether_addr . ipv6_addr;");
    table.map("pairs", "type ifname : verdict;");
    table.map("egress", "type ifname : verdict;");
    table.map("ingress", "type ifname : verdict;");
    table.map("sent", "type ifname : verdict;");
    table.map("got", "type ifname : verdict;");
    base_chains(&mut table);
    for (id, port) in &desired.ports {
        add_qos(&mut table, id, &port.qos);
    }
    for (id, port) in desired.ports.iter().filter(|(_, port)| port.port_security) {
        add_port(&mut table, id, port);
    }
    let used = |id: &&String| desired.ports.values().any(|port| port.security_groups.contains(*id));
    let nobody = SecurityGroup::default();
    for id in desired.ports.values().flat_map(|port| &port.security_groups) {
        add_group(&mut table, id, desired.security_groups.get(id).unwrap_or(&nobody));
    }
    for id in desired.security_groups.keys().filter(used) {
        for rule in &desired.security_groups[id].rules {
            if let Remote::Group(remote) = &rule.remote {
                add_members(&mut table, remote, desired.security_groups.get(remote).unwrap_or(&nobody));
            }
        }
    }
    table
}

/// Addresses, by network, whose connections must be looked at anew because something they were allowed is not
/// allowed any more: known connections pass whatever the rules say.
pub fn revoked(old: &Desired, new: &Desired) -> BTreeSet<(String, IpAddr)> {
    let nobody = SecurityGroup::default();
    let mut revoked = BTreeSet::new();
    let stricter: BTreeSet<&String> = old
        .security_groups
        .iter()
        .filter(|(id, group)| {
            let now = new.security_groups.get(*id).unwrap_or(&nobody);
            group.rules.iter().any(|rule| !now.rules.contains(rule))
        })
        .map(|(id, _)| id)
        .collect();
    for (id, port) in &old.ports {
        let kept = new.ports.get(id).is_some_and(|now| {
            now.security_groups.is_superset(&port.security_groups) && now.port_security == port.port_security
        });
        if !kept || port.security_groups.iter().any(|group| stricter.contains(group)) {
            revoked.extend(port.addresses.iter().map(|address| (port.network_id.clone(), *address)));
        }
    }
    let networks: BTreeSet<&String> = new.ports.values().map(|port| &port.network_id).collect();
    for (id, group) in &old.security_groups {
        let now = new.security_groups.get(id).unwrap_or(&nobody);
        for left in group.members.difference(&now.members) {
            revoked.extend(networks.iter().map(|network| (network.to_string(), left.addr())));
        }
    }
    revoked
}

fn base_chains(table: &mut Table) {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_string()).collect::<Vec<_>>();
    // Before br_netfilter, whose hook is at 0: a spoofed packet makes no connection.
    table.chain(
        "arriving",
        "type filter hook prerouting priority dstnat; policy accept;",
        lines("iifname @guarded jump antispoof"),
    );
    // A guest is no DHCP server and no router, whatever its groups say. 0x8035 is RARP, by which QEMU says where a guest
    // is that has moved: bridges on the way learn it.
    table.chain(
        "antispoof",
        "",
        lines(
            "iifname . ether saddr != @mac drop
            ether type ip udp sport 67 udp dport 68 drop
            ether type ip6 udp sport 547 udp dport 546 drop
            icmpv6 type nd-router-advert drop
            iifname vmap @pairs
            ether type arp iifname . ether saddr . arp saddr ip != @ipv4 drop
            ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 return
            ether type ip iifname . ether saddr . ip saddr != @ipv4 drop
            ether type ip6 ip6 saddr :: return
            ether type ip6 iifname . ether saddr . ip6 saddr != @ipv6 drop
            ether type != { arp, ip, ip6, 0x8035 } drop",
        ),
    );
    // Too many packets are dropped before anything looks at them; what a guest gets is counted where it is forwarded.
    let first = "type filter hook prerouting priority -310; policy accept;";
    table.chain("sending", first, lines("iifname vmap @sent"));
    let last = "type filter hook postrouting priority 200; policy accept;";
    table.chain("getting", last, lines("oifname vmap @got"));
    // What a guest sends passes the sender's rules first and then the receiver's: two chains on one hook, so that
    // an accept in the first does not skip the second. Input and output are the host itself on the network.
    let hook =
        |hook: &str, priority: &str| format!("type filter hook {hook} priority {priority}; policy accept;");
    table.chain("leaving", &hook("forward", "-201"), lines("iifname vmap @egress"));
    table.chain("reaching", &hook("forward", "-200"), lines("oifname vmap @ingress"));
    table.chain("leaving_to_host", &hook("input", "-200"), lines("iifname vmap @egress"));
    table.chain("reaching_from_host", &hook("output", "-200"), lines("oifname vmap @ingress"));
    let known = format!(
        "ether type arp accept
        meta mark and {INVALID:#x} != 0 drop
        meta mark and {KNOWN:#x} != 0 accept\n"
    );
    let nd = "nd-neighbor-solicit, nd-neighbor-advert";
    table.chain(
        "egress_base",
        "",
        lines(&format!(
            "{known}ether type 0x8035 accept
            ether type ip udp sport 68 udp dport 67 accept
            ether type ip6 udp sport 546 udp dport 547 accept
            icmpv6 type {{ {nd}, nd-router-solicit, mld-listener-query, mld-listener-report, mld2-listener-report }} accept"
        )),
    );
    table.chain(
        "ingress_base",
        "",
        lines(&format!(
            "{known}ether type ip udp sport 67 udp dport 68 accept
            ether type ip6 udp sport 547 udp dport 546 accept
            icmpv6 type {{ {nd}, nd-router-advert, mld-listener-query }} accept"
        )),
    );
}

fn add_port(table: &mut Table, id: &str, port: &Port) {
    let tap = tap(id);
    table.element("guarded", format!("\"{tap}\""));
    let mut admit = |mac: Mac, address: Option<IpAddr>| {
        table.element("mac", format!("\"{tap}\" . {mac}"));
        table.element("ipv6", format!("\"{tap}\" . {mac} . {}", mac.link_local()));
        match address {
            Some(IpAddr::V4(ip)) => table.element("ipv4", format!("\"{tap}\" . {mac} . {ip}")),
            Some(IpAddr::V6(ip)) => table.element("ipv6", format!("\"{tap}\" . {mac} . {ip}")),
            None => {}
        }
    };
    admit(port.mac, None);
    for address in &port.addresses {
        admit(port.mac, Some(*address));
    }
    let mut wide = Vec::new();
    for pair in &port.allowed_address_pairs {
        let mac = pair.mac.unwrap_or(port.mac);
        if pair.address.prefix_len() == pair.address.max_prefix_len() {
            admit(mac, Some(pair.address.addr()));
            continue;
        }
        admit(mac, None);
        match pair.address.trunc() {
            IpNet::V4(net) => {
                wide.push(format!("ether saddr {mac} ip saddr {net} accept"));
                wide.push(format!("ether saddr {mac} arp saddr ip {net} accept"));
            }
            IpNet::V6(net) => wide.push(format!("ether saddr {mac} ip6 saddr {net} accept")),
        }
    }
    if !wide.is_empty() {
        let chain = short("pairs-", id);
        table.element("pairs", format!("\"{tap}\" : jump {chain}"));
        table.chain(&chain, "", wide);
    }
    for direction in ["egress", "ingress"] {
        let chain = format!("{direction}-{tap}");
        let mut rules = vec![format!("jump {direction}_base")];
        rules.extend(port.security_groups.iter().map(|group| format!("jump {direction}-{group}")));
        rules.push("drop".into());
        table.chain(&chain, "", rules);
        table.element(direction, format!("\"{tap}\" : jump {chain}"));
    }
}

fn add_qos(table: &mut Table, id: &str, qos: &Qos) {
    let tap = tap(id);
    let too_many = |limit: Limit| {
        let rate = limit.rate.saturating_mul(1000);
        let burst = if limit.burst == 0 { rate / 10 } else { limit.burst.saturating_mul(1000) };
        let burst = burst.clamp(5, u32::MAX.into());
        format!("limit rate over {}/second burst {burst} packets drop", rate.clamp(1, u32::MAX.into()))
    };
    // What a guest sends comes in at the host, where there is no queue: what is too much is dropped.
    let too_much = |limit: Limit| {
        let bytes = |kilobits: u64| kilobits.saturating_mul(125).clamp(BURST_BYTES_MIN, u32::MAX.into());
        let rate = limit.rate.saturating_mul(125).clamp(1, u32::MAX.into());
        let burst = bytes(if limit.burst == 0 { limit.rate / 5 * 4 } else { limit.burst });
        format!("limit rate over {rate} bytes/second burst {burst} bytes drop")
    };
    let mut sent: Vec<String> = qos.packets.egress.map(too_many).into_iter().collect();
    sent.extend(qos.bandwidth.egress.map(too_much));
    if let Some(mark) = qos.dscp {
        sent.push(format!("ether type ip ip dscp set {mark}"));
        sent.push(format!("ether type ip6 ip6 dscp set {mark}"));
    }
    let got: Vec<String> = qos.packets.ingress.map(too_many).into_iter().collect();
    for (map, rules) in [("sent", sent), ("got", got)] {
        if !rules.is_empty() {
            let chain = format!("{map}-{tap}");
            table.element(map, format!("\"{tap}\" : jump {chain}"));
            table.chain(&chain, "", rules);
        }
    }
}

fn add_group(table: &mut Table, id: &str, group: &SecurityGroup) {
    for (direction, name) in [(Direction::Egress, "egress"), (Direction::Ingress, "ingress")] {
        let rules =
            group.rules.iter().filter(|rule| rule.direction == direction).filter_map(rule_text).collect();
        table.chain(&format!("{name}-{id}"), "", rules);
    }
}

fn add_members(table: &mut Table, id: &str, group: &SecurityGroup) {
    let (v4, v6) = (format!("v4-{id}"), format!("v6-{id}"));
    table.set(&v4, "type ipv4_addr; flags interval;");
    table.set(&v6, "type ipv6_addr; flags interval;");
    // Intervals must not overlap, and an allowed pair may hold a fixed address.
    let nets4: Vec<Ipv4Net> = group.members.iter().filter_map(|net| v4_net(net.trunc())).collect();
    let nets6: Vec<Ipv6Net> = group.members.iter().filter_map(|net| v6_net(net.trunc())).collect();
    for net in Ipv4Net::aggregate(&nets4) {
        table.element(&v4, net.to_string());
    }
    for net in Ipv6Net::aggregate(&nets6) {
        table.element(&v6, net.to_string());
    }
}

fn v4_net(net: IpNet) -> Option<Ipv4Net> {
    if let IpNet::V4(net) = net { Some(net) } else { None }
}

fn v6_net(net: IpNet) -> Option<Ipv6Net> {
    if let IpNet::V6(net) = net { Some(net) } else { None }
}

/// None for a rule that can match nothing, an IPv6 range among IPv4 packets for one: nft would refuse it, and with
/// it the whole host's filters.
fn rule_text(rule: &Rule) -> Option<String> {
    let (ethertype, family, set) = match rule.ethertype {
        Ethertype::IPv4 => ("ip", "ip", "v4"),
        Ethertype::IPv6 => ("ip6", "ip6", "v6"),
    };
    let side = if rule.direction == Direction::Ingress { "saddr" } else { "daddr" };
    let mut words = vec![format!("ether type {ethertype}")];
    match &rule.remote {
        Remote::Any => {}
        Remote::Cidr(net) if net.addr().is_ipv4() != (family == "ip") => return None,
        Remote::Cidr(net) if net.prefix_len() == 0 => {}
        Remote::Cidr(net) => words.push(format!("{family} {side} {}", net.trunc())),
        Remote::Group(id) => words.push(format!("{family} {side} @{set}-{id}")),
    }
    let icmp = match (rule.protocol, rule.ethertype) {
        (Some(1), Ethertype::IPv4) => Some("icmp"),
        (Some(1 | 58), Ethertype::IPv6) => Some("icmpv6"),
        _ => None,
    };
    if let Some(icmp) = icmp {
        if rule.port_min.max(rule.port_max) > Some(u8::MAX.into()) {
            return None;
        }
        words.push(format!("meta l4proto {}", if icmp == "icmp" { 1 } else { 58 }));
        words.extend(rule.port_min.map(|kind| format!("{icmp} type {kind}")));
        words.extend(rule.port_max.map(|code| format!("{icmp} code {code}")));
    } else if let Some(protocol) = rule.protocol {
        words.push(format!("meta l4proto {protocol}"));
        match (rule.port_min, rule.port_max) {
            (Some(first), Some(last)) if first > last => return None,
            (Some(first), Some(last)) if first < last => words.push(format!("th dport {first}-{last}")),
            (Some(only), _) | (None, Some(only)) => words.push(format!("th dport {only}")),
            (None, None) => {}
        }
    }
    words.push("accept".into());
    Some(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "0e8a7f6c-1234-4000-8000-000000000001";
    const PORT: &str = "aaaaaaaa-bbbb-4000-8000-000000000001";

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rules_as_nft_writes_them() {
        let cases = [
            (r#"{"direction":"egress","ethertype":"IPv4","remote":"any"}"#, "ether type ip accept"),
            (r#"{"direction":"egress","ethertype":"IPv6","remote":"any"}"#, "ether type ip6 accept"),
            (
                r#"{"direction":"ingress","ethertype":"IPv4","protocol":6,"port_min":22,"port_max":22,"remote":{"cidr":"10.1.2.3/8"}}"#,
                "ether type ip ip saddr 10.0.0.0/8 meta l4proto 6 th dport 22 accept",
            ),
            (
                r#"{"direction":"ingress","ethertype":"IPv4","protocol":17,"port_min":1,"port_max":9,"remote":{"cidr":"0.0.0.0/0"}}"#,
                "ether type ip meta l4proto 17 th dport 1-9 accept",
            ),
            (
                r#"{"direction":"ingress","ethertype":"IPv4","protocol":1,"port_min":8,"port_max":0,"remote":"any"}"#,
                "ether type ip meta l4proto 1 icmp type 8 icmp code 0 accept",
            ),
            (
                r#"{"direction":"ingress","ethertype":"IPv6","protocol":58,"remote":"any"}"#,
                "ether type ip6 meta l4proto 58 accept",
            ),
            (
                r#"{"direction":"egress","ethertype":"IPv6","protocol":132,"remote":{"group":"0e8a7f6c-1234-4000-8000-000000000001"}}"#,
                "ether type ip6 ip6 daddr @v6-0e8a7f6c-1234-4000-8000-000000000001 meta l4proto 132 accept",
            ),
        ];
        for (json, text) in cases {
            assert_eq!(rule_text(&rule(json)).as_deref(), Some(text));
        }
        for json in [
            r#"{"direction":"ingress","ethertype":"IPv4","remote":{"cidr":"::/0"}}"#,
            r#"{"direction":"ingress","ethertype":"IPv4","protocol":6,"port_min":9,"port_max":1,"remote":"any"}"#,
            r#"{"direction":"ingress","ethertype":"IPv4","protocol":1,"port_min":256,"remote":"any"}"#,
        ] {
            assert_eq!(rule_text(&rule(json)), None, "{json}");
        }
    }

    fn desired() -> Desired {
        let port = serde_json::json!({"network_id": GROUP, "mac": "fa:16:3e:00:00:01",
            "addresses": ["10.0.0.5", "fd00::5"], "port_security": true, "admin_state_up": true,
            "security_groups": [GROUP],
            "allowed_address_pairs": [{"mac": null, "address": "10.9.0.0/16"}, {"mac": null, "address": "10.0.0.9/32"}]});
        let group = serde_json::json!({"members": ["10.0.0.5/32", "10.0.0.4/32", "10.9.0.0/16", "10.9.1.1/32"],
            "rules": [{"direction": "ingress", "ethertype": "IPv4", "remote": {"group": GROUP}}]});
        serde_json::from_value(serde_json::json!({"ports": {PORT: port}, "security_groups": {GROUP: group}}))
            .unwrap()
    }

    #[test]
    fn a_port_is_elements_and_chains() {
        let table = ports_table(&desired());
        let elements = |name: &str| table.sets[name].elements.iter().cloned().collect::<Vec<_>>().join(" | ");
        assert_eq!(
            elements("ipv4"),
            "\"tapaaaaaaaa-bb\" . fa:16:3e:00:00:01 . 10.0.0.5 | \"tapaaaaaaaa-bb\" . fa:16:3e:00:00:01 . 10.0.0.9"
        );
        assert!(elements("ipv6").contains("fe80::f816:3eff:fe00:1"));
        assert_eq!(elements(&format!("v4-{GROUP}")), "10.0.0.4/31 | 10.9.0.0/16");
        assert_eq!(
            table.chains["ingress-tapaaaaaaaa-bb"].rules,
            ["jump ingress_base", &format!("jump ingress-{GROUP}"), "drop"]
        );
        assert_eq!(elements("pairs"), "\"tapaaaaaaaa-bb\" : jump pairs-aaaaaaaa-bb");
    }

    #[test]
    fn stateless_ports_are_not_tracked() {
        let mut desired = desired();
        let zones = BTreeMap::from([(GROUP.to_string(), 7)]);
        let old = state_table(&zones, &desired.ports);
        assert_eq!(
            old.chains["zone"].rules.last().unwrap(),
            "ct zone set meta iifname map { \"brq0e8a7f6c-12\" : 7 }"
        );
        desired.ports.get_mut(PORT).unwrap().stateless = true;
        let new = state_table(&zones, &desired.ports);
        assert_eq!(
            new.chains["zone"].rules,
            [
                "iifname \"brq0e8a7f6c-12\" ip daddr @ipv4-brq0e8a7f6c-12 notrack accept",
                "iifname \"brq0e8a7f6c-12\" ip saddr @ipv4-brq0e8a7f6c-12 notrack accept",
                "iifname \"brq0e8a7f6c-12\" ip6 daddr @ipv6-brq0e8a7f6c-12 notrack accept",
                "iifname \"brq0e8a7f6c-12\" ip6 saddr @ipv6-brq0e8a7f6c-12 notrack accept",
                "ct zone set meta iifname map { \"brq0e8a7f6c-12\" : 7 }",
            ]
        );
        assert!(new.sets["ipv6-brq0e8a7f6c-12"].elements.contains("fd00::5"));
    }

    #[test]
    fn a_port_without_security_is_not_mentioned() {
        let mut desired = desired();
        desired.ports.get_mut(PORT).unwrap().port_security = false;
        let table = ports_table(&desired);
        assert!(table.sets["guarded"].elements.is_empty() && table.sets["ingress"].elements.is_empty());
    }

    #[test]
    fn marks_and_limits_of_packets() {
        let mut desired = desired();
        let old = ports_table(&desired);
        let port = desired.ports.get_mut(PORT).unwrap();
        port.qos.dscp = Some(26);
        port.qos.packets.egress = Some(Limit { rate: 2, burst: 1 });
        let new = ports_table(&desired);
        assert_eq!(
            new.chains["sent-tapaaaaaaaa-bb"].rules,
            [
                "limit rate over 2000/second burst 1000 packets drop",
                "ether type ip ip dscp set 26",
                "ether type ip6 ip6 dscp set 26"
            ]
        );
        assert!(!new.chains.contains_key("got-tapaaaaaaaa-bb"));
        assert_eq!(new.change(&old).lines().count(), 5);
    }

    /// One port among a thousand is some lines, not the table again.
    #[test]
    fn one_more_port_is_a_small_change() {
        let mut desired = desired();
        for number in 0..1000u32 {
            let mut port = desired.ports[PORT].clone();
            port.mac = Mac([0xfa, 0x16, 0x3e, 1, (number >> 8) as u8, number as u8]);
            desired.ports.insert(format!("{number:08x}-0000-4000-8000-000000000001"), port);
        }
        let old = ports_table(&desired);
        let port = desired.ports[PORT].clone();
        desired.ports.insert("ffffffff-0000-4000-8000-000000000001".into(), port);
        let script = ports_table(&desired).change(&old);
        assert!(script.lines().count() < 20, "{script}");
    }
}
