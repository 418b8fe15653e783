//! Floating addresses as compute once showed them, until 2.35, and the actions that gave them to servers, until 2.43:
//! neutron's, asked of it in the caller's name.

use super::{checked, own_project, server_actions::accepted};
use crate::{Nova, model::Instance, schemas::Form};
use base::{Error, ErrorKind, Json, Result};
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use web::{Reply, Request, Routes, action, delete, get, post};

pub fn routes() -> Routes<Nova> {
    const ONE: &str = "/v2.1/os-floating-ips/{id}";
    const ACTION: &str = "/v2.1/servers/{server_id}/action";
    let proxies = [
        get("/v2.1/os-floating-ips", "os_compute_api:os-floating-ips:list", index),
        post("/v2.1/os-floating-ips", "os_compute_api:os-floating-ips:create", create),
        get(ONE, "os_compute_api:os-floating-ips:show", show),
        delete(ONE, "os_compute_api:os-floating-ips:delete", remove),
        get("/v2.1/os-floating-ip-pools", "os_compute_api:os-floating-ip-pools", pools),
    ];
    let mut routes: Routes<Nova> = proxies.into_iter().map(|route| route.until(2, 35)).collect();
    routes.push(action(ACTION, "addFloatingIp", "os_compute_api:os-floating-ips:add", add).until(2, 43));
    let take = "os_compute_api:os-floating-ips:remove";
    routes.push(action(ACTION, "removeFloatingIp", take, take_away).until(2, 43));
    routes
}

const IPS: &str = "/v2.0/floatingips";
const POOLS: &str = "/v2.0/networks?router:external=true";

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let path = format!("{IPS}?tenant_id={}", request.ctx.project_id);
    let found = ask(&nova, &request, "GET", &path, None).await?;
    let all = found["floatingips"].as_array().cloned().unwrap_or_default();
    Ok(Reply::ok(json!({"floating_ips": views(&nova, &request, &all).await?})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let found = floating_ip(&nova, &request).await?;
    Ok(Reply::ok(json!({"floating_ip": view(&nova, &request, found).await?})))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    if !request.json().is_null() {
        checked(&request, &CREATE)?;
    }
    request.can(&own_project(&request))?;
    let pool = request.json()["pool"].as_str();
    let networks = ask(&nova, &request, "GET", POOLS, None).await?;
    let mut networks = networks["networks"].as_array().into_iter().flatten();
    let network = match pool {
        Some(wanted) => networks.find(|network| network["name"] == wanted || network["id"] == wanted),
        None => networks.next(),
    };
    let network = network.ok_or_else(|| Error::not_found("Floating IP pool not found."))?;
    let body = json!({"floatingip": {"floating_network_id": network["id"]}});
    let in_pool = |what: &str| match pool {
        Some(pool) => format!("{what} in pool {pool}."),
        None => what.to_string(),
    };
    let made = ask(&nova, &request, "POST", IPS, Some(body)).await.map_err(|error| {
        match (error.kind, error.code.as_deref()) {
            (ErrorKind::Conflict, Some("OverQuota")) => Error::forbidden(match pool {
                Some(_) => in_pool("IP allocation over quota"),
                None => "IP allocation over quota.".into(),
            }),
            (ErrorKind::Conflict, _) => Error::not_found(match pool {
                Some(_) => in_pool("No more floating IPs"),
                None => "No more floating IPs available.".into(),
            }),
            _ => error,
        }
    })?;
    Ok(Reply::ok(json!({"floating_ip": view(&nova, &request, made["floatingip"].clone()).await?})))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    floating_ip(&nova, &request).await?;
    ask(&nova, &request, "DELETE", &format!("{IPS}/{}", request.param("id")), None).await?;
    Ok(accepted())
}

async fn pools(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let networks = ask(&nova, &request, "GET", POOLS, None).await?;
    let networks = networks["networks"].as_array().into_iter().flatten();
    let names: Vec<Json> = networks.map(|network| json!({"name": name_of(network)})).collect();
    Ok(Reply::ok(json!({"floating_ip_pools": names})))
}

/// To the first IPv4 address of the server, or to the one that is named.
async fn add(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &ADD)?["addFloatingIp"].clone();
    let instance = nova.server(&request).await?;
    let address = given["address"].as_str().unwrap_or_default();
    let (port_id, fixed) = fixed_address(&instance, address, given["fixed_address"].as_str())?;
    let found = by_address(&nova, &request, address).await?;
    let path = format!("{IPS}/{}", found["id"].as_str().unwrap_or_default());
    let body = json!({"floatingip": {"port_id": port_id, "fixed_ip_address": fixed}});
    ask(&nova, &request, "PUT", &path, Some(body)).await.map_err(|error| {
        let (uuid, why) = (&instance.uuid, &error.message);
        Error::bad_request(format!(
            "Unable to associate floating IP {address} to fixed IP {fixed} for instance {uuid}. Error: {why}"
        ))
    })?;
    nova.refresh_nics(&request.ctx, &instance.uuid).await?;
    Ok(accepted())
}

