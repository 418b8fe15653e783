//! Ports.

use super::{can, can_change, check_revision, load, on_network, standard};
use crate::{
    Neutron, Options,
    agents::Touched,
    attributes::{self, Attribute, Given, Kind, both, flag_or, mac, post, shown, text, text_or},
    errors::{bad, conflict, named_bad, not_allowed},
    events,
    flows::reallocate::Change,
    forwardings, ipam,
    listing::{Wanted, chosen},
    model::*,
    ports,
    qos_ports::{self, Reallocation},
    rbac,
    store::{self, NETWORK, PORT, WholePort},
    trunks,
};
use base::{Json, Result, Timestamp};
use db::{Filter, Stored, Tx};
use serde_json::json;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/ports", "get_port", list),
        post_route("/v2.0/ports", "create_port", create),
        get("/v2.0/ports/{port_id}", "get_port", show),
        put("/v2.0/ports/{port_id}", "update_port", update),
        delete("/v2.0/ports/{port_id}", "delete_port", remove),
    ]
}

/// The ports that hosts of ours plug.
pub const VNIC_TYPE_NORMAL: &str = "normal";
pub const VNIC_TYPES: &[&str] = &[
    VNIC_TYPE_NORMAL,
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
];

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    post("network_id", Kind::Uuid).required(),
    both("admin_state_up", Kind::Bool),
    both("mac_address", Kind::Mac).ruled(),
    both("fixed_ips", Kind::FixedIps),
    both("device_id", Kind::Text(255)),
    both("device_owner", Kind::Text(255)),
    shown("status"),
    both("security_groups", Kind::Uuids),
    both("port_security_enabled", Kind::Bool).ruled(),
    both("allowed_address_pairs", Kind::Any).ruled(),
    both("extra_dhcp_opts", Kind::Any),
    both("binding:host_id", Kind::TextOrNull(255)).ruled(),
    both("binding:vnic_type", Kind::OneOf(VNIC_TYPES)),
    both("binding:profile", Kind::Any).ruled(),
    both("qos_policy_id", Kind::UuidOrNull),
    shown("qos_network_policy_id"),
    shown("resource_request"),
    shown("trunk_details"),
    shown("binding:vif_type"),
    shown("binding:vif_details"),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    post("tags", Kind::UniqueTexts(super::tags::TAG_CHARACTERS_MAX)),
];

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (bodies, many) = attributes::bodies(&request, "port", "ports")?;
    let mut wanted = Vec::new();
    for given in bodies {
        let given = attributes::created(&request, ATTRIBUTES, given)?;
        let network_id = text_or(&given, "network_id", "");
        let cx = request.ctx.clone();
        let network = neutron.read(move |tx| sees_network(tx, &cx, &network_id)).await?;
        let project_id = text_or(&given, "project_id", "");
        let mut target = on_network(&project_id, &network);
        target["device_owner"] = json!(text_or(&given, "device_owner", ""));
        can(&request, &target)?;
        check_rules(&request, &given, &target, &network)?;
        super::qos::check(&neutron, &request, &given).await?;
        wanted.push(given);
    }
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    let made = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            wanted.iter().map(|given| insert(tx, touched, &options, given, now)).collect::<Result<Vec<_>>>()
        })
        .await?;
    let views: Vec<Json> = made.iter().map(|whole| view(&request, whole)).collect();
    Ok(match many {
        true => Reply::created(json!({"ports": views})),
        false => Reply::created(json!({"port": views[0]})),
    })
}

/// The network, if the caller may see it or is a service.
fn sees_network(tx: &mut Tx, cx: &base::Context, id: &str) -> Result<Network> {
    match cx.has_role("service") {
        true => super::network_of(tx, cx, id),
        false => rbac::load::<Network>(tx, cx, id),
    }
}

/// Attributes that only some may give.
fn check_rules(request: &Request, given: &Given, target: &Json, network: &Network) -> Result<()> {
    let owns_network = request.ctx.is_admin() || network.project_id == request.ctx.project_id;
    let mut ruled = Vec::new();
    for attribute in ATTRIBUTES.iter().filter(|a| a.rule && given.contains_key(a.name)) {
        let is_binding = attribute.name.starts_with("binding:");
        if is_binding || !owns_network {
            ruled.push(*attribute);
        }
    }
    attributes::check_rules(request, "port", &ruled, given, target)?;
    let owner = text_or(given, "device_owner", "");
    let verb = if request.method == web::Method::POST { "create" } else { "update" };
    if owner.starts_with("network:") && !owns_network {
        return Err(not_allowed(format!("(rule:{verb}_port and rule:{verb}_port:device_owner)")));
    }
    let names_address = ipam::wanted(given).into_iter().flatten().any(|fixed| fixed.ip_address.is_some());
    if names_address && !owns_network {
        return Err(not_allowed(format!(
            "(rule:{verb}_port and (rule:{verb}_port:fixed_ips and (rule:{verb}_port:fixed_ips:ip_address)))"
        )));
    }
    Ok(())
}

