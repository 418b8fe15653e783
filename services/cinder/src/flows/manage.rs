//! Takes a disk or snapshot that is on a back end already under its management.

use crate::{
    Cinder,
    messages::{self, Action},
    model::*,
    quota::{self, Added},
    store,
};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ManageVolume {
    pub volume_id: String,
    /// Its name on the back end, if the caller gave one.
    pub source: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ManageSnapshot {
    pub snapshot_id: String,
    pub volume_id: String,
    pub source: Option<String>,
}

impl Flow for ManageVolume {
    const KIND: &'static str = "manage_volume";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(adopt, undo give_back)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        store::change(tx, &volume.id, cinder.clock.now(), |volume| {
            volume.status = VolumeStatus::ErrorManaging;
        })?;
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), Action::Manage, error)
    }
}

impl Flow for ManageSnapshot {
    const KIND: &'static str = "manage_snapshot";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(adopt_snapshot, undo give_snapshot_back)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(snapshot) = tx.find::<Snapshot>(&self.snapshot_id)? else { return Ok(()) };
        store::change_snapshot(tx, &snapshot.id, cinder.clock.now(), |s| s.status = SnapshotStatus::Error)?;
        let about = ("VOLUME_SNAPSHOT", snapshot.id.as_str(), snapshot.project_id.as_str());
        messages::tell(cinder, tx, cx, about, Action::Manage, error)
    }
}

/// The id under the prefix that names of volumes and snapshots have.
fn id_of<'a>(source: Option<&'a str>, prefix: &str) -> Result<&'a str> {
    let refused = |reference: &str, why: &str| {
        Error::bad_request(format!(
            "Manage existing volume failed due to invalid backend reference {reference}: {why}"
        ))
    };
    let name = source.ok_or_else(|| refused("None", "Reference must contain source-name element."))?;
    let id = name.strip_prefix(prefix).unwrap_or(name);
    match base::id::is_uuid(id) {
        true => Ok(id),
        false => Err(refused(name, "Names of disks end with an id.")),
    }
}

async fn adopt(cinder: &Arc<Cinder>, cx: &Context, flow: &mut ManageVolume) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    let id = id_of(flow.source.as_deref(), VOLUME_PREFIX)?;
    let size = cinder.agent_of(&volume)?.adopt(&cinder.own(cx), id, &volume.id).await?;
    let cinder = cinder.clone();
    Ok(Effect::write(move |tx| {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let kind = tx.find::<VolumeType>(&volume.volume_type_id)?.map(|kind| kind.name).unwrap_or_default();
        let added = Added { gigabytes: size, ..Added::default() };
        quota::check(tx, &cinder.options, &volume.project_id, &kind, added)?;
        let now = cinder.clock.now();
        store::change(tx, &volume.id, now, |volume| {
            volume.size = size;
            volume.status = VolumeStatus::Available;
            volume.launched_at = Some(now);
        })
        .map(drop)
    }))
}

async fn give_back(cinder: &Arc<Cinder>, cx: &Context, flow: &mut ManageVolume) -> Result<Effect> {
    let volume = cinder.volume_if_there(&flow.volume_id).await?;
    if let (Some(volume), Ok(id)) = (volume, id_of(flow.source.as_deref(), VOLUME_PREFIX)) {
        super::or_gone(cinder.agent_of(&volume)?.adopt(&cinder.own(cx), &volume.id, id).await)?;
    }
    Ok(Effect::none())
}

async fn adopt_snapshot(cinder: &Arc<Cinder>, cx: &Context, flow: &mut ManageSnapshot) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    let id = id_of(flow.source.as_deref(), SNAPSHOT_PREFIX)?;
    cinder.agent_of(&volume)?.adopt_snapshot(&cinder.own(cx), id, &flow.snapshot_id).await?;
    let (cinder, id) = (cinder.clone(), flow.snapshot_id.clone());
    Ok(Effect::write(move |tx| {
        store::change_snapshot(tx, &id, cinder.clock.now(), |snapshot| {
            snapshot.progress = "100%".into();
            snapshot.status = SnapshotStatus::Available;
        })
        .map(drop)
    }))
}

async fn give_snapshot_back(cinder: &Arc<Cinder>, cx: &Context, flow: &mut ManageSnapshot) -> Result<Effect> {
    let volume = cinder.volume_if_there(&flow.volume_id).await?;
    if let (Some(volume), Ok(id)) = (volume, id_of(flow.source.as_deref(), SNAPSHOT_PREFIX)) {
        let agent = cinder.agent_of(&volume)?;
        super::or_gone(agent.adopt_snapshot(&cinder.own(cx), &flow.snapshot_id, id).await)?;
    }
    Ok(Effect::none())
}

/// What comes before the id in the name of a volume that is offered to be managed.
pub const VOLUME_PREFIX: &str = "volume-";
pub const SNAPSHOT_PREFIX: &str = "_snapshot-";
