//! Three hosts on one machine: each is a network namespace with an agent's host part of its own, joined by a bridge as
//! their underlay, with namespaces as guests behind real VXLAN. Needs root, nftables, dnsmasq, conntrack, iproute2 and
//! busybox: `make test-host`.

use contracts::agents::network::Desired;
use host_net::{Depth, HostNet, Linux, Options};
use host_run::run;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs::File, sync::Arc, time::Duration};
use tokio::runtime::Runtime;

const NET: &str = "a1000000-0000-4000-8000-000000000001";
const DHCP: &str = "d1000000-0000-4000-8000-000000000001";
const OPEN: &str = "51000000-0000-4000-8000-000000000001";
const VNI: u32 = 91;

async fn sh(command: &str) -> String {
    run("sh").args(["-c", command]).timeout(Duration::from_secs(60)).text().await.unwrap()
}

async fn works(command: &str) -> bool {
    run("sh").args(["-c", command]).timeout(Duration::from_secs(60)).status().await.unwrap().status.success()
}

struct Host {
    name: String,
    ip: String,
    net: Arc<Linux>,
    /// All its threads live in the host's namespace.
    runtime: Option<Runtime>,
    _dir: tempfile::TempDir,
}

struct Guest {
    name: String,
    port_id: String,
    mac: String,
    ip: String,
}

struct Lab {
    underlay: String,
    hosts: Vec<Host>,
    guests: Vec<Guest>,
}

impl Lab {
    async fn new() -> Self {
        let run = &base::id::hex()[..6];
        let underlay = format!("hn-{run}-u");
        sh(&format!("ip netns add {underlay} && ip -n {underlay} link add br0 type bridge && ip -n {underlay} link set br0 up")).await;
        let mut hosts = Vec::new();
        for number in 1..=3 {
            let name = format!("hn-{run}-h{number}");
            let ip = format!("192.0.2.{number}");
            sh(&format!(
                "ip netns add {name} && ip -n {name} link set lo up &&
                 ip -n {underlay} link add h{number} type veth peer name u0 netns {name} &&
                 ip -n {underlay} link set h{number} master br0 up &&
                 ip -n {name} link set u0 up && ip -n {name} addr add {ip}/24 dev u0"
            ))
            .await;
            hosts.push(host(name, ip).await);
        }
        let mut guests = Vec::new();
        for number in 0..3 {
            let name = format!("hn-{run}-g{number}");
            sh(&format!("ip netns add {name} && ip -n {name} link set lo up")).await;
            guests.push(Guest {
                name,
                port_id: format!("b100000{number}-0000-4000-8000-000000000001"),
                mac: format!("fa:16:3e:91:00:1{number}"),
                ip: format!("10.91.0.1{number}"),
            });
        }
        Self { underlay, hosts, guests }
    }

    /// Puts a guest on a host, as a server that starts or arrives there: one end of a pair stands in for the tap.
    async fn plug(&self, guest: usize, host: usize) {
        let (Guest { name, port_id, mac, ip }, host) = (&self.guests[guest], &self.hosts[host].name);
        let tap = format!("tap{}", &port_id[..11]);
        sh(&format!(
            "ip -n {host} link del {tap} 2>/dev/null; ip -n {host} link add {tap} type veth peer name eth0 netns {name} &&
             ip -n {name} link set eth0 address {mac} && ip -n {name} link set eth0 up &&
             ip -n {name} addr add {ip}/24 dev eth0"
        ))
        .await;
    }

    async fn unplug(&self, guest: usize) {
        sh(&format!("ip -n {} link del eth0", self.guests[guest].name)).await;
    }

    async fn inside(&self, guest: usize, command: &str) -> bool {
        works(&format!("ip netns exec {} sh -c '{command}'", self.guests[guest].name)).await
    }

    /// The kernel tells a bridge of a new carrier once a second.
    async fn reaches(&self, guest: usize, other: usize) -> bool {
        let ip = &self.guests[other].ip;
        self.inside(
            guest,
            &format!(
                "for i in 1 2 3 4 5 6 7 8; do busybox ping -c 1 -W 1 {ip} >/dev/null && exit 0; done; exit 1"
            ),
        )
        .await
    }

    /// What each host shall have when these guests are where they are, as neutron says it; a guest on two hosts moves.
    async fn converge(&self, places: &[(usize, &[usize])], dhcp_on: usize) {
        for (number, host) in self.hosts.iter().enumerate() {
            let desired: Desired = serde_json::from_value(self.desired(number, places, dhcp_on)).unwrap();
            let net = host.net.clone();
            let converged = host.runtime.as_ref().unwrap().spawn(async move {
                let report = net.converge(&desired, Depth::Changes).await.unwrap();
                assert_eq!(report.failed, BTreeMap::new());
                net.converge(&desired, Depth::Everything).await.unwrap()
            });
            assert_eq!(converged.await.unwrap().failed, BTreeMap::new());
        }
    }

