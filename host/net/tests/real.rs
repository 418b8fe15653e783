//! The real host part, in a network namespace of the test's own, with veth pairs as guests. Needs root, nftables,
//! dnsmasq, conntrack, iproute2 and busybox, and the guest image: `make test-host`.

use base::Secret;
use contracts::agents::network::{AddressPair, Desired, FloatingIp, Network, NetworkKind, Remote};
use host_net::{Depth, HostNet, Linux, MetadataOptions, Options, Report};
use host_run::run;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const NET: &str = "a0000000-0000-4000-8000-000000000001";
const EXT: &str = "e0000000-0000-4000-8000-000000000001";
const ROUTER: &str = "c0000000-0000-4000-8000-000000000001";
const FRIENDS: &str = "50000000-0000-4000-8000-000000000001";
const ALONE: &str = "50000000-0000-4000-8000-000000000002";

/// A guest, which is a namespace with one end of a pair whose other end is the port's tap.
struct Guest {
    name: String,
    port_id: String,
    mac: String,
    ip: String,
}

struct Bench {
    dir: tempfile::TempDir,
    net: Linux,
    guests: BTreeMap<&'static str, Guest>,
    desired: Desired,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Runs a story in a namespace of its own: threads are born where their parent is.
fn story<F: Future<Output = ()>>(tell: impl FnOnce(Bench) -> F) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    base::logging::init("host_net=debug");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        sh("ip link set lo up").await;
        tell(Bench::new().await).await;
    });
}

/// DHCP servers that have their files below the folder.
fn servers(dir: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let lines =
        processes.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with("dnsmasq") && line.contains(&dir.display().to_string())).collect()
}

async fn sh(command: &str) -> String {
    run("sh").args(["-c", command]).timeout(Duration::from_secs(30)).text().await.unwrap()
}

async fn works(command: &str) -> bool {
    run("sh").args(["-c", command]).timeout(Duration::from_secs(30)).status().await.unwrap().status.success()
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(nova(listener, asked.clone()));
        let metadata = Some(MetadataOptions { address, shared_secret: Secret::new("secret") });
        let net =
            Linux::new(Options { dir: dir.path().join("net"), metadata, physical_networks: BTreeMap::new() })
                .await
                .unwrap();
        let mut guests = BTreeMap::new();
        for (number, key) in ["a", "b", "c"].into_iter().enumerate() {
            let guest = Guest {
                name: format!("hostnet-{}-{key}", &base::id::hex()[..8]),
                port_id: format!("b000000{number}-0000-4000-8000-000000000001"),
                mac: format!("fa:16:3e:77:00:1{number}"),
                ip: format!("10.77.0.1{number}"),
            };
            guest.plug().await;
            guests.insert(key, guest);
        }
        let desired = desired(&guests);
        Self { dir, net, guests, desired, asked }
    }

    async fn converge(&self, depth: Depth) -> Report {
        let report = self.net.converge(&self.desired, depth).await.unwrap();
        assert_eq!(report.failed, BTreeMap::new());
        report
    }

    async fn inside(&self, guest: &str, command: &str) -> String {
        sh(&format!("ip netns exec {} sh -c '{command}'", self.guests[guest].name)).await
    }

    async fn tries(&self, guest: &str, command: &str) -> bool {
        works(&format!("ip netns exec {} sh -c '{command}'", self.guests[guest].name)).await
    }

    async fn pings(&self, guest: &str, ip: &str) -> bool {
        self.tries(guest, &format!("busybox ping -c 1 -W 1 {ip} >/dev/null")).await
    }

    /// Whether the guest reaches a server; what it says must arrive.
    async fn reaches(&self, guest: &str, ip: &str, port: u16) -> bool {
        self.tries(guest, &format!("busybox timeout 2 busybox nc {ip} {port} </dev/null | grep -q hello"))
            .await
    }

    /// The kernel tells a bridge of a new carrier once a second: until then the port forwards nothing.
    async fn settle(&self) {
        for ip in ["10.77.0.11", "10.77.0.12", "10.77.0.1", "10.77.0.2"] {
            let arp = format!(
                "for i in 1 2 3 4 5; do busybox arping -q -f -c 1 -w 1 -I eth0 {ip} && exit 0; done; exit 1"
            );
            assert!(self.tries("a", &arp).await, "{ip} is on the network");
        }
    }

    async fn configure(&self, guest: &str) {
        let ip = &self.guests[guest].ip;
        self.inside(
            guest,
            &format!("ip addr replace {ip}/24 dev eth0; ip route replace default via 10.77.0.1"),
        )
        .await;
    }

    /// A server in the guest that says hello.
    fn serve(&self, guest: &str, port: u16) {
        let command = format!("exec busybox nc -ll -p {port} -e echo hello");
        let child = tokio::process::Command::new("ip")
            .args(["netns", "exec", &self.guests[guest].name, "sh", "-c", &command])
            .process_group(0)
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        tokio::spawn(async move {
            let mut child = child;
            child.wait().await
        });
    }

    fn rules(&mut self, group: &str, rules: serde_json::Value) {
        self.desired.security_groups.get_mut(group).unwrap().rules = serde_json::from_value(rules).unwrap();
    }

    async fn end(&self) {
        self.net.clean().await.unwrap();
        for guest in self.guests.values() {
            guest.remove();
            if !self.desired.ports.contains_key(&guest.port_id) {
                works(&format!("ip link del {}", guest.tap())).await;
            }
        }
        let links = sh("ip -o link | grep -E \"tap|brq|vxlan\" | wc -l").await;
        assert_eq!(links, "0", "{}", sh("ip link").await);
        assert_eq!(sh("nft list tables | grep ferrostack | wc -l").await, "0");
        assert_eq!(std::fs::read_dir(self.dir.path().join("net")).unwrap().count(), 0);
        assert_eq!(servers(self.dir.path()), Vec::<String>::new());
    }
}

