//! A guest's local disks: root overlay, ephemeral, swap and config drive, in one folder per guest.

use crate::{
    base_images::{BaseImage, BaseImages},
    config_drive,
    link::Link,
    pool::Pool,
};
use async_trait::async_trait;
use base::{Context, Error, Result};
use contracts::{
    compute::{ImageSink, ImageSource, Instance, InstanceImage, Rescue, SnapshotImage},
    peers::Peer,
};
use host_run::run;
use host_virt::{Disk, Format};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncWriteExt;

pub(crate) const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const MAKE_PATIENCE: Duration = Duration::from_secs(120);
/// Large disks are copied for as long as it takes, within reason.
pub(crate) const COPY_PATIENCE: Duration = Duration::from_secs(3600);
const BASE_FOLDER: &str = "_base";
/// A guest's files.
pub(crate) const DISK: &str = "disk";
pub(crate) const EPHEMERAL: &str = "disk.eph0";
pub(crate) const SWAP: &str = "disk.swap";
pub(crate) const CONFIG_DRIVE: &str = "disk.config";
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// Remembers which image a guest's disk lies on.
pub(crate) const IMAGE_NOTE: &str = "image";
const RESCUE_NOTE: &str = "rescue-image";
const RESCUE_DISK: &str = "disk.rescue";
const STABLE_RESCUE_DISK: &str = "disk.stable-rescue";
/// Says that a guest's root disk is in a Ceph pool.
pub(crate) const POOL_NOTE: &str = "pool";
/// Behind the name of a folder that waits for the end of a move.
const ASIDE: &str = "_resize";
/// In that folder: the host that may fetch it.
pub(crate) const ASIDE_FOR_NOTE: &str = "dest";

/// What a guest has on this host's own disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalDisks {
    /// Root (unless it is a volume), ephemeral, swap.
    pub root: Option<Disk>,
    /// What the guest starts from while it is rescued; stable: behind its own disks.
    pub rescue: Option<(Disk, bool)>,
    pub others: Vec<Disk>,
    pub config_drive: Option<PathBuf>,
    pub console_log: PathBuf,
}

#[async_trait]
pub trait Disks: Send + Sync {
    /// Makes what is missing of the guest's disks; what is there stays as it is.
    async fn prepare(&self, cx: &Context, instance: &Instance) -> Result<LocalDisks>;

    /// Fetches an image before a guest needs it; one that is there is fine.
    async fn cache(&self, cx: &Context, image: &InstanceImage) -> Result<()>;

    /// Copies the root disk as it stands, under the image's name. Quick: the guest stands still meanwhile.
    async fn copy_root(&self, uuid: &str, image: &SnapshotImage) -> Result<()>;

    /// Brings that copy to the image, whole and in its format, and removes it.
    async fn upload_copy(&self, cx: &Context, uuid: &str, image: &SnapshotImage) -> Result<()>;

    /// Makes the disk that the guest is rescued with; [`Disks::prepare`] finds it from now on.
    async fn make_rescue(&self, cx: &Context, uuid: &str, rescue: &Rescue) -> Result<()>;

    async fn remove_rescue(&self, uuid: &str) -> Result<()>;

    /// Puts the guest's folder aside, where it waits for the end of a move; that host may fetch it.
    async fn set_aside(&self, uuid: &str, dest: &str) -> Result<()>;

    /// A copy of what was put aside on this host, as large as the instance says.
    async fn copy_from_aside(&self, instance: &Instance) -> Result<()>;

    /// The same from another host.
    async fn fetch_aside(&self, cx: &Context, source: &Peer, instance: &Instance) -> Result<()>;

    /// Disks like those of a running guest of another host, empty as far as its hypervisor brings the bytes.
    async fn expect(&self, cx: &Context, source: &Peer, instance: &Instance) -> Result<()>;

    /// What was put aside is the guest's again; nothing was: all stays.
    async fn take_back(&self, uuid: &str) -> Result<()>;

