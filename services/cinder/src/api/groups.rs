//! Groups of volumes, and snapshots of all volumes of one.

use super::{bare, body, flag, hide, lists, of_project, query_flag, text, trimmed};
use crate::{
    Cinder,
    groups::{self, Wanted},
    model::*,
    schemas, store,
};
use base::{Error, Json, Result, id};
use db::Resource;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action, delete, get, post, put};

pub fn routes() -> Routes<Cinder> {
    const ONE: &str = "/v3/groups/{group_id}";
    const ACTION: &str = "/v3/groups/{group_id}/action";
    const SNAPSHOT: &str = "/v3/group_snapshots/{group_snapshot_id}";
    const SNAPSHOT_ACTION: &str = "/v3/group_snapshots/{group_snapshot_id}/action";
    vec![
        get("/v3/groups", "group:get_all", list).since(3, 13),
        get("/v3/groups/detail", "group:get_all", list_detail).since(3, 13),
        post("/v3/groups", "group:create", create).since(3, 13),
        action("/v3/groups/action", "create-from-src", "group:create", create_from_src).since(3, 14),
        get(ONE, "group:get", show).since(3, 13),
        put(ONE, "group:update", update).since(3, 13),
        action(ACTION, "delete", "group:delete", remove).since(3, 13),
        action(ACTION, "reset_status", "group:reset_status", reset_status).since(3, 20),
        action(ACTION, "enable_replication", "group:enable_replication", enable_replication).since(3, 38),
        action(ACTION, "disable_replication", "group:disable_replication", disable_replication).since(3, 38),
        action(ACTION, "failover_replication", "group:failover_replication", failover_replication)
            .since(3, 38),
        action(ACTION, "list_replication_targets", "group:list_replication_targets", list_targets)
            .since(3, 38),
        get("/v3/group_snapshots", "group:get_all_group_snapshots", list_snapshots).since(3, 14),
        get("/v3/group_snapshots/detail", "group:get_all_group_snapshots", list_snapshots_detail)
            .since(3, 14),
        post("/v3/group_snapshots", "group:create_group_snapshot", create_snapshot).since(3, 14),
        get(SNAPSHOT, "group:get_group_snapshot", show_snapshot).since(3, 14),
        delete(SNAPSHOT, "group:delete_group_snapshot", remove_snapshot).since(3, 14),
        action(SNAPSHOT_ACTION, "reset_status", "group:reset_group_snapshot_status", reset_snapshot_status)
            .since(3, 19),
    ]
}

async fn load(cinder: &Cinder, request: &Request) -> Result<Group> {
    let (cx, id) = (request.ctx.clone(), request.param("group_id").to_string());
    let group = cinder.read(move |tx| groups::group_for(tx, &cx, &id)).await?;
    let may_see = request.can_rule("group:get", &of_project(&group.project_id));
    may_see.map_err(|refusal| hide(refusal, groups::group_not_found(&group.id)))?;
    request.can(&of_project(&group.project_id))?;
    Ok(group)
}

async fn load_snapshot(cinder: &Cinder, request: &Request) -> Result<GroupSnapshot> {
    let (cx, id) = (request.ctx.clone(), request.param("group_snapshot_id").to_string());
    let found = cinder.read(move |tx| groups::snapshot_for(tx, &cx, &id)).await?;
    let may_see = request.can_rule("group:get_group_snapshot", &of_project(&found.project_id));
    may_see.map_err(|refusal| hide(refusal, groups::snapshot_not_found(&found.id)))?;
    request.can(&of_project(&found.project_id))?;
    Ok(found)
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, false).await
}

async fn list_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, true).await
}

async fn listed(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, Group::TABLE, &[])?;
    let Some(filters) = lists::conditions(&request, Group::TABLE, &[], FILTERS)? else {
        return Ok(Reply::ok(json!({"groups": []})));
    };
    let wanted = page.clone();
    let (found, volumes) = cinder
        .read(move |tx| {
            let missing = groups::group_not_found;
            let (found, _) =
                lists::fetch::<Group>(tx, &wanted, &filters, None, |one| one.id.as_str(), missing)?;
            Ok((found, store::volumes_by_group(tx)?))
        })
        .await?;
    let none = Vec::new();
    let view = |one: &Group| match detail {
        true => view(&request, one, volumes.get(&one.id).unwrap_or(&none)),
        false => json!({"id": one.id, "name": one.name}),
    };
    let mut answer = json!({"groups": found.iter().map(view).collect::<Vec<_>>()});
    let last = found.last().map(|one| one.id.as_str());
    if let Some(next) = lists::next_links(&request, "groups", &page, last, found.len()) {
        answer["group_links"] = next;
    }
    Ok(Reply::ok(answer))
}

