//! The agent of a back end whose disks are numbers.

use crate::{
    agents::volume::{
        AGENT_TOPIC, BackEnd, DiskSource, KeptDisk, NewBackup, NewDisk, Reach, SavedBackup, VolumeAgent,
        volume_agent_handlers,
    },
    compute::{Connection, ImageSink},
};
use async_trait::async_trait;
use base::{Context, Error, Result};
use bus::{Bus, Serving, Topic};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::io::AsyncReadExt;

const GIB: u64 = 1 << 30;
const CAPACITY_GB: f64 = 1048576.0;

/// Cheap to clone; clones are the same back end.
#[derive(Clone)]
pub struct FakeVolumeAgent {
    host: String,
    capacity_gb: f64,
    sink: Option<Arc<dyn ImageSink>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Bytes by id.
    volumes: BTreeMap<String, u64>,
    snapshots: BTreeMap<String, u64>,
    /// The hosts that reach a volume.
    exports: BTreeMap<String, BTreeSet<String>>,
    /// Of how large a disk.
    backups: BTreeMap<String, u64>,
    refusals: Vec<Error>,
}

impl FakeVolumeAgent {
    /// `host@backend`.
    pub fn new(host: &str) -> Self {
        Self { host: host.into(), capacity_gb: CAPACITY_GB, sink: None, state: Arc::default() }
    }

    pub fn with_capacity_gb(mut self, capacity_gb: f64) -> Self {
        self.capacity_gb = capacity_gb;
        self
    }

    /// Gives it where images of volumes are brought to.
    pub fn uploads_to(mut self, sink: Arc<dyn ImageSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    pub async fn serve(&self, bus: &Bus) -> Result<Serving> {
        let topic = Topic::on(AGENT_TOPIC, &self.host);
        bus.serve(topic, volume_agent_handlers(Arc::new(self.clone()))).await
    }

    /// What it would report.
    pub fn back_end(&self) -> BackEnd {
        let name = self.host.split_once('@').map_or("", |(_, name)| name);
        let state = self.state();
        let provisioned: u64 = state.volumes.values().chain(state.snapshots.values()).sum();
        BackEnd {
            host: self.host.clone(),
            pool: name.into(),
            name: name.into(),
            availability_zone: "nova".into(),
            vendor: "Fake".into(),
            driver_version: "1".into(),
            storage_protocol: "nbd".into(),
            total_gb: self.capacity_gb,
            free_gb: self.capacity_gb,
            provisioned_gb: (provisioned / GIB) as f64,
            max_over_subscription_ratio: 20.0,
            multiattach: true,
            online_extend: true,
            ..BackEnd::default()
        }
    }

    /// The next change fails so.
    pub fn refuse(&self, error: Error) {
        self.state().refusals.push(error);
    }

    /// Puts a disk there that nobody knows of.
    pub fn leave(&self, id: &str, bytes: u64) {
        self.state().volumes.insert(id.into(), bytes);
    }

    pub fn volumes(&self) -> BTreeMap<String, u64> {
        self.state().volumes.clone()
    }

    pub fn snapshots(&self) -> BTreeMap<String, u64> {
        self.state().snapshots.clone()
    }

    pub fn exports(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.state().exports.clone()
    }

    pub fn backups(&self) -> BTreeMap<String, u64> {
        self.state().backups.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state();
        match state.refusals.pop() {
            Some(error) => Err(error),
            None => change(&mut state),
        }
    }
}

fn volume_missing(id: &str) -> Error {
    Error::not_found(format!("Volume {id} is not on this back end."))
}

fn snapshot_missing(id: &str) -> Error {
    Error::not_found(format!("Snapshot {id} is not on this back end."))
}

fn backup_missing(id: &str) -> Error {
    Error::not_found(format!("Backup {id} is not where this back end looks for backups."))
}

fn exported(id: &str) -> Error {
    Error::conflict(format!("Volume {id} is connected to a host."))
}

#[async_trait]
impl VolumeAgent for FakeVolumeAgent {
    async fn create(&self, _cx: &Context, volume: &NewDisk) -> Result<()> {
        self.change(|state| {
            let least = match &volume.source {
                DiskSource::Empty | DiskSource::Image { .. } | DiskSource::Export { .. } => 0,
                DiskSource::Snapshot { id } => {
                    *state.snapshots.get(id).ok_or_else(|| snapshot_missing(id))?
                }
                DiskSource::Volume { id } => *state.volumes.get(id).ok_or_else(|| volume_missing(id))?,
                DiskSource::Backup { id } => *state.backups.get(id).ok_or_else(|| backup_missing(id))?,
            };
            state.volumes.entry(volume.id.clone()).or_insert((volume.size_gb * GIB).max(least));
            Ok(())
        })
    }

    async fn extend(&self, _cx: &Context, volume_id: &str, size_gb: u64) -> Result<()> {
        self.change(|state| {
            let disk = state.volumes.get_mut(volume_id).ok_or_else(|| volume_missing(volume_id))?;
            *disk = (*disk).max(size_gb * GIB);
            Ok(())
        })
    }

    async fn upload(&self, cx: &Context, volume_id: &str, image_id: &str, disk_format: &str) -> Result<()> {
        let bytes = self
            .change(|state| state.volumes.get(volume_id).copied().ok_or_else(|| volume_missing(volume_id)))?;
        if disk_format != "raw" {
            return Err(Error::bad_request(format!(
                "A pretended disk is copied as raw, not as {disk_format}."
            )));
        }
        let sink = self.sink.as_ref().ok_or_else(|| Error::conflict("This back end reaches no images."))?;
        sink.upload(cx, image_id, &mut tokio::io::repeat(0).take(bytes)).await
    }

