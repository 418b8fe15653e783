//! The images of the host: each is fetched once, checked before any tool opens it, and never changed after. What guests
//! do not run from is rewritten as a raw disk. Guests' disks are overlays on them.

use crate::locks::Locks;
use base::{Context, Error, Result};
use contracts::compute::{ImageSource, InstanceImage};
use host_virt::Format;
use image_format::Finding;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::AsyncWriteExt;

pub struct BaseImages {
    dir: PathBuf,
    source: Arc<dyn ImageSource>,
    locks: Locks,
}

/// A disk that an image says to be larger is not written out.
const DISK_BYTES_MAX: u64 = 16 << 40;

/// An image that is there and safe to open under its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseImage {
    pub path: PathBuf,
    pub format: Format,
    pub virtual_bytes: u64,
}

impl BaseImages {
    pub fn new(dir: PathBuf, source: Arc<dyn ImageSource>) -> Self {
        Self { dir, source, locks: Locks::default() }
    }

    /// The image, fetched when it is not there.
    pub async fn get(&self, cx: &Context, image: &InstanceImage) -> Result<BaseImage> {
        let (path, format) = (self.path(&image.id)?, format_of(image)?);
        let _held = self.locks.hold(&image.id).await;
        if tokio::fs::try_exists(&path).await? {
            // Its age counts from its last use.
            let file = std::fs::File::options().append(true).open(&path)?;
            file.set_modified(SystemTime::now())?;
        } else {
            self.fetch(cx, image, &path).await?;
        }
        let virtual_bytes = virtual_bytes(&path, format).await?;
        Ok(BaseImage { path, format, virtual_bytes })
    }

    pub fn path(&self, image_id: &str) -> Result<PathBuf> {
        match base::id::is_uuid(image_id) {
            true => Ok(self.dir.join(image_id)),
            false => Err(Error::bad_request(format!("Invalid image id: {image_id}"))),
        }
    }

    /// The image, from a file beside it that somebody else has fetched.
    pub async fn adopt(&self, image: &InstanceImage, fetched: &Path) -> Result<BaseImage> {
        let (path, format) = (self.path(&image.id)?, format_of(image)?);
        let virtual_bytes = virtual_bytes(fetched, format).await?;
        let _held = self.locks.hold(&image.id).await;
        tokio::fs::rename(fetched, &path).await?;
        Ok(BaseImage { path, format, virtual_bytes })
    }

    async fn fetch(&self, cx: &Context, image: &InstanceImage, path: &Path) -> Result<()> {
        tokio::fs::create_dir_all(&self.dir).await?;
        let part = path.with_extension("part");
        let mut file = tokio::fs::File::create(&part).await?;
        self.source.download(cx, &image.id, &mut file).await?;
        file.flush().await?;
        file.sync_all().await?;
        look_at(&part, &image.disk_format).await?;
        if is_run_from(&image.disk_format) {
            tokio::fs::rename(&part, path).await?;
        } else {
            let raw = path.with_extension("raw");
            let converted =
                host_block::convert(&part, &image.disk_format, &raw, ("raw", DISK_BYTES_MAX)).await;
            tokio::fs::remove_file(&part).await?;
            converted?;
            tokio::fs::File::open(&raw).await?.sync_all().await?;
            tokio::fs::rename(&raw, path).await?;
        }
        tracing::info!(image = image.id, "image fetched");
        Ok(())
    }

    /// Removes images that none of the ids names and nobody used for a while.
    pub async fn remove_unused(&self, used: &HashSet<String>, keep: Duration) -> Result<()> {
        let mut entries = match tokio::fs::read_dir(&self.dir).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.split('.').next().unwrap_or(&name);
            let _held = self.locks.hold(id).await;
            let Ok(metadata) = entry.metadata().await else { continue };
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            if !used.contains(id) && age > keep {
                tokio::fs::remove_file(entry.path()).await?;
                tracing::info!(image = id, "unused image removed");
            }
        }
        Ok(())
    }
}

/// What an image is here.
fn format_of(image: &InstanceImage) -> Result<Format> {
    match image.disk_format.as_str() {
        "raw" | "iso" | "vmdk" | "vdi" | "vhd" | "vhdx" => Ok(Format::Raw),
        "qcow2" => Ok(Format::Qcow2),
        other => Err(Error::bad_request(format!(
            "Image {} is unacceptable: Image not in a supported format: {other}",
            image.id
        ))),
    }
}

/// Guests run from it as it is.
fn is_run_from(disk_format: &str) -> bool {
    matches!(disk_format, "raw" | "iso" | "qcow2")
}