/// What a failed story leaves: its DHCP server and the files of its namespaces.
impl Drop for Bench {
    fn drop(&mut self) {
        let dir = self.dir.path().display();
        let script = format!("kill -9 $(cat {dir}/net/dhcp/*/pid); umount -l {dir}/net/netns/*");
        let _ = std::process::Command::new("sh").args(["-c", &script]).output();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Guest {
    fn remove(&self) {
        let name = &self.name;
        let script =
            format!("[ -e /run/netns/{name} ] && kill -9 $(ip netns pids {name}); ip netns del {name}");
        let _ = std::process::Command::new("sh").args(["-c", &script]).output();
    }

    fn tap(&self) -> String {
        format!("tap{}", &self.port_id[..11])
    }

    async fn plug(&self) {
        let Self { name, mac, .. } = self;
        let tap = self.tap();
        sh(&format!(
            "[ -e /run/netns/{name} ] || ip netns add {name}; ip link add {tap} type veth peer name eth0 netns {name} &&
             ip -n {name} link set eth0 address {mac} && ip -n {name} link set eth0 up && ip -n {name} link set lo up"
        ))
        .await;
    }
}

/// A metadata service that remembers what it was asked and answers.
async fn nova(listener: TcpListener, asked: Arc<Mutex<Vec<String>>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            request.push(byte[0]);
        }
        asked.lock().unwrap().push(String::from_utf8_lossy(&request).to_lowercase());
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nlatest")
            .await;
    }
}

fn desired(guests: &BTreeMap<&str, Guest>) -> Desired {
    let any = |direction: &str| json!({"direction": direction, "ethertype": "IPv4", "remote": "any"});
    let port = |key: &str, group: &str| {
        json!({"network_id": NET, "mac": guests[key].mac, "addresses": [guests[key].ip],
            "security_groups": [group], "port_security": true, "admin_state_up": true})
    };
    let hosts: Vec<_> = guests
        .iter()
        .map(|(key, guest)| {
            json!({"port_id": guest.port_id, "mac": guest.mac, "addresses": [guest.ip],
                "hostname": format!("guest-{key}"), "device_id": format!("instance-{key}"), "project_id": "project"})
        })
        .collect();
    let desired = json!({
        "networks": {
            NET: {"mtu": 1450, "kind": {"vxlan": {"vni": 77, "local": "127.0.0.1", "remotes": ["192.0.2.2", "192.0.2.3"],
                    "ports": [{"mac": "fa:16:3e:77:00:99", "host": "192.0.2.2"}]}},
                "hosts": hosts,
                "dhcp": {"port_id": "d0000000-0000-4000-8000-000000000001", "mac": "fa:16:3e:77:00:02",
                    "domain": "openstacklocal", "subnets": [{"id": NET, "cidr": "10.77.0.0/24", "address": "10.77.0.2",
                        "gateway": "10.77.0.1", "dns_servers": ["9.9.9.9"], "enable_dhcp": true}]}},
            EXT: {"mtu": 1500, "kind": {"flat": {"physical_network": "public"}}, "host_addresses": ["172.31.77.1/24"],
                "masquerade": true},
        },
        "ports": {
            guests["a"].port_id.as_str(): port("a", FRIENDS),
            guests["b"].port_id.as_str(): port("b", FRIENDS),
            guests["c"].port_id.as_str(): port("c", ALONE),
        },
        "security_groups": {
            FRIENDS: {"members": ["10.77.0.10/32", "10.77.0.11/32"], "rules": [any("egress"),
                {"direction": "ingress", "ethertype": "IPv4", "protocol": 1, "remote": {"group": FRIENDS}},
                {"direction": "ingress", "ethertype": "IPv4", "protocol": 6, "port_min": 22, "port_max": 22, "remote": "any"}]},
            ALONE: {"members": ["10.77.0.12/32"], "rules": [any("egress")]},
        },
        "routers": {ROUTER: {
            "interfaces": [{"port_id": "f0000000-0000-4000-8000-000000000001", "network_id": NET,
                "mac": "fa:16:3e:77:00:01", "addresses": ["10.77.0.1/24"]}],
            "gateway": {"enable_snat": true, "next_hops": ["172.31.77.1"],
                "interface": {"port_id": "f1000000-0000-4000-8000-000000000001", "network_id": EXT,
                    "mac": "fa:16:3e:77:01:01", "addresses": ["172.31.77.5/24"]}},
            "floating_ips": [{"floating": "172.31.77.10", "fixed": "10.77.0.10"}]}},
    });
    serde_json::from_value(desired).unwrap()
}

