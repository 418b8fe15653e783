//! Disks of a Ceph cluster by Ceph's own `rbd`, of the package ceph-common: a program that needs no cluster does not
//! carry its libraries. Whose a disk is and what it is called is the caller's matter.

use crate::nbd;
use base::{Error, Result};
use host_run::{Output, Reader, Run, run};
use serde_json::json;
use std::{ops::Range, path::Path, time::Duration};
use tokio::io::AsyncRead;

/// A pool, and as whom its cluster is asked.
#[derive(Clone, Debug)]
pub struct Rbd {
    pub pool: String,
    /// Empty: as the cluster's configuration says.
    pub user: String,
    /// The cluster's configuration file. Empty: where Ceph looks for it.
    pub conf: String,
}

const CONNECT_SECONDS: &str = "30";
const PATIENCE: Duration = Duration::from_secs(120);
/// For what moves or removes all of a disk's bytes.
const LONG_PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// How `rbd` ends, as errno has it.
const NO_SUCH: i32 = 2;
const BUSY: i32 = 16;
const EXISTS: i32 = 17;
const INVALID: i32 = 22;
const NOT_EMPTY: i32 = 39;

impl Rbd {
    pub async fn cluster_id(&self) -> Result<String> {
        self.tool("ceph", "--id").arg("fsid").text().await
    }

    /// Makes a disk of a file, and a protected snapshot of it. `Conflict`: there is one of that name. It leaves nothing
    /// when it fails.
    pub async fn import(&self, file: &Path, disk: &str, snapshot: &str, object_mib: u64) -> Result<()> {
        let size = format!("{object_mib}M");
        let import = self.rbd(&["import", "--object-size", &size, "--dest-pool", &self.pool, "--dest", disk]);
        let imported = import.arg("--").arg(file).timeout(LONG_PATIENCE).status().await;
        if let Ok(output) = &imported
            && output.status.code() == Some(EXISTS)
        {
            return Err(Error::conflict(format!("RBD image {disk} already exists")));
        }
        let made = async {
            succeeded(imported?)?;
            self.on_snapshot(&["snap", "create", "--no-progress"], disk, snapshot).output().await?;
            self.on_snapshot(&["snap", "protect"], disk, snapshot).output().await
        };
        let made = made.await;
        if made.is_err()
            && let Err(error) = self.remove(disk, snapshot).await
            && !error.is(base::ErrorKind::NotFound)
        {
            tracing::warn!(disk, ?error, "a disk that was not finished stays");
        }
        made.map(drop)
    }

    /// The snapshot's bytes, from the first. They end early when the cluster fails.
    pub fn export(&self, disk: &str, snapshot: &str) -> Result<Reader> {
        self.on_snapshot(&["export", "--no-progress"], disk, snapshot).arg("-").reader()
    }

    /// A part of the snapshot's bytes, without those before it. They end early when the cluster fails.
    pub async fn part(
        &self,
        disk: &str,
        snapshot: &str,
        range: Range<u64>,
    ) -> Result<impl AsyncRead + Send + Unpin + use<>> {
        nbd::read(&self.opened(disk, Some(snapshot)), range).await
    }

    pub async fn bytes(&self, disk: &str, snapshot: &str) -> Result<u64> {
        let info = self.on_snapshot(&["info", "--format", "json"], disk, snapshot).status().await?;
        found(info, disk)?.ok_or_else(|| missing(disk))
    }

    /// What QEMU's block layer opens, of a snapshot or of the disk itself.
    pub fn opened(&self, disk: &str, snapshot: Option<&str>) -> serde_json::Value {
        let mut opened = json!({"driver": "rbd", "pool": self.pool, "image": disk});
        for (name, given) in
            [("conf", self.conf.as_str()), ("user", &self.user), ("snapshot", snapshot.unwrap_or(""))]
        {
            if !given.is_empty() {
                opened[name] = json!(given);
            }
        }
        json!({"driver": "raw", "file": opened})
    }

    /// None: it is not there.
    pub async fn size(&self, disk: &str) -> Result<Option<u64>> {
        found(self.on_disk(&["info", "--format", "json"], disk).status().await?, disk)
    }

    /// A disk of zeros. What is there of that name goes.
    pub async fn create(&self, disk: &str, bytes: u64) -> Result<()> {
        self.discard(disk).await?;
        let create = self.on_disk(&["create", "--size", &format!("{bytes}B")], disk);
        succeeded(create.status().await?).map(drop)
    }

    /// A disk that begins as a protected snapshot is, of whatever pool, and takes room for what is written to it alone.
    pub async fn clone_of(&self, parent: &Rbd, image: &str, snapshot: &str, disk: &str) -> Result<()> {
        let clone = parent.on_snapshot(&["clone"], image, snapshot);
        let cloned = clone.args(["--dest-pool", &self.pool, "--dest", disk]).status().await?;
        match cloned.status.code() {
            Some(EXISTS) => Ok(()),
            _ => succeeded(cloned).map(drop),
        }
    }

    pub async fn rename(&self, disk: &str, to: &str) -> Result<()> {
        self.on_disk(&["rename", "--dest-pool", &self.pool, "--dest", to], disk).output().await.map(drop)
    }

