//! Images as this machine's tools rewrite and keep them, for glance.

use async_trait::async_trait;
use base::Result;
use contracts::images::{Converter, Pool, PoolDisk, Pools};
use host_block::Rbd;
use std::{ops::Range, path::Path};
use tokio::io::AsyncRead;

pub struct QemuImg;

/// A disk that an image says to be larger is not written out.
const DISK_BYTES_MAX: u64 = 16 << 40;

#[async_trait]
impl Converter for QemuImg {
    async fn convert(&self, from: &Path, format: &str, to: &Path, to_format: &str) -> Result<()> {
        host_block::convert(from, format, to, (to_format, DISK_BYTES_MAX)).await
    }
}

/// Ceph's pools by Ceph's own tools.
pub struct Ceph;

fn rbd(pool: &Pool) -> Rbd {
    Rbd { pool: pool.name.clone(), user: pool.user.clone(), conf: pool.conf.clone() }
}

#[async_trait]
impl Pools for Ceph {
    async fn cluster_id(&self, pool: &Pool) -> Result<String> {
        rbd(pool).cluster_id().await
    }

    async fn keep(&self, pool: &Pool, disk: &PoolDisk, file: &Path) -> Result<()> {
        rbd(pool).import(file, &disk.name, &disk.snapshot, pool.object_mib).await
    }

    async fn read(
        &self,
        pool: &Pool,
        disk: &PoolDisk,
        range: Range<u64>,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let pool = rbd(pool);
        Ok(match range.start {
            0 => Box::new(pool.export(&disk.name, &disk.snapshot)?),
            _ => Box::new(pool.part(&disk.name, &disk.snapshot, range).await?),
        })
    }

    async fn bytes(&self, pool: &Pool, disk: &PoolDisk) -> Result<u64> {
        rbd(pool).bytes(&disk.name, &disk.snapshot).await
    }

    async fn remove(&self, pool: &Pool, disk: &PoolDisk) -> Result<()> {
        rbd(pool).remove(&disk.name, &disk.snapshot).await
    }
}
