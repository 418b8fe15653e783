//! The live migrations of a server that are under way: `servers/{id}/migrations`.

use super::{check_unlocked, checked, queries, target};
use crate::{
    Nova, actions,
    flows::power::check_state,
    model::{Instance, Migration, TaskState, VmState},
    schemas::moves,
    store,
};
use base::{Error, Json, Result, Timestamp};
use contracts::compute::{LiveState, Progress};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action, delete, get};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/servers/{server_id}/migrations";
    const ONE: &str = "/v2.1/servers/{server_id}/migrations/{id}";
    const ACTION: &str = "/v2.1/servers/{server_id}/migrations/{id}/action";
    vec![
        get(ALL, "os_compute_api:servers:migrations:index", index).since(2, 23),
        get(ONE, "os_compute_api:servers:migrations:show", show).since(2, 23),
        delete(ONE, "os_compute_api:servers:migrations:delete", abort).since(2, 24),
        action(ACTION, "force_complete", "os_compute_api:servers:migrations:force_complete", force_complete)
            .since(2, 22),
    ]
}

const UNDER_WAY: &[&str] = &["queued", "preparing", "running", "post-migrating"];

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    let instance = nova.server(&request).await?;
    let with_hosts = request.may("os_compute_api:servers:migrations:index:host", &target(&instance));
    let uuid = instance.uuid.clone();
    let mut found = nova.read(move |tx| store::migrations_of(tx, &uuid)).await?;
    found.retain(|row| row.migration_type == "live-migration" && UNDER_WAY.contains(&&*row.status));
    let mut shown = Vec::new();
    for row in &found {
        let state = nova.live_state(&request, row).await;
        shown.push(view(&request, row, &state, with_hosts));
    }
    Ok(Reply::ok(json!({"migrations": shown})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    let instance = nova.server(&request).await?;
    let (id, uuid) = (request.param("id"), &instance.uuid);
    let missing =
        |_| Error::not_found(format!("In-progress live migration {id} is not found for server {uuid}."));
    let migration = nova.migration(&request, &instance).await.map_err(missing)?;
    if migration.migration_type != "live-migration" {
        return Err(Error::not_found(format!("Migration {id} for server {uuid} is not live-migration.")));
    }
    if !UNDER_WAY.contains(&&*migration.status) {
        return Err(Error::not_found(format!("Live migration {id} for server {uuid} is not in progress.")));
    }
    let state = nova.live_state(&request, &migration).await;
    Ok(Reply::ok(json!({"migration": view(&request, &migration, &state, true)})))
}

async fn force_complete(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &moves::FORCE_COMPLETE)?;
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    check_migrating(&instance, &[VmState::Active], "force_complete")?;
    let not_found = |error: Error| Error::bad_request(error.message);
    let migration = nova.migration(&request, &instance).await.map_err(not_found)?;
    check_status(&migration, &["running"], "force complete")?;
    nova.force_complete(&request.ctx, &migration).await?;
    nova.record(&request, &instance, "live_migration_force_complete").await?;
    Ok(Reply::empty(StatusCode::ACCEPTED).header("content-type", "application/json"))
}

async fn abort(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    check_migrating(&instance, VmState::ALL, "abort live migration")?;
    let migration = nova.migration(&request, &instance).await?;
    let allowed: &[&str] = match request.since(2, 65) {
        true => &["running", "queued", "preparing"],
        false => &["running"],
    };
    check_status(&migration, allowed, "abort live migration")?;
    nova.abort_migration(&request.ctx, &migration).await?;
    nova.record(&request, &instance, "live_migration_cancel").await?;
    Ok(Reply::empty(StatusCode::ACCEPTED).header("content-type", "application/json"))
}

/// Unlike elsewhere the task must be under way.
fn check_migrating(instance: &Instance, from: &[VmState], name: &str) -> Result<()> {
    if instance.task_state == Some(TaskState::Migrating) {
        return check_state(instance, from, &[TaskState::Migrating], name);
    }
    let uuid = &instance.uuid;
    Err(Error::conflict(match instance.task_state {
        Some(task) => {
            format!("Cannot '{name}' instance {uuid} while it is in task_state {}", task.as_str())
        }
        None => format!("Instance {uuid} is in an invalid state for '{name}'"),
    }))
}

fn check_status(migration: &Migration, allowed: &[&str], method: &str) -> Result<()> {
    match allowed.contains(&&*migration.status) {
        true => Ok(()),
        false => Err(Error::bad_request(format!(
            "Migration {} state of instance {} is {}. Cannot {method} while the migration is in this state.",
            migration.number, migration.instance_uuid, migration.status
        ))),
    }
}

impl Nova {
    /// By its number or its id.
    async fn migration(&self, request: &Request, instance: &Instance) -> Result<Migration> {
        let (id, uuid) = (request.param("id").to_string(), instance.uuid.clone());
        let missing = Error::not_found(format!("Migration {id} not found for instance {uuid}"));
        let found = self.read(move |tx| store::migrations_of(tx, &uuid)).await?;
        let is = |row: &Migration| row.number.to_string() == id || row.uuid == id;
        found.into_iter().find(is).ok_or(missing)
    }

    /// What the source tells of it; nothing, when it tells nothing.
    async fn live_state(&self, request: &Request, migration: &Migration) -> LiveState {
        let host = migration.source_compute.clone().unwrap_or_default();
        let agent = self.compute(&host);
        let state = agent.live_migration_state(&self.own(&request.ctx), &migration.instance_uuid).await;
        state.unwrap_or_default()
    }

    async fn record(&self, request: &Request, instance: &Instance, action: &'static str) -> Result<()> {
        let (cx, uuid, now) = (request.ctx.clone(), instance.uuid.clone(), self.clock.now());
        self.write(move |tx| {
            actions::begin(tx, &cx, &uuid, action, now)?;
            let event = "compute_".to_string() + action;
            let event = actions::Event { instance_uuid: &uuid, action, event: &event, host: None };
            actions::end(tx, &cx, &event, None, now)
        })
        .await
    }
}

fn view(request: &Request, row: &Migration, state: &LiveState, with_hosts: bool) -> Json {
    let host = |name: &Option<String>| name.clone().filter(|_| with_hosts);
    let known = |progress: &Progress, bytes: u64| (progress.total_bytes > 0).then_some(bytes);
    let (memory, disk) = (&state.memory, &state.disk);
    let mut one = json!({
        "created_at": row.created_at.micros(),
        "dest_compute": host(&row.dest_compute),
        "dest_host": host(&row.dest_host),
        "dest_node": host(&row.dest_node),
        "disk_processed_bytes": known(disk, disk.processed_bytes),
        "disk_remaining_bytes": known(disk, disk.remaining_bytes),
        "disk_total_bytes": known(disk, disk.total_bytes),
        "id": row.number,
        "memory_processed_bytes": known(memory, memory.processed_bytes),
        "memory_remaining_bytes": known(memory, memory.remaining_bytes),
        "memory_total_bytes": known(memory, memory.total_bytes),
        "server_uuid": row.instance_uuid,
        "source_compute": host(&row.source_compute),
        "source_node": host(&row.source_node),
        "status": row.status,
        "updated_at": row.updated_at.map(Timestamp::micros),
    });
    if request.since(2, 59) {
        one["uuid"] = row.uuid.clone().into();
    }
    if request.since(2, 80) {
        one["user_id"] = row.user_id.clone().into();
        one["project_id"] = row.project_id.clone().into();
    }
    one
}
