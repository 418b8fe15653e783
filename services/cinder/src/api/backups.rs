//! Backups: create, list, show, update, delete, restore; their records for other clouds.

use super::{bare, body, flag, hide, links, lists, of_project, text, texts, trimmed};
use crate::{
    Cinder,
    backups::{self, Wanted, backup_not_found},
    errors::volume_not_found,
    model::*,
    requests, schemas,
};
use base::{Error, ErrorKind, Json, Result};
use contracts::agents::volume::SavedBackup;
use db::Resource;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, action, delete, get, post, put};

const ONE: &str = "/v3/backups/{backup_id}";
const ACTION: &str = "/v3/backups/{backup_id}/action";

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/backups", "backup:get_all", list),
        get("/v3/backups/detail", "backup:get_all", list_detail),
        post("/v3/backups", "backup:create", create),
        post("/v3/backups/import_record", "backup:backup-import", import_record),
        get(ONE, "backup:get", show),
        put(ONE, "backup:update", update).since(3, 9),
        delete(ONE, "backup:delete", remove),
        post("/v3/backups/{backup_id}/restore", "backup:restore", restore),
        get("/v3/backups/{backup_id}/export_record", "backup:export-import", export_record),
        action(ACTION, "os-reset_status", "volume_extension:backup_admin_actions:reset_status", reset_status),
        action(ACTION, "os-force_delete", "volume_extension:backup_admin_actions:force_delete", force_delete),
    ]
}

const FILTERS: &[&str] = &["name", "status", "volume_id"];
const NAMES: lists::Names = &[("name", "display_name"), ("description", "display_description")];

async fn load(cinder: &Cinder, request: &Request) -> Result<Backup> {
    let (cx, id) = (request.ctx.clone(), request.param("backup_id").to_string());
    let backup = cinder.read(move |tx| backups::backup_for(tx, &cx, &id)).await?;
    let may_see = request.can_rule("backup:get", &of_project(&backup.project_id));
    may_see.map_err(|refusal| hide(refusal, backup_not_found(&backup.id)))?;
    request.can(&of_project(&backup.project_id))?;
    Ok(backup)
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, false).await
}

async fn list_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, true).await
}