fn insert(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &Options,
    given: &Given,
    now: Timestamp,
) -> Result<WholePort> {
    let network = load::<Network>(tx, NETWORK, &text_or(given, "network_id", ""))?;
    let project_id = text_or(given, "project_id", "");
    let mut port = ports::blank(&network, &project_id, now);
    port.name = text_or(given, "name", "");
    port.description = text_or(given, "description", "");
    port.admin_state_up = flag_or(given, "admin_state_up", true);
    port.mac_address = text_or(given, "mac_address", "");
    port.device_id = text_or(given, "device_id", "");
    port.device_owner = text_or(given, "device_owner", "");
    port.vnic_type = text_or(given, "binding:vnic_type", "normal");
    port.tags = attributes::texts(given, "tags");
    port.qos_policy_id = text(given, "qos_policy_id");
    if let Some(profile) = given.get("binding:profile").filter(|profile| profile.is_object()) {
        port.profile = profile.clone();
    }
    let trusted = port.device_owner.starts_with("network:");
    port.port_security_enabled =
        flag_or(given, "port_security_enabled", network.port_security_enabled && !trusted);
    port.extra_dhcp_opts = dhcp_opts(given.get("extra_dhcp_opts"), &json!([]))?;
    if port.mac_address.is_empty() {
        port.mac_address = ipam::new_mac(tx, &network.id, &options.base_mac)?;
    }
    let fixed = ipam::wanted(given);
    let has_addresses = fixed.as_ref().is_none_or(|list| !list.is_empty());
    port.allowed_address_pairs = pairs(options, given.get("allowed_address_pairs"), &port)?;
    let named = given.contains_key("security_groups").then(|| attributes::texts(given, "security_groups"));
    let groups = match (port.port_security_enabled, named) {
        (false, Some(named)) if !named.is_empty() => return Err(needs_port_security()),
        (false, _) => Vec::new(),
        (true, Some(named)) if !named.is_empty() && !has_addresses => return Err(needs_port_security()),
        (true, named) => ports::groups_of(tx, &project_id, named, now)?,
    };
    if let Some(host) = text(given, "binding:host_id") {
        ports::bind(tx, &mut port, &host)?;
    }
    ports::create(tx, touched, options, port, fixed.as_deref(), &groups)
}

fn needs_port_security() -> base::Error {
    named_bad(
        "PortSecurityAndIPRequiredForSecurityGroups",
        "Port security must be enabled and port must have an IP address in order to use security groups.",
    )
}

/// Addresses that a port may have besides its own.
fn pairs(options: &Options, given: Option<&Json>, port: &Port) -> Result<Json> {
    let Some(given) = given.filter(|given| !given.is_null()) else { return Ok(json!([])) };
    let Some(list) = given.as_array() else {
        return Err(bad("Allowed address pairs must be a list."));
    };
    if list.len() > options.max_allowed_address_pairs {
        return Err(named_bad(
            "AllowedAddressPairExhausted",
            format!(
                "The number of allowed address pair exceeds the maximum {}.",
                options.max_allowed_address_pairs
            ),
        ));
    }
    if !list.is_empty() && !port.port_security_enabled {
        return Err(conflict(
            "AddressPairAndPortSecurityRequired",
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        ));
    }
    let mut found: Vec<Json> = Vec::new();
    for pair in list {
        let Some(address) = pair["ip_address"].as_str() else {
            return Err(named_bad(
                "AllowedAddressPairsMissingIP",
                "AllowedAddressPair must contain ip_address",
            ));
        };
        let is_address = address.parse::<IpAddr>().is_ok() || address.parse::<ipnet::IpNet>().is_ok();
        if !is_address {
            let what = if address.contains('/') { "subnet" } else { "address" };
            return Err(bad(format!("'{address}' is not a valid IP {what}")));
        }
        let own = match pair.get("mac_address").and_then(Json::as_str) {
            None => port.mac_address.clone(),
            Some(text) => mac(text).ok_or_else(|| bad(format!("'{text}' is not a valid MAC address.")))?,
        };
        let one = json!({"ip_address": address, "mac_address": own});
        if found.contains(&one) {
            return Err(named_bad(
                "DuplicateAddressPairInRequest",
                format!("Request contains duplicate address pair: mac_address {own} ip_address {address}."),
            ));
        }
        found.push(one);
    }
    Ok(json!(found))
}