    fn desired(&self, host: usize, places: &[(usize, &[usize])], dhcp_on: usize) -> Value {
        let is_dhcp = dhcp_on == host;
        if !is_dhcp && !places.iter().any(|(_, hosts)| hosts.contains(&host)) {
            return json!({});
        }
        let mut remotes = Vec::new();
        let mut known = Vec::new();
        let server = "fa:16:3e:91:00:02";
        let everybody = places
            .iter()
            .map(|(guest, hosts)| (self.guests[*guest].mac.as_str(), hosts.to_vec()))
            .chain([(server, vec![dhcp_on])]);
        for (mac, hosts) in everybody {
            for other in hosts.iter().filter(|other| **other != host) {
                remotes.push(self.hosts[*other].ip.clone());
                if hosts.len() == 1 {
                    known.push(json!({"mac": mac, "host": self.hosts[*other].ip}));
                }
            }
        }
        let all: Vec<Value> = self
            .guests
            .iter()
            .map(|guest| json!({"port_id": guest.port_id, "mac": guest.mac, "addresses": [guest.ip]}))
            .collect();
        let dhcp = is_dhcp.then(|| {
            json!({"port_id": DHCP, "mac": server, "domain": "openstacklocal", "subnets": [{"id": NET,
                "cidr": "10.91.0.0/24", "address": "10.91.0.2", "gateway": null, "enable_dhcp": true}]})
        });
        let ports: BTreeMap<&str, Value> = places
            .iter()
            .filter(|(_, hosts)| hosts.contains(&host))
            .map(|(guest, _)| {
                let guest = &self.guests[*guest];
                let port = json!({"network_id": NET, "mac": guest.mac, "addresses": [guest.ip],
                    "security_groups": [OPEN], "port_security": true, "admin_state_up": true});
                (guest.port_id.as_str(), port)
            })
            .collect();
        let any = |direction: &str| json!({"direction": direction, "ethertype": "IPv4", "remote": "any"});
        json!({
            "networks": {NET: {"mtu": 1450, "hosts": all, "dhcp": dhcp, "kind": {"vxlan": {
                "vni": VNI, "local": self.hosts[host].ip, "remotes": remotes, "ports": known}}}},
            "ports": ports,
            "security_groups": {OPEN: {"rules": [any("ingress"), any("egress")]}},
        })
    }

    /// Where a host sends what is for a guest: the line of its forwarding table.
    async fn forwarding(&self, host: usize, guest: usize) -> Vec<String> {
        let lines = sh(&format!("bridge -n {} fdb show dev vxlan-{VNI}", self.hosts[host].name)).await;
        let mac = &self.guests[guest].mac;
        let to = |line: &str| {
            line.split("dst ").nth(1).map(|rest| rest.split(' ').next().unwrap_or("").to_string())
        };
        lines.lines().filter(|line| line.starts_with(mac.as_str())).filter_map(to).collect()
    }

    async fn flooded(&self, host: usize) -> Vec<String> {
        let lines = sh(&format!("bridge -n {} fdb show dev vxlan-{VNI}", self.hosts[host].name)).await;
        let to = |line: &str| {
            line.split("dst ").nth(1).map(|rest| rest.split(' ').next().unwrap_or("").to_string())
        };
        let mut hosts: Vec<String> =
            lines.lines().filter(|line| line.starts_with("00:00:00:00:00:00")).filter_map(to).collect();
        hosts.sort();
        hosts
    }

    async fn leases(&self, guest: usize) -> bool {
        self.inside(guest, "busybox udhcpc -f -q -n -t 8 -T 1 -i eth0 -s /bin/true >/dev/null 2>&1").await
    }

    async fn end(mut self) {
        for host in &self.hosts {
            let net = host.net.clone();
            host.runtime.as_ref().unwrap().spawn(async move { net.clean().await.unwrap() }).await.unwrap();
            let left = sh(&format!("ip -n {} -o link | grep -cE \"brq|vxlan\" || true", host.name)).await;
            assert_eq!(left, "0", "{}", host.name);
        }
        for host in &mut self.hosts {
            host.runtime.take().unwrap().shutdown_background();
        }
    }
}

