//! Routers' gateways and interfaces, and the floating addresses that go through them.

use crate::{
    Options,
    agents::Touched,
    errors::{bad_resource, conflict, missing},
    ipam::{self, Fixed},
    model::*,
    ports,
    store::{self, WholePort},
};
use base::{Result, Timestamp};
use db::{List, Tx};
use std::net::IpAddr;

/// Gives a router a gateway on an external network, instead of the one it has.
pub fn set_gateway(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &Options,
    router: &mut Router,
    network_id: &str,
    wanted: Option<&[Fixed]>,
    now: Timestamp,
) -> Result<()> {
    let network = store::get::<Network>(tx, store::NETWORK, network_id)?;
    if !network.external {
        return Err(bad_resource("router", format!("Network {network_id} is not an external network")));
    }
    if router.gw_network_id.as_deref() == Some(network_id) && wanted.is_none() {
        return Ok(());
    }
    if router.gw_network_id.as_deref() != Some(network_id) || wanted.is_some() {
        clear_gateway(tx, touched, router, router.gw_network_id.as_deref() == Some(network_id), now)?;
    }
    let mut port = ports::blank(&network, "", now);
    port.device_id.clone_from(&router.id);
    port.device_owner = OWNER_GATEWAY.into();
    port.port_security_enabled = false;
    let port = ports::create(tx, touched, options, port, wanted, &[])?;
    router.gw_port_id = Some(port.port.id);
    router.gw_network_id = Some(network_id.into());
    touched.routers.insert(router.id.clone());
    Ok(())
}

/// Not while a floating address needs it, unless another on the same network follows at once.
pub fn clear_gateway(
    tx: &mut Tx,
    touched: &mut Touched,
    router: &mut Router,
    is_replaced: bool,
    now: Timestamp,
) -> Result<()> {
    let Some(port_id) = router.gw_port_id.clone() else { return Ok(()) };
    let network_id = router.gw_network_id.clone().unwrap_or_default();
    if !is_replaced && !store::all_of::<FloatingIp>(tx, "router_id", &router.id)?.is_empty() {
        return Err(conflict(
            "RouterExternalGatewayInUseByFloatingIp",
            format!(
                "Gateway cannot be updated for router {}, since a gateway to external network {network_id} is \
                 required by one or more floating IPs.",
                router.id
            ),
        ));
    }
    ports::delete(tx, touched, &port_id, now)?;
    router.gw_port_id = None;
    router.gw_network_id = None;
    touched.routers.insert(router.id.clone());
    Ok(())
}

/// Subnets that the router is on, with the port's address there.
pub fn connected(tx: &mut Tx, interfaces: &[WholePort]) -> Result<Vec<(Subnet, IpAddr, String)>> {
    let mut found = Vec::new();
    for interface in interfaces {
        for row in &interface.addresses {
            if let (Some(subnet), Ok(address)) = (tx.find::<Subnet>(&row.subnet_id)?, row.ip_address.parse())
            {
                found.push((subnet, address, interface.port.id.clone()));
            }
        }
    }
    Ok(found)
}

/// `BadRequest` when the router has a part of the subnet's range already.
pub fn check_overlap(tx: &mut Tx, router: &Router, subnet: &Subnet) -> Result<()> {
    let interfaces = store::interfaces(tx, &router.id)?;
    let new = ipam::cidr(subnet)?;
    for (other, _, _) in connected(tx, &interfaces)? {
        if other.id == subnet.id {
            let sentence = format!("Router already has a port on subnet {}", subnet.id);
            return Err(bad_resource("router", sentence));
        }
        let old = ipam::cidr(&other)?;
        if old.contains(&new.network()) || new.contains(&old.network()) {
            return Err(bad_resource(
                "router",
                format!(
                    "Cidr {} of subnet {} overlaps with cidr {} of subnet {}",
                    subnet.cidr, subnet.id, other.cidr, other.id
                ),
            ));
        }
    }
    Ok(())
}