/// A server on the host that answers with the address it was asked from.
async fn mirror() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let _ = stream.write_all(format!("hello {}\n", peer.ip()).as_bytes()).await;
        }
    });
    port
}

async fn host_reaches(ip: &str, port: u16) -> bool {
    works(&format!("busybox timeout 2 busybox nc {ip} {port} </dev/null | grep -q hello")).await
}

#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn dhcp_gives_what_neutron_promises() {
    story(async |bench| {
        bench.converge(Depth::Everything).await;
        let script = bench.dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n[ $1 = bound ] && env > $OUT\nexit 0\n").unwrap();
        sh(&format!("chmod +x {}", script.display())).await;
        let out = bench.dir.path().join("lease");
        let client = format!(
            "OUT={} busybox udhcpc -f -q -n -t 5 -T 1 -i eth0 -s {} -O mtu -O staticroutes",
            out.display(),
            script.display()
        );
        bench.inside("a", &client).await;
        let lease = std::fs::read_to_string(&out).unwrap();
        for line in [
            "ip=10.77.0.10",
            "mask=24",
            "router=10.77.0.1",
            "dns=9.9.9.9",
            "mtu=1450",
            "hostname=guest-a",
            "domain=openstacklocal",
            "staticroutes=169.254.169.254/32 10.77.0.2 0.0.0.0/0 10.77.0.1",
        ] {
            assert!(lease.lines().any(|have| have == line), "no {line} in\n{lease}");
        }
        bench.end().await;
    });
}

#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn security_groups_and_spoofing() {
    story(async |mut bench| {
        let report = bench.converge(Depth::Everything).await;
        assert_eq!(report.up.len(), 6, "{report:?}");
        for guest in ["a", "b", "c"] {
            bench.configure(guest).await;
            bench.serve(guest, 22);
            bench.serve(guest, 23);
        }
        bench.settle().await;
        assert!(bench.pings("a", "10.77.0.11").await, "a friend");
        assert!(!bench.pings("c", "10.77.0.10").await, "no friend");
        assert!(!bench.pings("a", "10.77.0.12").await, "nothing comes in");
        assert!(bench.reaches("c", "10.77.0.10", 22).await, "open to all, and the answer comes back");
        assert!(!bench.reaches("c", "10.77.0.10", 23).await, "not open");
        assert!(!bench.reaches("a", "10.77.0.12", 22).await, "nothing comes in");

        // The group changes while the guests run.
        let groups = &mut bench.desired.security_groups;
        let (friends, c) = (groups[FRIENDS].members.clone(), groups[ALONE].members.clone());
        groups.get_mut(FRIENDS).unwrap().members = friends.union(&c).copied().collect::<BTreeSet<_>>().into();
        bench.converge(Depth::Changes).await;
        assert!(bench.pings("c", "10.77.0.10").await, "a friend now");
        bench.desired.security_groups.get_mut(FRIENDS).unwrap().members = friends;
        bench.converge(Depth::Changes).await;
        assert!(!bench.pings("c", "10.77.0.10").await, "no friend any more");

        // What was allowed ends with the rule, known connections included.
        let file = bench.dir.path().join("flow");
        let flow = format!("busybox ping -i 1 -c 5 -W 1 10.77.0.11 > {}; true", file.display());
        let flow = bench.inside("a", &flow);
        let all = bench.desired.clone();
        let cut = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let mut strict = all.clone();
            strict.security_groups.get_mut(FRIENDS).unwrap().rules.retain(|rule| rule.remote == Remote::Any);
            bench.net.converge(&strict, Depth::Changes).await.unwrap();
        };
        tokio::join!(flow, cut);
        let seen = std::fs::read_to_string(&file).unwrap().matches(" bytes from").count();
        assert!((1..=3).contains(&seen), "{seen} answers of 5");

        // Out: only to one port.
        bench.rules(
            ALONE,
            json!([{"direction": "egress", "ethertype": "IPv4", "protocol": 6, "port_min": 22, "port_max": 22, "remote": "any"}]),
        );
        bench.rules(FRIENDS, json!([{"direction": "ingress", "ethertype": "IPv4", "remote": "any"}]));
        bench.converge(Depth::Changes).await;
        assert!(bench.reaches("c", "10.77.0.10", 22).await);
        assert!(!bench.reaches("c", "10.77.0.10", 23).await, "nothing but 22 leaves");
        assert!(!bench.pings("a", "10.77.0.11").await, "nothing leaves");

        // Nobody speaks in another's name.
        bench.desired = desired(&bench.guests);
        bench.converge(Depth::Changes).await;
        assert!(bench.pings("a", "10.77.0.11").await);
        bench.inside("a", "ip addr add 10.77.0.99/24 dev eth0").await;
        let spoof = "busybox ping -c 1 -W 1 -I 10.77.0.99 10.77.0.11 >/dev/null";
        bench.inside("b", "ip neigh replace 10.77.0.99 lladdr fa:16:3e:77:00:10 dev eth0").await;
        bench.rules(
            FRIENDS,
            json!([{"direction": "egress", "ethertype": "IPv4", "remote": "any"},
            {"direction": "ingress", "ethertype": "IPv4", "remote": "any"}]),
        );
        bench.converge(Depth::Changes).await;
        assert!(!bench.tries("a", spoof).await, "an address that is not its own");
        let id = bench.guests["a"].port_id.clone();
        let pair = AddressPair { mac: None, address: "10.77.0.96/28".parse().unwrap() };
        bench.desired.ports.get_mut(&id).unwrap().allowed_address_pairs.push(pair);
        bench.converge(Depth::Changes).await;
        assert!(bench.tries("a", spoof).await, "an allowed address pair");
        bench.inside("a", "ip link set eth0 address fa:16:3e:66:66:66").await;
        bench.inside("b", "ip neigh flush all").await;
        assert!(!bench.pings("a", "10.77.0.11").await, "a MAC address that is not its own");
        bench.desired.ports.get_mut(&id).unwrap().port_security = false;
        bench.converge(Depth::Changes).await;
        assert!(bench.pings("a", "10.77.0.11").await, "without port security all goes");
        bench.end().await;
    });
}

