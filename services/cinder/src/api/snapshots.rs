//! Snapshots: create, list, show, update, delete, and what administrators do to them.

use super::{bare, body, flag, hide, lists, no_body, of_project, text, texts, trimmed};
use crate::{
    Cinder,
    errors::{invalid_input, snapshot_not_found, volume_not_found},
    model::*,
    requests::{self, WantedSnapshot},
    schemas, store,
};
use base::{Error, Json, Result};
use db::{Filter, Resource};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action, delete, get, post, put};

const ACTION: &str = "/v3/snapshots/{snapshot_id}/action";

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/snapshots", "volume:get_all_snapshots", list),
        get("/v3/snapshots/detail", "volume:get_all_snapshots", list_detail),
        post("/v3/snapshots", "volume:create_snapshot", create),
        get("/v3/snapshots/{snapshot_id}", "volume:get_snapshot", show),
        put("/v3/snapshots/{snapshot_id}", "volume:update_snapshot", update),
        delete("/v3/snapshots/{snapshot_id}", "volume:delete_snapshot", remove),
        action(
            ACTION,
            "os-reset_status",
            "volume_extension:snapshot_admin_actions:reset_status",
            reset_status,
        ),
        action(
            ACTION,
            "os-force_delete",
            "volume_extension:snapshot_admin_actions:force_delete",
            force_delete,
        ),
        action(ACTION, "os-unmanage", "snapshot_extension:snapshot_unmanage", unmanage),
        action(
            ACTION,
            "os-update_snapshot_status",
            "snapshot_extension:snapshot_actions:update_snapshot_status",
            update_status,
        ),
    ]
}

const FILTERS: &[&str] = &["name", "status", "volume_id", "metadata", "availability_zone", "consumes_quota"];
const NAMES: lists::Names =
    &[("name", "display_name"), ("description", "display_description"), ("size", "volume_size")];

async fn load(cinder: &Cinder, request: &Request) -> Result<Snapshot> {
    let (cx, id) = (request.ctx.clone(), request.param("snapshot_id").to_string());
    let snapshot = cinder.read(move |tx| requests::snapshot_for(tx, &cx, &id)).await?;
    let may_see = request.can_rule("volume:get_snapshot", &of_project(&snapshot.project_id));
    may_see.map_err(|refusal| hide(refusal, snapshot_not_found(&snapshot.id)))?;
    request.can(&of_project(&snapshot.project_id))?;
    Ok(snapshot)
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, false).await
}

async fn list_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, true).await
}

async fn listed(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, Snapshot::TABLE, NAMES)?;
    let with_count = lists::with_count(&request)?;
    let Some((filters, metadata)) = conditions(&request)? else {
        return Ok(Reply::ok(json!({"snapshots": []})));
    };
    let wanted = page.clone();
    let (found, total) = cinder
        .read(move |tx| {
            let fits =
                |one: &Snapshot| metadata.iter().all(|(key, value)| one.metadata.get(key) == Some(value));
            let keep: Option<&(dyn Fn(&Snapshot) -> bool + Send)> =
                if metadata.is_empty() { None } else { Some(&fits) };
            lists::fetch::<Snapshot>(tx, &wanted, &filters, keep, |one| one.id.as_str(), snapshot_not_found)
        })
        .await?;
    let view = |one: &Snapshot| if detail { detailed(&request, one, true) } else { summary(one) };
    let shown = found.iter().map(view).collect();
    Ok(lists::answer(&request, "snapshots", detail, &page, shown, with_count.then_some(total)))
}

type Pairs = Vec<(String, String)>;

