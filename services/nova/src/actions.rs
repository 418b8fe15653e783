//! What was done to a server, by whom, and how it went: `os-instance-actions`.

use crate::{
    model::{InstanceAction, InstanceActionEvent},
    store,
};
use base::{Context, Error, ErrorKind, Result, Timestamp, id};
use db::{AsJson, List, Tx};

/// An action with its one event, begun in the transaction that begins the operation.
pub fn begin(tx: &mut Tx, cx: &Context, instance_uuid: &str, action: &str, now: Timestamp) -> Result<()> {
    tx.insert(&InstanceAction {
        id: id::derived(&[&cx.request_id, instance_uuid, action]),
        instance_uuid: instance_uuid.into(),
        request_id: cx.request_id.clone(),
        action: action.into(),
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        start_time: now,
        finish_time: None,
        message: None,
        updated_at: now,
    })
}

/// An event of the action that the request began.
pub struct Event<'a> {
    pub instance_uuid: &'a str,
    pub action: &'a str,
    pub event: &'a str,
    pub host: Option<String>,
}

/// Ends the action: an event with its outcome, told to the user.
pub fn end(tx: &mut Tx, cx: &Context, event: &Event, error: Option<&Error>, now: Timestamp) -> Result<()> {
    let action_id = id::derived(&[&cx.request_id, event.instance_uuid, event.action]);
    let Some(mut action) = tx.find::<InstanceAction>(&action_id)? else { return Ok(()) };
    tx.insert(&InstanceActionEvent {
        id: id::uuid(),
        action_id: action_id.clone(),
        event: event.event.into(),
        start_time: action.start_time,
        finish_time: Some(now),
        result: Some(if error.is_some() { "Error" } else { "Success" }.into()),
        traceback: error.map(|error| format!("{error:?}")),
        host: event.host.clone(),
        details: error.map(public_message),
    })?;
    action.message = error.map(|_| "Error".to_string());
    action.finish_time = Some(now);
    action.updated_at = now;
    tx.update(&action).map(drop)
}

/// The newest first.
pub fn of_instance(tx: &mut Tx, instance_uuid: &str) -> Result<Vec<InstanceAction>> {
    tx.list(&List::all().eq("instance_uuid", instance_uuid).sort("updated_at", db::Direction::Desc))
}

pub fn by_request(tx: &mut Tx, instance_uuid: &str, request_id: &str) -> Result<Option<InstanceAction>> {
    let wanted = List::all().eq("instance_uuid", instance_uuid).eq("request_id", request_id);
    Ok(tx.list(&wanted)?.into_iter().next())
}

pub fn events(tx: &mut Tx, action_id: &str) -> Result<Vec<InstanceActionEvent>> {
    tx.list(&List::all().eq("action_id", action_id).sort("start_time", db::Direction::Desc))
}

/// Puts an error on the server where its owner sees it.
pub fn fault(tx: &mut Tx, uuid: &str, error: &Error, now: Timestamp) -> Result<()> {
    let fault = crate::model::Fault {
        code: if error.is(ErrorKind::NotFound) { 404 } else { 500 },
        message: public_message(error).chars().take(FAULT_CHARS_MAX).collect(),
        details: format!("{error:?}"),
        created_at: now,
    };
    store::change(tx, uuid, now, |instance| instance.fault = Some(AsJson(fault.clone()))).map(drop)
}

/// Upstream's column.
const FAULT_CHARS_MAX: usize = 255;

/// What is ours to mend has a cause that is not for users.
fn public_message(error: &Error) -> String {
    error.message.clone()
}
