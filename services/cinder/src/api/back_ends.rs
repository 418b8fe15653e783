//! The back ends as services, pools and availability zones.

use super::{no_body, of_project, query_flag, text};
use crate::{Cinder, model::*, requests, scheduler, schemas, store::Held};
use base::{Error, Json, Result};
use db::List;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, get, put};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/os-services", "volume_extension:services:index", list),
        put("/v3/os-services/enable", "volume_extension:services:update", enable),
        put("/v3/os-services/disable", "volume_extension:services:update", disable),
        put("/v3/os-services/disable-log-reason", "volume_extension:services:update", disable_with_reason),
        put("/v3/os-services/freeze", "volume:freeze_host", freeze),
        put("/v3/os-services/thaw", "volume:thaw_host", thaw),
        get("/v3/os-hosts", "volume_extension:hosts", hosts),
        get("/v3/os-hosts/{host}", "volume_extension:hosts", host),
        get("/v3/os-availability-zone", "", zones),
        get("/v3/scheduler-stats/get_pools", "scheduler_extension:scheduler_stats:get_pools", pools),
        get("/v3/capabilities/{host}", "volume_extension:capabilities", capabilities),
    ]
}

const BINARY: &str = "cinder-volume";
const SCHEDULER: &str = "cinder-scheduler";
const BACKUP: &str = "cinder-backup";

async fn all(cinder: &Cinder) -> Result<Vec<BackEnd>> {
    cinder.read(|tx| tx.list::<BackEnd>(&List::all())).await
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let binary = request.query.get("binary").or(request.query.get("service"));
    let now = cinder.clock.now();
    let wanted = |back_end: &&BackEnd| {
        let host = request.query.get("host");
        let machine = back_end.host.split('@').next();
        host.is_none_or(|host| host == back_end.host || Some(host) == machine)
            && binary.is_none_or(|binary| binary == BINARY)
    };
    let view = |back_end: &BackEnd| {
        let up = if scheduler::is_up(back_end, &cinder.options, now) { "up" } else { "down" };
        let mut service = json!({
            "binary": BINARY,
            "host": back_end.host,
            "zone": back_end.facts.availability_zone,
            "status": if back_end.disabled { "disabled" } else { "enabled" },
            "state": up,
            "updated_at": back_end.last_seen_at.micros(),
            "disabled_reason": back_end.disabled_reason,
            "replication_status": "disabled",
            "active_backend_id": null,
            "frozen": back_end.frozen,
        });
        if request.since(3, 7) {
            service["cluster"] = Json::Null;
        }
        if request.since(3, 49) {
            service["backend_state"] = up.into();
        }
        service
    };
    let back_ends = all(&cinder).await?;
    let mut services: Vec<Json> = back_ends.iter().filter(wanted).map(view).collect();
    if binary.is_none_or(|binary| binary == BACKUP) {
        let of_host = backup_services(&cinder, &request, &back_ends);
        let asked = |host: &str| request.query.get("host").is_none_or(|asked| asked == host);
        services.extend(of_host.into_iter().filter(|(host, _)| asked(host)).map(|(_, service)| service));
    }
    let own = request.query.get("host").is_none_or(|host| host == base::machine_name());
    if own && binary.is_none_or(|binary| binary == SCHEDULER) {
        services.insert(0, own_service(&cinder, &request));
    }
    Ok(Reply::ok(json!({"services": services})))
}

/// The agents of a host's back ends make its backups, while one of them is there.
fn backup_services(cinder: &Cinder, request: &Request, back_ends: &[BackEnd]) -> BTreeMap<String, Json> {
    let now = cinder.clock.now();
    let mut services: BTreeMap<String, Json> = BTreeMap::new();
    for back_end in back_ends {
        let up = scheduler::is_up(back_end, &cinder.options, now);
        let host = back_end.host.split('@').next().unwrap_or(&back_end.host);
        let known = services.get(host).is_some_and(|service| service["state"] == "up");
        if known && !up {
            continue;
        }
        let mut service = json!({
            "binary": BACKUP,
            "host": host,
            "zone": back_end.facts.availability_zone,
            "status": "enabled",
            "state": if up { "up" } else { "down" },
            "updated_at": back_end.last_seen_at.micros(),
            "disabled_reason": null,
        });
        if request.since(3, 7) {
            service["cluster"] = Json::Null;
        }
        services.insert(host.into(), service);
    }
    services
}

