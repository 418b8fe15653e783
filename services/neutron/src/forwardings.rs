//! Port forwardings: what may be forwarded to where, and what becomes of it when a port goes.

use crate::{
    agents::Touched,
    errors::{bad_resource, conflict},
    model::*,
    routing,
    store::{self, WholePort},
};
use base::{Result, Timestamp};
use db::{Filter, List, Tx};
use std::collections::BTreeSet;

/// With the floating addresses that they are of.
pub fn of_router(tx: &mut Tx, router_id: &str) -> Result<Vec<(String, PortForwarding)>> {
    let floating = store::all_of::<FloatingIp>(tx, "router_id", router_id)?;
    let ids: BTreeSet<String> = floating.iter().map(|ip| ip.id.clone()).collect();
    let of = |id: &str| floating.iter().find(|ip| ip.id == id).map(|ip| ip.floating_ip_address.clone());
    let found = store::any_of::<PortForwarding>(tx, "floatingip_id", &ids)?;
    Ok(found
        .into_iter()
        .filter_map(|forwarding| Some((of(&forwarding.floatingip_id)?, forwarding)))
        .collect())
}

/// `Conflict` while something is forwarded from the address.
pub fn check_unused(tx: &mut Tx, floatingip_id: &str) -> Result<()> {
    if tx.count::<PortForwarding>(&[Filter::eq("floatingip_id", floatingip_id)])? > 0 {
        let text = format!("Floating IP {floatingip_id} in use by Port Forwarding resources.");
        return Err(conflict("FipInUseByPortForwarding", text));
    }
    Ok(())
}

/// The router through which it goes, if nothing is in the way.
pub fn check(tx: &mut Tx, floating: &FloatingIp, wanted: &PortForwarding, addresses: &str) -> Result<String> {
    let port = store::whole_port(tx, &wanted.internal_port_id)?;
    let wrong = |text: String| Err(bad_resource("port_forwarding", text));
    let Some(row) = port.addresses.iter().find(|row| row.ip_address == wanted.internal_ip_address) else {
        return wrong(addresses.replace("{}", &fixed_ips(&port)));
    };
    let Some(router) = routing::router_for(tx, &row.subnet_id, &floating.floating_network_id)? else {
        return wrong(format!(
            "External network {} is not reachable from subnet {}. Cannot set Port forwarding for port {} with Floating \
             IP {}",
            floating.floating_network_id, row.subnet_id, port.port.id, floating.id
        ));
    };
    if floating.router_id.as_ref().is_some_and(|other| *other != router.id) {
        return wrong(format!(
            "The Floating IP {} had been set on router {}, the internal Neutron port {} can not reach it",
            floating.id,
            floating.router_id.as_deref().unwrap_or_default(),
            port.port.id
        ));
    }
    Ok(router.id)
}

fn fixed_ips(port: &WholePort) -> String {
    let one = |row: &IpAllocation| {
        format!("{{'subnet_id': '{}', 'ip_address': '{}'}}", row.subnet_id, row.ip_address)
    };
    format!("[{}]", port.addresses.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// `BadRequest` when a port of either side is taken, or when the ranges do not fit.
pub fn check_ports(tx: &mut Tx, wanted: &PortForwarding) -> Result<()> {
    let wrong = |text: String| Err(bad_resource("port_forwarding", text));
    let length = |(first, last): (i64, i64)| last - first;
    if length(wanted.internal()) > 0 && length(wanted.internal()) != length(wanted.external()) {
        return wrong(
            "Invalid ranges of internal and/or external ports. The relation between internal and external ports must be \
             N-N or 1-N"
                .into(),
        );
    }
    let collide = |a: (i64, i64), b: (i64, i64)| a.0.max(b.0) <= a.1.min(b.1);
    let inside = List::all()
        .eq("internal_port_id", &*wanted.internal_port_id)
        .eq("internal_ip_address", &*wanted.internal_ip_address);
    let outside = List::all().eq("floatingip_id", &*wanted.floatingip_id);
    type Range = fn(&PortForwarding) -> (i64, i64);
    let sides: [(List, Range, &str); 2] = [
        (inside, PortForwarding::internal, "internal_port_range"),
        (outside, PortForwarding::external, "external_port_range"),
    ];
    for (list, range, key) in sides {
        for other in tx.list::<PortForwarding>(&list.eq("protocol", &*wanted.protocol))? {
            let ((a, b), (c, d)) = (range(&other), range(wanted));
            if other.id != wanted.id && collide((a, b), (c, d)) {
                return wrong(format!(
                    "There is a port collision with the {key}. The following ranges collide: {a}:{b} and {c}:{d}"
                ));
            }
        }
    }
    Ok(())
}

/// What was forwarded to addresses that a port has no more is forwarded no more.
pub fn left(
    tx: &mut Tx,
    touched: &mut Touched,
    port_id: &str,
    kept: &[String],
    now: Timestamp,
) -> Result<()> {
    for forwarding in store::all_of::<PortForwarding>(tx, "internal_port_id", port_id)? {
        if !kept.contains(&forwarding.internal_ip_address) {
            remove(tx, touched, &forwarding, now)?;
        }
    }
    Ok(())
}

/// With the last one the floating address leaves its router.
pub fn remove(tx: &mut Tx, touched: &mut Touched, forwarding: &PortForwarding, now: Timestamp) -> Result<()> {
    tx.remove::<PortForwarding>(&forwarding.id)?;
    let Some(mut floating) = tx.find::<FloatingIp>(&forwarding.floatingip_id)? else { return Ok(()) };
    touched.routers.extend(floating.router_id.clone());
    if tx.count::<PortForwarding>(&[Filter::eq("floatingip_id", &*floating.id)])? == 0 {
        floating.router_id = None;
        floating.status = DOWN.into();
        floating.change(tx, now)?;
    }
    Ok(())
}