/// `Conflict` while something goes through the interface on this subnet.
pub fn check_unused(tx: &mut Tx, router: &Router, subnet: &Subnet) -> Result<()> {
    let cidr = ipam::cidr(subnet)?;
    let through = |text: &str| text.parse::<IpAddr>().is_ok_and(|address| cidr.contains(&address));
    if router.routes.0.iter().any(|route| through(&route.nexthop)) {
        return Err(conflict(
            "RouterInterfaceInUseByRoute",
            format!(
                "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more routes.",
                subnet.id, router.id
            ),
        ));
    }
    let floating = store::all_of::<FloatingIp>(tx, "router_id", &router.id)?;
    if floating.iter().any(|ip| ip.fixed_ip_address.as_deref().is_some_and(through)) {
        return Err(conflict(
            "RouterInterfaceInUseByFloatingIP",
            format!(
                "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more \
                 floating IPs.",
                subnet.id, router.id
            ),
        ));
    }
    Ok(())
}

/// Points a floating address at a port's address; none: at nothing.
pub fn associate(
    tx: &mut Tx,
    touched: &mut Touched,
    floating: &mut FloatingIp,
    port_id: Option<&str>,
    fixed: Option<&str>,
) -> Result<()> {
    touched.routers.extend(floating.router_id.take());
    floating.port_id = None;
    floating.fixed_ip_address = None;
    floating.status = DOWN.into();
    let Some(port_id) = port_id else {
        return match fixed {
            None => Ok(()),
            Some(_) => {
                let sentence = "fixed_ip_address cannot be specified without a port_id";
                Err(bad_resource("floatingip", sentence))
            }
        };
    };
    let whole = store::whole_port(tx, port_id)?;
    let address = match fixed {
        Some(fixed) => whole.addresses.iter().find(|row| row.ip_address == fixed).ok_or_else(|| {
            bad_resource("floatingip", format!("Port {port_id} does not have fixed ip {fixed}"))
        })?,
        None => {
            let mut of_four = whole.addresses.iter().filter(|row| !row.ip_address.contains(':'));
            let first = of_four.next().ok_or_else(|| {
                let sentence =
                    format!("Cannot add floating IP to port {port_id} that has no fixed IPv4 addresses");
                bad_resource("floatingip", sentence)
            })?;
            if of_four.next().is_some() {
                let sentence = format!(
                    "Port {port_id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP"
                );
                return Err(bad_resource("floatingip", sentence));
            }
            first
        }
    };
    let taken = tx.list::<FloatingIp>(&List::all().eq("port_id", port_id))?;
    if let Some(other) = taken
        .iter()
        .find(|ip| ip.id != floating.id && ip.fixed_ip_address.as_deref() == Some(&address.ip_address))
    {
        return Err(conflict(
            "FloatingIPPortAlreadyAssociated",
            format!(
                "Cannot associate floating IP {} ({}) with port {port_id} using fixed IP {}, as that fixed IP already \
                 has a floating IP on external network {}.",
                floating.floating_ip_address,
                floating.id,
                other.fixed_ip_address.as_deref().unwrap_or_default(),
                floating.floating_network_id
            ),
        ));
    }
    let router = router_for(tx, &address.subnet_id, &floating.floating_network_id)?.ok_or_else(|| {
        missing(
            "ExternalGatewayForFloatingIPNotFound",
            format!(
                "External network {} is not reachable from subnet {}.  Therefore, cannot associate Port {port_id} with \
                 a Floating IP.",
                floating.floating_network_id, address.subnet_id
            ),
        )
    })?;
    floating.port_id = Some(port_id.into());
    floating.fixed_ip_address = Some(address.ip_address.clone());
    touched.routers.insert(router.id.clone());
    floating.router_id = Some(router.id);
    Ok(())
}

/// The router between a subnet and an external network.
pub fn router_for(tx: &mut Tx, subnet_id: &str, external_id: &str) -> Result<Option<Router>> {
    for row in store::all_of::<IpAllocation>(tx, "subnet_id", subnet_id)? {
        let Some(port) = tx.find::<Port>(&row.port_id)? else { continue };
        if port.device_owner != OWNER_ROUTER {
            continue;
        }
        if let Some(router) = tx.find::<Router>(&port.device_id)?
            && router.gw_network_id.as_deref() == Some(external_id)
        {
            return Ok(Some(router));
        }
    }
    Ok(None)
}
