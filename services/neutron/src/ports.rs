//! Making and removing ports, for the API, for routers, floating addresses and DHCP, and for nova.

use crate::{
    Options,
    agents::{self, Touched},
    errors::conflict,
    forwardings,
    ipam::{self, Fixed},
    model::*,
    quota, rbac,
    store::{self, WholePort},
    trunks,
};
use base::{Error, Result, Timestamp, id};
use db::{Filter, Stored, Tx, params, sql};
use serde_json::json;

/// A port before it has addresses.
pub fn blank(network: &Network, project_id: &str, now: Timestamp) -> Port {
    Port {
        id: id::uuid(),
        network_id: network.id.clone(),
        project_id: project_id.into(),
        name: String::new(),
        description: String::new(),
        admin_state_up: true,
        status: DOWN.into(),
        mac_address: String::new(),
        device_id: String::new(),
        device_owner: String::new(),
        host_id: String::new(),
        vnic_type: "normal".into(),
        vif_type: "unbound".into(),
        profile: json!({}),
        port_security_enabled: network.port_security_enabled,
        allowed_address_pairs: json!([]),
        extra_dhcp_opts: json!([]),
        dns_name: String::new(),
        qos_policy_id: None,
        tags: Vec::new(),
        revision_number: 1,
        created_at: now,
        updated_at: now,
    }
}

/// Stores a port with its addresses and groups; those of neutron itself take no quota.
pub fn create(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &Options,
    mut port: Port,
    wanted: Option<&[Fixed]>,
    groups: &[String],
) -> Result<WholePort> {
    if !port.device_owner.starts_with("network:") {
        quota::take(tx, options, &port.project_id, "port")?;
    }
    if port.mac_address.is_empty() {
        port.mac_address = ipam::new_mac(tx, &port.network_id, &options.base_mac)?;
    } else {
        let same =
            [Filter::eq("network_id", &*port.network_id), Filter::eq("mac_address", &*port.mac_address)];
        if tx.count::<Port>(&same)? > 0 {
            return Err(conflict(
                "MacAddressInUse",
                format!(
                    "Unable to complete operation for network {}. The mac address {} is in use.",
                    port.network_id, port.mac_address
                ),
            ));
        }
    }
    tx.insert(&port)?;
    ipam::allocate(tx, &port, wanted)?;
    for group in groups {
        tx.insert(&PortGroup { port_id: port.id.clone(), security_group_id: group.clone() })?;
    }
    let whole = store::whole_port(tx, &port.id)?;
    touched.port(&whole);
    ensure_dhcp(tx, touched, options, &port.network_id, port.created_at)?;
    Ok(whole)
}

/// With its addresses; a floating address that points at it points nowhere then.
pub fn delete(tx: &mut Tx, touched: &mut Touched, id: &str, now: Timestamp) -> Result<()> {
    let Some(port) = tx.find::<Port>(id)? else { return Ok(()) };
    let whole = store::whole(tx, vec![port])?.remove(0);
    touched.port(&whole);
    for mut floating in store::all_of::<FloatingIp>(tx, "port_id", id)? {
        touched.routers.extend(floating.router_id.take());
        floating.port_id = None;
        floating.fixed_ip_address = None;
        floating.status = DOWN.into();
        floating.change(tx, now)?;
    }
    forwardings::left(tx, touched, id, &[], now)?;
    tx.execute(sql!("DELETE FROM ip_allocations WHERE port_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM port_security_groups WHERE port_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM port_bindings WHERE port_id = $1"), params![id])?;
    tx.remove::<Port>(id).map(drop)
}

