//! Questions to the database that are not a plain get or list, each named after what it answers.

use crate::{errors::*, model::*};
use base::{Error, Result, Timestamp};
use db::{Filter, List, Tx, Value, params, sql};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub fn volume(tx: &mut Tx, id: &str) -> Result<Volume> {
    tx.find::<Volume>(id)?.ok_or_else(|| volume_not_found(id))
}

pub fn snapshot(tx: &mut Tx, id: &str) -> Result<Snapshot> {
    tx.find::<Snapshot>(id)?.ok_or_else(|| snapshot_not_found(id))
}

pub fn attachment(tx: &mut Tx, id: &str) -> Result<Attachment> {
    tx.find::<Attachment>(id)?.ok_or_else(|| attachment_not_found(id))
}

pub fn attachments(tx: &mut Tx, volume_id: &str) -> Result<Vec<Attachment>> {
    tx.list(&List::all().eq("volume_id", volume_id).sort("created_at", db::Direction::Asc))
}

/// Volumes on these hosts, named with their pools or without.
pub fn volumes_on(tx: &mut Tx, hosts: &[String]) -> Result<Vec<Volume>> {
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    tx.list(&List::all().filter(Filter::any("host", hosts)).sort("id", db::Direction::Asc))
}

pub fn attachments_of(tx: &mut Tx, volume_ids: &[String]) -> Result<HashMap<String, Vec<Attachment>>> {
    let mut found: HashMap<String, Vec<Attachment>> = HashMap::new();
    for ids in volume_ids.chunks(PARAMETERS_MAX) {
        for attachment in tx.list::<Attachment>(&List::all().filter(Filter::any("volume_id", ids)))? {
            found.entry(attachment.volume_id.clone()).or_default().push(attachment);
        }
    }
    Ok(found)
}

/// What one statement is given at most.
const PARAMETERS_MAX: usize = 500;

pub fn snapshots(tx: &mut Tx, volume_id: &str) -> Result<Vec<Snapshot>> {
    tx.list(&List::all().eq("volume_id", volume_id).sort("created_at", db::Direction::Desc))
}

