//! Groups of volumes: which may belong together, and what is done to all of one. Their volumes and snapshots are made
//! and removed by the operations that make and remove each; when the last of them ends, the group is what it was to be.

use crate::{
    Cinder,
    errors::{invalid_input, invalid_volume},
    model::*,
    quota,
    requests::{self, WantedSnapshot, sees, type_for, volume_for},
    scheduler, store,
};
use base::{Context, Error, Result, Timestamp, id};
use db::{Filter, List, Tx};
use std::sync::Arc;

/// A group that somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    /// Id or name.
    pub group_type: String,
    pub volume_types: Vec<String>,
    pub availability_zone: Option<String>,
}

/// Name and description.
pub type Said = (Option<String>, Option<String>);

pub fn group_not_found(id: &str) -> Error {
    Error::not_found(format!("Group {id} could not be found."))
}

pub fn snapshot_not_found(id: &str) -> Error {
    Error::not_found(format!("GroupSnapshot {id} could not be found."))
}

fn invalid_group(reason: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Invalid Group: {reason}"))
}

pub fn group_for(tx: &mut Tx, cx: &Context, id: &str) -> Result<Group> {
    let found = tx.find::<Group>(id)?.filter(|group| sees(cx, &group.project_id));
    found.ok_or_else(|| group_not_found(id))
}

pub fn snapshot(tx: &mut Tx, id: &str) -> Result<GroupSnapshot> {
    tx.find::<GroupSnapshot>(id)?.ok_or_else(|| snapshot_not_found(id))
}

pub fn snapshot_for(tx: &mut Tx, cx: &Context, id: &str) -> Result<GroupSnapshot> {
    let found = tx.find::<GroupSnapshot>(id)?.filter(|one| sees(cx, &one.project_id));
    found.ok_or_else(|| snapshot_not_found(id))
}

fn group_type(tx: &mut Tx, id_or_name: &str) -> Result<GroupType> {
    if let Some(found) = tx.find::<GroupType>(id_or_name)? {
        return Ok(found);
    }
    let named = tx.list::<GroupType>(&List::all().eq("name", id_or_name))?.into_iter().next();
    named.ok_or_else(|| match id::is_uuid(id_or_name) {
        true => Error::not_found(format!("Group type {id_or_name} could not be found.")),
        false => Error::not_found(format!("Group type with name {id_or_name} could not be found.")),
    })
}

fn check_quota(cinder: &Cinder, tx: &mut Tx, project_id: &str) -> Result<()> {
    let limit = quota::limits(tx, &cinder.options, project_id)?.get("groups").copied().unwrap_or(-1);
    let used = tx.count::<Group>(&[Filter::eq("project_id", project_id)])?;
    match limit >= 0 && used >= limit {
        true => Err(Error::over_quota(format!(
            "GroupLimitExceeded: Maximum number of groups allowed ({limit}) exceeded"
        ))),
        false => Ok(()),
    }
}

/// It has a back end at once, or is in error: nothing has to be made there.
pub fn create(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, wanted: &Wanted) -> Result<Group> {
    let kind = group_type(tx, &wanted.group_type)?;
    let types: Vec<VolumeType> =
        wanted.volume_types.iter().map(|name| type_for(tx, cx, name)).collect::<Result<_>>()?;
    let default = &cinder.options.storage_availability_zone;
    let zone = wanted.availability_zone.as_ref().unwrap_or(default).clone();
    if zone != *default && !requests::zones(tx)?.contains_key(&zone) {
        return Err(invalid_input(format!("Availability zone '{zone}' is invalid.")));
    }
    check_quota(cinder, tx, &cx.project_id)?;
    // Disks are copied one after another, and nowhere else.
    let host = match CONSISTENT.iter().chain(REPLICATED).any(|spec| wants(&kind, spec)) {
        true => None,
        false => place(cinder, tx, &types, &zone)?,
    };
    let group = Group {
        id: wanted.id.clone(),
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        status: if host.is_some() { GroupStatus::Available } else { GroupStatus::Error },
        availability_zone: zone,
        group_type_id: kind.id,
        volume_types: types.into_iter().map(|kind| kind.id).collect(),
        group_snapshot_id: None,
        source_group_id: None,
        host,
        created_at: cinder.clock.now(),
        updated_at: None,
    };
    tx.insert(&group)?;
    Ok(group)
}

const CONSISTENT: &[&str] = &["consistent_group_snapshot_enabled"];
const REPLICATED: &[&str] = &["group_replication_enabled", "consistent_group_replication_enabled"];

