//! Tasks: what imports are asked for and how they ended. Clients begin imports at the image; the older way to begin
//! one here is not built.

use super::{body, images::once_each};
use crate::{
    Glance,
    model::{Task, TaskKind, TaskStatus},
    schemas, store, web_download,
};
use base::{Error, Json, Result, id};
use db::{Direction, Filter, List};
use serde_json::json;
use std::sync::Arc;
use web::{Query, Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/tasks", "tasks_api_access", list),
        post("/v2/tasks", "tasks_api_access", create),
        get("/v2/tasks/{task_id}", "tasks_api_access", show),
        delete("/v2/tasks/{task_id}", "tasks_api_access", remove),
        get("/v2/images/{image_id}/tasks", "get_image", of_image),
    ]
}

/// What lists show.
fn brief(task: &Task) -> Json {
    let mut view = json!({
        "id": task.id, "type": task.kind.as_str(), "status": task.status.as_str(), "owner": task.owner,
        "created_at": task.created_at.seconds(), "updated_at": task.updated_at.seconds(),
        "self": format!("/v2/tasks/{}", task.id), "schema": "/v2/schemas/task",
    });
    if let Some(expires_at) = task.expires_at {
        view["expires_at"] = json!(expires_at.seconds());
    }
    view
}

fn full(task: &Task) -> Json {
    let mut view = brief(task);
    for (name, value) in [
        ("input", task.input.clone()),
        ("message", json!(task.message)),
        ("result", task.result.clone()),
        ("image_id", json!(task.image_id)),
        ("request_id", json!(task.request_id)),
        ("user_id", json!(task.user_id)),
    ] {
        view[name] = value;
    }
    view
}

/// At the image, tasks are shown as they are stored.
fn stored(task: &Task) -> Json {
    json!({
        "id": task.id, "type": task.kind.as_str(), "status": task.status.as_str(), "owner": task.owner,
        "expires_at": task.expires_at.map(|time| time.micros()),
        "created_at": task.created_at.micros(), "updated_at": task.updated_at.micros(),
        "deleted_at": null, "deleted": false,
        "image_id": task.image_id, "request_id": task.request_id, "user_id": task.user_id,
        "input": task.input, "result": task.result, "message": task.message,
    })
}

async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let (wanted, limit) = wanted(&glance, &request.query)?;
    let now = glance.clock.now();
    let found = glance
        .db
        .write(move |tx| {
            store::forget_expired_tasks(tx, now)?;
            tx.list::<Task>(&wanted)
        })
        .await
        .map_err(|error| no_marker(error, &request))?;
    let url = |query: String| match query.is_empty() {
        true => "/v2/tasks".to_string(),
        false => format!("/v2/tasks?{query}"),
    };
    let mut view = json!({
        "tasks": found.iter().map(brief).collect::<Vec<_>>(),
        "first": url(once_each(&request).finish()), "schema": "/v2/schemas/tasks",
    });
    if let Some(last) = found.last().filter(|_| found.len() as u64 == limit) {
        let mut query = once_each(&request);
        query.append_pair("marker", &last.id);
        view["next"] = json!(url(query.finish()));
    }
    Ok(Reply::ok(view))
}

fn no_marker(error: Error, request: &Request) -> Error {
    match (error.code.as_deref(), request.query.get("marker")) {
        (Some("marker"), Some(id)) => {
            Error::bad_request(format!("Task with the given id {id} was not found"))
        }
        _ => error,
    }
}

fn wanted(glance: &Glance, query: &Query) -> Result<(List, u64)> {
    let invalid = |what: &str, text: &str| Error::bad_request(format!("Invalid {what}: {text}"));
    let options = &glance.options;
    let limit = match query.get("limit").map(str::parse::<i64>) {
        None => options.limit_param_default,
        Some(Err(_)) => return Err(Error::bad_request("limit param must be an integer")),
        Some(Ok(number)) => {
            u64::try_from(number).map_err(|_| Error::bad_request("limit param must be positive"))?
        }
    }
    .min(options.api_limit_max);
    let direction = match query.get("sort_dir").unwrap_or("desc") {
        "asc" => Direction::Asc,
        "desc" => Direction::Desc,
        other => return Err(invalid("sort direction", other)),
    };
    let key = match query.get("sort_key").unwrap_or("created_at") {
        "type" => "kind",
        key => {
            let known = ["id", "status", "owner", "created_at", "updated_at", "image_id", "user_id"];
            let unknown = || Error::bad_request("Sort key supplied was not valid.");
            known.into_iter().find(|known| *known == key).ok_or_else(unknown)?
        }
    };
    let mut wanted = List::all().sort(key, direction).limit(limit);
    if let Some(text) = query.get("status").filter(|text| !text.is_empty()) {
        let status = TaskStatus::parse(text).ok_or_else(|| invalid("status value", text))?;
        wanted = wanted.filter(Filter::eq("status", status));
    }
    if let Some(text) = query.get("type").filter(|text| !text.is_empty()) {
        // Upstream knows no other type here.
        let kind = TaskKind::parse(text).filter(|kind| *kind == TaskKind::Import);
        wanted = wanted.filter(Filter::eq("kind", kind.ok_or_else(|| invalid("type value", text))?));
    }
    for column in ["owner", "image_id", "user_id", "request_id"] {
        if let Some(text) = query.get(column) {
            wanted = wanted.filter(Filter::eq(column, text));
        }
    }
    if let Some(marker) = query.get("marker").filter(|marker| !marker.is_empty()) {
        if !id::is_uuid(marker) {
            return Err(Error::bad_request("Invalid marker format"));
        }
        wanted = wanted.marker(marker);
    }
    Ok((wanted, limit))
}

async fn show(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let id = request.param("task_id").to_string();
    let missing = Error::not_found(format!("Could not find task {id}"));
    let task = glance.db.read(move |tx| tx.find::<Task>(&id)).await?.ok_or(missing)?;
    Ok(Reply::ok(full(&task)))
}

async fn create(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let given = body(&request)?;
    for name in ["type", "input"] {
        if given.get(name).is_none() {
            return Err(Error::bad_request(format!("Task '{name}' is required")));
        }
    }
    schemas::check_task(given)?;
    if given["type"] == "import" {
        let uri = given["input"]["import_from"].as_str().filter(|uri| !uri.is_empty());
        let uri = uri.ok_or_else(|| Error::bad_request("Invalid location: None"))?;
        if web_download::target(uri, &glance.options).await.is_none() {
            let sentence = format!("URI for legacy import task does not pass filtering: {uri}");
            return Err(Error::bad_request(sentence));
        }
    }
    Err(Error::not_implemented("Tasks begin with an import: POST /v2/images/{image_id}/import"))
}

async fn remove(_: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    Err(Error::method_not_allowed(
        "This operation is currently not permitted on Glance Tasks. They are auto deleted after reaching the time based on their expires_at property.",
    ))
}

async fn of_image(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let hidden = |_| Error::not_found("The resource could not be found.");
    let (whole, _) = glance.allowed(&request).await.map_err(hidden)?;
    let id = whole.image.id;
    let found = glance.db.read(move |tx| store::tasks_of(tx, &id)).await?;
    Ok(Reply::ok(json!({"tasks": found.iter().map(stored).collect::<Vec<_>>()})))
}