    async fn remove_aside(&self, uuid: &str) -> Result<()>;

    /// Removes all of it, but what was put aside.
    async fn remove(&self, uuid: &str) -> Result<()>;

    /// Guests that have something here.
    async fn uuids(&self) -> Result<Vec<String>>;

    /// Cuts overgrown console logs and removes images that nobody uses.
    async fn tidy(&self, console_bytes_max: u64, keep_images: Duration) -> Result<()>;
}

/// Files below one folder.
pub struct FileDisks {
    dir: PathBuf,
    pub(crate) images: BaseImages,
    sink: Arc<dyn ImageSink>,
    link: Option<Link>,
    pool: Option<Pool>,
}

impl FileDisks {
    pub fn new(dir: PathBuf, source: Arc<dyn ImageSource>, sink: Arc<dyn ImageSink>) -> Self {
        let images = BaseImages::new(dir.join(BASE_FOLDER), source);
        Self { dir, images, sink, link: None, pool: None }
    }

    /// One of several hosts: disks come from others, too.
    pub(crate) fn linked(self, link: Option<Link>) -> Self {
        Self { link, ..self }
    }

    /// Root disks of new guests are in a pool.
    pub(crate) fn beside(self, pool: Option<Pool>) -> Self {
        Self { pool, ..self }
    }

    /// The pool that has the root disk of the guest of this folder; none: it is a file there.
    async fn pool_of(&self, folder: &Path) -> Result<Option<&Pool>> {
        if !tokio::fs::try_exists(folder.join(POOL_NOTE)).await? {
            return Ok(None);
        }
        let lost = || Error::conflict("The disk is in a Ceph pool that this host is configured for no more.");
        self.pool.as_ref().map(Some).ok_or_else(lost)
    }

    /// Chooses where a new guest's root disk is, and makes it.
    async fn prepare_root(&self, cx: &Context, instance: &Instance, image: &InstanceImage) -> Result<Disk> {
        let folder = self.folder(&instance.uuid);
        let path = folder.join(DISK);
        let is_file = tokio::fs::try_exists(&path).await?;
        if self.pool.is_some() && !is_file {
            tokio::fs::write(folder.join(POOL_NOTE), "").await?;
        }
        if let Some(pool) = self.pool_of(&folder).await? {
            pool.make(cx, &self.images, &instance.uuid, image, instance.root_gb).await?;
            return Ok(pool.disk(&instance.uuid));
        }
        // A disk that is there may lie on another image: that of a server that was shelved.
        if !is_file {
            // Before the disk, so that the image is never taken for unused.
            tokio::fs::write(folder.join(IMAGE_NOTE), &image.id).await?;
            let base = self.images.get(cx, image).await?;
            make_overlay(&path, &base, instance.root_gb * GIB).await?;
        }
        Ok(Disk::file("root", path, Format::Qcow2))
    }

    pub(crate) fn link(&self) -> Result<&Link> {
        self.link.as_ref().ok_or_else(|| Error::conflict("This host has joined no cloud of several hosts."))
    }

    pub(crate) fn folder(&self, uuid: &str) -> PathBuf {
        self.dir.join(uuid)
    }

    /// A folder that is not whole yet.
    pub(crate) fn part(&self, uuid: &str) -> PathBuf {
        self.dir.join(format!("{uuid}.part"))
    }

