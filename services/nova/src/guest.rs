//! What a server is to its host: the agent's `Instance`, made from ours, and the files that tell the guest of itself.

use crate::{
    Nova,
    model::{BlockDevice, Instance, Nic},
};
use base::{Error, Json, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use contracts::compute;
use serde_json::json;
use std::collections::BTreeMap;

pub const NAME_FORMAT: &str = "instance-";

/// The name on the host, `instance-00000001`.
pub fn host_name(instance: &Instance) -> String {
    format!("{NAME_FORMAT}{:08x}", instance.number)
}

/// All that the agent needs to make or start the guest.
pub fn instance(nova: &Nova, instance: &Instance, devices: &[BlockDevice]) -> Result<compute::Instance> {
    let image = (!instance.image_ref.is_empty()).then(|| compute::InstanceImage {
        id: instance.image_ref.clone(),
        disk_format: instance.image.disk_format.clone(),
        properties: instance.image.properties.clone(),
    });
    let with_drive = nova.options.force_config_drive || !instance.config_drive.is_empty();
    Ok(compute::Instance {
        uuid: instance.uuid.clone(),
        name: host_name(instance),
        display_name: instance.display_name.clone(),
        project_id: instance.project_id.clone(),
        user_id: instance.user_id.clone(),
        vcpus: number(instance.flavor.vcpus)?,
        memory_mb: number(instance.flavor.memory_mb)?,
        root_gb: number(instance.flavor.root_gb)?,
        ephemeral_gb: number(instance.flavor.ephemeral_gb)?,
        swap_mb: number(instance.flavor.swap)?,
        extra_specs: instance.flavor.extra_specs.0.clone(),
        image,
        volumes: devices.iter().filter_map(volume).collect(),
        ports: instance.nics.iter().map(port).collect(),
        config_drive: if with_drive { Some(files(nova, instance)?) } else { None },
        power_on: true,
    })
}

pub fn port(nic: &Nic) -> compute::Port {
    let mtu = (nic.port.network.mtu > 0).then_some(nic.port.network.mtu);
    compute::Port { id: nic.port.id.clone(), mac: nic.port.mac.clone(), mtu }
}

pub fn volume(device: &BlockDevice) -> Option<compute::Volume> {
    Some(compute::Volume {
        volume_id: device.volume_id.clone()?,
        connection: device.connection.clone()?.0,
        device_name: device.device_name.clone(),
        boot_index: device.boot_index.and_then(|index| index.try_into().ok()),
        read_only: false,
    })
}

fn number<T: TryFrom<i64>>(value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| Error::internal(format!("a flavor with {value}")))
}

/// `meta_data.json` as the metadata service and the config drive have it.
pub fn meta_data(nova: &Nova, instance: &Instance) -> Json {
    let domain = &nova.options.dhcp_domain;
    let hostname = match domain.is_empty() || instance.hostname.contains('.') {
        true => instance.hostname.clone(),
        false => format!("{}.{domain}", instance.hostname),
    };
    let mut data = json!({
        "uuid": instance.uuid,
        "availability_zone": instance.availability_zone,
        "hostname": hostname,
        "launch_index": instance.launch_index,
        "name": instance.display_name,
        "project_id": instance.project_id,
    });
    if !instance.metadata.is_empty() {
        data["meta"] = json!(instance.metadata.0);
    }
    if let (Some(name), Some(key)) = (&instance.key_name, &instance.public_key) {
        data["public_keys"] = json!({ name.as_str(): key });
        let kind = instance.key_type.as_deref().unwrap_or("ssh");
        data["keys"] = json!([{"name": name, "type": kind, "data": key}]);
    }
    data
}

/// `network_data.json`: links, networks, services.
pub fn network_data(instance: &Instance) -> Json {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::new());
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
            let version = if subnet.cidr.contains(':') { 6 } else { 4 };
            let id = format!("network{}", networks.len());
            let kind = match (version, subnet.enable_dhcp) {
                (4, true) => "ipv4_dhcp",
                (4, false) => "ipv4",
                (_, true) => "ipv6_dhcp",
                (_, false) => "ipv6",
            };
            let mut network = json!({"id": id, "type": kind, "link": link, "network_id": port.network.id});
            if !subnet.enable_dhcp {
                network["ip_address"] = fixed.address.clone().into();
                network["netmask"] = netmask(&subnet.cidr).into();
                let any = if version == 4 { "0.0.0.0" } else { "::" };
                let default = subnet
                    .gateway_ip
                    .iter()
                    .map(|gateway| json!({"network": any, "netmask": any, "gateway": gateway}));
                let routes = subnet.host_routes.iter().map(|route| {
                    let network = route.destination.split('/').next().unwrap_or_default();
                    json!({"network": network, "netmask": netmask(&route.destination),
                           "gateway": route.nexthop})
                });
                network["routes"] = default.chain(routes).collect::<Vec<_>>().into();
            }
            networks.push(network);
            services.extend(
                subnet.dns_nameservers.iter().map(|server| json!({"type": "dns", "address": server})),
            );
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

/// The files of the config drive, by path.
fn files(nova: &Nova, instance: &Instance) -> Result<BTreeMap<String, String>> {
    let mut meta = meta_data(nova, instance);
    let mut files = BTreeMap::new();
    let mut listed = Vec::new();
    for (n, file) in instance.personality.iter().enumerate() {
        let content_path = format!("/content/{n:04}");
        listed.push(json!({"path": file.path, "content_path": content_path}));
        files.insert(format!("openstack{content_path}"), decoded(&file.contents));
    }
    if !listed.is_empty() {
        meta["files"] = listed.into();
    }
    for version in ["latest", "2012-08-10", "2018-08-27"] {
        let path = |name: &str| format!("openstack/{version}/{name}");
        files.insert(path("meta_data.json"), meta.to_string());
        files.insert(path("network_data.json"), network_data(instance).to_string());
        files.insert(path("vendor_data.json"), "{}".into());
        if let Some(user_data) = &instance.user_data {
            files.insert(path("user_data"), decoded(user_data));
        }
    }
    Ok(files)
}

/// Bytes that are no text lose what is not; a config drive's files are text to the agent.
fn decoded(base64: &str) -> String {
    let compact: String = base64.chars().filter(|c| !c.is_whitespace()).collect();
    String::from_utf8_lossy(&STANDARD.decode(compact).unwrap_or_default()).into_owned()
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
}
