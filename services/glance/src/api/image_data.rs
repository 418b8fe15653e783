//! An image's bytes: up, down, and aside to be imported. They stream; only a chunk at a time is in memory.

use super::detailed;
use crate::{
    Glance,
    bytes::{Arrived, Facts, Upload},
    model::{Image, Status},
    quotas::{self, Quota},
    signatures::{self, Verifier},
    store,
    stores::Store,
    web_download,
};
use axum::body::Body;
use base::{Error, Result};
use db::{Filter, Stored};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, StatusCode, get, put};

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/images/{image_id}/file", "download_image", download),
        put("/v2/images/{image_id}/file", "upload_image", upload).marks(&[Mark::Stream]),
        put("/v2/images/{image_id}/stage", "modify_image", stage).marks(&[Mark::Stream]),
    ]
}

const BYTES: &str = "application/octet-stream";

fn check_media_type(request: &Request) -> Result<()> {
    let given = request.header("content-type").unwrap_or_default();
    match given.split(';').next().unwrap_or_default().trim() {
        BYTES => Ok(()),
        other => Err(detailed(Error::unsupported_media_type(format!("Invalid content type {other}")))),
    }
}

async fn upload(glance: Arc<Glance>, mut request: Request) -> Result<Reply> {
    check_media_type(&request)?;
    let (whole, _) = glance.allowed(&request).await?;
    let image = whole.image.clone();
    let (Some(disk_format), Some(container_format)) =
        (image.disk_format.clone(), image.container_format.clone())
    else {
        let mut unset = Vec::new();
        if image.disk_format.is_none() {
            unset.push("disk_format");
        }
        if image.container_format.is_none() {
            unset.push("container_format");
        }
        return Err(Error::bad_request(format!(
            "Properties {} must be set prior to saving data.",
            unset.join(", ")
        )));
    };
    if image.status != Status::Queued {
        return Err(not_allowed(image.status, Status::Saving));
    }
    let unknown = |error: Error| Error::bad_request(error.message);
    let store = match request.header("x-image-meta-store") {
        Some(id) => glance.stores.asked(id).map_err(unknown)?.id.clone(),
        None => glance.stores.default().id.clone(),
    };
    let wanted = [(quotas::SIZE_TOTAL, announced(&request)), (quotas::COUNT_UPLOADING, 0)];
    let quota = glance.quota(&request.ctx, &wanted).await?;
    let verifier = signatures::verifier(&glance, &request.ctx, &whole).await?;
    let said = Said { image_id: image.id, disk_format, container_format, store, verifier, quota };
    to_its_end(take(glance, said, request.stream())).await?;
    Ok(super::nothing())
}

/// MiB that the body is said to have.
fn announced(request: &Request) -> u64 {
    let length = request.header("content-length").and_then(|text| text.parse().ok());
    quotas::mib(length.unwrap_or(0))
}

/// On a task of its own: a client that goes away takes the handler with it, but not what sets the image right again.
async fn to_its_end(work: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    tokio::spawn(work).await.map_err(|e| Error::internal(e.to_string()))?
}

/// What is said of bytes before they come.
struct Said {
    image_id: String,
    disk_format: String,
    container_format: String,
    store: String,
    verifier: Option<Verifier>,
    quota: Quota,
}

async fn take(glance: Arc<Glance>, said: Said, body: Body) -> Result<()> {
    let Said { image_id, disk_format, container_format, store, verifier, quota } = said;
    // The claim goes to the disk while the bytes come.
    let claim = turn(&glance, &image_id, &[Status::Queued], Status::Saving, quota);
    let (claimed, received) = tokio::join!(claim, async {
        let mut incoming = glance.stores.begin(glance.stores.asked(&store)?)?;
        incoming.verified_by(verifier);
        let incoming = receive(&glance, incoming, body).await?;
        incoming.finish(&disk_format, &container_format, &glance.options).await
    });
    claimed?;
    let kept = async { keep(&glance, &image_id, glance.stores.asked(&store)?, received?).await };
    match kept.await {
        Ok(facts) => activate(&glance, &image_id, Status::Saving, facts, &store).await,
        Err(error) => {
            turn_back(&glance, &image_id, Status::Saving).await;
            Err(error)
        }
    }
}