fn wants(kind: &GroupType, spec: &str) -> bool {
    kind.group_specs.get(spec).is_some_and(|value| value.as_deref() == Some("<is> True"))
}

/// Why a group's volumes are not copied to another place, in upstream's order: no back end does that, and no group
/// that wants it is available.
pub fn refuse_replication(tx: &mut Tx, group: &Group, verb: &str) -> Result<()> {
    let invalid_type = |reason: String| Err(Error::bad_request(format!("Invalid {reason}")));
    let kind = tx.find::<GroupType>(&group.group_type_id)?;
    if !kind.is_some_and(|kind| REPLICATED.iter().any(|spec| wants(&kind, spec))) {
        return invalid_type(format!("group type: Group {} is not a replication group type.", group.id));
    }
    for id in &group.volume_types {
        let kind = tx.find::<VolumeType>(id)?;
        let enabled = kind.is_some_and(|kind| {
            kind.extra_specs.get("replication_enabled").is_some_and(|value| value == "<is> True")
        });
        if !enabled {
            return invalid_type(format!(
                "volume type: Volume type {id} does not have 'replication_enabled' spec key set to '<is> True'."
            ));
        }
    }
    Err(invalid_group(format!(
        "Group {} status must be ['available'], but current status is: {}. Cannot {verb} replication.",
        group.id, group.status
    )))
}

/// A host that fits all types.
fn place(cinder: &Cinder, tx: &mut Tx, types: &[VolumeType], zone: &str) -> Result<Option<String>> {
    let mut host: Option<String> = None;
    for kind in types {
        let wanted = scheduler::Wanted {
            size: 0,
            availability_zone: zone,
            kind,
            multiattach: requests::is_multiattach(kind),
            encrypted: store::is_encrypted(tx, &kind.id)?,
            beside: host.as_deref(),
        };
        match scheduler::choose(tx, &cinder.options, cinder.clock.now(), &wanted) {
            Ok(chosen) => host = Some(chosen),
            Err(_) => return Ok(None),
        }
    }
    Ok(host)
}

/// Whether a new volume may be in the group; answers the group's host.
pub fn admit(tx: &mut Tx, cx: &Context, group_id: &str, kind: &VolumeType) -> Result<Option<String>> {
    let group = group_for(tx, cx, group_id)?;
    if !group.volume_types.contains(&kind.id) {
        return Err(invalid_input(format!(
            "Invalid volume_type provided: {} (requested type must be supported by this group).",
            kind.name
        )));
    }
    Ok(group.host)
}

fn made_from(cinder: &Cinder, tx: &mut Tx, cx: &Context, source: &Group, said: Said) -> Result<Group> {
    check_quota(cinder, tx, &cx.project_id)?;
    Ok(Group {
        id: id::uuid(),
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        name: said.0,
        description: said.1,
        status: GroupStatus::Creating,
        created_at: cinder.clock.now(),
        updated_at: None,
        group_snapshot_id: None,
        source_group_id: None,
        ..source.clone()
    })
}

pub fn create_from_snapshot(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    group_snapshot_id: &str,
    said: Said,
) -> Result<Group> {
    let from = snapshot_for(tx, cx, group_snapshot_id)?;
    let source = group_for(tx, cx, &from.group_id)?;
    let snapshots = store::snapshots_of_group(tx, group_snapshot_id)?;
    if snapshots.is_empty() {
        return Err(invalid_group("Group snapshot is empty. No group will be created."));
    }
    let made = made_from(cinder, tx, cx, &source, said)?;
    let group = Group { group_snapshot_id: Some(group_snapshot_id.into()), ..made };
    tx.insert(&group)?;
    for snapshot in snapshots {
        let wanted = requests::Wanted {
            id: id::uuid(),
            snapshot_id: Some(snapshot.id),
            group_id: Some(group.id.clone()),
            ..requests::Wanted::default()
        };
        requests::create(cinder, tx, cx, &wanted)?;
    }
    Ok(group)
}

pub fn create_from_group(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    source_group_id: &str,
    said: Said,
) -> Result<Group> {
    let source = group_for(tx, cx, source_group_id)?;
    let volumes = store::volumes_of_group(tx, source_group_id)?;
    if volumes.is_empty() {
        return Err(invalid_group("Source Group is empty. No group will be created."));
    }
    let made = made_from(cinder, tx, cx, &source, said)?;
    let group = Group { source_group_id: Some(source_group_id.into()), ..made };
    tx.insert(&group)?;
    for volume in volumes {
        let wanted = requests::Wanted {
            id: id::uuid(),
            source_volid: Some(volume.id),
            group_id: Some(group.id.clone()),
            ..requests::Wanted::default()
        };
        requests::create(cinder, tx, cx, &wanted)?;
    }
    Ok(group)
}

