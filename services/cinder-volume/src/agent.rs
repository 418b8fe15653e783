//! What cinder asks of a back end, on the host's blocks.

use crate::Options;
use async_trait::async_trait;
use base::{Context, Error, Result};
use contracts::{
    agents::volume::{BackEnd, DiskSource, KeptDisk, NewBackup, NewDisk, Reach, SavedBackup, VolumeAgent},
    compute::{Connection, ImageSink, ImageSource},
};
use host_block::{Blocks, Export, GIB, Locks, Saved, Source};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

pub struct Agent {
    pub(crate) options: Options,
    /// `host@backend`.
    host: String,
    /// The host's own name, by which guests' hosts are compared with it.
    machine: String,
    blocks: Arc<dyn Blocks>,
    /// None where no bytes are kept, and nothing is really connected.
    images: Option<Arc<dyn ImageSource>>,
    /// Where images of volumes are brought to.
    sink: Option<Arc<dyn ImageSink>>,
    /// Images on their way: one message may come twice.
    fetches: Locks,
}

impl Agent {
    pub fn new(options: Options, blocks: Arc<dyn Blocks>, images: Option<Arc<dyn ImageSource>>) -> Self {
        let machine = options.machine();
        let host = format!("{machine}@{}", options.volume_backend_name);
        Self { options, host, machine, blocks, images, sink: None, fetches: Locks::default() }
    }

    /// Gives it where images of volumes are brought to.
    pub fn uploads_to(mut self, sink: Arc<dyn ImageSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// The back end's name on the bus and in volumes.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub async fn back_end(&self) -> Result<BackEnd> {
        let stats = self.blocks.stats().await?;
        let gb = |bytes: u64| (bytes as f64 / GIB as f64 * 100.0).round() / 100.0;
        Ok(BackEnd {
            host: self.host.clone(),
            pool: self.options.volume_backend_name.clone(),
            name: self.options.volume_backend_name.clone(),
            availability_zone: self.options.availability_zone.clone(),
            vendor: "Ferrostack".into(),
            driver_version: env!("CARGO_PKG_VERSION").into(),
            storage_protocol: "nbd".into(),
            total_gb: gb(stats.total_bytes),
            free_gb: gb(stats.free_bytes),
            provisioned_gb: gb(stats.provisioned_bytes),
            max_over_subscription_ratio: self.options.max_over_subscription_ratio,
            reserved_percentage: self.options.reserved_percentage,
            multiattach: true,
            online_extend: self.blocks.grows_online(),
        })
    }

    pub async fn is_exported(&self, volume_id: &str) -> Result<bool> {
        self.blocks.is_exported(volume_id).await
    }

    /// Serves a volume that hosts reach.
    pub async fn export_again(&self, volume_id: &str) -> Result<()> {
        self.blocks.export_again(volume_id).await
    }

    /// Brings the image's bytes where the driver makes a disk of them.
    async fn fetch(&self, cx: &Context, volume_id: &str, image_id: &str) -> Result<()> {
        let (Some(path), Some(images)) = (self.blocks.image_file(volume_id), &self.images) else {
            return Ok(());
        };
        let mut file = tokio::fs::File::create(&path).await?;
        images.download(cx, image_id, &mut file).await?;
        file.flush().await?;
        Ok(())
    }
}

#[async_trait]
impl VolumeAgent for Agent {
    async fn create(&self, cx: &Context, volume: &NewDisk) -> Result<()> {
        let _held = self.fetches.hold(&volume.id).await;
        if self.blocks.holds(&volume.id).await? {
            return Ok(());
        }
        let source = match &volume.source {
            DiskSource::Empty => Source::Empty,
            DiskSource::Snapshot { id } => Source::Snapshot(id.clone()),
            DiskSource::Volume { id } => Source::Volume(id.clone()),
            DiskSource::Backup { id } => Source::Backup(id.clone()),
            DiskSource::Export { connection } => Source::Export(export(connection)?),
            DiskSource::Image { id, disk_format } => {
                self.fetch(cx, &volume.id, id).await?;
                Source::Image { format: disk_format.clone() }
            }
        };
        self.blocks.create(&volume.id, volume.size_gb * GIB, &source).await
    }

    async fn extend(&self, _cx: &Context, volume_id: &str, size_gb: u64) -> Result<()> {
        self.blocks.extend(volume_id, size_gb * GIB).await
    }

