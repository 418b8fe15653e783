//! The records of moves, as `os-migrations` shows them, and what a server remembers of the one it is in.

use crate::{
    flows::relocate::{Place, PlannedVolume},
    model::{Extra, Flavor, Instance, InstanceExtra, LeftBehind, Migration, Resized},
    store,
};
use base::{Context, Result, Timestamp, id};
use db::{AsJson, Tx};

/// A move that begins. The id is also that of the consumer that holds the room where the server was.
pub fn begin(
    tx: &mut Tx,
    cx: &Context,
    instance: &Instance,
    migration_type: &str,
    new_flavor: &Flavor,
    now: Timestamp,
) -> Result<Migration> {
    let status = match migration_type {
        "live-migration" => "queued",
        "evacuation" => "accepted",
        _ => "pre-migrating",
    };
    let migration = Migration {
        uuid: id::uuid(),
        number: store::next_migration_number(tx)?,
        instance_uuid: instance.uuid.clone(),
        migration_type: migration_type.into(),
        status: status.into(),
        source_compute: instance.host.clone(),
        source_node: instance.node.clone(),
        dest_compute: None,
        dest_node: None,
        dest_host: None,
        old_flavor_id: Some(instance.flavor_id.clone()),
        new_flavor_id: Some(new_flavor.flavorid.clone()),
        user_id: cx.user_id.clone(),
        project_id: cx.project_id.clone(),
        created_at: now,
        updated_at: None,
    };
    tx.insert(&migration)?;
    Ok(migration)
}

pub fn set(tx: &mut Tx, uuid: &str, status: &str, now: Timestamp) -> Result<()> {
    change(tx, uuid, now, |migration| migration.status = status.into())
}

pub fn goes_to(tx: &mut Tx, uuid: &str, place: &Place, status: &str, now: Timestamp) -> Result<()> {
    change(tx, uuid, now, |migration| {
        migration.status = status.into();
        migration.dest_compute = Some(place.host.clone());
        migration.dest_node = Some(place.node.clone());
        migration.dest_host = Some(place.ip.clone());
    })
}

fn change(tx: &mut Tx, uuid: &str, now: Timestamp, change: impl FnOnce(&mut Migration)) -> Result<()> {
    let Some(mut migration) = tx.find::<Migration>(uuid)? else { return Ok(()) };
    change(&mut migration);
    migration.updated_at = Some(now);
    tx.update(&migration).map(drop)
}

/// What the server remembers beside its row.
pub fn extra(tx: &mut Tx, uuid: &str) -> Result<Extra> {
    Ok(tx.find::<InstanceExtra>(uuid)?.map(|found| found.extra.0).unwrap_or_default())
}

pub fn change_extra(tx: &mut Tx, uuid: &str, change: impl FnOnce(&mut Extra)) -> Result<()> {
    let mut row = match tx.find::<InstanceExtra>(uuid)? {
        Some(row) => row,
        None => {
            let row = InstanceExtra { instance_uuid: uuid.into(), extra: AsJson(Extra::default()) };
            tx.insert(&row)?;
            row
        }
    };
    change(&mut row.extra.0);
    tx.update(&row).map(drop)
}

/// Attachments, and a guest where a server was, of which nobody knows whether they are there; they go with the server.
pub fn leave_behind(
    tx: &mut Tx,
    uuid: &str,
    resized: Option<&Resized>,
    volumes: &[PlannedVolume],
) -> Result<()> {
    let attachments = volumes.iter().flat_map(|volume| [volume.old.clone(), volume.new.clone()]).collect();
    let left = LeftBehind {
        host: resized.map(|resized| resized.source.host.clone()).unwrap_or_default(),
        migration_uuid: resized.map(|resized| resized.migration_uuid.clone()).unwrap_or_default(),
        attachments,
    };
    change_extra(tx, uuid, |extra| extra.left_behind.push(left))
}