/// What an update asks for.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub description: Option<String>,
    pub add: Vec<String>,
    pub remove: Vec<String>,
}

pub fn update(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str, wanted: &Change) -> Result<()> {
    let mut group = group_for(tx, cx, id)?;
    let both: Vec<&String> = wanted.add.iter().filter(|id| wanted.remove.contains(id)).collect();
    if !both.is_empty() {
        let ids = both.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
        return Err(invalid_volume(format!("UUIDs [{ids}] are in both add and remove volume list.")));
    }
    let name = wanted.name.clone().filter(|name| group.name.as_ref() != Some(name));
    let description = wanted.description.clone().filter(|text| group.description.as_ref() != Some(text));
    let members: Vec<String> = store::volumes_of_group(tx, id)?.into_iter().map(|one| one.id).collect();
    let added: Vec<&String> = wanted.add.iter().filter(|id| !members.contains(id)).collect();
    if name.is_none() && description.is_none() && added.is_empty() && wanted.remove.is_empty() {
        return Err(invalid_group(format!(
            "Cannot update group {id} because no valid name, description, add_volumes, or remove_volumes were provided."
        )));
    }
    if !(added.is_empty() && wanted.remove.is_empty()) && group.status != GroupStatus::Available {
        return Err(invalid_group("Group status must be available."));
    }
    let now = cinder.clock.now();
    for volume_id in added {
        refuse_to_add(tx, cx, &group, volume_id)?;
        store::change(tx, volume_id, now, |volume| volume.group_id = Some(id.into()))?;
    }
    for volume_id in &wanted.remove {
        if !members.contains(volume_id) {
            return Err(invalid_volume(format!(
                "Cannot remove volume {volume_id} from group {id} because it is not in the group."
            )));
        }
        store::change(tx, volume_id, now, |volume| volume.group_id = None)?;
    }
    group.name = name.or(group.name);
    group.description = description.or(group.description);
    group.status = GroupStatus::Available;
    group.updated_at = Some(now);
    tx.update(&group).map(drop)
}

fn refuse_to_add(tx: &mut Tx, cx: &Context, group: &Group, volume_id: &str) -> Result<()> {
    let refuse = |why: String| {
        Err(invalid_volume(format!("Cannot add volume {volume_id} to group {} because {why}", group.id)))
    };
    let Ok(volume) = volume_for(tx, cx, volume_id) else { return refuse("volume cannot be found.".into()) };
    if let Some(other) = &volume.group_id {
        return refuse(format!("it is already in group {other}."));
    }
    if !group.volume_types.contains(&volume.volume_type_id) {
        return refuse(format!("volume type {} is not supported by the group.", volume.volume_type_id));
    }
    if !matches!(volume.status, VolumeStatus::Available | VolumeStatus::InUse) {
        return refuse(format!(
            "volume is in an invalid state: {}. Valid states are: ('available', 'in-use').",
            volume.status
        ));
    }
    if volume.host != group.host {
        return Err(invalid_volume("Volume is not local to this node."));
    }
    Ok(())
}

pub fn delete(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str, with_volumes: bool) -> Result<()> {
    let group = group_for(tx, cx, id)?;
    if !with_volumes && !matches!(group.status, GroupStatus::Available | GroupStatus::Error) {
        return Err(invalid_group(format!(
            "Group status must be available or error, but current status is: {}",
            group.status
        )));
    }
    if tx.count::<GroupSnapshot>(&[Filter::eq("group_id", id)])? > 0 {
        return Err(invalid_group("Group has existing snapshots."));
    }
    let volumes = store::volumes_of_group(tx, id)?;
    if !volumes.is_empty() && !with_volumes {
        return Err(invalid_group(format!(
            "Group {id} still contains volumes. The delete-volumes flag is required to delete it."
        )));
    }
    for volume in &volumes {
        if volume.attach_status == AttachStatus::Attached {
            return Err(invalid_group(format!("Volume in group {id} is attached. Need to detach first.")));
        }
        if !store::snapshots(tx, &volume.id)?.is_empty() {
            return Err(invalid_group("Volume in group still has dependent snapshots."));
        }
    }
    store::change_group(tx, id, cinder.clock.now(), |group| group.status = GroupStatus::Deleting)?;
    for volume in &volumes {
        requests::delete_with_group(cinder, tx, cx, &volume.id)?;
    }
    settle(tx, id, cinder.clock.now())
}

