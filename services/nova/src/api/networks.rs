//! The oldest clients' view of networks, until 2.35: what neutron has, through nova.

use super::own_project;
use crate::Nova;
use base::{Error, Json, Result};
use contracts::networks::Network;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    let all = [
        get("/v2.1/os-networks", "os_compute_api:os-networks:list", index),
        get("/v2.1/os-networks/{network_id}", "os_compute_api:os-networks:show", show),
        get("/v2.1/os-tenant-networks", "os_compute_api:os-tenant-networks:list", index_of_tenant),
        get(
            "/v2.1/os-tenant-networks/{network_id}",
            "os_compute_api:os-tenant-networks:show",
            show_of_tenant,
        ),
    ];
    all.into_iter().map(|route| route.until(2, 35)).collect()
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, view).await
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    one(&nova, &request, view).await
}

async fn index_of_tenant(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, view_of_tenant).await
}

async fn show_of_tenant(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    one(&nova, &request, view_of_tenant).await
}

async fn list(nova: &Nova, request: &Request, view: fn(&Network) -> Json) -> Result<Reply> {
    request.can(&own_project(request))?;
    // All that the caller sees, which is more than what his servers may be on.
    let found = nova.peers.apis.network.call(&request.ctx, "GET", "/v2.0/networks", None).await?;
    let text = |network: &Json, key: &str| network[key].as_str().unwrap_or_default().to_string();
    let all = found["networks"].as_array().into_iter().flatten();
    let all = all.map(|one| Network { id: text(one, "id"), name: text(one, "name"), ..Network::default() });
    Ok(Reply::ok(json!({"networks": all.map(|network| view(&network)).collect::<Vec<_>>()})))
}

async fn one(nova: &Nova, request: &Request, view: fn(&Network) -> Json) -> Result<Reply> {
    request.can(&own_project(request))?;
    let id = request.param("network_id").to_string();
    let found = nova.networks().networks(&request.ctx, std::slice::from_ref(&id)).await?;
    let missing = || Error::not_found("Network not found");
    let network = found.first().ok_or_else(missing)?;
    Ok(Reply::ok(json!({"network": view(network)})))
}

/// Neutron has no answer for most keys.
fn view(network: &Network) -> Json {
    let mut one = json!({"id": network.id, "label": network.name});
    for unknown in [
        "bridge",
        "bridge_interface",
        "broadcast",
        "cidr",
        "cidr_v6",
        "created_at",
        "deleted",
        "deleted_at",
        "dhcp_start",
        "dhcp_server",
        "dns1",
        "dns2",
        "enable_dhcp",
        "gateway",
        "gateway_v6",
        "host",
        "injected",
        "mtu",
        "multi_host",
        "netmask",
        "netmask_v6",
        "priority",
        "project_id",
        "rxtx_base",
        "share_address",
        "updated_at",
        "vlan",
        "vpn_private_address",
        "vpn_public_address",
        "vpn_public_port",
    ] {
        one[unknown] = Json::Null;
    }
    one
}

fn view_of_tenant(network: &Network) -> Json {
    json!({"id": network.id, "cidr": "None", "label": network.name})
}
