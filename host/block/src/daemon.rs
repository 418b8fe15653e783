//! One storage daemon per exported disk. Daemons outlive this program, as guests do, and are found again by their
//! control sockets.

use crate::{Export, qmp::Qmp};
use base::{Error, Result};
use host_run::run;
use serde_json::json;
use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

/// As libvirt's package names the user that QEMU runs as where it is not root.
const QEMU_GROUP: &str = "libvirt-qemu";
/// What a socket's address has room for.
const SOCKET_BYTES_MAX: usize = 107;
const START_PATIENCE: Duration = Duration::from_secs(20);
const END_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// The disk within the daemon.
const NODE: &str = "disk";
const COPY: &str = "copy";

pub struct Daemon {
    id: String,
    nbd: PathBuf,
    control: PathBuf,
    pid: PathBuf,
}

impl Daemon {
    pub fn of(dir: &Path, volume_id: &str) -> Self {
        let file = |end: &str| dir.join(format!("{volume_id}.{end}"));
        Self { id: volume_id.into(), nbd: file("nbd"), control: file("qmp"), pid: file("pid") }
    }

    pub async fn is_running(&self) -> Result<bool> {
        Ok(Qmp::connect(&self.control).await?.is_some())
    }

    /// Serves the file; a daemon that does already goes on.
    pub async fn start(&self, file: &Path) -> Result<()> {
        if self.is_running().await? {
            return Ok(());
        }
        if self.nbd.as_os_str().len() > SOCKET_BYTES_MAX {
            let path = self.nbd.display();
            return Err(Error::bad_request(format!(
                "{path} is too long for a socket: use a shorter state directory"
            )));
        }
        self.clear().await?;
        let export = |name: &str, writable: &str| {
            format!(
                "type=nbd,id={name},node-name={NODE},name={},writable={writable}",
                self.name(writable == "off")
            )
        };
        let path = |path: &Path| path.display().to_string().replace(',', ",,");
        let started = run("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=file,filename={},discard=unmap", path(file)))
            .args(["--blockdev", &format!("driver=raw,node-name={NODE},file=file,discard=unmap")])
            .args([
                "--nbd-server",
                &format!("addr.type=unix,addr.path={},max-connections=0", path(&self.nbd)),
            ])
            .args(["--export", &export("rw", "on"), "--export", &export("ro", "off")])
            .args([
                "--chardev",
                &format!("socket,id=control,path={},server=on,wait=off", path(&self.control)),
            ])
            .args([
                "--monitor",
                "chardev=control",
                "--pidfile",
                &self.pid.display().to_string(),
                "--daemonize",
            ])
            .timeout(START_PATIENCE)
            .output()
            .await;
        if let Err(error) = started {
            self.clear().await?;
            return Err(error);
        }
        admit_qemu(&self.nbd).await?;
        tracing::info!(volume = self.id, "exported");
        Ok(())
    }

    pub fn export(&self, read_only: bool) -> Export {
        Export { socket: self.nbd.clone(), name: self.name(read_only) }
    }

    fn name(&self, read_only: bool) -> String {
        if read_only { format!("{}-ro", self.id) } else { self.id.clone() }
    }

    /// Copies the disk into a file of its size, as it is at one moment, while guests go on writing. By mirroring,
    /// which leaves holes what is one; the moment is that in which the mirror is let go.
    pub async fn copy_to(&self, file: &Path) -> Result<()> {
        let connected = Qmp::connect(&self.control).await?;
        let mut qmp = connected.ok_or_else(|| Error::unavailable("the storage daemon went away"))?;
        // What a copy that was killed left behind.
        let _ = qmp.call("block-job-cancel", json!({"device": COPY, "force": true})).await;
        let _ = ended(&mut qmp).await;
        let _ = qmp.call("blockdev-del", json!({"node-name": COPY})).await;
        let file = json!({"driver": "file", "filename": file, "discard": "unmap"});
        let node = json!({"node-name": COPY, "driver": "raw", "file": file, "discard": "unmap",
            "detect-zeroes": "unmap"});
        qmp.call("blockdev-add", node).await?;
        // Writing to both at once, so that a busy guest does not keep it from ever getting there.
        let job = json!({"job-id": COPY, "device": NODE, "target": COPY, "sync": "full",
            "copy-mode": "write-blocking", "auto-dismiss": false});
        let copied = match qmp.call("blockdev-mirror", job).await {
            Ok(_) => ended(&mut qmp).await,
            Err(error) => Err(error),
        };
        let released = qmp.call("blockdev-del", json!({"node-name": COPY})).await;
        copied.and(released.map(drop))
    }

    /// Guests that still have the disk lose it.
    pub async fn stop(&self) -> Result<()> {
        if let Some(mut qmp) = Qmp::connect(&self.control).await? {
            let pid = tokio::fs::read_to_string(&self.pid).await.unwrap_or_default();
            // It may go before it has answered.
            let _ = qmp.call("quit", json!({})).await;
            let ended = async {
                while self.is_process(pid.trim()).await || self.is_running().await? {
                    tokio::time::sleep(POLL).await;
                }
                Ok::<(), Error>(())
            };
            let stays = |_| Error::timeout(format!("the storage daemon of {} does not end", self.id));
            tokio::time::timeout(END_PATIENCE, ended).await.map_err(stays)??;
            tracing::info!(volume = self.id, "no longer exported");
        }
        self.clear().await
    }

    /// Whether the process is there and this daemon still.
    async fn is_process(&self, pid: &str) -> bool {
        let Ok(pid) = pid.parse::<u32>() else { return false };
        let line = tokio::fs::read(format!("/proc/{pid}/cmdline")).await.unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&self.id)
    }

    async fn clear(&self) -> Result<()> {
        for file in [&self.nbd, &self.control, &self.pid] {
            crate::files::remove(file).await?;
        }
        Ok(())
    }
}

/// Waits for the copy, if there is one, and lets it go when both are alike.
async fn ended(qmp: &mut Qmp) -> Result<()> {
    let mut let_go = false;
    loop {
        let jobs = qmp.call("query-jobs", json!({})).await?;
        let job = jobs.as_array().into_iter().flatten().find(|job| job["id"] == COPY);
        let Some(job) = job else { return Ok(()) };
        match job["status"].as_str() {
            Some("concluded") => {
                qmp.call("job-dismiss", json!({"id": COPY})).await?;
                return match job["error"].as_str() {
                    Some(error) => Err(Error::internal(format!("copying a volume: {error}"))),
                    None => Ok(()),
                };
            }
            Some("ready") if !let_go => {
                qmp.call("block-job-cancel", json!({"device": COPY})).await?;
                let_go = true;
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// Guests' QEMU may open the socket, nobody else: by its group, or as root where it runs so.
async fn admit_qemu(socket: &Path) -> Result<()> {
    let groups = tokio::fs::read_to_string("/etc/group").await.unwrap_or_default();
    let mut mode = 0o600;
    if let Some(group) = group_id(&groups, QEMU_GROUP)
        && nix::unistd::geteuid().is_root()
    {
        chown(socket, None, Some(group))?;
        mode = 0o660;
    }
    Ok(tokio::fs::set_permissions(socket, PermissionsExt::from_mode(mode)).await?)
}

fn group_id(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nkvm:x:111:\nlibvirt-qemu:x:64055:\n";
        assert_eq!(group_id(groups, QEMU_GROUP), Some(64055));
        assert_eq!(group_id(groups, "nobody"), None);
    }
}
