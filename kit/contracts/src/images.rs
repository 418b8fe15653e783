//! What others ask of glance. Bytes are [`crate::compute::ImageSource`]'s.

use async_trait::async_trait;
use base::{Context, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range, path::Path};
use tokio::io::AsyncRead;

#[async_trait]
pub trait Images: Send + Sync {
    /// An image that the caller may see; `NotFound` otherwise.
    async fn show(&self, cx: &Context, image_id: &str) -> Result<Image>;
}

/// Makes images of what others have, such as cinder's volumes. Bytes are [`crate::compute::ImageSink`]'s.
#[async_trait]
pub trait ImageMaker: Send + Sync {
    /// An image of the caller's project that waits for its bytes. The id is the caller's choice: asked again, it makes
    /// nothing twice.
    async fn create(&self, cx: &Context, image: &NewImage) -> Result<()>;

    /// Removes an image that never got its bytes; one that is gone is fine, one that has them stays.
    async fn discard(&self, cx: &Context, image_id: &str) -> Result<()>;
}

/// Rewrites disk images with the tools of the machine.
#[async_trait]
pub trait Converter: Send + Sync {
    /// Writes an image out in another format, both named as glance names them. Bytes that were looked at before: no
    /// tool opens others.
    async fn convert(&self, from: &Path, format: &str, to: &Path, to_format: &str) -> Result<()>;
}

/// Disks in pools of Ceph clusters, as images are kept there: each with one protected snapshot that others clone.
#[async_trait]
pub trait Pools: Send + Sync {
    /// The id of the pool's cluster.
    async fn cluster_id(&self, pool: &Pool) -> Result<String>;

    /// Makes a disk of a file, with its snapshot; what is zero takes no room. `Conflict`: there is one of that name. It
    /// leaves nothing when it fails.
    async fn keep(&self, pool: &Pool, disk: &PoolDisk, file: &Path) -> Result<()>;

    /// The snapshot's bytes, from the range's first; what is behind the range may come, too. They end early when the
    /// cluster fails.
    async fn read(
        &self,
        pool: &Pool,
        disk: &PoolDisk,
        range: Range<u64>,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>>;

    /// How many bytes it has; `NotFound` when it is gone.
    async fn bytes(&self, pool: &Pool, disk: &PoolDisk) -> Result<u64>;

    /// With its snapshot. `NotFound` when it is gone, `Conflict` while somebody has a clone of it or has it open.
    async fn remove(&self, pool: &Pool, disk: &PoolDisk) -> Result<()>;
}

/// Where there is no Ceph.
pub struct NoPools;

#[async_trait]
impl Pools for NoPools {
    async fn cluster_id(&self, _: &Pool) -> Result<String> {
        Err(no_pools())
    }

    async fn keep(&self, _: &Pool, _: &PoolDisk, _: &Path) -> Result<()> {
        Err(no_pools())
    }

    async fn read(&self, _: &Pool, _: &PoolDisk, _: Range<u64>) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        Err(no_pools())
    }

    async fn bytes(&self, _: &Pool, _: &PoolDisk) -> Result<u64> {
        Err(no_pools())
    }

    async fn remove(&self, _: &Pool, _: &PoolDisk) -> Result<()> {
        Err(no_pools())
    }
}

fn no_pools() -> Error {
    Error::unavailable("there is no Ceph cluster")
}

/// A pool, and as whom its cluster is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    /// Empty: as the cluster's configuration says.
    pub user: String,
    /// The cluster's configuration file. Empty: where Ceph looks for it.
    pub conf: String,
    /// The size of the objects that a new disk is cut into.
    pub object_mib: u64,
}

/// A disk and its snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolDisk {
    pub name: String,
    pub snapshot: String,
}

/// Looks after images that were made earlier: old backups go, and what a shelved server left.
#[async_trait]
pub trait ImageKeeper: Send + Sync {
    /// Ids of the images of the caller's project that have their bytes and all these properties, the newest first.
    async fn newest_first(&self, cx: &Context, properties: &BTreeMap<String, String>) -> Result<Vec<String>>;

    /// Removes an image that the caller may see; one that is gone is fine, one that is protected is `Forbidden`.
    async fn delete(&self, cx: &Context, image_id: &str) -> Result<()>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewImage {
    pub id: String,
    pub name: String,
    pub disk_format: String,
    pub container_format: String,
    /// `private`, `public`, `shared` or `community`.
    pub visibility: String,
    pub protected: bool,
    pub min_disk_gb: u64,
    pub min_ram_mb: u64,
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    pub id: String,
    pub name: String,
    /// `active`, `queued`, …
    pub status: String,
    pub owner: String,
    pub visibility: String,
    pub disk_format: String,
    pub container_format: String,
    pub size_bytes: u64,
    pub virtual_size_bytes: Option<u64>,
    pub min_disk_gb: u64,
    pub min_ram_mb: u64,
    pub checksum: Option<String>,
    pub tags: Vec<String>,
    /// `hw_disk_bus`, `os_distro` and so on.
    pub properties: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
