//! One storage daemon per exported disk. Daemons outlive this program, as guests do, and are found again by their
//! control sockets.

use crate::{
    Export,
    network::{Allowed, Network, admitted},
    qmp::Qmp,
};
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
/// How often another port is tried when somebody was faster.
const PORTS_TRIED: usize = 5;
/// The list of hosts within the daemon.
const HOSTS: &str = "hosts";
const CREDENTIALS: &str = "tls";
/// The disk within the daemon.
const NODE: &str = "disk";
/// The exports of a disk: their ids, and whether through them it is written.
const EXPORTS: [(&str, bool); 2] = [("rw", true), ("ro", false)];
const COPY: &str = "copy";

pub struct Daemon {
    id: String,
    nbd: PathBuf,
    control: PathBuf,
    pid: PathBuf,
    /// Of a daemon on the network: the port it is on, or was on last, where guests look for it again.
    port: PathBuf,
    hosts: PathBuf,
}

impl Daemon {
    pub fn of(dir: &Path, volume_id: &str) -> Self {
        let file = |end: &str| dir.join(format!("{volume_id}.{end}"));
        Self {
            id: volume_id.into(),
            nbd: file("nbd"),
            control: file("qmp"),
            pid: file("pid"),
            port: file("port"),
            hosts: file("hosts"),
        }
    }

    /// The hosts that reach it over the network.
    pub fn allowed(&self) -> Allowed {
        Allowed::at(self.hosts.clone())
    }

    pub async fn is_running(&self) -> Result<bool> {
        Ok(Qmp::connect(&self.control).await?.is_some())
    }

    /// Whether it runs and hands the disk out.
    pub async fn is_serving(&self) -> Result<bool> {
        match Qmp::connect(&self.control).await? {
            Some(mut qmp) => Ok(exports(&mut qmp).await?.len() == EXPORTS.len()),
            None => Ok(false),
        }
    }

    /// Whether the certificate is another one than that which it was started with.
    pub async fn has_old_certificate(&self, network: &Network) -> Result<bool> {
        let Some(tls) = &network.tls else { return Ok(false) };
        let Ok(started) = tokio::fs::metadata(&self.port).await else { return Ok(false) };
        let certificate = tokio::fs::metadata(tls.certificate()).await?;
        Ok(certificate.modified()? > started.modified()?)
    }

    /// Ends the server and begins another one in the same daemon, at the same place: hosts connect again.
    async fn renew(&self, qmp: &mut Qmp, network: &Network) -> Result<()> {
        let (Some(tls), Some(port)) = (&network.tls, self.last_port().await) else { return Ok(()) };
        qmp.call("nbd-server-stop", json!({})).await?;
        let _ = qmp.call("object-del", json!({"id": CREDENTIALS})).await;
        qmp.call("object-add", tls.credentials(CREDENTIALS)).await?;
        let address =
            json!({"type": "inet", "data": {"host": network.address.to_string(), "port": port.to_string()}});
        let server =
            json!({"addr": address, "tls-creds": CREDENTIALS, "tls-authz": HOSTS, "max-connections": 0});
        qmp.call("nbd-server-start", server).await?;
        tracing::info!(volume = self.id, "served with the new certificate");
        Ok(tokio::fs::write(&self.port, port.to_string()).await?)
    }

    /// Serves the file; a daemon that does already goes on.
    pub async fn start(&self, file: &Path, network: Option<&Network>) -> Result<()> {
        if let Some(mut qmp) = Qmp::connect(&self.control).await? {
            if let Some(network) = network
                && self.has_old_certificate(network).await?
            {
                self.renew(&mut qmp, network).await?;
            }
            return self.add_exports(&mut qmp).await;
        }
        if self.nbd.as_os_str().len() > SOCKET_BYTES_MAX {
            let path = self.nbd.display();
            return Err(Error::bad_request(format!(
                "{path} is too long for a socket: use a shorter state directory"
            )));
        }
        self.clear().await?;
        let started = match network {
            None => self.run(file, &[], &format!("addr.type=unix,addr.path={}", quoted(&self.nbd))).await,
            Some(network) => self.start_on(network, file).await,
        };
        if let Err(error) = started {
            self.clear().await?;
            return Err(error);
        }
        if network.is_none() {
            admit_qemu(&self.nbd).await?;
        }
        tracing::info!(volume = self.id, "exported");
        Ok(())
    }

    /// On the port it had, when that is free, else on another one.
    async fn start_on(&self, network: &Network, file: &Path) -> Result<()> {
        let mut objects = Vec::new();
        let mut guarded = String::new();
        if let Some(tls) = &network.tls {
            objects.push(tls.credentials(CREDENTIALS).to_string());
            objects.push(admitted(HOSTS, &self.allowed().hosts().await?).to_string());
            guarded = format!(",tls-creds={CREDENTIALS},tls-authz={HOSTS}");
        }
        let mut outcome = Err(Error::unavailable("no port is free for another volume"));
        let had = self.last_port().await.filter(|port| network.ports.contains(port));
        for port in had.into_iter().chain(network.free_ports(&self.id)).take(PORTS_TRIED) {
            let server = format!("addr.type=inet,addr.host={},addr.port={port}{guarded}", network.address);
            // Before it is true: who finds the daemon knows where it is.
            tokio::fs::write(&self.port, port.to_string()).await?;
            outcome = self.run(file, &objects, &server).await;
            if outcome.is_ok() {
                return Ok(());
            }
            self.clear().await?;
        }
        outcome
    }

