//! What was done to a server: `os-instance-actions`.

use super::{check_visible, target};
use crate::{
    Nova, actions,
    model::{Instance, InstanceAction, InstanceActionEvent},
    schemas, store,
};
use base::{Error, Json, Result, Timestamp};
use serde_json::{Map, json};
use sha2::{Digest, Sha224};
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/servers/{server_id}/os-instance-actions";
    const ONE: &str = "/v2.1/servers/{server_id}/os-instance-actions/{request_id}";
    vec![
        get(ALL, "os_compute_api:os-instance-actions:list", index),
        get(ONE, "os_compute_api:os-instance-actions:show", show),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = find(&nova, &request).await?;
    let uuid = instance.uuid.clone();
    let mut found = nova.read(move |tx| actions::of_instance(tx, &uuid)).await?;
    if !request.since(2, 58) {
        let shown: Vec<Json> = found.iter().map(|action| view(&request, action)).collect();
        return Ok(Reply::ok(json!({"instanceActions": shown})));
    }
    schemas::check_query(&schemas::INSTANCE_ACTIONS_QUERY, &request)?;
    let time = |name: &str| request.query.get(name).and_then(Timestamp::parse);
    let (since, before) = (time("changes-since"), time("changes-before"));
    if since.zip(before).is_some_and(|(since, before)| before < since) {
        return Err(Error::bad_request(
            "The value of changes-since must be less than or equal to changes-before.",
        ));
    }
    found.retain(|action| since.is_none_or(|time| action.updated_at >= time));
    found.retain(|action| before.is_none_or(|time| action.updated_at <= time));
    if let Some(marker) = request.query.get("marker") {
        let at = found.iter().position(|action| action.request_id == marker);
        let at = at.ok_or_else(|| Error::bad_request(format!("Marker {marker} could not be found.")))?;
        found.drain(..=at);
    }
    let limit: Option<usize> = request.query.get("limit").and_then(|limit| limit.parse().ok());
    let max = limit.unwrap_or(usize::MAX).min(nova.options.max_limit as usize);
    found.truncate(max);
    let shown: Vec<Json> = found.iter().map(|action| view(&request, action)).collect();
    let mut body = json!({"instanceActions": shown});
    if let Some(last) = found.last().filter(|_| max > 0 && found.len() == max) {
        let mut query = request.query.without(&["marker"]);
        query.append_pair("marker", &last.request_id);
        let base = format!("{}/v2.1/servers/{}/os-instance-actions", request.base_url, instance.uuid);
        body["links"] = json!([{"rel": "next", "href": format!("{base}?{}", query.finish())}]);
    }
    Ok(Reply::ok(body))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = find(&nova, &request).await?;
    let (uuid, request_id) = (instance.uuid.clone(), request.param("request_id").to_string());
    let found = nova
        .read(move |tx| {
            let Some(action) = actions::by_request(tx, &uuid, &request_id)? else { return Ok(None) };
            let events = actions::events(tx, &action.id)?;
            Ok(Some((action, events)))
        })
        .await?;
    let missing = || Error::not_found(format!("Action {} not found", request.param("request_id")));
    let (action, events) = found.ok_or_else(missing)?;
    let mut shown = view(&request, &action);
    let all = request.may("os_compute_api:os-instance-actions:events", &target(&instance));
    if all || request.since(2, 51) {
        let one = |event: &InstanceActionEvent| event_view(&request, &instance, event, all);
        shown["events"] = events.iter().map(one).collect::<Vec<_>>().into();
    }
    Ok(Reply::ok(json!({"instanceAction": shown})))
}

/// Also of deleted servers since 2.21.
async fn find(nova: &Nova, request: &Request) -> Result<Instance> {
    if !request.since(2, 21) {
        return nova.server(request).await;
    }
    let uuid = request.param("server_id").to_string();
    let instance = nova.read(move |tx| store::any_instance(tx, &uuid)).await?;
    check_visible(&request.ctx, &instance)?;
    request.can(&target(&instance))?;
    Ok(instance)
}

fn view(request: &Request, action: &InstanceAction) -> Json {
    let mut shown = json!({
        "action": action.action,
        "instance_uuid": action.instance_uuid,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": action.start_time.micros(),
        "message": action.message,
    });
    if request.since(2, 58) {
        shown["updated_at"] = action.updated_at.micros().into();
    }
    shown
}

fn event_view(request: &Request, instance: &Instance, event: &InstanceActionEvent, all: bool) -> Json {
    let mut shown = Map::new();
    let mut set = |name: &str, value: Json| drop(shown.insert(name.into(), value));
    set("event", event.event.clone().into());
    set("start_time", event.start_time.micros().into());
    set("finish_time", json!(event.finish_time.map(|time| time.micros())));
    set("result", json!(event.result));
    if all {
        set("traceback", json!(event.traceback));
    }
    if request.since(2, 62) {
        if all {
            set("host", json!(event.host));
        }
        let digest = |host: &String| {
            let digest = Sha224::digest(format!("{}{host}", instance.project_id));
            digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        set("hostId", event.host.as_ref().map(digest).unwrap_or_default().into());
    }
    let details = "os_compute_api:os-instance-actions:events:details";
    if request.since(2, 84) && request.may(details, &target(instance)) {
        set("details", json!(event.details));
    }
    Json::Object(shown)
}
