//! A guest's files on their way between hosts: what another host is given of a guest that moves there, and what this
//! one fetches of a guest that comes.

use crate::{
    disks::{
        ASIDE_FOR_NOTE, CONFIG_DRIVE, CONSOLE_LOG, COPY_PATIENCE, DISK, EPHEMERAL, FileDisks, IMAGE_NOTE,
        POOL_NOTE, SWAP, disk_info, format_name, make_disk, make_overlay, remove_folder,
    },
    link::{Belongings, Link},
};
use base::{Context, Error, Result};
use contracts::{
    compute::{Instance, InstanceImage},
    peers::Peer,
};
use host_run::run;
use host_virt::Format;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What goes with a guest that is off, and with one that runs: the hypervisor brings the disks of that one.
const WITH_THE_STOPPED: [&str; 6] = [IMAGE_NOTE, DISK, EPHEMERAL, SWAP, CONFIG_DRIVE, CONSOLE_LOG];
const WITH_THE_RUNNING: [&str; 3] = [IMAGE_NOTE, CONFIG_DRIVE, CONSOLE_LOG];

/// The image below a guest's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseNote {
    pub image: String,
    pub format: Format,
}

/// This side gives.
impl FileDisks {
    pub async fn belongings(&self, uuid: &str, host: &str, leaves: bool) -> Result<Belongings> {
        let (folder, names) = self.given(uuid, host, leaves).await?;
        if tokio::fs::try_exists(folder.join(POOL_NOTE)).await? {
            let sentence =
                format!("The disk of instance {uuid} is its host's in a Ceph pool: it does not move.");
            return Err(Error::conflict(sentence));
        }
        let mut belongings = Belongings::default();
        for name in names {
            if tokio::fs::try_exists(folder.join(name)).await? {
                belongings.files.push(name.to_string());
            }
        }
        if tokio::fs::try_exists(folder.join(DISK)).await? {
            let info = disk_info(&folder.join(DISK)).await?;
            belongings.disk_bytes = Some(info.virtual_bytes);
            if let Some(format) = info.base_format {
                let image = tokio::fs::read_to_string(folder.join(IMAGE_NOTE)).await?;
                belongings.base = Some(BaseNote { image, format });
            }
        }
        Ok(belongings)
    }

    pub async fn open_for(&self, uuid: &str, name: &str, host: &str, leaves: bool) -> Result<std::fs::File> {
        let (folder, names) = self.given(uuid, host, leaves).await?;
        match names.contains(&name) {
            true => Ok(std::fs::File::open(folder.join(name))?),
            false => Err(Error::forbidden(format!("'{name}' is nothing that goes with a guest"))),
        }
    }

    pub async fn open_base_for(&self, uuid: &str, host: &str, leaves: bool) -> Result<std::fs::File> {
        let (folder, _) = self.given(uuid, host, leaves).await?;
        let image = tokio::fs::read_to_string(folder.join(IMAGE_NOTE)).await?;
        Ok(std::fs::File::open(self.images.path(&image)?)?)
    }

    /// The folder of a guest that goes to the host, and what is given of it.
    async fn given(
        &self,
        uuid: &str,
        host: &str,
        leaves: bool,
    ) -> Result<(PathBuf, &'static [&'static str])> {
        if !base::id::is_uuid(uuid) {
            return Err(Error::bad_request(format!("Invalid instance id: {uuid}")));
        }
        let aside = self.aside(uuid);
        if tokio::fs::read_to_string(aside.join(ASIDE_FOR_NOTE)).await.is_ok_and(|dest| dest == host) {
            return Ok((aside, &WITH_THE_STOPPED));
        }
        match leaves {
            true => Ok((self.folder(uuid), &WITH_THE_RUNNING)),
            false => Err(Error::forbidden(format!("Instance {uuid} does not go to {host}."))),
        }
    }
}

/// This side fetches.
impl FileDisks {
    pub(crate) async fn fetch_stopped(&self, cx: &Context, source: &Peer, instance: &Instance) -> Result<()> {
        let (link, uuid) = (self.link()?, &instance.uuid);
        let (folder, part) = (self.folder(uuid), self.part(uuid));
        if !tokio::fs::try_exists(&folder).await? {
            let belongings = begin(link, source, uuid, &part).await?;
            for name in WITH_THE_STOPPED.iter().filter(|name| belongings.has(name)) {
                link.file(source, uuid, name, &part.join(name)).await?;
            }
            if let Some(note) = &belongings.base {
                let base = self.base_of(cx, link, source, uuid, note).await?;
                run("qemu-img")
                    .args(["rebase", "-q", "-u", "-f", "qcow2", "-F", format_name(note.format), "-b"])
                    .args([&base, &part.join(DISK)])
                    .timeout(COPY_PATIENCE)
                    .output()
                    .await?;
            }
            tokio::fs::rename(&part, &folder).await?;
        }
        self.fit(instance).await
    }

    /// Disks as they are there, without what is in them: that comes with the guest.
    pub(crate) async fn fetch_running(&self, cx: &Context, source: &Peer, instance: &Instance) -> Result<()> {
        let (link, uuid) = (self.link()?, &instance.uuid);
        let (folder, part) = (self.folder(uuid), self.part(uuid));
        if tokio::fs::try_exists(&folder).await? {
            return Ok(());
        }
        let belongings = begin(link, source, uuid, &part).await?;
        for name in WITH_THE_RUNNING.iter().filter(|name| belongings.has(name)) {
            link.file(source, uuid, name, &part.join(name)).await?;
        }
        match (&belongings.base, belongings.disk_bytes) {
            (Some(note), Some(bytes)) => {
                self.base_of(cx, link, source, uuid, note).await?;
                let image = InstanceImage { id: note.image.clone(), ..of_format(note.format) };
                make_overlay(&part.join(DISK), &self.images.get(cx, &image).await?, bytes).await?;
            }
            (None, Some(bytes)) => make_disk(&part.join(DISK), bytes).await?,
            (_, None) => {}
        }
        Ok(tokio::fs::rename(&part, &folder).await?)
    }

    /// The image below the disk: ours, glance's, or that of the other host when glance has it no more.
    async fn base_of(
        &self,
        cx: &Context,
        link: &Link,
        source: &Peer,
        uuid: &str,
        note: &BaseNote,
    ) -> Result<PathBuf> {
        let image = InstanceImage { id: note.image.clone(), ..of_format(note.format) };
        match self.images.get(cx, &image).await {
            Ok(base) => return Ok(base.path),
            Err(error) => tracing::info!(%error, image = note.image, "the other host is asked for the image"),
        }
        let beside = self.images.path(&note.image)?.with_extension(format!("{uuid}.part"));
        let fetched = link.base(source, uuid, &beside).await;
        let adopted = match fetched {
            Ok(()) => self.images.adopt(&image, &beside).await,
            Err(error) => Err(error),
        };
        if adopted.is_err() {
            let _ = tokio::fs::remove_file(&beside).await;
        }
        Ok(adopted?.path)
    }
}

impl Belongings {
    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }
}

async fn begin(link: &Link, source: &Peer, uuid: &str, part: &Path) -> Result<Belongings> {
    let belongings = link.belongings(source, uuid).await?;
    remove_folder(part).await?;
    tokio::fs::create_dir_all(part).await?;
    Ok(belongings)
}

fn of_format(format: Format) -> InstanceImage {
    InstanceImage { disk_format: format_name(format).into(), ..InstanceImage::default() }
}
