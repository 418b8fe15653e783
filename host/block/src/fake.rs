//! A back end that only remembers, for tests and simulated clouds.

use crate::{
    Blocks, Export, Saved, Source, Stats, backup_missing, check_id, exported, snapshot_missing,
    volume_missing,
};
use async_trait::async_trait;
use base::{Error, Kept, Result};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Cheap to clone; clones are the same back end.
#[derive(Clone)]
pub struct Fake(Arc<Mutex<State>>);

struct State {
    capacity_bytes: u64,
    /// Bytes by id.
    volumes: Kept<u64>,
    snapshots: Kept<u64>,
    exports: Kept<()>,
    /// Of how large a disk.
    backups: Kept<u64>,
    refusals: Vec<Error>,
}

const CAPACITY_BYTES: u64 = 1 << 50;

impl Default for Fake {
    fn default() -> Self {
        Self::with_capacity(CAPACITY_BYTES)
    }
}

impl Fake {
    pub fn with_capacity(bytes: u64) -> Self {
        Self::new(bytes, Kept::default(), Kept::default(), Kept::default(), Kept::default())
    }

    /// One that remembers its disks in a folder when the process ends.
    pub fn kept(folder: &Path) -> Result<Self> {
        let [volumes, snapshots, backups] =
            ["volumes", "snapshots", "backups"].map(|kind| Kept::open(&folder.join(kind)));
        let exports = Kept::open(&folder.join("exports"))?;
        Ok(Self::new(CAPACITY_BYTES, volumes?, snapshots?, exports, backups?))
    }

    fn new(
        capacity_bytes: u64,
        volumes: Kept<u64>,
        snapshots: Kept<u64>,
        exports: Kept<()>,
        backups: Kept<u64>,
    ) -> Self {
        let refusals = Vec::new();
        Self(Arc::new(Mutex::new(State { capacity_bytes, volumes, snapshots, exports, backups, refusals })))
    }

    /// The next change fails so.
    pub fn refuse(&self, error: Error) {
        self.0.lock().refusals.push(error);
    }

    pub fn volumes(&self) -> BTreeMap<String, u64> {
        self.0.lock().volumes.entries().clone()
    }

    pub fn snapshots(&self) -> BTreeMap<String, u64> {
        self.0.lock().snapshots.entries().clone()
    }

    pub fn exports(&self) -> BTreeSet<String> {
        self.0.lock().exports.entries().keys().cloned().collect()
    }

    /// As when the machine was off.
    pub fn lose_exports(&self) -> Result<()> {
        self.0.lock().exports.clear()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.0.lock();
        match state.refusals.pop() {
            Some(error) => Err(error),
            None => change(&mut state),
        }
    }
}

#[async_trait]
impl Blocks for Fake {
    fn image_file(&self, _volume_id: &str) -> Option<PathBuf> {
        None
    }

    async fn holds(&self, volume_id: &str) -> Result<bool> {
        Ok(self.0.lock().volumes.get(volume_id).is_some())
    }

    async fn create(&self, volume_id: &str, bytes: u64, source: &Source) -> Result<()> {
        check_id(volume_id)?;
        self.change(|state| {
            let found = match source {
                Source::Empty | Source::Image { .. } | Source::Export(_) => Some(&0),
                Source::Snapshot(id) => state.snapshots.get(id),
                Source::Volume(id) => state.volumes.get(id),
                Source::Backup(id) => state.backups.get(id),
            };
            let least = match (found, source) {
                (Some(least), _) => *least,
                (None, Source::Snapshot(id)) => return Err(snapshot_missing(id)),
                (None, Source::Backup(id)) => return Err(backup_missing(id)),
                (None, _) => return Err(volume_missing(volume_id)),
            };
            match state.volumes.get(volume_id) {
                Some(_) => Ok(()),
                None => state.volumes.insert(volume_id, bytes.max(least)),
            }
        })
    }

