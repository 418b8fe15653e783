//! Guests of one host behind one trait: defined, started, stopped, given disks and network cards, observed.
//! Two drivers: libvirt with QEMU, and a fake with the same behaviour. What a guest is for is the caller's matter.

mod daemon;
mod fake;
mod libvirt;
mod libvirt_jobs;
mod migration;
mod probe;
mod rpc;
mod spec;
mod stalled;
mod stats;
mod xml;

pub use daemon::Options;
pub use fake::{Fake, Verb, Wire};
pub use libvirt::Libvirt;
pub use migration::{Channel, Destination, Migration, Phase, Progress};
pub use probe::kvm_works;
pub use spec::{Bus, Disk, DomainSpec, Format, Nic, Source};
pub use stats::{DiskStats, NicStats, Stats};
pub use xml::Accelerator;

use async_trait::async_trait;
use base::{Error, Result, Secret};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    sync::broadcast,
    time::Instant,
};

/// Programs the libvirt driver calls, and the Debian package each is in.
pub const PROGRAMS: [(&str, &str); 5] = [
    ("libvirtd", "libvirt-daemon-system"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// How often a wait looks whether what it waits for has come.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A guest that is just booting does not hear the power button: it is pressed again.
const PRESS_AGAIN_EVERY: Duration = Duration::from_secs(10);

/// What a domain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    Running,
    Paused,
    /// Defined, not running.
    Shutoff,
    Crashed,
    /// Its memory is on disk; `start` goes on from there.
    Suspended,
}

/// One domain as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    pub uuid: String,
    pub name: String,
    pub state: State,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub metadata: BTreeMap<String, String>,
    /// Serials of its disks.
    pub disks: Vec<String>,
    /// MAC addresses of its network cards.
    pub nics: Vec<String>,
    /// Where its screen is served, while it runs.
    pub vnc: Option<(String, u16)>,
}

/// Something happened to a domain that its owner may not have caused. Observe, then decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub uuid: String,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Defined,
    Undefined,
    Started,
    Paused,
    Resumed,
    Stopped,
    Crashed,
}

/// What the host offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub hypervisor_type: String,
    /// As nova counts it: 7.2.22 is 7002022.
    pub hypervisor_version: u64,
    pub hostname: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub memory_used_mib: u64,
    pub disk_gib: u64,
    pub disk_used_gib: u64,
    pub arch: String,
    pub cpu_model: String,
    pub cpu_vendor: String,
    pub cpu_features: Vec<String>,
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
}

