//! What is done to a server by `POST /servers/{id}/action`.

use super::{check_unlocked, checked, own_project, target};
use crate::{
    Nova, actions,
    flows::power::{self, Verb},
    model::{Instance, VmState},
    schemas, store,
};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action};

const PATH: &str = "/v2.1/servers/{server_id}/action";

pub fn routes() -> Routes<Nova> {
    vec![
        action(PATH, "os-start", "os_compute_api:servers:start", start),
        action(PATH, "os-stop", "os_compute_api:servers:stop", stop),
        action(PATH, "reboot", "os_compute_api:servers:reboot", reboot),
        action(PATH, "pause", "os_compute_api:os-pause-server:pause", pause),
        action(PATH, "unpause", "os_compute_api:os-pause-server:unpause", unpause),
        action(PATH, "suspend", "os_compute_api:os-suspend-server:suspend", suspend),
        action(PATH, "resume", "os_compute_api:os-suspend-server:resume", resume),
        action(PATH, "lock", "os_compute_api:os-lock-server:lock", lock),
        action(PATH, "unlock", "os_compute_api:os-lock-server:unlock", unlock),
        action(PATH, "forceDelete", "os_compute_api:os-deferred-delete:force", force_delete),
        action(PATH, "restore", "os_compute_api:os-deferred-delete:restore", restore),
        action(PATH, "os-resetState", "os_compute_api:os-admin-actions:reset_state", reset_state),
        action(PATH, "os-getConsoleOutput", "os_compute_api:os-console-output", console_output),
        action(PATH, "trigger_crash_dump", "os_compute_api:servers:trigger_crash_dump", trigger_crash_dump)
            .since(2, 17),
        action(PATH, "addSecurityGroup", "os_compute_api:os-security-groups:add", add_security_group),
        action(
            PATH,
            "removeSecurityGroup",
            "os_compute_api:os-security-groups:remove",
            remove_security_group,
        ),
    ]
}

/// An answer without a body.
pub fn accepted() -> Reply {
    Reply::empty(StatusCode::ACCEPTED).header("content-type", "application/json")
}

async fn start(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    begin(&nova, &request, Verb::Start, "start").await
}

async fn stop(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    begin(&nova, &request, Verb::Stop, "stop").await
}

async fn reboot(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let kind = checked(&request, &schemas::REBOOT)?["reboot"]["type"].as_str().unwrap_or_default();
    let verb = if kind.eq_ignore_ascii_case("hard") { Verb::RebootHard } else { Verb::RebootSoft };
    begin(&nova, &request, verb, "reboot").await
}

async fn pause(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    begin(&nova, &request, Verb::Pause, "pause").await
}

async fn unpause(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    begin(&nova, &request, Verb::Unpause, "unpause").await
}

async fn suspend(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    begin(&nova, &request, Verb::Suspend, "suspend").await
}

async fn resume(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    begin(&nova, &request, Verb::Resume, "resume").await
}

async fn begin(nova: &Arc<Nova>, request: &Request, verb: Verb, name: &'static str) -> Result<Reply> {
    if matches!(verb, Verb::Start | Verb::Stop) {
        check_mapped(nova, request.param("server_id")).await?;
    }
    let instance = nova.server(request).await?;
    check_unlocked(request, &instance)?;
    if matches!(verb, Verb::Start | Verb::Stop) {
        host_of(&instance)?;
    }
    let (nova, cx) = (nova.clone(), request.ctx.clone());
    let work = nova.clone();
    nova.write(move |tx| power::begin(&work, tx, &cx, &instance.uuid, verb, name)).await?;
    Ok(accepted())
}

/// Upstream looks for the server's cell first here.
async fn check_mapped(nova: &Nova, uuid: &str) -> Result<()> {
    let wanted = uuid.to_string();
    let known = nova.read(move |tx| tx.find::<Instance>(&wanted)).await?.is_some();
    let missing = || Error::not_found(format!("Instance {uuid} has no mapping to a cell."));
    known.then_some(()).ok_or_else(missing)
}

