//! Questions to the database that are not a plain get or list, each named after what it answers.

use crate::model::*;
use base::{Context, Error, Result, Timestamp};
use db::{Filter, List, Tx, params, sql};
use std::collections::{BTreeSet, HashMap};

pub fn instance_not_found(uuid: &str) -> Error {
    Error::not_found(format!("Instance {uuid} could not be found.")).code(NO_INSTANCE)
}

pub const NO_INSTANCE: &str = "InstanceNotFound";

/// A server that is not deleted.
pub fn instance(tx: &mut Tx, uuid: &str) -> Result<Instance> {
    tx.find::<Instance>(uuid)?.filter(|found| !found.deleted).ok_or_else(|| instance_not_found(uuid))
}

/// Also one that is deleted.
pub fn any_instance(tx: &mut Tx, uuid: &str) -> Result<Instance> {
    tx.find::<Instance>(uuid)?.ok_or_else(|| instance_not_found(uuid))
}

pub fn next_instance_number(tx: &mut Tx) -> Result<i64> {
    next(tx, sql!("SELECT COALESCE(MAX(number), 0) + 1 FROM instances"))
}

pub fn next_service_number(tx: &mut Tx) -> Result<i64> {
    next(tx, sql!("SELECT COALESCE(MAX(number), 0) + 1 FROM services"))
}

pub fn next_node_number(tx: &mut Tx) -> Result<i64> {
    next(tx, sql!("SELECT COALESCE(MAX(number), 0) + 1 FROM compute_nodes"))
}

pub fn next_migration_number(tx: &mut Tx) -> Result<i64> {
    next(tx, sql!("SELECT COALESCE(MAX(number), 0) + 1 FROM migrations"))
}

pub fn next_key_number(tx: &mut Tx) -> Result<i64> {
    next(tx, sql!("SELECT COALESCE(MAX(number), 0) + 1 FROM key_pairs"))
}

pub fn next_aggregate_id(tx: &mut Tx) -> Result<i64> {
    next(tx, sql!("SELECT COALESCE(MAX(id), 0) + 1 FROM aggregates"))
}

fn next(tx: &mut Tx, sql: &str) -> Result<i64> {
    tx.one(sql, &[])?.ok_or_else(|| Error::internal("no number"))?.at(0)
}

pub fn flavor_not_found(id: &str) -> Error {
    Error::not_found(format!("Flavor {id} could not be found."))
}

/// A flavor that the caller may use: a private one is not there for who has no access.
pub fn flavor(tx: &mut Tx, cx: &Context, id: &str) -> Result<Flavor> {
    let visible =
        |flavor: &Flavor| flavor.is_public || cx.is_admin() || flavor.projects.contains(&cx.project_id);
    tx.find::<Flavor>(id)?.filter(visible).ok_or_else(|| flavor_not_found(id))
}

/// What a project's servers use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub instances: i64,
    pub cores: i64,
    pub ram: i64,
}

pub fn usage(tx: &mut Tx, project_id: &str) -> Result<Usage> {
    let row = tx.one(
        sql!(
            "SELECT COUNT(*), CAST(COALESCE(SUM(vcpus), 0) AS BIGINT), CAST(COALESCE(SUM(memory_mb), 0) AS BIGINT)
             FROM instances WHERE project_id = $1 AND deleted = FALSE"
        ),
        params![project_id],
    )?;
    let row = row.ok_or_else(|| Error::internal("usage: no row"))?;
    Ok(Usage { instances: row.at(0)?, cores: row.at(1)?, ram: row.at(2)? })
}

/// The limits that a project has instead of the configured ones.
pub fn quotas(tx: &mut Tx, project_id: &str) -> Result<HashMap<String, i64>> {
    let rows = tx.list::<Quota>(&List::all().eq("project_id", project_id).eq("user_id", ""))?;
    Ok(rows.into_iter().map(|row| (row.resource, row.hard_limit)).collect())
}

/// All limits of a project and its users.
pub fn delete_quotas(tx: &mut Tx, project_id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM quotas WHERE project_id = $1"), params![project_id]).map(drop)
}

pub fn delete_quotas_of_user(tx: &mut Tx, project_id: &str, user_id: &str) -> Result<()> {
    let sql = sql!("DELETE FROM quotas WHERE project_id = $1 AND user_id = $2");
    tx.execute(sql, params![project_id, user_id]).map(drop)
}