fn fixed_address(instance: &Instance, address: &str, wanted: Option<&str>) -> Result<(String, String)> {
    if instance.nics.is_empty() {
        return Err(Error::bad_request("Instance network is not ready yet"));
    }
    let all: Vec<(&str, &str)> = instance
        .nics
        .iter()
        .flat_map(|nic| nic.port.fixed_ips.iter().map(|ip| (nic.port.id.as_str(), ip.address.as_str())))
        .collect();
    if all.is_empty() {
        return Err(Error::bad_request("No fixed IPs associated to instance"));
    }
    let found = match wanted {
        Some(wanted) => all.iter().find(|(_, fixed)| *fixed == wanted),
        None => all.iter().find(|(_, fixed)| fixed.parse::<std::net::Ipv4Addr>().is_ok()),
    };
    match (found, wanted) {
        (Some((port, fixed)), _) => Ok((port.to_string(), fixed.to_string())),
        (None, Some(_)) => Err(Error::bad_request("Specified fixed address not assigned to instance")),
        (None, None) => Err(Error::bad_request(format!(
            "Unable to associate floating IP {address} to any fixed IPs for instance {}. Instance has no fixed IPv4 addresses to associate.",
            instance.uuid
        ))),
    }
}

async fn take_away(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let address = checked(&request, &REMOVE)?["removeFloatingIp"]["address"].as_str().unwrap_or_default();
    let instance = nova.server(&request).await?;
    let found = by_address(&nova, &request, address).await?;
    let port_id = found["port_id"].as_str().unwrap_or_default();
    if !instance.nics.iter().any(|nic| nic.port.id == port_id) {
        let uuid = &instance.uuid;
        let message = format!("Floating IP {address} is not associated with instance {uuid}.");
        return Err(Error::conflict(message));
    }
    let path = format!("{IPS}/{}", found["id"].as_str().unwrap_or_default());
    ask(&nova, &request, "PUT", &path, Some(json!({"floatingip": {"port_id": null}}))).await?;
    nova.refresh_nics(&request.ctx, &instance.uuid).await?;
    Ok(accepted())
}

async fn floating_ip(nova: &Nova, request: &Request) -> Result<Json> {
    let id = request.param("id");
    let found = ask(nova, request, "GET", &format!("{IPS}/{id}"), None).await;
    match found {
        Err(error) if error.is(ErrorKind::NotFound) => {
            Err(Error::not_found(format!("Floating IP not found for ID {id}")))
        }
        found => Ok(found?["floatingip"].take()),
    }
}

async fn by_address(nova: &Nova, request: &Request, address: &str) -> Result<Json> {
    let path = format!("{IPS}?floating_ip_address={address}");
    let found = ask(nova, request, "GET", &path, None).await?;
    let first = found["floatingips"].get(0).cloned();
    first.ok_or_else(|| Error::not_found("floating IP not found"))
}

async fn ask(nova: &Nova, request: &Request, method: &str, path: &str, body: Option<Json>) -> Result<Json> {
    nova.peers.apis.network.call(&request.ctx, method, path, body.as_ref()).await
}

fn name_of(network: &Json) -> Json {
    let name = &network["name"];
    if name.as_str().is_some_and(|name| !name.is_empty()) { name.clone() } else { network["id"].clone() }
}

async fn view(nova: &Nova, request: &Request, floating_ip: Json) -> Result<Json> {
    Ok(views(nova, request, &[floating_ip]).await?.remove(0))
}

async fn views(nova: &Nova, request: &Request, floating_ips: &[Json]) -> Result<Vec<Json>> {
    let networks = ask(nova, request, "GET", POOLS, None).await?;
    let networks = networks["networks"].as_array().into_iter().flatten();
    let names: HashMap<String, Json> = networks
        .map(|network| (network["id"].as_str().unwrap_or_default().into(), name_of(network)))
        .collect();
    let one = |ip: &Json| {
        let network = ip["floating_network_id"].as_str().unwrap_or_default();
        json!({
            "id": ip["id"],
            "ip": ip["floating_ip_address"],
            "fixed_ip": ip["fixed_ip_address"],
            "instance_id": ip["port_details"]["device_id"],
            "pool": names.get(network).cloned().unwrap_or_else(|| network.into()),
        })
    };
    Ok(floating_ips.iter().map(one).collect())
}

static CREATE: Form =
    Form::new(|| json!({"type": ["object", "null"], "properties": {"pool": {"type": ["string", "null"]}}}));

fn of_addresses(key: &str, names: &[&str]) -> Json {
    let address = json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]});
    let properties: serde_json::Map<String, Json> =
        names.iter().map(|name| (name.to_string(), address.clone())).collect();
    json!({"type": "object", "required": [key], "additionalProperties": false, "properties": {key: {
        "type": "object", "required": ["address"], "additionalProperties": false, "properties": properties}}})
}

static ADD: Form = Form::new(|| of_addresses("addFloatingIp", &["address", "fixed_address"]));
static REMOVE: Form = Form::new(|| of_addresses("removeFloatingIp", &["address"]));