async fn lock(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let reason = checked(&request, &schemas::LOCK)?["lock"]["locked_reason"].as_str().map(String::from);
    let instance = nova.server(&request).await?;
    let is_owner = instance.project_id == request.ctx.project_id;
    if instance.locked_by.is_some() && is_owner {
        return Ok(accepted());
    }
    let by = if is_owner { "owner" } else { "admin" };
    set(&nova, &request, &instance, "lock", Some("api_lock"), move |found| {
        found.locked_by = Some(by.into());
        found.locked_reason = reason.clone();
    })
    .await
}

const OVERRIDE: &str = "os_compute_api:os-lock-server:unlock:unlock_override";

async fn unlock(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let by = if instance.project_id == request.ctx.project_id { "owner" } else { "admin" };
    if instance.locked_by.as_deref().is_some_and(|locked_by| locked_by != by) {
        request.can_rule(OVERRIDE, &target(&instance))?;
    }
    set(&nova, &request, &instance, "unlock", Some("api_unlock"), |found| {
        found.locked_by = None;
        found.locked_reason = None;
    })
    .await
}

async fn reset_state(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let state = checked(&request, &schemas::RESET_STATE)?["os-resetState"]["state"].as_str();
    let state = if state == Some("active") { VmState::Active } else { VmState::Error };
    let instance = nova.server(&request).await?;
    set(&nova, &request, &instance, "resetState", None, move |found| {
        found.vm_state = state;
        found.task_state = None;
    })
    .await
}

/// A change in the database alone, recorded as an action.
async fn set(
    nova: &Nova,
    request: &Request,
    instance: &Instance,
    action: &'static str,
    event: Option<&'static str>,
    change: impl Fn(&mut Instance) + Send + 'static,
) -> Result<Reply> {
    let (cx, uuid, now) = (request.ctx.clone(), instance.uuid.clone(), nova.clock.now());
    nova.write(move |tx| {
        store::change(tx, &uuid, now, |found| change(found))?;
        actions::begin(tx, &cx, &uuid, action, now)?;
        let Some(event) = event else { return Ok(()) };
        let event = actions::Event { instance_uuid: &uuid, action, event, host: None };
        actions::end(tx, &cx, &event, None, now)
    })
    .await?;
    Ok(accepted())
}

async fn force_delete(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    nova.delete_server(&request, &instance.uuid).await?;
    Ok(accepted())
}

/// Servers are deleted at once here, as with upstream's `reclaim_instance_interval` of 0: none is ever in the state
/// from which it could come back.
async fn restore(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    power::check_state(&instance, &[VmState::SoftDeleted], &[], "restore")?;
    Err(Error::not_implemented("Deleted servers are not kept."))
}

/// The most of a console that is asked of a host.
const CONSOLE_BYTES_MAX: u64 = 1 << 20;

async fn console_output(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let length = &checked(&request, &schemas::CONSOLE_OUTPUT)?["os-getConsoleOutput"]["length"];
    let lines = length.as_i64().or_else(|| length.as_str()?.parse().ok());
    let instance = nova.server(&request).await?;
    let host = host_of(&instance)?;
    let own = nova.own(&request.ctx);
    let log = nova.compute(host).console_log(&own, &instance.uuid, CONSOLE_BYTES_MAX).await?;
    let text = String::from_utf8_lossy(&log);
    let lines = lines.and_then(|lines| usize::try_from(lines).ok());
    Ok(Reply::ok(json!({"output": lines.map_or(&*text, |lines| last_lines(&text, lines))})))
}

fn last_lines(text: &str, lines: usize) -> &str {
    let trimmed = text.strip_suffix('\n').unwrap_or(text);
    let mut breaks = trimmed.rmatch_indices('\n').map(|(at, _)| at + 1);
    match lines.checked_sub(1) {
        None => "",
        Some(before) => &text[breaks.nth(before).unwrap_or(0)..],
    }
}

/// What needs a host is refused before the server has one.
pub fn host_of(instance: &Instance) -> Result<&str> {
    let none = || Error::conflict(format!("Instance {} is not ready", instance.uuid));
    instance.host.as_deref().ok_or_else(none)
}