    async fn extend(&self, volume_id: &str, bytes: u64) -> Result<()> {
        self.change(|state| {
            let extended = state.volumes.change(volume_id, |disk| *disk = bytes.max(*disk))?;
            extended.ok_or_else(|| volume_missing(volume_id))
        })
    }

    fn grows_online(&self) -> bool {
        true
    }

    /// Its disks are nothing but zeros, which two formats write in few bytes.
    async fn copy_out(&self, volume_id: &str, copy_id: &str, format: &str) -> Result<PathBuf> {
        check_id(copy_id)?;
        let bytes = self
            .change(|state| state.volumes.get(volume_id).copied().ok_or_else(|| volume_missing(volume_id)))?;
        let path = std::env::temp_dir().join(format!("pretended-disk-{copy_id}"));
        match format {
            "raw" => tokio::fs::File::create(&path).await?.set_len(bytes).await?,
            "qcow2" => tokio::fs::write(&path, empty_qcow2(bytes)).await?,
            other => {
                return Err(Error::bad_request(format!("A pretended disk is not copied as {other}.")));
            }
        }
        Ok(path)
    }

    async fn delete(&self, volume_id: &str) -> Result<()> {
        self.change(|state| {
            state.exports.remove(volume_id)?;
            state.volumes.remove(volume_id).map(drop)
        })
    }

    async fn snapshot(&self, snapshot_id: &str, volume_id: &str) -> Result<()> {
        check_id(snapshot_id)?;
        self.change(|state| {
            let bytes = *state.volumes.get(volume_id).ok_or_else(|| volume_missing(volume_id))?;
            match state.snapshots.get(snapshot_id) {
                Some(_) => Ok(()),
                None => state.snapshots.insert(snapshot_id, bytes),
            }
        })
    }

    async fn volumes(&self) -> Result<Vec<(String, u64)>> {
        Ok(self.volumes().into_iter().collect())
    }

    async fn snapshots(&self) -> Result<Vec<(String, u64)>> {
        Ok(self.snapshots().into_iter().collect())
    }

    async fn adopt(&self, id: &str, volume_id: &str) -> Result<u64> {
        check_id(volume_id)?;
        self.change(|state| {
            if state.exports.get(id).is_some() {
                return Err(exported(id));
            }
            rename(&mut state.volumes, id, volume_id)?.ok_or_else(|| volume_missing(id))
        })
    }

    async fn adopt_snapshot(&self, id: &str, snapshot_id: &str) -> Result<()> {
        check_id(snapshot_id)?;
        self.change(|state| {
            let renamed = rename(&mut state.snapshots, id, snapshot_id)?;
            renamed.map(drop).ok_or_else(|| snapshot_missing(id))
        })
    }

    async fn delete_snapshot(&self, snapshot_id: &str) -> Result<()> {
        self.change(|state| state.snapshots.remove(snapshot_id).map(drop))
    }

    async fn revert(&self, volume_id: &str, snapshot_id: &str) -> Result<()> {
        self.change(|state| {
            if state.exports.get(volume_id).is_some() {
                return Err(exported(volume_id));
            }
            state.snapshots.get(snapshot_id).map(drop).ok_or_else(|| snapshot_missing(snapshot_id))
        })
    }

    async fn export(&self, volume_id: &str, read_only: bool, _host: &str) -> Result<Export> {
        self.change(|state| {
            if state.volumes.get(volume_id).is_none() {
                return Err(volume_missing(volume_id));
            }
            state.exports.insert(volume_id, ())?;
            let name = if read_only { format!("{volume_id}-ro") } else { volume_id.to_string() };
            Ok(Export::Unix { socket: format!("/fake/{volume_id}.nbd").into(), name })
        })
    }

    async fn is_exported(&self, volume_id: &str) -> Result<bool> {
        Ok(self.0.lock().exports.get(volume_id).is_some())
    }

    async fn export_again(&self, volume_id: &str) -> Result<()> {
        self.export(volume_id, false, "").await.map(drop)
    }

