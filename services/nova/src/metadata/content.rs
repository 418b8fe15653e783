//! What a guest is told of itself, in OpenStack's form, by the metadata service and by the config drive alike.

use super::ec2;
use crate::{
    Nova,
    model::{BlockDevice, Instance},
};
use base::{Json, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD};
use contracts::compute;
use rand::RngCore;
use serde_json::json;
use std::collections::BTreeMap;

/// The server, and what the service as a whole adds.
pub struct About {
    pub instance: Instance,
    pub devices: Vec<BlockDevice>,
    pub hostname: String,
    pub now: Timestamp,
}

impl About {
    pub fn new(nova: &Nova, instance: Instance, devices: Vec<BlockDevice>) -> Self {
        let domain = &nova.options.dhcp_domain;
        let hostname = match domain.is_empty() || instance.hostname.contains('.') {
            true => instance.hostname.clone(),
            false => format!("{}.{domain}", instance.hostname),
        };
        Self { hostname, now: nova.clock.now(), instance, devices }
    }

    /// As the owner gave it; bytes, for it may be compressed.
    pub fn user_data(&self) -> Option<Vec<u8>> {
        self.instance.user_data.as_deref().map(decoded)
    }
}

/// What a path leads to.
pub enum Found {
    Text(String),
    Bytes(Vec<u8>),
    Json(Json),
    /// Where the guest leaves its password.
    Password,
}

/// The versions, the newest last, and what each brought.
const VERSIONS: &[&str] = &[
    "2012-08-10",
    GRIZZLY,
    HAVANA,
    LIBERTY,
    NEWTON_ONE,
    NEWTON_TWO,
    "2017-02-22",
    ROCKY,
    VICTORIA,
    "2025-04-04",
];
const GRIZZLY: &str = "2013-04-04";
const HAVANA: &str = "2013-10-17";
const LIBERTY: &str = "2015-10-15";
const NEWTON_ONE: &str = "2016-06-30";
const NEWTON_TWO: &str = "2016-10-06";
const ROCKY: &str = "2018-08-27";
const VICTORIA: &str = "2020-10-14";

const LATEST: &str = "latest";

type Document = fn(&About, &str) -> Option<Found>;

/// The documents of a version: name, since when, and what makes it.
const DOCUMENTS: &[(&str, &str, Document)] = &[
    ("meta_data.json", VERSIONS[0], |about, version| Some(Found::Json(meta_data(about, version)))),
    ("user_data", VERSIONS[0], |about, _| about.user_data().map(Found::Bytes)),
    ("password", GRIZZLY, |_, _| Some(Found::Password)),
    ("vendor_data.json", HAVANA, |_, _| Some(Found::Json(json!({})))),
    // Told as text, as ever.
    ("network_data.json", LIBERTY, |about, _| Some(Found::Text(network_data(&about.instance).to_string()))),
    ("vendor_data2.json", NEWTON_TWO, |_, _| Some(Found::Json(json!({"static": {}})))),
];

/// What is at a path of the metadata service, the path without a slash at its end.
pub fn lookup(about: &About, path: &str) -> Option<Found> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        ["openstack"] => {
            let today = about.now.format("%Y-%m-%d");
            let known = VERSIONS.iter().copied().filter(|version| *version <= today.as_str());
            Some(Found::Text(known.chain([LATEST]).collect::<Vec<_>>().join("\n")))
        }
        ["openstack", "content", number] | ["openstack", _, "content", number] => {
            contents(&about.instance).remove(*number).map(Found::Bytes)
        }
        ["openstack", version] => {
            let version = dated(version)?;
            let there = |name: &str| name != "user_data" || about.instance.user_data.is_some();
            let names = DOCUMENTS.iter().filter(|(name, since, _)| *since <= version && there(name));
            Some(Found::Text(names.map(|(name, ..)| *name).collect::<Vec<_>>().join("\n")))
        }
        ["openstack", version, name] => {
            let version = dated(version)?;
            let mut known = DOCUMENTS.iter().filter(|(_, since, _)| *since <= version);
            known.find(|(known, ..)| known == name).and_then(|(.., make)| make(about, version))
        }
        ["openstack", ..] => None,
        ["ec2", rest @ ..] | rest => ec2::lookup(about, rest),
    }
}

/// The config drive's files by path: all that the service tells, but the password, which a guest cannot leave there.
pub fn drive_files(nova: &Nova, instance: &Instance, devices: &[BlockDevice]) -> BTreeMap<String, String> {
    let about = About::new(nova, instance.clone(), devices.to_vec());
    let mut files = ec2::drive_files(&about);
    for version in VERSIONS.iter().chain([&LATEST]) {
        for (name, ..) in DOCUMENTS {
            let text = match lookup(&about, &format!("/openstack/{version}/{name}")) {
                Some(Found::Json(json)) => json.to_string(),
                Some(Found::Text(text)) => text,
                Some(Found::Bytes(bytes)) => text_of(&bytes),
                Some(Found::Password) | None => continue,
            };
            files.insert(format!("openstack/{version}/{name}"), text);
        }
    }
    for (number, bytes) in contents(instance) {
        files.insert(format!("openstack/content/{number}"), text_of(&bytes));
    }
    files
}

/// The agent's files are text: bytes that are none lose what is not.
pub fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn dated(version: &str) -> Option<&'static str> {
    match version {
        LATEST => VERSIONS.last().copied(),
        version => VERSIONS.iter().find(|known| **known == version).copied(),
    }
}