/// Sets columns of a volume whose status is one of these; false when it is another by now.
pub fn swap(
    tx: &mut Tx,
    id: &str,
    from: &[VolumeStatus],
    now: Timestamp,
    columns: &[(&'static str, Value)],
) -> Result<bool> {
    let mut columns = columns.to_vec();
    columns.push(("updated_at", Value::Int(now.0)));
    let filters = [Filter::eq("id", id), Filter::any("status", from.iter().copied())];
    Ok(tx.set::<Volume>(&filters, &columns)? > 0)
}

/// Changes a volume, if it is there.
pub fn change(tx: &mut Tx, id: &str, now: Timestamp, change: impl FnOnce(&mut Volume)) -> Result<bool> {
    let Some(mut volume) = tx.find::<Volume>(id)? else { return Ok(false) };
    change(&mut volume);
    volume.updated_at = Some(now);
    tx.update(&volume)
}

/// Changes a snapshot, if it is there.
pub fn change_snapshot(
    tx: &mut Tx,
    id: &str,
    now: Timestamp,
    change: impl FnOnce(&mut Snapshot),
) -> Result<bool> {
    let Some(mut snapshot) = tx.find::<Snapshot>(id)? else { return Ok(false) };
    change(&mut snapshot);
    snapshot.updated_at = Some(now);
    tx.update(&snapshot)
}

/// What volumes and snapshots of a project, all or of one type, use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub volumes: i64,
    pub snapshots: i64,
    pub gigabytes: i64,
}

/// By the id of the type, of which all that a project uses is the sum.
pub fn usage_by_type(tx: &mut Tx, project_id: &str) -> Result<HashMap<String, Usage>> {
    let mut found: HashMap<String, Usage> = HashMap::new();
    let volumes = tx.query(
        sql!(
            "SELECT volume_type_id, COUNT(*),
                CAST(COALESCE(SUM(CASE WHEN wanted_size > size THEN wanted_size ELSE size END), 0) AS BIGINT)
             FROM volumes WHERE project_id = $1 GROUP BY volume_type_id"
        ),
        params![project_id],
    )?;
    for row in volumes {
        let usage = found.entry(row.at(0)?).or_default();
        usage.volumes += row.at::<i64>(1)?;
        usage.gigabytes += row.at::<i64>(2)?;
    }
    let snapshots = tx.query(
        sql!(
            "SELECT volume_type_id, COUNT(*), CAST(COALESCE(SUM(volume_size), 0) AS BIGINT)
             FROM snapshots WHERE project_id = $1 GROUP BY volume_type_id"
        ),
        params![project_id],
    )?;
    for row in snapshots {
        let usage = found.entry(row.at(0)?).or_default();
        usage.snapshots += row.at::<i64>(1)?;
        usage.gigabytes += row.at::<i64>(2)?;
    }
    Ok(found)
}

/// The limits that an owner has instead of the configured ones.
pub fn quotas(tx: &mut Tx, owner: &str) -> Result<HashMap<String, i64>> {
    let rows = tx.list::<Quota>(&List::all().filter(Filter::eq("owner", owner)))?;
    Ok(rows.into_iter().map(|row| (row.resource, row.hard_limit)).collect())
}

pub fn set_quota(tx: &mut Tx, owner: &str, resource: &str, hard_limit: i64) -> Result<()> {
    tx.execute(
        sql!(
            "INSERT INTO quotas (owner, resource, hard_limit) VALUES ($1, $2, $3)
             ON CONFLICT (owner, resource) DO UPDATE SET hard_limit = excluded.hard_limit"
        ),
        params![owner, resource, hard_limit],
    )
    .map(drop)
}

pub fn delete_quotas(tx: &mut Tx, owner: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM quotas WHERE owner = $1"), params![owner]).map(drop)
}

/// How many GiB cinder has placed on each host (with its pool), and how many volumes.
pub fn placed(tx: &mut Tx) -> Result<HashMap<String, (i64, i64)>> {
    let rows = tx.query(
        sql!(
            "SELECT host, COUNT(*),
                CAST(COALESCE(SUM(CASE WHEN wanted_size > size THEN wanted_size ELSE size END), 0) AS BIGINT)
             FROM volumes WHERE host IS NOT NULL GROUP BY host"
        ),
        &[],
    )?;
    rows.iter().map(|row| Ok((row.at(0)?, (row.at(1)?, row.at(2)?)))).collect()
}

pub fn type_names(tx: &mut Tx) -> Result<BTreeMap<String, String>> {
    let rows = tx.query(sql!("SELECT id, name FROM volume_types"), &[])?;
    rows.iter().map(|row| Ok((row.at(0)?, row.at(1)?))).collect()
}

/// The ids of back ends' services by `host@backend`.
pub fn service_ids(tx: &mut Tx) -> Result<HashMap<String, String>> {
    let rows = tx.query(sql!("SELECT host, uuid FROM services"), &[])?;
    rows.iter().map(|row| Ok((row.at(0)?, row.at(1)?))).collect()
}

/// What a project's volumes hold together, for the summary: how many, GiB.
pub fn summary(tx: &mut Tx, project_id: Option<&str>) -> Result<(i64, i64)> {
    let row = match project_id {
        Some(id) => tx.one(
            sql!(
                "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM volumes WHERE project_id = $1"
            ),
            params![id],
        )?,
        None => tx.one(sql!("SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM volumes"), &[])?,
    };
    let row = row.ok_or_else(|| Error::internal("summary: no row"))?;
    Ok((row.at(0)?, row.at(1)?))
}

pub fn delete_attachments(tx: &mut Tx, volume_id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM volume_attachments WHERE volume_id = $1"), params![volume_id]).map(drop)
}

pub fn delete_snapshots(tx: &mut Tx, volume_id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM snapshots WHERE volume_id = $1"), params![volume_id]).map(drop)
}

pub fn delete_transfer_of(tx: &mut Tx, volume_id: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM transfers WHERE volume_id = $1"), params![volume_id]).map(drop)
}

pub fn delete_messages_before(tx: &mut Tx, now: Timestamp) -> Result<u64> {
    tx.execute(sql!("DELETE FROM messages WHERE expires_at < $1"), params![now])
}

/// Every pair of users' metadata on a project's volumes, or on all.
pub fn metadata_of_all(tx: &mut Tx, project_id: Option<&str>) -> Result<Vec<(String, String)>> {
    let rows = match project_id {
        Some(id) => tx.query(
            sql!("SELECT metadata FROM volumes WHERE project_id = $1 AND metadata <> '{}' ORDER BY created_at, id"),
            params![id],
        )?,
        None => tx.query(
            sql!("SELECT metadata FROM volumes WHERE metadata <> '{}' ORDER BY created_at, id"),
            &[],
        )?,
    };
    let mut pairs = Vec::new();
    for row in rows {
        pairs.extend(row.at::<Texts>(0)?.0);
    }
    Ok(pairs)
}

/// What a project has on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub volumes: i64,
    pub volumes_gb: i64,
    pub snapshots: i64,
    pub snapshots_gb: i64,
}