    async fn unexport(&self, volume_id: &str, left: &[String]) -> Result<()> {
        self.change(|state| match left.is_empty() {
            true => state.exports.remove(volume_id).map(drop),
            false => Ok(()),
        })
    }

    async fn back_up(&self, backup_id: &str, from: &Source, _parent: Option<&str>) -> Result<Saved> {
        check_id(backup_id)?;
        self.change(|state| {
            let bytes = match from {
                Source::Volume(id) => *state.volumes.get(id).ok_or_else(|| volume_missing(id))?,
                Source::Snapshot(id) => *state.snapshots.get(id).ok_or_else(|| snapshot_missing(id))?,
                other => return Err(Error::internal(format!("{other:?} is not backed up"))),
            };
            state.backups.insert(backup_id, bytes)?;
            Ok(Saved { bytes, chunks: 0 })
        })
    }

    async fn saved(&self, backup_id: &str) -> Result<Saved> {
        let bytes = self.0.lock().backups.get(backup_id).copied();
        bytes.map(|bytes| Saved { bytes, chunks: 0 }).ok_or_else(|| backup_missing(backup_id))
    }

    async fn restore(&self, backup_id: &str, volume_id: &str) -> Result<()> {
        self.change(|state| {
            if state.exports.get(volume_id).is_some() {
                return Err(exported(volume_id));
            }
            state.volumes.get(volume_id).ok_or_else(|| volume_missing(volume_id))?;
            state.backups.get(backup_id).map(drop).ok_or_else(|| backup_missing(backup_id))
        })
    }

    async fn delete_backup(&self, backup_id: &str) -> Result<()> {
        self.change(|state| state.backups.remove(backup_id).map(drop))
    }

    async fn stats(&self) -> Result<Stats> {
        let state = self.0.lock();
        Ok(Stats {
            total_bytes: state.capacity_bytes,
            // Its disks are empty, as sparse files are at first.
            free_bytes: state.capacity_bytes,
            provisioned_bytes: [&state.volumes, &state.snapshots]
                .map(|disks| disks.entries().values().sum::<u64>())
                .iter()
                .sum(),
        })
    }
}

/// A qcow2 image of zeros: its header, the table and one block of reference counts, and an empty first table.
fn empty_qcow2(bytes: u64) -> Vec<u8> {
    const CLUSTER: u64 = 1 << 16;
    // One entry of the first table stands for a cluster of entries of a second one.
    let entries = bytes.div_ceil(CLUSTER * CLUSTER / 8);
    let table_clusters = (entries * 8).div_ceil(CLUSTER);
    let mut image = vec![0; ((3 + table_clusters) * CLUSTER) as usize];
    let mut put = |at: u64, value: &[u8]| image[at as usize..][..value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &2u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &bytes.to_be_bytes());
    put(36, &(entries as u32).to_be_bytes());
    put(40, &(3 * CLUSTER).to_be_bytes());
    put(48, &CLUSTER.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER).to_be_bytes());
    for cluster in 0..3 + table_clusters {
        put(2 * CLUSTER + 2 * cluster, &1u16.to_be_bytes());
    }
    image
}

/// None when neither is there.
fn rename(disks: &mut Kept<u64>, from: &str, to: &str) -> Result<Option<u64>> {
    if let Some(bytes) = disks.get(from).copied() {
        disks.insert(to, bytes)?;
        disks.remove(from)?;
    }
    Ok(disks.get(to).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn zeros_as_qcow2_are_an_image() {
        let dir = tempfile::tempdir().unwrap();
        for gib in [1, 700, 3000] {
            let path = dir.path().join("image");
            std::fs::write(&path, empty_qcow2(gib << 30)).unwrap();
            let found = image_format::inspect_file(&path).unwrap();
            found.check().unwrap();
            assert_eq!((found.format, found.virtual_size_bytes), (image_format::Format::Qcow2, gib << 30));
        }
    }
}
