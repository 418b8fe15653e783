//! Attachments: how nova, and whoever else connects volumes to servers, does it since 3.27.

use super::{body, lists, no_body, of_project, text};
use crate::{
    Cinder, errors::attachment_not_found, model::*, requests, schemas, store, volumes::attachment_for,
};
use base::{Error, ErrorKind, Json, Result, id};
use db::Resource;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action, delete, get, post, put};

pub fn routes() -> Routes<Cinder> {
    // Upstream asks no rule of its own for reading attachments; that of their volumes is meant.
    vec![
        get("/v3/attachments", "volume:get_all", list),
        get("/v3/attachments/detail", "volume:get_all", list_detail),
        post("/v3/attachments", "volume:attachment_create", create),
        get("/v3/attachments/{attachment_id}", "volume:get", show),
        put("/v3/attachments/{attachment_id}", "volume:attachment_update", update),
        delete("/v3/attachments/{attachment_id}", "volume:attachment_delete", remove),
        action(
            "/v3/attachments/{attachment_id}/action",
            "os-complete",
            "volume:attachment_complete",
            complete,
        )
        .since(3, 44),
    ]
    .into_iter()
    .map(|route| if route.since.is_none() { route.since(3, 27) } else { route })
    .collect()
}

const FILTERS: &[&str] = &["volume_id", "status", "instance_id", "attach_status"];
const NAMES: lists::Names = &[("status", "attach_status"), ("instance_id", "instance_uuid")];

async fn load(cinder: &Cinder, request: &Request) -> Result<Attachment> {
    let (cx, id) = (request.ctx.clone(), request.param("attachment_id").to_string());
    let attachment = cinder.read(move |tx| attachment_for(tx, &cx, &id)).await?;
    request.can(&of_project(&attachment.project_id))?;
    Ok(attachment)
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, false).await
}

async fn list_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, true).await
}

async fn listed(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, Attachment::TABLE, NAMES)?;
    let Some(filters) = lists::conditions(&request, Attachment::TABLE, NAMES, FILTERS)? else {
        return Ok(Reply::ok(json!({"attachments": []})));
    };
    let (found, _) = cinder
        .read(move |tx| {
            lists::fetch::<Attachment>(tx, &page, &filters, None, |one| one.id.as_str(), attachment_not_found)
        })
        .await?;
    let view = |one: &Attachment| if detail { detailed(one) } else { summary(one) };
    Ok(Reply::ok(json!({"attachments": found.iter().map(view).collect::<Vec<_>>()})))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let with_mode = request.since(3, 54);
    let form = if with_mode { &schemas::ATTACHMENT_CREATE_V354 } else { &schemas::ATTACHMENT_CREATE };
    let given = body(&request, form, "attachment")?;
    let volume_id = text(&given, "volume_uuid").unwrap_or_default().to_string();
    let (cx, id) = (request.ctx.clone(), volume_id.clone());
    let volume = cinder.read(move |tx| requests::volume_for(tx, &cx, &id)).await?;
    request.can(&of_project(&volume.project_id))?;
    if volume.multiattach && volume.status == VolumeStatus::InUse && volume.bootable {
        request.can_rule("volume:multiattach_bootable_volume", &of_project(&volume.project_id))?;
    }
    let server = text(&given, "instance_uuid").map(String::from);
    let mode = text(&given, "mode").unwrap_or("null").to_string();
    let (own, attachment_id) = (cinder.clone(), id::uuid());
    let reserved = attachment_id.clone();
    cinder
        .write(move |tx| requests::reserve(&own, tx, &volume_id, &reserved, server.as_deref(), &mode))
        .await?;
    if let Some(connector) = given.get("connector").filter(|connector| connector.is_object()) {
        let connected = cinder.connect_and_wait(&request.ctx, &attachment_id, connector.clone()).await;
        connected.map_err(|error| not_connected("create attachment for volume", error))?;
    }
    let attachment = cinder.read(move |tx| store::attachment(tx, &attachment_id)).await?;
    Ok(Reply::ok(json!({"attachment": detailed(&attachment)})))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let attachment = load(&cinder, &request).await?;
    Ok(Reply::ok(json!({"attachment": detailed(&attachment)})))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ATTACHMENT_UPDATE, "attachment")?;
    let attachment = load(&cinder, &request).await?;
    let connector = given.get("connector").cloned().unwrap_or_default();
    let connected = cinder.connect_and_wait(&request.ctx, &attachment.id, connector).await;
    connected.map_err(|error| not_connected("update attachment", error))?;
    let attachment = cinder.read(move |tx| store::attachment(tx, &attachment.id)).await?;
    Ok(Reply::ok(json!({"attachment": detailed(&attachment)})))
}

