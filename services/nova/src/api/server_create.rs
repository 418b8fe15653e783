//! `POST /servers`: the request checked, the quota taken, rows written and the boots begun.

use super::{
    check_zone, checked, is_true, links, own_project,
    server_devices::{self, Devices, Root},
    server_metadata, server_networks,
};
use crate::{
    Nova, actions,
    flows::boot::{Boot, PlannedPort},
    model::*,
    quota, schemas, store,
};
use base::{Context, Error, Json, Result, id};
use contracts::images::Image;
use db::{AsJson, Tx, params};
use rand::{Rng, distr::Alphanumeric};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request};

pub async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let body = checked(&request, &schemas::SERVER_CREATE)?;
    let server = &body["server"];
    let (at_least, at_most) = counts(server)?;
    request.can(&own_project(&request))?;
    let place = Place::of(&nova, &request, server).await?;
    let mapping = server_devices::mapping(server)?;
    if !mapping.is_empty() {
        request.can_rule("os_compute_api:servers:create:attach_volume", &own_project(&request))?;
    }
    let image_ref = image_ref(server, !mapping.is_empty())?;
    let mapping = server_devices::with_images(&nova, &request.ctx, &image_ref, mapping).await?;
    let flavor = flavor(&nova, &request, server).await?;
    let has_image = !image_ref.is_empty();
    let devices = server_devices::check(&nova, &request.ctx, has_image, &flavor, mapping, at_most).await?;
    let image = image_facts(&nova, &request, &image_ref, &flavor, &devices.root).await?;
    let (networks, at_most) = {
        let (wish, fitting) = server_networks::check(&nova, &request, server, at_most).await?;
        if fitting < at_least {
            return Err(Error::over_quota("Maximum number of ports exceeded"));
        }
        (wish, fitting)
    };
    let draft = draft(&nova, &request, body, &flavor, image_ref, image, &devices, &place).await?;
    let reservation_id = draft.reservation_id.clone();
    let order =
        Order { draft, devices, place, at_least, at_most, hostname_given: server.get("hostname").is_some() };
    let made = nova.make_servers(&request.ctx, order, move || networks.ports()).await?;

    if is_true(&server["return_reservation_id"]) {
        return Ok(Reply::accepted(json!({"reservation_id": reservation_id})));
    }
    let first = made.first().ok_or_else(|| Error::internal("no server was made"))?;
    let url = format!("{}/v2.1/servers/{}", request.base_url, first.uuid);
    let password = server["adminPass"].as_str().map_or_else(|| password(&nova), String::from);
    let groups = server_networks::group_names(&server["security_groups"]);
    let groups: Vec<Json> = groups.into_iter().map(|name| json!({"name": name})).collect();
    let shown = json!({"server": {
        "id": first.uuid,
        "links": links(&request, "servers", &first.uuid),
        "OS-DCF:diskConfig": if first.auto_disk_config { "AUTO" } else { "MANUAL" },
        "security_groups": groups,
        "adminPass": password,
    }});
    Ok(Reply::accepted(shown).header("location", url))
}

/// All that is known before the rows are written.
#[derive(Debug)]
struct Order {
    draft: Instance,
    devices: Devices,
    place: Place,
    at_least: i64,
    at_most: i64,
    hostname_given: bool,
}

fn counts(server: &Json) -> Result<(i64, i64)> {
    let number = |value: &Json| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let at_least = number(&server["min_count"]).unwrap_or(1);
    let at_most = number(&server["max_count"]).unwrap_or(at_least);
    if at_least > at_most {
        return Err(Error::bad_request("min_count must be <= max_count"));
    }
    Ok((at_least, at_most))
}

/// Where the servers must go.
#[derive(Clone, Debug, Default)]
struct Place {
    zone: Option<String>,
    host: Option<String>,
    node: Option<String>,
}

const FORCED_HOST: &str = "os_compute_api:servers:create:forced_host";
const DESTINATION: &str = "compute:servers:create:requested_destination";

