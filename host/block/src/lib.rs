//! Volumes as a host keeps them: disks that are made, grown, copied, kept as snapshots and served over NBD.
//! Whose a volume is and who may reach it is cinder's matter; image bytes are fetched by the agent.

mod backups;
mod convert;
mod daemon;
mod fake;
mod files;
mod image;
mod locks;
mod nbd;
mod network;
mod qmp;
mod rbd;

use async_trait::async_trait;
use base::{Error, Result};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

pub use backups::{Backups, Saved};
pub use convert::convert;
pub use fake::Fake;
pub use files::Files;
pub use locks::Locks;
pub use network::{Network, Tls};
pub use rbd::Rbd;

/// Programs the driver calls, and the Debian package each is in.
pub const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-img", "qemu-utils"),
    ("qemu-storage-daemon", "qemu-system-common"),
    ("prlimit", "util-linux"),
    ("cp", "coreutils"),
];

pub const GIB: u64 = 1 << 30;

/// Disks by id. Every operation may be repeated: what is already so is a success.
#[async_trait]
pub trait Blocks: Send + Sync {
    /// Where the bytes of an image are put before [`Blocks::create`] makes a disk of them; none where no
    /// bytes are kept.
    fn image_file(&self, volume_id: &str) -> Option<PathBuf>;

    /// Whether the disk is there, finished.
    async fn holds(&self, volume_id: &str) -> Result<bool>;

    /// Makes a disk of so many bytes. One that is there stays as it is.
    async fn create(&self, volume_id: &str, bytes: u64, source: &Source) -> Result<()>;

    /// Also while the disk is exported, where [`Blocks::grows_online`] says so; `Conflict` otherwise.
    async fn extend(&self, volume_id: &str, bytes: u64) -> Result<()>;

    /// Whether hosts that have a disk see it grow.
    fn grows_online(&self) -> bool;

    /// A copy of the disk, as it is at one moment, as a file in one of glance's formats. The caller removes it.
    async fn copy_out(&self, volume_id: &str, copy_id: &str, format: &str) -> Result<PathBuf>;

    /// Removes the disk, its exports and what was begun of it.
    async fn delete(&self, volume_id: &str) -> Result<()>;

    /// Keeps the disk as it is at one moment, also while it is written to.
    async fn snapshot(&self, snapshot_id: &str, volume_id: &str) -> Result<()>;

    /// The disks that are there, by id, with their bytes.
    async fn volumes(&self) -> Result<Vec<(String, u64)>>;

    async fn snapshots(&self) -> Result<Vec<(String, u64)>>;

    /// Gives a disk that nobody reaches another id, and answers its bytes.
    async fn adopt(&self, id: &str, volume_id: &str) -> Result<u64>;

    async fn adopt_snapshot(&self, id: &str, snapshot_id: &str) -> Result<()>;

    async fn delete_snapshot(&self, snapshot_id: &str) -> Result<()>;

    /// Makes the disk as the snapshot has it. `Conflict` while it is exported.
    async fn revert(&self, volume_id: &str, snapshot_id: &str) -> Result<()>;

    /// Serves the disk to one more host, also beyond the end of this program.
    async fn export(&self, volume_id: &str, read_only: bool, host: &str) -> Result<Export>;

    /// Serves the disk again to the hosts that it was served to, after the machine was off or the server died.
    async fn export_again(&self, volume_id: &str) -> Result<()>;

    async fn is_exported(&self, volume_id: &str) -> Result<bool>;

    /// The disk is served to these hosts alone; to none: not at all.
    async fn unexport(&self, volume_id: &str, left: &[String]) -> Result<()>;

    /// Saves a volume or a snapshot where backups are kept; of a volume that is as the parent has it, nothing.
    async fn back_up(&self, backup_id: &str, from: &Source, parent: Option<&str>) -> Result<Saved>;

    /// A backup that is there.
    async fn saved(&self, backup_id: &str) -> Result<Saved>;

    /// Makes the disk as the backup has it. `Conflict` while it is exported.
    async fn restore(&self, backup_id: &str, volume_id: &str) -> Result<()>;

    async fn delete_backup(&self, backup_id: &str) -> Result<()>;

    async fn stats(&self) -> Result<Stats>;
}

/// What a new disk begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Empty,
    /// The file of [`Blocks::image_file`], of a format that glance names. It goes when the disk is made.
    Image {
        format: String,
    },
    Snapshot(String),
    Volume(String),
    Backup(String),
    /// What another machine's driver, or another one of this machine, serves.
    Export(Export),
}

/// Where a disk is served by NBD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// To this machine alone.
    Unix { socket: PathBuf, name: String },
    /// With TLS when the server's certificate has a name.
    Tcp { address: IpAddr, port: u16, name: String, tls_name: Option<String> },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// What the disks and snapshots would take were they full.
    pub provisioned_bytes: u64,
}

/// Ids become names of files: only what cinder makes is taken.
fn check_id(id: &str) -> Result<()> {
    match base::id::is_uuid(id) && id.len() == 36 {
        true => Ok(()),
        false => Err(Error::bad_request(format!("'{id}' is not an id of a volume or snapshot"))),
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

async fn exists(path: &Path) -> Result<bool> {
    Ok(tokio::fs::try_exists(path).await?)
}