/// All volumes of the group at one request; each is kept as it is when its turn comes.
pub fn create_snapshot(
    cinder: &Arc<Cinder>,
    tx: &mut Tx,
    cx: &Context,
    group_id: &str,
    said: Said,
) -> Result<GroupSnapshot> {
    let group = group_for(tx, cx, group_id)?;
    let volumes = store::volumes_of_group(tx, group_id)?;
    if volumes.is_empty() || matches!(group.status, GroupStatus::Creating | GroupStatus::Updating) {
        return Err(invalid_group(
            "Source group cannot be empty or in 'creating' or 'updating' state. No group snapshot will be created.",
        ));
    }
    let made = GroupSnapshot {
        id: id::uuid(),
        group_id: group_id.into(),
        group_type_id: group.group_type_id,
        project_id: cx.project_id.clone(),
        user_id: cx.user_id.clone(),
        name: said.0,
        description: said.1,
        status: GroupStatus::Creating,
        created_at: cinder.clock.now(),
    };
    tx.insert(&made)?;
    for volume in volumes {
        let wanted = WantedSnapshot {
            volume_id: volume.id,
            name: made.name.clone(),
            description: made.description.clone(),
            in_use: true,
            group_snapshot_id: Some(made.id.clone()),
            ..WantedSnapshot::default()
        };
        requests::create_snapshot(cinder, tx, cx, &wanted)?;
    }
    Ok(made)
}

pub fn delete_snapshot(cinder: &Arc<Cinder>, tx: &mut Tx, cx: &Context, id: &str) -> Result<()> {
    let mut found = snapshot_for(tx, cx, id)?;
    let being_copied = tx.count::<Group>(&[
        Filter::eq("group_snapshot_id", id),
        Filter::eq("status", GroupStatus::Creating),
    ])?;
    if !matches!(found.status, GroupStatus::Available | GroupStatus::Error) || being_copied > 0 {
        return Err(Error::bad_request(
            "Invalid GroupSnapshot: GroupSnapshot status must be available or error, and no Group can be currently using it as source for its creation.",
        ));
    }
    found.status = GroupStatus::Deleting;
    tx.update(&found)?;
    for snapshot in store::snapshots_of_group(tx, id)? {
        requests::delete_snapshot_with_group(cinder, tx, cx, &snapshot.id)?;
    }
    settle_snapshot(tx, id)
}

/// What a group is once one of its volumes has become what it was to be, or is gone.
pub fn settle(tx: &mut Tx, id: &str, now: Timestamp) -> Result<()> {
    let Some(group) = tx.find::<Group>(id)? else { return Ok(()) };
    let volumes = store::volumes_of_group(tx, id)?;
    let any = |status: VolumeStatus| volumes.iter().any(|volume| volume.status == status);
    match group.status {
        GroupStatus::Deleting if volumes.is_empty() => tx.remove::<Group>(id).map(drop),
        GroupStatus::Deleting if any(VolumeStatus::ErrorDeleting) => {
            store::change_group(tx, id, now, |group| group.status = GroupStatus::ErrorDeleting)
        }
        GroupStatus::Creating if any(VolumeStatus::Error) => {
            store::change_group(tx, id, now, |group| group.status = GroupStatus::Error)
        }
        GroupStatus::Creating if !any(VolumeStatus::Creating) => {
            store::change_group(tx, id, now, |group| group.status = GroupStatus::Available)
        }
        _ => Ok(()),
    }
}

/// The same for a snapshot of a group.
pub fn settle_snapshot(tx: &mut Tx, id: &str) -> Result<()> {
    let Some(mut found) = tx.find::<GroupSnapshot>(id)? else { return Ok(()) };
    let snapshots = store::snapshots_of_group(tx, id)?;
    let any = |status: SnapshotStatus| snapshots.iter().any(|one| one.status == status);
    found.status = match found.status {
        GroupStatus::Deleting if snapshots.is_empty() => {
            return tx.remove::<GroupSnapshot>(id).map(drop);
        }
        GroupStatus::Deleting if any(SnapshotStatus::ErrorDeleting) => GroupStatus::ErrorDeleting,
        GroupStatus::Creating if any(SnapshotStatus::Error) => GroupStatus::Error,
        GroupStatus::Creating if !any(SnapshotStatus::Creating) => GroupStatus::Available,
        other => other,
    };
    tx.update(&found).map(drop)
}
