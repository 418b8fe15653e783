//! `shelve`, `shelveOffload` and `unshelve`.

use super::{check_unlocked, check_zone, checked, server_actions::accepted, target};
use crate::{
    Nova,
    flows::{
        shelve,
        snapshot::{self, image_of},
        unshelve,
    },
    model::{Instance, VmState},
    schemas::moves,
    store,
};
use base::{Error, Result, id};
use std::sync::Arc;
use web::{Reply, Request, Routes, action};

pub fn routes() -> Routes<Nova> {
    const PATH: &str = "/v2.1/servers/{server_id}/action";
    vec![
        action(PATH, "shelve", "os_compute_api:os-shelve:shelve", put_away),
        action(PATH, "shelveOffload", "os_compute_api:os-shelve:shelve_offload", offload),
        action(PATH, "unshelve", "os_compute_api:os-shelve:unshelve", bring_back),
    ]
}

async fn put_away(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &moves::SHELVE)?;
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    let name = format!("{}-shelved", instance.display_name);
    let image = (!instance.image_ref.is_empty())
        .then(|| image_of(&request.ctx, &instance, &id::uuid(), &name, "snapshot"));
    shelve::check(&instance)?;
    if let Some(image) = &image {
        snapshot::make(&nova, &request.ctx, &instance, image).await?;
    }
    let (work, cx, made) = (nova.clone(), request.ctx.clone(), image.clone());
    let begun = nova.write(move |tx| shelve::begin(&work, tx, &cx, &instance.uuid, image.clone())).await;
    if let (Err(_), Some(image)) = (&begun, &made) {
        nova.image_maker().discard(&request.ctx, &image.id).await?;
    }
    begun?;
    Ok(accepted())
}

async fn offload(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &moves::SHELVE_OFFLOAD)?;
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    let (work, cx) = (nova.clone(), request.ctx.clone());
    nova.write(move |tx| shelve::begin_offload_alone(&work, tx, &cx, &instance.uuid)).await?;
    Ok(accepted())
}

async fn bring_back(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &moves::UNSHELVE)?["unshelve"].clone();
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    unshelve::check(&instance)?;
    let zone = given.get("availability_zone").filter(|_| request.since(2, 77));
    let host = given["host"].as_str().filter(|_| request.since(2, 91)).map(String::from);
    let wanted = unshelve::Wanted {
        availability_zone: zone.map(|zone| zone.as_str().map(String::from)),
        host: host.clone(),
    };
    if zone.is_some() || host.is_some() {
        check_destination(&nova, &request, &instance, &wanted).await?;
    }
    let (work, cx) = (nova.clone(), request.ctx.clone());
    nova.write(move |tx| unshelve::begin(&work, tx, &cx, &instance.uuid, &wanted)).await?;
    Ok(accepted())
}

/// Only a server that has left its host can be told where to go.
async fn check_destination(
    nova: &Nova,
    request: &Request,
    instance: &Instance,
    wanted: &unshelve::Wanted,
) -> Result<()> {
    if instance.vm_state != VmState::ShelvedOffloaded {
        return Err(Error::conflict(format!(
            "Specifying an availability zone or a host when unshelving server \"{}\" with status \"{}\" is not supported. The server status must be SHELVED_OFFLOADED.",
            instance.uuid,
            instance.vm_state.as_str()
        )));
    }
    let zone = wanted.availability_zone.as_ref().and_then(|zone| zone.as_deref());
    check_zone(nova, zone).await?;
    let Some(host) = wanted.host.clone() else { return Ok(()) };
    request.can_rule("os_compute_api:os-shelve:unshelve_to_host", &target(instance))?;
    let default = nova.options.default_availability_zone.clone();
    let found = nova.read(move |tx| {
        let (_, aggregates) = store::services_and_aggregates(tx)?;
        let there = store::node_on(tx, &host)?.is_some();
        Ok((store::zone_of(&aggregates, &host).unwrap_or(default.clone()), there, host.clone()))
    });
    let (zone_of_host, there, host) = found.await?;
    if !there {
        return Err(Error::bad_request(format!("Compute host {host} could not be found.")));
    }
    // None given: it stays where it is pinned.
    let pinned = match &wanted.availability_zone {
        Some(zone) => zone.clone(),
        None => instance.pinned_availability_zone.clone(),
    };
    match pinned {
        Some(zone) if zone != zone_of_host => {
            Err(Error::conflict(format!("Host \"{host}\" is not in the availability zone \"{zone}\".")))
        }
        _ => Ok(()),
    }
}
