//! Networks.

use super::{can, can_change, check_revision, load, network_target, standard};
use crate::{
    Neutron,
    agents::Touched,
    attributes::{self, Attribute, Given, Kind, both, flag_or, post, shown, text, text_or},
    errors::{conflict, invalid},
    flows::reallocate::Change,
    listing::{Wanted, chosen},
    model::*,
    ports,
    qos_ports::{self, Reallocation},
    quota, rbac,
    schedule::Layout,
    store::{self, NETWORK, OnNetwork},
};
use base::{Error, Json, Result, Timestamp, id};
use db::{Filter, List, Stored, Tx};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/networks", "get_network", list),
        post_route("/v2.0/networks", "create_network", create),
        get("/v2.0/networks/{network_id}", "get_network", show),
        put("/v2.0/networks/{network_id}", "update_network", update),
        delete("/v2.0/networks/{network_id}", "delete_network", remove),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    both("admin_state_up", Kind::Bool),
    shown("status"),
    shown("subnets"),
    both("mtu", Kind::Int),
    both("shared", Kind::Bool).ruled(),
    both("router:external", Kind::Bool).ruled(),
    both("is_default", Kind::Bool).ruled(),
    both("port_security_enabled", Kind::Bool),
    both("provider:network_type", Kind::TextOrNull(32)).ruled(),
    both("provider:physical_network", Kind::TextOrNull(64)).ruled(),
    both("provider:segmentation_id", Kind::Any).ruled(),
    post("availability_zone_hints", Kind::Texts),
    both("qos_policy_id", Kind::UuidOrNull),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    shown("tags"),
];

/// Bytes that VXLAN takes of a frame.
const VXLAN_BYTES: i64 = 50;

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (bodies, many) = attributes::bodies(&request, "network", "networks")?;
    let mut wanted = Vec::new();
    for given in bodies {
        let given = attributes::created(&request, ATTRIBUTES, given)?;
        let target = json!({"project_id": given["project_id"], "tenant_id": given["project_id"]});
        can(&request, &target)?;
        attributes::check_rules(&request, "network", ATTRIBUTES, &given, &target)?;
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
    let views: Vec<Json> = made
        .iter()
        .map(|network| {
            let mut view = view(&request, network, &OnNetwork::default());
            view["is_default"] = json!(network.is_default);
            view
        })
        .collect();
    Ok(match many {
        true => Reply::created(json!({"networks": views})),
        false => Reply::created(json!({"network": views[0]})),
    })
}

fn insert(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &crate::Options,
    given: &Given,
    now: Timestamp,
) -> Result<Network> {
    let project_id = text_or(given, "project_id", "");
    quota::take(tx, options, &project_id, "network")?;
    let availability_zone_hints = super::zone_hints(tx, options, now, given, "network")?;
    let qos_policy_id = match given.contains_key("qos_policy_id") {
        true => text(given, "qos_policy_id"),
        false => super::qos::default_of(tx, &project_id)?,
    };
    let external = flag_or(given, "router:external", false);
    let network_type = text(given, "provider:network_type").unwrap_or_else(|| "vxlan".into());
    let mut physical_network = text(given, "provider:physical_network");
    let segment = given.get("provider:segmentation_id").filter(|value| !value.is_null());
    let segment = match segment {
        None => None,
        Some(value) => {
            let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            Some(
                number
                    .ok_or_else(|| invalid(format!("'{}' is not an integer", attributes::python(value))))?,
            )
        }
    };
    let (segmentation_id, mtu_max) = match network_type.as_str() {
        "vxlan" => {
            if physical_network.is_some() {
                return Err(invalid("provider:physical_network specified for vxlan network"));
            }
            (Some(vni(tx, options, segment)?), options.global_physnet_mtu - VXLAN_BYTES)
        }
        "flat" | "local" => {
            if segment.is_some() {
                return Err(invalid(format!(
                    "provider:segmentation_id prohibited for {network_type} provider network"
                )));
            }
            if network_type == "flat" {
                check_flat(tx, physical_network.as_deref())?;
            }
            (None, options.global_physnet_mtu)
        }
        "vlan" => {
            let found = vlan(tx, options, physical_network.as_deref(), segment)?;
            physical_network = Some(found.0);
            (Some(found.1), options.global_physnet_mtu)
        }
        other => return Err(invalid(format!("network_type value '{other}' not supported"))),
    };
    let mtu = given.get("mtu").and_then(Json::as_i64).filter(|mtu| *mtu != 0).unwrap_or(mtu_max);
    check_mtu(mtu, mtu_max)?;
    let network = Network {
        id: id::uuid(),
        project_id,
        name: text_or(given, "name", ""),
        description: text_or(given, "description", ""),
        admin_state_up: flag_or(given, "admin_state_up", true),
        status: ACTIVE.into(),
        mtu,
        shared: flag_or(given, "shared", false),
        external,
        is_default: flag_or(given, "is_default", false),
        port_security_enabled: flag_or(given, "port_security_enabled", true),
        network_type,
        physical_network,
        segmentation_id,
        availability_zone_hints,
        qos_policy_id,
        tags: Vec::new(),
        revision_number: 1,
        created_at: now,
        updated_at: now,
    };
    tx.insert(&network)?;
    set_policies(tx, &network)?;
    touched.networks.insert(network.id.clone());
    Ok(network)
}