#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn routers_floating_addresses_and_metadata() {
    story(async |mut bench| {
        bench.converge(Depth::Everything).await;
        for guest in ["a", "b", "c"] {
            bench.configure(guest).await;
            bench.serve(guest, 22);
        }
        let port = mirror().await;
        let from = async |bench: &Bench, guest: &str| {
            bench.inside(guest, &format!("busybox timeout 2 busybox nc 172.31.77.1 {port} </dev/null")).await
        };
        bench.settle().await;
        assert_eq!(from(&bench, "c").await, "hello 172.31.77.5", "through the gateway's address");
        assert_eq!(from(&bench, "a").await, "hello 172.31.77.10", "through its own floating address");
        assert!(host_reaches("172.31.77.10", 22).await, "in by the floating address");
        assert!(bench.reaches("b", "172.31.77.10", 22).await, "a neighbour by the floating address");
        assert!(bench.reaches("a", "172.31.77.10", 22).await, "itself by the floating address");

        // Guests see who really comes.
        bench.desired.networks.get_mut(EXT).unwrap().host_addresses.push("172.31.77.9/24".parse().unwrap());
        bench.rules(
            FRIENDS,
            json!([{"direction": "egress", "ethertype": "IPv4", "remote": "any"},
            {"direction": "ingress", "ethertype": "IPv4", "remote": "any"}]),
        );
        bench.converge(Depth::Changes).await;
        let only = "nft add table ip t; nft \"add chain ip t c { type filter hook input priority 0; }\";
            nft add rule ip t c icmp type echo-request ip saddr != 172.31.77.9 drop";
        bench.inside("a", only).await;
        assert!(!works("busybox ping -c 1 -W 1 -I 172.31.77.1 172.31.77.10").await);
        assert!(works("busybox ping -c 1 -W 1 -I 172.31.77.9 172.31.77.10").await);

        // The address moves to another guest.
        let router = bench.desired.routers.get_mut(ROUTER).unwrap();
        router.floating_ips = vec![FloatingIp {
            floating: "172.31.77.11".parse().unwrap(),
            fixed: "10.77.0.11".parse().unwrap(),
        }];
        bench.converge(Depth::Changes).await;
        assert!(!host_reaches("172.31.77.10", 22).await, "gone");
        assert!(host_reaches("172.31.77.11", 22).await, "come");
        assert_eq!(from(&bench, "a").await, "hello 172.31.77.5");

        let router = bench.desired.routers.get_mut(ROUTER).unwrap();
        router.gateway.as_mut().unwrap().enable_snat = false;
        bench.converge(Depth::Changes).await;
        assert_eq!(from(&bench, "b").await, "hello 172.31.77.11", "floating addresses need no source NAT");

        for down in [true, false] {
            bench.desired.routers.get_mut(ROUTER).unwrap().down = down;
            let report = bench.converge(Depth::Changes).await;
            assert_eq!(host_reaches("172.31.77.11", 22).await, !down);
            let interface = &bench.desired.routers[ROUTER].interfaces[0].port_id;
            assert!(report.up.contains(interface), "plugged all the same");
        }

        // By the DHCP server and by the router.
        let ask = "busybox wget -q -O - http://169.254.169.254/latest";
        assert_eq!(bench.inside("a", ask).await, "latest");
        bench.inside("b", "ip route add 169.254.169.254/32 via 10.77.0.2").await;
        assert_eq!(bench.inside("b", &format!("{ask} --header \"X-Instance-ID: other\"")).await, "latest");
        let asked = bench.asked.lock().unwrap().clone();
        let signature = "x-instance-id-signature: ";
        assert!(asked[0].starts_with("get /latest http/1.1\r\n"), "{}", asked[0]);
        for (number, parts) in [
            [
                format!("x-neutron-router-id: {ROUTER}\r\n"),
                "x-forwarded-for: 10.77.0.10\r\n".into(),
                "x-instance-id: instance-a\r\n".into(),
                "x-tenant-id: project\r\n".into(),
                signature.into(),
            ],
            [
                format!("x-neutron-network-id: {NET}\r\n"),
                "x-forwarded-for: 10.77.0.11\r\n".into(),
                "x-instance-id: instance-b\r\n".into(),
                "x-tenant-id: project\r\n".into(),
                signature.into(),
            ],
        ]
        .into_iter()
        .enumerate()
        {
            for part in parts {
                assert!(asked[number].contains(&part), "no {part} in {}", asked[number]);
            }
        }
        assert!(!asked[1].contains("other"), "a guest says who it is: {}", asked[1]);
        bench.end().await;
    });
}

