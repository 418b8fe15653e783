//! Subports of a trunk on the real host part, in a network namespace of the test's own: a guest whose VLANs are other
//! networks. Needs root, nftables, dnsmasq, iproute2 and busybox: `make test-host`.

use contracts::agents::network::Desired;
use host_net::{Depth, HostNet, Linux, Options, Report, trunk};
use host_run::run;
use serde_json::json;
use std::{collections::BTreeMap, fs::File, path::Path, time::Duration};

/// The parent's network and the subports'.
const NET: &str = "a1000000-0000-4000-8000-000000000001";
const RED: &str = "a2000000-0000-4000-8000-000000000002";
const BLUE: &str = "a3000000-0000-4000-8000-000000000003";
const PARENT: &str = "b1000000-0000-4000-8000-000000000001";
const RED_SUBPORT: &str = "b2000000-0000-4000-8000-000000000002";
const BLUE_SUBPORT: &str = "b3000000-0000-4000-8000-000000000003";
const RED_PORT: &str = "b4000000-0000-4000-8000-000000000004";
const NEIGHBOUR: &str = "b5000000-0000-4000-8000-000000000005";
const GROUP: &str = "50000000-0000-4000-8000-000000000001";

async fn sh(command: &str) -> String {
    run("sh").args(["-c", command]).timeout(Duration::from_secs(30)).text().await.unwrap()
}

async fn works(command: &str) -> bool {
    run("sh").args(["-c", command]).timeout(Duration::from_secs(30)).status().await.unwrap().status.success()
}

/// A namespace behind a port's tap.
struct Guest(String);

impl Guest {
    async fn new(port_id: &str, mac: &str) -> Self {
        let name = format!("trunks-{}", &base::id::hex()[..8]);
        let tap = tap(port_id);
        sh(&format!(
            "ip netns add {name} && ip link add {tap} type veth peer name eth0 netns {name} &&
             ip netns exec {name} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6;
                 echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6' &&
             ip -n {name} link set eth0 address {mac} && ip -n {name} link set eth0 up && ip -n {name} link set lo up"
        ))
        .await;
        Self(name)
    }

    async fn does(&self, command: &str) {
        sh(&format!("ip netns exec {} {command}", self.0)).await;
    }

    async fn pings(&self, from: &str, ip: &str) -> bool {
        works(&format!("ip netns exec {} busybox ping -I {from} -c 1 -W 1 {ip} >/dev/null", self.0)).await
    }