/// The guests of this host. Verbs may be repeated: what is already so is a success. Every call ends in bounded
/// time; a `Timeout` error means an unknown outcome. A domain that does not exist is `NotFound`, except where
/// it shall be gone.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    async fn capabilities(&self) -> Result<Capabilities>;

    /// All domains of this host, whoever defined them.
    async fn domains(&self) -> Result<Vec<Domain>>;

    async fn domain(&self, uuid: &str) -> Result<Option<Domain>>;

    /// Defines or replaces. A running guest keeps running as it was.
    async fn define(&self, spec: &DomainSpec) -> Result<()>;

    /// Starts, or goes on after `suspend`. Paused guests stay paused.
    async fn start(&self, uuid: &str) -> Result<()>;

    /// Presses the power button; the guest decides.
    async fn shutdown(&self, uuid: &str) -> Result<()>;

    /// Pulls the plug.
    async fn destroy(&self, uuid: &str) -> Result<()>;

    /// Forgets the definition of a stopped domain; a running one is destroyed first.
    async fn undefine(&self, uuid: &str) -> Result<()>;

    async fn pause(&self, uuid: &str) -> Result<()>;

    async fn unpause(&self, uuid: &str) -> Result<()>;

    /// Memory to disk, then off.
    async fn suspend(&self, uuid: &str) -> Result<()>;

    /// Gives the disk to the definition and, when it runs, to the guest. Answers the device name.
    async fn attach_disk(&self, uuid: &str, disk: &Disk) -> Result<String>;

    /// Takes the disk away and waits until the guest has released it.
    async fn detach_disk(&self, uuid: &str, serial: &str, timeout: Duration) -> Result<()>;

    async fn attach_nic(&self, uuid: &str, nic: &Nic) -> Result<()>;

    async fn detach_nic(&self, uuid: &str, mac: &str, timeout: Duration) -> Result<()>;

    /// Tells a running guest that its disk has grown.
    async fn resize_disk(&self, uuid: &str, serial: &str, bytes: u64) -> Result<()>;

    /// Puts another disk in the place of one that the guest has, with the bytes of the old; it is as large at least.
    async fn swap_disk(&self, uuid: &str, serial: &str, disk: &Disk) -> Result<()>;

    /// What a running guest has used since its start; `Conflict` when it does not run.
    async fn stats(&self, uuid: &str) -> Result<Stats>;

    /// The guest's own agent sets a user's password. `Conflict` when the guest does not run, `Unavailable` when its
    /// agent does not answer.
    async fn set_password(&self, uuid: &str, user: &str, password: &Secret) -> Result<()>;

    /// An interrupt that the guest cannot pass over; `Conflict` when it does not run.
    async fn inject_nmi(&self, uuid: &str) -> Result<()>;

    /// The ways that a guest takes when it goes from one host to another; none: it needs none.
    fn channels(&self, uuid: &str) -> Vec<Channel>;

    /// How another host sends a guest of this definition here. Its disks and taps are there already.
    async fn destination(&self, spec: &DomainSpec) -> Result<Destination>;

    /// Begins to send a running guest, with the disks of these serials, and returns.
    async fn migrate(&self, uuid: &str, to: &Destination, disks: &[String]) -> Result<()>;

    /// How far it is; what ended is remembered until the next begins.
    async fn migration(&self, uuid: &str) -> Result<Migration>;

    /// Lets it end soon, at the guest's cost. `Conflict` when none is under way.
    async fn hasten_migration(&self, uuid: &str) -> Result<()>;

    /// The guest goes on here. `Conflict` when none is under way.
    async fn abort_migration(&self, uuid: &str) -> Result<()>;

    /// The last bytes of the serial console; empty before the first start.
    async fn console_log(&self, uuid: &str, bytes_max: u64) -> Result<Vec<u8>>;

    /// What happens from now on. A receiver that lags behind must list again.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Asks the guest to stop and pulls the plug when it has not within `grace`.
    async fn stop(&self, uuid: &str, grace: Duration) -> Result<()> {
        if self.power_off(uuid, grace).await? {
            return Ok(());
        }
        self.destroy(uuid).await
    }

    /// Soft: through the guest, when it follows within `grace`. Hard, or when not: off and on again.
    async fn reboot(&self, uuid: &str, grace: Option<Duration>) -> Result<()> {
        let stopped = match grace {
            Some(grace) => self.power_off(uuid, grace).await?,
            None => false,
        };
        if !stopped {
            self.destroy(uuid).await?;
        }
        self.start(uuid).await
    }

    /// Presses the power button until the guest is off; false when it is still on after `grace`.
    async fn power_off(&self, uuid: &str, grace: Duration) -> Result<bool> {
        let deadline = Instant::now() + grace;
        let mut press_at = Instant::now();
        loop {
            let domain = self.domain(uuid).await?.ok_or_else(|| not_found(uuid))?;
            match domain.state {
                State::Shutoff | State::Crashed | State::Suspended => return Ok(true),
                State::Paused => return Ok(false),
                State::Running => {}
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            if Instant::now() >= press_at {
                press_at = Instant::now() + PRESS_AGAIN_EVERY;
                match self.shutdown(uuid).await {
                    Err(error) if error.is(base::ErrorKind::Conflict) => {} // it went off meanwhile
                    other => other?,
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The last bytes of a file that may still grow; empty when there is none.
pub async fn tail(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let mut file = match tokio::fs::File::open(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let length = file.metadata().await?.len();
    file.seek(std::io::SeekFrom::Start(length.saturating_sub(bytes_max))).await?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn not_found(uuid: &str) -> Error {
    Error::not_found(format!("Instance {uuid} could not be found."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tail_is_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"0123456789").unwrap();
        assert_eq!(tail(file.path(), 4).await.unwrap(), b"6789");
        assert_eq!(tail(file.path(), 100).await.unwrap(), b"0123456789");
        assert_eq!(tail(file.path(), 0).await.unwrap(), b"");
        assert_eq!(tail(Path::new("/virt-no-such-file"), 4).await.unwrap(), b"");
    }
}
