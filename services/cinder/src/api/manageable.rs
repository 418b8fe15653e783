//! Disks and snapshots that are on a back end: those that may be managed, and taking them over.

use super::{Object, body, flag, lists, text, texts, trimmed, volumes};
use crate::{
    Cinder,
    errors::invalid_input,
    flows::manage::{SNAPSHOT_PREFIX, VOLUME_PREFIX},
    model::*,
    requests::{self, WantedDisk, WantedSnapshot},
    schemas, store,
};
use base::{Error, Json, Result, id};
use contracts::agents::volume::KeptDisk;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, get, post};

/// The newer paths came with 3.8; the older ones are extensions that are always there.
pub fn routes() -> Routes<Cinder> {
    const VOLUMES: &str = "volume_extension:list_manageable";
    const SNAPSHOTS: &str = "snapshot_extension:list_manageable";
    vec![
        get("/v3/manageable_volumes", VOLUMES, list_volumes).since(3, 8),
        get("/v3/manageable_volumes/detail", VOLUMES, list_volumes_detail).since(3, 8),
        post("/v3/manageable_volumes", "volume_extension:volume_manage", manage_volume).since(3, 8),
        get("/v3/os-volume-manage", VOLUMES, list_volumes),
        get("/v3/os-volume-manage/detail", VOLUMES, list_volumes_detail),
        post("/v3/os-volume-manage", "volume_extension:volume_manage", manage_volume),
        get("/v3/manageable_snapshots", SNAPSHOTS, list_snapshots).since(3, 8),
        get("/v3/manageable_snapshots/detail", SNAPSHOTS, list_snapshots_detail).since(3, 8),
        post("/v3/manageable_snapshots", "snapshot_extension:snapshot_manage", manage_snapshot).since(3, 8),
        get("/v3/os-snapshot-manage", SNAPSHOTS, list_snapshots),
        get("/v3/os-snapshot-manage/detail", SNAPSHOTS, list_snapshots_detail),
        post("/v3/os-snapshot-manage", "snapshot_extension:snapshot_manage", manage_snapshot),
    ]
}

const ONE_OF_BOTH: &str = "One and only one of cluster and host must be set.";

/// Back ends are named by host; there are no clusters.
fn named_host<'a>(host: Option<&'a str>, cluster: Option<&str>) -> Result<&'a str> {
    match (host.filter(|host| !host.is_empty()), cluster) {
        (Some(host), None) => Ok(host),
        _ => Err(invalid_input(ONE_OF_BOTH)),
    }
}

async fn list_volumes(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed_volumes(cinder, request, false).await
}

async fn list_volumes_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed_volumes(cinder, request, true).await
}

async fn listed_volumes(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&())?;
    let disks = kept(&cinder, &request, false).await?;
    let known = cinder.read(store::volume_ids).await?;
    let shown =
        page(&request, &cinder, disks)?.into_iter().map(|disk| view(disk, VOLUME_PREFIX, &known, detail));
    Ok(Reply::ok(json!({"manageable-volumes": shown.collect::<Vec<_>>()})))
}

async fn list_snapshots(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed_snapshots(cinder, request, false).await
}

async fn list_snapshots_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed_snapshots(cinder, request, true).await
}

async fn listed_snapshots(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&())?;
    let disks = kept(&cinder, &request, true).await?;
    let volumes = cinder.read(store::volumes_of_snapshots).await?;
    let known = volumes.keys().cloned().collect();
    let shown = page(&request, &cinder, disks)?.into_iter().map(|disk| {
        // What is not managed does not say whose snapshot it is.
        let source = volumes.get(&disk.id).map(|id| json!({"source-name": format!("{VOLUME_PREFIX}{id}")}));
        let mut shown = view(disk, SNAPSHOT_PREFIX, &known, detail);
        shown["source_reference"] = json!(source);
        shown
    });
    Ok(Reply::ok(json!({"manageable-snapshots": shown.collect::<Vec<_>>()})))
}