    /// As the instance now says: its disk grows; what the flavor has otherwise is made anew, for nobody promised to
    /// keep that.
    pub(crate) async fn fit(&self, instance: &Instance) -> Result<()> {
        let folder = self.folder(&instance.uuid);
        match self.pool_of(&folder).await? {
            Some(pool) => pool.grow(&instance.uuid, instance.root_gb).await?,
            None if instance.image.is_some() => grow(&folder.join(DISK), instance.root_gb * GIB).await?,
            None => {}
        }
        for (name, wanted) in [(EPHEMERAL, instance.ephemeral_gb * GIB), (SWAP, instance.swap_mb * MIB)] {
            let path = folder.join(name);
            if tokio::fs::metadata(&path).await.is_ok_and(|metadata| metadata.len() != wanted) {
                remove_file(&path).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn aside(&self, uuid: &str) -> PathBuf {
        self.dir.join(format!("{uuid}{ASIDE}"))
    }

    /// The images that guests' disks lie on, of guests here and of those put aside.
    async fn used_images(&self) -> Result<HashSet<String>> {
        let mut used = HashSet::new();
        let mut entries = match tokio::fs::read_dir(&self.dir).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(used),
            other => other?,
        };
        while let Some(entry) = entries.next_entry().await? {
            for note in [IMAGE_NOTE, RESCUE_NOTE] {
                used.extend(tokio::fs::read_to_string(entry.path().join(note)).await);
            }
        }
        Ok(used)
    }
}

#[async_trait]
impl Disks for FileDisks {
    async fn prepare(&self, cx: &Context, instance: &Instance) -> Result<LocalDisks> {
        let folder = self.folder(&instance.uuid);
        tokio::fs::create_dir_all(&folder).await?;
        let mut disks = LocalDisks { console_log: folder.join(CONSOLE_LOG), ..LocalDisks::default() };
        if let Some(image) = &instance.image {
            disks.root = Some(self.prepare_root(cx, instance, image).await?);
        }
        for (name, stable) in [(RESCUE_DISK, false), (STABLE_RESCUE_DISK, true)] {
            let path = folder.join(name);
            if tokio::fs::try_exists(&path).await? {
                disks.rescue = Some((Disk::file("rescue", path, Format::Qcow2), stable));
            }
        }
        if instance.ephemeral_gb > 0 {
            let path = folder.join(EPHEMERAL);
            let program = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "ephemeral0"];
            make_formatted(&path, instance.ephemeral_gb * GIB, &program).await?;
            disks.others.push(Disk::file("ephemeral0", path, Format::Raw));
        }
        if instance.swap_mb > 0 {
            let path = folder.join(SWAP);
            make_formatted(&path, instance.swap_mb * MIB, &["mkswap", "-L", "swap"]).await?;
            disks.others.push(Disk::file("swap", path, Format::Raw));
        }
        if let Some(files) = &instance.config_drive {
            let path = folder.join(CONFIG_DRIVE);
            if !tokio::fs::try_exists(&path).await? {
                config_drive::write(&path, files).await?;
            }
            disks.config_drive = Some(path);
        }
        Ok(disks)
    }

    async fn cache(&self, cx: &Context, image: &InstanceImage) -> Result<()> {
        self.images.get(cx, image).await.map(drop)
    }

    async fn copy_root(&self, uuid: &str, image: &SnapshotImage) -> Result<()> {
        let (disk, copy) = (self.folder(uuid).join(DISK), self.folder(uuid).join(copy_name(image)?));
        if let Some(pool) = self.pool_of(&self.folder(uuid)).await? {
            return pool.copy(uuid, image).await;
        }
        if tokio::fs::try_exists(&copy).await? {
            return Ok(());
        }
        let part = copy.with_added_extension("part");
        run("cp")
            .args(["--reflink=auto", "--sparse=auto"])
            .args([&disk, &part])
            .timeout(COPY_PATIENCE)
            .output()
            .await?;
        finish(&part, &copy).await
    }

    async fn upload_copy(&self, cx: &Context, uuid: &str, image: &SnapshotImage) -> Result<()> {
        let copy = self.folder(uuid).join(copy_name(image)?);
        let whole = copy.with_added_extension("whole");
        let format = match image.disk_format.as_str() {
            format @ ("raw" | "qcow2") => format,
            other => return Err(Error::bad_request(format!("Snapshots are raw or qcow2, not {other}"))),
        };
        let pool = self.pool_of(&self.folder(uuid)).await?;
        match pool {
            Some(pool) => pool.write_copy(uuid, image, format, &whole).await?,
            None => drop(
                run("qemu-img")
                    .args(["convert", "-f", "qcow2", "-O", format])
                    .args([&copy, &whole])
                    .timeout(COPY_PATIENCE)
                    .output()
                    .await?,
            ),
        }
        let uploaded = match tokio::fs::File::open(&whole).await {
            Ok(mut file) => self.sink.upload(cx, &image.id, &mut file).await,
            Err(error) => Err(error.into()),
        };
        for file in [&whole, &copy] {
            remove_file(file).await?;
        }
        if let Some(pool) = pool {
            pool.forget_copy(uuid, image).await?;
        }
        uploaded
    }

    async fn make_rescue(&self, cx: &Context, uuid: &str, rescue: &Rescue) -> Result<()> {
        let folder = self.folder(uuid);
        tokio::fs::create_dir_all(&folder).await?;
        tokio::fs::write(folder.join(RESCUE_NOTE), &rescue.image.id).await?;
        let base = self.images.get(cx, &rescue.image).await?;
        let name = if rescue.stable { STABLE_RESCUE_DISK } else { RESCUE_DISK };
        make_overlay(&folder.join(name), &base, 0).await
    }

    async fn remove_rescue(&self, uuid: &str) -> Result<()> {
        for name in [RESCUE_DISK, STABLE_RESCUE_DISK, RESCUE_NOTE] {
            remove_file(&self.folder(uuid).join(name)).await?;
        }
        Ok(())
    }

    async fn set_aside(&self, uuid: &str, dest: &str) -> Result<()> {
        if !tokio::fs::try_exists(self.aside(uuid)).await? {
            if let Some(pool) = self.pool_of(&self.folder(uuid)).await? {
                pool.set_aside(uuid).await?;
            }
            tokio::fs::rename(self.folder(uuid), self.aside(uuid)).await?;
        }
        Ok(tokio::fs::write(self.aside(uuid).join(ASIDE_FOR_NOTE), dest).await?)
    }

    async fn copy_from_aside(&self, instance: &Instance) -> Result<()> {
        let (folder, part) = (self.folder(&instance.uuid), self.part(&instance.uuid));
        if !tokio::fs::try_exists(&folder).await? {
            remove_folder(&part).await?;
            run("cp")
                .args(["--archive", "--reflink=auto", "--sparse=auto"])
                .args([&self.aside(&instance.uuid), &part])
                .timeout(COPY_PATIENCE)
                .output()
                .await?;
            remove_file(&part.join(ASIDE_FOR_NOTE)).await?;
            tokio::fs::rename(&part, &folder).await?;
        }
        self.fit(instance).await
    }

    async fn fetch_aside(&self, cx: &Context, source: &Peer, instance: &Instance) -> Result<()> {
        self.fetch_stopped(cx, source, instance).await
    }

    async fn expect(&self, cx: &Context, source: &Peer, instance: &Instance) -> Result<()> {
        self.fetch_running(cx, source, instance).await
    }

    async fn take_back(&self, uuid: &str) -> Result<()> {
        if tokio::fs::try_exists(self.aside(uuid)).await? {
            if let Some(pool) = self.pool_of(&self.aside(uuid)).await? {
                pool.take_back(uuid).await?;
            }
            remove_folder(&self.folder(uuid)).await?;
            remove_file(&self.aside(uuid).join(ASIDE_FOR_NOTE)).await?;
            tokio::fs::rename(self.aside(uuid), self.folder(uuid)).await?;
            if let Some(pool) = self.pool_of(&self.folder(uuid)).await? {
                pool.forget_aside(uuid).await?;
            }
        }
        Ok(())
    }

    async fn remove_aside(&self, uuid: &str) -> Result<()> {
        // A disk in a pool is the same for both.
        match (self.pool_of(&self.aside(uuid)).await?, self.pool_of(&self.folder(uuid)).await?) {
            (Some(pool), Some(_)) => pool.forget_aside(uuid).await?,
            (Some(pool), None) => pool.remove(uuid).await?,
            (None, _) => {}
        }
        remove_folder(&self.aside(uuid)).await
    }

    async fn remove(&self, uuid: &str) -> Result<()> {
        remove_folder(&self.part(uuid)).await?;
        let (here, aside) = (self.pool_of(&self.folder(uuid)).await?, self.pool_of(&self.aside(uuid)).await?);
        if let (Some(pool), None) = (here, aside) {
            pool.remove(uuid).await?;
        }
        remove_folder(&self.folder(uuid)).await
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
        for uuid in self.uuids().await? {
            cut(&self.folder(&uuid).join(CONSOLE_LOG), console_bytes_max).await?;
        }
        self.images.remove_unused(&self.used_images().await?, keep_images).await
    }
}

/// An overlay on the image, as large as the flavor says.
pub(crate) async fn make_overlay(path: &Path, base: &BaseImage, flavor_bytes: u64) -> Result<()> {
    too_small(base.virtual_bytes, flavor_bytes)?;
    if tokio::fs::try_exists(path).await? {
        return Ok(());
    }
    let part = path.with_added_extension("part");
    run("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format_name(base.format), "-b"])
        .args([&base.path, &part])
        .arg(base.virtual_bytes.max(flavor_bytes).next_multiple_of(512).to_string())
        .timeout(MAKE_PATIENCE)
        .output()
        .await?;
    finish(&part, path).await
}

/// Whether an image fits on a flavor's disk; a flavor of none takes every image.
pub(crate) fn too_small(image_bytes: u64, flavor_bytes: u64) -> Result<()> {
    if flavor_bytes > 0 && image_bytes > flavor_bytes {
        return Err(Error::bad_request(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {flavor_bytes} bytes, image is {image_bytes} bytes."
        )));
    }
    Ok(())
}

pub(crate) fn format_name(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    }
}