pub fn block_devices(tx: &mut Tx, instance_uuid: &str) -> Result<Vec<BlockDevice>> {
    let wanted = List::all().eq("instance_uuid", instance_uuid).sort("device_name", db::Direction::Asc);
    tx.list(&wanted)
}

pub fn block_devices_of(tx: &mut Tx, instance_uuids: &[String]) -> Result<Vec<BlockDevice>> {
    if instance_uuids.is_empty() {
        return Ok(Vec::new());
    }
    tx.list(&List::all().filter(Filter::any("instance_uuid", instance_uuids)))
}

/// Hosts and what their agents told of them, with the process behind each.
pub fn hosts(tx: &mut Tx) -> Result<Vec<(ComputeNode, Service)>> {
    let mut services: HashMap<String, Service> = tx
        .list::<Service>(&List::all().eq("program", "nova-compute"))?
        .into_iter()
        .map(|service| (service.host.clone(), service))
        .collect();
    let nodes = tx.list::<ComputeNode>(&List::all())?;
    Ok(nodes.into_iter().filter_map(|node| services.remove(&node.host).map(|s| (node, s))).collect())
}

/// The zone of a host: that of the aggregates it is in.
pub fn zone_of(aggregates: &[Aggregate], host: &str) -> Option<String> {
    let mut of_host = aggregates.iter().filter(|aggregate| aggregate.hosts.iter().any(|h| h == host));
    of_host.find_map(|aggregate| aggregate.metadata.get("availability_zone").cloned())
}

/// Servers of a group that are not deleted: id and host.
pub fn group_members(tx: &mut Tx, group_id: &str) -> Result<Vec<(String, Option<String>)>> {
    let rows = tx.query(
        sql!(
            "SELECT uuid, host FROM instances WHERE server_group_id = $1 AND deleted = FALSE
             ORDER BY created_at, uuid"
        ),
        params![group_id],
    )?;
    rows.iter().map(|row| Ok((row.at(0)?, row.at(1)?))).collect()
}

/// Members of several groups, by group.
pub fn members_of_groups(tx: &mut Tx, group_ids: &[String]) -> Result<HashMap<String, Vec<String>>> {
    let mut members = HashMap::<String, Vec<String>>::new();
    if group_ids.is_empty() {
        return Ok(members);
    }
    let wanted = List::all().eq("deleted", false).filter(Filter::any("server_group_id", group_ids));
    for server in tx.list::<Instance>(&wanted.sort("created_at", db::Direction::Asc))? {
        members.entry(server.server_group_id.unwrap_or_default()).or_default().push(server.uuid);
    }
    Ok(members)
}

/// How many servers these hosts have.
pub fn servers_on(tx: &mut Tx, hosts: &[String]) -> Result<i64> {
    tx.count::<Instance>(&[Filter::eq("deleted", false), Filter::any("host", hosts)])
}

/// They themselves.
pub fn servers_of_host(tx: &mut Tx, host: &str) -> Result<Vec<Instance>> {
    tx.list(&List::all().eq("host", host).eq("deleted", false).sort("uuid", db::Direction::Asc))
}