/// The policies for everybody that the flags stand for.
fn set_policies(tx: &mut Tx, network: &Network) -> Result<()> {
    for (action, on) in [(rbac::SHARED, network.shared), (rbac::EXTERNAL, network.external)] {
        rbac::set_for_all(tx, "network", &network.id, &network.project_id, action, on)?;
    }
    Ok(())
}

fn check_mtu(mtu: i64, max: i64) -> Result<()> {
    match mtu {
        _ if mtu > max => Err(invalid(format!("Requested MTU is too big, maximum is {max}"))),
        _ if mtu < 68 => Err(invalid("Requested MTU is too small, minimum is 68")),
        _ => Ok(()),
    }
}

/// A flat physical network carries one network.
fn check_flat(tx: &mut Tx, physical_network: Option<&str>) -> Result<()> {
    let Some(name) = physical_network else {
        return Err(invalid("physical_network required for flat provider network"));
    };
    let same = [Filter::eq("network_type", "flat"), Filter::eq("physical_network", name)];
    match tx.count::<Network>(&same)? {
        0 => Ok(()),
        _ => Err(conflict(
            "FlatNetworkInUse",
            format!("Unable to create the flat network. Physical network {name} is in use."),
        )),
    }
}

/// The wanted VLAN, or one of the configured ranges that is free.
fn vlan(
    tx: &mut Tx,
    options: &crate::Options,
    physical_network: Option<&str>,
    wanted: Option<i64>,
) -> Result<(String, i64)> {
    let ranges = options.vlan_ranges()?;
    if let Some(name) = physical_network
        && !ranges.contains_key(name)
    {
        return Err(invalid(format!("physical_network '{name}' unknown for VLAN provider network")));
    }
    if wanted.is_some_and(|vlan| !(1..=VLAN_MAX).contains(&vlan)) {
        return Err(invalid(format!("segmentation_id out of range (1 through {VLAN_MAX})")));
    }
    let mut is_free = |name: &str, vlan: i64| -> Result<bool> {
        let same = [
            Filter::eq("network_type", "vlan"),
            Filter::eq("physical_network", name),
            Filter::eq("segmentation_id", vlan),
        ];
        Ok(tx.count::<Network>(&same)? == 0)
    };
    match (physical_network, wanted) {
        (None, Some(_)) => {
            return Err(invalid("segmentation_id requires physical_network for VLAN provider network"));
        }
        (Some(name), Some(vlan)) => {
            return match is_free(name, vlan)? {
                true => Ok((name.into(), vlan)),
                false => Err(conflict(
                    "VlanIdInUse",
                    format!(
                        "Unable to create the network. The VLAN {vlan} on physical network {name} is in use."
                    ),
                )),
            };
        }
        _ => {}
    }
    for (name, ranges) in
        ranges.iter().filter(|(name, _)| physical_network.is_none_or(|wanted| wanted == *name))
    {
        for vlan in ranges.iter().cloned().flatten() {
            if is_free(name, vlan)? {
                return Ok((name.clone(), vlan));
            }
        }
    }
    Err(no_network())
}