/// A queue on the guest's tap and marks on its packets.
#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn ports_are_limited_and_marked() {
    story(async |mut bench| {
        bench.rules(
            FRIENDS,
            json!([{"direction": "egress", "ethertype": "IPv4", "remote": "any"},
            {"direction": "ingress", "ethertype": "IPv4", "remote": "any"}]),
        );
        bench.converge(Depth::Everything).await;
        for guest in ["a", "b", "c"] {
            bench.configure(guest).await;
        }
        bench.settle().await;
        // What arrives in three seconds.
        let bytes = async |from: &str, to: &str, port: u16| {
            let (ip, name) = (bench.guests[to].ip.clone(), bench.guests[to].name.clone());
            let listen = format!(
                "ip netns exec {name} sh -c 'sleep 4 | busybox timeout 4 busybox nc -l -p {port} | wc -c'"
            );
            let listening = tokio::spawn(async move { sh(&listen).await });
            tokio::time::sleep(Duration::from_millis(300)).await;
            bench.inside(from, &format!("busybox timeout 3 busybox nc {ip} {port} </dev/zero; true")).await;
            listening.await.unwrap().trim().parse::<u64>().unwrap()
        };
        let free = bytes("a", "b", 5001).await;
        let port = bench.guests["a"].port_id.clone();
        for (direction, from, to, number) in [("egress", "a", "b", 5002), ("ingress", "b", "a", 5003)] {
            let qos = json!({"bandwidth": {direction: {"rate": 4000, "burst": 400}}});
            let mut desired = bench.desired.clone();
            desired.ports.get_mut(&port).unwrap().qos = serde_json::from_value(qos).unwrap();
            bench.net.converge(&desired, Depth::Changes).await.unwrap();
            let limited = bytes(from, to, number).await;
            println!("{direction}: {limited} bytes, without a limit {free}");
            // Four megabits a second are a megabyte and a half.
            assert!(
                (50_000..3_000_000).contains(&limited) && free > 10 * limited,
                "{direction}: {limited} of {free}"
            );
        }
        bench.converge(Depth::Changes).await;
        let tap = bench.guests["a"].tap();
        let queues = sh(&format!("tc qdisc show dev {tap}")).await;
        assert!(!queues.contains("tbf"), "{queues}");

        bench.desired.ports.get_mut(&port).unwrap().qos.dscp = Some(26);
        bench.converge(Depth::Changes).await;
        let count = "nft add table ip t; nft \"add chain ip t c { type filter hook input priority 0; }\";
            nft add rule ip t c ip dscp 26 counter";
        bench.inside("b", count).await;
        assert!(bench.pings("a", "10.77.0.11").await);
        assert!(bench.inside("b", "nft list table ip t").await.contains("packets 1"), "marked");

        let qos = json!({"packets": {"egress": {"rate": 1, "burst": 1}}});
        bench.desired.ports.get_mut(&port).unwrap().qos = serde_json::from_value(qos).unwrap();
        bench.converge(Depth::Changes).await;
        let flood = "ping -q -f -c 6000 -w 2 10.77.0.11 | tail -3";
        let said = bench.inside("a", flood).await;
        let received = said.split(", ").nth(1).and_then(|part| part.split(' ').next()?.parse::<u32>().ok());
        assert!(received.is_some_and(|received| (500..=4000).contains(&received)), "{said}");
        bench.end().await;
    });
}

