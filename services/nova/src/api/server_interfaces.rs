//! Network cards of a server: `os-interface`.

use super::{check_unlocked, checked, server_actions::accepted, server_networks};
use crate::{
    Nova,
    flows::{attach_interface, boot::PlannedPort, detach_interface},
    model::Instance,
    schemas,
};
use base::{Error, ErrorKind, Json, Result, id};
use contracts::networks::Port;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/servers/{server_id}/os-interface";
    const ONE: &str = "/v2.1/servers/{server_id}/os-interface/{port_id}";
    vec![
        get(ALL, "os_compute_api:os-attach-interfaces:list", index),
        post(ALL, "os_compute_api:os-attach-interfaces:create", create),
        get(ONE, "os_compute_api:os-attach-interfaces:show", show),
        delete(ONE, "os_compute_api:os-attach-interfaces:delete", remove),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let own = nova.own(&request.ctx);
    let ports = nova.networks().ports_of(&own, std::slice::from_ref(&instance.uuid)).await?;
    let shown: Vec<Json> = ports.iter().map(|port| view(&request, &instance, port)).collect();
    Ok(Reply::ok(json!({"interfaceAttachments": shown})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let port_id = request.param("port_id");
    let port = find_port(&nova, &request, port_id).await?;
    if port.device_id != instance.uuid {
        return Err(Error::not_found(format!(
            "Instance {} does not have a port with id {port_id}",
            instance.uuid
        )));
    }
    Ok(Reply::ok(json!({"interfaceAttachment": view(&request, &instance, &port)})))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    // Without a body the server gets a card on the project's network.
    let given = match request.json() {
        Json::Null => json!({}),
        _ => checked(&request, &schemas::INTERFACE_CREATE)?["interfaceAttachment"].clone(),
    };
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    let planned = plan(&nova, &request, &given).await?;
    let port_id = planned.id.clone();
    attach_interface::begin(&nova, &request.ctx, &instance.uuid, planned).await?.wait().await?;
    let uuid = instance.uuid.clone();
    let instance = nova.read(move |tx| crate::store::instance(tx, &uuid)).await?;
    let port = find_port(&nova, &request, &port_id).await?;
    Ok(Reply::ok(json!({"interfaceAttachment": view(&request, &instance, &port)})))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    let port_id = request.param("port_id");
    if !instance.nics.iter().any(|nic| nic.port.id == port_id) {
        return Err(missing(port_id));
    }
    detach_interface::begin(&nova, &request.ctx, &instance.uuid, port_id).await?;
    Ok(accepted())
}

async fn plan(nova: &Nova, request: &Request, given: &Json) -> Result<PlannedPort> {
    let text = |name: &str| given[name].as_str().map(String::from);
    let (network_id, port_id) = (text("net_id"), text("port_id"));
    let fixed_ip = given["fixed_ips"][0]["ip_address"].as_str().map(String::from);
    let planned = PlannedPort {
        id: id::uuid(),
        network_id: None,
        fixed_ip: fixed_ip.clone(),
        security_group_ids: Vec::new(),
        tag: text("tag"),
    };
    match (network_id, port_id) {
        (Some(_), Some(_)) => Err(Error::bad_request("Must not input both network_id and port_id")),
        (None, _) if fixed_ip.is_some() => {
            Err(Error::bad_request("Must input network_id when request IP address"))
        }
        (None, Some(port_id)) => {
            let port = find_port(nova, request, &port_id).await?;
            match port.device_id.is_empty() {
                true => Ok(PlannedPort { id: port_id, ..planned }),
                false => Err(Error::conflict(format!("Port {port_id} is still in use."))),
            }
        }
        (network_id, None) => {
            let ids: Vec<String> = network_id.iter().cloned().collect();
            let found = nova.networks().networks(&request.ctx, &ids).await?;
            let network = match (found.as_slice(), network_id) {
                ([one], _) => one,
                ([], Some(wanted)) => {
                    return Err(Error::not_found(format!("Network {wanted} could not be found.")));
                }
                ([], None) => {
                    return Err(Error::bad_request(
                        "No specific network was requested and none are available.",
                    ));
                }
                _ => {
                    return Err(Error::bad_request(
                        "Multiple possible networks found, use a Network ID to be more specific.",
                    ));
                }
            };
            server_networks::check_external(request, network)?;
            if nova.networks().ports_left(&request.ctx).await? == Some(0) {
                return Err(Error::over_quota("Maximum number of ports exceeded"));
            }
            Ok(PlannedPort { network_id: Some(network.id.clone()), ..planned })
        }
    }
}

fn missing(port_id: &str) -> Error {
    Error::not_found(format!("Port id {port_id} could not be found."))
}

async fn find_port(nova: &Nova, request: &Request, port_id: &str) -> Result<Port> {
    let found = nova.networks().port(&request.ctx, port_id).await;
    found.map_err(|error| if error.is(ErrorKind::NotFound) { missing(port_id) } else { error })
}

fn view(request: &Request, instance: &Instance, port: &Port) -> Json {
    let fixed =
        |ip: &contracts::networks::FixedIp| json!({"subnet_id": ip.subnet_id, "ip_address": ip.address});
    let mut shown = json!({
        "net_id": port.network.id,
        "port_id": port.id,
        "mac_addr": port.mac,
        "port_state": if port.active { "ACTIVE" } else { "DOWN" },
        "fixed_ips": port.fixed_ips.iter().map(fixed).collect::<Vec<_>>(),
    });
    if request.since(2, 70) {
        let nic = instance.nics.iter().find(|nic| nic.port.id == port.id);
        shown["tag"] = json!(nic.and_then(|nic| nic.tag.as_ref()));
    }
    shown
}