/// Whether it is what it is said to be, and leads nowhere else. What has a partition table is a raw disk all the same.
async fn look_at(path: &Path, said: &str) -> Result<Finding> {
    let looked_at = path.to_path_buf();
    let look = tokio::task::spawn_blocking(move || image_format::inspect_file(&looked_at));
    let finding = look.await.map_err(|e| Error::internal(e.to_string()))??;
    finding.check()?;
    let found = finding.format;
    match said == found.as_str() || (said == "raw" && found == image_format::Format::Gpt) {
        true => Ok(finding),
        false => Err(Error::bad_request(format!(
            "Image is unacceptable: Image content does not match disk_format: it is {found}, not {said}"
        ))),
    }
}

/// The size a guest sees of an image that was looked at before.
async fn virtual_bytes(path: &Path, format: Format) -> Result<u64> {
    match format {
        Format::Raw => Ok(tokio::fs::metadata(path).await?.len()),
        Format::Qcow2 => Ok(look_at(path, "qcow2").await?.virtual_size_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::io::AsyncWrite;

    const ID: &str = "0e8a7f6c-0000-4000-8000-000000000001";

    struct Bytes(Vec<u8>, AtomicU32);

    #[async_trait]
    impl ImageSource for Bytes {
        async fn download(
            &self,
            _cx: &Context,
            _image_id: &str,
            into: &mut (dyn AsyncWrite + Send + Unpin),
        ) -> Result<()> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Ok(into.write_all(&self.0).await?)
        }
    }

    fn image(format: &str) -> InstanceImage {
        InstanceImage { id: ID.into(), disk_format: format.into(), ..InstanceImage::default() }
    }

    #[tokio::test]
    async fn fetched_once_and_removed_when_unused() {
        let dir = tempfile::tempdir().unwrap();
        let source = Arc::new(Bytes(vec![0; 4096], AtomicU32::new(0)));
        let images = BaseImages::new(dir.path().join("_base"), source.clone());
        let (cx, raw) = (Context::internal(), image("raw"));
        let (one, two) = tokio::join!(images.get(&cx, &raw), images.get(&cx, &raw));
        assert_eq!(one.unwrap(), two.unwrap());
        assert_eq!(source.1.load(Ordering::SeqCst), 1, "two guests, one download");
        let path = images.get(&cx, &raw).await.unwrap().path;
        images.remove_unused(&[ID.to_string()].into(), Duration::ZERO).await.unwrap();
        images.remove_unused(&HashSet::new(), Duration::from_secs(60)).await.unwrap();
        assert!(path.exists());
        tokio::time::sleep(Duration::from_millis(20)).await;
        images.remove_unused(&HashSet::new(), Duration::ZERO).await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn unchecked_bytes_never_become_an_image() {
        let dir = tempfile::tempdir().unwrap();
        let source = Arc::new(Bytes(vec![0; 4096], AtomicU32::new(0)));
        let images = BaseImages::new(dir.path().into(), source);
        let cx = Context::internal();
        for said in ["qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ploop"] {
            assert!(images.get(&cx, &image(said)).await.is_err(), "{said}");
        }
        assert!(!dir.path().join(ID).exists());
        let elsewhere = InstanceImage { id: "../x".into(), ..image("raw") };
        assert!(images.get(&cx, &elsewhere).await.is_err());
    }

    /// Of each format a small disk, as `qemu-img` writes it: said to be anything else, it is refused.
    #[tokio::test]
    async fn what_guests_do_not_run_from_is_rewritten() {
        if std::process::Command::new("qemu-img").arg("--version").output().is_err() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk: Vec<u8> = (0..1 << 20).map(|n: u32| (n / 512) as u8 | 1).collect();
        std::fs::write(dir.path().join("raw"), &disk).unwrap();
        let formats =
            [("raw", "raw"), ("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vdi", "vdi"), ("vhdx", "vhdx")];
        for (format, tool_format) in formats {
            let (from, to) = (dir.path().join("raw"), dir.path().join(format));
            if format != "raw" {
                let mut tool = std::process::Command::new("qemu-img");
                tool.args(["convert", "-f", "raw", "-O", tool_format]).args([&from, &to]);
                assert!(tool.status().unwrap().success());
            }
            for (said, _) in formats {
                let folder = tempfile::tempdir().unwrap();
                let source = Arc::new(Bytes(std::fs::read(&to).unwrap(), AtomicU32::new(0)));
                let images = BaseImages::new(folder.path().into(), source);
                let got = images.get(&Context::internal(), &image(said)).await;
                assert_eq!(got.is_ok(), said == format, "{format} as {said}: {got:?}");
                let Ok(base) = got else { continue };
                assert_eq!(base.virtual_bytes, disk.len() as u64, "{format}");
                if format != "qcow2" {
                    assert_eq!(base.format, Format::Raw);
                    assert!(std::fs::read(&base.path).unwrap() == disk, "{format}");
                }
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{format}");
            }
        }
    }
}
