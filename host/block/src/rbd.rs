//! Disks of a Ceph cluster by Ceph's own `rbd`, of the package ceph-common: a program that needs no cluster does not
//! carry its libraries. Whose a disk is and what it is called is the caller's matter.

use base::{Error, Result};
use host_run::{Output, Reader, Run, run};
use std::{path::Path, time::Duration};

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

    pub async fn bytes(&self, disk: &str, snapshot: &str) -> Result<u64> {
        let info = self.on_snapshot(&["info", "--format", "json"], disk, snapshot).status().await?;
        if info.status.code() == Some(NO_SUCH) {
            return Err(missing(disk));
        }
        let info: serde_json::Value = serde_json::from_slice(&succeeded(info)?.stdout)
            .map_err(|e| Error::internal(format!("rbd info of {disk}: {e}")))?;
        info["size"].as_u64().ok_or_else(|| Error::internal(format!("rbd info of {disk}: no size")))
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
