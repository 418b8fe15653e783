//! What cinder and the agent of a back end say to each other. The agent has no database: arguments carry what it
//! needs, ids are cinder's, and every message may arrive twice: what is already so is a success.

use crate::compute::Connection;
use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};

/// The agent of one back end. A `Timeout` means an unknown outcome: asking again is harmless.
#[async_trait]
pub trait VolumeAgent: Send + Sync {
    async fn create(&self, cx: &Context, volume: &NewDisk) -> Result<()>;

    /// Grows a volume, also while hosts have it where the back end can ([`BackEnd::online_extend`]).
    async fn extend(&self, cx: &Context, volume_id: &str, size_gb: u64) -> Result<()>;

    /// Copies the volume, as it is at one moment, into an image that waits for its bytes.
    async fn upload(&self, cx: &Context, volume_id: &str, image_id: &str, disk_format: &str) -> Result<()>;

    /// Removes the volume and its exports; one that is gone is fine.
    async fn delete(&self, cx: &Context, volume_id: &str) -> Result<()>;

    /// Keeps the volume as it is now, also while a guest writes to it.
    async fn create_snapshot(&self, cx: &Context, snapshot_id: &str, volume_id: &str) -> Result<()>;

    /// The disks, or the snapshots, that are on the back end, whoever made them.
    async fn kept(&self, cx: &Context, snapshots: bool) -> Result<Vec<KeptDisk>>;

    /// Gives a disk that is there another id, and a size of whole GiB, which it answers.
    async fn adopt(&self, cx: &Context, id: &str, volume_id: &str) -> Result<u64>;

    async fn adopt_snapshot(&self, cx: &Context, id: &str, snapshot_id: &str) -> Result<()>;

    async fn delete_snapshot(&self, cx: &Context, snapshot_id: &str) -> Result<()>;

    /// Saves a volume, as it is at one moment, or a snapshot.
    async fn back_up(&self, cx: &Context, backup: &NewBackup) -> Result<SavedBackup>;

    /// A backup that is where this agent looks for them; `NotFound` otherwise.
    async fn saved_backup(&self, cx: &Context, backup_id: &str) -> Result<SavedBackup>;

    /// Makes a volume that nobody is connected to as the backup has it.
    async fn restore(&self, cx: &Context, backup_id: &str, volume_id: &str) -> Result<()>;

    async fn delete_backup(&self, cx: &Context, backup_id: &str) -> Result<()>;

    /// Makes a volume that nobody is connected to as the snapshot has it.
    async fn revert(&self, cx: &Context, volume_id: &str, snapshot_id: &str) -> Result<()>;

    /// Makes the volume reachable from a host.
    async fn connect(&self, cx: &Context, volume_id: &str, from: &Reach) -> Result<Connection>;

    /// These hosts reach the volume still, and no other.
    async fn disconnect(&self, cx: &Context, volume_id: &str, left: &[String]) -> Result<()>;
}

/// What the agent tells cinder, and the one thing it asks.
#[async_trait]
pub trait VolumeReports: Send + Sync {
    /// At start and regularly as a sign of life.
    async fn back_end_reported(&self, cx: &Context, back_end: &BackEnd) -> Result<()>;

    /// The volumes of a back end that hosts reach: their exports shall stand, also after the machine was off.
    async fn volumes_connected(&self, cx: &Context, back_end: &str) -> Result<Vec<String>>;
}

bus::remote! {
    /// The agent of another back end, on the topic `volume_agent` and its back end's name.
    pub struct RemoteVolumeAgent: VolumeAgent as volume_agent_handlers {
        create(volume: &NewDisk = NewDisk) -> ();
        extend(volume_id: &str = String, size_gb: u64 = u64) -> ();
        upload(volume_id: &str = String, image_id: &str = String, disk_format: &str = String) -> ();
        delete(volume_id: &str = String) -> ();
        create_snapshot(snapshot_id: &str = String, volume_id: &str = String) -> ();
        kept(snapshots: bool = bool) -> Vec<KeptDisk>;
        adopt(id: &str = String, volume_id: &str = String) -> u64;
        adopt_snapshot(id: &str = String, snapshot_id: &str = String) -> ();
        delete_snapshot(snapshot_id: &str = String) -> ();
        back_up(backup: &NewBackup = NewBackup) -> SavedBackup;
        saved_backup(backup_id: &str = String) -> SavedBackup;
        restore(backup_id: &str = String, volume_id: &str = String) -> ();
        delete_backup(backup_id: &str = String) -> ();
        revert(volume_id: &str = String, snapshot_id: &str = String) -> ();
        connect(volume_id: &str = String, from: &Reach = Reach) -> Connection;
        disconnect(volume_id: &str = String, left: &[String] = Vec<String>) -> ();
    }
}

bus::remote! {
    /// Cinder, wherever it runs, on the topic `cinder`.
    pub struct RemoteVolumeReports: VolumeReports as volume_reports_handlers {
        back_end_reported(back_end: &BackEnd = BackEnd) -> ();
        volumes_connected(back_end: &str = String) -> Vec<String>;
    }
}

/// The service of agents' topics.
pub const AGENT_TOPIC: &str = "volume_agent";
/// The service that hears agents' reports.
pub const REPORTS_TOPIC: &str = "cinder";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDisk {
    pub id: String,
    pub size_gb: u64,
    pub source: DiskSource,
}

/// A disk or snapshot as the back end has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDisk {
    pub id: String,
    pub bytes: u64,
}

/// What a new volume begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskSource {
    #[default]
    Empty,
    Image {
        id: String,
        /// As glance has it.
        disk_format: String,
    },
    Snapshot {
        id: String,
    },
    Volume {
        id: String,
    },
    Backup {
        id: String,
    },
    /// What another back end serves.
    Export {
        connection: Connection,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewBackup {
    pub id: String,
    pub volume_id: String,
    /// Instead of the volume as it is now.
    pub snapshot_id: Option<String>,
    /// Only what differs from this one is saved.
    pub parent_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBackup {
    /// The volume's.
    pub bytes: u64,
    /// How many pieces were saved.
    pub objects: u64,
}

/// The host that wants to reach a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reach {
    pub host: String,
    pub ip: String,
    pub read_only: bool,
}

/// A back end with one pool, as `scheduler-stats/get_pools` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackEnd {
    /// `host@backend`: its agent's name on the bus.
    pub host: String,
    /// What follows the `#` in a volume's host.
    pub pool: String,
    /// What types ask for by `volume_backend_name`.
    pub name: String,
    pub availability_zone: String,
    pub vendor: String,
    pub driver_version: String,
    pub storage_protocol: String,
    pub total_gb: f64,
    pub free_gb: f64,
    /// What the volumes and snapshots would take were they full.
    pub provisioned_gb: f64,
    pub max_over_subscription_ratio: f64,
    pub reserved_percentage: u32,
    pub multiattach: bool,
    /// Volumes grow while hosts have them.
    pub online_extend: bool,
}