/// Several guests behind one address, by its ports.
#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn ports_of_an_address_are_forwarded() {
    story(async |mut bench| {
        bench.desired.routers.get_mut(ROUTER).unwrap().floating_ips.clear();
        bench.converge(Depth::Everything).await;
        for guest in ["a", "b", "c"] {
            bench.configure(guest).await;
            bench.serve(guest, 22);
        }
        bench.settle().await;
        let forwarding = |fixed: &str, outside: [u16; 2], inside: [u16; 2]| {
            json!({"floating": "172.31.77.12", "protocol": 6, "external_ports": outside, "fixed": fixed,
                "internal_ports": inside})
        };
        let all = json!([
            forwarding("10.77.0.10", [2022, 2022], [22, 22]),
            forwarding("10.77.0.11", [3000, 3009], [20, 29])
        ]);
        bench.desired.routers.get_mut(ROUTER).unwrap().port_forwardings =
            serde_json::from_value(all).unwrap();
        bench.converge(Depth::Changes).await;
        assert!(host_reaches("172.31.77.12", 2022).await, "one port");
        assert!(host_reaches("172.31.77.12", 3002).await, "the third of a range is the third inside");
        assert!(!host_reaches("172.31.77.12", 3003).await && !host_reaches("172.31.77.12", 22).await);
        assert!(bench.reaches("c", "172.31.77.12", 2022).await, "a neighbour by the floating address");
        bench.desired.routers.get_mut(ROUTER).unwrap().port_forwardings.remove(0);
        bench.converge(Depth::Changes).await;
        assert!(!host_reaches("172.31.77.12", 2022).await, "gone");
        assert!(host_reaches("172.31.77.12", 3002).await, "the other stays");
        bench.end().await;
    });
}

/// Groups that know no connections: an answer comes in if a rule lets it in.
#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn stateless_groups_judge_each_packet() {
    story(async |mut bench| {
        bench.converge(Depth::Everything).await;
        for guest in ["a", "c"] {
            bench.configure(guest).await;
            bench.serve(guest, 22);
        }
        bench.configure("b").await;
        bench.settle().await;
        assert!(bench.reaches("c", "10.77.0.10", 22).await, "the answer belongs to a connection");
        let port = bench.guests["c"].port_id.clone();
        bench.desired.ports.get_mut(&port).unwrap().stateless = true;
        bench.converge(Depth::Changes).await;
        works("conntrack -D -s 10.77.0.12").await;
        assert!(!bench.reaches("c", "10.77.0.10", 22).await, "nobody knows of a connection");
        bench.rules(
            ALONE,
            json!([{"direction": "egress", "ethertype": "IPv4", "remote": "any"},
            {"direction": "ingress", "ethertype": "IPv4", "protocol": 6, "remote": "any"}]),
        );
        // The other side's answers must be let out as well, for they are of no connection either: its rules do.
        bench.converge(Depth::Changes).await;
        assert!(bench.reaches("c", "10.77.0.10", 22).await, "a rule lets the answer in");
        assert_eq!(sh("conntrack -L -s 10.77.0.12 2>/dev/null | wc -l").await, "0", "nothing is tracked");
        bench.end().await;
    });
}

#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn what_somebody_breaks_is_repaired() {
    story(async |bench| {
        bench.converge(Depth::Everything).await;
        for guest in ["a", "b", "c"] {
            bench.configure(guest).await;
            bench.serve(guest, 22);
        }
        let dir = bench.dir.path().join("net");
        let pid = || std::fs::read_to_string(dir.join(format!("dhcp/{NET}/pid"))).unwrap().trim().to_string();
        let first = pid();
        let enter = format!("nsenter --net={}/netns/qrouter-{ROUTER}", dir.display());
        let dhcp = format!("nsenter --net={}/netns/qdhcp-{NET}", dir.display());
        let tap = bench.guests["a"].tap();
        let breaks = [
            format!("ip link del {tap}"),
            "ip link del brqa0000000-00".into(),
            "ip link del vxlan-77".into(),
            "ip link del brqe0000000-00".into(),
            "nft delete table bridge ferrostack_ports".into(),
            "nft flush chain bridge ferrostack_ports ingress-tapb0000002-00".into(),
            "nft delete table inet ferrostack_state".into(),
            "nft delete table ip ferrostack_host".into(),
            format!("kill -9 {first}"),
            "ip link del tapf0000000-00".into(),
            "ip link del tapd0000000-00".into(),
            format!("{enter} ip addr flush dev qr-f0000000-00"),
            format!("{enter} ip route del default"),
            format!("{enter} nft delete table ip ferrostack_router"),
            format!("{dhcp} ip addr del 169.254.169.254/32 dev ns-d0000000-00"),
        ];
        for break_it in breaks {
            sh(&break_it).await;
            let report = bench.converge(Depth::Everything).await;
            assert_eq!(report.up.len(), 6, "after {break_it}");
            if break_it.contains(&tap) {
                assert!(
                    works(&format!("ip -d link show {tap} | grep -q \"tun type tap\"")).await,
                    "a tap again"
                );
                sh(&format!("ip link del {tap}")).await;
                bench.guests["a"].plug().await;
                bench.configure("a").await;
                bench.converge(Depth::Everything).await;
            }
            let name = &break_it;
            bench.settle().await;
            assert!(bench.pings("a", "10.77.0.11").await, "a friend, after {name}");
            assert!(!bench.pings("a", "10.77.0.12").await, "nothing comes in, after {name}");
            assert!(bench.reaches("c", "10.77.0.10", 22).await, "connections, after {name}");
            assert!(host_reaches("172.31.77.10", 22).await, "the floating address, after {name}");
            assert!(bench.pings("c", "172.31.77.1").await, "the gateway, after {name}");
            let ask = "ip route replace 169.254.169.254/32 via 10.77.0.2; busybox wget -q -O - http://169.254.169.254/";
            assert_eq!(bench.inside("b", ask).await, "latest", "metadata, after {name}");
            assert_eq!(servers(&dir).len(), 1, "dnsmasq, after {name}");
        }

        // A second life finds the first one's things, and changes none that is right.
        let running = pid();
        let again =
            Linux::new(Options { dir: dir.clone(), metadata: None, physical_networks: BTreeMap::new() })
                .await
                .unwrap();
        // It ended while it made an interface for a port that has gone since; the other one is a stranger's.
        for name in ["tapaaaaaaaa-01", "tapaaaaaaaa-02"] {
            sh(&format!("ip tuntap add dev {name} mode tap")).await;
        }
        std::fs::write(dir.join("begun"), "tapaaaaaaaa-01\ntapaaaaaaaa-03").unwrap();
        let report = again.converge(&bench.desired, Depth::Everything).await.unwrap();
        assert!(!works("ip link show tapaaaaaaaa-01").await, "what was begun and is unwanted goes");
        assert!(works("ip link del tapaaaaaaaa-02").await, "what is a stranger's stays");
        assert!(!dir.join("begun").exists());
        assert_eq!((report.up.len(), report.failed.len()), (6, 0));
        assert_eq!(pid(), running, "dnsmasq went on");
        assert!(bench.pings("a", "10.77.0.11").await);
        // Tables stay as they are when nothing is wrong.
        let handles = async || sh("nft -a list table bridge ferrostack_ports").await;
        let before = handles().await;
        let rewritten = again.converge(&bench.desired, Depth::Everything).await.unwrap();
        assert_eq!(rewritten.failed.len(), 0);
        assert_eq!(handles().await, before);
        bench.end().await;
    });
}