/// A network with a subnet that wants DHCP has a port for its server; one without has none.
pub fn ensure_dhcp(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &Options,
    network_id: &str,
    now: Timestamp,
) -> Result<()> {
    let Some(network) = tx.find::<Network>(network_id)? else { return Ok(()) };
    let subnets = store::all_of::<Subnet>(tx, "network_id", network_id)?;
    let served: Vec<&Subnet> =
        subnets.iter().filter(|s| s.enable_dhcp && s.ip_version == 4 && !network.external).collect();
    let existing = dhcp_port(tx, network_id)?;
    match (existing, served.is_empty()) {
        (None, true) => Ok(()),
        (Some(port), true) => delete(tx, touched, &port.port.id, now),
        (None, false) => {
            // Nobody serves DHCP before a host's agent is there: the server's port comes with it.
            if tx.count::<Agent>(&[Filter::eq("agent_type", agents::DHCP.name)])? == 0 {
                return Ok(());
            }
            let mut port = blank(&network, &network.project_id, now);
            port.id = base::id::derived(&["dhcp", network_id]);
            port.device_id = format!("dhcp-{network_id}");
            port.device_owner = OWNER_DHCP.into();
            port.port_security_enabled = false;
            let wanted: Vec<Fixed> = served
                .iter()
                .map(|subnet| Fixed { subnet_id: Some(subnet.id.clone()), ip_address: None })
                .collect();
            create(tx, touched, options, port, Some(&wanted), &[]).map(drop)
        }
        (Some(port), false) => {
            let has = |subnet: &Subnet| port.addresses.iter().any(|row| row.subnet_id == subnet.id);
            let wanted: Vec<Fixed> = served
                .iter()
                .filter(|subnet| !has(subnet))
                .map(|subnet| Fixed { subnet_id: Some(subnet.id.clone()), ip_address: None })
                .collect();
            for row in port.addresses.iter().filter(|row| !served.iter().any(|s| s.id == row.subnet_id)) {
                tx.delete::<IpAllocation>(&[row.subnet_id.store(), row.ip_address.store()])?;
            }
            ipam::allocate(tx, &port.port, Some(&wanted))
        }
    }
}

pub fn dhcp_port(tx: &mut Tx, network_id: &str) -> Result<Option<WholePort>> {
    match tx.find::<Port>(&base::id::derived(&["dhcp", network_id]))? {
        None => Ok(None),
        Some(port) => Ok(store::whole(tx, vec![port])?.pop()),
    }
}

/// Gives a port to a host, or takes it from one. Where it was about to go it does not go any more.
pub fn bind(tx: &mut Tx, port: &mut Port, host: &str) -> Result<()> {
    if port.host_id == host {
        return Ok(());
    }
    tx.execute(sql!("DELETE FROM port_bindings WHERE port_id = $1"), params![port.id])?;
    port.host_id = host.into();
    port.status = DOWN.into();
    port.vif_type = vif_type(tx, host)?.into();
    Ok(())
}

/// How a host plugs ports; one that nobody knows cannot.
pub fn vif_type(tx: &mut Tx, host: &str) -> Result<&'static str> {
    if host.is_empty() {
        return Ok("unbound");
    }
    let agents = [Filter::eq("host", host), Filter::eq("agent_type", agents::L2.name)];
    Ok(if tx.count::<Agent>(&agents)? > 0 { "bridge" } else { BINDING_FAILED })
}

pub const BINDING_FAILED: &str = "binding_failed";

/// A binding on a host to which the port's server is to move.
pub fn add_binding(tx: &mut Tx, touched: &mut Touched, port: &Port, binding: &PortBinding) -> Result<()> {
    if binding.vif_type == BINDING_FAILED {
        return Err(cannot_bind(&port.id, &binding.host));
    }
    tx.insert(binding)?;
    for subport in trunks::ports_of(tx, &port.id)? {
        let vif_type = vif_type(tx, &binding.host)?.into();
        let vnic_type = subport.vnic_type.clone();
        let with_it = PortBinding { port_id: subport.id.clone(), vif_type, vnic_type, ..binding.clone() };
        add_binding(tx, touched, &subport, &with_it)?;
    }
    touch(tx, touched, &port.id)
}