async fn kept(cinder: &Arc<Cinder>, request: &Request, snapshots: bool) -> Result<Vec<KeptDisk>> {
    let host = named_host(request.query.get("host"), request.query.get("cluster"))?.to_string();
    let name = host.split('#').next().unwrap_or(&host).to_string();
    let back_end = cinder.read(move |tx| tx.find::<BackEnd>(&name)).await?;
    let back_end = back_end.ok_or_else(|| {
        Error::not_found(format!("Service cinder-volume could not be found on host {host}."))
    })?;
    cinder.agent(&back_end.host).kept(&cinder.own(&request.ctx), snapshots).await
}

/// Sorted and cut as asked; the database does not know these things.
fn page(request: &Request, cinder: &Cinder, mut disks: Vec<KeptDisk>) -> Result<Vec<KeptDisk>> {
    let (keys, limits) = lists::plain_page(request, &cinder.options)?;
    for (key, ascending) in keys.iter().rev() {
        match key.as_str() {
            "reference" => disks.sort_by(|a, b| a.id.cmp(&b.id)),
            "size" => disks.sort_by_key(|disk| disk.bytes),
            other => return Err(Error::bad_request(format!("Invalid sort keys passed: {other}"))),
        }
        if !ascending {
            disks.reverse();
        }
    }
    Ok(disks.into_iter().skip(limits.offset as usize).take(limits.limit as usize).collect())
}

fn view(disk: KeptDisk, prefix: &str, known: &BTreeSet<String>, detail: bool) -> Json {
    let managed = known.contains(&disk.id);
    let mut shown = json!({
        "reference": {"source-name": format!("{prefix}{}", disk.id)},
        "size": disk.bytes.div_ceil(1 << 30),
        "safe_to_manage": !managed,
    });
    if detail {
        shown["reason_not_safe"] = json!(managed.then_some("already managed"));
        shown["cinder_id"] = json!(managed.then_some(disk.id));
        shown["extra_info"] = Json::Null;
    }
    shown
}

async fn manage_volume(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let form = if request.since(3, 16) { &schemas::VOLUME_MANAGE_V316 } else { &schemas::VOLUME_MANAGE };
    let given = body(&request, form, "volume")?;
    request.can(&())?;
    let host = named_host(text(&given, "host"), text(&given, "cluster"))?.to_string();
    let wanted = WantedDisk {
        id: id::uuid(),
        host,
        source: source(&given),
        name: trimmed(&given, "name"),
        description: trimmed(&given, "description"),
        volume_type: text(&given, "volume_type").filter(|name| !name.is_empty()).map(String::from),
        availability_zone: text(&given, "availability_zone").map(String::from),
        bootable: given.get("bootable").is_some_and(flag),
        metadata: texts(given.get("metadata")),
    };
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let shown = cinder
        .write(move |tx| {
            let volume = requests::manage(&own, tx, &cx, &wanted)?;
            volumes::Shown::load(tx, volume)
        })
        .await?;
    Ok(Reply::accepted(json!({"volume": volumes::as_first(&request, &shown)})))
}

async fn manage_snapshot(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::SNAPSHOT_MANAGE, "snapshot")?;
    let (cx, volume_id) = (request.ctx.clone(), text(&given, "volume_id").unwrap_or_default().to_string());
    let id = volume_id.clone();
    cinder.read(move |tx| requests::volume_for(tx, &cx, &id)).await?;
    request.can(&())?;
    let wanted = WantedSnapshot {
        volume_id,
        name: text(&given, "name").map(String::from),
        description: text(&given, "description").map(String::from),
        metadata: texts(given.get("metadata")),
        in_use: true,
        group_snapshot_id: None,
    };
    let (own, cx, source) = (cinder.clone(), request.ctx.clone(), source(&given));
    let snapshot =
        cinder.write(move |tx| requests::manage_snapshot(&own, tx, &cx, &wanted, source.clone())).await?;
    Ok(Reply::accepted(json!({"snapshot": super::snapshots::detailed(&request, &snapshot, false)})))
}

fn source(given: &Object) -> Option<String> {
    given.get("ref")?.get("source-name")?.as_str().map(String::from)
}