fn meta_data(about: &About, version: &str) -> Json {
    let instance = &about.instance;
    let mut data = json!({
        "uuid": instance.uuid,
        "hostname": about.hostname,
        "name": instance.display_name,
        "launch_index": instance.launch_index,
        "availability_zone": instance.availability_zone,
    });
    if !instance.metadata.is_empty() {
        data["meta"] = json!(instance.metadata.0);
    }
    if !instance.personality.is_empty() {
        let one =
            |(n, path): (usize, &String)| json!({"path": path, "content_path": format!("/content/{n:04}")});
        let files = instance.personality.iter().map(|file| &file.path).enumerate();
        data["files"] = files.map(one).collect::<Vec<_>>().into();
    }
    if let (Some(name), Some(key)) = (&instance.key_name, &instance.public_key) {
        let kind = instance.key_type.as_deref().unwrap_or("ssh");
        data["public_keys"] = json!({ name.as_str(): key });
        data["keys"] = json!([{"name": name, "type": kind, "data": key}]);
    }
    if version >= GRIZZLY {
        let mut seed = [0; 512];
        rand::rng().fill_bytes(&mut seed);
        data["random_seed"] = STANDARD.encode(seed).into();
    }
    if version >= LIBERTY {
        data["project_id"] = instance.project_id.clone().into();
    }
    if version >= NEWTON_ONE {
        data["devices"] = tagged_devices(about, version);
    }
    if version >= VICTORIA {
        data["dedicated_cpus"] = json!([]);
    }
    data
}

/// Cards and disks that their owner gave tags; where they are on which bus, the host does not tell.
fn tagged_devices(about: &About, version: &str) -> Json {
    let cards = about.instance.nics.iter().filter_map(|nic| {
        let mut one = json!({"type": "nic", "mac": nic.port.mac, "bus": "none", "address": "none",
                             "tags": [nic.tag.as_ref()?]});
        if version >= ROCKY {
            one["vf_trusted"] = false.into();
        }
        Some(one)
    });
    let disks = about.devices.iter().filter_map(|device| {
        let tag = device.tag.as_ref()?;
        let mut one = json!({"type": "disk", "bus": "none", "address": "none", "tags": [tag]});
        if let Some(volume) = &device.volume_id {
            one["serial"] = volume.clone().into();
        }
        if let Some(path) = &device.device_name {
            one["path"] = path.clone().into();
        }
        Some(one)
    });
    cards.chain(disks).collect::<Vec<_>>().into()
}

/// Links, networks, services.
fn network_data(instance: &Instance) -> Json {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::<Json>::new());
    for nic in instance.nics.iter() {
        let (port, link) = (&nic.port, compute::tap_name(&nic.port.id));
        links.push(json!({
            "id": link, "vif_id": port.id, "type": "bridge", "mtu": port.network.mtu,
            "ethernet_mac_address": port.mac,
        }));
        for fixed in &port.fixed_ips {
            let Some(subnet) = port.subnets.iter().find(|subnet| subnet.id == fixed.subnet_id) else {
                continue;
            };
            let is_v6 = subnet.cidr.contains(':');
            let kind = match (is_v6, subnet.enable_dhcp) {
                (false, true) => "ipv4_dhcp",
                (false, false) => "ipv4",
                (true, true) => "ipv6_dhcp",
                (true, false) => "ipv6",
            };
            let dns = |server: &String| json!({"type": "dns", "address": server});
            let own_services: Vec<Json> = subnet.dns_nameservers.iter().map(dns).collect();
            let mut network = json!({
                "id": format!("network{}", networks.len()), "type": kind, "link": link,
                "network_id": port.network.id,
            });
            if !subnet.enable_dhcp {
                let any = if is_v6 { "::" } else { "0.0.0.0" };
                let route = |network: &str, netmask: &str, gateway: &str| json!({"network": network, "netmask": netmask, "gateway": gateway});
                let default = subnet.gateway_ip.iter().map(|gateway| route(any, any, gateway));
                let others = subnet.host_routes.iter().map(|other| {
                    let network = other.destination.split('/').next().unwrap_or_default();
                    route(network, &netmask(&other.destination), &other.nexthop)
                });
                network["ip_address"] = fixed.address.clone().into();
                network["netmask"] = netmask(&subnet.cidr).into();
                network["routes"] = default.chain(others).collect::<Vec<_>>().into();
                network["services"] = own_services.clone().into();
            }
            networks.push(network);
            for service in own_services {
                if !services.contains(&service) {
                    services.push(service);
                }
            }
        }
    }
    json!({"links": links, "networks": networks, "services": services})
}

fn netmask(cidr: &str) -> String {
    let Some((address, bits)) = cidr.split_once('/') else { return String::new() };
    let bits: u32 = bits.parse().unwrap_or_default();
    match address.contains(':') {
        true => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            std::net::Ipv6Addr::from(mask).to_string()
        }
        false => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            std::net::Ipv4Addr::from(mask).to_string()
        }
    }
}

/// Files that were given at creation, by number.
fn contents(instance: &Instance) -> BTreeMap<String, Vec<u8>> {
    let files = instance.personality.iter().enumerate();
    files.map(|(n, file)| (format!("{n:04}"), decoded(&file.contents))).collect()
}

fn decoded(base64: &str) -> Vec<u8> {
    let compact: String = base64.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(compact).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks() {
        for (cidr, mask) in [
            ("10.0.0.0/24", "255.255.255.0"),
            ("0.0.0.0/0", "0.0.0.0"),
            ("10.0.0.1/32", "255.255.255.255"),
            ("fd00::/64", "ffff:ffff:ffff:ffff::"),
            ("::/0", "::"),
        ] {
            assert_eq!(netmask(cidr), mask, "{cidr}");
        }
    }

    #[test]
    fn versions_are_in_order() {
        assert!(VERSIONS.is_sorted());
        assert_eq!(dated("latest"), Some("2025-04-04"));
        assert_eq!(dated("2012-08-10"), Some("2012-08-10"));
        assert_eq!(dated("2012-08-11"), None);
    }
}