/// The image waits for other bytes. It may have been deleted meanwhile.
pub async fn turn_back(glance: &Glance, image_id: &str, from: Status) {
    let (id, now) = (image_id.to_string(), glance.clock.now());
    let process = glance.processes.owner().to_string();
    let turned = glance.db.write(move |tx| store::wait_for_other_bytes(tx, &id, from, &process, now));
    match turned.await {
        Ok(true) => {}
        other => tracing::info!(image = image_id, ?other, "image not put back to queued"),
    }
}

/// Hands bytes to a store that came for an image, if it is still this process that takes them.
pub async fn keep(glance: &Glance, image_id: &str, store: &Store, arrived: Arrived) -> Result<Facts> {
    let (id, process) = (image_id.to_string(), glance.processes.owner().to_string());
    match glance.db.read(move |tx| store::takes(tx, &id, &process)).await? {
        true => store.backend.keep(image_id, arrived).await,
        false => Err(gone(image_id)),
    }
}

fn gone(image_id: &str) -> Error {
    Error::gone(format!(
        "Image {image_id} could not be found after upload. The image may have been deleted during the upload."
    ))
}

async fn receive(glance: &Glance, mut incoming: Upload, body: Body) -> Result<Upload> {
    let chunks = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let cut_off = |error: Error| match error.is(base::ErrorKind::Unavailable) {
        true => Error::bad_request(format!("The upload was cut off: {}", error.message)),
        false => error,
    };
    web_download::take(chunks, &mut incoming, &glance.options).await.map_err(cut_off)?;
    Ok(incoming)
}

/// From one of these states to another, in which this process takes its bytes; `Conflict` from any other.
pub async fn turn(
    glance: &Glance,
    image_id: &str,
    from: &'static [Status],
    to: Status,
    quota: Quota,
) -> Result<()> {
    let (id, now) = (image_id.to_string(), glance.clock.now());
    let process = glance.processes.owner().to_string();
    glance
        .db
        .write(move |tx| {
            let known = [Filter::eq("id", &*id), Filter::any("status", from.iter().copied())];
            let changes = [("status", to.store()), ("process", process.store()), ("updated_at", now.store())];
            quota.check(tx)?;
            if tx.set::<Image>(&known, &changes)? > 0 {
                return Ok(());
            }
            match tx.find::<Image>(&id)? {
                None => Err(store::missing(&id)),
                Some(image) => Err(not_allowed(image.status, to)),
            }
        })
        .await
}

pub fn not_allowed(from: Status, to: Status) -> Error {
    Error::conflict(format!("Image status transition from {from} to {to} is not allowed"))
}

/// The bytes are in place: now the image is there. If it was deleted meanwhile, they go.
pub async fn activate(
    glance: &Glance,
    image_id: &str,
    from: Status,
    facts: Facts,
    stores: &str,
) -> Result<()> {
    let (id, stores, now) = (image_id.to_string(), stores.to_string(), glance.clock.now());
    let process = glance.processes.owner().to_string();
    let is_nobodys = glance
        .db
        .write(move |tx| {
            let mut changes = vec![
                ("status", Status::Active.store()),
                ("size", (facts.size as i64).store()),
                ("virtual_size", facts.virtual_size.map(|bytes| bytes as i64).store()),
                ("checksum", facts.md5.store()),
                ("os_hash_algo", "sha512".store()),
                ("os_hash_value", facts.sha512.store()),
                ("stores", stores.store()),
                ("process", Option::<String>::None.store()),
                ("stage_host", Option::<String>::None.store()),
                ("updated_at", now.store()),
            ];
            if let Some((disk_format, container_format)) = &facts.formats {
                changes.push(("disk_format", disk_format.store()));
                changes.push(("container_format", container_format.store()));
            }
            let known =
                [Filter::eq("id", &*id), Filter::eq("status", from), Filter::eq("process", &*process)];
            if tx.set::<Image>(&known, &changes)? > 0 {
                return Ok(None);
            }
            // Others may have begun anew where this process was taken for dead.
            let is_nobodys = |image: Image| match image.status {
                Status::PendingDelete => true,
                _ => image.stores.is_none() && image.process.is_none(),
            };
            Ok(Some(tx.find::<Image>(&id)?.is_none_or(is_nobodys)))
        })
        .await?;
    match is_nobodys {
        None => Ok(()),
        Some(is_nobodys) => {
            if is_nobodys {
                glance.stores.remove(image_id).await?;
            }
            Err(gone(image_id))
        }
    }
}