/// What the guest does then is its own matter.
async fn trigger_crash_dump(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &schemas::TRIGGER_CRASH_DUMP)?;
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    let host = host_of(&instance)?;
    let from = [VmState::Active, VmState::Paused, VmState::Rescued, VmState::Resized, VmState::Error];
    power::check_state(&instance, &from, &[], "trigger_crash_dump")?;
    let (own, agent) = (nova.own(&request.ctx), nova.compute(host));
    let (action, event) = ("trigger_crash_dump", "compute_trigger_crash_dump");
    let triggered = nova.act(&request.ctx, &instance, action, event, async || {
        agent.trigger_crash_dump(&own, &instance.uuid).await
    });
    // Upstream answers before the host has: how it went is among the server's actions.
    if let Err(error) = triggered.await {
        tracing::warn!(%error, server = instance.uuid, "no crash dump");
    }
    Ok(accepted())
}

async fn add_security_group(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let name = checked(&request, &schemas::ADD_SECURITY_GROUP)?["addSecurityGroup"]["name"].clone();
    let (instance, group_id) = security_group(&nova, &request, &name).await?;
    for port in ports(&nova, &request, &instance).await? {
        let mut ids: Vec<String> = port.security_groups.iter().map(|group| group.id.clone()).collect();
        if !ids.contains(&group_id) {
            ids.push(group_id.clone());
            set_groups(&nova, &request, &port.id, &ids).await?;
        }
    }
    nova.refresh_nics(&request.ctx, &instance.uuid).await?;
    Ok(accepted())
}

async fn remove_security_group(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let name = checked(&request, &schemas::REMOVE_SECURITY_GROUP)?["removeSecurityGroup"]["name"].clone();
    let (instance, group_id) = security_group(&nova, &request, &name).await?;
    let mut found = false;
    for port in ports(&nova, &request, &instance).await? {
        let ids: Vec<String> = port.security_groups.iter().map(|group| group.id.clone()).collect();
        if ids.contains(&group_id) {
            found = true;
            let kept: Vec<String> = ids.into_iter().filter(|id| *id != group_id).collect();
            set_groups(&nova, &request, &port.id, &kept).await?;
        }
    }
    if !found {
        return Err(Error::not_found(format!(
            "Security group {group_id} not associated with the instance {}",
            instance.uuid
        )));
    }
    nova.refresh_nics(&request.ctx, &instance.uuid).await?;
    Ok(accepted())
}

/// In the caller's name: neutron says whether he may.
async fn set_groups(nova: &Nova, request: &Request, port_id: &str, ids: &[String]) -> Result<()> {
    let body = json!({"port": {"security_groups": ids}});
    let path = format!("/v2.0/ports/{port_id}");
    nova.peers.apis.network.call(&request.ctx, "PUT", &path, Some(&body)).await.map(drop)
}

/// The server, and the group that is named.
async fn security_group(nova: &Nova, request: &Request, name: &Json) -> Result<(Instance, String)> {
    let name = name.as_str().unwrap_or_default().to_string();
    let instance = nova.server(request).await?;
    let found = nova.networks().security_groups(&request.ctx, std::slice::from_ref(&name)).await?;
    if let Some(group) = found.iter().find(|group| group.id == name) {
        return Ok((instance, group.id.clone()));
    }
    match found.as_slice() {
        [one] => Ok((instance, one.id.clone())),
        [] => {
            let project_id = own_project(request)["project_id"].clone();
            let project_id = project_id.as_str().unwrap_or_default();
            Err(Error::not_found(format!("Security group {name} is not found for project {project_id}")))
        }
        _ => Err(Error::conflict(format!(
            "Multiple security groups found matching '{name}'. Use an ID to be more specific."
        ))),
    }
}

async fn ports(
    nova: &Nova,
    request: &Request,
    instance: &Instance,
) -> Result<Vec<contracts::networks::Port>> {
    nova.networks().ports_of(&nova.own(&request.ctx), std::slice::from_ref(&instance.uuid)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_console() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(last_lines(text, lines), expected, "{text:?} {lines}");
        }
    }
}