const VLAN_MAX: i64 = 4094;

fn no_network() -> Error {
    Error::unavailable("Unable to create the network. No tenant network is available for allocation.")
        .code("NoNetworkAvailable")
}

/// The wanted VXLAN segment, or the next that is free.
fn vni(tx: &mut Tx, options: &crate::Options, wanted: Option<i64>) -> Result<i64> {
    let is_free = |tx: &mut Tx, vni: i64| -> Result<bool> {
        let same = [Filter::eq("network_type", "vxlan"), Filter::eq("segmentation_id", vni)];
        Ok(tx.count::<Network>(&same)? == 0)
    };
    if let Some(vni) = wanted {
        if !(1..=16_777_215).contains(&vni) {
            return Err(invalid("segmentation_id out of range (1 through 16777215)"));
        }
        return match is_free(tx, vni)? {
            true => Ok(vni),
            false => Err(conflict(
                "TunnelIdInUse",
                format!("Unable to create the network. The tunnel ID {vni} is in use."),
            )),
        };
    }
    let last = tx.list::<Network>(
        &List::all().eq("network_type", "vxlan").sort("created_at", db::Direction::Desc).limit(1),
    )?;
    let span = options.vni_max - options.vni_min + 1;
    let first = last.first().and_then(|network| network.segmentation_id).unwrap_or(options.vni_min - 1);
    for step in 1..=span {
        let vni = options.vni_min + (first - options.vni_min + step).rem_euclid(span);
        if is_free(tx, vni)? {
            return Ok(vni);
        }
    }
    Err(no_network())
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({"project_id": request.ctx.project_id}))?;
    let cx = request.ctx.clone();
    let shared = super::shared_special::<Network>(&cx);
    let mut wanted = Wanted::parse::<Network>(
        &request,
        neutron.options.pagination_max_limit,
        |name, values| match name {
            "subnets" => Ok(Some(Filter::sql(
                "id IN (SELECT network_id FROM subnets WHERE id = ?)",
                [values.first().copied().unwrap_or_default().store()],
            ))),
            _ => shared(name, values),
        },
    )?;
    wanted.list.filters.extend(rbac::visible::<Network>(&cx));
    let (options, now) = (neutron.options.clone(), neutron.clock.now());
    let (wanted, found) = neutron
        .read(move |tx| {
            let mut networks = wanted.find::<Network>(tx, NETWORK)?;
            rbac::seen_by(tx, &cx, &mut networks)?;
            let layout = Layout::load(tx, &options, now)?;
            Ok((wanted.clone(), with_subnets(tx, &layout, networks)?))
        })
        .await?;
    let views = found.iter().map(|(on, network)| view(&request, network, on)).collect();
    Ok(wanted.reply(&request, "networks", views))
}

/// Networks with what is on them and where they are served.
pub fn with_subnets(
    tx: &mut Tx,
    layout: &Layout,
    networks: Vec<Network>,
) -> Result<Vec<(OnNetwork, Network)>> {
    let ids: BTreeSet<String> = networks.iter().map(|network| network.id.clone()).collect();
    let mut on = store::on_networks(tx, &ids)?;
    let served = store::with_dhcp(tx, &ids)?;
    let with = networks.into_iter().map(|network| {
        let mut of_network = on.remove(&network.id).unwrap_or_default();
        if served.contains(&network.id) {
            of_network.availability_zones = layout.network_zones(&network);
        }
        (of_network, network)
    });
    Ok(with.collect())
}

