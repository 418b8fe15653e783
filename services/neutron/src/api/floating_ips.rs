//! Floating addresses.

use super::{can, can_change, load, own, standard, target};
use crate::{
    Neutron,
    attributes::{self, Attribute, Kind, both, post, shown, text, text_or},
    errors::{bad_resource, missing},
    events, forwardings,
    ipam::Fixed,
    listing::{Wanted, chosen},
    model::*,
    ports, quota, routing,
    store::{self, FLOATING_IP, NETWORK, PORT},
};
use base::{Json, Result, id};
use db::Tx;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/floatingips", "get_floatingip", list),
        post_route("/v2.0/floatingips", "create_floatingip", create),
        get("/v2.0/floatingips/{floatingip_id}", "get_floatingip", show),
        put("/v2.0/floatingips/{floatingip_id}", "update_floatingip", update),
        delete("/v2.0/floatingips/{floatingip_id}", "delete_floatingip", remove),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("description", Kind::Text(255)),
    post("floating_network_id", Kind::Uuid).required(),
    post("floating_ip_address", Kind::AddressOrNull).ruled(),
    post("subnet_id", Kind::UuidOrNull),
    both("port_id", Kind::UuidOrNull),
    both("fixed_ip_address", Kind::AddressOrNull),
    shown("router_id"),
    shown("status"),
    shown("port_details"),
    shown("port_forwardings"),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    shown("tags"),
];

/// A port that the caller may point an address at.
fn check_port(tx: &mut Tx, cx: &base::Context, port_id: Option<&str>) -> Result<()> {
    let Some(id) = port_id else { return Ok(()) };
    let port = load::<Port>(tx, PORT, id)?;
    match cx.is_admin() || port.project_id == cx.project_id {
        true => Ok(()),
        false => Err(crate::listing::not_found(PORT, id)),
    }
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let given = attributes::one(&body(&request), "floatingip")?;
    let given = attributes::created(&request, ATTRIBUTES, given)?;
    let target = target(given["project_id"].as_str().unwrap_or_default());
    can(&request, &target)?;
    attributes::check_rules(&request, "floatingip", ATTRIBUTES, &given, &target)?;
    let (options, clock, cx) = (neutron.options.clone(), neutron.clock.clone(), request.ctx.clone());
    let made = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let network_id = text_or(&given, "floating_network_id", "");
            let network = load::<Network>(tx, NETWORK, &network_id)?;
            if !network.external {
                let sentence = format!("Network {network_id} is not a valid external network");
                return Err(bad_resource("floatingip", sentence));
            }
            let project_id = text_or(&given, "project_id", "");
            quota::take(tx, &options, &project_id, "floatingip")?;
            check_port(tx, &cx, text(&given, "port_id").as_deref())?;
            let id = id::uuid();
            let mut port = ports::blank(&network, "", now);
            port.device_id.clone_from(&id);
            port.device_owner = OWNER_FLOATING.into();
            port.status = "N/A".into();
            port.port_security_enabled = false;
            let (subnet_id, ip_address) = (text(&given, "subnet_id"), text(&given, "floating_ip_address"));
            let fixed = match (&subnet_id, &ip_address) {
                (None, None) => None,
                _ => Some(vec![Fixed { subnet_id, ip_address }]),
            };
            let port = ports::create(tx, touched, &options, port, fixed.as_deref(), &[])?;
            let address = port.addresses.iter().find(|row| !row.ip_address.contains(':'));
            let address = address.ok_or_else(|| {
                missing(
                    "ExternalIpAddressExhausted",
                    format!("Unable to find any IP address on external network {network_id}."),
                )
            })?;
            let mut floating = FloatingIp {
                id,
                project_id,
                description: text_or(&given, "description", ""),
                floating_network_id: network_id,
                floating_ip_address: address.ip_address.clone(),
                floating_port_id: port.port.id.clone(),
                fixed_ip_address: None,
                port_id: None,
                router_id: None,
                status: DOWN.into(),
                tags: Vec::new(),
                revision_number: 1,
                created_at: now,
                updated_at: now,
            };
            let (port_id, fixed) = (text(&given, "port_id"), text(&given, "fixed_ip_address"));
            routing::associate(tx, touched, &mut floating, port_id.as_deref(), fixed.as_deref())?;
            tx.insert(&floating)?;
            touch_port(tx, touched, &floating)?;
            Ok(whole(tx, vec![floating])?.remove(0))
        })
        .await?;
    Ok(Reply::created(json!({"floatingip": view(&made)})))
}

fn body(request: &Request) -> Json {
    request.json().clone()
}

/// A port's network shows its floating addresses to nobody, but nova shows them with the server.
fn touch_port(tx: &mut Tx, touched: &mut crate::agents::Touched, floating: &FloatingIp) -> Result<()> {
    if let Some(id) = &floating.port_id
        && let Some(port) = tx.find::<Port>(id)?
    {
        touched.server(&port, events::CHANGED);
    }
    Ok(())
}

/// A floating address with what its view says besides.
struct Whole {
    floating: FloatingIp,
    port: Option<Port>,
    forwardings: Vec<PortForwarding>,
}