async fn listed(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    // Sorting by name came late.
    let names = if request.since(3, 37) { NAMES } else { &NAMES[1..] };
    let page = lists::page(&request, &cinder.options, Backup::TABLE, names)?;
    let with_count = lists::with_count(&request)?;
    let Some(filters) = lists::conditions(&request, Backup::TABLE, NAMES, FILTERS)? else {
        return Ok(Reply::ok(json!({"backups": []})));
    };
    let wanted = page.clone();
    let (found, total, parents) = cinder
        .read(move |tx| {
            let (found, total) =
                lists::fetch::<Backup>(tx, &wanted, &filters, None, |one| one.id.as_str(), backup_not_found)?;
            let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
            let parents = crate::store::parents_among(tx, &ids)?;
            Ok((found, total, parents))
        })
        .await?;
    let view = |one: &Backup| match detail {
        true => detailed(&request, one, &parents),
        false => summary(&request, one),
    };
    let shown = found.iter().map(view).collect();
    Ok(lists::answer(&request, "backups", detail, &page, shown, with_count.then_some(total)))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let form = match request.version() {
        version if version >= base::Version(3, 51) => &schemas::BACKUP_CREATE_V351,
        version if version >= base::Version(3, 43) => &schemas::BACKUP_CREATE_V343,
        _ => &schemas::BACKUP_CREATE,
    };
    let given = body(&request, form, "backup")?;
    let wanted = Wanted {
        volume_id: text(&given, "volume_id").unwrap_or_default().to_string(),
        snapshot_id: text(&given, "snapshot_id").map(String::from),
        name: trimmed(&given, "name"),
        description: trimmed(&given, "description"),
        container: text(&given, "container").map(String::from),
        incremental: given.get("incremental").is_some_and(flag),
        force: given.get("force").is_some_and(flag),
        availability_zone: text(&given, "availability_zone").map(String::from),
        metadata: texts(given.get("metadata")),
    };
    let (cx, id) = (request.ctx.clone(), wanted.volume_id.clone());
    let volume = cinder.read(move |tx| requests::volume_for(tx, &cx, &id)).await?;
    let may_see = request.can_rule("volume:get", &of_project(&volume.project_id));
    may_see.map_err(|refusal| hide(refusal, volume_not_found(&volume.id)))?;
    request.can(&of_project(&volume.project_id))?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let backup = cinder.write(move |tx| backups::create(&own, tx, &cx, &wanted)).await?;
    Ok(Reply::accepted(json!({"backup": summary(&request, &backup)})))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let backup = load(&cinder, &request).await?;
    let id = backup.id.clone();
    let parents = cinder.read(move |tx| crate::store::parents_among(tx, &[&id])).await?;
    Ok(Reply::ok(json!({"backup": detailed(&request, &backup, &parents)})))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let form = if request.since(3, 43) { &schemas::BACKUP_UPDATE_V343 } else { &schemas::BACKUP_UPDATE };
    let given = body(&request, form, "backup")?;
    let backup = load(&cinder, &request).await?;
    let now = cinder.clock.now();
    let backup = cinder
        .write(move |tx| {
            backups::change(tx, &backup.id, now, |backup| {
                if given.contains_key("name") {
                    backup.display_name = trimmed(&given, "name");
                }
                if given.contains_key("description") {
                    backup.display_description = trimmed(&given, "description");
                }
                if given.contains_key("metadata") {
                    backup.metadata.0 = texts(given.get("metadata"));
                }
            })?;
            tx.find::<Backup>(&backup.id)?.ok_or_else(|| backup_not_found(&backup.id))
        })
        .await?;
    Ok(Reply::ok(json!({"backup": summary(&request, &backup)})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    deleted(cinder, request, false).await
}

async fn force_delete(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    deleted(cinder, request, true).await.map(|_| super::no_body(StatusCode::ACCEPTED))
}

async fn deleted(cinder: Arc<Cinder>, request: Request, force: bool) -> Result<Reply> {
    let backup = load(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| backups::delete(&own, tx, &cx, &backup.id, force)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn restore(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::RESTORE, "restore")?;
    let backup = load(&cinder, &request).await?;
    let (volume_id, name) = (text(&given, "volume_id").map(String::from), trimmed(&given, "name"));
    let (own, cx, id) = (cinder.clone(), request.ctx.clone(), backup.id.clone());
    let restored = cinder
        .write(move |tx| backups::restore(&own, tx, &cx, &id, volume_id.as_deref(), name.clone()))
        .await?;
    let shown = json!({
        "backup_id": backup.id, "volume_id": restored.volume_id, "volume_name": restored.volume_name,
    });
    Ok(Reply::accepted(json!({"restore": shown})))
}

async fn export_record(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let backup = load(&cinder, &request).await?;
    let record = json!({"backup_service": backups::SERVICE, "backup_url": backups::record(&backup)?});
    Ok(Reply::ok(json!({"backup-record": record})))
}

/// Of a backup that is where the back ends look for backups.
async fn import_record(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::IMPORT_RECORD, "backup-record")?;
    request.can(&of_project(&request.ctx.project_id))?;
    let word = |key: &str| text(&given, key).unwrap_or_default();
    let recorded = backups::read_record(word("backup_service"), word("backup_url"))?;
    let own = cinder.clone();
    let hosts = cinder.read(move |tx| backups::hosts(&own, tx)).await?;
    let (host, saved) = find(&cinder, &request, hosts, &recorded.stored_as).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let backup =
        cinder.write(move |tx| backups::import(&own, tx, &cx, &recorded, &host, saved.bytes)).await?;
    Ok(Reply::json(StatusCode::CREATED, json!({"backup": summary(&request, &backup)})))
}

/// The first back end that sees the backup.
async fn find(
    cinder: &Cinder,
    request: &Request,
    hosts: Vec<String>,
    stored_as: &str,
) -> Result<(String, SavedBackup)> {
    let mut last = backups::invalid_backup("nobody looked for it");
    for host in hosts {
        match cinder.agent(&host).saved_backup(&cinder.own(&request.ctx), stored_as).await {
            Ok(saved) => return Ok((host, saved)),
            Err(error) if error.is(ErrorKind::NotFound) => {
                last = backups::invalid_backup(error.message.as_str());
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// An administrator says what a backup is; nothing is done to what it holds.
async fn reset_status(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::RESET_STATUS_BACKUP, "os-reset_status")?;
    let word = text(&given, "status").unwrap_or_default();
    let status = match word.to_lowercase().as_str() {
        "available" => BackupStatus::Available,
        "error" => BackupStatus::Error,
        _ => {
            return Err(Error::bad_request(format!(
                "Backup status: {word} is invalid, valid statuses are: ['available', 'error']."
            )));
        }
    };
    let backup = load(&cinder, &request).await?;
    let now = cinder.clock.now();
    cinder.write(move |tx| backups::change(tx, &backup.id, now, |backup| backup.status = status)).await?;
    Ok(super::no_body(StatusCode::ACCEPTED))
}

fn summary(request: &Request, backup: &Backup) -> Json {
    json!({
        "id": backup.id,
        "name": backup.display_name,
        "links": links(request, "backups", &backup.id),
    })
}

fn detailed(request: &Request, backup: &Backup, parents: &BTreeSet<String>) -> Json {
    let mut shown = summary(request, backup);
    let mut add = |key: &str, value: Json| shown[key] = value;
    add("status", backup.status.as_str().into());
    add("size", backup.size.into());
    add("object_count", backup.object_count.into());
    add("availability_zone", json!(backup.availability_zone));
    add("container", json!(backup.container));
    add("created_at", backup.created_at.micros().into());
    add("updated_at", json!(backup.updated_at.map(|time| time.micros())));
    add("description", json!(backup.display_description));
    add("fail_reason", json!(backup.fail_reason));
    add("volume_id", backup.volume_id.as_str().into());
    add("is_incremental", backup.parent_id.is_some().into());
    add("has_dependent_backups", parents.contains(&backup.id).into());
    add("snapshot_id", json!(backup.snapshot_id));
    add("data_timestamp", backup.data_timestamp.micros().into());
    if request.since(3, 43) {
        add("metadata", json!(backup.metadata.0));
    }
    if request.may("backup:backup_project_attribute", &of_project(&backup.project_id)) {
        if request.since(3, 18) {
            add("os-backup-project-attr:project_id", backup.project_id.as_str().into());
        }
        if request.since(3, 56) {
            add("user_id", backup.user_id.as_str().into());
        }
    }
    shown
}
