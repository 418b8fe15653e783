//! A pool of a Ceph cluster: each image is a disk with a protected snapshot, so that others make clones of it.

use super::Backend;
use crate::{
    bytes::{self, Arrived, Chunks, Facts},
    options::StoreOptions,
};
use async_trait::async_trait;
use base::{Error, Json, Result};
use contracts::images::{Pool, PoolDisk, Pools};
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// As upstream calls it: nova and cinder clone this one.
const SNAPSHOT: &str = "snap";
const OBJECT_MIB: u64 = 8;
const SCHEME: &str = "rbd://";

pub struct RbdStore {
    pools: Arc<dyn Pools>,
    pool: Pool,
    /// Known once the cluster answered.
    cluster: OnceLock<String>,
}

impl RbdStore {
    pub fn new(options: &StoreOptions, pools: Arc<dyn Pools>) -> Self {
        let name = if options.pool.is_empty() { "images" } else { &options.pool };
        let pool = Pool {
            name: name.into(),
            user: options.user.clone(),
            conf: options.ceph_conf.clone(),
            object_mib: OBJECT_MIB,
        };
        Self { pools, pool, cluster: OnceLock::new() }
    }

    fn own(&self, image_id: &str) -> (Pool, PoolDisk) {
        (self.pool.clone(), PoolDisk { name: image_id.into(), snapshot: SNAPSHOT.into() })
    }

    /// Where a location says that an image is, if it is in this store's cluster: `rbd://cluster/pool/disk/snapshot`.
    fn place(&self, url: &str) -> Option<(Pool, PoolDisk)> {
        let parts: Vec<String> = url
            .strip_prefix(SCHEME)?
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().ok().map(String::from))
            .collect::<Option<_>>()?;
        let [cluster, pool, disk, snapshot] = parts.as_slice() else { return None };
        let is_here = self.cluster.get() == Some(cluster);
        let is_whole = ![pool, disk, snapshot].iter().any(|part| part.is_empty() || part.starts_with('-'));
        (is_here && is_whole).then(|| {
            let pool = Pool { name: pool.clone(), ..self.pool.clone() };
            (pool, PoolDisk { name: disk.clone(), snapshot: snapshot.clone() })
        })
    }

    fn at(&self, image_id: &str, elsewhere: Option<&str>) -> Result<(Pool, PoolDisk)> {
        let Some(url) = elsewhere else { return Ok(self.own(image_id)) };
        self.place(url).ok_or_else(|| Error::bad_request(format!("{url} is not in this store's cluster")))
    }
}

#[async_trait]
impl Backend for RbdStore {
    fn kind(&self) -> &'static str {
        "rbd"
    }

    fn properties(&self) -> Json {
        json!({
            "chunk_size": self.pool.object_mib << 20, "pool": self.pool.name, "thin_provisioning": true,
            "fsid": self.cluster.get(),
        })
    }

    fn url(&self, image_id: &str) -> String {
        match self.cluster.get() {
            Some(cluster) => format!("{SCHEME}{cluster}/{}/{image_id}/{SNAPSHOT}", self.pool.name),
            None => format!("{SCHEME}{image_id}"),
        }
    }

    async fn prepare(&self) -> Result<()> {
        if self.cluster.get().is_none() {
            // Another one that was quicker found the same.
            let _ = self.cluster.set(self.pools.cluster_id(&self.pool).await?);
        }
        Ok(())
    }

    fn serves(&self, url: &str) -> bool {
        self.place(url).is_some()
    }

    async fn open(&self, url: &str) -> Result<(Chunks, Option<u64>)> {
        let (pool, disk) = self.at("", Some(url))?;
        let size = self.pools.bytes(&pool, &disk).await?;
        let reader = self.pools.read(&pool, &disk, 0..size).await?;
        Ok((bytes::part_of(bytes::from_reader(reader), 0..size), Some(size)))
    }

    async fn keep(&self, image_id: &str, arrived: Arrived) -> Result<Facts> {
        let (pool, disk) = self.own(image_id);
        self.pools.keep(&pool, &disk, arrived.path()).await?;
        if let Err(error) = self.prepare().await {
            tracing::warn!(?error, "the cluster does not say who it is");
        }
        Ok(arrived.facts.clone())
    }

    async fn read(&self, image_id: &str, elsewhere: Option<&str>, range: Range<u64>) -> Result<Chunks> {
        let (pool, disk) = self.at(image_id, elsewhere)?;
        if self.pools.bytes(&pool, &disk).await? < range.end {
            return Err(Error::unavailable(format!("RBD image {} is shorter than it was", disk.name)));
        }
        let length = range.end - range.start;
        let reader = self.pools.read(&pool, &disk, range).await?;
        Ok(bytes::part_of(bytes::from_reader(reader), 0..length))
    }

    async fn remove(&self, image_id: &str, elsewhere: Option<&str>) -> Result<()> {
        let (pool, disk) = self.at(image_id, elsewhere)?;
        self.pools.remove(&pool, &disk).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    #[async_trait]
    impl Pools for Nobody {
        async fn cluster_id(&self, _: &Pool) -> Result<String> {
            Ok("c1".into())
        }
        async fn keep(&self, _: &Pool, _: &PoolDisk, _: &std::path::Path) -> Result<()> {
            Err(Error::unavailable("nobody"))
        }
        async fn read(
            &self,
            _: &Pool,
            _: &PoolDisk,
            _: Range<u64>,
        ) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
            Err(Error::unavailable("nobody"))
        }
        async fn bytes(&self, _: &Pool, _: &PoolDisk) -> Result<u64> {
            Err(Error::unavailable("nobody"))
        }
        async fn remove(&self, _: &Pool, _: &PoolDisk) -> Result<()> {
            Err(Error::unavailable("nobody"))
        }
    }

    #[tokio::test]
    async fn places_are_written_and_read_as_upstream_does() {
        let options = StoreOptions { pool: "pictures".into(), ..StoreOptions::default() };
        let store = RbdStore::new(&options, Arc::new(Nobody));
        assert_eq!(store.url("i"), "rbd://i");
        assert!(!store.serves("rbd://c1/pictures/i/snap"));
        store.prepare().await.unwrap();
        assert_eq!(store.url("i"), "rbd://c1/pictures/i/snap");
        let (pool, disk) = store.place("rbd://c1/vm%73/a%2fb/s").unwrap();
        assert_eq!((pool.name.as_str(), disk.name.as_str(), disk.snapshot.as_str()), ("vms", "a/b", "s"));
        for bad in [
            "rbd://i",
            "rbd://c2/vms/a/snap",
            "rbd://c1/vms/a",
            "rbd://c1/vms/a/",
            "rbd://c1/--conf/a/snap",
            "http://c1/vms/a/snap",
            "rbd://c1/vms/a/snap/more",
        ] {
            assert!(!store.serves(bad), "{bad}");
        }
    }
}
