//! Moves of servers between hosts and flavors, as administrators list them.

use super::{
    own_project,
    queries::{self, Page, counts, once, since, texts},
};
use crate::{Nova, model::Migration, schemas::Form};
use base::{Error, Json, Result, Timestamp};
use db::{Direction, Filter, List, Op};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    vec![get("/v2.1/os-migrations", "os_compute_api:os-migrations:index", index)]
}

/// Query keys and the columns they are about.
const FILTERS: &[(&str, &str)] = &[
    ("instance_uuid", "instance_uuid"),
    ("source_compute", "source_compute"),
    ("status", "status"),
    ("migration_type", "migration_type"),
    ("user_id", "user_id"),
    ("project_id", "project_id"),
];

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    request.can(&own_project(&request))?;
    let own = request.query.get("project_id") == Some(&request.ctx.project_id);
    if !own {
        request.can_rule("os_compute_api:os-migrations:index:all_projects", &own_project(&request))?;
    }
    let pages = request.since(2, 59);
    let page = match pages {
        true => Page::of(&nova, &request)?,
        false => Page { limit: u64::MAX, marker: None },
    };
    let wanted = wanted(&request)?;
    let mut rows = nova.read(move |tx| tx.list::<Migration>(&wanted)).await?;
    if let Some(host) = request.query.get("host") {
        let is = |name: &Option<String>| name.as_deref() == Some(host);
        rows.retain(|row| is(&row.source_compute) || is(&row.dest_compute));
    }
    let missing = || {
        let marker = page.marker.as_deref().unwrap_or_default();
        Error::bad_request(format!("Marker {marker} could not be found."))
    };
    let rows = page.cut(rows, |row, marker| row.uuid == marker).ok_or_else(missing)?;
    let with_hosts = request.may("os_compute_api:os-migrations:index:host", &own_project(&request));
    let one = |row: &Migration| view(&request, row, with_hosts);
    let mut body = json!({"migrations": rows.iter().map(one).collect::<Vec<_>>()});
    let last = rows.last().map(|row| row.uuid.as_str()).filter(|_| pages);
    if let Some(links) = page.next(&request, "os-migrations", rows.len(), last) {
        body["migrations_links"] = links;
    }
    Ok(Reply::ok(body))
}

fn wanted(request: &Request) -> Result<List> {
    let mut list = List::all().sort("created_at", Direction::Desc).sort("number", Direction::Desc);
    for &(key, column) in FILTERS {
        if let Some(value) = request.query.get(key) {
            list = list.eq(column, value);
        }
    }
    let time = |key: &str| request.query.get(key).and_then(Timestamp::parse);
    let after = time("changes-since").filter(|_| request.since(2, 59));
    let before = time("changes-before").filter(|_| request.since(2, 66));
    if let (Some(after), Some(before)) = (after, before)
        && before < after
    {
        return Err(Error::bad_request(
            "The value of changes-since must be less than or equal to changes-before.",
        ));
    }
    let bounds = [(after, Op::Ge), (before, Op::Le)];
    Ok(bounds.into_iter().fold(list, |list, (time, op)| match time {
        Some(time) => list.filter(Filter::new("updated_at", op, time)),
        None => list,
    }))
}

fn view(request: &Request, row: &Migration, with_hosts: bool) -> Json {
    let host = |name: &Option<String>| name.clone().filter(|_| with_hosts);
    let mut one = json!({
        "id": row.number,
        "instance_uuid": row.instance_uuid,
        "status": row.status,
        "source_compute": host(&row.source_compute),
        "source_node": host(&row.source_node),
        "dest_compute": host(&row.dest_compute),
        "dest_node": host(&row.dest_node),
        "dest_host": host(&row.dest_host),
        "old_instance_type_id": row.old_flavor_id.as_deref().and_then(|id| id.parse::<i64>().ok()),
        "new_instance_type_id": row.new_flavor_id.as_deref().and_then(|id| id.parse::<i64>().ok()),
        "created_at": row.created_at.micros(),
        "updated_at": row.updated_at.map(Timestamp::micros),
    });
    if request.since(2, 23) {
        one["migration_type"] = row.migration_type.clone().into();
    }
    let under_way = ["queued", "preparing", "running", "post-migrating"].contains(&row.status.as_str());
    if request.since(2, 23) && row.migration_type == "live-migration" && under_way {
        let path = format!("servers/{}/migrations", row.instance_uuid);
        one["links"] = super::links(request, &path, &row.number.to_string());
    }
    if request.since(2, 59) {
        one["uuid"] = row.uuid.clone().into();
    }
    if request.since(2, 80) {
        one["user_id"] = row.user_id.clone().into();
        one["project_id"] = row.project_id.clone().into();
    }
    one
}

static QUERY: Form = Form::new(|| {
    let time = || once(json!({"type": "array", "items": {"type": "string", "format": "date-time"}}));
    queries::query(
        "2.58",
        "2.59",
        json!({
            "hidden": texts(), "host": texts(), "instance_uuid": texts(), "source_compute": texts(),
            "status": texts(), "migration_type": texts(),
            "limit": since("2.59", once(counts())), "marker": since("2.59", once(texts())),
            "changes-since": since("2.59", time()), "changes-before": since("2.66", time()),
            "user_id": since("2.80", once(texts())), "project_id": since("2.80", once(texts())),
        }),
    )
});
