//! Servers on their way: to another flavor, to another host, off or running, or away from a host that is down.

use super::{
    check_unlocked, check_visible, checked, is_true, server_actions::accepted, server_create, target,
};
use crate::{
    Nova,
    flows::{confirm_resize, evacuate, live_migrate, resize, revert_resize},
    model::{Flavor, Instance},
    schemas::moves,
    store,
};
use base::{Context, Error, Json, Result};
use db::Tx;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, action};

pub fn routes() -> Routes<Nova> {
    const PATH: &str = "/v2.1/servers/{server_id}/action";
    vec![
        action(PATH, "resize", "os_compute_api:servers:resize", resize),
        action(PATH, "confirmResize", "os_compute_api:servers:confirm_resize", confirm),
        action(PATH, "revertResize", "os_compute_api:servers:revert_resize", revert),
        action(PATH, "migrate", "os_compute_api:os-migrate-server:migrate", migrate),
        action(PATH, "os-migrateLive", "os_compute_api:os-migrate-server:migrate_live", migrate_live),
        action(PATH, "evacuate", "os_compute_api:os-evacuate", evacuate),
    ]
}

/// Begins in one transaction what the caller may do to the server.
async fn begin(
    nova: &Arc<Nova>,
    cx: &Context,
    uuid: &str,
    mut work: impl FnMut(&Arc<Nova>, &mut Tx, &Context, &str) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (own, cx, uuid) = (nova.clone(), cx.clone(), uuid.to_string());
    nova.write(move |tx| work(&own, tx, &cx, &uuid)).await
}

async fn resize(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &moves::RESIZE)?["resize"].clone();
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    let new_flavor = new_flavor(&nova, &request, &instance, &given["flavorRef"]).await?;
    let auto_disk_config = given["OS-DCF:diskConfig"].as_str().map(|config| config == "AUTO");
    let wanted =
        resize::Wanted { new_flavor: Some(new_flavor), host: None, auto_disk_config, confirms_itself: false };
    begin(&nova, &request.ctx, &instance.uuid, move |nova, tx, cx, uuid| {
        resize::begin(nova, tx, cx, uuid, &wanted)
    })
    .await?;
    Ok(accepted())
}

/// The flavor that is asked for, if the server may have it.
async fn new_flavor(nova: &Nova, request: &Request, instance: &Instance, wanted: &Json) -> Result<Flavor> {
    let id = wanted.as_str().map_or_else(|| wanted.to_string(), String::from);
    let (cx, flavor_id) = (request.ctx.clone(), id.clone());
    let found = nova.read(move |tx| store::flavor(tx, &cx, &flavor_id)).await;
    let missing = || Error::bad_request(format!("Flavor {id} could not be found."));
    let flavor =
        found.map_err(|error| if error.is(base::ErrorKind::NotFound) { missing() } else { error })?;
    let has_image = !instance.image_ref.is_empty();
    if flavor.root_gb == 0 && instance.flavor.root_gb != 0 && has_image {
        return Err(Error::bad_request(
            "Server disk was unable to be resized because: Resize to zero disk flavor is not allowed.",
        ));
    }
    if flavor.flavorid == instance.flavor_id {
        return Err(Error::bad_request("When resizing, instances must change flavor!"));
    }
    if flavor.disabled {
        return Err(missing());
    }
    if flavor.memory_mb < instance.image.min_ram_mb as i64 {
        return Err(Error::bad_request("Flavor's memory is too small for requested image."));
    }
    let min_disk_gb = instance.image.min_disk_gb as i64;
    if has_image && flavor.root_gb != 0 && flavor.root_gb < min_disk_gb {
        return Err(Error::bad_request(format!(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {} bytes, minimum size is {} bytes.",
            flavor.root_gb << 30,
            min_disk_gb << 30
        )));
    }
    Ok(flavor)
}

async fn confirm(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &moves::CONFIRM_RESIZE)?;
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    begin(&nova, &request.ctx, &instance.uuid, confirm_resize::begin).await?;
    Ok(Reply::no_content())
}

async fn revert(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &moves::REVERT_RESIZE)?;
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    begin(&nova, &request.ctx, &instance.uuid, revert_resize::begin).await?;
    Ok(accepted())
}