/// A real guest on a tap that we made. Needs QEMU and a guest image as well.
#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn a_real_guest_is_reached() {
    let image = std::env::var_os("FERROSTACK_GUEST_IMAGE").expect("FERROSTACK_GUEST_IMAGE names the image");
    story(async |mut bench| {
        let a = &bench.guests["a"];
        let (tap, mac) = (a.tap(), a.mac.clone());
        sh(&format!("ip link del {tap}")).await;
        bench.rules(
            FRIENDS,
            json!([{"direction": "egress", "ethertype": "IPv4", "remote": "any"},
            {"direction": "ingress", "ethertype": "IPv4", "protocol": 1, "remote": "any"}]),
        );
        bench.converge(Depth::Everything).await;
        let disk = bench.dir.path().join("disk.qcow2");
        let backing = image.to_string_lossy();
        sh(&format!("qemu-img create -q -f qcow2 -F qcow2 -b {backing} {}", disk.display())).await;
        let console = bench.dir.path().join("console");
        let mut guest = tokio::process::Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "pc",
                "-accel",
                "tcg,tb-size=64",
                "-cpu",
                "qemu64",
                "-m",
                "160",
                "-nodefaults",
            ])
            .args(["-display", "none", "-no-user-config", "-serial", &format!("file:{}", console.display())])
            .args(["-drive", &format!("file={},if=virtio,format=qcow2", disk.display())])
            .args(["-netdev", &format!("tap,id=n0,ifname={tap},script=no,downscript=no")])
            .args(["-device", &format!("virtio-net-pci,netdev=n0,mac={mac},romfile=")])
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut reached = false;
        for _ in 0..120 {
            reached = works("busybox ping -c 1 -W 1 172.31.77.10 >/dev/null").await;
            if reached && !bench.asked.lock().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(reached, "{}", std::fs::read_to_string(&console).unwrap_or_default());
        let leases =
            std::fs::read_to_string(bench.dir.path().join(format!("net/dhcp/{NET}/leases"))).unwrap();
        assert!(leases.contains(&format!("{mac} 10.77.0.10")), "{leases}");
        let asked = bench.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|request| request.contains("x-instance-id: instance-a")), "{asked:?}");
        assert!(!asked.is_empty(), "the guest asked for its metadata");
        // The tap stays the guest's while everything is looked at and other things change.
        bench.converge(Depth::Everything).await;
        assert!(works("busybox ping -c 1 -W 2 172.31.77.10 >/dev/null").await);
        guest.kill().await.unwrap();
        bench.end().await;
    });
}

