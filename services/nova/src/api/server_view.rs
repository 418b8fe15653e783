//! A server as its owner, and as an administrator sees it, by microversion.

use super::{bookmark, links, target};
use crate::{
    Nova, guest,
    model::{BlockDevice, Instance, Nic},
    scheduler, status, store,
};
use base::{Json, Result};
use db::Tx;
use serde_json::{Map, json};
use sha2::{Digest, Sha224};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use web::Request;

/// Which answer it stands in: parts of it differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum In {
    Show,
    List,
    /// What answers a change.
    Changed,
}

/// What a change did not answer before 2.75.
const NOT_OF_CHANGED: &[&str] =
    &["config_drive", "key_name", "security_groups", "host_status", "OS-EXT-AZ:availability_zone"];
const NOT_OF_CHANGED_FAMILIES: &[&str] =
    &["OS-EXT-SRV-ATTR:", "OS-EXT-STS:", "OS-SRV-USG:", "os-extended-volumes:"];

/// What is asked of the database once for all servers of an answer.
#[derive(Default)]
pub struct Around {
    devices: HashMap<String, Vec<BlockDevice>>,
    host_status: HashMap<String, &'static str>,
}

const HOST_STATUS: &str = "os_compute_api:servers:show:host_status";
const EXTENDED: &str = "os_compute_api:os-extended-server-attributes";
const EXTRA_SPECS: &str = "os_compute_api:servers:show:flavor-extra-specs";

impl Nova {
    pub async fn around(&self, instances: &[Instance]) -> Result<Around> {
        let uuids: Vec<String> = instances.iter().map(|instance| instance.uuid.clone()).collect();
        let hosts: BTreeSet<String> = instances.iter().filter_map(|instance| instance.host.clone()).collect();
        let (now, patience) = (self.clock.now(), self.options.service_down_time_seconds);
        self.read(move |tx: &mut Tx| {
            let mut around = Around::default();
            for device in store::block_devices_of(tx, &uuids)? {
                around.devices.entry(device.instance_uuid.clone()).or_default().push(device);
            }
            for service in store::services_on(tx, &hosts)? {
                let up = scheduler::is_up(&service, now, Duration::from_secs(patience));
                let word = match (service.forced_down, service.disabled, up) {
                    (true, ..) => "DOWN",
                    (_, true, _) => "MAINTENANCE",
                    (.., true) => "UP",
                    _ => "UNKNOWN",
                };
                around.host_status.insert(service.host, word);
            }
            Ok(around)
        })
        .await
    }
}

pub fn basic(request: &Request, uuid: &str, name: &str) -> Json {
    json!({
        "id": uuid,
        "name": name,
        "links": links(request, "servers", uuid),
    })
}

pub fn detail(request: &Request, instance: &Instance, around: &Around, place: In) -> Json {
    let mut shown = common(request, instance, around);
    let target = target(instance);
    let extended = request.may(EXTENDED, &target);
    if extended {
        shown.extend(extended_attributes(request, instance));
    }
    let mut set = |name: &str, value: Json| drop(shown.insert(name.into(), value));
    if request.since(2, 9) {
        set("locked", instance.locked_by.is_some().into());
    }
    if request.since(2, 16) && request.may(HOST_STATUS, &target) {
        let host = instance.host.as_deref().unwrap_or_default();
        set("host_status", around.host_status.get(host).copied().unwrap_or_default().into());
    }
    if request.since(2, 19) {
        set("description", json!(instance.display_description));
    }
    if request.since(2, 26) {
        set("tags", json!(instance.tags));
    }
    if request.since(2, 63) {
        let certificates = instance.trusted_image_certificates.as_ref().map(|ids| &ids.0);
        set("trusted_image_certificates", json!(certificates));
    }
    if request.since(2, 71) && place != In::List {
        set("server_groups", json!(instance.server_group_id.iter().collect::<Vec<_>>()));
    }
    if request.since(2, 73) {
        set("locked_reason", json!(instance.locked_reason));
    }
    if request.since(2, 90) && !extended {
        set("OS-EXT-SRV-ATTR:hostname", instance.hostname.clone().into());
    }
    if request.since(2, 96) {
        set("pinned_availability_zone", json!(instance.pinned_availability_zone));
    }
    if request.since(2, 100) {
        set("scheduler_hints", instance.scheduler_hints.clone());
    }
    if place == In::Changed && !request.since(2, 75) {
        shown.retain(|key, _| {
            let of_family = |family: &&str| key.starts_with(*family);
            !NOT_OF_CHANGED.contains(&key.as_str()) && !NOT_OF_CHANGED_FAMILIES.iter().any(of_family)
        });
        shown.insert("addresses".into(), addresses(instance, false));
    }
    Json::Object(shown)
}

