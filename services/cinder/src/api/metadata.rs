//! Users' own key-value pairs on volumes and snapshots: the same calls for both.

use super::{bare, body, of_project, texts, volumes};
use crate::{Cinder, errors::invalid_volume, model::*, requests::snapshot_for, schemas, store};
use base::{Error, Result};
use db::Tx;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/volumes/{volume_id}/metadata", "volume:get_volume_metadata", list),
        post("/v3/volumes/{volume_id}/metadata", "volume:create_volume_metadata", add),
        put("/v3/volumes/{volume_id}/metadata", "volume:update_volume_metadata", replace),
        get("/v3/volumes/{volume_id}/metadata/{key}", "volume:get_volume_metadata", show),
        put("/v3/volumes/{volume_id}/metadata/{key}", "volume:update_volume_metadata", set),
        delete("/v3/volumes/{volume_id}/metadata/{key}", "volume:delete_volume_metadata", remove),
        get("/v3/snapshots/{snapshot_id}/metadata", "volume:get_snapshot_metadata", list),
        post("/v3/snapshots/{snapshot_id}/metadata", "volume:update_snapshot_metadata", add),
        put("/v3/snapshots/{snapshot_id}/metadata", "volume:update_snapshot_metadata", replace),
        get("/v3/snapshots/{snapshot_id}/metadata/{key}", "volume:get_snapshot_metadata", show),
        put("/v3/snapshots/{snapshot_id}/metadata/{key}", "volume:update_snapshot_metadata", set),
        delete("/v3/snapshots/{snapshot_id}/metadata/{key}", "volume:delete_snapshot_metadata", remove),
    ]
}

type Pairs = BTreeMap<String, String>;

/// A volume or a snapshot that the caller may do this to.
#[derive(Clone)]
enum Owner {
    Volume(String),
    Snapshot(String),
}

impl Owner {
    async fn permitted(cinder: &Cinder, request: &Request) -> Result<(Self, Pairs)> {
        if !request.param("volume_id").is_empty() {
            let volume = volumes::load(cinder, request).await?;
            request.can(&of_project(&volume.project_id))?;
            return Ok((Self::Volume(volume.id), volume.metadata.0));
        }
        let (cx, id) = (request.ctx.clone(), request.param("snapshot_id").to_string());
        let snapshot = cinder.read(move |tx| snapshot_for(tx, &cx, &id)).await?;
        request.can(&of_project(&snapshot.project_id))?;
        Ok((Self::Snapshot(snapshot.id), snapshot.metadata.0))
    }

    fn has_no_key(&self, key: &str) -> Error {
        Error::not_found(match self {
            Self::Volume(id) => format!("Volume {id} has no metadata with key {key}."),
            Self::Snapshot(id) => format!("Snapshot {id} has no metadata with key {key}."),
        })
    }

    fn change(
        &self,
        cinder: &Cinder,
        tx: &mut Tx,
        verb: &str,
        change: impl FnOnce(&mut Pairs),
    ) -> Result<Pairs> {
        let now = cinder.clock.now();
        let mut after = Pairs::new();
        match self {
            Self::Volume(id) => {
                let status = store::volume(tx, id)?.status;
                if matches!(status, VolumeStatus::Maintenance | VolumeStatus::Uploading) {
                    return Err(invalid_volume(format!(
                        "{verb} volume metadata is not allowed for volumes in {status} status."
                    )));
                }
                store::change(tx, id, now, |volume| {
                    change(&mut volume.metadata.0);
                    after = volume.metadata.0.clone();
                })?;
            }
            Self::Snapshot(id) => {
                store::change_snapshot(tx, id, now, |snapshot| {
                    change(&mut snapshot.metadata.0);
                    after = snapshot.metadata.0.clone();
                })?;
            }
        }
        Ok(after)
    }
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let (owner, metadata) = Owner::permitted(&cinder, &request).await?;
    let reply = Reply::ok(json!({"metadata": metadata}));
    Ok(match owner {
        // A bare webob response, for it carries the tag by which lost updates are seen.
        Owner::Volume(_) if request.since(3, 15) => {
            reply.header("content-type", "text/html; charset=UTF-8").header("etag", tag(&metadata))
        }
        _ => reply,
    })
}

fn tag(metadata: &Pairs) -> String {
    let digest = Sha256::digest(json!({"metadata": metadata}).to_string());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether what the caller has seen is what is there.
fn check_tag(request: &Request, metadata: &Pairs) -> Result<()> {
    let Some(wanted) = request.header("if-match").filter(|_| request.since(3, 15)) else { return Ok(()) };
    let tag = tag(metadata);
    let matches = wanted
        .split(',')
        .any(|one| matches!(one.trim().trim_matches('"'), "*") || one.trim().trim_matches('"') == tag);
    match matches {
        true => Ok(()),
        false => Err(Error::precondition_failed("Precondition Failed")),
    }
}

async fn add(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = texts(Some(&body(&request, &schemas::METADATA, "metadata")?.into()));
    let (owner, _) = Owner::permitted(&cinder, &request).await?;
    let after = changed(&cinder, owner, "Updating", move |metadata| metadata.extend(given.clone())).await?;
    Ok(Reply::ok(json!({"metadata": after})))
}

async fn replace(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = texts(Some(&body(&request, &schemas::METADATA, "metadata")?.into()));
    let (owner, before) = Owner::permitted(&cinder, &request).await?;
    check_tag(&request, &before)?;
    let after = changed(&cinder, owner, "Updating", move |metadata| *metadata = given.clone()).await?;
    Ok(Reply::ok(json!({"metadata": after})))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let (owner, metadata) = Owner::permitted(&cinder, &request).await?;
    let key = request.param("key");
    let value = metadata.get(key).ok_or_else(|| owner.has_no_key(key))?;
    Ok(Reply::ok(json!({"meta": {key: value}})))
}

async fn set(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = texts(Some(&body(&request, &schemas::META, "meta")?.into()));
    let key = request.param("key").to_string();
    let value = given.get(&key).cloned();
    let value = value.ok_or_else(|| Error::bad_request("Request body and URI mismatch"))?;
    let (owner, before) = Owner::permitted(&cinder, &request).await?;
    check_tag(&request, &before)?;
    changed(&cinder, owner, "Updating", move |metadata| drop(metadata.insert(key.clone(), value.clone())))
        .await?;
    Ok(Reply::ok(json!({"meta": given})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let (owner, before) = Owner::permitted(&cinder, &request).await?;
    let key = request.param("key").to_string();
    if !before.contains_key(&key) {
        return Err(owner.has_no_key(&key));
    }
    changed(&cinder, owner, "Deleting", move |metadata| drop(metadata.remove(&key))).await?;
    Ok(bare(StatusCode::OK))
}

async fn changed(
    cinder: &Arc<Cinder>,
    owner: Owner,
    verb: &'static str,
    change: impl Fn(&mut Pairs) + Send + 'static,
) -> Result<Pairs> {
    let own = cinder.clone();
    cinder.write(move |tx| owner.change(&own, tx, verb, &change)).await
}