/// This process, which schedules; it is up, for it answers.
fn own_service(cinder: &Cinder, request: &Request) -> Json {
    let mut service = json!({
        "binary": SCHEDULER,
        "host": base::machine_name(),
        "zone": cinder.options.storage_availability_zone,
        "status": "enabled",
        "state": "up",
        "updated_at": cinder.clock.now().micros(),
        "disabled_reason": null,
    });
    if request.since(3, 7) {
        service["cluster"] = Json::Null;
    }
    service
}

async fn enable(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    switch(cinder, request, false, false).await
}

async fn disable(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    switch(cinder, request, true, false).await
}

async fn disable_with_reason(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    switch(cinder, request, true, true).await
}

/// A disabled back end keeps its volumes and gets no new ones.
async fn switch(cinder: Arc<Cinder>, request: Request, disabled: bool, with_reason: bool) -> Result<Reply> {
    request.can(&())?;
    let form = if with_reason { &schemas::SERVICE_WITH_REASON } else { &schemas::SERVICE };
    form.body(request.json())?;
    let given = request.json().as_object().cloned().unwrap_or_default();
    let binary = text(&given, "binary").or(text(&given, "service")).unwrap_or_default().to_string();
    let host = text(&given, "host").unwrap_or_default().to_string();
    let reason = text(&given, "disabled_reason").map(str::trim).map(String::from);
    if with_reason && reason.is_none() {
        return Err(Error::bad_request("Missing required element 'disabled_reason' in request body."));
    }
    let (name, told) = (host.clone(), reason.clone());
    let known = binary == BINARY;
    cinder
        .write(move |tx| {
            let found = tx.find::<BackEnd>(&name)?.filter(|_| known);
            let mut back_end = found.ok_or_else(|| Error::not_found("Unknown service"))?;
            back_end.disabled = disabled;
            back_end.disabled_reason = told.clone();
            tx.update(&back_end).map(drop)
        })
        .await?;
    let mut answer = json!({
        "host": host,
        "service": binary,
        "binary": binary,
        "disabled": disabled,
        "status": if disabled { "disabled" } else { "enabled" },
    });
    if with_reason {
        answer["disabled_reason"] = json!(reason);
    }
    if request.since(3, 7) {
        answer["cluster"] = Json::Null;
    }
    Ok(Reply::ok(answer))
}

async fn freeze(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    set_frozen(cinder, request, true).await
}

async fn thaw(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    set_frozen(cinder, request, false).await
}

async fn set_frozen(cinder: Arc<Cinder>, request: Request, frozen: bool) -> Result<Reply> {
    request.can(&())?;
    schemas::FREEZE.body(request.json())?;
    let host = request.json()["host"].as_str().unwrap_or_default().to_string();
    cinder
        .write(move |tx| {
            let found = tx.find::<BackEnd>(&host)?;
            let mut back_end =
                found.ok_or_else(|| Error::bad_request(format!("No service found with host={host}")))?;
            if back_end.frozen == frozen {
                let already = if frozen { "already frozen" } else { "not frozen" };
                return Err(Error::bad_request(format!("Service {host} is {already}.")));
            }
            back_end.frozen = frozen;
            tx.update(&back_end).map(drop)
        })
        .await?;
    Ok(no_body(StatusCode::ACCEPTED))
}

async fn hosts(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let now = cinder.clock.now();
    let view = |back_end: &BackEnd| {
        json!({
            "host_name": back_end.host,
            "service": BINARY,
            "zone": back_end.facts.availability_zone,
            "service-status": if scheduler::is_up(back_end, &cinder.options, now) { "available" } else { "unavailable" },
            "service-state": if back_end.disabled { "disabled" } else { "enabled" },
            "last-update": back_end.last_seen_at.micros(),
        })
    };
    let zone = request.query.get("zone");
    let fits = |back_end: &&BackEnd| zone.is_none_or(|zone| zone == back_end.facts.availability_zone);
    let mut hosts: Vec<Json> = all(&cinder).await?.iter().filter(fits).map(view).collect();
    if zone.is_none_or(|zone| zone == cinder.options.storage_availability_zone) {
        hosts.insert(
            0,
            json!({
                "host_name": base::machine_name(),
                "service": SCHEDULER,
                "zone": cinder.options.storage_availability_zone,
                "service-status": "available",
                "service-state": "enabled",
                "last-update": now.micros(),
            }),
        );
    }
    Ok(Reply::ok(json!({"hosts": hosts})))
}