/// What the back end refuses is the operator's to mend, says upstream's status; the reason stands in the log and in
/// the volume's messages.
fn not_connected(verb: &str, error: Error) -> Error {
    match error.kind {
        ErrorKind::BadRequest | ErrorKind::Forbidden | ErrorKind::NotFound => error,
        _ => Error::internal(format!("Unable to {verb} ({}).", error.message)).cause(error),
    }
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let attachment = load(&cinder, &request).await?;
    check_unused(&cinder, &request, &attachment).await?;
    cinder.disconnect_and_wait(&request.ctx, &attachment.id, false).await?;
    let left = cinder.read(move |tx| store::attachments(tx, &attachment.volume_id)).await?;
    Ok(Reply::ok(json!({"attachments": left.iter().map(summary).collect::<Vec<_>>()})))
}

/// A volume that a server has leaves it through nova alone: else its guest went on with what is another's by then.
/// Who asks as a service knows what he does.
pub async fn check_unused(cinder: &Cinder, request: &Request, attachment: &Attachment) -> Result<()> {
    let by_service = request.ctx.service_roles.iter().any(|role| role == "service");
    let (Some(server_id), Some(servers)) = (&attachment.instance_uuid, cinder.servers()) else {
        return Ok(());
    };
    if by_service || attachment.connection.is_none() {
        return Ok(());
    }
    let own = cinder.own(&request.ctx);
    match servers.attachment(&own, server_id, &attachment.volume_id).await? {
        Some(id) if id == attachment.id => {
            Err(Error::conflict(format!("Detach volume from instance {server_id} using the Compute API")))
        }
        _ => Ok(()),
    }
}

async fn complete(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let attachment = load(&cinder, &request).await?;
    let own = cinder.clone();
    cinder.write(move |tx| requests::complete(&own, tx, &attachment.id)).await?;
    Ok(no_body(StatusCode::NO_CONTENT))
}

fn summary(attachment: &Attachment) -> Json {
    json!({
        "id": attachment.id,
        "status": attachment.attach_status.as_str(),
        "instance": attachment.instance_uuid,
        "volume_id": attachment.volume_id,
    })
}

fn detailed(attachment: &Attachment) -> Json {
    let mut body = summary(attachment);
    body["attached_at"] = attachment.attach_time.map_or_else(String::new, |time| time.micros()).into();
    body["detached_at"] = attachment.detach_time.map_or_else(String::new, |time| time.micros()).into();
    body["attach_mode"] = attachment.attach_mode.as_str().into();
    body["connection_info"] = connection_info(attachment);
    body
}

/// Upstream shows the driver's data at the top, with the kind of driver beside it.
fn connection_info(attachment: &Attachment) -> Json {
    let Some(connection) = &attachment.connection else { return json!({}) };
    let told = serde_json::to_value(&connection.0).unwrap_or_default();
    let mut info = told["data"].clone();
    info["driver_volume_type"] = told["driver_volume_type"].clone();
    info["access_mode"] = if attachment.attach_mode == "ro" { "ro" } else { "rw" }.into();
    info["attachment_id"] = attachment.id.as_str().into();
    info["volume_id"] = attachment.volume_id.as_str().into();
    info["encrypted"] = false.into();
    info["qos_specs"] = Json::Null;
    info
}
