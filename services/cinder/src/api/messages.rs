//! What users are told of operations that failed.

use super::{bare, links, lists, of_project};
use crate::{Cinder, model::Message, requests::sees};
use base::{Error, Json, Result};
use db::{Filter, Resource};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/messages", "message:get_all", list).since(3, 3),
        get("/v3/messages/{message_id}", "message:get", show).since(3, 3),
        delete("/v3/messages/{message_id}", "message:delete", remove).since(3, 3),
    ]
}

const FILTERS: &[&str] = &["resource_uuid", "resource_type", "event_id", "request_id", "message_level"];

fn not_found(id: &str) -> Error {
    Error::not_found(format!("Message {id} could not be found."))
}

async fn permitted(cinder: &Cinder, request: &Request) -> Result<Message> {
    let (cx, id) = (request.ctx.clone(), request.param("message_id").to_string());
    let found = cinder
        .read(move |tx| {
            let found = tx.find::<Message>(&id)?.filter(|message| sees(&cx, &message.project_id));
            found.ok_or_else(|| not_found(&id))
        })
        .await?;
    request.can(&of_project(&found.project_id))?;
    Ok(found)
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, Message::TABLE, &[])?;
    let mut filters = vec![Filter::eq("project_id", &request.ctx.project_id)];
    // Filters came with pages.
    if request.since(3, 5) {
        let mut given = lists::filters(&request);
        lists::allowed(&request, &mut given, FILTERS)?;
        for (key, value) in given.iter().filter(|(key, _)| key != "all_tenants") {
            match lists::condition(Message::TABLE, &[], key, value) {
                Some(condition) => filters.push(condition),
                None => return Ok(Reply::ok(json!({"messages": []}))),
            }
        }
    }
    let wanted = page.clone();
    let (found, _) = cinder
        .read(move |tx| {
            lists::fetch::<Message>(tx, &wanted, &filters, None, |one| one.id.as_str(), not_found)
        })
        .await?;
    let mut answer = json!({"messages": found.iter().map(|one| view(&request, one)).collect::<Vec<_>>()});
    let last = found.last().map(|one| one.id.as_str());
    if let Some(next) = lists::next_links(&request, "messages", &page, last, found.len()) {
        answer["messages_links"] = next;
    }
    Ok(Reply::ok(answer))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let message = permitted(&cinder, &request).await?;
    Ok(Reply::ok(json!({"message": view(&request, &message)})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let message = permitted(&cinder, &request).await?;
    cinder.write(move |tx| tx.remove::<Message>(&message.id)).await?;
    Ok(bare(StatusCode::NO_CONTENT))
}

fn view(request: &Request, message: &Message) -> Json {
    json!({
        "id": message.id,
        "event_id": message.event_id,
        "user_message": message.user_message,
        "message_level": message.message_level,
        "created_at": message.created_at.micros(),
        "guaranteed_until": message.expires_at.micros(),
        "request_id": message.request_id,
        "links": links(request, "messages", &message.id),
        "resource_type": message.resource_type,
        "resource_uuid": message.resource_uuid,
    })
}