/// Options for DHCP; one without a value is taken away.
fn dhcp_opts(given: Option<&Json>, has: &Json) -> Result<Json> {
    let Some(given) = given.filter(|given| !given.is_null()) else { return Ok(has.clone()) };
    let Some(list) = given.as_array() else { return Err(bad("Invalid data format for extra-dhcp-opt")) };
    let mut all: Vec<Json> = has.as_array().cloned().unwrap_or_default();
    for option in list {
        let Some(name) = option["opt_name"].as_str().filter(|name| !name.is_empty()) else {
            return Err(bad("Invalid input for extra_dhcp_opts. Reason: opt_name is required."));
        };
        let version = option["ip_version"].as_i64().unwrap_or(4);
        all.retain(|old| !(old["opt_name"] == name && old["ip_version"] == version));
        if let Some(value) = option.get("opt_value").filter(|value| !value.is_null()) {
            let value = attributes::python(value);
            all.push(json!({"opt_name": name, "opt_value": value, "ip_version": version}));
        }
    }
    Ok(json!(all))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({"project_id": request.ctx.project_id}))?;
    let mut wanted = Wanted::parse::<Port>(&request, neutron.options.pagination_max_limit, special)?;
    if !request.ctx.is_admin() && !request.ctx.has_role("service") {
        let sees = "(project_id = ? OR network_id IN (SELECT id FROM networks WHERE project_id = ?))";
        let own = request.ctx.project_id.store();
        wanted.list = wanted.list.filter(Filter::sql(sees, [own.clone(), own]));
    }
    let (wanted, found) = neutron
        .read(move |tx| {
            let ports = wanted.find::<Port>(tx, PORT)?;
            Ok((wanted.clone(), store::whole(tx, ports)?))
        })
        .await?;
    let views = found.iter().map(|whole| view(&request, whole)).collect();
    Ok(wanted.reply(&request, "ports", views))
}