    async fn delete(&self, _cx: &Context, volume_id: &str) -> Result<()> {
        self.change(|state| {
            state.exports.remove(volume_id);
            state.volumes.remove(volume_id);
            Ok(())
        })
    }

    async fn create_snapshot(&self, _cx: &Context, snapshot_id: &str, volume_id: &str) -> Result<()> {
        self.change(|state| {
            let bytes = *state.volumes.get(volume_id).ok_or_else(|| volume_missing(volume_id))?;
            state.snapshots.entry(snapshot_id.into()).or_insert(bytes);
            Ok(())
        })
    }

    async fn kept(&self, _cx: &Context, snapshots: bool) -> Result<Vec<KeptDisk>> {
        let state = self.state();
        let disks = if snapshots { &state.snapshots } else { &state.volumes };
        Ok(disks.iter().map(|(id, bytes)| KeptDisk { id: id.clone(), bytes: *bytes }).collect())
    }

    async fn adopt(&self, _cx: &Context, id: &str, volume_id: &str) -> Result<u64> {
        self.change(|state| {
            if state.exports.contains_key(id) {
                return Err(exported(id));
            }
            let bytes = rename(&mut state.volumes, id, volume_id).ok_or_else(|| volume_missing(id))?;
            let size_gb = bytes.div_ceil(GIB).max(1);
            state.volumes.insert(volume_id.into(), size_gb * GIB);
            Ok(size_gb)
        })
    }

    async fn adopt_snapshot(&self, _cx: &Context, id: &str, snapshot_id: &str) -> Result<()> {
        self.change(|state| {
            rename(&mut state.snapshots, id, snapshot_id).map(drop).ok_or_else(|| snapshot_missing(id))
        })
    }

    async fn delete_snapshot(&self, _cx: &Context, snapshot_id: &str) -> Result<()> {
        self.change(|state| {
            state.snapshots.remove(snapshot_id);
            Ok(())
        })
    }

    async fn back_up(&self, _cx: &Context, backup: &NewBackup) -> Result<SavedBackup> {
        self.change(|state| {
            let bytes = match &backup.snapshot_id {
                Some(id) => *state.snapshots.get(id).ok_or_else(|| snapshot_missing(id))?,
                None => {
                    let id = &backup.volume_id;
                    *state.volumes.get(id).ok_or_else(|| volume_missing(id))?
                }
            };
            if let Some(parent) = &backup.parent_id {
                state.backups.get(parent).ok_or_else(|| backup_missing(parent))?;
            }
            state.backups.insert(backup.id.clone(), bytes);
            Ok(SavedBackup { bytes, objects: 1 })
        })
    }

    async fn saved_backup(&self, _cx: &Context, backup_id: &str) -> Result<SavedBackup> {
        self.change(|state| {
            let bytes = *state.backups.get(backup_id).ok_or_else(|| backup_missing(backup_id))?;
            Ok(SavedBackup { bytes, objects: 1 })
        })
    }

    async fn restore(&self, _cx: &Context, backup_id: &str, volume_id: &str) -> Result<()> {
        self.change(|state| {
            if state.exports.contains_key(volume_id) {
                return Err(exported(volume_id));
            }
            state.volumes.get(volume_id).ok_or_else(|| volume_missing(volume_id))?;
            state.backups.get(backup_id).map(drop).ok_or_else(|| backup_missing(backup_id))
        })
    }

    async fn delete_backup(&self, _cx: &Context, backup_id: &str) -> Result<()> {
        self.change(|state| {
            state.backups.remove(backup_id);
            Ok(())
        })
    }

    async fn revert(&self, _cx: &Context, volume_id: &str, snapshot_id: &str) -> Result<()> {
        self.change(|state| {
            if state.exports.contains_key(volume_id) {
                return Err(exported(volume_id));
            }
            state.snapshots.get(snapshot_id).map(drop).ok_or_else(|| snapshot_missing(snapshot_id))
        })
    }

    async fn connect(&self, _cx: &Context, volume_id: &str, from: &Reach) -> Result<Connection> {
        self.change(|state| {
            if !state.volumes.contains_key(volume_id) {
                return Err(volume_missing(volume_id));
            }
            state.exports.entry(volume_id.into()).or_default().insert(from.host.clone());
            let export = if from.read_only { format!("{volume_id}-ro") } else { volume_id.to_string() };
            Ok(Connection::NbdUnix { socket: format!("/fake/{volume_id}.nbd"), export })
        })
    }

    async fn disconnect(&self, _cx: &Context, volume_id: &str, left: &[String]) -> Result<()> {
        self.change(|state| {
            match (left.is_empty(), state.exports.get_mut(volume_id)) {
                (true, _) => drop(state.exports.remove(volume_id)),
                (false, Some(hosts)) => *hosts = left.iter().cloned().collect(),
                (false, None) => {}
            }
            Ok(())
        })
    }
}

/// None when neither is there.
fn rename(disks: &mut BTreeMap<String, u64>, from: &str, to: &str) -> Option<u64> {
    if let Some(bytes) = disks.remove(from) {
        disks.insert(to.into(), bytes);
    }
    disks.get(to).copied()
}