/// Servers elsewhere that their owners may still send back to a host.
pub fn resized_away_from(tx: &mut Tx, host: &str) -> Result<Vec<String>> {
    let rows = tx.query(
        sql!(
            "SELECT i.uuid FROM migrations m JOIN instances i ON i.uuid = m.instance_uuid
             WHERE m.source_compute = $1 AND m.status = 'finished' AND i.deleted = FALSE
               AND i.vm_state = 'resized' AND i.host <> $1 AND i.task_state IS NULL ORDER BY i.uuid"
        ),
        params![host],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// The processes on hosts, and the aggregates that say in which zone they are.
pub fn services_and_aggregates(tx: &mut Tx) -> Result<(Vec<Service>, Vec<Aggregate>)> {
    let services = tx.list::<Service>(&List::all().sort("number", db::Direction::Asc))?;
    Ok((services, tx.list::<Aggregate>(&List::all())?))
}

/// Servers, deleted ones too, that were there in a span of time.
pub fn alive_in(
    tx: &mut Tx,
    start: Timestamp,
    stop: Timestamp,
    project_id: Option<&str>,
) -> Result<Vec<Instance>> {
    let mut wanted = List::all()
        .filter(Filter::new("launched_at", db::Op::Lt, stop))
        .sort("project_id", db::Direction::Asc)
        .sort("uuid", db::Direction::Asc);
    if let Some(project) = project_id {
        wanted = wanted.eq("project_id", project);
    }
    let mut servers = tx.list::<Instance>(&wanted)?;
    servers.retain(|server| server.terminated_at.is_none_or(|ended| ended > start));
    Ok(servers)
}

/// How many servers on a host have something done to them.
pub fn busy_on(tx: &mut Tx) -> Result<HashMap<String, i64>> {
    let rows = tx.query(
        sql!(
            "SELECT host, COUNT(*) FROM instances
             WHERE deleted = FALSE AND host IS NOT NULL AND task_state IS NOT NULL GROUP BY host"
        ),
        &[],
    )?;
    rows.iter().map(|row| Ok((row.at(0)?, row.at(1)?))).collect()
}

/// The moves of a server.
pub fn migrations_of(tx: &mut Tx, instance_uuid: &str) -> Result<Vec<Migration>> {
    tx.list(&List::all().eq("instance_uuid", instance_uuid).sort("number", db::Direction::Asc))
}

/// The servers that shall be on a host, and whether they shall run; those that are on their way to it or from it, too.
pub fn instances_on(tx: &mut Tx, host: &str) -> Result<Vec<(String, VmState)>> {
    let rows = tx.query(
        sql!(
            "SELECT uuid, vm_state FROM instances
             WHERE deleted = FALSE AND (host = $1 OR uuid IN (
               SELECT instance_uuid FROM migrations
               WHERE (source_compute = $1 OR dest_compute = $1) AND migration_type <> 'evacuation'
                 AND status IN ('queued', 'preparing', 'running', 'pre-migrating', 'migrating', 'post-migrating',
                   'confirming', 'reverting')
               UNION ALL
               SELECT instance_uuid FROM migrations
               WHERE dest_compute = $1 AND migration_type = 'evacuation' AND status = 'pre-migrating'))
             ORDER BY uuid"
        ),
        params![host],
    )?;
    rows.iter().map(|row| Ok((row.at(0)?, row.at(1)?))).collect()
}

/// Servers that are just being started elsewhere because this host was silent.
pub fn evacuated_from(tx: &mut Tx, host: &str) -> Result<Vec<String>> {
    let rows = tx.query(
        sql!(
            "SELECT instance_uuid FROM migrations
             WHERE source_compute = $1 AND migration_type = 'evacuation' AND status IN ('accepted', 'pre-migrating')"
        ),
        params![host],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// A volume that some server holds or is about to.
pub fn holders_of_volume(tx: &mut Tx, volume_id: &str) -> Result<Vec<BlockDevice>> {
    tx.list(&List::all().eq("volume_id", volume_id))
}

/// Changes a server that is not deleted; false when there is none.
pub fn change(
    tx: &mut Tx,
    uuid: &str,
    now: Timestamp,
    mut change: impl FnMut(&mut Instance),
) -> Result<bool> {
    let Some(mut instance) = tx.find::<Instance>(uuid)?.filter(|found| !found.deleted) else {
        return Ok(false);
    };
    change(&mut instance);
    instance.updated_at = now;
    tx.update(&instance)
}

/// The compute services of some hosts.
pub fn services_on(tx: &mut Tx, hosts: &BTreeSet<String>) -> Result<Vec<Service>> {
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    tx.list(&List::all().filter(Filter::any("host", hosts)).eq("program", "nova-compute"))
}

pub fn service_on(tx: &mut Tx, host: &str) -> Result<Option<Service>> {
    let wanted = List::all().eq("host", host).eq("program", "nova-compute");
    Ok(tx.list::<Service>(&wanted)?.into_iter().next())
}

pub fn node_on(tx: &mut Tx, host: &str) -> Result<Option<ComputeNode>> {
    Ok(tx.list::<ComputeNode>(&List::all().eq("host", host))?.into_iter().next())
}

pub fn delete_block_devices(tx: &mut Tx, instance_uuid: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM block_devices WHERE instance_uuid = $1"), params![instance_uuid]).map(drop)
}

/// How hosts reached these volumes holds no longer.
pub fn forget_connections(tx: &mut Tx, ids: &[String]) -> Result<()> {
    ids.iter().try_for_each(|id| {
        tx.execute(sql!("UPDATE block_devices SET connection = NULL WHERE id = $1"), params![id]).map(drop)
    })
}

pub fn forget_old_console_tokens(tx: &mut Tx, now: Timestamp) -> Result<()> {
    tx.execute(sql!("DELETE FROM console_tokens WHERE expires_at <= $1"), params![now]).map(drop)
}
