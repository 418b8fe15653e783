//! Ports of floating addresses that are forwarded to ports inside.

use super::can;
use crate::{
    Neutron,
    attributes::{self, Attribute, Given, Kind, both, python, shown, text, text_or},
    errors::{bad, conflict, invalid},
    forwardings,
    listing::{Wanted, chosen, not_found},
    model::*,
    store::{self, FLOATING_IP, PORT_FORWARDING},
};
use base::{Json, Result, id};
use db::Filter;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

const ALL: &str = "/v2.0/floatingips/{floatingip_id}/port_forwardings";
const ONE: &str = "/v2.0/floatingips/{floatingip_id}/port_forwardings/{port_forwarding_id}";

pub fn routes() -> Routes<Neutron> {
    vec![
        get(ALL, "get_floatingip_port_forwarding", list),
        post(ALL, "create_floatingip_port_forwarding", create),
        get(ONE, "get_floatingip_port_forwarding", show),
        put(ONE, "update_floatingip_port_forwarding", update),
        delete(ONE, "delete_floatingip_port_forwarding", remove),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("internal_port_id", Kind::Uuid).required(),
    both("internal_ip_address", Kind::AddressOrNull),
    both("protocol", Kind::Any).required(),
    both("internal_port", Kind::Any),
    both("external_port", Kind::Any),
    both("internal_port_range", Kind::Any),
    both("external_port_range", Kind::Any),
    both("description", Kind::Text(255)),
];

fn target(floating: &FloatingIp) -> Json {
    json!({"ext_parent:project_id": floating.project_id})
}

/// The floating address; who may not see it is told that it is not there.
async fn parent(neutron: &Neutron, request: &Request) -> Result<FloatingIp> {
    let id = request.param("floatingip_id").to_string();
    let floating = neutron.read(move |tx| store::get::<FloatingIp>(tx, FLOATING_IP, &id)).await?;
    match can(request, &target(&floating)) {
        Err(_)
            if !request.may("get_floatingip_port_forwarding", &target(&floating))
                && request.method == web::Method::GET =>
        {
            Err(not_found(FLOATING_IP, &floating.id))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(floating),
    }
}

async fn one(neutron: &Neutron, request: &Request) -> Result<(FloatingIp, PortForwarding)> {
    let floating = parent(neutron, request).await?;
    let id = request.param("port_forwarding_id").to_string();
    let forwarding = neutron.read(move |tx| store::get::<PortForwarding>(tx, PORT_FORWARDING, &id)).await?;
    match forwarding.floatingip_id == floating.id {
        true => Ok((floating, forwarding)),
        false => Err(not_found(PORT_FORWARDING, &forwarding.id)),
    }
}

/// What is given, into the row.
fn take(given: &Given, forwarding: &mut PortForwarding) -> Result<()> {
    if let Some(port) = text(given, "internal_port_id") {
        forwarding.internal_port_id = port;
    }
    if let Some(address) = text(given, "internal_ip_address") {
        forwarding.internal_ip_address = address;
    }
    if let Some(protocol) = given.get("protocol") {
        forwarding.protocol = match python(protocol).to_lowercase().as_str() {
            "tcp" | "6" => "tcp".into(),
            "udp" | "17" => "udp".into(),
            _ => {
                return Err(invalid(format!(
                    "IP protocol '{}' is not supported. Only protocol names and their integer representation (0 to 255) \
                     are supported",
                    python(protocol)
                )));
            }
        };
    }
    if let Some((first, last)) = ports(given, "internal")? {
        (forwarding.internal_first, forwarding.internal_last) = (first, last);
    }
    if let Some((first, last)) = ports(given, "external")? {
        (forwarding.external_first, forwarding.external_last) = (first, last);
    }
    if let Some(description) = text(given, "description") {
        forwarding.description = description;
    }
    Ok(())
}

/// One port or a range of them.
fn ports(given: &Given, side: &str) -> Result<Option<(i64, i64)>> {
    let (one, range) = (format!("{side}_port"), format!("{side}_port_range"));
    if let Some(value) = given.get(&one).filter(|value| !value.is_null()) {
        let text = python(value);
        let wrong = |reason: String| bad(format!("Invalid input for {one}. Reason: {reason}"));
        let number = text.parse::<i64>().map_err(|_| wrong(format!("'{text}' is not an integer.")))?;
        return match number {
            1..=65535 => Ok(Some((number, number))),
            ..1 => Err(wrong(format!("'{number}' is too small - must be at least '1'."))),
            _ => Err(wrong(format!("'{number}' is too large - must be no larger than '65535'."))),
        };
    }
    let Some(value) = given.get(&range).filter(|value| !value.is_null()) else { return Ok(None) };
    let text = python(value);
    let wrong = |reason: &str| bad(format!("Invalid input for {range}. Reason: {reason}"));
    let (first, last) = text.split_once(':').unwrap_or((&text, &text));
    let number = |text: &str| text.parse::<i64>().ok().filter(|port| (1..=65535).contains(port));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => {
            Err(wrong("First port in a port range must be lower than the second port."))
        }
        (Some(first), Some(last)) => Ok(Some((first, last))),
        _ => Err(wrong(&format!("Invalid port: {text}"))),
    }
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let given = attributes::one(request.json(), "port_forwarding")?;
    let given = attributes::created(&request, ATTRIBUTES, given)?;
    let mut wanted = PortForwarding {
        id: id::uuid(),
        floatingip_id: request.param("floatingip_id").into(),
        internal_port_id: String::new(),
        internal_ip_address: String::new(),
        protocol: String::new(),
        internal_first: 0,
        internal_last: 0,
        external_first: 0,
        external_last: 0,
        description: text_or(&given, "description", ""),
    };
    // What is wrong outside is said first.
    ports(&given, "external")?;
    take(&given, &mut wanted)?;
    for (side, first) in [("internal", wanted.internal_first), ("external", wanted.external_first)] {
        if first == 0 {
            return Err(bad(format!(
                "Failed to parse request. Required attribute '{side}_port' not specified"
            )));
        }
    }
    let floating = parent(&neutron, &request).await?;
    let clock = neutron.clock.clone();
    let made = neutron
        .write(move |tx, touched| {
            let mut wanted = wanted.clone();
            let mut floating = store::get::<FloatingIp>(tx, FLOATING_IP, &floating.id)?;
            let port = store::whole_port(tx, &wanted.internal_port_id)?;
            if wanted.internal_ip_address.is_empty() {
                let first = port.addresses.iter().find(|row| !row.ip_address.contains(':'));
                wanted.internal_ip_address = first.map(|row| row.ip_address.clone()).unwrap_or_default();
            }
            forwardings::check_ports(tx, &wanted)?;
            if let Some(other) = store::all_of::<FloatingIp>(tx, "port_id", &wanted.internal_port_id)?.first() {
                return Err(conflict(
                    "PortHasBindingFloatingIP",
                    format!(
                        "Cannot create port forwarding to floating IP {} ({}) with port {} using fixed IP {}, as that \
                         port already has a binding floating IP.",
                        other.floating_ip_address, other.id, port.port.id, wanted.internal_ip_address
                    ),
                ));
            }
            if floating.port_id.is_some() {
                return Err(conflict(
                    "FloatingIPPortAlreadyAssociated",
                    format!(
                        "Cannot associate floating IP {} ({}) with port {} using fixed IP {}, as that fixed IP already \
                         has a floating IP on external network {}.",
                        floating.floating_ip_address,
                        floating.id,
                        port.port.id,
                        wanted.internal_ip_address,
                        floating.floating_network_id
                    ),
                ));
            }
            let why = format!(
                "Requested internal IP address {} is not suitable for internal neutron port {}, as its fixed_ips are {{}}",
                wanted.internal_ip_address, port.port.id
            );
            let router_id = forwardings::check(tx, &floating, &wanted, &why)?;
            touched.routers.insert(router_id.clone());
            if floating.router_id.is_none() {
                floating.router_id = Some(router_id);
                floating.change(tx, clock.now())?;
            }
            tx.insert(&wanted)?;
            Ok(wanted)
        })
        .await?;
    Ok(Reply::created(json!({"port_forwarding": view(&made)})))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let floating = parent(&neutron, &request).await?;
    let mut wanted =
        Wanted::parse::<PortForwarding>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    wanted.list = wanted.list.filter(Filter::eq("floatingip_id", &*floating.id));
    let (wanted, found) = neutron
        .read(move |tx| {
            let found = wanted.find::<PortForwarding>(tx, PORT_FORWARDING)?;
            Ok((wanted.clone(), found))
        })
        .await?;
    Ok(wanted.reply(&request, "port_forwardings", found.iter().map(list_view).collect()))
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (_, forwarding) = one(&neutron, &request).await?;
    Ok(Reply::ok(json!({"port_forwarding": chosen(&request, view(&forwarding))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (floating, forwarding) = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "port_forwarding")?)?;
    let changed = neutron
        .write(move |tx, touched| {
            let floating = store::get::<FloatingIp>(tx, FLOATING_IP, &floating.id)?;
            let mut forwarding = store::get::<PortForwarding>(tx, PORT_FORWARDING, &forwarding.id)?;
            take(&given, &mut forwarding)?;
            let why = "The internal IP does not correspond to an address on the internal port, which has fixed_ips {}";
            touched.routers.insert(forwardings::check(tx, &floating, &forwarding, why)?);
            forwardings::check_ports(tx, &forwarding)?;
            tx.update(&forwarding)?;
            Ok(forwarding)
        })
        .await?;
    Ok(Reply::ok(json!({"port_forwarding": chosen(&request, view(&changed))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (_, forwarding) = one(&neutron, &request).await?;
    let clock = neutron.clock.clone();
    neutron.write(move |tx, touched| forwardings::remove(tx, touched, &forwarding, clock.now())).await?;
    Ok(Reply::no_content())
}

fn view(forwarding: &PortForwarding) -> Json {
    let range =
        |(first, last): (i64, i64)| (json!(format!("{first}:{last}")), (first == last).then_some(first));
    let (internal_range, internal) = range(forwarding.internal());
    let (external_range, external) = range(forwarding.external());
    json!({
        "id": forwarding.id, "internal_port_id": forwarding.internal_port_id,
        "internal_ip_address": forwarding.internal_ip_address, "protocol": forwarding.protocol,
        "internal_port": internal, "internal_port_range": internal_range, "external_port": external,
        "external_port_range": external_range, "description": forwarding.description,
    })
}

/// In a list ranges have no ports.
fn list_view(forwarding: &PortForwarding) -> Json {
    let mut view = view(forwarding);
    if let Some(fields) = view.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    view
}

/// As its floating address shows it: ports only where it is one.
pub fn short_view(forwarding: &PortForwarding) -> Json {
    let mut view = json!({
        "id": forwarding.id, "internal_port_id": forwarding.internal_port_id,
        "internal_ip_address": forwarding.internal_ip_address, "protocol": forwarding.protocol,
    });
    for (key, (first, last)) in
        [("internal_port", forwarding.internal()), ("external_port", forwarding.external())]
    {
        if first == last {
            view[key] = json!(first);
        }
    }
    view
}
