//! Making and removing ports, for the API, for routers, floating addresses and DHCP, and for nova.

use crate::{
    Options,
    agents::Touched,
    errors::conflict,
    ipam::{self, Fixed},
    model::*,
    quota, rbac,
    store::{self, WholePort},
};
use base::{Error, Result, Timestamp, id};
use db::{Filter, Tx, params, sql};
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
    tx.execute(sql!("DELETE FROM ip_allocations WHERE port_id = $1"), params![id])?;
    tx.execute(sql!("DELETE FROM port_security_groups WHERE port_id = $1"), params![id])?;
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
            if tx.count::<Agent>(&[])? == 0 {
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
                use db::Stored;
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

/// Gives a port to a host, or takes it from one.
pub fn bind(tx: &mut Tx, port: &mut Port, host: &str) -> Result<()> {
    if port.host_id == host {
        return Ok(());
    }
    port.host_id = host.into();
    port.status = DOWN.into();
    let known = host.is_empty() || tx.count::<Agent>(&[Filter::eq("host", host)])? > 0;
    port.vif_type = match (host.is_empty(), known) {
        (true, _) => "unbound".into(),
        (false, true) => "bridge".into(),
        (false, false) => "binding_failed".into(),
    };
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
