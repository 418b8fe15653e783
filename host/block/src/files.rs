//! Disks as sparse raw files below one folder. A snapshot is a copy of its own, which a file system that shares
//! blocks makes at once and others in the time that copying the written blocks takes; so nothing depends on
//! anything, and everything may be removed in any order.

use crate::{
    Backups, Blocks, Export, Saved, Source, Stats, check_id,
    convert::{convert, tool_format},
    daemon::{Daemon, quoted},
    exists, exported,
    locks::Locks,
    network::Network,
    snapshot_missing, volume_missing,
};
use async_trait::async_trait;
use base::{Error, Result};
use host_run::run;
use std::{
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

const COPY_PATIENCE: Duration = Duration::from_secs(3600);

pub struct Files {
    volumes: PathBuf,
    snapshots: PathBuf,
    images: PathBuf,
    exports: PathBuf,
    backups: Backups,
    /// None: disks are served to this machine's guests alone.
    network: Option<Network>,
    locks: Locks,
}

impl Files {
    /// Everything goes below the folder, which is made.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir)?;
        let folder = |name: &str, mode: u32| -> Result<PathBuf> {
            let path = dir.join(name);
            std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(&path)?;
            Ok(path)
        };
        Ok(Self {
            volumes: folder("volumes", 0o700)?,
            snapshots: folder("snapshots", 0o700)?,
            images: folder("images", 0o700)?,
            // Guests' QEMU passes through.
            exports: folder("exports", 0o711)?,
            backups: Backups::open(&dir.join("backups"))?,
            network: None,
            locks: Locks::default(),
        })
    }

    /// Keeps backups in a folder of their own, best one that other machines have, too.
    pub fn backups_in(mut self, dir: &Path) -> Result<Self> {
        self.backups = Backups::open(dir)?;
        Ok(self)
    }

    /// Serves disks to other machines, too.
    pub fn on_network(mut self, network: Network) -> Result<Self> {
        network.check()?;
        self.network = Some(network);
        Ok(self)
    }

    fn volume(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.volumes.join(id))
    }

    fn snapshot_file(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.snapshots.join(id))
    }

    /// Ends every export; guests that still have a disk lose it. For the end of a whole cloud.
    pub async fn unexport_all(&self) -> Result<()> {
        let mut entries = tokio::fs::read_dir(&self.exports).await?;
        while let Some(entry) = entries.next_entry().await? {
            if let Some(id) = entry.file_name().to_string_lossy().strip_suffix(".qmp") {
                self.unexport(id, &[]).await?;
            }
        }
        Ok(())
    }

    fn daemon(&self, id: &str) -> Daemon {
        Daemon::of(&self.exports, id)
    }

    /// A copy of a volume, by its daemon when it is exported.
    async fn copy_volume(&self, id: &str, to: &Path) -> Result<()> {
        let from = self.volume(id)?;
        let Ok(metadata) = tokio::fs::metadata(&from).await else { return Err(volume_missing(id)) };
        let daemon = self.daemon(id);
        if !daemon.is_running().await? {
            return copy(&from, to).await;
        }
        tokio::fs::File::create(to).await?.set_len(metadata.len()).await?;
        daemon.copy_to(to).await
    }
}

#[async_trait]
impl Blocks for Files {
    fn image_file(&self, volume_id: &str) -> Option<PathBuf> {
        check_id(volume_id).is_ok().then(|| self.images.join(volume_id))
    }

    async fn holds(&self, volume_id: &str) -> Result<bool> {
        exists(&self.volume(volume_id)?).await
    }

