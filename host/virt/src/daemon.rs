//! The cloud's own libvirtd: its configuration, sockets, caches and logs live in one directory, bound over the
//! system's paths in a mount namespace of the daemon, so that it disturbs no other libvirtd and none disturbs it.
//! Guests are no children of it: they outlive it and are found again when it starts.

use crate::{Accelerator, Channel, probe};
use base::{Error, Result, id};
use host_run::run;
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{net::UnixStream, process::Command, time::Instant};

/// The first start fills the capability cache, which takes seconds on a loaded machine.
/// What the daemon says before it has a log of its own, and what stops it from starting at all.
const START_LOG: &str = "start.log";
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The system's paths that the daemon sees our folders at.
const BOUND: [(&str, &str); 5] = [
    ("etc", "/etc/libvirt"),
    ("lib", "/var/lib/libvirt"),
    ("run", "/run/libvirt"),
    ("log", "/var/log/libvirt"),
    ("cache", "/var/cache/libvirt"),
];
/// In `run`: the sockets through which guests go to other hosts and come from them.
const PASSAGES: &str = "go";
/// Between the two daemons, for the guest's memory, for its disks.
pub const DAEMON: &str = "daemon";
pub const MEMORY: &str = "memory";
pub const DISKS: &str = "disks";
/// Shown to the daemon in the place of a /dev/kvm that does not work.
const NO_KVM: &str = "no-kvm";

/// How the libvirt driver is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Everything of the daemon goes in here.
    pub dir: PathBuf,
    /// Where guests' disks are, for the capacity of the host; their QEMU must be able to reach it.
    pub instances_dir: PathBuf,
    /// None: a probe decides.
    pub accelerator: Option<Accelerator>,
    /// The host's certificate for what its guests reach over the network, as libvirt lays it out: `ca-cert.pem`,
    /// `client-cert.pem`, `client-key.pem`, and `server-*` where others reach it.
    pub tls_directory: Option<PathBuf>,
}

/// A guest's socket as daemons and QEMU see it: on every host at the same path.
pub fn passage(uuid: &str, channel: &str) -> String {
    format!("/run/libvirt/{PASSAGES}/{uuid}-{channel}")
}

/// The running daemon.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    pub accelerator: Accelerator,
    run_as_root: bool,
    qemu_user: Option<u32>,
    tls_directory: Option<PathBuf>,
}

impl Daemon {
    /// Prepares the folders; starts nothing yet.
    pub async fn prepare(options: &Options) -> Result<Self> {
        let dir = std::path::absolute(&options.dir)?;
        for (folder, _) in BOUND {
            tokio::fs::create_dir_all(dir.join(folder)).await?;
        }
        tokio::fs::create_dir_all(&options.instances_dir).await?;
        // QEMU may run as an unprivileged user that must reach its sockets in here.
        tokio::fs::create_dir_all(dir.join("run").join(PASSAGES)).await?;
        for folder in ["", "lib", "run"] {
            tokio::fs::set_permissions(dir.join(folder), PermissionsExt::from_mode(0o755)).await?;
        }
        let accelerator = match options.accelerator {
            Some(accelerator) => accelerator,
            None if probe::kvm_works(&dir).await => Accelerator::Kvm,
            None => Accelerator::Tcg,
        };
        let kvm_is_closed = accelerator == Accelerator::Kvm && !kvm_open_to_qemu().await;
        let run_as_root = kvm_is_closed || !open_to_qemu(&options.instances_dir).await;
        if run_as_root {
            tracing::info!("QEMU runs as root");
        }
        let tls_directory = options.tls_directory.clone();
        let qemu_user = if run_as_root { None } else { qemu_user().await };
        // QEMU makes sockets in there.
        chown(dir.join("run").join(PASSAGES), qemu_user, None)?;
        let daemon = Self { dir, accelerator, run_as_root, qemu_user, tls_directory };
        daemon.write_configuration().await?;
        Ok(daemon)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/libvirt-sock")
    }

    /// The sockets through which a guest goes, as this side of the daemon's mount namespace sees them.
    pub fn channels(&self, uuid: &str) -> Vec<Channel> {
        let passages = self.dir.join("run").join(PASSAGES);
        let channel = |name| {
            let passage = passages.join(format!("{uuid}-{name}"));
            let (arriving, user) = match name {
                DAEMON => (self.socket(), None),
                _ => (passage.clone(), self.qemu_user),
            };
            Channel { name, leaving: passage, arriving, user }
        };
        [DAEMON, MEMORY, DISKS].map(channel).to_vec()
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("run/libvirtd.pid")
    }