/// A disk that lies on nothing.
pub(crate) async fn make_disk(path: &Path, bytes: u64) -> Result<()> {
    let part = path.with_added_extension("part");
    run("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&part).arg(bytes.to_string()).output().await?;
    finish(&part, path).await
}

pub(crate) struct DiskInfo {
    pub virtual_bytes: u64,
    /// Of the image that it lies on.
    pub base_format: Option<Format>,
}

/// Of a disk of ours, which may be in use.
pub(crate) async fn disk_info(disk: &Path) -> Result<DiskInfo> {
    let info = run("qemu-img").args(["info", "--force-share", "--output=json"]).arg(disk).text().await?;
    let info: base::Json = serde_json::from_str(&info)?;
    let no_size = || Error::internal(format!("{}: no size", disk.display()));
    Ok(DiskInfo {
        virtual_bytes: info["virtual-size"].as_u64().ok_or_else(no_size)?,
        base_format: match info["backing-filename-format"].as_str() {
            Some("raw") => Some(Format::Raw),
            Some(_) => Some(Format::Qcow2),
            None => None,
        },
    })
}

/// As large as the flavor says; a disk never shrinks.
async fn grow(disk: &Path, bytes: u64) -> Result<()> {
    if disk_info(disk).await?.virtual_bytes < bytes {
        run("qemu-img")
            .args(["resize", "-q", "-f", "qcow2"])
            .arg(disk)
            .arg(bytes.to_string())
            .output()
            .await?;
    }
    Ok(())
}

/// The name of an image's file beside the disk it is a copy of.
fn copy_name(image: &SnapshotImage) -> Result<String> {
    match base::id::is_uuid(&image.id) {
        true => Ok(format!("snapshot-{}", image.id)),
        false => Err(Error::bad_request(format!("Invalid image id: {}", image.id))),
    }
}

async fn remove_file(path: &Path) -> Result<()> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

pub(crate) async fn remove_folder(path: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
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

/// Disks that are only names, for a host without guests. A snapshot of one is a small empty disk.
#[derive(Default)]
pub struct FakeDisks {
    sink: Option<Arc<dyn ImageSink>>,
    rescues: Mutex<HashMap<String, bool>>,
}

impl FakeDisks {
    pub fn new(sink: Option<Arc<dyn ImageSink>>) -> Self {
        Self { sink, rescues: Mutex::default() }
    }
}

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
            rescue: self
                .rescues
                .lock()
                .get(&instance.uuid)
                .map(|stable| (disk("rescue", RESCUE_DISK, Format::Qcow2), *stable)),
            others,
            config_drive: instance.config_drive.as_ref().map(|_| folder.join(CONFIG_DRIVE)),
            console_log: folder.join(CONSOLE_LOG),
        })
    }

    async fn cache(&self, _cx: &Context, _image: &InstanceImage) -> Result<()> {
        Ok(())
    }

    async fn copy_root(&self, _uuid: &str, _image: &SnapshotImage) -> Result<()> {
        Ok(())
    }

    async fn upload_copy(&self, cx: &Context, _uuid: &str, image: &SnapshotImage) -> Result<()> {
        let Some(sink) = &self.sink else { return Ok(()) };
        let bytes = if image.disk_format == "qcow2" { empty_qcow2() } else { vec![0; 1 << 20] };
        sink.upload(cx, &image.id, &mut &bytes[..]).await
    }

    async fn make_rescue(&self, _cx: &Context, uuid: &str, rescue: &Rescue) -> Result<()> {
        self.rescues.lock().insert(uuid.into(), rescue.stable);
        Ok(())
    }

    async fn remove_rescue(&self, uuid: &str) -> Result<()> {
        self.rescues.lock().remove(uuid);
        Ok(())
    }

    async fn set_aside(&self, _uuid: &str, _dest: &str) -> Result<()> {
        Ok(())
    }

    async fn copy_from_aside(&self, _instance: &Instance) -> Result<()> {
        Ok(())
    }

    async fn fetch_aside(&self, _cx: &Context, _source: &Peer, _instance: &Instance) -> Result<()> {
        Ok(())
    }

    async fn expect(&self, _cx: &Context, _source: &Peer, _instance: &Instance) -> Result<()> {
        Ok(())
    }

    async fn take_back(&self, _uuid: &str) -> Result<()> {
        Ok(())
    }

    async fn remove_aside(&self, _uuid: &str) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, uuid: &str) -> Result<()> {
        self.remove_rescue(uuid).await
    }

    async fn uuids(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn tidy(&self, _console_bytes_max: u64, _keep_images: Duration) -> Result<()> {
        Ok(())
    }
}