/// What every version and everybody sees.
fn common(request: &Request, instance: &Instance, around: &Around) -> Map<String, Json> {
    let word = status::status(instance);
    let no_devices = Vec::new();
    let devices = around.devices.get(&instance.uuid).unwrap_or(&no_devices);
    let time = |time: Option<base::Timestamp>| time.map(|time| time.micros());
    let mut shown = json!({
        "id": instance.uuid,
        "name": instance.display_name,
        "status": word,
        "tenant_id": instance.project_id,
        "user_id": instance.user_id,
        "metadata": instance.metadata.0,
        "hostId": host_id(instance),
        "image": image(request, instance),
        "flavor": flavor(request, instance),
        "created": instance.created_at.seconds(),
        "updated": instance.updated_at.seconds(),
        "addresses": addresses(instance, true),
        "accessIPv4": instance.access_ip_v4.clone().unwrap_or_default(),
        "accessIPv6": instance.access_ip_v6.clone().unwrap_or_default(),
        "links": links(request, "servers", &instance.uuid),
        "OS-DCF:diskConfig": if instance.auto_disk_config { "AUTO" } else { "MANUAL" },
        "OS-EXT-AZ:availability_zone": instance.availability_zone.clone().unwrap_or_default(),
        "config_drive": instance.config_drive,
        "key_name": instance.key_name,
        "OS-SRV-USG:launched_at": time(instance.launched_at),
        "OS-SRV-USG:terminated_at": time(instance.terminated_at),
        "OS-EXT-STS:task_state": instance.task_state.map(crate::model::TaskState::as_str),
        "OS-EXT-STS:vm_state": instance.vm_state.as_str(),
        "OS-EXT-STS:power_state": instance.power_state,
        "os-extended-volumes:volumes_attached": volumes(request, devices),
    });
    if ["ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"].contains(&word) {
        shown["progress"] = instance.progress.into();
    }
    if let Some(fault) = fault(request, instance).filter(|_| word == "ERROR" || word == "DELETED") {
        shown["fault"] = fault;
    }
    if let Some(groups) = security_groups(instance) {
        shown["security_groups"] = groups;
    }
    members(shown)
}

fn members(object: Json) -> Map<String, Json> {
    match object {
        Json::Object(members) => members,
        _ => Map::new(),
    }
}

fn extended_attributes(request: &Request, instance: &Instance) -> Map<String, Json> {
    let mut shown = json!({
        "OS-EXT-SRV-ATTR:host": instance.host,
        "OS-EXT-SRV-ATTR:instance_name": guest::host_name(instance),
        "OS-EXT-SRV-ATTR:hypervisor_hostname": instance.node,
    });
    if request.since(2, 3) {
        for (name, value) in [
            ("hostname", json!(instance.hostname)),
            ("kernel_id", json!("")),
            ("launch_index", json!(instance.launch_index)),
            ("ramdisk_id", json!("")),
            ("reservation_id", json!(instance.reservation_id)),
            ("root_device_name", json!(instance.root_device_name)),
            ("user_data", json!(instance.user_data)),
        ] {
            shown[format!("OS-EXT-SRV-ATTR:{name}")] = value;
        }
    }
    members(shown)
}

