//! Volumes and snapshots as compute once showed them, until 2.35: cinder's, asked of it in the caller's name.

use super::{checked, own_project, queries, server_actions::accepted};
use crate::{Nova, schemas::Form};
use base::{Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Nova> {
    let all = [
        get("/v2.1/os-volumes", "os_compute_api:os-volumes:list", volumes),
        get("/v2.1/os-volumes/detail", "os_compute_api:os-volumes:detail", volumes),
        post("/v2.1/os-volumes", "os_compute_api:os-volumes:create", create_volume),
        get("/v2.1/os-volumes/{id}", "os_compute_api:os-volumes:show", show_volume),
        delete("/v2.1/os-volumes/{id}", "os_compute_api:os-volumes:delete", delete_volume),
        get("/v2.1/os-snapshots", "os_compute_api:os-volumes:snapshots:list", snapshots),
        get("/v2.1/os-snapshots/detail", "os_compute_api:os-volumes:snapshots:detail", snapshots),
        post("/v2.1/os-snapshots", "os_compute_api:os-volumes:snapshots:create", create_snapshot),
        get("/v2.1/os-snapshots/{id}", "os_compute_api:os-volumes:snapshots:show", show_snapshot),
        delete("/v2.1/os-snapshots/{id}", "os_compute_api:os-volumes:snapshots:delete", delete_snapshot),
    ];
    all.into_iter().map(|route| route.until(2, 35)).collect()
}

async fn volumes(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::OFFSET)?;
    let found = ask(&nova, &request, "GET", "volumes/detail", None).await?;
    let page = queries::slice(&nova, &request, &found["volumes"]);
    Ok(Reply::ok(json!({"volumes": page.iter().map(volume_view).collect::<Vec<_>>()})))
}

async fn show_volume(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let found = ask(&nova, &request, "GET", &one(&request, "volumes"), None).await?;
    Ok(Reply::ok(json!({"volume": volume_view(&found["volume"])})))
}

async fn create_volume(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &VOLUME)?["volume"].clone();
    let mut wanted = json!({
        "size": queries::number(&given["size"]),
        "name": given["display_name"],
        "description": given["display_description"],
    });
    for name in ["volume_type", "metadata", "snapshot_id", "availability_zone"] {
        if let Some(value) = given.get(name) {
            wanted[name] = value.clone();
        }
    }
    let made = ask(&nova, &request, "POST", "volumes", Some(json!({"volume": wanted}))).await?;
    let id = made["volume"]["id"].as_str().unwrap_or_default();
    let location = format!("{}/v2.1/os-volumes/{id}", request.base_url);
    Ok(Reply::ok(json!({"volume": volume_view(&made["volume"])})).header("location", location))
}

async fn delete_volume(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    ask(&nova, &request, "DELETE", &one(&request, "volumes"), None).await?;
    Ok(accepted())
}

async fn snapshots(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::OFFSET)?;
    let found = ask(&nova, &request, "GET", "snapshots/detail", None).await?;
    let page = queries::slice(&nova, &request, &found["snapshots"]);
    Ok(Reply::ok(json!({"snapshots": page.iter().map(snapshot_view).collect::<Vec<_>>()})))
}

async fn show_snapshot(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let found = ask(&nova, &request, "GET", &one(&request, "snapshots"), None).await?;
    Ok(Reply::ok(json!({"snapshot": snapshot_view(&found["snapshot"])})))
}

async fn create_snapshot(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &SNAPSHOT)?["snapshot"].clone();
    let wanted = json!({"snapshot": {
        "volume_id": given["volume_id"],
        "force": super::is_true(&given["force"]),
        "name": given["display_name"],
        "description": given["display_description"],
    }});
    let made = ask(&nova, &request, "POST", "snapshots", Some(wanted)).await?;
    Ok(Reply::ok(json!({"snapshot": snapshot_view(&made["snapshot"])})))
}

async fn delete_snapshot(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    ask(&nova, &request, "DELETE", &one(&request, "snapshots"), None).await?;
    Ok(accepted())
}

fn one(request: &Request, noun: &str) -> String {
    format!("{noun}/{}", request.param("id"))
}

async fn ask(nova: &Nova, request: &Request, method: &str, path: &str, body: Option<Json>) -> Result<Json> {
    request.can(&own_project(request))?;
    let path = format!("/v3/{}/{path}", request.ctx.project_id);
    nova.peers.apis.volume.call(&request.ctx, method, &path, body.as_ref()).await
}

fn volume_view(volume: &Json) -> Json {
    let attached = volume["attachments"].as_array().and_then(|all| all.first());
    let attachment = attached.map_or_else(
        || json!({}),
        |held| {
            let mut shown =
                json!({"id": volume["id"], "volumeId": volume["id"], "serverId": held["server_id"]});
            if held["device"].is_string() {
                shown["device"] = held["device"].clone();
            }
            shown
        },
    );
    json!({
        "id": volume["id"],
        "status": volume["status"],
        "size": volume["size"],
        "availabilityZone": volume["availability_zone"],
        "createdAt": volume["created_at"],
        "attachments": [attachment],
        "displayName": volume["name"],
        "displayDescription": volume["description"],
        "volumeType": volume["volume_type"],
        "snapshotId": volume["snapshot_id"],
        "metadata": volume.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

fn snapshot_view(snapshot: &Json) -> Json {
    json!({
        "id": snapshot["id"],
        "volumeId": snapshot["volume_id"],
        "status": snapshot["status"],
        "size": snapshot["size"],
        "createdAt": snapshot["created_at"],
        "displayName": snapshot["name"],
        "displayDescription": snapshot["description"],
    })
}

static VOLUME: Form = Form::new(|| {
    let text = json!({"type": "string"});
    json!({"type": "object", "required": ["volume"], "additionalProperties": false, "properties": {"volume": {
        "type": "object", "required": ["size"], "additionalProperties": false, "properties": {
            "volume_type": text, "metadata": {"type": "object"}, "snapshot_id": text,
            "size": {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 1},
            "availability_zone": text, "display_name": text, "display_description": text}}}})
});

static SNAPSHOT: Form = Form::new(|| {
    let text = json!({"type": "string"});
    json!({"type": "object", "required": ["snapshot"], "additionalProperties": false,
        "properties": {"snapshot": {
            "type": "object", "required": ["volume_id"], "additionalProperties": false, "properties": {
                "volume_id": text, "force": crate::schemas::boolean(),
                "display_name": text, "display_description": text}}}})
});