/// What is on a host: in all, and of each project.
async fn host(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let name = request.param("host").to_string();
    let rows = cinder
        .read(move |tx| {
            let found = tx.find::<BackEnd>(&name)?;
            let back_end = found.ok_or_else(|| {
                Error::not_found(format!("Service {BINARY} could not be found on host {name}."))
            })?;
            crate::store::on_host(tx, &scheduler::pool(&back_end))
        })
        .await?;
    let sum = |of: fn(&Held) -> i64| rows.values().map(of).sum::<i64>();
    let total = Held {
        volumes: sum(|held| held.volumes),
        volumes_gb: sum(|held| held.volumes_gb),
        snapshots: sum(|held| held.snapshots),
        snapshots_gb: sum(|held| held.snapshots_gb),
    };
    let view = |project: &str, held: &Held| {
        json!({"resource": {
            "host": request.param("host"),
            "project": project,
            "volume_count": held.volumes.to_string(),
            "total_volume_gb": held.volumes_gb.to_string(),
            "snapshot_count": held.snapshots.to_string(),
            "total_snapshot_gb": held.snapshots_gb.to_string(),
        }})
    };
    let each = rows.iter().map(|(project, held)| view(project, held));
    let shown: Vec<Json> = std::iter::once(view("(total)", &total)).chain(each).collect();
    Ok(Reply::ok(json!({"host": shown})))
}

/// Anyone with a token may ask.
async fn zones(cinder: Arc<Cinder>, _request: Request) -> Result<Reply> {
    let zones = cinder.read(requests::zones).await?;
    let zones: Vec<Json> = zones
        .into_iter()
        .map(|(name, available)| json!({"zoneName": name, "zoneState": {"available": available}}))
        .collect();
    Ok(Reply::ok(json!({"availabilityZoneInfo": zones})))
}

async fn pools(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let detail = query_flag(&request, "detail")?;
    let name = request.query.get("name").filter(|_| request.since(3, 28));
    let placed = cinder.read(crate::store::placed).await?;
    let view = |back_end: BackEnd| {
        let pool = scheduler::pool(&back_end);
        if name.is_some_and(|name| name != pool) {
            return None;
        }
        let mut shown = json!({"name": pool});
        if detail {
            let facts = &back_end.facts;
            shown["capabilities"] = json!({
                "pool_name": facts.pool,
                "total_capacity_gb": facts.total_gb,
                "free_capacity_gb": facts.free_gb,
                "provisioned_capacity_gb": facts.provisioned_gb,
                "allocated_capacity_gb": placed.get(&pool).map_or(0, |(_, gigabytes)| *gigabytes),
                "reserved_percentage": facts.reserved_percentage,
                "max_over_subscription_ratio": facts.max_over_subscription_ratio.to_string(),
                "thin_provisioning_support": true,
                "thick_provisioning_support": false,
                "multiattach": facts.multiattach,
                "QoS_support": false,
                "consistencygroup_support": false,
                "replication_enabled": false,
                "group_replication_enabled": false,
                "filter_function": null,
                "goodness_function": null,
                "volume_backend_name": facts.name,
                "storage_protocol": facts.storage_protocol,
                "vendor_name": facts.vendor,
                "driver_version": facts.driver_version,
                "timestamp": back_end.last_seen_at.micros(),
            });
        }
        Some(shown)
    };
    let pools: Vec<Json> = all(&cinder).await?.into_iter().filter_map(view).collect();
    Ok(Reply::ok(json!({"pools": pools})))
}

async fn capabilities(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let host = request.param("host").to_string();
    let name = host.clone();
    let found = cinder.read(move |tx| tx.find::<BackEnd>(&name)).await?;
    let back_end = found.ok_or_else(|| Error::not_found(format!("Can't find service: {host}")))?;
    Ok(Reply::ok(json!({
        "namespace": format!("OS::Storage::Capabilities::{}", back_end.host),
        "vendor_name": back_end.facts.vendor,
        "volume_backend_name": back_end.facts.name,
        "pool_name": back_end.facts.pool,
        "driver_version": back_end.facts.driver_version,
        "storage_protocol": back_end.facts.storage_protocol,
        "display_name": null,
        "description": null,
        "visibility": null,
        "replication_targets": [],
        "properties": {},
    })))
}