/// Waits until both hosts have come to the step; one that failed never does.
async fn meet(steps: &AtomicUsize, step: usize) {
    steps.fetch_add(1, Ordering::SeqCst);
    for _ in 0..600 {
        if steps.load(Ordering::SeqCst) >= 2 * step {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the other host did not come to step {step}");
}

/// Two hosts with a part of the same network each.
#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn a_network_over_two_hosts() {
    let steps = Arc::new(AtomicUsize::new(0));
    let first_thread = Arc::new(Mutex::new(0));
    let host = |number: u8| {
        let (steps, first_thread) = (steps.clone(), first_thread.clone());
        move || {
            story(async |mut bench| {
                if number == 1 {
                    *first_thread.lock().unwrap() = nix::unistd::gettid().as_raw();
                }
                meet(&steps, 1).await;
                if number == 2 {
                    let thread = *first_thread.lock().unwrap();
                    let there = format!("/proc/{}/task/{thread}/ns/net", std::process::id());
                    sh(&format!(
                        "ip link add under type veth peer name under0; ip link set under0 netns {there}"
                    ))
                    .await;
                }
                meet(&steps, 2).await;
                let under = if number == 1 { "under0" } else { "under" };
                sh(&format!("ip addr add 192.0.2.{number}/24 dev {under}; ip link set {under} up")).await;
                // The first host has guest a, DHCP and the router; the second has guest b.
                let other = 3 - number;
                let b = bench.guests["b"].port_id.clone();
                let mac = if number == 1 { &bench.guests["b"].mac } else { &bench.guests["a"].mac };
                let kind = json!({"vxlan": {"vni": 77, "local": format!("192.0.2.{number}"),
                    "remotes": [format!("192.0.2.{other}")],
                    "ports": [{"mac": mac, "host": format!("192.0.2.{other}")}]}});
                let network = bench.desired.networks.get_mut(NET).unwrap();
                network.kind = serde_json::from_value(kind).unwrap();
                if number == 2 {
                    network.dhcp = None;
                    bench.desired.networks.remove(EXT);
                    bench.desired.routers.clear();
                }
                bench.desired.ports.retain(|id, _| (*id == b) == (number == 2));
                bench.converge(Depth::Everything).await;
                bench.configure("a").await;
                bench.configure("b").await;
                meet(&steps, 3).await;
                if number == 1 {
                    let arp = "for i in 1 2 3 4 5; do busybox arping -q -f -c 1 -w 1 -I eth0 10.77.0.11 && exit 0; done; exit 1";
                    assert!(bench.tries("a", arp).await, "the other host's guest");
                    assert!(bench.pings("a", "10.77.0.11").await, "a friend on another host");
                } else {
                    let metadata = "ip route add 169.254.169.254/32 via 10.77.0.2;
                        for i in 1 2 3; do busybox timeout 2 busybox wget -q -O - http://169.254.169.254/ && exit 0; done";
                    assert_eq!(bench.inside("b", metadata).await, "latest", "metadata from the other host");
                    assert!(bench.pings("b", "172.31.77.1").await, "out by the other host's router");
                }
                let fdb = sh("bridge fdb show dev vxlan-77").await;
                assert!(fdb.contains(&format!("00:00:00:00:00:00 dst 192.0.2.{other}")), "{fdb}");
                bench.converge(Depth::Everything).await;
                assert_eq!(sh("bridge fdb show dev vxlan-77").await, fdb, "nothing to mend");
                meet(&steps, 4).await;
                sh("ip link del under 2>/dev/null; true").await;
                bench.end().await;
            });
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(host(1));
        scope.spawn(host(2));
    });
}

#[test]
#[ignore = "needs root and a machine's network tools: make test-host"]
fn a_port_among_many_is_cheap() {
    story(async |mut bench| {
        let bridge = Network {
            mtu: 1450,
            kind: NetworkKind::Local,
            host_addresses: vec![],
            masquerade: false,
            dhcp: None,
            hosts: vec![],
        };
        bench.desired.networks.insert(ALONE.into(), bridge);
        let port = bench.desired.ports.values().next().unwrap().clone();
        for number in 0..200u32 {
            let mut port = port.clone();
            port.network_id = ALONE.into();
            bench.desired.ports.insert(format!("{number:08x}-0000-4000-8000-000000000009"), port);
        }
        let start = std::time::Instant::now();
        bench.converge(Depth::Everything).await;
        eprintln!("203 ports at once: {:?}", start.elapsed());
        let start = std::time::Instant::now();
        bench.desired.ports.insert("ffffffff-0000-4000-8000-000000000009".into(), port);
        bench.converge(Depth::Changes).await;
        eprintln!("one more: {:?}", start.elapsed());
        let start = std::time::Instant::now();
        bench.converge(Depth::Changes).await;
        eprintln!("nothing: {:?}", start.elapsed());
        let start = std::time::Instant::now();
        bench.converge(Depth::Everything).await;
        eprintln!("everything looked at: {:?}", start.elapsed());
        bench.desired.ports.retain(|id, _| !id.ends_with("9"));
        let start = std::time::Instant::now();
        bench.converge(Depth::Changes).await;
        eprintln!("201 fewer: {:?}", start.elapsed());
        assert_eq!(sh("ip -o link | grep -c \": tap\"").await, "6");
        bench.end().await;
    });
}