    /// Interfaces for VLANs, as any guest makes them: here with what kernels without such have.
    async fn vlans(&self, all: &[(u16, &str)], dir: &Path) {
        let index = async |name: String| -> u32 {
            let line = sh(&format!("ip -n {} -o link show {name}", self.0)).await;
            line.split(':').next().unwrap().trim().parse().unwrap()
        };
        let eth0 = index("eth0".into()).await;
        let mut ends = Vec::new();
        for (vlan, mac) in all {
            self.does(&format!("ip link add vlan{vlan} address {mac} type veth peer name tag{vlan}")).await;
            self.does(&format!("ip link set vlan{vlan} up mtu 1400")).await;
            self.does(&format!("ip link set tag{vlan} up")).await;
            ends.push((*vlan, index(format!("tag{vlan}")).await));
        }
        let (namespace, dir) = (format!("/run/netns/{}", self.0), dir.to_path_buf());
        // Processes are born in the namespace of the thread that starts them.
        let attached = move || {
            let file = File::open(namespace).unwrap();
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let comes = trunk::from_parent(&ends).unwrap();
                trunk::attach(&dir, "eth0", trunk::INGRESS, &comes).await.unwrap();
                for (vlan, _) in ends {
                    let goes = trunk::to_parent(vlan, eth0).unwrap();
                    trunk::attach(&dir, &format!("tag{vlan}"), trunk::INGRESS, &goes).await.unwrap();
                }
            });
        };
        tokio::task::spawn_blocking(move || std::thread::spawn(attached).join().unwrap()).await.unwrap();
    }

    /// Frames that came in on a VLAN.
    async fn got(&self, vlan: u16) -> u64 {
        let file = format!("/sys/class/net/vlan{vlan}/statistics/rx_packets");
        sh(&format!("ip netns exec {} cat {file}", self.0)).await.trim().parse().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn tap(port_id: &str) -> String {
    format!("tap{}", &port_id[..11])
}

fn desired() -> Desired {
    let network = |subnet: u8, served: bool| {
        let mut network = json!({"mtu": 1450, "kind": "local", "hosts": [
            {"port_id": RED_SUBPORT, "mac": "fa:16:3e:00:00:02", "addresses": ["10.2.0.10"], "hostname": "red"}]});
        if served {
            network["dhcp"] = json!({"port_id": "d0000000-0000-4000-8000-000000000001", "mac": "fa:16:3e:00:00:ff",
                "domain": "openstacklocal", "subnets": [{"id": RED, "cidr": format!("10.{subnet}.0.0/24"),
                    "address": format!("10.{subnet}.0.2"), "gateway": null, "enable_dhcp": true}]});
        }
        network
    };
    let port = |network: &str, mac: u8, address: &str| {
        json!({"network_id": network, "mac": format!("fa:16:3e:00:00:0{mac}"), "addresses": [address],
            "security_groups": [GROUP], "port_security": true, "admin_state_up": true})
    };
    let subport = |vlan: u16, mut port: serde_json::Value| {
        port["subport"] = json!({"parent": PARENT, "vlan": vlan});
        port
    };
    let mut neighbour = port(NET, 5, "10.1.0.11");
    neighbour["port_security"] = json!(false);
    serde_json::from_value(json!({
        "networks": {NET: network(1, false), RED: network(2, true), BLUE: network(3, false)},
        "ports": {
            PARENT: port(NET, 1, "10.1.0.10"),
            RED_SUBPORT: subport(100, port(RED, 2, "10.2.0.10")),
            BLUE_SUBPORT: subport(200, port(BLUE, 3, "10.3.0.10")),
            RED_PORT: port(RED, 4, "10.2.0.11"),
            NEIGHBOUR: neighbour,
        },
        "security_groups": {GROUP: {"members": [], "rules": [
            {"direction": "egress", "ethertype": "IPv4", "remote": "any"},
            {"direction": "ingress", "ethertype": "IPv4", "protocol": 1, "remote": "any"}]}},
        "routers": {},
    }))
    .unwrap()
}

async fn converge(net: &Linux, desired: &Desired, depth: Depth) -> Report {
    let report = net.converge(desired, depth).await.unwrap();
    assert_eq!(report.failed, BTreeMap::new());
    report
}

/// Until a bridge forwards behind a new port.
async fn soon(guest: &Guest, from: &str, ip: &str) -> bool {
    for _ in 0..8 {
        if guest.pings(from, ip).await {
            return true;
        }
    }
    false
}

#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn a_guest_has_other_networks_as_vlans() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    base::logging::init("host_net=debug");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        sh("ip link set lo up").await;
        let dir = tempfile::tempdir().unwrap();
        let options =
            Options { dir: dir.path().join("net"), metadata: None, physical_networks: BTreeMap::new() };
        let net = Linux::new(options).await.unwrap();
        let guest = Guest::new(PARENT, "fa:16:3e:00:00:01").await;
        let friend = Guest::new(RED_PORT, "fa:16:3e:00:00:04").await;
        let neighbour = Guest::new(NEIGHBOUR, "fa:16:3e:00:00:05").await;
        let mut desired = desired();
        let report = converge(&net, &desired, Depth::Everything).await;
        assert!([PARENT, RED_SUBPORT, BLUE_SUBPORT].iter().all(|id| report.up.contains(*id)), "{report:?}");

        guest.does("ip addr add 10.1.0.10/24 dev eth0").await;
        guest.vlans(&[(100, "fa:16:3e:00:00:02"), (300, "fa:16:3e:00:00:03")], dir.path()).await;
        friend.does("ip addr add 10.2.0.11/24 dev eth0").await;
        neighbour.does("ip addr add 10.1.0.11/24 dev eth0").await;
        assert!(soon(&guest, "eth0", "10.1.0.11").await, "the parent has its own network");

        // The subport's network gives the VLAN an address, and its ports are reached there, both ways.
        let dhcp = "busybox udhcpc -i vlan100 -n -q -f -t 5 -T 1 -s /bin/true 2>&1";
        let leased = sh(&format!("ip netns exec {} {dhcp}", guest.0)).await;
        assert!(leased.contains("lease of 10.2.0.10 obtained"), "{leased}");
        guest.does("ip addr add 10.2.0.10/24 dev vlan100").await;
        assert!(soon(&guest, "vlan100", "10.2.0.11").await, "from the VLAN");
        assert!(soon(&friend, "eth0", "10.2.0.10").await, "to the VLAN");

        // What the subport's security group does not let in, and a foreign address, go nowhere.
        let mut closed = desired.clone();
        closed.security_groups.get_mut(GROUP).unwrap().rules.truncate(1);
        converge(&net, &closed, Depth::Changes).await;
        works("conntrack -F").await;
        assert!(!friend.pings("eth0", "10.2.0.10").await, "the subport's group lets nothing in");
        converge(&net, &desired, Depth::Changes).await;
        assert!(soon(&friend, "eth0", "10.2.0.10").await);
        guest.does("ip addr add 10.2.0.66/24 dev vlan100").await;
        assert!(!guest.pings("10.2.0.66", "10.2.0.11").await, "an address that is not the subport's");
        guest.does("ip addr del 10.2.0.66/24 dev vlan100").await;

        // Frames with tags pass between the parent's network and the guest neither way, whatever its filters say.
        desired.ports.get_mut(PARENT).unwrap().port_security = false;
        converge(&net, &desired, Depth::Changes).await;
        neighbour.vlans(&[(100, "fa:16:3e:00:00:06"), (300, "fa:16:3e:00:00:07")], dir.path()).await;
        for one in [&guest, &neighbour] {
            one.does("ip addr add 10.4.0.1/24 dev vlan300").await;
        }
        let tries = async |from: &Guest, to: &Guest, vlan: u16| {
            let before = to.got(vlan).await;
            from.does(&format!("busybox arping -q -c 5 -w 5 -I vlan{vlan} -s 10.4.0.1 10.4.0.9 || true"))
                .await;
            to.got(vlan).await - before
        };
        // Beside them only the DHCP server says something there, once.
        friend.does("ip link set eth0 down").await;
        assert!(tries(&neighbour, &guest, 100).await < 3, "who is on the parent's network is in the VLAN");
        assert!(tries(&guest, &neighbour, 300).await < 3, "an unknown VLAN leaves the guest");
        friend.does("ip link set eth0 up").await;

        // What somebody breaks is repaired.
        sh(&format!("tc qdisc del dev {} clsact", tap(PARENT))).await;
        assert!(!guest.pings("vlan100", "10.2.0.11").await);
        converge(&net, &desired, Depth::Everything).await;
        assert!(soon(&guest, "vlan100", "10.2.0.11").await, "repaired");
        sh(&format!("ip link del {}", tap(RED_SUBPORT))).await;
        converge(&net, &desired, Depth::Everything).await;
        assert!(soon(&guest, "vlan100", "10.2.0.11").await, "made anew");

        // One subport less, then none: a tap like any other, which tags pass.
        desired.ports.remove(RED_SUBPORT);
        converge(&net, &desired, Depth::Changes).await;
        assert!(!guest.pings("vlan100", "10.2.0.11").await, "no subport any more");
        desired.ports.remove(BLUE_SUBPORT);
        converge(&net, &desired, Depth::Changes).await;
        assert!(tries(&guest, &neighbour, 300).await >= 3, "the tap is no trunk any more");

        // A subport without its parent does not stand, and says why.
        let mut alone = self::desired();
        alone.ports.remove(PARENT);
        let report = net.converge(&alone, Depth::Changes).await.unwrap();
        assert!(report.failed[RED_SUBPORT].contains("is not on this host"), "{report:?}");
        assert!(report.up.contains(RED_PORT) && !report.up.contains(RED_SUBPORT));

        net.clean().await.unwrap();
        let links = sh("ip -o link | grep -E \"tap|brq|sub\" | wc -l").await;
        assert_eq!(links.trim(), "0", "{}", sh("ip link").await);
    });
}
