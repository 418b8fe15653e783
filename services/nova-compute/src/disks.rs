//! A guest's local disks: root overlay, ephemeral, swap and config drive, in one folder per guest.

use crate::{
    base_images::{BaseImage, BaseImages},
    config_drive,
};
use async_trait::async_trait;
use base::{Context, Error, Result};
use contracts::compute::{ImageSource, Instance};
use host_run::run;
use host_virt::{Disk, Format};
use std::{
    collections::HashSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncWriteExt;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const MAKE_PATIENCE: Duration = Duration::from_secs(120);
const BASE_FOLDER: &str = "_base";
/// Remembers which image a guest's disk lies on.
const IMAGE_NOTE: &str = "image";

/// What a guest has on this host's own disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalDisks {
    /// Root (unless it is a volume), ephemeral, swap.
    pub root: Option<Disk>,
    pub others: Vec<Disk>,
    pub config_drive: Option<PathBuf>,
    pub console_log: PathBuf,
}

#[async_trait]
pub trait Disks: Send + Sync {
    /// Makes what is missing of the guest's disks; what is there stays as it is.
    async fn prepare(&self, cx: &Context, instance: &Instance) -> Result<LocalDisks>;

    /// Removes all of it.
    async fn remove(&self, uuid: &str) -> Result<()>;

    /// Guests that have something here.
    async fn uuids(&self) -> Result<Vec<String>>;

    /// Cuts overgrown console logs and removes images that nobody uses.
    async fn tidy(&self, console_bytes_max: u64, keep_images: Duration) -> Result<()>;
}

/// Files below one folder.
pub struct FileDisks {
    dir: PathBuf,
    images: BaseImages,
}

impl FileDisks {
    pub fn new(dir: PathBuf, source: Arc<dyn ImageSource>) -> Self {
        let images = BaseImages::new(dir.join(BASE_FOLDER), source);
        Self { dir, images }
    }

    fn folder(&self, uuid: &str) -> PathBuf {
        self.dir.join(uuid)
    }
}

#[async_trait]
impl Disks for FileDisks {
    async fn prepare(&self, cx: &Context, instance: &Instance) -> Result<LocalDisks> {
        let folder = self.folder(&instance.uuid);
        tokio::fs::create_dir_all(&folder).await?;
        let mut disks = LocalDisks { console_log: folder.join("console.log"), ..LocalDisks::default() };
        if let Some(image) = &instance.image {
            // Before the disk, so that the image is never taken for unused.
            tokio::fs::write(folder.join(IMAGE_NOTE), &image.id).await?;
            let base = self.images.get(cx, image).await?;
            let path = folder.join("disk");
            make_overlay(&path, &base, instance.root_gb * GIB).await?;
            disks.root = Some(Disk::file("root", path, Format::Qcow2));
        }
        if instance.ephemeral_gb > 0 {
            let path = folder.join("disk.eph0");
            let program = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "ephemeral0"];
            make_formatted(&path, instance.ephemeral_gb * GIB, &program).await?;
            disks.others.push(Disk::file("ephemeral0", path, Format::Raw));
        }
        if instance.swap_mb > 0 {
            let path = folder.join("disk.swap");
            make_formatted(&path, instance.swap_mb * MIB, &["mkswap", "-L", "swap"]).await?;
            disks.others.push(Disk::file("swap", path, Format::Raw));
        }
        if let Some(files) = &instance.config_drive {
            let path = folder.join("disk.config");
            if !tokio::fs::try_exists(&path).await? {
                config_drive::write(&path, files).await?;
            }
            disks.config_drive = Some(path);
        }
        Ok(disks)
    }

    async fn remove(&self, uuid: &str) -> Result<()> {
        match tokio::fs::remove_dir_all(self.folder(uuid)).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    async fn uuids(&self) -> Result<Vec<String>> {
        let mut uuids = Vec::new();
        let mut entries = match tokio::fs::read_dir(&self.dir).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(uuids),
            other => other?,
        };
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if base::id::is_uuid(&name) {
                uuids.push(name);
            }
        }
        Ok(uuids)
    }

    async fn tidy(&self, console_bytes_max: u64, keep_images: Duration) -> Result<()> {
        let mut used = HashSet::new();
        for uuid in self.uuids().await? {
            let folder = self.folder(&uuid);
            if let Ok(id) = tokio::fs::read_to_string(folder.join(IMAGE_NOTE)).await {
                used.insert(id);
            }
            cut(&folder.join("console.log"), console_bytes_max).await?;
        }
        self.images.remove_unused(&used, keep_images).await
    }
}

/// An overlay on the image, as large as the flavor says.
async fn make_overlay(path: &Path, base: &BaseImage, flavor_bytes: u64) -> Result<()> {
    if flavor_bytes > 0 && base.virtual_bytes > flavor_bytes {
        return Err(Error::bad_request(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {flavor_bytes} bytes, image is {} bytes.",
            base.virtual_bytes
        )));
    }
    if tokio::fs::try_exists(path).await? {
        return Ok(());
    }
    let format = match base.format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    };
    let part = path.with_added_extension("part");
    run("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .args([&base.path, &part])
        .arg(base.virtual_bytes.max(flavor_bytes).next_multiple_of(512).to_string())
        .timeout(MAKE_PATIENCE)
        .output()
        .await?;
    finish(&part, path).await
}