async fn host(name: String, ip: String) -> Host {
    let path = format!("/run/netns/{name}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || {
            let namespace = File::open(&path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        })
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dir: dir.path().join("net"), metadata: None, physical_networks: BTreeMap::new() };
    let net = runtime.spawn(async move { Linux::new(options).await.unwrap() }).await.unwrap();
    Host { name, ip, net: Arc::new(net), runtime: Some(runtime), _dir: dir }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let names =
            self.hosts.iter().map(|host| &host.name).chain(self.guests.iter().map(|guest| &guest.name));
        for name in names.chain([&self.underlay]) {
            let script = format!("kill -9 $(ip netns pids {name}); ip netns del {name}");
            let _ = std::process::Command::new("sh").args(["-c", &script]).output();
        }
        for host in &mut self.hosts {
            if let Some(runtime) = host.runtime.take() {
                runtime.shutdown_background();
            }
            let script = format!("umount -l {}/net/netns/*", host._dir.path().display());
            let _ = std::process::Command::new("sh").args(["-c", &script]).output();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the programs of host-net: make test-host"]
async fn guests_of_different_hosts_are_on_one_network() {
    let lab = Lab::new().await;
    for guest in 0..3 {
        lab.plug(guest, guest).await;
    }
    lab.converge(&[(0, &[0]), (1, &[1])], 0).await;
    assert!(lab.reaches(0, 1).await, "over the tunnel");
    assert_eq!(lab.forwarding(0, 1).await, ["192.0.2.2"]);
    assert_eq!(lab.flooded(0).await, ["192.0.2.2"], "the third host has no part in it");
    assert!(!lab.inside(2, "busybox ping -c 1 -W 1 10.91.0.10").await, "nobody plugged it in");
    // The third host comes; its guest gets its address from the first host's server.
    lab.converge(&[(0, &[0]), (1, &[1]), (2, &[2])], 0).await;
    assert!(lab.reaches(2, 0).await && lab.reaches(2, 1).await);
    assert_eq!(lab.flooded(2).await, ["192.0.2.1", "192.0.2.2"]);
    assert!(lab.leases(2).await);
    // The first host dies; the second takes over its DHCP.
    sh(&format!("ip -n {} link set u0 down", lab.hosts[0].name)).await;
    assert!(!lab.leases(2).await, "nobody serves");
    lab.converge(&[(1, &[1]), (2, &[2])], 1).await;
    assert!(lab.leases(2).await, "the second host serves");
    assert!(lab.reaches(2, 1).await);
    lab.end().await;
}

/// As nova does it: the port is wired on both hosts, the guest moves, and the port is on the new one alone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the programs of host-net: make test-host"]
async fn a_guest_that_moves_stays_reachable() {
    let lab = Lab::new().await;
    for guest in 0..3 {
        lab.plug(guest, guest).await;
    }
    lab.converge(&[(0, &[0]), (1, &[1]), (2, &[2])], 2).await;
    assert!(lab.reaches(2, 0).await && lab.reaches(1, 0).await);
    let pinging = {
        let (name, ip) = (lab.guests[2].name.clone(), lab.guests[0].ip.clone());
        tokio::spawn(async move {
            sh(&format!("ip netns exec {name} ping -i 0.1 -c 100 -W 1 {ip} || true")).await
        })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    lab.converge(&[(0, &[0, 1]), (1, &[1]), (2, &[2])], 2).await;
    assert_eq!(lab.forwarding(2, 0).await, Vec::<String>::new(), "it may be on either");
    assert_eq!(lab.flooded(2).await, ["192.0.2.1", "192.0.2.2"]);
    lab.unplug(0).await;
    lab.plug(0, 1).await;
    lab.converge(&[(0, &[1, 0]), (1, &[1]), (2, &[2])], 2).await;
    // It says where it is now, as a guest does that arrives.
    let ip = &lab.guests[0].ip;
    assert!(
        lab.inside(0, &format!("for i in 1 2 3; do busybox arping -U -c 1 -w 1 -I eth0 {ip}; done; true"))
            .await
    );
    lab.converge(&[(0, &[1]), (1, &[1]), (2, &[2])], 2).await;
    assert_eq!(lab.forwarding(2, 0).await, ["192.0.2.2"]);
    assert_eq!(lab.forwarding(1, 0).await, Vec::<String>::new(), "it is here");
    let said = pinging.await.unwrap();
    let received =
        said.lines().find_map(|line| line.split(", ").nth(1)?.split(' ').next()?.parse::<u32>().ok());
    println!("{said}");
    // The new veth pair's carrier takes the bridge a second, which a tap that stood before does not.
    assert!(received.is_some_and(|received| received >= 75), "{said}");
    assert!(lab.reaches(2, 0).await && lab.reaches(1, 0).await);
    lab.end().await;
}