    /// A disk never shrinks.
    pub async fn grow(&self, disk: &str, bytes: u64) -> Result<()> {
        match self.size(disk).await? {
            None => Err(missing(disk)),
            Some(size) if size >= bytes => Ok(()),
            Some(_) => {
                let grow = self.on_disk(&["resize", "--no-progress", "--size", &format!("{bytes}B")], disk);
                succeeded(grow.status().await?).map(drop)
            }
        }
    }

    /// As it is now. One of that name stays.
    pub async fn snapshot(&self, disk: &str, snapshot: &str) -> Result<()> {
        let made = self.on_snapshot(&["snap", "create", "--no-progress"], disk, snapshot).status().await?;
        match made.status.code() {
            Some(EXISTS) => Ok(()),
            _ => succeeded(made).map(drop),
        }
    }

    /// As it was then; nobody has it open.
    pub async fn roll_back(&self, disk: &str, snapshot: &str) -> Result<()> {
        let back = self.on_snapshot(&["snap", "rollback", "--no-progress"], disk, snapshot);
        back.timeout(LONG_PATIENCE).output().await.map(drop)
    }

    /// What is gone is fine.
    pub async fn forget_snapshot(&self, disk: &str, snapshot: &str) -> Result<()> {
        let gone = self.on_snapshot(&["snap", "rm", "--no-progress"], disk, snapshot).status().await?;
        match gone.status.code() {
            Some(NO_SUCH) => Ok(()),
            _ => succeeded(gone).map(drop),
        }
    }

    /// With all its snapshots. What is gone is fine; `Conflict` while somebody has it open.
    pub async fn discard(&self, disk: &str) -> Result<()> {
        let purged = self.on_disk(&["snap", "purge", "--no-progress"], disk).status().await?;
        if purged.status.code() == Some(NO_SUCH) {
            return Ok(());
        }
        succeeded(purged)?;
        let gone = self.on_disk(&["rm", "--no-progress"], disk).timeout(LONG_PATIENCE).status().await?;
        match gone.status.code() {
            Some(NO_SUCH) => Ok(()),
            Some(BUSY) => Err(in_use(disk)),
            _ => succeeded(gone).map(drop),
        }
    }

    /// With its snapshot. `NotFound` when it is gone, `Conflict` while somebody has a clone of it or has it open: then
    /// all of it stays.
    pub async fn remove(&self, disk: &str, snapshot: &str) -> Result<()> {
        let unprotected = self.on_snapshot(&["snap", "unprotect"], disk, snapshot).status().await?;
        match unprotected.status.code() {
            // It was not protected, or it is not there.
            Some(INVALID | NO_SUCH) => {}
            Some(BUSY) => return Err(in_use(disk)),
            _ => drop(succeeded(unprotected)?),
        }
        let removed = self.on_snapshot(&["snap", "rm", "--no-progress"], disk, snapshot).status().await?;
        match removed.status.code() {
            Some(NO_SUCH) => {}
            Some(BUSY) => return Err(in_use(disk)),
            _ => drop(succeeded(removed)?),
        }
        let gone = self.on_disk(&["rm", "--no-progress"], disk).timeout(LONG_PATIENCE).status().await?;
        match gone.status.code() {
            Some(NO_SUCH) => Err(missing(disk)),
            Some(BUSY) => {
                self.on_snapshot(&["snap", "create", "--no-progress"], disk, snapshot).output().await?;
                self.on_snapshot(&["snap", "protect"], disk, snapshot).output().await?;
                Err(in_use(disk))
            }
            // Snapshots that others made: the cluster removes it when they are gone.
            Some(NOT_EMPTY) => self.on_disk(&["trash", "mv"], disk).output().await.map(drop),
            _ => succeeded(gone).map(drop),
        }
    }

    fn tool(&self, program: &str, user: &str) -> Run {
        let mut tool = run(program).timeout(PATIENCE).args(["--client-mount-timeout", CONNECT_SECONDS]);
        if !self.conf.is_empty() {
            tool = tool.args(["--conf", &self.conf]);
        }
        if !self.user.is_empty() {
            tool = tool.args([user, &self.user]);
        }
        tool
    }

    fn rbd(&self, words: &[&str]) -> Run {
        self.tool("rbd", "--id").args(words)
    }

    fn on_disk(&self, words: &[&str], disk: &str) -> Run {
        self.rbd(words).args(["--pool", &self.pool, "--image", disk])
    }

    fn on_snapshot(&self, words: &[&str], disk: &str, snapshot: &str) -> Run {
        self.on_disk(words, disk).args(["--snap", snapshot])
    }
}

/// How large it is by what `rbd info` says.
fn found(info: Output, disk: &str) -> Result<Option<u64>> {
    if info.status.code() == Some(NO_SUCH) {
        return Ok(None);
    }
    let info: serde_json::Value = serde_json::from_slice(&succeeded(info)?.stdout)
        .map_err(|e| Error::internal(format!("rbd info of {disk}: {e}")))?;
    let size = info["size"].as_u64();
    size.map(Some).ok_or_else(|| Error::internal(format!("rbd info of {disk}: no size")))
}

fn succeeded(output: Output) -> Result<Output> {
    match output.status.success() {
        true => Ok(output),
        false => Err(Error::internal(format!("rbd: {}: {}", output.status, output.complaint()))),
    }
}

fn in_use(disk: &str) -> Error {
    Error::conflict(format!("RBD image {disk} is in use"))
}

fn missing(disk: &str) -> Error {
    Error::not_found(format!("RBD image {disk} does not exist"))
}