const FILTERS: &[&str] = &["name", "status"];

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_CREATE, "group")?;
    request.can(&of_project(&request.ctx.project_id))?;
    let types = given.get("volume_types").and_then(Json::as_array).into_iter().flatten();
    let wanted = Wanted {
        id: id::uuid(),
        name: trimmed(&given, "name"),
        description: trimmed(&given, "description"),
        group_type: text(&given, "group_type").unwrap_or_default().trim().to_string(),
        volume_types: types.filter_map(Json::as_str).map(String::from).collect(),
        availability_zone: text(&given, "availability_zone").map(String::from),
    };
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let group = cinder.write(move |tx| groups::create(&own, tx, &cx, &wanted)).await?;
    Ok(Reply::accepted(json!({"group": {"id": group.id, "name": group.name}})))
}

async fn create_from_src(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_FROM_SRC, "create-from-src")?;
    request.can(&of_project(&request.ctx.project_id))?;
    let (name, description) = (trimmed(&given, "name"), trimmed(&given, "description"));
    let snapshot = text(&given, "group_snapshot_id").map(String::from);
    let source = text(&given, "source_group_id").map(String::from);
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let group = cinder
        .write(move |tx| {
            let said = (name.clone(), description.clone());
            match (&snapshot, &source) {
                (Some(id), _) => groups::create_from_snapshot(&own, tx, &cx, id, said),
                (None, Some(id)) => groups::create_from_group(&own, tx, &cx, id, said),
                (None, None) => Err(crate::errors::malformed()),
            }
        })
        .await?;
    Ok(Reply::accepted(json!({"group": {"id": group.id, "name": group.name}})))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let group = load(&cinder, &request).await?;
    let id = group.id.clone();
    let volumes = cinder.read(move |tx| store::volumes_of_group(tx, &id)).await?;
    let ids: Vec<String> = volumes.into_iter().map(|volume| volume.id).collect();
    Ok(Reply::ok(json!({"group": view(&request, &group, &ids)})))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_UPDATE, "group")?;
    let group = load(&cinder, &request).await?;
    let ids = |key: &str| -> Vec<String> {
        let text = text(&given, key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(String::from).collect()
    };
    let change = groups::Change {
        name: trimmed(&given, "name"),
        description: trimmed(&given, "description"),
        add: ids("add_volumes"),
        remove: ids("remove_volumes"),
    };
    let own = cinder.clone();
    let cx = request.ctx.clone();
    cinder.write(move |tx| groups::update(&own, tx, &cx, &group.id, &change)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_DELETE, "delete")?;
    let with_volumes = given.get("delete-volumes").is_some_and(flag);
    let group = load(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| groups::delete(&own, tx, &cx, &group.id, with_volumes)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn reset_status(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::RESET_STATUS, "reset_status")?;
    let status = status(text(&given, "status").unwrap_or_default(), "Group", "Group")?;
    let group = load(&cinder, &request).await?;
    let now = cinder.clock.now();
    cinder.write(move |tx| store::change_group(tx, &group.id, now, |one| one.status = status)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn enable_replication(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    body(&request, &schemas::ENABLE_REPLICATION, "enable_replication")?;
    replicate(cinder, request, "enable").await
}

async fn disable_replication(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    body(&request, &schemas::DISABLE_REPLICATION, "disable_replication")?;
    replicate(cinder, request, "disable").await
}

async fn failover_replication(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    body(&request, &schemas::FAILOVER_REPLICATION, "failover_replication")?;
    replicate(cinder, request, "failover").await
}

async fn list_targets(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    body(&request, &schemas::LIST_REPLICATION_TARGETS, "list_replication_targets")?;
    replicate(cinder, request, "list targets of").await
}

/// No back end does it.
async fn replicate(cinder: Arc<Cinder>, request: Request, verb: &'static str) -> Result<Reply> {
    let group = load(&cinder, &request).await?;
    cinder.read(move |tx| groups::refuse_replication(tx, &group, verb)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

fn status(word: &str, kind: &str, noun: &str) -> Result<GroupStatus> {
    let refuse = |why: String| Err(Error::bad_request(format!("Invalid {kind} Status: {why}")));
    if word.trim().is_empty() {
        return refuse("The 'status' can not be empty.".into());
    }
    match GroupStatus::parse(&word.to_lowercase()) {
        Some(status) => Ok(status),
        None => {
            let known = GroupStatus::ALL.iter().map(|s| format!("'{s}'")).collect::<Vec<_>>().join(", ");
            refuse(format!("{noun} status: {word} is invalid, valid status are: ({known})."))
        }
    }
}

fn view(request: &Request, group: &Group, volumes: &[String]) -> Json {
    let mut shown = json!({
        "id": group.id,
        "status": group.status.as_str(),
        "availability_zone": group.availability_zone,
        "created_at": group.created_at.micros(),
        "name": group.name,
        "description": group.description,
        "group_type": group.group_type_id,
        "volume_types": group.volume_types,
    });
    if request.since(3, 14) {
        shown["group_snapshot_id"] = json!(group.group_snapshot_id);
        shown["source_group_id"] = json!(group.source_group_id);
    }
    if request.since(3, 25) && query_flag(request, "list_volume").unwrap_or(false) {
        shown["volumes"] = json!(volumes);
    }
    if request.since(3, 38) {
        shown["replication_status"] = "disabled".into();
    }
    if request.since(3, 58) && request.may("group:group_project_attribute", &()) {
        shown["project_id"] = json!(group.project_id);
    }
    shown
}

async fn list_snapshots(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed_snapshots(cinder, request, false).await
}

async fn list_snapshots_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed_snapshots(cinder, request, true).await
}

async fn listed_snapshots(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, GroupSnapshot::TABLE, &[])?;
    let Some(filters) = lists::conditions(&request, GroupSnapshot::TABLE, &[], FILTERS)? else {
        return Ok(Reply::ok(json!({"group_snapshots": []})));
    };
    let wanted = page.clone();
    let (found, _) = cinder
        .read(move |tx| {
            let missing = groups::snapshot_not_found;
            lists::fetch::<GroupSnapshot>(tx, &wanted, &filters, None, |one| one.id.as_str(), missing)
        })
        .await?;
    let view = |one: &GroupSnapshot| match detail {
        true => snapshot_view(&request, one),
        false => json!({"id": one.id, "name": one.name}),
    };
    let mut answer = json!({"group_snapshots": found.iter().map(view).collect::<Vec<_>>()});
    let last = found.last().map(|one| one.id.as_str());
    if let Some(next) = lists::next_links(&request, "group_snapshots", &page, last, found.len()) {
        answer["group_snapshot_links"] = next;
    }
    Ok(Reply::ok(answer))
}

async fn create_snapshot(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::GROUP_SNAPSHOT_CREATE, "group_snapshot")?;
    let (cx, group_id) = (request.ctx.clone(), text(&given, "group_id").unwrap_or_default().to_string());
    let group = cinder.read(move |tx| groups::group_for(tx, &cx, &group_id)).await?;
    request.can(&of_project(&group.project_id))?;
    let said = (text(&given, "name").map(String::from), text(&given, "description").map(String::from));
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let made =
        cinder.write(move |tx| groups::create_snapshot(&own, tx, &cx, &group.id, said.clone())).await?;
    let shown = json!({"id": made.id, "name": made.name, "group_type_id": made.group_type_id});
    Ok(Reply::accepted(json!({"group_snapshot": shown})))
}

async fn show_snapshot(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let found = load_snapshot(&cinder, &request).await?;
    Ok(Reply::ok(json!({"group_snapshot": snapshot_view(&request, &found)})))
}

async fn remove_snapshot(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let found = load_snapshot(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| groups::delete_snapshot(&own, tx, &cx, &found.id)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn reset_snapshot_status(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::RESET_STATUS, "reset_status")?;
    let status = status(text(&given, "status").unwrap_or_default(), "GroupSnapshot", "Group snapshot")?;
    let found = load_snapshot(&cinder, &request).await?;
    cinder
        .write(move |tx| {
            let mut row = groups::snapshot(tx, &found.id)?;
            row.status = status;
            tx.update(&row).map(drop)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

fn snapshot_view(request: &Request, found: &GroupSnapshot) -> Json {
    let mut shown = json!({
        "id": found.id,
        "group_id": found.group_id,
        "group_type_id": found.group_type_id,
        "status": found.status.as_str(),
        "created_at": found.created_at.micros(),
        "name": found.name,
        "description": found.description,
    });
    if request.since(3, 58) && request.may("group:group_snapshot_project_attribute", &()) {
        shown["project_id"] = json!(found.project_id);
    }
    shown
}