/// By project, of a host with its pool.
pub fn on_host(tx: &mut Tx, host: &str) -> Result<BTreeMap<String, Held>> {
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    let volumes = tx.query(
        sql!(
            "SELECT project_id, COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT)
             FROM volumes WHERE host = $1 GROUP BY project_id"
        ),
        params![host],
    )?;
    for row in volumes {
        let of_project = held.entry(row.at(0)?).or_default();
        (of_project.volumes, of_project.volumes_gb) = (row.at(1)?, row.at(2)?);
    }
    let snapshots = tx.query(
        sql!(
            "SELECT s.project_id, COUNT(*), CAST(COALESCE(SUM(s.volume_size), 0) AS BIGINT)
             FROM snapshots s JOIN volumes v ON v.id = s.volume_id WHERE v.host = $1 GROUP BY s.project_id"
        ),
        params![host],
    )?;
    for row in snapshots {
        let of_project = held.entry(row.at(0)?).or_default();
        (of_project.snapshots, of_project.snapshots_gb) = (row.at(1)?, row.at(2)?);
    }
    Ok(held)
}

/// Volumes of a back end that some host reaches.
pub fn connected_on(tx: &mut Tx, back_end: &str) -> Result<Vec<String>> {
    let rows = tx.query(
        sql!(
            // Its pools are found by leaps over the index of hosts.
            "WITH RECURSIVE pools(host) AS (
               SELECT MIN(host) FROM volumes
               UNION ALL SELECT (SELECT MIN(v.host) FROM volumes v WHERE v.host > pools.host) FROM pools
               WHERE pools.host IS NOT NULL)
             SELECT DISTINCT v.id FROM pools JOIN volumes v ON v.host = pools.host
             JOIN volume_attachments a ON a.volume_id = v.id
             WHERE a.connection IS NOT NULL AND pools.host LIKE $1 ESCAPE '\\' ORDER BY v.id"
        ),
        params![format!("{}#%", back_end.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_"))],
    )?;
    rows.iter().map(|row| row.at(0)).collect()
}

pub fn is_encrypted(tx: &mut Tx, type_id: &str) -> Result<bool> {
    Ok(tx.find::<Encryption>(type_id)?.is_some())
}

pub fn volume_ids(tx: &mut Tx) -> Result<BTreeSet<String>> {
    let rows = tx.query(sql!("SELECT id FROM volumes"), &[])?;
    rows.iter().map(|row| row.at(0)).collect()
}

/// The volume of each snapshot.
pub fn volumes_of_snapshots(tx: &mut Tx) -> Result<BTreeMap<String, String>> {
    let rows = tx.query(sql!("SELECT id, volume_id FROM snapshots"), &[])?;
    rows.iter().map(|row| Ok((row.at(0)?, row.at(1)?))).collect()
}

/// Those of these backups that others build on.
pub fn parents_among(tx: &mut Tx, ids: &[&str]) -> Result<BTreeSet<String>> {
    let mut parents = BTreeSet::new();
    for ids in ids.chunks(PARAMETERS_MAX) {
        let children = List::all().filter(Filter::any("parent_id", ids.iter().copied()));
        parents.extend(tx.list::<Backup>(&children)?.into_iter().filter_map(|child| child.parent_id));
    }
    Ok(parents)
}

/// How many backups a project has, of how many GiB together.
pub fn backups_used(tx: &mut Tx, project_id: &str) -> Result<(i64, i64)> {
    let row = tx.one(
        sql!("SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM backups WHERE project_id = $1"),
        params![project_id],
    )?;
    row.map_or(Ok((0, 0)), |row| Ok((row.at(0)?, row.at(1)?)))
}

pub fn change_group(tx: &mut Tx, id: &str, now: Timestamp, change: impl FnOnce(&mut Group)) -> Result<()> {
    let Some(mut group) = tx.find::<Group>(id)? else { return Ok(()) };
    change(&mut group);
    group.updated_at = Some(now);
    tx.update(&group).map(drop)
}

pub fn volumes_of_group(tx: &mut Tx, group_id: &str) -> Result<Vec<Volume>> {
    tx.list(&List::all().eq("group_id", group_id).sort("created_at", db::Direction::Asc))
}

pub fn snapshots_of_group(tx: &mut Tx, group_snapshot_id: &str) -> Result<Vec<Snapshot>> {
    tx.list(&List::all().eq("group_snapshot_id", group_snapshot_id).sort("created_at", db::Direction::Asc))
}

/// The ids of volumes that are in groups.
pub fn volumes_by_group(tx: &mut Tx) -> Result<HashMap<String, Vec<String>>> {
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    let rows = tx.query(
        sql!("SELECT group_id, id FROM volumes WHERE group_id IS NOT NULL ORDER BY created_at, id"),
        &[],
    )?;
    for row in rows {
        found.entry(row.at(0)?).or_default().push(row.at(1)?);
    }
    Ok(found)
}
