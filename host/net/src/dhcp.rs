//! DHCP for one network: the files of its dnsmasq, and seeing that it runs. The process outlives us, and a start
//! of ours finds it again by its folder.

use crate::{names::short, netns};
use base::{Error, Result};
use contracts::agents::network::{Dhcp, DhcpHost, DhcpSubnet, Network, Route};
use ipnet::IpNet;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

const LEASE_SECONDS: u32 = 86400;
pub const METADATA_ADDRESS: &str = "169.254.169.254/32";
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Where the leg of the DHCP port is called what, inside the namespace.
pub fn leg(dhcp: &Dhcp) -> String {
    short("ns-", &dhcp.port_id)
}

/// Addresses of the leg.
pub fn addresses(dhcp: &Dhcp) -> Vec<IpNet> {
    let of_subnets =
        dhcp.subnets.iter().filter_map(|subnet| IpNet::new(subnet.address, subnet.cidr.prefix_len()).ok());
    of_subnets.chain(METADATA_ADDRESS.parse::<IpNet>()).collect()
}

/// Where packets from the namespace go that are for nobody on its network.
pub fn routes(dhcp: &Dhcp) -> Vec<Route> {
    let first = |v4: bool| {
        let gateway =
            dhcp.subnets.iter().filter_map(|subnet| subnet.gateway).find(|ip| ip.is_ipv4() == v4)?;
        let everywhere = if v4 { "0.0.0.0/0" } else { "::/0" };
        Some(Route { destination: everywhere.parse().ok()?, nexthop: gateway })
    };
    first(true).into_iter().chain(first(false)).collect()
}

/// Sees that the network's dnsmasq runs with these files. `restart` when what it was bound to is new.
pub async fn ensure(
    dir: &Path,
    namespace: &Path,
    network: &Network,
    dhcp: &Dhcp,
    restart: bool,
) -> Result<()> {
    if !dhcp.subnets.iter().any(|subnet| subnet.enable_dhcp && subnet.cidr.addr().is_ipv4()) {
        return stop(dir).await;
    }
    tokio::fs::create_dir_all(dir).await?;
    let mut changed = false;
    for (name, text) in [
        ("hosts", hosts_file(dhcp, &network.hosts)),
        ("names", names_file(dhcp, &network.hosts)),
        ("opts", opts_file(dhcp, network.mtu)),
    ] {
        changed |= write(&dir.join(name), &text).await?;
    }
    let reconfigured = write(&dir.join("conf"), &conf_file(dir, dhcp)).await?;
    let running = pid(dir);
    let stale = stale_leases(dir, &network.hosts).await?;
    match running {
        Some(process) if !restart && !reconfigured && stale.is_none() => {
            if changed {
                kill(process, Signal::SIGHUP)
                    .map_err(|e| Error::internal(format!("SIGHUP to dnsmasq: {e}")))?;
            }
            Ok(())
        }
        _ => {
            stop_process(dir).await?;
            if let Some(leases) = stale {
                write(&dir.join("leases"), &leases).await?;
            }
            let conf = format!("--conf-file={}", dir.join("conf").display());
            netns::command(Some(namespace), "dnsmasq").arg(conf).output().await.map(drop)
        }
    }
}