impl Place {
    /// `zone`, and for administrators `zone:host:node`, `zone::node`, or `host` and `hypervisor_hostname`.
    async fn of(nova: &Nova, request: &Request, server: &Json) -> Result<Self> {
        let given = server["availability_zone"].as_str().unwrap_or_default();
        let parts: Vec<&str> = given.split(':').collect();
        let text = |part: Option<&&str>| part.filter(|text| !text.is_empty()).map(|text| text.to_string());
        if parts.len() > 3 {
            return Err(Error::bad_request("Invalid input received: Unable to parse availability_zone"));
        }
        let default = Some(nova.options.default_schedule_zone.clone()).filter(|zone| !zone.is_empty());
        let mut place = Self {
            zone: text(parts.first()).or(default),
            host: text(parts.get(1)),
            node: text(parts.get(2)),
        };
        if place.host.is_some() || place.node.is_some() {
            request.can_rule(FORCED_HOST, &own_project(request))?;
        }
        let (host, node) = (server["host"].as_str(), server["hypervisor_hostname"].as_str());
        if host.is_some() || node.is_some() {
            request.can_rule(DESTINATION, &own_project(request))?;
            if place.host.is_some() || place.node.is_some() {
                return Err(Error::bad_request(
                    "One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node are mutually exclusive.",
                ));
            }
            place.host = host.map(String::from);
            place.node = node.map(String::from);
        }
        check_zone(nova, place.zone.as_deref()).await?;
        place.check_host(nova).await?;
        Ok(place)
    }

    async fn check_host(&self, nova: &Nova) -> Result<()> {
        if self.host.is_none() && self.node.is_none() {
            return Ok(());
        }
        let hosts = nova.read(store::hosts).await?;
        if let Some(wanted) = &self.host
            && !hosts.iter().any(|(node, _)| node.host == *wanted)
        {
            return Err(Error::bad_request(format!("Compute host {wanted} could not be found.")));
        }
        if let Some(wanted) = &self.node
            && !hosts.iter().any(|(node, _)| node.facts.hypervisor_hostname == *wanted)
        {
            return Err(Error::bad_request(format!("Compute host {wanted} could not be found.")));
        }
        Ok(())
    }
}

fn image_ref(server: &Json, has_devices: bool) -> Result<String> {
    match server["imageRef"].as_str().filter(|image| !image.is_empty()) {
        Some(image) => Ok(image.to_string()),
        None if has_devices => Ok(String::new()),
        None => Err(Error::bad_request("Missing imageRef attribute")),
    }
}

async fn flavor(nova: &Nova, request: &Request, server: &Json) -> Result<Flavor> {
    let given = &server["flavorRef"];
    let text = given.as_str().map_or_else(|| given.to_string(), String::from);
    // Old clients send the flavor's link.
    let id = text.rsplit('/').next().unwrap_or_default().to_string();
    let (wanted, cx) = (id.clone(), request.ctx.clone());
    let found = nova.read(move |tx| tx.find::<Flavor>(&wanted)).await?;
    let visible =
        |flavor: &Flavor| flavor.is_public || cx.is_admin() || flavor.projects.contains(&cx.project_id);
    found.filter(visible).ok_or_else(|| Error::bad_request(format!("Flavor {id} could not be found.")))
}

const ZERO_DISK: &str = "os_compute_api:servers:create:zero_disk_flavor";
const GIB: u64 = 1 << 30;

pub(super) const NO_IMAGE: &str = "Can not find requested image";

/// The image that the server boots, checked against the flavor.
pub(super) async fn image_facts(
    nova: &Nova,
    request: &Request,
    image_ref: &str,
    flavor: &Flavor,
    root: &Root,
) -> Result<ImageFacts> {
    let (id, volume_gb) = match root {
        Root::Image => (image_ref, None),
        Root::VolumeOfImage { image_id, size_gb } => (image_id.as_str(), Some(*size_gb)),
        Root::Volume(volume) => {
            return Ok(ImageFacts { properties: volume.image_metadata.clone(), ..ImageFacts::default() });
        }
    };
    let found = nova.images().show(&request.ctx, id).await;
    let image = found.map_err(|error| match server_devices::is_missing(&error) {
        true => Error::bad_request(NO_IMAGE),
        false => error,
    })?;
    if image.status != "active" {
        return Err(Error::bad_request(format!("Image {id} is not active.")));
    }
    if flavor.memory_mb < image.min_ram_mb as i64 {
        return Err(Error::bad_request("Flavor's memory is too small for requested image."));
    }
    match volume_gb {
        Some(size_gb) => check_volume_size(&image, size_gb)?,
        None => check_disk_size(request, &image, flavor)?,
    }
    Ok(ImageFacts {
        disk_format: image.disk_format,
        min_disk_gb: image.min_disk_gb,
        min_ram_mb: image.min_ram_mb,
        properties: image.properties,
    })
}