/// A sparse raw disk with a file system or swap space on it.
async fn make_formatted(path: &Path, bytes: u64, program: &[&str]) -> Result<()> {
    if tokio::fs::try_exists(path).await? {
        return Ok(());
    }
    let part = path.with_added_extension("part");
    tokio::fs::File::create(&part).await?.set_len(bytes).await?;
    run(program[0]).args(&program[1..]).arg(&part).timeout(MAKE_PATIENCE).output().await?;
    finish(&part, path).await
}

/// A guest's disk is nobody else's to read; libvirt gives it to the QEMU user while the guest runs.
async fn finish(part: &Path, path: &Path) -> Result<()> {
    tokio::fs::set_permissions(part, PermissionsExt::from_mode(0o600)).await?;
    Ok(tokio::fs::rename(part, path).await?)
}

/// Keeps the last quarter of a log that has outgrown its limit. QEMU appends, so it goes on at the new end.
async fn cut(log: &Path, bytes_max: u64) -> Result<()> {
    let length = tokio::fs::metadata(log).await.map_or(0, |metadata| metadata.len());
    if length <= bytes_max {
        return Ok(());
    }
    let kept = host_virt::tail(log, bytes_max / 4).await?;
    let mut file = tokio::fs::File::options().append(true).open(log).await?;
    file.set_len(0).await?;
    file.write_all(&kept).await?;
    Ok(file.flush().await?)
}

/// Disks that are only names, for a host without guests.
#[derive(Default)]
pub struct FakeDisks;

#[async_trait]
impl Disks for FakeDisks {
    async fn prepare(&self, _cx: &Context, instance: &Instance) -> Result<LocalDisks> {
        let folder = Path::new("/fake").join(&instance.uuid);
        let disk = |serial: &str, name: &str, format| Disk::file(serial, folder.join(name), format);
        let mut others = Vec::new();
        if instance.ephemeral_gb > 0 {
            others.push(disk("ephemeral0", "disk.eph0", Format::Raw));
        }
        if instance.swap_mb > 0 {
            others.push(disk("swap", "disk.swap", Format::Raw));
        }
        Ok(LocalDisks {
            root: instance.image.as_ref().map(|_| disk("root", "disk", Format::Qcow2)),
            others,
            config_drive: instance.config_drive.as_ref().map(|_| folder.join("disk.config")),
            console_log: folder.join("console.log"),
        })
    }

    async fn remove(&self, _uuid: &str) -> Result<()> {
        Ok(())
    }

    async fn uuids(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn tidy(&self, _console_bytes_max: u64, _keep_images: Duration) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::compute::InstanceImage;
    use tokio::io::AsyncWrite;

    const UUID: &str = "0e8a7f6c-0000-4000-8000-000000000001";

    struct Zeros(usize);

    #[async_trait]
    impl ImageSource for Zeros {
        async fn download(
            &self,
            _cx: &Context,
            _image_id: &str,
            into: &mut (dyn AsyncWrite + Send + Unpin),
        ) -> Result<()> {
            Ok(into.write_all(&vec![0; self.0]).await?)
        }
    }

    fn instance() -> Instance {
        let image = InstanceImage { id: UUID.into(), disk_format: "raw".into(), ..InstanceImage::default() };
        Instance { uuid: UUID.into(), root_gb: 1, swap_mb: 8, image: Some(image), ..Instance::default() }
    }

    #[tokio::test]
    async fn disks_are_made_once_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disks = FileDisks::new(dir.path().into(), Arc::new(Zeros(4096)));
        let cx = Context::internal();
        let first = disks.prepare(&cx, &instance()).await.unwrap();
        std::fs::write(dir.path().join(UUID).join("disk.swap"), "the guest's").unwrap();
        assert_eq!(disks.prepare(&cx, &instance()).await.unwrap(), first);
        let swap = std::fs::read(dir.path().join(UUID).join("disk.swap")).unwrap();
        assert_eq!(swap, b"the guest's", "what is there stays");
        let info = run("qemu-img").args(["info", "--output=json"]).arg(dir.path().join(UUID).join("disk"));
        let info: serde_json::Value = serde_json::from_str(&info.text().await.unwrap()).unwrap();
        assert_eq!(info["virtual-size"], 1u64 << 30);
        let mode = std::fs::metadata(dir.path().join(UUID).join("disk")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(info["backing-filename-format"], "raw");
        assert_eq!(disks.uuids().await.unwrap(), [UUID]);
        disks.tidy(1, Duration::ZERO).await.unwrap();
        assert!(dir.path().join(BASE_FOLDER).join(UUID).exists(), "the image is in use");
        for _ in 0..2 {
            disks.remove(UUID).await.unwrap();
        }
        assert_eq!(disks.uuids().await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn an_image_larger_than_the_flavor_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let base = BaseImage { path: "/x".into(), format: Format::Raw, virtual_bytes: 2 * GIB };
        let error = make_overlay(&dir.path().join("disk"), &base, GIB).await.unwrap_err();
        assert!(error.message.starts_with("Flavor's disk is too small for requested image."), "{error}");
    }

    #[tokio::test]
    async fn a_log_is_cut_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef").unwrap();
        cut(file.path(), 16).await.unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap().len(), 16);
        cut(file.path(), 12).await.unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"def");
    }
}
