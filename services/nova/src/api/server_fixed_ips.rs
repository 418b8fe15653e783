//! Addresses of a server's cards by action, until 2.44; and what neutron knows of its ports, taken over at once.

use super::{check_unlocked, checked, server_actions::accepted};
use crate::{Nova, model::Instance, schemas};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, action};

const PATH: &str = "/v2.1/servers/{server_id}/action";

pub fn routes() -> Routes<Nova> {
    vec![
        action(PATH, "addFixedIp", "os_compute_api:os-multinic:add", add).until(2, 43),
        action(PATH, "removeFixedIp", "os_compute_api:os-multinic:remove", remove).until(2, 43),
        action(PATH, "injectNetworkInfo", "os_compute_api:os-admin-actions:inject_network_info", inject),
    ]
}

/// Upstream answers before it has tried: where no address is to be had, its caller sees none.
async fn add(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let network = &checked(&request, &schemas::ADD_FIXED_IP)?["addFixedIp"]["networkId"];
    let network = network.as_str().map_or_else(|| network.to_string(), String::from);
    let instance = changeable(&nova, &request).await?;
    let path = format!("/v2.0/subnets?network_id={network}");
    let subnets = call(&nova, &request, "GET", &path, None).await?["subnets"].take();
    for port in ports(&nova, &request, &instance, &format!("network_id={network}")).await? {
        for subnet in subnets.as_array().into_iter().flatten() {
            let mut addresses = port["fixed_ips"].as_array().cloned().unwrap_or_default();
            addresses.push(json!({"subnet_id": subnet["id"]}));
            if set_addresses(&nova, &request, &port, addresses).await {
                nova.refresh_nics(&request.ctx, &instance.uuid).await?;
                return Ok(accepted());
            }
        }
    }
    tracing::warn!(server = instance.uuid, network, "no address for it there");
    Ok(accepted())
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = &checked(&request, &schemas::REMOVE_FIXED_IP)?["removeFixedIp"]["address"];
    let address = given.as_str().unwrap_or_default().to_string();
    let instance = changeable(&nova, &request).await?;
    let has = format!("fixed_ips=ip_address%3D{address}");
    let Some(port) = ports(&nova, &request, &instance, &has).await?.into_iter().next() else {
        tracing::warn!(server = instance.uuid, address, "it has no such address");
        return Ok(accepted());
    };
    let mut addresses = port["fixed_ips"].as_array().cloned().unwrap_or_default();
    addresses.retain(|one| one["ip_address"] != *address);
    if set_addresses(&nova, &request, &port, addresses).await {
        nova.refresh_nics(&request.ctx, &instance.uuid).await?;
    }
    Ok(accepted())
}

/// Guests hear of their network by DHCP and metadata, which neutron and the next question see to: what is left is
/// what nova itself remembers.
async fn inject(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &schemas::INJECT_NETWORK_INFO)?;
    let instance = changeable(&nova, &request).await?;
    nova.refresh_nics(&request.ctx, &instance.uuid).await?;
    Ok(accepted())
}

async fn changeable(nova: &Nova, request: &Request) -> Result<Instance> {
    let instance = nova.server(request).await?;
    check_unlocked(request, &instance)?;
    Ok(instance)
}

/// Its cards for which the query holds.
async fn ports(nova: &Nova, request: &Request, instance: &Instance, query: &str) -> Result<Vec<Json>> {
    let path = format!("/v2.0/ports?device_id={}&{query}", instance.uuid);
    let found = call(nova, request, "GET", &path, None).await?;
    let of_compute = |port: &&Json| port["device_owner"].as_str().is_some_and(|o| o.starts_with("compute:"));
    Ok(found["ports"].as_array().into_iter().flatten().filter(of_compute).cloned().collect())
}

async fn set_addresses(nova: &Nova, request: &Request, port: &Json, addresses: Vec<Json>) -> bool {
    let path = format!("/v2.0/ports/{}", port["id"].as_str().unwrap_or_default());
    let body = json!({"port": {"fixed_ips": addresses}});
    let set = call(nova, request, "PUT", &path, Some(&body)).await;
    if let Err(error) = &set {
        tracing::warn!(%error, port = %port["id"], "addresses not set");
    }
    set.is_ok()
}

/// In the caller's name: neutron says whether he may.
async fn call(nova: &Nova, request: &Request, method: &str, path: &str, body: Option<&Json>) -> Result<Json> {
    let answer = nova.peers.apis.network.call(&request.ctx, method, path, body).await;
    answer.map_err(|error| Error::bad_request(error.message.clone()).cause(error))
}