/// Makes the inactive binding on a host the active one, and the active one inactive.
pub fn activate(
    tx: &mut Tx,
    touched: &mut Touched,
    port: &mut Port,
    host: &str,
    now: Timestamp,
) -> Result<()> {
    let Some(there) = tx.get::<PortBinding>(&[port.id.store(), host.store()])? else {
        return Err(no_binding(&port.id, host));
    };
    tx.delete::<PortBinding>(&[port.id.store(), host.store()])?;
    tx.insert(&PortBinding {
        port_id: port.id.clone(),
        host: std::mem::replace(&mut port.host_id, there.host),
        vif_type: std::mem::replace(&mut port.vif_type, there.vif_type),
        vnic_type: std::mem::replace(&mut port.vnic_type, there.vnic_type),
        profile: std::mem::replace(&mut port.profile, there.profile),
        plugged: port.status == ACTIVE,
    })?;
    port.status = if there.plugged { ACTIVE } else { DOWN }.into();
    port.change(tx, now)?;
    for mut subport in trunks::ports_of(tx, &port.id)? {
        if subport.host_id != host {
            activate(tx, touched, &mut subport, host, now)?;
        }
    }
    trunks::settle_of(tx, &[port.id.as_str()], now)?;
    touch(tx, touched, &port.id)
}

pub fn remove_binding(tx: &mut Tx, touched: &mut Touched, port_id: &str, host: &str) -> Result<()> {
    if !tx.delete::<PortBinding>(&[port_id.store(), host.store()])? {
        return Ok(());
    }
    for subport in trunks::ports_of(tx, port_id)? {
        remove_binding(tx, touched, &subport.id, host)?;
    }
    touch(tx, touched, port_id)
}

/// Upstream answers it with 500.
pub fn cannot_bind(port_id: &str, host: &str) -> Error {
    let text = format!("Binding for port {port_id} on host {host} could not be created or updated.");
    Error::internal(text).code("PortBindingError")
}

pub fn no_binding(port_id: &str, host: &str) -> Error {
    let text = format!("Binding for port {port_id} for host {host} could not be found.");
    crate::errors::missing("PortBindingNotFound", text)
}

/// A port of neutron's own that no host has any more; floating addresses behind a gateway are down with it.
pub fn stands_no_more(tx: &mut Tx, touched: &mut Touched, whole: WholePort) -> Result<()> {
    touched.port(&whole);
    if whole.port.device_owner == OWNER_GATEWAY {
        let standing = [Filter::eq("router_id", &*whole.port.device_id), Filter::eq("status", ACTIVE)];
        tx.set::<FloatingIp>(&standing, &[("status", DOWN.store())])?;
    }
    tx.update(&Port { status: DOWN.into(), ..whole.port }).map(drop)
}

/// A router that goes elsewhere, with the networks that it is on.
pub fn touch_router(tx: &mut Tx, touched: &mut Touched, id: &str) -> Result<()> {
    touched.routers.insert(id.into());
    let ports = store::all_of::<Port>(tx, "device_id", id)?;
    touched.networks.extend(ports.into_iter().map(|port| port.network_id));
    Ok(())
}

fn touch(tx: &mut Tx, touched: &mut Touched, port_id: &str) -> Result<()> {
    touched.port(&store::whole_port(tx, port_id)?);
    Ok(())
}

/// The groups of a port that names none.
pub fn groups_of(
    tx: &mut Tx,
    project_id: &str,
    named: Option<Vec<String>>,
    now: Timestamp,
) -> Result<Vec<String>> {
    match named {
        None => Ok(vec![store::default_group(tx, project_id, now)?.id]),
        Some(named) => {
            for id in &named {
                let group = store::get::<SecurityGroup>(tx, store::SECURITY_GROUP, id)?;
                let is_own = group.project_id == project_id || group.shared;
                if !is_own && !rbac::is_shared_with(tx, "security_group", id, project_id)? {
                    return Err(Error::not_found(format!("Security group {id} does not exist"))
                        .code("SecurityGroupNotFound"));
                }
            }
            Ok(named)
        }
    }
}
