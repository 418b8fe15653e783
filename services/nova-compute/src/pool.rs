//! Guests' root disks in a pool of a Ceph cluster. A disk is its host's, like a file would be: it carries the host's
//! name, and no other host takes it for its own.

use crate::{
    Options,
    base_images::BaseImages,
    disks::{COPY_PATIENCE, GIB, format_name, too_small},
};
use base::{Context, Result};
use contracts::compute::{InstanceImage, SnapshotImage};
use host_block::Rbd;
use host_run::run;
use host_virt::{Disk, Source};
use std::path::Path;

/// The snapshot that glance makes of an image.
const OF_IMAGE: &str = "snap";
/// The snapshot of a disk whose guest may come back to it.
const ASIDE: &str = "aside";

pub struct Pool {
    disks: Rbd,
    images: Rbd,
    host: String,
    secret: Option<(String, String)>,
}

impl Pool {
    /// None: the host keeps disks as files.
    pub fn of(options: &Options, host: &str) -> Option<Self> {
        if options.images_rbd_pool.is_empty() {
            return None;
        }
        let named = |pool: &str| Rbd {
            pool: pool.into(),
            user: options.rbd_user.clone(),
            conf: options.images_rbd_ceph_conf.clone(),
        };
        let secret = (options.rbd_user.clone(), options.rbd_secret_uuid.clone());
        Some(Self {
            disks: named(&options.images_rbd_pool),
            images: named(&options.images_rbd_glance_pool),
            host: host.into(),
            secret: Some(secret).filter(|(_, uuid)| !uuid.is_empty()),
        })
    }

    fn name(&self, uuid: &str) -> String {
        format!("{uuid}_{}", self.host)
    }

    pub fn disk(&self, uuid: &str) -> Disk {
        let source = Source::Rbd {
            pool: self.disks.pool.clone(),
            disk: self.name(uuid),
            conf: self.disks.conf.clone(),
            secret: self.secret.clone(),
        };
        Disk::network("root", source)
    }

    /// Makes it when it is not there: a clone of the image, or a copy where the image is not in the cluster.
    pub async fn make(
        &self,
        cx: &Context,
        fetched: &BaseImages,
        uuid: &str,
        image: &InstanceImage,
        gb: u64,
    ) -> Result<()> {
        let name = self.name(uuid);
        if self.disks.size(&name).await?.is_none() && !self.clone_image(&name, image, gb).await? {
            self.copy_image(cx, fetched, &name, image, gb).await?;
        }
        self.disks.grow(&name, gb * GIB).await
    }

    /// False: glance does not keep it there, or not in a form that guests run from.
    async fn clone_image(&self, name: &str, image: &InstanceImage, gb: u64) -> Result<bool> {
        if image.disk_format != "raw" {
            return Ok(false);
        }
        let bytes = match self.images.bytes(&image.id, OF_IMAGE).await {
            Ok(bytes) => bytes,
            Err(error) if error.is(base::ErrorKind::NotFound) => return Ok(false),
            Err(error) => return Err(error),
        };
        too_small(bytes, gb * GIB)?;
        self.disks.clone_of(&self.images, &image.id, OF_IMAGE, name).await?;
        Ok(true)
    }

    /// Under another name until it is whole.
    async fn copy_image(
        &self,
        cx: &Context,
        fetched: &BaseImages,
        name: &str,
        image: &InstanceImage,
        gb: u64,
    ) -> Result<()> {
        let base = fetched.get(cx, image).await?;
        too_small(base.virtual_bytes, gb * GIB)?;
        let part = format!("{name}.part");
        self.disks.create(&part, base.virtual_bytes).await?;
        run("qemu-img")
            .args(["convert", "-n", "--target-is-zero", "-f", format_name(base.format), "-O", "raw"])
            .arg(&base.path)
            .arg(format!("json:{}", self.disks.opened(&part, None)))
            .timeout(COPY_PATIENCE)
            .output()
            .await?;
        self.disks.rename(&part, name).await
    }

    pub async fn grow(&self, uuid: &str, gb: u64) -> Result<()> {
        self.disks.grow(&self.name(uuid), gb * GIB).await
    }

    /// As it stands, under the image's name.
    pub async fn copy(&self, uuid: &str, image: &SnapshotImage) -> Result<()> {
        self.disks.snapshot(&self.name(uuid), &image.id).await
    }

    /// That copy as a file of a format; it stays.
    pub async fn write_copy(&self, uuid: &str, image: &SnapshotImage, format: &str, to: &Path) -> Result<()> {
        let copy = self.disks.opened(&self.name(uuid), Some(&image.id));
        run("qemu-img")
            .args(["convert", "-O", format])
            .arg(format!("json:{copy}"))
            .arg(to)
            .timeout(COPY_PATIENCE)
            .output()
            .await?;
        Ok(())
    }

    pub async fn forget_copy(&self, uuid: &str, image: &SnapshotImage) -> Result<()> {
        self.disks.forget_snapshot(&self.name(uuid), &image.id).await
    }

    /// What it is now can be had back.
    pub async fn set_aside(&self, uuid: &str) -> Result<()> {
        self.forget_aside(uuid).await?;
        self.disks.snapshot(&self.name(uuid), ASIDE).await
    }

    pub async fn take_back(&self, uuid: &str) -> Result<()> {
        self.disks.roll_back(&self.name(uuid), ASIDE).await
    }

    pub async fn forget_aside(&self, uuid: &str) -> Result<()> {
        self.disks.forget_snapshot(&self.name(uuid), ASIDE).await
    }

    pub async fn remove(&self, uuid: &str) -> Result<()> {
        self.disks.discard(&self.name(uuid)).await
    }
}