    async fn upload(&self, cx: &Context, volume_id: &str, image_id: &str, disk_format: &str) -> Result<()> {
        let sink = self.sink.as_ref().ok_or_else(|| Error::conflict("This back end reaches no images."))?;
        let _held = self.fetches.hold(image_id).await;
        let copy = self.blocks.copy_out(volume_id, image_id, disk_format).await?;
        let sent = async {
            let mut file = tokio::fs::File::open(&copy).await?;
            sink.upload(cx, image_id, &mut file).await
        };
        let sent = sent.await;
        tokio::fs::remove_file(&copy).await?;
        sent
    }

    async fn delete(&self, _cx: &Context, volume_id: &str) -> Result<()> {
        self.blocks.delete(volume_id).await
    }

    async fn create_snapshot(&self, _cx: &Context, snapshot_id: &str, volume_id: &str) -> Result<()> {
        self.blocks.snapshot(snapshot_id, volume_id).await
    }

    async fn kept(&self, _cx: &Context, snapshots: bool) -> Result<Vec<KeptDisk>> {
        let kept = if snapshots { self.blocks.snapshots().await? } else { self.blocks.volumes().await? };
        Ok(kept.into_iter().map(|(id, bytes)| KeptDisk { id, bytes }).collect())
    }

    async fn adopt(&self, _cx: &Context, id: &str, volume_id: &str) -> Result<u64> {
        let size_gb = self.blocks.adopt(id, volume_id).await?.div_ceil(GIB).max(1);
        self.blocks.extend(volume_id, size_gb * GIB).await?;
        Ok(size_gb)
    }

    async fn adopt_snapshot(&self, _cx: &Context, id: &str, snapshot_id: &str) -> Result<()> {
        self.blocks.adopt_snapshot(id, snapshot_id).await
    }

    async fn delete_snapshot(&self, _cx: &Context, snapshot_id: &str) -> Result<()> {
        self.blocks.delete_snapshot(snapshot_id).await
    }

    async fn back_up(&self, _cx: &Context, backup: &NewBackup) -> Result<SavedBackup> {
        let from = match &backup.snapshot_id {
            Some(id) => Source::Snapshot(id.clone()),
            None => Source::Volume(backup.volume_id.clone()),
        };
        // One message may come twice.
        let _held = self.fetches.hold(&backup.id).await;
        self.blocks.back_up(&backup.id, &from, backup.parent_id.as_deref()).await.map(told)
    }

    async fn saved_backup(&self, _cx: &Context, backup_id: &str) -> Result<SavedBackup> {
        self.blocks.saved(backup_id).await.map(told)
    }

    async fn restore(&self, _cx: &Context, backup_id: &str, volume_id: &str) -> Result<()> {
        self.blocks.restore(backup_id, volume_id).await
    }

    async fn delete_backup(&self, _cx: &Context, backup_id: &str) -> Result<()> {
        let _held = self.fetches.hold(backup_id).await;
        self.blocks.delete_backup(backup_id).await
    }

    async fn revert(&self, _cx: &Context, volume_id: &str, snapshot_id: &str) -> Result<()> {
        self.blocks.revert(volume_id, snapshot_id).await
    }

    async fn connect(&self, _cx: &Context, volume_id: &str, from: &Reach) -> Result<Connection> {
        let here = from.host == self.machine || from.ip == self.options.my_ip;
        let reached = here || self.images.is_none() || self.options.serves_others();
        let out_of_reach = || {
            Error::conflict(format!(
                "Volume {volume_id} is reached from host {} only, not from {}.",
                self.machine, from.host
            ))
        };
        if !reached {
            return Err(out_of_reach());
        }
        match self.blocks.export(volume_id, from.read_only, &from.host).await? {
            Export::Unix { .. } if !here && self.images.is_some() => Err(out_of_reach()),
            Export::Unix { socket, name } => {
                Ok(Connection::NbdUnix { socket: socket.display().to_string(), export: name })
            }
            Export::Tcp { address, port, name, tls_name } => {
                Ok(Connection::Nbd { host: address.to_string(), port, export: name, tls_hostname: tls_name })
            }
        }
    }

    async fn disconnect(&self, _cx: &Context, volume_id: &str, left: &[String]) -> Result<()> {
        self.blocks.unexport(volume_id, left).await
    }
}

fn told(saved: Saved) -> SavedBackup {
    SavedBackup { bytes: saved.bytes, objects: saved.chunks }
}

fn export(connection: &Connection) -> Result<Export> {
    Ok(match connection.clone() {
        Connection::NbdUnix { socket, export } => Export::Unix { socket: socket.into(), name: export },
        Connection::Nbd { host, port, export, tls_hostname } => Export::Tcp {
            address: host.parse().map_err(|_| Error::bad_request(format!("'{host}' is no address")))?,
            port,
            name: export,
            tls_name: tls_hostname,
        },
    })
}
