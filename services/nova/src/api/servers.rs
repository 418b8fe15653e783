//! Servers: create, list, show, update, delete, and their addresses.

use super::{
    check_unlocked, checked,
    server_create::{self, plain_address},
    server_list,
    server_view::{self, In},
};
use crate::{Nova, flows::delete as deleting, model::TaskState, schemas, store};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Nova> {
    vec![
        get("/v2.1/servers", "os_compute_api:servers:index", server_list::index),
        post("/v2.1/servers", "os_compute_api:servers:create", server_create::create),
        get("/v2.1/servers/detail", "os_compute_api:servers:detail", server_list::detail),
        get("/v2.1/servers/{server_id}", "os_compute_api:servers:show", show),
        put("/v2.1/servers/{server_id}", "os_compute_api:servers:update", update),
        delete("/v2.1/servers/{server_id}", "os_compute_api:servers:delete", remove),
        get("/v2.1/servers/{server_id}/ips", "os_compute_api:ips:index", list_addresses),
        get("/v2.1/servers/{server_id}/ips/{network}", "os_compute_api:ips:show", show_addresses),
    ]
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let around = nova.around(std::slice::from_ref(&instance)).await?;
    Ok(Reply::ok(json!({"server": server_view::detail(&request, &instance, &around, In::Show)})))
}

async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::SERVER_UPDATE)?["server"].clone();
    let mut instance = nova.server(&request).await?;
    let text = |key: &str| given.get(key).and_then(Json::as_str).map(str::to_string);
    if let Some(name) = text("name") {
        instance.display_name = name.trim().to_string();
    }
    if given.get("description").is_some() {
        instance.display_description = text("description");
    }
    if let Some(hostname) = text("hostname") {
        instance.hostname = hostname;
    }
    for (key, place) in
        [("accessIPv4", &mut instance.access_ip_v4), ("accessIPv6", &mut instance.access_ip_v6)]
    {
        if let Some(address) = text(key) {
            *place = Some(plain_address(address));
        }
    }
    if let Some(config) = text("OS-DCF:diskConfig") {
        instance.auto_disk_config = config == "AUTO";
    }
    if let Some(zone) = given.get("pinned_availability_zone") {
        instance.pinned_availability_zone = pinned(&instance, zone.as_str())?;
    }
    instance.updated_at = nova.clock.now();
    let row = instance.clone();
    nova.write(move |tx| {
        store::change(tx, &row.uuid, row.updated_at, |found| {
            found.display_name = row.display_name.clone();
            found.display_description = row.display_description.clone();
            found.hostname = row.hostname.clone();
            found.access_ip_v4 = row.access_ip_v4.clone();
            found.access_ip_v6 = row.access_ip_v6.clone();
            found.auto_disk_config = row.auto_disk_config;
            found.pinned_availability_zone = row.pinned_availability_zone.clone();
        })
    })
    .await?;
    let around = nova.around(std::slice::from_ref(&instance)).await?;
    Ok(Reply::ok(json!({"server": server_view::detail(&request, &instance, &around, In::Changed)})))
}

/// A server may be pinned to the zone it is in, and freed; nothing else.
fn pinned(instance: &crate::model::Instance, wanted: Option<&str>) -> Result<Option<String>> {
    let Some(wanted) = wanted else { return Ok(None) };
    let current = instance.availability_zone.as_deref().unwrap_or_default();
    match &instance.pinned_availability_zone {
        Some(pinned) if pinned != wanted => Err(Error::conflict(
            "Cannot change pinned availability zone directly. Unpin first by setting pinned_availability_zone to null.",
        )),
        None if wanted != current => Err(Error::conflict(format!(
            "Server can only be pinned to its current availability zone '{current}', but '{wanted}' was requested."
        ))),
        _ => Ok(Some(wanted.to_string())),
    }
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    nova.delete_server(&request, &instance.uuid).await?;
    Ok(Reply::no_content())
}

impl Nova {
    /// Also of `forceDelete`.
    pub(super) async fn delete_server(self: &Arc<Self>, request: &Request, uuid: &str) -> Result<()> {
        let (nova, cx, uuid) = (self.clone(), request.ctx.clone(), uuid.to_string());
        self.write(move |tx| {
            let instance = store::instance(tx, &uuid)?;
            let moving = [TaskState::ResizePrep, TaskState::ResizeMigrating, TaskState::ResizeFinish];
            if instance.task_state.is_some_and(|task| moving.contains(&task)) {
                let task = instance.task_state.map(TaskState::as_str).unwrap_or_default();
                return Err(Error::conflict(format!(
                    "Cannot 'delete' instance {uuid} while it is in task_state {task}"
                )));
            }
            deleting::begin(&nova, tx, &cx, &uuid)
        })
        .await
    }
}

async fn list_addresses(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    Ok(Reply::ok(json!({"addresses": server_view::addresses(&instance, false)})))
}

async fn show_addresses(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let network = request.param("network");
    let addresses = server_view::addresses(&instance, false);
    let found = addresses.get(network);
    let missing = || Error::not_found("Instance is not a member of specified network");
    Ok(Reply::ok(json!({network: found.ok_or_else(missing)?})))
}