/// One host looks different to each project.
fn host_id(instance: &Instance) -> String {
    let Some(host) = &instance.host else { return String::new() };
    let digest = Sha224::digest(format!("{}{host}", instance.project_id));
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
    digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn image(request: &Request, instance: &Instance) -> Json {
    if instance.image_ref.is_empty() {
        return "".into();
    }
    let mut shown =
        json!({"id": instance.image_ref, "links": bookmark(request, "images", &instance.image_ref)});
    if request.since(2, 98) {
        shown["properties"] = json!(instance.image.properties);
    }
    shown
}

fn flavor(request: &Request, instance: &Instance) -> Json {
    let flavor = &instance.flavor;
    if !request.since(2, 47) {
        let id = &instance.flavor_id;
        return json!({"id": id, "links": bookmark(request, "flavors", id)});
    }
    let mut shown = json!({
        "vcpus": flavor.vcpus, "ram": flavor.memory_mb, "disk": flavor.root_gb,
        "ephemeral": flavor.ephemeral_gb, "swap": flavor.swap, "original_name": flavor.name,
    });
    if request.may(EXTRA_SPECS, &target(instance)) {
        shown["extra_specs"] = json!(flavor.extra_specs.0);
    }
    shown
}

/// By network name; `extended` with type and MAC.
pub fn addresses(instance: &Instance, extended: bool) -> Json {
    let mut networks = Map::new();
    for Nic { port, .. } in instance.nics.iter() {
        let shown = port.fixed_ips.iter().flat_map(|fixed| {
            let floating = fixed.floating_ips.iter().map(|address| ("floating", address));
            std::iter::once(("fixed", &fixed.address)).chain(floating)
        });
        let shown = shown.map(|(kind, address)| {
            let version = if address.contains(':') { 6 } else { 4 };
            let mut one = json!({"version": version, "addr": address});
            if extended {
                one["OS-EXT-IPS:type"] = kind.into();
                one["OS-EXT-IPS-MAC:mac_addr"] = port.mac.clone().into();
            }
            one
        });
        let network = networks.entry(port.network.name.clone()).or_insert_with(|| json!([]));
        if let Json::Array(list) = network {
            list.extend(shown);
        }
    }
    Json::Object(networks)
}

fn volumes(request: &Request, devices: &[BlockDevice]) -> Json {
    let shown = devices.iter().filter_map(|device| {
        let mut one = json!({"id": device.volume_id.as_ref()?});
        if request.since(2, 3) {
            one["delete_on_termination"] = device.delete_on_termination.into();
        }
        Some(one)
    });
    shown.collect::<Vec<_>>().into()
}

fn fault(request: &Request, instance: &Instance) -> Option<Json> {
    let fault = instance.fault.as_ref()?;
    let mut shown =
        json!({"code": fault.code, "created": fault.created_at.seconds(), "message": fault.message});
    // A user's own mistakes are explained to the user.
    if !fault.details.is_empty() && (fault.code != 500 || request.ctx.is_admin()) {
        shown["details"] = fault.details.clone().into();
    }
    Some(shown)
}

/// Those of its ports; while it has none, those that were asked for.
fn security_groups(instance: &Instance) -> Option<Json> {
    let of_ports = instance.nics.iter().flat_map(|nic| &nic.port.security_groups);
    let shown: Vec<Json> = of_ports.map(|group| json!({"name": group.name})).collect();
    if !shown.is_empty() {
        return Some(shown.into());
    }
    let building = instance.vm_state == crate::model::VmState::Building;
    let asked: Vec<Json> = instance.security_groups.iter().map(|name| json!({"name": name})).collect();
    (building && !asked.is_empty()).then(|| asked.into())
}