fn check_volume_size(image: &Image, size_gb: i64) -> Result<()> {
    let (volume, least) = (size_gb as u64 * GIB, image.min_disk_gb * GIB);
    if least <= volume {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "Volume is smaller than the minimum size specified in image metadata. Volume size is {volume} bytes, minimum size is {least} bytes."
    )))
}

fn check_disk_size(request: &Request, image: &Image, flavor: &Flavor) -> Result<()> {
    let disk = flavor.root_gb.unsigned_abs() * GIB;
    let least = image.min_disk_gb * GIB;
    if disk == 0 {
        let allowed = request.may(ZERO_DISK, &own_project(request));
        let refusal = "Only volume-backed servers are allowed for flavors with zero disk.";
        return if allowed { Ok(()) } else { Err(Error::forbidden(refusal)) };
    }
    if image.size_bytes > disk {
        return Err(Error::bad_request(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {disk} bytes, image is {} bytes.",
            image.size_bytes
        )));
    }
    if least > disk {
        return Err(Error::bad_request(format!(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {disk} bytes, minimum size is {least} bytes."
        )));
    }
    Ok(())
}

/// A server as the request describes it, without what tells it from the others of the request.
#[expect(clippy::too_many_arguments, reason = "each was checked by itself before")]
async fn draft(
    nova: &Nova,
    request: &Request,
    body: &Json,
    flavor: &Flavor,
    image_ref: String,
    image: ImageFacts,
    devices: &Devices,
    place: &Place,
) -> Result<Instance> {
    let server = &body["server"];
    let text = |name: &str| server[name].as_str().map(String::from);
    let display_name = text("name").unwrap_or_default().trim().to_string();
    let metadata = server_metadata::given(&server["metadata"]);
    let personality = personality(&server["personality"]);
    check_limits(nova, request, metadata.len(), &personality).await?;
    let key = key_pair(nova, request, text("key_name")).await?;
    let hints = match body.get("os:scheduler_hints").or_else(|| body.get("OS-SCH-HNT:scheduler_hints")) {
        Some(hints) => hints.clone(),
        None => json!({}),
    };
    let certificates = server["trusted_image_certificates"]
        .as_array()
        .map(|ids| AsJson(ids.iter().filter_map(|id| id.as_str().map(String::from)).collect::<Vec<_>>()));
    if certificates.is_some() {
        request.can_rule("os_compute_api:servers:create:trusted_certs", &own_project(request))?;
    }
    // What is booted from a volume takes no root disk of the host.
    let root_gb = if matches!(devices.root, Root::Image) { flavor.root_gb } else { 0 };
    let mut tags: Vec<String> = server["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tag| tag.as_str().map(String::from))
        .collect();
    tags.sort();
    tags.dedup();
    let now = nova.clock.now();
    let since_2_19 = request.since(2, 19);
    Ok(Instance {
        uuid: String::new(),
        number: 0,
        project_id: request.ctx.project_id.clone(),
        user_id: request.ctx.user_id.clone(),
        display_description: if since_2_19 { text("description") } else { Some(display_name.clone()) },
        hostname: text("hostname").unwrap_or_else(|| hostname(&display_name)),
        display_name,
        vm_state: VmState::Building,
        task_state: Some(TaskState::Scheduling),
        power_state: 0,
        progress: 0,
        host: None,
        node: None,
        availability_zone: None,
        pinned_availability_zone: place.zone.clone(),
        flavor: AsJson(flavor.clone()),
        flavor_id: flavor.flavorid.clone(),
        vcpus: flavor.vcpus,
        memory_mb: flavor.memory_mb,
        disk_gb: root_gb + flavor.ephemeral_gb + (flavor.swap + 1023) / 1024,
        image_ref: if matches!(devices.root, Root::Image) { image_ref } else { String::new() },
        image: AsJson(image),
        key_name: key.as_ref().map(|key| key.name.clone()),
        public_key: key.as_ref().map(|key| key.public_key.clone()),
        key_type: key.map(|key| key.r#type),
        user_data: text("user_data"),
        config_drive: if is_true(&server["config_drive"]) { "True".into() } else { String::new() },
        metadata: AsJson(metadata),
        tags,
        access_ip_v4: text("accessIPv4"),
        access_ip_v6: text("accessIPv6").map(plain_address),
        locked_by: None,
        locked_reason: None,
        auto_disk_config: text("OS-DCF:diskConfig").as_deref() == Some("AUTO"),
        root_device_name: Some(server_devices::ROOT_DEVICE.into()),
        reservation_id: format!("r-{}", random(8).to_lowercase()),
        launch_index: 0,
        personality: AsJson(personality),
        security_groups: server_networks::group_names(&server["security_groups"]),
        server_group_id: group_hint(&hints),
        scheduler_hints: hints,
        trusted_image_certificates: certificates,
        nics: AsJson(Vec::new()),
        fault: None,
        deleted: false,
        created_at: now,
        updated_at: now,
        launched_at: None,
        terminated_at: None,
    })
}

pub(super) fn personality(given: &Json) -> Vec<InjectedFile> {
    let text = |file: &Json, name: &str| file[name].as_str().unwrap_or_default().to_string();
    let one = |file: &Json| InjectedFile { path: text(file, "path"), contents: text(file, "contents") };
    given.as_array().into_iter().flatten().map(one).collect()
}

/// Limits on what one server may carry.
pub(super) async fn check_limits(
    nova: &Nova,
    request: &Request,
    metadata: usize,
    files: &[InjectedFile],
) -> Result<()> {
    let (options, project_id) = (nova.options.clone(), request.ctx.project_id.clone());
    let limits = nova.read(move |tx| quota::limits(tx, &options, &project_id)).await?;
    let over = |name: &str, size: usize| {
        limits.get(name).copied().filter(|limit| *limit >= 0 && size as i64 > *limit)
    };
    if let Some(limit) = over("metadata_items", metadata) {
        return Err(Error::over_quota(format!("Maximum number of metadata items exceeds {limit}")));
    }
    if over("injected_files", files.len()).is_some() {
        return Err(Error::over_quota("Personality file limit exceeded"));
    }
    for file in files {
        if let Some(limit) = over("injected_file_path_bytes", file.path.len()) {
            return Err(Error::over_quota(format!("Personality file path exceeds maximum {limit}")));
        }
        // Three bytes in four characters.
        if let Some(limit) =
            over("injected_file_content_bytes", file.contents.trim_end_matches('=').len() * 3 / 4)
        {
            return Err(Error::over_quota(format!("Personality file content exceeds maximum {limit}")));
        }
    }
    Ok(())
}

pub(super) async fn key_pair(
    nova: &Nova,
    request: &Request,
    name: Option<String>,
) -> Result<Option<KeyPair>> {
    let Some(name) = name else { return Ok(None) };
    let user_id = request.ctx.user_id.clone();
    let found = nova.read(move |tx| tx.get::<KeyPair>(params![user_id, name])).await?;
    found.map(Some).ok_or_else(|| Error::bad_request("Invalid key_name provided."))
}

fn group_hint(hints: &Json) -> Option<String> {
    let hint = &hints["group"];
    hint.as_str().or_else(|| hint.get(0)?.as_str()).map(String::from)
}

/// Host names have letters, digits and hyphens alone, 63 of them at most.
fn hostname(name: &str) -> String {
    let latin = name.chars().filter(|c| u32::from(*c) < 256).take(63);
    let hyphens = latin.map(|c| if matches!(c, ' ' | '_' | '.') { '-' } else { c });
    let kept: String = hyphens.filter(|c| c.is_alphanumeric() || *c == '-').collect();
    kept.to_lowercase().trim_matches('-').to_string()
}

/// The shortest form, which upstream shows.
pub fn plain_address(text: String) -> String {
    text.parse::<std::net::IpAddr>().map_or(text, |address| address.to_string())
}

fn random(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

pub(super) fn password(nova: &Nova) -> String {
    random(nova.options.password_length)
}

impl Nova {
    /// As many servers as fit the quota, at least as many as asked for; each with its boot begun.
    async fn make_servers(
        self: &Arc<Self>,
        cx: &Context,
        order: Order,
        ports: impl Fn() -> Vec<PlannedPort> + Send + 'static,
    ) -> Result<Vec<Instance>> {
        let (nova, cx) = (self.clone(), cx.clone());
        self.write(move |tx| {
            let Order { draft, at_least, at_most, .. } = &order;
            let one = quota::Wanted { cores: draft.vcpus, ram: draft.memory_mb };
            let count = quota::fit(tx, &nova.options, &draft.project_id, one, *at_least, *at_most)?;
            if count > 1 && order.hostname_given {
                return Err(Error::bad_request("Unable to allocate a single hostname to multiple instances"));
            }
            check_group(tx, &nova, draft, count)?;
            (0..count).map(|n| make_server(tx, &nova, &cx, &order, ports(), n, count)).collect()
        })
        .await
    }
}

fn check_group(tx: &mut Tx, nova: &Nova, draft: &Instance, count: i64) -> Result<()> {
    let Some(group_id) = &draft.server_group_id else { return Ok(()) };
    let group = tx.find::<ServerGroup>(group_id)?.filter(|group| group.project_id == draft.project_id);
    if group.is_none() {
        return Err(Error::bad_request(format!("Instance group {group_id} could not be found.")));
    }
    let limits = quota::limits(tx, &nova.options, &draft.project_id)?;
    let limit = limits.get("server_group_members").copied().unwrap_or(-1);
    let members = store::group_members(tx, group_id)?.len() as i64;
    if limit >= 0 && members + count > limit {
        return Err(Error::over_quota("Quota exceeded, too many servers in group"));
    }
    Ok(())
}

/// One of `count` servers.
fn make_server(
    tx: &mut Tx,
    nova: &Arc<Nova>,
    cx: &Context,
    order: &Order,
    ports: Vec<PlannedPort>,
    n: i64,
    count: i64,
) -> Result<Instance> {
    let now = nova.clock.now();
    let uuid = id::uuid();
    let mut instance = Instance {
        uuid: uuid.clone(),
        number: store::next_instance_number(tx)?,
        launch_index: n,
        created_at: now,
        updated_at: now,
        ..order.draft.clone()
    };
    if count > 1 {
        instance.display_name = format!("{}-{}", instance.display_name, n + 1);
        instance.hostname = hostname(&instance.display_name);
    }
    if instance.hostname.is_empty() {
        instance.hostname = format!("server-{uuid}");
    }
    tx.insert(&instance)?;
    for device in server_devices::rows(&order.devices.volumes, &uuid) {
        tx.insert(&device)?;
    }
    actions::begin(tx, cx, &uuid, "create", now)?;
    let boot = Boot {
        uuid: uuid.clone(),
        ports,
        forced_host: order.place.host.clone(),
        forced_node: order.place.node.clone(),
        host: String::new(),
        host_ip: String::new(),
        requests: Vec::new(),
    };
    nova.flows.start(tx, cx, &boot, &uuid)?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_are_made_of_names() {
        for (name, expected) in [
            ("web 1", "web-1"),
            ("Web_1.example", "web-1-example"),
            ("--x--", "x"),
            ("日本", ""),
            ("a!b", "ab"),
        ] {
            assert_eq!(hostname(name), expected, "{name}");
        }
        assert_eq!(hostname(&"a".repeat(80)).len(), 63);
    }

    #[test]
    fn counts_default_to_each_other() {
        assert_eq!(counts(&json!({})).unwrap(), (1, 1));
        assert_eq!(counts(&json!({"min_count": "2"})).unwrap(), (2, 2));
        assert_eq!(counts(&json!({"max_count": 3})).unwrap(), (1, 3));
        assert!(counts(&json!({"min_count": 3, "max_count": 2})).is_err());
    }
}