/// None when nothing can match.
fn conditions(request: &Request) -> Result<Option<(Vec<Filter>, Pairs)>> {
    let mut given = lists::filters(request);
    lists::allowed(request, &mut given, FILTERS)?;
    let everywhere = request.ctx.is_admin()
        && given.iter().any(|(key, value)| key == "all_tenants" && super::word_is_true(value));
    let mut filters = Vec::new();
    if !everywhere {
        filters.push(Filter::eq("project_id", &request.ctx.project_id));
    }
    let mut metadata = Vec::new();
    for (key, value) in &given {
        match key.as_str() {
            "all_tenants" => {}
            "metadata" if !request.since(3, 22) => {}
            "consumes_quota" if !request.since(3, 65) => {}
            "metadata" => match lists::pairs(value) {
                Some(pairs) => metadata = pairs,
                None => return Ok(None),
            },
            "consumes_quota" => {
                if !super::query_flag(request, "consumes_quota")? {
                    return Ok(None);
                }
            }
            other => match lists::condition(Snapshot::TABLE, NAMES, other, value) {
                Some(condition) => filters.push(condition),
                None => return Ok(None),
            },
        }
    }
    Ok(Some((filters, metadata)))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::SNAPSHOT_CREATE, "snapshot")?;
    let volume_id = text(&given, "volume_id").unwrap_or("None").to_string();
    let force = given.get("force").is_some_and(flag);
    let always = request.since(3, 66);
    if always && given.contains_key("force") && !force {
        return Err(invalid_input(
            "Since microversion 3.66, 'force' is an invalid parameter for this call: snapshots of in-use volumes are always allowed",
        ));
    }
    let (cx, id) = (request.ctx.clone(), volume_id.clone());
    let volume = cinder.read(move |tx| requests::volume_for(tx, &cx, &id)).await?;
    let may_see = request.can_rule("volume:get", &of_project(&volume.project_id));
    may_see.map_err(|refusal| hide(refusal, volume_not_found(&volume.id)))?;
    request.can(&of_project(&volume.project_id))?;
    let wanted = WantedSnapshot {
        volume_id,
        name: trimmed(&given, "name").or(trimmed(&given, "display_name")),
        description: trimmed(&given, "description"),
        metadata: texts(given.get("metadata")),
        in_use: force || always,
        group_snapshot_id: None,
    };
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let snapshot = cinder.write(move |tx| requests::create_snapshot(&own, tx, &cx, &wanted)).await?;
    Ok(Reply::accepted(json!({"snapshot": detailed(&request, &snapshot, false)})))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let snapshot = load(&cinder, &request).await?;
    Ok(Reply::ok(json!({"snapshot": detailed(&request, &snapshot, true)})))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::SNAPSHOT_UPDATE, "snapshot")?;
    let snapshot = load(&cinder, &request).await?;
    let now = cinder.clock.now();
    let snapshot = cinder
        .write(move |tx| {
            store::change_snapshot(tx, &snapshot.id, now, |snapshot| {
                for key in ["display_name", "name"].into_iter().filter(|key| given.contains_key(*key)) {
                    snapshot.display_name = trimmed(&given, key);
                }
                for key in ["display_description", "description"] {
                    if given.contains_key(key) {
                        snapshot.display_description = trimmed(&given, key);
                    }
                }
            })?;
            store::snapshot(tx, &snapshot.id)
        })
        .await?;
    Ok(Reply::ok(json!({"snapshot": detailed(&request, &snapshot, false)})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let snapshot = load(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::delete_snapshot(&own, tx, &cx, &snapshot.id, false)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn unmanage(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    schemas::UNMANAGE.body(request.json())?;
    let snapshot = load(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::unmanage_snapshot(&own, tx, &cx, &snapshot.id)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn force_delete(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let snapshot = load(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::delete_snapshot(&own, tx, &cx, &snapshot.id, true)).await?;
    Ok(no_body(StatusCode::ACCEPTED))
}

async fn reset_status(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::RESET_STATUS_SNAPSHOT, "os-reset_status")?;
    let word = text(&given, "status").unwrap_or_default();
    let list = || SnapshotStatus::ALL.iter().map(|s| format!("'{s}'")).collect::<Vec<_>>().join(", ");
    let status = SnapshotStatus::parse(&word.to_lowercase()).ok_or_else(|| {
        Error::bad_request(format!("Snapshot status: {word} is invalid, valid statuses are: ({}).", list()))
    })?;
    let snapshot = load(&cinder, &request).await?;
    set_status(&cinder, &snapshot, status, None).await?;
    Ok(no_body(StatusCode::ACCEPTED))
}

/// How those who take snapshots by themselves (guests' hosts) say how far they are.
async fn update_status(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::UPDATE_SNAPSHOT_STATUS, "os-update_snapshot_status")?;
    let wanted = text(&given, "status").unwrap_or_default().to_string();
    let snapshot = load(&cinder, &request).await?;
    use SnapshotStatus::{Creating, Deleting, ErrorDeleting};
    let next = SnapshotStatus::parse(&wanted).filter(|next| match snapshot.status {
        Creating => matches!(next, Creating | SnapshotStatus::Available | SnapshotStatus::Error),
        Deleting => matches!(next, Deleting | ErrorDeleting),
        _ => false,
    });
    let next = next.ok_or_else(|| {
        Error::bad_request(match snapshot.status {
            Creating | Deleting => {
                format!(
                    "Provided snapshot status {wanted} not allowed for snapshot with status {}.",
                    snapshot.status
                )
            }
            other => format!("Snapshot status {other} not allowed for update_snapshot_status"),
        })
    })?;
    set_status(&cinder, &snapshot, next, text(&given, "progress").map(String::from)).await?;
    Ok(no_body(StatusCode::ACCEPTED))
}

async fn set_status(
    cinder: &Arc<Cinder>,
    snapshot: &Snapshot,
    status: SnapshotStatus,
    progress: Option<String>,
) -> Result<()> {
    let (id, now) = (snapshot.id.clone(), cinder.clock.now());
    cinder
        .write(move |tx| {
            store::change_snapshot(tx, &id, now, |snapshot| {
                snapshot.status = status;
                if let Some(progress) = &progress {
                    snapshot.progress = progress.clone();
                }
            })
            .map(drop)
        })
        .await
}

fn summary(snapshot: &Snapshot) -> Json {
    json!({
        "id": snapshot.id,
        "name": snapshot.display_name,
        "description": snapshot.display_description,
        "created_at": snapshot.created_at.micros(),
        "updated_at": snapshot.updated_at.map(|time| time.micros()),
        "volume_id": snapshot.volume_id,
        "status": snapshot.status.as_str(),
        "size": snapshot.volume_size,
        "metadata": snapshot.metadata.0,
    })
}

pub fn detailed(request: &Request, snapshot: &Snapshot, extended: bool) -> Json {
    let mut body = summary(snapshot);
    if request.since(3, 14) {
        body["group_snapshot_id"] = json!(snapshot.group_snapshot_id);
    }
    if request.since(3, 41) {
        body["user_id"] = snapshot.user_id.as_str().into();
    }
    if request.since(3, 65) {
        body["consumes_quota"] = true.into();
    }
    let rule = "volume_extension:extended_snapshot_attributes";
    if extended && request.may(rule, &of_project(&snapshot.project_id)) {
        body["os-extended-snapshot-attributes:project_id"] = snapshot.project_id.as_str().into();
        body["os-extended-snapshot-attributes:progress"] = snapshot.progress.as_str().into();
    }
    body
}