fn whole(tx: &mut Tx, all: Vec<FloatingIp>) -> Result<Vec<Whole>> {
    let ports: BTreeSet<String> = all.iter().filter_map(|ip| ip.port_id.clone()).collect();
    let ports: HashMap<String, Port> =
        store::any_of::<Port>(tx, "id", &ports)?.into_iter().map(|port| (port.id.clone(), port)).collect();
    let ids: BTreeSet<String> = all.iter().map(|ip| ip.id.clone()).collect();
    let mut forwardings: HashMap<String, Vec<PortForwarding>> = HashMap::new();
    for forwarding in store::any_of::<PortForwarding>(tx, "floatingip_id", &ids)? {
        forwardings.entry(forwarding.floatingip_id.clone()).or_default().push(forwarding);
    }
    let whole = all.into_iter().map(|floating| Whole {
        port: floating.port_id.as_ref().and_then(|id| ports.get(id)).cloned(),
        forwardings: forwardings.remove(&floating.id).unwrap_or_default(),
        floating,
    });
    Ok(whole.collect())
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id))?;
    let mut wanted =
        Wanted::parse::<FloatingIp>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    wanted.list.filters.extend(own(&request.ctx));
    let (wanted, found) = neutron
        .read(move |tx| {
            let floating = wanted.find::<FloatingIp>(tx, FLOATING_IP)?;
            Ok((wanted.clone(), whole(tx, floating)?))
        })
        .await?;
    let views = found.iter().map(view).collect();
    Ok(wanted.reply(&request, "floatingips", views))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<Whole> {
    let id = request.param("floatingip_id").to_string();
    let found = neutron
        .read(move |tx| {
            let floating = load::<FloatingIp>(tx, FLOATING_IP, &id)?;
            Ok(whole(tx, vec![floating])?.remove(0))
        })
        .await?;
    match request.may("get_floatingip", &target(&found.floating.project_id)) {
        true => Ok(found),
        false => Err(crate::listing::not_found(FLOATING_IP, &found.floating.id)),
    }
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let found = one(&neutron, &request).await?;
    Ok(Reply::ok(json!({"floatingip": chosen(&request, view(&found))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let Whole { floating, .. } = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "floatingip")?)?;
    can_change(&request, FLOATING_IP, &floating.id, "get_floatingip", &target(&floating.project_id))?;
    let (clock, cx, id) = (neutron.clock.clone(), request.ctx.clone(), floating.id);
    let found = neutron
        .write(move |tx, touched| {
            let mut floating = load::<FloatingIp>(tx, FLOATING_IP, &id)?;
            touch_port(tx, touched, &floating)?;
            if let Some(description) = text(&given, "description") {
                floating.description = description;
            }
            if given.contains_key("port_id") {
                if text(&given, "port_id").is_some() {
                    forwardings::check_unused(tx, &id)?;
                }
                let (port_id, fixed) = (text(&given, "port_id"), text(&given, "fixed_ip_address"));
                check_port(tx, &cx, port_id.as_deref())?;
                routing::associate(tx, touched, &mut floating, port_id.as_deref(), fixed.as_deref())?;
            } else if given.contains_key("fixed_ip_address") {
                let port_id = floating.port_id.clone();
                let fixed = text(&given, "fixed_ip_address");
                routing::associate(tx, touched, &mut floating, port_id.as_deref(), fixed.as_deref())?;
            }
            floating.change(tx, clock.now())?;
            touch_port(tx, touched, &floating)?;
            Ok(whole(tx, vec![floating])?.remove(0))
        })
        .await?;
    Ok(Reply::ok(json!({"floatingip": chosen(&request, view(&found))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let Whole { floating, .. } = one(&neutron, &request).await?;
    can_change(&request, FLOATING_IP, &floating.id, "get_floatingip", &target(&floating.project_id))?;
    let (id, clock) = (floating.id, neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let floating = load::<FloatingIp>(tx, FLOATING_IP, &id)?;
            forwardings::check_unused(tx, &id)?;
            touch_port(tx, touched, &floating)?;
            touched.routers.extend(floating.router_id.clone());
            tx.remove::<FloatingIp>(&id)?;
            ports::delete(tx, touched, &floating.floating_port_id, clock.now())
        })
        .await?;
    Ok(Reply::no_content())
}

fn view(whole: &Whole) -> Json {
    let Whole { floating, port, forwardings } = whole;
    let forwardings: Vec<Json> = forwardings.iter().map(super::port_forwardings::short_view).collect();
    let details = port.as_ref().map(|port| {
        json!({
            "name": port.name, "network_id": port.network_id, "mac_address": port.mac_address,
            "admin_state_up": port.admin_state_up, "status": port.status, "device_id": port.device_id,
            "device_owner": port.device_owner,
        })
    });
    let mut view = json!({
        "id": floating.id, "description": floating.description, "floating_network_id": floating.floating_network_id,
        "floating_ip_address": floating.floating_ip_address, "fixed_ip_address": floating.fixed_ip_address,
        "port_id": floating.port_id, "router_id": floating.router_id, "status": floating.status,
        "port_details": details, "port_forwardings": forwardings, "tags": floating.tags,
    });
    standard(&mut view, floating);
    view
}