/// Ends the process and removes its files.
pub async fn stop(dir: &Path) -> Result<()> {
    stop_process(dir).await?;
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

async fn stop_process(dir: &Path) -> Result<()> {
    let Some(process) = pid(dir) else { return Ok(()) };
    let _ = kill(process, Signal::SIGTERM);
    let deadline = tokio::time::Instant::now() + STOP_PATIENCE;
    while pid(dir).is_some() {
        if tokio::time::Instant::now() > deadline {
            let _ = kill(process, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The process that serves from this folder; a number in a file alone proves nothing.
fn pid(dir: &Path) -> Option<Pid> {
    let number: i32 = std::fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
    let conf = dir.join("conf").display().to_string();
    String::from_utf8_lossy(&line).contains(&conf).then(|| Pid::from_raw(number))
}

/// The leases without those that stand in the way: an address that another MAC has now. None when none does.
async fn stale_leases(dir: &Path, hosts: &[DhcpHost]) -> Result<Option<String>> {
    let Ok(leases) = tokio::fs::read_to_string(dir.join("leases")).await else { return Ok(None) };
    Ok(without_stale(&leases, hosts))
}

/// Lines are `expiry mac address name client-id`.
fn without_stale(leases: &str, hosts: &[DhcpHost]) -> Option<String> {
    let macs: BTreeMap<String, String> = hosts
        .iter()
        .flat_map(|host| host.addresses.iter().map(|ip| (ip.to_string(), host.mac.to_string())))
        .collect();
    let fits = |line: &&str| {
        let mut words = line.split(' ').skip(1);
        let (mac, address) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        macs.get(address).is_none_or(|now| now == mac)
    };
    let kept: String = leases.lines().filter(fits).map(|line| format!("{line}\n")).collect();
    (kept.lines().count() != leases.lines().count()).then_some(kept)
}

/// Writes a file in one step when its text differs. True when it did.
async fn write(path: &Path, text: &str) -> Result<bool> {
    if tokio::fs::read_to_string(path).await.is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let new: PathBuf = path.with_extension("new");
    tokio::fs::write(&new, text).await?;
    tokio::fs::rename(&new, path).await?;
    Ok(true)
}

fn tag(subnet: &DhcpSubnet) -> String {
    format!("subnet-{}", subnet.id)
}

fn served(dhcp: &Dhcp) -> impl Iterator<Item = (&DhcpSubnet, ipnet::Ipv4Net)> {
    dhcp.subnets.iter().filter(|subnet| subnet.enable_dhcp).filter_map(|subnet| match subnet.cidr {
        IpNet::V4(net) => Some((subnet, net)),
        IpNet::V6(_) => None,
    })
}

fn conf_file(dir: &Path, dhcp: &Dhcp) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let mut text = format!(
        "port=53\nbind-interfaces\ninterface={}\nexcept-interface=lo\nno-hosts\nno-resolv\nuser=root\n\
         pid-file={}\ndhcp-leasefile={}\ndhcp-hostsfile={}\naddn-hosts={}\ndhcp-optsfile={}\n\
         dhcp-authoritative\nquiet-dhcp\n",
        leg(dhcp),
        path("pid"),
        path("leases"),
        path("hosts"),
        path("names"),
        path("opts")
    );
    if let Some(domain) = Some(&dhcp.domain).filter(|domain| is_name(domain)) {
        let _ = writeln!(text, "domain={domain}\nlocal=/{domain}/");
    }
    let mut leases_max = 0u64;
    for (subnet, net) in served(dhcp) {
        let _ = writeln!(
            text,
            "dhcp-range=set:{},{},static,{},{LEASE_SECONDS}s",
            tag(subnet),
            net.network(),
            net.netmask()
        );
        leases_max += 1 << (32 - u32::from(net.prefix_len()));
    }
    let _ = writeln!(text, "dhcp-lease-max={}", leases_max.min(1 << 24));
    text
}

fn v4s(host: &DhcpHost) -> impl Iterator<Item = &IpAddr> {
    host.addresses.iter().filter(|ip| ip.is_ipv4())
}

/// `mac,name.domain,address`, one line per address.
fn hosts_file(dhcp: &Dhcp, hosts: &[DhcpHost]) -> String {
    let mut text = String::new();
    for host in hosts {
        for ip in v4s(host).filter(|ip| served(dhcp).any(|(subnet, _)| subnet.cidr.contains(*ip))) {
            let _ = writeln!(text, "{},{},{ip}", host.mac, full_name(dhcp, host, *ip));
        }
    }
    text
}

/// What the server answers as DNS for the network itself.
fn names_file(dhcp: &Dhcp, hosts: &[DhcpHost]) -> String {
    let mut text = String::new();
    for host in hosts {
        for ip in &host.addresses {
            let full = full_name(dhcp, host, *ip);
            let _ = writeln!(text, "{ip}\t{full} {}", name(host, *ip));
        }
    }
    text
}

fn full_name(dhcp: &Dhcp, host: &DhcpHost, ip: IpAddr) -> String {
    match is_name(&dhcp.domain) {
        true => format!("{}.{}", name(host, ip), dhcp.domain.trim_end_matches('.')),
        false => name(host, ip),
    }
}

/// Names come from users: what is no host name is not written into a file that dnsmasq parses.
fn name(host: &DhcpHost, ip: IpAddr) -> String {
    match host.hostname.as_deref().filter(|name| is_name(name)) {
        Some(name) => name.into(),
        None => format!("host-{}", ip.to_string().replace(['.', ':'], "-")),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

fn opts_file(dhcp: &Dhcp, mtu: u16) -> String {
    let mut text = String::new();
    for (subnet, _) in served(dhcp) {
        let tag = tag(subnet);
        let mut routes = vec![format!("169.254.169.254/32,{}", subnet.address)];
        let v4_routes = subnet.host_routes.iter().filter(|route| route.destination.addr().is_ipv4());
        routes.extend(v4_routes.map(|route| format!("{},{}", route.destination, route.nexthop)));
        routes.extend(subnet.gateway.map(|gateway| format!("0.0.0.0/0,{gateway}")));
        let routes = routes.join(",");
        // 249 is what Windows reads as 121.
        let _ = writeln!(text, "tag:{tag},option:classless-static-route,{routes}");
        let _ = writeln!(text, "tag:{tag},249,{routes}");
        match subnet.gateway {
            Some(gateway) => {
                let _ = writeln!(text, "tag:{tag},option:router,{gateway}");
            }
            // An empty option keeps dnsmasq from naming itself.
            None => {
                let _ = writeln!(text, "tag:{tag},option:router");
            }
        }
        let mut dns: Vec<String> =
            subnet.dns_servers.iter().filter(|ip| ip.is_ipv4()).map(IpAddr::to_string).collect();
        if dns.is_empty() {
            dns.push(subnet.address.to_string());
        }
        let _ = writeln!(text, "tag:{tag},option:dns-server,{}", dns.join(","));
        let _ = writeln!(text, "tag:{tag},option:mtu,{mtu}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        serde_json::from_value(serde_json::json!({"mtu": 1450, "kind": "local",
            "dhcp": {"port_id": "aaaaaaaa-bbbb-4000-8000-000000000001", "mac": "fa:16:3e:00:00:02",
                "domain": "openstacklocal", "subnets": [
                {"id": "s1", "cidr": "10.0.0.0/24", "address": "10.0.0.2", "gateway": "10.0.0.1",
                 "dns_servers": ["8.8.8.8"], "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.7"}],
                 "enable_dhcp": true},
                {"id": "s2", "cidr": "10.1.0.0/24", "address": "10.1.0.2", "gateway": null, "enable_dhcp": true},
                {"id": "s3", "cidr": "10.2.0.0/24", "address": "10.2.0.2", "gateway": null, "enable_dhcp": false}]},
            "hosts": [
                {"port_id": "p", "mac": "fa:16:3e:00:00:05", "addresses": ["10.0.0.5", "10.2.0.5"], "hostname": "web"},
                {"port_id": "q", "mac": "fa:16:3e:00:00:06", "addresses": ["10.1.0.6"],
                 "hostname": "x,set:evil\n00:00:00:00:00:01"}]}))
        .unwrap()
    }

    #[test]
    fn files() {
        let network = network();
        let dhcp = network.dhcp.as_ref().unwrap();
        assert_eq!(
            hosts_file(dhcp, &network.hosts),
            "fa:16:3e:00:00:05,web.openstacklocal,10.0.0.5\n\
             fa:16:3e:00:00:06,host-10-1-0-6.openstacklocal,10.1.0.6\n"
        );
        assert_eq!(
            opts_file(dhcp, network.mtu),
            "tag:subnet-s1,option:classless-static-route,169.254.169.254/32,10.0.0.2,10.9.0.0/16,10.0.0.7,0.0.0.0/0,10.0.0.1\n\
             tag:subnet-s1,249,169.254.169.254/32,10.0.0.2,10.9.0.0/16,10.0.0.7,0.0.0.0/0,10.0.0.1\n\
             tag:subnet-s1,option:router,10.0.0.1\n\
             tag:subnet-s1,option:dns-server,8.8.8.8\n\
             tag:subnet-s1,option:mtu,1450\n\
             tag:subnet-s2,option:classless-static-route,169.254.169.254/32,10.1.0.2\n\
             tag:subnet-s2,249,169.254.169.254/32,10.1.0.2\n\
             tag:subnet-s2,option:router\n\
             tag:subnet-s2,option:dns-server,10.1.0.2\n\
             tag:subnet-s2,option:mtu,1450\n"
        );
        let conf = conf_file(Path::new("/s/dhcp/n"), dhcp);
        assert!(conf.contains("interface=ns-aaaaaaaa-bb\n"), "{conf}");
        assert!(conf.contains("dhcp-range=set:subnet-s1,10.0.0.0,static,255.255.255.0,86400s\n"), "{conf}");
        assert!(!conf.contains("subnet-s3"), "{conf}");
    }

    #[test]
    fn a_lease_in_the_way_goes() {
        let network = network();
        let leases = "1 fa:16:3e:00:00:05 10.0.0.5 web *\n2 fa:16:3e:00:00:99 10.1.0.6 old *\n";
        let kept = without_stale(leases, &network.hosts).unwrap();
        assert_eq!(kept, "1 fa:16:3e:00:00:05 10.0.0.5 web *\n");
        assert!(without_stale(&kept, &network.hosts).is_none());
    }
}