    /// Returns when a daemon answers on the socket, started now or long ago.
    pub async fn ensure(&self) -> Result<()> {
        if UnixStream::connect(self.socket()).await.is_ok() {
            return Ok(());
        }
        let deadline = Instant::now() + START_PATIENCE;
        if self.pid().await.is_none() {
            self.spawn().await?;
        }
        while UnixStream::connect(self.socket()).await.is_err() {
            if Instant::now() >= deadline {
                let logs = self.dir.join("log");
                let said = tokio::fs::read_to_string(logs.join(START_LOG)).await.unwrap_or_default();
                let why = said.trim().lines().last().map(|line| format!(" ({line})")).unwrap_or_default();
                return Err(Error::unavailable(format!(
                    "libvirtd does not answer on {}{why}; its logs are in {}",
                    self.socket().display(),
                    logs.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Ends the daemon; its guests go on.
    pub async fn stop(&self) -> Result<()> {
        let Some(pid) = self.pid().await else { return Ok(()) };
        for signal in ["-TERM", "-KILL"] {
            let _ = run("kill").args([signal, &pid.to_string()]).status().await;
            let deadline = Instant::now() + STOP_PATIENCE;
            while Instant::now() < deadline {
                if self.pid().await.is_none() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Err(Error::timeout(format!("libvirtd {pid} does not end")))
    }

    /// The daemon's process, when it lives and is a libvirtd.
    async fn pid(&self) -> Option<u32> {
        let pid: u32 = tokio::fs::read_to_string(self.pid_file()).await.ok()?.trim().parse().ok()?;
        let command = tokio::fs::read(format!("/proc/{pid}/cmdline")).await.ok()?;
        let ours = self.dir.join("etc/libvirtd.conf");
        let arguments = String::from_utf8_lossy(&command);
        (arguments.contains("libvirtd") && arguments.contains(&*ours.to_string_lossy())).then_some(pid)
    }

    async fn spawn(&self) -> Result<()> {
        if host_run::find("libvirtd").is_none() {
            return Err(Error::unavailable("libvirtd is not installed (package libvirt-daemon-system)"));
        }
        for (_, system) in BOUND {
            tokio::fs::create_dir_all(system).await?;
        }
        let log = std::fs::File::create(self.dir.join("log").join(START_LOG))?;
        // A session of its own: the terminal's Ctrl-C is not for the daemon.
        Command::new("setsid")
            .args([
                "--fork",
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                "sh",
                "-ec",
                &self.script(),
                "sh",
            ])
            .arg(&self.dir)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .await?;
        Ok(())
    }

    /// Runs in the new mount namespace, `$1` our directory.
    fn script(&self) -> String {
        let mut script = String::new();
        for (folder, system) in BOUND {
            script.push_str(&format!("mount --bind \"$1/{folder}\" {system}\n"));
        }
        if self.accelerator == Accelerator::Tcg && Path::new("/dev/kvm").exists() {
            script.push_str(&format!("mount --bind \"$1/{NO_KVM}\" /dev/kvm\n"));
            // Its mode stops QEMU's user; root is stopped only by a file system that cannot be written.
            script.push_str("mount -o remount,bind,ro /dev/kvm\n");
        }
        script
            .push_str("exec libvirtd --config \"$1/etc/libvirtd.conf\" --pid-file \"$1/run/libvirtd.pid\"\n");
        script
    }

    async fn write_configuration(&self) -> Result<()> {
        let (user, group) = if self.run_as_root { ("root", "root") } else { ("libvirt-qemu", "kvm") };
        let qemu = format!(
            "# Written at every start.\n\
             security_driver = \"none\"\n\
             user = \"{user}\"\n\
             group = \"{group}\"\n\
             dynamic_ownership = 1\n\
             remember_owner = 0\n\
             cgroup_controllers = [ ]\n\
             namespaces = [ ]\n\
             stdio_handler = \"file\"\n\
             vnc_listen = \"127.0.0.1\"\n"
        );
        let tls = self.tls_directory.as_ref().map_or_else(String::new, |tls| {
            format!("default_tls_x509_cert_dir = \"{}\"\ndefault_tls_x509_verify = 1\n", tls.display())
        });
        let qemu = qemu + &tls;
        // A daemon sends no guest to one that has the same.
        let machine = tokio::fs::read_to_string("/proc/sys/kernel/hostname").await.unwrap_or_default();
        let host_uuid = id::derived(&["libvirt host", machine.trim(), &self.dir.to_string_lossy()]);
        let libvirtd = format!(
            "# Written at every start.\n\
             listen_tls = 0\n\
             listen_tcp = 0\n\
             auth_unix_rw = \"none\"\n\
             unix_sock_group = \"root\"\n\
             unix_sock_rw_perms = \"0700\"\n\
             host_uuid = \"{host_uuid}\"\n\
             max_workers = 20\n\
             log_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n"
        );
        tokio::fs::write(self.dir.join("etc/qemu.conf"), qemu).await?;
        tokio::fs::write(self.dir.join("etc/libvirtd.conf"), libvirtd).await?;
        let no_kvm = self.dir.join(NO_KVM);
        tokio::fs::write(&no_kvm, "").await?;
        tokio::fs::set_permissions(&no_kvm, PermissionsExt::from_mode(0o000)).await?;
        Ok(())
    }
}

/// The user that QEMU runs as when it is not root.
async fn qemu_user() -> Option<u32> {
    number_of(&tokio::fs::read_to_string("/etc/passwd").await.unwrap_or_default(), "libvirt-qemu")
}

/// Whether the unprivileged QEMU user exists and can reach a folder: everyone may pass all of its parents.
async fn open_to_qemu(dir: &Path) -> bool {
    let Ok(dir) = std::path::absolute(dir) else { return false };
    if qemu_user().await.is_none() {
        return false;
    }
    for part in dir.ancestors() {
        match tokio::fs::metadata(part).await {
            Ok(metadata) if metadata.permissions().mode() & 0o001 != 0 => {}
            _ => return false,
        }
    }
    true
}

/// Whether the QEMU user may open /dev/kvm. Were it root's alone, libvirt would find KVM as root and miss it as
/// QEMU, and throw its capability cache away at every call.
async fn kvm_open_to_qemu() -> bool {
    let groups = tokio::fs::read_to_string("/etc/group").await.unwrap_or_default();
    let kvm_group = number_of(&groups, "kvm");
    match tokio::fs::metadata("/dev/kvm").await {
        Ok(node) => may_open(node.mode(), node.gid(), kvm_group),
        Err(_) => false,
    }
}

fn may_open(mode: u32, group: u32, qemu_group: Option<u32>) -> bool {
    mode & 0o006 == 0o006 || (Some(group) == qemu_group && mode & 0o060 == 0o060)
}

/// Of a line of /etc/passwd or /etc/group.
fn number_of(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_private_folder_is_not_open_to_qemu() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(!open_to_qemu(dir.path()).await);
        assert!(!open_to_qemu(Path::new("/virt-no-such-folder")).await);
    }

    #[test]
    fn who_may_open_kvm() {
        let kvm = number_of("root:x:0:\nkvm:x:111:libvirt-qemu\n", "kvm");
        assert_eq!((kvm, number_of("root:x:0:\n", "kvm")), (Some(111), None));
        assert!(may_open(0o20660, 111, kvm) && may_open(0o20666, 0, kvm));
        assert!(!may_open(0o20600, 0, kvm) && !may_open(0o20660, 0, kvm) && !may_open(0o20660, 0, None));
    }

    #[tokio::test]
    async fn the_script_hides_a_kvm_that_does_not_work() {
        let dir = tempfile::tempdir().unwrap();
        let options = |accelerator| Options {
            dir: dir.path().join("libvirt"),
            instances_dir: dir.path().join("instances"),
            accelerator: Some(accelerator),
            ..Options::default()
        };
        let daemon = Daemon::prepare(&options(Accelerator::Tcg)).await.unwrap();
        assert_eq!(daemon.script().contains("no-kvm"), Path::new("/dev/kvm").exists());
        let daemon = Daemon::prepare(&options(Accelerator::Kvm)).await.unwrap();
        assert!(!daemon.script().contains("no-kvm"));
        assert!(daemon.pid().await.is_none());
    }
}