/// `fixed_ips=ip_address=10.0.0.1`, `fixed_ips=subnet_id=…`, `security_groups=…`.
fn special(name: &str, values: &[&str]) -> Result<Option<Filter>> {
    let value = values.first().copied().unwrap_or_default();
    Ok(match name {
        "fixed_ips" => {
            let of = |key: &str| {
                values.iter().filter_map(|v| v.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
            };
            Some(match (of("ip_address"), of("subnet_id"), of("ip_address_substr")) {
                (Some(address), Some(subnet), _) => Filter::sql(
                    "id IN (SELECT port_id FROM ip_allocations WHERE ip_address = ? AND subnet_id = ?)",
                    [address.store(), subnet.store()],
                ),
                (Some(address), None, _) => Filter::sql(
                    "id IN (SELECT port_id FROM ip_allocations WHERE ip_address = ?)",
                    [address.store()],
                ),
                (None, Some(subnet), _) => Filter::sql(
                    "id IN (SELECT port_id FROM ip_allocations WHERE subnet_id = ?)",
                    [subnet.store()],
                ),
                (None, None, Some(part)) => Filter::sql(
                    "id IN (SELECT port_id FROM ip_allocations WHERE ip_address LIKE ?)",
                    [format!("%{part}%").store()],
                ),
                _ => return Err(bad(format!("['{value}'] is invalid attribute for filtering"))),
            })
        }
        "security_groups" => Some(Filter::sql(
            "id IN (SELECT port_id FROM port_security_groups WHERE security_group_id = ?)",
            [value.store()],
        )),
        "mac_address" => Some(Filter::any("mac_address", values.iter().map(|mac| mac.to_lowercase()))),
        "ip_allocation" => Some(Filter::sql("TRUE", [])),
        _ => None,
    })
}

async fn one(neutron: &Neutron, request: &Request) -> Result<(WholePort, Network)> {
    let (id, cx) = (request.param("port_id").to_string(), request.ctx.clone());
    neutron
        .read(move |tx| {
            let whole = store::whole_port(tx, &id)?;
            let network = super::network_of(tx, &cx, &whole.port.network_id)?;
            Ok((whole, network))
        })
        .await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (whole, network) = one(&neutron, &request).await?;
    can(&request, &on_network(&whole.port.project_id, &network))
        .map_err(|_| crate::listing::not_found(PORT, &whole.port.id))?;
    Ok(Reply::ok(json!({"port": chosen(&request, view(&request, &whole))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (whole, network) = one(&neutron, &request).await?;
    let mut target = on_network(&whole.port.project_id, &network);
    if !request.may("get_port", &target) {
        return Err(crate::listing::not_found(PORT, &whole.port.id));
    }
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "port")?)?;
    target["device_owner"] = json!(text_or(&given, "device_owner", ""));
    can_change(&request, PORT, &whole.port.id, "get_port", &target)?;
    check_rules(&request, &given, &target, &network)?;
    super::qos::check(&neutron, &request, &given).await?;
    check_revision(&request, whole.port.revision_number)?;
    let id = whole.port.id;
    neutron.change(&request.ctx, Change::Port { id: id.clone(), given }).await?;
    let whole = neutron.read(move |tx| store::whole_port(tx, &id)).await?;
    Ok(Reply::ok(json!({"port": chosen(&request, view(&request, &whole))})))
}

pub fn change(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &Options,
    (id, given): (&str, &Given),
    reallocations: &[Reallocation],
    now: Timestamp,
) -> Result<()> {
    let whole = store::whole_port(tx, id)?;
    touched.port(&whole);
    let WholePort { mut port, addresses, groups, .. } = whole;
    if let Some(name) = text(given, "name") {
        port.name = name;
    }
    if let Some(description) = text(given, "description") {
        port.description = description;
    }
    if let Some(device_id) = text(given, "device_id") {
        port.device_id = device_id;
    }
    if let Some(owner) = text(given, "device_owner") {
        port.device_owner = owner;
    }
    if let Some(kind) = text(given, "binding:vnic_type") {
        port.vnic_type = kind;
    }
    if let Some(profile) = given.get("binding:profile") {
        port.profile = if profile.is_object() { profile.clone() } else { json!({}) };
    }
    if let Some(mac) = text(given, "mac_address").filter(|mac| *mac != port.mac_address) {
        if !port.host_id.is_empty() && port.device_owner.starts_with("compute:") {
            return Err(conflict(
                "PortBound",
                format!(
                    "Unable to complete operation on port {id}, port is already bound, port type: {}, old_mac {}, \
                     new_mac {mac}.",
                    port.vif_type, port.mac_address
                ),
            ));
        }
        port.mac_address = mac;
    }
    port.admin_state_up = flag_or(given, "admin_state_up", port.admin_state_up);
    if given.contains_key("qos_policy_id") {
        port.qos_policy_id = text(given, "qos_policy_id");
    }
    for reallocation in reallocations {
        reallocation.apply(&mut port);
    }
    let named = given.contains_key("security_groups").then(|| attributes::texts(given, "security_groups"));
    let secured = flag_or(given, "port_security_enabled", port.port_security_enabled);
    let kept = named.as_ref().unwrap_or(&groups);
    if !secured && !kept.is_empty() {
        return match port.port_security_enabled {
            true => Err(conflict(
                "PortSecurityPortHasSecurityGroup",
                "Port has security group associated. Cannot disable port security or IP address until security group is removed.",
            )),
            false => Err(needs_port_security()),
        };
    }
    port.port_security_enabled = secured;
    if given.contains_key("allowed_address_pairs") {
        port.allowed_address_pairs = pairs(options, given.get("allowed_address_pairs"), &port)?;
    }
    port.extra_dhcp_opts = dhcp_opts(given.get("extra_dhcp_opts"), &port.extra_dhcp_opts)?;
    if let Some(host) = given.get("binding:host_id") {
        ports::bind(tx, &mut port, host.as_str().unwrap_or_default())?;
    }
    if let Some(wanted) = ipam::wanted(given) {
        readdress(tx, &port, &addresses, &wanted)?;
    }
    if let Some(named) = named {
        let named = ports::groups_of(tx, &port.project_id, Some(named), now)?;
        tx.execute(db::sql!("DELETE FROM port_security_groups WHERE port_id = $1"), db::params![id])?;
        let unique: BTreeSet<String> = named.into_iter().collect();
        for group in unique {
            tx.insert(&PortGroup { port_id: id.into(), security_group_id: group })?;
        }
    }
    port.change(tx, now)?;
    trunks::follow(tx, touched, &port, now)?;
    let whole = store::whole_port(tx, id)?;
    let kept: Vec<String> = whole.addresses.iter().map(|row| row.ip_address.clone()).collect();
    forwardings::left(tx, touched, id, &kept, now)?;
    touched.port(&whole);
    if ["fixed_ips", "mac_address", "security_groups"].iter().any(|name| given.contains_key(*name)) {
        touched.server(&whole.port, events::CHANGED);
    }
    Ok(())
}

/// Each wish takes one of the addresses that are there, those that name theirs first. The others are given up before
/// new ones are taken.
fn readdress(tx: &mut Tx, port: &Port, has: &[IpAllocation], wanted: &[ipam::Fixed]) -> Result<()> {
    let mut left: Vec<&IpAllocation> = has.iter().collect();
    let mut take = |fits: &dyn Fn(&IpAllocation) -> bool| -> bool {
        let found = left.iter().position(|row| fits(row));
        found.map(|at| left.remove(at)).is_some()
    };
    let (named, any): (Vec<&ipam::Fixed>, Vec<&ipam::Fixed>) =
        wanted.iter().partition(|fixed| fixed.ip_address.is_some());
    let mut new: Vec<ipam::Fixed> = Vec::new();
    for fixed in named {
        if !take(&|row| fixed.ip_address.as_deref() == Some(&row.ip_address)) {
            new.push(fixed.clone());
        }
    }
    for fixed in any {
        if !take(&|row| fixed.subnet_id.as_deref() == Some(&row.subnet_id)) {
            new.push(fixed.clone());
        }
    }
    for row in left {
        tx.delete::<IpAllocation>(&[row.subnet_id.store(), row.ip_address.store()])?;
    }
    ipam::allocate(tx, port, Some(&new))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (whole, network) = one(&neutron, &request).await?;
    let mut target = on_network(&whole.port.project_id, &network);
    target["device_owner"] = json!(whole.port.device_owner);
    can_change(&request, PORT, &whole.port.id, "get_port", &target)?;
    let (id, clock) = (whole.port.id, neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let port = load::<Port>(tx, PORT, &id)?;
            let is_routers =
                matches!(port.device_owner.as_str(), OWNER_ROUTER | OWNER_GATEWAY | OWNER_FLOATING);
            let lives = match port.device_owner.as_str() {
                OWNER_FLOATING => tx.find::<FloatingIp>(&port.device_id)?.is_some(),
                _ => tx.find::<Router>(&port.device_id)?.is_some(),
            };
            if is_routers && lives {
                return Err(conflict(
                    "ServicePortInUse",
                    format!(
                        "Port {id} cannot be deleted directly via the port API: has device owner {}.",
                        port.device_owner
                    ),
                ));
            }
            trunks::check_unused(tx, &id)?;
            touched.server(&port, events::DELETED);
            ports::delete(tx, touched, &id, clock.now())
        })
        .await?;
    Ok(Reply::no_content())
}

pub fn view(request: &Request, whole: &WholePort) -> Json {
    let port = &whole.port;
    let fixed: Vec<Json> = whole
        .addresses
        .iter()
        .map(|row| json!({"subnet_id": row.subnet_id, "ip_address": row.ip_address}))
        .collect();
    let mut view = json!({
        "id": port.id, "name": port.name, "description": port.description, "network_id": port.network_id,
        "admin_state_up": port.admin_state_up, "status": port.status, "mac_address": port.mac_address,
        "fixed_ips": fixed, "device_id": port.device_id, "device_owner": port.device_owner,
        "security_groups": whole.groups, "port_security_enabled": port.port_security_enabled,
        "allowed_address_pairs": port.allowed_address_pairs, "extra_dhcp_opts": port.extra_dhcp_opts,
        "binding:vnic_type": port.vnic_type, "tags": port.tags, "qos_policy_id": port.qos_policy_id,
        "qos_network_policy_id": whole.network_qos,
    });
    if let Some(trunk) = &whole.trunk {
        view["trunk_details"] = trunk.view();
    }
    if request.may("get_port:binding:host_id", &json!({"project_id": port.project_id})) {
        view["binding:host_id"] = json!(port.host_id);
        view["binding:profile"] = port.profile.clone();
        view["binding:vif_type"] = json!(port.vif_type);
        view["binding:vif_details"] = vif_details(&port.vif_type);
    }
    if request.may("get_port:resource_request", &json!({"project_id": port.project_id})) {
        view["resource_request"] = qos_ports::view(&whole.resource_request);
    }
    standard(&mut view, port);
    view
}

/// What nova is told about the way a port is plugged.
pub fn vif_details(vif_type: &str) -> Json {
    match vif_type {
        "bridge" => json!({"port_filter": true, "connectivity": "l2"}),
        _ => json!({}),
    }
}
