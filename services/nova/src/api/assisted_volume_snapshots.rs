//! What cinder's drivers for volumes that are files on a share ask: that the guest's own hypervisor takes a snapshot of
//! such a file, or merges one. No host here has volumes as files (they come over NBD), so cinder hears of the snapshot
//! what upstream's driver tells it of such a volume: that it failed.

use super::{
    checked,
    queries::{self, query, texts},
};
use crate::{
    Nova,
    flows::power::check_state,
    model::{BlockDevice, VmState},
    schemas::Form,
    store,
};
use base::{Error, Json, Result};
use db::List;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, post};

pub fn routes() -> Routes<Nova> {
    vec![
        post(
            "/v2.1/os-assisted-volume-snapshots",
            "os_compute_api:os-assisted-volume-snapshots:create",
            create,
        ),
        delete(
            "/v2.1/os-assisted-volume-snapshots/{id}",
            "os_compute_api:os-assisted-volume-snapshots:delete",
            remove,
        ),
    ]
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let given = checked(&request, &CREATE)?["snapshot"].clone();
    let volume_id = given["volume_id"].as_str().unwrap_or_default();
    check_volume(&nova, volume_id, None).await?;
    let snapshot_id = given["create_info"]["snapshot_id"].as_str().unwrap_or_default();
    tell_cinder(&nova, &request, snapshot_id, "error").await;
    Ok(Reply::ok(json!({"snapshot": {"id": given["create_info"]["id"], "volumeId": volume_id}})))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    request.can(&json!({}))?;
    let given = request.query.get("delete_info").ok_or_else(|| missing("delete_info"))?;
    let not_json = |_| Error::bad_request("Expecting value: line 1 column 1 (char 0)");
    let info: Json = serde_json::from_str(given).map_err(not_json)?;
    let volume_id = info["volume_id"].as_str().ok_or_else(|| missing("volume_id"))?;
    let merges = !info["merge_target_file"].is_null();
    check_volume(&nova, volume_id, merges.then_some(VmState::Active)).await?;
    tell_cinder(&nova, &request, request.param("id"), "error_deleting").await;
    Ok(Reply::no_content())
}

fn missing(key: &str) -> Error {
    Error::bad_request(format!("'{key}'"))
}

/// One server has the volume, and has nothing else to do.
async fn check_volume(nova: &Nova, volume_id: &str, state: Option<VmState>) -> Result<()> {
    let wanted = List::all().eq("volume_id", volume_id);
    let held = nova.read(move |tx| tx.list::<BlockDevice>(&wanted)).await?;
    let device = match held.as_slice() {
        [] => {
            return Err(Error::bad_request(format!("No volume Block Device Mapping with id {volume_id}.")));
        }
        [one] => one.instance_uuid.clone(),
        _ => {
            return Err(Error::bad_request(format!(
                "Block Device Mapping {volume_id} is a multi-attach volume and is not valid for this operation."
            )));
        }
    };
    let instance = nova.read(move |tx| store::instance(tx, &device)).await?;
    let states = state.map_or_else(|| VmState::ALL.to_vec(), |state| vec![state]);
    let fits = super::server_actions::host_of(&instance)
        .map(drop)
        .and_then(|()| check_state(&instance, &states, &[], "volume_snapshot"));
    fits.map_err(|error| Error::bad_request(error.message))
}

/// A snapshot that cinder does not know is none to tell of.
async fn tell_cinder(nova: &Nova, request: &Request, snapshot_id: &str, status: &str) {
    let path = format!("/v3/{}/snapshots/{snapshot_id}/action", request.ctx.project_id);
    let body = json!({"os-update_snapshot_status": {"status": status}});
    let told = nova.peers.apis.volume.call(&request.ctx, "POST", &path, Some(&body)).await;
    tracing::warn!(snapshot_id, status, ?told, "no file to take a snapshot of");
}

static QUERY: Form = Form::new(|| query("2.74", "2.75", json!({"delete_info": texts()})));

static CREATE: Form = Form::new(|| {
    let text = json!({"type": "string", "minLength": 1});
    json!({
        "type": "object",
        "properties": {"snapshot": {
            "type": "object",
            "properties": {
                "volume_id": text,
                "create_info": {
                    "type": "object",
                    "properties": {
                        "snapshot_id": text,
                        "type": {"type": "string", "enum": ["qcow2"]},
                        "new_file": text,
                        "id": text,
                    },
                    "required": ["snapshot_id", "type", "new_file"],
                    "additionalProperties": false,
                },
            },
            "required": ["volume_id", "create_info"],
            "additionalProperties": false,
        }},
        "required": ["snapshot"],
        "additionalProperties": false,
    })
});