    /// Tells a daemon that runs of other hosts. It asks the list whenever a host connects, and none without a list.
    pub async fn admit(&self) -> Result<()> {
        let Some(mut qmp) = Qmp::connect(&self.control).await? else { return Ok(()) };
        // There is none after a failure between the two.
        let _ = qmp.call("object-del", json!({"id": HOSTS})).await;
        qmp.call("object-add", admitted(HOSTS, &self.allowed().hosts().await?)).await.map(drop)
    }

    async fn last_port(&self) -> Option<u16> {
        tokio::fs::read_to_string(&self.port).await.ok()?.trim().parse().ok()
    }

    async fn run(&self, file: &Path, objects: &[String], server: &str) -> Result<()> {
        let exports = EXPORTS.map(|(id, writable)| {
            let writable_word = if writable { "on" } else { "off" };
            format!(
                "type=nbd,id={id},node-name={NODE},name={},writable={writable_word}",
                self.name(!writable)
            )
        });
        run("qemu-storage-daemon")
            .args(objects.iter().flat_map(|object| ["--object", object.as_str()]))
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=file,filename={},discard=unmap", quoted(file)))
            .args(["--blockdev", &format!("driver=raw,node-name={NODE},file=file,discard=unmap")])
            .args(["--nbd-server", &format!("{server},max-connections=0")])
            .args(exports.iter().flat_map(|export| ["--export", export.as_str()]))
            .args([
                "--chardev",
                &format!("socket,id=control,path={},server=on,wait=off", quoted(&self.control)),
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
            .await
            .map(drop)
    }

    pub async fn export(&self, read_only: bool, network: Option<&Network>) -> Result<Export> {
        let name = self.name(read_only);
        // One that was begun before the configuration changed goes on as it is until nobody has the disk.
        if crate::exists(&self.nbd).await? {
            return Ok(Export::Unix { socket: self.nbd.clone(), name });
        }
        let lost = || Error::conflict(format!("Volume {} is served where nobody is told.", self.id));
        let (network, port) = network.zip(self.last_port().await).ok_or_else(lost)?;
        let tls_name = network.tls.as_ref().map(|tls| tls.name.clone());
        Ok(Export::Tcp { address: network.address, port, name, tls_name })
    }

    fn name(&self, read_only: bool) -> String {
        if read_only { format!("{}-ro", self.id) } else { self.id.clone() }
    }

    async fn add_exports(&self, qmp: &mut Qmp) -> Result<()> {
        let there = exports(qmp).await?;
        for (id, writable) in EXPORTS.into_iter().filter(|(id, _)| !there.iter().any(|known| known == id)) {
            let export = json!({"type": "nbd", "id": id, "node-name": NODE, "name": self.name(!writable),
                "writable": writable});
            qmp.call("block-export-add", export).await?;
        }
        Ok(())
    }

    /// Grows the disk. The protocol tells nobody of it: hosts that have the disk are cut off for a moment and see its
    /// size when they connect again, as they do at their next read or write.
    pub async fn resize(&self, file: &Path, bytes: u64) -> Result<()> {
        let connected = Qmp::connect(&self.control).await?;
        let mut qmp = connected.ok_or_else(|| Error::unavailable("the storage daemon went away"))?;
        let grown = match tokio::fs::metadata(file).await?.len() >= bytes {
            true => Ok(()),
            false => grow(&mut qmp, bytes).await,
        };
        // Whatever happened: hosts wait for the disk.
        let served = self.add_exports(&mut qmp).await;
        grown.and(served)
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
        self.clear().await?;
        crate::files::remove(&self.port).await?;
        crate::files::remove(&self.hosts).await
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

/// Options are parted by commas.
pub fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The ids of what is exported.
async fn exports(qmp: &mut Qmp) -> Result<Vec<String>> {
    let exports = qmp.call("query-block-exports", json!({})).await?;
    let ids = exports.as_array().into_iter().flatten().filter(|export| export["shutting-down"] != true);
    Ok(ids.filter_map(|export| export["id"].as_str().map(String::from)).collect())
}

/// An exported disk cannot be resized: nothing may be exported meanwhile.
async fn grow(qmp: &mut Qmp, bytes: u64) -> Result<()> {
    for id in exports(qmp).await? {
        qmp.call("block-export-del", json!({"id": id, "mode": "hard"})).await?;
    }
    let gone = async {
        while qmp.call("query-block-exports", json!({})).await?.as_array().is_some_and(|all| !all.is_empty())
        {
            tokio::time::sleep(POLL).await;
        }
        Ok::<(), Error>(())
    };
    let stay = |_| Error::timeout("the storage daemon does not let go of its hosts");
    tokio::time::timeout(END_PATIENCE, gone).await.map_err(stay)??;
    qmp.call("block_resize", json!({"node-name": NODE, "size": bytes})).await.map(drop)
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