/// A header that says: a mebibyte, nothing written yet.
fn empty_qcow2() -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut bytes = Vec::with_capacity(4 * CLUSTER);
    bytes.extend(*b"QFI\xfb");
    let numbers: [&[u8]; 11] = [
        &2u32.to_be_bytes(), // version
        &0u64.to_be_bytes(), // no backing file
        &0u32.to_be_bytes(),
        &16u32.to_be_bytes(),                // bits of a cluster
        &MIB.to_be_bytes(),                  // size
        &0u32.to_be_bytes(),                 // not encrypted
        &1u32.to_be_bytes(),                 // entries of the first table
        &(3 * CLUSTER as u64).to_be_bytes(), // where it is
        &(CLUSTER as u64).to_be_bytes(),     // where the table of reference counts is
        &1u32.to_be_bytes(),                 // its clusters
        &0u32.to_be_bytes(),                 // snapshots
    ];
    numbers.iter().for_each(|number| bytes.extend(*number));
    bytes.resize(4 * CLUSTER, 0);
    bytes[CLUSTER..CLUSTER + 8].copy_from_slice(&(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        bytes[2 * CLUSTER + 2 * cluster + 1] = 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::compute::InstanceImage;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

    const UUID: &str = "0e8a7f6c-0000-4000-8000-000000000001";
    const OTHER: &str = "0e8a7f6c-0000-4000-8000-000000000002";

    struct Zeros(usize);

    /// Keeps what it is given.
    #[derive(Default)]
    struct Shelf(Mutex<Vec<u8>>);

    #[async_trait]
    impl ImageSink for Shelf {
        async fn upload(
            &self,
            _cx: &Context,
            _image_id: &str,
            from: &mut (dyn AsyncRead + Send + Unpin),
        ) -> Result<()> {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).await?;
            *self.0.lock() = bytes;
            Ok(())
        }
    }

    /// What qemu-img finds in it.
    async fn virtual_size(bytes: &[u8]) -> u64 {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let info = run("qemu-img").args(["info", "--output=json"]).arg(file.path()).text().await.unwrap();
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["format"], "qcow2", "{info}");
        assert_eq!(info.get("backing-filename"), None, "a whole disk");
        info["virtual-size"].as_u64().unwrap()
    }

    #[tokio::test]
    async fn a_snapshot_is_whole_and_leaves_nothing() {
        let (dir, shelf) = (tempfile::tempdir().unwrap(), Arc::new(Shelf::default()));
        let disks = FileDisks::new(dir.path().into(), Arc::new(Zeros(4096)), shelf.clone());
        let (cx, instance) = (Context::internal(), Instance { swap_mb: 0, ..instance() });
        disks.prepare(&cx, &instance).await.unwrap();
        let image = SnapshotImage { id: OTHER.into(), disk_format: "qcow2".into() };
        for _ in 0..2 {
            disks.copy_root(UUID, &image).await.unwrap();
        }
        disks.upload_copy(&cx, UUID, &image).await.unwrap();
        let bytes = shelf.0.lock().clone();
        assert_eq!(virtual_size(&bytes).await, GIB);
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path().join(UUID)).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["disk", "image"]);
        assert_eq!(virtual_size(&empty_qcow2()).await, MIB);
    }

    #[tokio::test]
    async fn what_is_put_aside_comes_back_or_is_copied_larger() {
        let dir = tempfile::tempdir().unwrap();
        let disks = FileDisks::new(dir.path().into(), Arc::new(Zeros(4096)), Arc::new(Shelf::default()));
        let cx = Context::internal();
        disks.prepare(&cx, &instance()).await.unwrap();
        for _ in 0..2 {
            disks.set_aside(UUID, "there").await.unwrap();
        }
        let larger = Instance { root_gb: 2, swap_mb: 0, ..instance() };
        for _ in 0..2 {
            disks.copy_from_aside(&larger).await.unwrap();
        }
        let (disk, swap) = (dir.path().join(UUID).join("disk"), dir.path().join(UUID).join("disk.swap"));
        let size = async || virtual_size_of(&disk).await;
        assert_eq!((size().await, swap.exists()), (2 * GIB, false));
        disks.tidy(1, Duration::ZERO).await.unwrap();
        assert!(dir.path().join(BASE_FOLDER).join(UUID).exists(), "the image is in use");
        for _ in 0..2 {
            disks.take_back(UUID).await.unwrap();
        }
        assert_eq!((size().await, swap.exists()), (GIB, true));
        assert!(!disks.aside(UUID).exists());
    }

    async fn virtual_size_of(disk: &Path) -> u64 {
        let info = run("qemu-img").args(["info", "--output=json"]).arg(disk).text().await.unwrap();
        serde_json::from_str::<serde_json::Value>(&info).unwrap()["virtual-size"].as_u64().unwrap()
    }

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
        let disks = FileDisks::new(dir.path().into(), Arc::new(Zeros(4096)), Arc::new(Shelf::default()));
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