async fn migrate(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let host = match request.since(2, 56) {
        true => checked(&request, &moves::MIGRATE)?["migrate"]["host"].as_str().map(String::from),
        false => None,
    };
    if host.is_some() {
        may_choose_host(&nova, &request, "os_compute_api:os-migrate-server:migrate:host").await?;
    }
    let instance = nova.server(&request).await?;
    if let Some(host) = &host {
        check_unlocked(&request, &instance)?;
        if instance.host.as_ref() == Some(host) {
            return Err(Error::bad_request("Cannot migrate to the host where the server exists."));
        }
        check_host(&nova, host).await?;
    }
    check_unlocked(&request, &instance)?;
    let wanted = resize::Wanted { new_flavor: None, host, auto_disk_config: None, confirms_itself: false };
    begin(&nova, &request.ctx, &instance.uuid, move |nova, tx, cx, uuid| {
        resize::begin(nova, tx, cx, uuid, &wanted)
    })
    .await?;
    Ok(accepted())
}

/// Who names a host is refused by the rule about that, before the one about the move itself.
async fn may_choose_host(nova: &Nova, request: &Request, rule: &str) -> Result<()> {
    let instance = nova.instance(request.param("server_id")).await?;
    check_visible(&request.ctx, &instance)?;
    request.can_rule(rule, &target(&instance))
}

async fn check_host(nova: &Nova, host: &str) -> Result<()> {
    let name = host.to_string();
    let found = nova.read(move |tx| store::node_on(tx, &name)).await?.is_some();
    let missing = || Error::bad_request(format!("Compute host {host} could not be found."));
    found.then_some(()).ok_or_else(missing)
}

const NO_DESTINATION: &str = "Can't force to a non-provided destination";

async fn migrate_live(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &moves::MIGRATE_LIVE)?["os-migrateLive"].clone();
    let host = given["host"].as_str().map(String::from);
    if host.is_some() {
        may_choose_host(&nova, &request, "os_compute_api:os-migrate-server:migrate_live:host").await?;
    }
    let instance = nova.server(&request).await?;
    if is_true(&given["force"]) && host.is_none() {
        return Err(Error::bad_request(NO_DESTINATION));
    }
    check_unlocked(&request, &instance)?;
    let block_migration = match &given["block_migration"] {
        Json::String(word) if word == "auto" => None,
        other => Some(is_true(other)),
    };
    if let Some(host) = &host {
        check_host(&nova, host).await?;
    }
    let wanted = live_migrate::Wanted { host, block_migration };
    // Until 2.33 a caller heard at once what could not be.
    if !request.since(2, 34) {
        live_migrate::check(&nova, &instance, &wanted).await?;
    }
    begin(&nova, &request.ctx, &instance.uuid, move |nova, tx, cx, uuid| {
        live_migrate::begin(nova, tx, cx, uuid, &wanted)
    })
    .await?;
    Ok(accepted())
}

async fn evacuate(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &moves::EVACUATE)?["evacuate"].clone();
    let instance = nova.server(&request).await?;
    let host = given["host"].as_str().map(String::from);
    if is_true(&given["force"]) && host.is_none() {
        return Err(Error::bad_request(NO_DESTINATION));
    }
    let given_password = given["adminPass"].as_str().map(String::from);
    let on_shared_storage = !request.since(2, 14) && is_true(&given["onSharedStorage"]);
    if on_shared_storage && given_password.is_some() {
        return Err(Error::bad_request("admin password can't be changed on existing disk"));
    }
    if let Some(host) = &host
        && check_host(&nova, host).await.is_err()
    {
        return Err(Error::not_found(format!("Compute host {host} not found.")));
    }
    if host.is_some() && host == instance.host {
        return Err(Error::bad_request("The target host can't be the same one."));
    }
    let at = instance.host.clone().unwrap_or_default();
    if nova.host_is_up(&at).await? {
        return Err(Error::bad_request(format!("Compute service of {at} is still in use.")));
    }
    let wanted = evacuate::Wanted { host, stays_off: request.since(2, 95) };
    begin(&nova, &request.ctx, &instance.uuid, move |nova, tx, cx, uuid| {
        evacuate::begin(nova, tx, cx, uuid, &wanted)
    })
    .await?;
    if request.since(2, 14) {
        return Ok(Reply::empty(web::StatusCode::OK).header("content-type", "application/json"));
    }
    let password = given_password.unwrap_or_else(|| server_create::password(&nova));
    let password = (!on_shared_storage).then_some(password);
    Ok(Reply::ok(json!({"adminPass": password})))
}