    async fn create(&self, volume_id: &str, bytes: u64, source: &Source) -> Result<()> {
        let path = self.volume(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        if exists(&path).await? {
            return Ok(());
        }
        let part = path.with_extension("part");
        remove(&part).await?;
        match source {
            Source::Empty => drop(tokio::fs::File::create(&part).await?),
            Source::Image { format } => {
                convert(&self.images.join(volume_id), format, &part, ("raw", bytes)).await?
            }
            Source::Snapshot(id) => match self.snapshot_file(id)? {
                from if exists(&from).await? => copy(&from, &part).await?,
                _ => return Err(snapshot_missing(id)),
            },
            Source::Volume(id) => {
                let _source_held = self.locks.hold(id).await;
                self.copy_volume(id, &part).await?;
            }
            Source::Backup(id) => self.backups.restore(id, &part).await?,
            Source::Export(export) => fetch(export, self.network.as_ref(), &part).await?,
        }
        finish(&part, &path, bytes).await?;
        remove(&self.images.join(volume_id)).await
    }

    async fn extend(&self, volume_id: &str, bytes: u64) -> Result<()> {
        let path = self.volume(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        if !exists(&path).await? {
            return Err(volume_missing(volume_id));
        }
        let daemon = self.daemon(volume_id);
        if daemon.is_running().await? {
            return daemon.resize(&path, bytes).await;
        }
        let file = tokio::fs::File::options().write(true).open(&path).await?;
        if file.metadata().await?.len() < bytes {
            file.set_len(bytes).await?;
        }
        Ok(file.sync_all().await?)
    }

    fn grows_online(&self) -> bool {
        true
    }

    async fn copy_out(&self, volume_id: &str, copy_id: &str, format: &str) -> Result<PathBuf> {
        check_id(copy_id)?;
        let raw = self.images.join(format!("{copy_id}.raw"));
        let _held = self.locks.hold(volume_id).await;
        remove(&raw).await?;
        self.copy_volume(volume_id, &raw).await?;
        if format == "raw" {
            return Ok(raw);
        }
        let converted = self.images.join(format!("{copy_id}.{}", tool_format(format)?));
        let written = run("qemu-img")
            .args(["convert", "-f", "raw", "-O", tool_format(format)?])
            .args([&raw, &converted])
            .timeout(COPY_PATIENCE)
            .output()
            .await;
        remove(&raw).await?;
        match written {
            Ok(_) => Ok(converted),
            Err(error) => {
                remove(&converted).await?;
                Err(error)
            }
        }
    }

    async fn delete(&self, volume_id: &str) -> Result<()> {
        let path = self.volume(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        self.daemon(volume_id).stop().await?;
        for file in [&path.with_extension("part"), &self.images.join(volume_id), &path] {
            remove(file).await?;
        }
        Ok(())
    }

    async fn snapshot(&self, snapshot_id: &str, volume_id: &str) -> Result<()> {
        let path = self.snapshot_file(snapshot_id)?;
        check_id(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        if exists(&path).await? {
            return Ok(());
        }
        let part = path.with_extension("part");
        remove(&part).await?;
        self.copy_volume(volume_id, &part).await?;
        finish(&part, &path, 0).await
    }

    async fn volumes(&self) -> Result<Vec<(String, u64)>> {
        listed(&self.volumes).await
    }

    async fn snapshots(&self) -> Result<Vec<(String, u64)>> {
        listed(&self.snapshots).await
    }

    async fn adopt(&self, id: &str, volume_id: &str) -> Result<u64> {
        let (from, to) = (self.volume(id)?, self.volume(volume_id)?);
        let _held = self.locks.hold(id).await;
        if self.daemon(id).is_running().await? {
            return Err(exported(id));
        }
        rename(&from, &to).await?.ok_or_else(|| volume_missing(id))
    }

    async fn adopt_snapshot(&self, id: &str, snapshot_id: &str) -> Result<()> {
        let renamed = rename(&self.snapshot_file(id)?, &self.snapshot_file(snapshot_id)?).await?;
        renamed.map(drop).ok_or_else(|| snapshot_missing(id))
    }

    async fn delete_snapshot(&self, snapshot_id: &str) -> Result<()> {
        let path = self.snapshot_file(snapshot_id)?;
        remove(&path.with_extension("part")).await?;
        remove(&path).await
    }

    async fn revert(&self, volume_id: &str, snapshot_id: &str) -> Result<()> {
        let (path, snapshot) = (self.volume(volume_id)?, self.snapshot_file(snapshot_id)?);
        let _held = self.locks.hold(volume_id).await;
        if self.daemon(volume_id).is_running().await? {
            return Err(exported(volume_id));
        }
        let Ok(metadata) = tokio::fs::metadata(&path).await else { return Err(volume_missing(volume_id)) };
        if !exists(&snapshot).await? {
            return Err(snapshot_missing(snapshot_id));
        }
        let part = path.with_extension("part");
        remove(&part).await?;
        copy(&snapshot, &part).await?;
        finish(&part, &path, metadata.len()).await
    }

    async fn export(&self, volume_id: &str, read_only: bool, host: &str) -> Result<Export> {
        let path = self.volume(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        if !exists(&path).await? {
            return Err(volume_missing(volume_id));
        }
        let daemon = self.daemon(volume_id);
        if self.network.is_some() {
            daemon.allowed().add(host).await?;
            daemon.admit().await?;
        }
        daemon.start(&path, self.network.as_ref()).await?;
        daemon.export(read_only, self.network.as_ref()).await
    }

    async fn export_again(&self, volume_id: &str) -> Result<()> {
        let path = self.volume(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        match exists(&path).await? {
            true => self.daemon(volume_id).start(&path, self.network.as_ref()).await,
            false => Err(volume_missing(volume_id)),
        }
    }

    async fn is_exported(&self, volume_id: &str) -> Result<bool> {
        check_id(volume_id)?;
        let daemon = self.daemon(volume_id);
        let renewed = match &self.network {
            Some(network) => daemon.has_old_certificate(network).await?,
            None => false,
        };
        Ok(!renewed && daemon.is_serving().await?)
    }

    async fn unexport(&self, volume_id: &str, left: &[String]) -> Result<()> {
        check_id(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        let daemon = self.daemon(volume_id);
        match (left.is_empty(), &self.network) {
            (true, _) => daemon.stop().await,
            (false, Some(_)) => {
                daemon.allowed().set(&left.iter().cloned().collect()).await?;
                daemon.admit().await
            }
            (false, None) => Ok(()),
        }
    }

    async fn back_up(&self, backup_id: &str, from: &Source, parent: Option<&str>) -> Result<Saved> {
        check_id(backup_id)?;
        let id = match from {
            Source::Snapshot(id) => match self.snapshot_file(id)? {
                file if exists(&file).await? => return self.backups.save(backup_id, &file, parent).await,
                _ => return Err(snapshot_missing(id)),
            },
            Source::Volume(id) => id,
            other => return Err(Error::internal(format!("{other:?} is not backed up"))),
        };
        let file = self.volume(id)?;
        let held = self.locks.hold(id).await;
        if !self.daemon(id).is_running().await? {
            return match exists(&file).await? {
                true => self.backups.save(backup_id, &file, parent).await,
                false => Err(volume_missing(id)),
            };
        }
        // A guest goes on writing: what is saved is of one moment.
        let copy = self.images.join(format!("{backup_id}.backup"));
        remove(&copy).await?;
        let copied = self.copy_volume(id, &copy).await;
        drop(held);
        let saved = match copied {
            Ok(()) => self.backups.save(backup_id, &copy, parent).await,
            Err(error) => Err(error),
        };
        remove(&copy).await?;
        saved
    }

    async fn saved(&self, backup_id: &str) -> Result<Saved> {
        self.backups.saved(backup_id).await
    }

    async fn restore(&self, backup_id: &str, volume_id: &str) -> Result<()> {
        let path = self.volume(volume_id)?;
        let _held = self.locks.hold(volume_id).await;
        if self.daemon(volume_id).is_running().await? {
            return Err(exported(volume_id));
        }
        let Ok(metadata) = tokio::fs::metadata(&path).await else { return Err(volume_missing(volume_id)) };
        let part = path.with_extension("part");
        self.backups.restore(backup_id, &part).await?;
        finish(&part, &path, metadata.len()).await
    }

    async fn delete_backup(&self, backup_id: &str) -> Result<()> {
        self.backups.delete(backup_id).await
    }

    async fn stats(&self) -> Result<Stats> {
        let system = nix::sys::statvfs::statvfs(&self.volumes).map_err(std::io::Error::from)?;
        let provisioned_bytes = length_of_all(&self.volumes).await? + length_of_all(&self.snapshots).await?;
        Ok(Stats {
            total_bytes: system.blocks() * system.fragment_size(),
            free_bytes: system.blocks_available() * system.fragment_size(),
            provisioned_bytes,
        })
    }
}

/// One that is gone is fine.
pub async fn remove(path: &Path) -> Result<()> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

async fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = run("cp").args(["--sparse=always", "--reflink=auto", "--"]).args([from, to]);
    copied.timeout(COPY_PATIENCE).output().await.map(drop)
}

/// Copies what another driver serves; zeros become holes.
async fn fetch(export: &Export, network: Option<&Network>, to: &Path) -> Result<()> {
    let mut convert = run("qemu-img").args(["convert", "-O", "raw", "-S", "4k"]);
    let source = match export {
        Export::Unix { socket, name } => {
            format!("driver=nbd,server.type=unix,server.path={},export={name}", quoted(socket))
        }
        Export::Tcp { address, port, name, tls_name } => {
            let plain =
                format!("driver=nbd,server.type=inet,server.host={address},server.port={port},export={name}");
            match tls_name {
                None => plain,
                Some(tls_name) => {
                    let own = network.and_then(|network| network.tls.as_ref());
                    let own = own.ok_or_else(|| Error::conflict("This host has no certificate to show."))?;
                    let directory = quoted(&own.directory);
                    let tls = format!("tls-creds-x509,id=tls,endpoint=client,verify-peer=on,dir={directory}");
                    convert = convert.args(["--object", &tls]);
                    format!("{plain},tls-creds=tls,tls-hostname={tls_name}")
                }
            }
        }
    };
    let copied = convert.arg("--image-opts").arg(source).arg(to).timeout(COPY_PATIENCE);
    copied.output().await.map(drop)
}

/// At least so large, on the disk, and nobody else's to read; then it has its name.
async fn finish(part: &Path, path: &Path, bytes: u64) -> Result<()> {
    let file = tokio::fs::File::options().write(true).open(part).await?;
    if file.metadata().await?.len() < bytes {
        file.set_len(bytes).await?;
    }
    file.set_permissions(PermissionsExt::from_mode(0o600)).await?;
    file.sync_all().await?;
    Ok(tokio::fs::rename(part, path).await?)
}

/// The bytes of the file under its new name; none when it is under neither. One that has the new name is not replaced.
async fn rename(from: &Path, to: &Path) -> Result<Option<u64>> {
    if !exists(to).await? && exists(from).await? {
        tokio::fs::rename(from, to).await?;
    }
    match exists(to).await? {
        true => Ok(Some(tokio::fs::metadata(to).await?.len())),
        false => Ok(None),
    }
}

/// What is finished, by id.
async fn listed(dir: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let (Ok(()), Ok(metadata)) = (check_id(&name), entry.metadata().await) {
            found.push((name, metadata.len()));
        }
    }
    found.sort();
    Ok(found)
}

async fn length_of_all(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        // It may have gone meanwhile.
        sum += entry.metadata().await.map_or(0, |metadata| metadata.len());
    }
    Ok(sum)
}