async fn one(neutron: &Neutron, request: &Request) -> Result<(Network, OnNetwork)> {
    let (id, cx) = (request.param("network_id").to_string(), request.ctx.clone());
    let (options, now) = (neutron.options.clone(), neutron.clock.now());
    neutron
        .read(move |tx| {
            let network = rbac::load::<Network>(tx, &cx, &id)?;
            let layout = Layout::load(tx, &options, now)?;
            let (on, network) = with_subnets(tx, &layout, vec![network])?.remove(0);
            Ok((network, on))
        })
        .await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (network, on) = one(&neutron, &request).await?;
    can(&request, &network_target(&network)).map_err(|_| crate::listing::not_found(NETWORK, &network.id))?;
    Ok(Reply::ok(json!({"network": chosen(&request, view(&request, &network, &on))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (network, on) = one(&neutron, &request).await?;
    let target = network_target(&network);
    if !request.may("get_network", &target) {
        return Err(crate::listing::not_found(NETWORK, &network.id));
    }
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "network")?)?;
    can_change(&request, NETWORK, &network.id, "get_network", &target)?;
    attributes::check_rules(&request, "network", ATTRIBUTES, &given, &target)?;
    super::qos::check(&neutron, &request, &given).await?;
    check_revision(&request, network.revision_number)?;
    let (cx, id) = (request.ctx.clone(), network.id);
    neutron.change(&cx, Change::Network { id: id.clone(), given }).await?;
    let network = neutron.read(move |tx| rbac::load::<Network>(tx, &cx, &id)).await?;
    Ok(Reply::ok(json!({"network": chosen(&request, view(&request, &network, &on))})))
}

pub fn change(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &crate::Options,
    (id, given): (&str, &Given),
    reallocations: &[Reallocation],
    now: Timestamp,
) -> Result<()> {
    let mut network = load::<Network>(tx, NETWORK, id)?;
    apply(tx, options, &mut network, given)?;
    qos_ports::apply_all(tx, touched, reallocations, now)?;
    if !given.is_empty() {
        network.change(tx, now)?;
        touched.networks.insert(id.into());
    }
    if given.contains_key("qos_policy_id") {
        let ports = store::all_of::<Port>(tx, "network_id", id)?;
        touched.ports.extend(ports.into_iter().map(|port| port.id));
    }
    Ok(())
}

fn apply(tx: &mut Tx, options: &crate::Options, network: &mut Network, given: &Given) -> Result<()> {
    for name in ["provider:network_type", "provider:physical_network", "provider:segmentation_id"] {
        if given.contains_key(name) {
            return Err(invalid(
                "Plugin does not support updating the following provider network attributes",
            ));
        }
    }
    if let Some(name) = text(given, "name") {
        network.name = name;
    }
    if let Some(description) = text(given, "description") {
        network.description = description;
    }
    if given.contains_key("qos_policy_id") {
        network.qos_policy_id = text(given, "qos_policy_id");
    }
    network.admin_state_up = flag_or(given, "admin_state_up", network.admin_state_up);
    network.port_security_enabled = flag_or(given, "port_security_enabled", network.port_security_enabled);
    network.is_default = flag_or(given, "is_default", network.is_default);
    for (name, action) in [("shared", rbac::SHARED), ("router:external", rbac::EXTERNAL)] {
        if given.contains_key(name) {
            set_flag(tx, network, action, flag_or(given, name, false))?;
        }
    }
    if let Some(mtu) = given.get("mtu").and_then(Json::as_i64) {
        let bytes = if network.network_type == "vxlan" { VXLAN_BYTES } else { 0 };
        check_mtu(mtu, options.global_physnet_mtu - bytes)?;
        network.mtu = mtu;
    }
    Ok(())
}

/// `shared` or `router:external`: a policy for everybody. Those for some projects stay when the first goes, and go with
/// the second.
fn set_flag(tx: &mut Tx, network: &mut Network, action: &str, on: bool) -> Result<()> {
    let known = List::all().eq("object_id", &*network.id).eq("action", action);
    for policy in tx.list::<RbacPolicy>(&known)?.iter().filter(|_| !on) {
        let goes = policy.target_tenant == rbac::EVERYBODY || action == rbac::EXTERNAL;
        if goes && rbac::check_unused(tx, policy).is_err() {
            return Err(in_use(network, action));
        }
        if goes {
            tx.remove::<RbacPolicy>(&policy.id)?;
        }
    }
    if on {
        rbac::set_for_all(tx, "network", &network.id, &network.project_id, action, true)?;
    } else if action == rbac::EXTERNAL && is_gateway(tx, &network.id)? {
        return Err(in_use(network, action));
    }
    match action {
        rbac::SHARED => network.shared = on,
        _ => network.external = on,
    }
    Ok(())
}

fn is_gateway(tx: &mut Tx, network_id: &str) -> Result<bool> {
    let used =
        [Filter::eq("network_id", network_id), Filter::any("device_owner", [OWNER_GATEWAY, OWNER_FLOATING])];
    Ok(tx.count::<Port>(&used)? > 0)
}

fn in_use(network: &Network, action: &str) -> Error {
    match action {
        rbac::SHARED => conflict(
            "InvalidSharedSetting",
            format!(
                "Unable to reconfigure sharing settings for network {}. Multiple projects are using it.",
                network.id
            ),
        ),
        _ => conflict(
            "ExternalNetworkInUse",
            format!(
                "External network {} cannot be updated to be made non-external, since it has existing gateway ports.",
                network.id
            ),
        ),
    }
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (network, _) = one(&neutron, &request).await?;
    can_change(&request, NETWORK, &network.id, "get_network", &network_target(&network))?;
    let (id, clock) = (network.id, neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            load::<Network>(tx, NETWORK, &id)?;
            // Floating addresses that point nowhere go with their network.
            for floating in store::all_of::<FloatingIp>(tx, "floating_network_id", &id)? {
                if floating.port_id.is_none() {
                    tx.remove::<FloatingIp>(&floating.id)?;
                    ports::delete(tx, touched, &floating.floating_port_id, clock.now())?;
                }
            }
            let used = [
                Filter::eq("network_id", &*id),
                Filter::new("device_owner", db::Op::Ne, OWNER_DHCP),
            ];
            if tx.count::<Port>(&used)? > 0 {
                return Err(conflict(
                    "NetworkInUse",
                    format!(
                        "Unable to complete operation on network {id}. There are one or more ports still in use on the \
                         network."
                    ),
                ));
            }
            if let Some(port) = ports::dhcp_port(tx, &id)? {
                ports::delete(tx, touched, &port.port.id, clock.now())?;
            }
            tx.execute(db::sql!("DELETE FROM subnets WHERE network_id = $1"), db::params![id])?;
            rbac::forget(tx, "network", &id)?;
            tx.remove::<Network>(&id)?;
            touched.networks.insert(id.clone());
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

pub fn view(request: &Request, network: &Network, on: &OnNetwork) -> Json {
    let mut view = json!({
        "id": network.id, "name": network.name, "description": network.description,
        "admin_state_up": network.admin_state_up, "status": network.status, "mtu": network.mtu,
        "shared": network.shared, "router:external": network.external, "subnets": on.subnets,
        "port_security_enabled": network.port_security_enabled,
        "availability_zone_hints": network.availability_zone_hints, "availability_zones": on.availability_zones, "qos_policy_id": network.qos_policy_id,
        "ipv4_address_scope": on.ipv4_address_scope, "ipv6_address_scope": on.ipv6_address_scope, "tags": network.tags,
    });
    if network.external {
        view["is_default"] = json!(network.is_default);
    }
    if request.may("get_network:provider:network_type", &network_target(network)) {
        view["provider:network_type"] = json!(network.network_type);
        view["provider:physical_network"] = json!(network.physical_network);
        view["provider:segmentation_id"] = json!(network.segmentation_id);
    }
    standard(&mut view, network);
    view
}