async fn stage(glance: Arc<Glance>, mut request: Request) -> Result<Reply> {
    check_media_type(&request)?;
    let (whole, _) = glance.allowed(&request).await?;
    let wanted = [(quotas::STAGE_TOTAL, announced(&request)), (quotas::COUNT_UPLOADING, 0)];
    let quota = glance.quota(&request.ctx, &wanted).await?;
    to_its_end(take_aside(glance, whole.image.id, request.stream(), quota)).await?;
    Ok(super::nothing())
}

async fn take_aside(glance: Arc<Glance>, image_id: String, body: Body, quota: Quota) -> Result<()> {
    turn(&glance, &image_id, &[Status::Queued], Status::Uploading, quota).await?;
    let staged = async {
        let staged = &glance.stores.staged;
        let incoming = receive(&glance, staged.begin()?, body).await?;
        incoming.finish_unseen().await?.move_to(&staged.path(&image_id)).await
    };
    let size = match staged.await {
        Ok(facts) => facts.size as i64,
        Err(error) => {
            turn_back(&glance, &image_id, Status::Uploading).await;
            return Err(error);
        }
    };
    let process = glance.processes.owner();
    let known = [
        Filter::eq("id", &*image_id),
        Filter::eq("status", Status::Uploading),
        Filter::eq("process", process),
    ];
    let host = Some(glance.node()).filter(|host| !host.is_empty());
    let changes =
        [("size", size.store()), ("stage_host", host.store()), ("process", Option::<String>::None.store())];
    let changed = glance.db.write(move |tx| tx.set::<Image>(&known, &changes)).await?;
    if changed == 0 {
        // Deleted meanwhile.
        glance.stores.staged.remove(&image_id)?;
        return Err(store::missing(&image_id));
    }
    Ok(())
}

async fn download(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (whole, target) = glance.image(&request).await?;
    let image = &whole.image;
    if image.status == Status::Deactivated && !request.ctx.is_admin() {
        request.can(&target)?;
        return Err(Error::forbidden(
            "The requested image has been deactivated. Image data download is forbidden.",
        ));
    }
    request.can(&target)?;
    let bytes_there = matches!(image.status, Status::Active | Status::Deactivated);
    let (true, Some(size)) = (bytes_there, image.size.and_then(|size| u64::try_from(size).ok())) else {
        return Ok(Reply::no_content());
    };
    let range = match request.header("range").or(request.header("content-range")) {
        Some(text) => range(text, size)?,
        None => None,
    };
    let (start, end) = range.unwrap_or((0, size));
    let chunks = glance.read_image(&whole, start..end).await?;
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut reply = Reply::body(status, BYTES, Body::from_stream(chunks))
        .header("content-length", (end - start).to_string());
    if let Some(checksum) = image.checksum.clone() {
        reply = reply.header("content-md5", checksum);
    }
    if range.is_some() {
        reply = reply.header("content-range", format!("bytes {start}-{}/{size}", end - 1));
    }
    Ok(reply)
}

/// `bytes=5-9`, `bytes=5-`, `bytes=-5`: where it begins and ends; none for what is not understood.
fn range(text: &str, size: u64) -> Result<Option<(u64, u64)>> {
    let last = size.saturating_sub(1);
    let outside = || {
        detailed(Error::range_not_satisfiable(format!(
            "Invalid start position in Range header. Start position MUST be in the inclusive range [0, {last}]."
        )))
    };
    let Some(spec) = text.trim().strip_prefix("bytes").map(|rest| rest.trim_start_matches(['=', ' '])) else {
        return Ok(None);
    };
    let spec = spec.split('/').next().unwrap_or(spec);
    let Some((first, end)) = spec.split_once('-') else { return Ok(None) };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (number(first), number(end)) {
        (Some(start), _) if start >= size => Err(outside()),
        (Some(start), Some(end)) if end < start => {
            Err(detailed(Error::range_not_satisfiable("The Range requested is not available.")))
        }
        (Some(start), Some(end)) => Ok(Some((start, end.min(last) + 1))),
        (Some(start), None) => Ok(Some((start, size))),
        (None, Some(count)) if count > 0 => Ok(Some((size.saturating_sub(count), size))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=5-9", Some((5, 10))),
            ("bytes=5-", Some((5, 22))),
            ("bytes=-5", Some((17, 22))),
            ("bytes=0-900", Some((0, 22))),
            ("bytes 5-9/22", Some((5, 10))),
            ("lines=1-2", None),
            ("bytes=x", None),
        ] {
            assert_eq!(range(text, 22).unwrap(), expected, "{text}");
        }
        assert!(range("bytes=22-23", 22).is_err());
        assert!(range("bytes=9-5", 22).is_err());
    }
}
