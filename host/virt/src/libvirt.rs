//! The driver over libvirt and QEMU. Each verb observes before it acts, so that a repeated one is harmless.

use crate::{
    Capabilities, Change, Channel, Destination, Disk, Domain, DomainSpec, Event, Hypervisor, LOOK_EVERY,
    Migration, Nic, Options, State, Stats,
    daemon::Daemon,
    libvirt_jobs::Sent,
    not_found,
    rpc::{Answer, Args, Client, DomainRef, LifecycleEvent, Procedure},
    stalled,
    xml::{self, Accelerator, Definition},
};
use async_trait::async_trait;
use base::{Error, ErrorKind, Result, Secret};
use host_run::run;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, Notify, broadcast},
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;

/// Most calls answer in milliseconds; a daemon busy on a loaded machine gets this long.
const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// Starting, stopping and saving move memory or wait for QEMU.
const LONG_CALL_PATIENCE: Duration = Duration::from_secs(120);
/// A guest may miss the first request to release a device, while it boots.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(5);
const EVENTS_HELD: usize = 4096;

/// Libvirt's flag numbers.
pub(crate) const XML_INACTIVE: u32 = 2;
/// Without what another host makes anew.
pub(crate) const XML_MIGRATABLE: u32 = 8;
pub(crate) const AFFECT_LIVE: u32 = 1;
pub(crate) const AFFECT_CONFIG: u32 = 2;
const LIST_ACTIVE: u32 = 1;
const LIST_INACTIVE: u32 = 2;
const SHUTDOWN_BY_ACPI: u32 = 1;
const RESIZE_IN_BYTES: u32 = 1;
const MONITOR_HUMAN: u32 = 1;
/// How long a disk that has grown may take to be reached again.
const RESIZE_PATIENCE: Duration = Duration::from_secs(30);
/// What QEMU says of a disk over NBD that it has not reached again since it grew.
const OLD_SIZE: &str = "Cannot grow NBD nodes";
/// Saved memory, snapshots' and checkpoints' records, firmware variables.
const UNDEFINE_ALL: u32 = 1 | 2 | 4 | 16;

pub struct Libvirt {
    pub(crate) daemon: Daemon,
    instances_dir: PathBuf,
    client: Mutex<Option<Arc<Client>>>,
    lifecycle: broadcast::Sender<LifecycleEvent>,
    events: broadcast::Sender<Event>,
    pub(crate) sent: Sent,
    /// Ended when it is dropped.
    _tasks: JoinSet<()>,
}

impl Libvirt {
    /// Prepares the daemon's folders, starts it or finds it running, and connects.
    pub async fn start(options: Options) -> Result<Self> {
        let daemon = Daemon::prepare(&options).await?;
        let (lifecycle, received) = broadcast::channel(EVENTS_HELD);
        let (events, _) = broadcast::channel(EVENTS_HELD);
        let stalled = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(translate_events(received, events.clone(), stalled.clone()));
        tasks.spawn(stalled::let_go(daemon.socket(), stalled));
        let instances_dir = std::path::absolute(&options.instances_dir)?;
        let driver = Self {
            daemon,
            instances_dir,
            client: Mutex::default(),
            lifecycle,
            events,
            sent: Sent::default(),
            _tasks: tasks,
        };
        driver.client().await?;
        Ok(driver)
    }

    pub fn accelerator(&self) -> Accelerator {
        self.daemon.accelerator
    }

    /// Ends the daemon. Guests go on and are found again at the next start.
    pub async fn stop_daemon(&self) -> Result<()> {
        self.client.lock().await.take();
        self.daemon.stop().await
    }

    /// Removes every trace: all guests of this daemon, then the daemon.
    pub async fn remove_everything(&self) -> Result<()> {
        for domain in self.domains().await? {
            self.undefine(&domain.uuid).await?;
        }
        self.stop_daemon().await
    }

    /// The connection; a new one, and a new daemon, when the old one has gone.
    pub(crate) async fn client(&self) -> Result<Arc<Client>> {
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        self.daemon.ensure().await?;
        let client = Client::connect(&self.daemon.socket(), self.lifecycle.clone(), CALL_PATIENCE).await?;
        let client = Arc::new(client);
        *held = Some(client.clone());
        Ok(client)
    }

    pub(crate) async fn call(&self, procedure: Procedure, args: Args) -> Result<Answer> {
        self.client().await?.call(procedure, args, CALL_PATIENCE).await
    }

    pub(crate) async fn call_long(&self, procedure: Procedure, args: Args) -> Result<Answer> {
        self.client().await?.call(procedure, args, LONG_CALL_PATIENCE).await
    }

    pub(crate) async fn find(&self, uuid: &str) -> Result<Option<DomainRef>> {
        let Ok(parsed) = Uuid::try_parse(uuid) else { return Ok(None) };
        let args = Args::new().uuid(parsed.as_bytes());
        match self.call(Procedure::DomainLookupByUuid, args).await {
            Ok(mut answer) => Ok(Some(answer.domain()?)),
            Err(error) if error.is(ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn get(&self, uuid: &str) -> Result<DomainRef> {
        self.find(uuid).await?.ok_or_else(|| not_found(uuid))
    }

    pub(crate) async fn state(&self, domain: &DomainRef) -> Result<State> {
        let mut answer = self.call(Procedure::DomainGetState, Args::new().domain(domain).u32(0)).await?;
        let (state, reason) = (answer.i32()?, answer.i32()?);
        match state {
            // It waits for its disk.
            stalled::STATE_PAUSED if reason == stalled::REASON_IO_ERROR => Ok(State::Running),
            1 | 2 | 4 | 7 => Ok(State::Running), // running, blocked, shutting down, sleeping by its own will
            3 => Ok(State::Paused),
            6 => Ok(State::Crashed),
            _ => Ok(if self.is_saved(domain).await? { State::Suspended } else { State::Shutoff }),
        }
    }

    async fn is_saved(&self, domain: &DomainRef) -> Result<bool> {
        let args = Args::new().domain(domain).u32(0);
        Ok(self.call(Procedure::DomainHasManagedSaveImage, args).await?.i32()? == 1)
    }

    pub(crate) async fn definition(&self, domain: &DomainRef, flags: u32) -> Result<Definition> {
        xml::read(&self.definition_text(domain, flags).await?)
    }

    pub(crate) async fn definition_text(&self, domain: &DomainRef, flags: u32) -> Result<String> {
        let args = Args::new().domain(domain).u32(flags);
        self.call(Procedure::DomainGetXmlDesc, args).await?.string()
    }

    async fn describe(&self, domain: &DomainRef) -> Result<Domain> {
        let state = self.state(domain).await?;
        let definition = self.definition(domain, 0).await?;
        let serials = definition.disks.into_iter().map(|disk| disk.serial);
        Ok(Domain {
            uuid: Uuid::from_bytes(domain.uuid).to_string(),
            name: domain.name.clone(),
            state,
            vcpus: definition.vcpus,
            memory_mib: definition.memory_mib,
            metadata: definition.metadata,
            disks: serials.filter(|serial| !serial.is_empty()).collect(),
            nics: definition.nics.into_iter().map(|nic| nic.mac).collect(),
            vnc: definition.vnc.filter(|_| matches!(state, State::Running | State::Paused)),
        })
    }

    /// Reads a little of a disk beside the guest: QEMU connects again to what cut it off only when it has to.
    async fn touch(&self, domain: &DomainRef, alias: &str) -> Result<()> {
        let command = format!("qemu-io -d /machine/peripheral/{alias}/virtio-backend \"read 0 512\"");
        let args = Args::new().domain(domain).string(&command).u32(MONITOR_HUMAN);
        let said = self.call(Procedure::QemuMonitorCommand, args).await?.string()?;
        tracing::debug!(domain = domain.name, alias, said, "touched");
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DomainRef>> {
        let args = Args::new().i32(1).u32(LIST_ACTIVE | LIST_INACTIVE);
        self.call(Procedure::ConnectListAllDomains, args).await?.domains()
    }

    /// The two definitions a device belongs to: the running guest's and the kept one.
    async fn sides(&self, domain: &DomainRef) -> Result<Vec<(u32, Definition)>> {
        let mut sides = vec![(AFFECT_CONFIG, self.definition(domain, XML_INACTIVE).await?)];
        if matches!(self.state(domain).await?, State::Running | State::Paused) {
            sides.push((AFFECT_LIVE, self.definition(domain, 0).await?));
        }
        Ok(sides)
    }

    pub(crate) async fn attach(&self, domain: &DomainRef, device: &str, flags: u32) -> Result<()> {
        let args = Args::new().domain(domain).string(device).u32(flags);
        self.call(Procedure::DomainAttachDeviceFlags, args).await.map(drop)
    }

    /// Takes a device out of both definitions; `find` gives its element where it still is.
    async fn detach(
        &self,
        uuid: &str,
        timeout: Duration,
        find: impl Fn(&Definition) -> Option<String> + Send + Sync,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut ask_at = Instant::now();
        loop {
            // A guest that is gone holds no device.
            let Some(domain) = self.find(uuid).await? else { return Ok(()) };
            let sides = self.sides(&domain).await?;
            let held: Vec<_> = sides.iter().filter_map(|(flag, side)| Some((*flag, find(side)?))).collect();
            if held.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::timeout(format!(
                    "The guest has not released the device within {timeout:?}"
                )));
            }
            if Instant::now() >= ask_at {
                ask_at = Instant::now() + ASK_AGAIN_EVERY;
                for (flag, device) in held {
                    let args = Args::new().domain(&domain).string(&device).u32(flag);
                    if let Err(error) = self.call(Procedure::DomainDetachDeviceFlags, args).await {
                        // Asked twice, gone meanwhile, switched off meanwhile: the next look tells.
                        tracing::debug!(%error, uuid, "detach asked");
                    }
                }
            } else {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    async fn capabilities(&self) -> Result<Capabilities> {
        let version = self.call(Procedure::ConnectGetVersion, Args::new()).await?.u64()?;
        let text = self.call(Procedure::ConnectGetCapabilities, Args::new()).await?.string()?;
        let cpu = xml::read_capabilities(&text)?;
        let (memory_mib, memory_free_mib) = memory().await?;
        let (disk_gib, disk_used_gib) = disk_space(&self.instances_dir).await?;
        Ok(Capabilities {
            hypervisor_type: "QEMU".into(),
            hypervisor_version: version,
            hostname: base::machine_name(),
            vcpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            memory_mib,
            memory_used_mib: memory_mib.saturating_sub(memory_free_mib),
            disk_gib,
            disk_used_gib,
            arch: cpu.arch,
            cpu_model: cpu.model,
            cpu_vendor: cpu.vendor,
            cpu_features: cpu.features,
            sockets: cpu.sockets,
            cores: cpu.cores,
            threads: cpu.threads,
        })
    }

    async fn domains(&self) -> Result<Vec<Domain>> {
        let mut domains = Vec::new();
        for domain in self.list().await? {
            match self.describe(&domain).await {
                Ok(described) => domains.push(described),
                Err(error) if error.is(ErrorKind::NotFound) => {} // gone since the list
                Err(error) => return Err(error),
            }
        }
        Ok(domains)
    }

    async fn domain(&self, uuid: &str) -> Result<Option<Domain>> {
        let Some(domain) = self.find(uuid).await? else { return Ok(None) };
        match self.describe(&domain).await {
            Ok(described) => Ok(Some(described)),
            Err(error) if error.is(ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn define(&self, spec: &DomainSpec) -> Result<()> {
        let text = xml::domain(spec, self.daemon.accelerator)?;
        self.call(Procedure::DomainDefineXml, Args::new().string(&text)).await.map(drop)
    }

    async fn start(&self, uuid: &str) -> Result<()> {
        let domain = self.get(uuid).await?;
        if matches!(self.state(&domain).await?, State::Running | State::Paused) {
            return Ok(());
        }
        let started =
            self.call_long(Procedure::DomainCreateWithFlags, Args::new().domain(&domain).u32(0)).await;
        match started {
            // Somebody else started it between the look and the call.
            Err(error) if error.is(ErrorKind::Conflict) && self.state(&domain).await? == State::Running => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    async fn shutdown(&self, uuid: &str) -> Result<()> {
        let domain = self.get(uuid).await?;
        if self.state(&domain).await? != State::Running {
            return Ok(());
        }
        let args = Args::new().domain(&domain).u32(SHUTDOWN_BY_ACPI);
        self.call(Procedure::DomainShutdownFlags, args).await.map(drop)
    }

    async fn destroy(&self, uuid: &str) -> Result<()> {
        let Some(domain) = self.find(uuid).await? else { return Ok(()) };
        let args = Args::new().domain(&domain).u32(0);
        match self.call_long(Procedure::DomainDestroyFlags, args).await {
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn undefine(&self, uuid: &str) -> Result<()> {
        self.destroy(uuid).await?;
        let Some(domain) = self.find(uuid).await? else { return Ok(()) };
        let args = Args::new().domain(&domain).u32(UNDEFINE_ALL);
        match self.call(Procedure::DomainUndefineFlags, args).await {
            Err(error) if error.is(ErrorKind::NotFound) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn pause(&self, uuid: &str) -> Result<()> {
        let domain = self.get(uuid).await?;
        if self.state(&domain).await? == State::Paused {
            return Ok(());
        }
        self.call(Procedure::DomainSuspend, Args::new().domain(&domain)).await.map(drop)
    }

    async fn unpause(&self, uuid: &str) -> Result<()> {
        let domain = self.get(uuid).await?;
        if self.state(&domain).await? == State::Running {
            return Ok(());
        }
        self.call(Procedure::DomainResume, Args::new().domain(&domain)).await.map(drop)
    }

    async fn suspend(&self, uuid: &str) -> Result<()> {
        let domain = self.get(uuid).await?;
        if self.state(&domain).await? == State::Suspended {
            return Ok(());
        }
        self.call_long(Procedure::DomainManagedSave, Args::new().domain(&domain).u32(0)).await.map(drop)
    }

    async fn attach_disk(&self, uuid: &str, disk: &Disk) -> Result<String> {
        let domain = self.get(uuid).await?;
        let sides = self.sides(&domain).await?;
        let disks = || sides.iter().flat_map(|(_, side)| &side.disks);
        let device = match disks().find(|held| held.serial == disk.serial) {
            Some(held) => held.device.clone(),
            None => {
                let taken: Vec<String> = disks().map(|held| held.device.clone()).collect();
                let wanted = disk.device.clone().filter(|device| !taken.contains(device));
                wanted.map_or_else(|| xml::free_device(disk.bus, &taken), Ok)?
            }
        };
        let element = xml::disk(disk, &device);
        for (flag, side) in &sides {
            if !side.disks.iter().any(|held| held.serial == disk.serial) {
                self.note_replaced(&domain, side, &device, None).await?;
                self.attach(&domain, &element, *flag).await?;
            }
        }
        Ok(device)
    }

    async fn detach_disk(&self, uuid: &str, serial: &str, timeout: Duration) -> Result<()> {
        let find = |side: &Definition| {
            side.disks.iter().find(|disk| disk.serial == serial).map(|disk| disk.xml.clone())
        };
        self.detach(uuid, timeout, find).await
    }

    async fn attach_nic(&self, uuid: &str, nic: &Nic) -> Result<()> {
        let domain = self.get(uuid).await?;
        let element = xml::nic(nic);
        for (flag, side) in self.sides(&domain).await? {
            if !side.nics.iter().any(|held| held.mac == nic.mac) {
                self.attach(&domain, &element, flag).await?;
            }
        }
        Ok(())
    }

    async fn detach_nic(&self, uuid: &str, mac: &str, timeout: Duration) -> Result<()> {
        let find = |side: &Definition| side.nics.iter().find(|nic| nic.mac == mac).map(|nic| nic.xml.clone());
        self.detach(uuid, timeout, find).await
    }

    async fn resize_disk(&self, uuid: &str, serial: &str, bytes: u64) -> Result<()> {
        let domain = self.get(uuid).await?;
        if !matches!(self.state(&domain).await?, State::Running | State::Paused) {
            return Ok(()); // it will see the size when it starts
        }
        let definition = self.definition(&domain, 0).await?;
        let disk = definition.disks.iter().find(|disk| disk.serial == serial);
        let disk = disk.ok_or_else(|| Error::not_found(format!("Disk {serial} is not attached")))?;
        let deadline = Instant::now() + RESIZE_PATIENCE;
        loop {
            let args = Args::new().domain(&domain).string(&disk.device).u64(bytes).u32(RESIZE_IN_BYTES);
            match self.call_long(Procedure::DomainBlockResize, args).await {
                Err(error) if error.message.contains(OLD_SIZE) && Instant::now() < deadline => {
                    self.touch(&domain, &disk.alias).await?;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                other => return other.map(drop),
            }
        }
    }

    async fn swap_disk(&self, uuid: &str, serial: &str, disk: &Disk) -> Result<()> {
        self.replace_disk(uuid, serial, disk).await
    }

    async fn stats(&self, uuid: &str) -> Result<Stats> {
        self.stats_of(uuid).await
    }

    async fn set_password(&self, uuid: &str, user: &str, password: &Secret) -> Result<()> {
        let domain = self.get(uuid).await?;
        let args = Args::new().domain(&domain).optional_string(Some(user));
        let args = args.optional_string(Some(password.expose())).u32(0);
        self.call(Procedure::DomainSetUserPassword, args).await.map(drop)
    }

    async fn inject_nmi(&self, uuid: &str) -> Result<()> {
        let domain = self.get(uuid).await?;
        self.call(Procedure::DomainInjectNmi, Args::new().domain(&domain).u32(0)).await.map(drop)
    }

    fn channels(&self, uuid: &str) -> Vec<Channel> {
        self.daemon.channels(uuid)
    }

    async fn destination(&self, spec: &DomainSpec) -> Result<Destination> {
        self.destination_for(spec).await
    }

    async fn migrate(&self, uuid: &str, to: &Destination, disks: &[String]) -> Result<()> {
        self.begin_migration(uuid, to, disks).await
    }

    async fn migration(&self, uuid: &str) -> Result<Migration> {
        self.migration_of(uuid).await
    }

    async fn hasten_migration(&self, uuid: &str) -> Result<()> {
        self.hasten(uuid).await
    }

    async fn abort_migration(&self, uuid: &str) -> Result<()> {
        self.abort(uuid).await
    }

    async fn console_log(&self, uuid: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let domain = self.get(uuid).await?;
        match self.definition(&domain, XML_INACTIVE).await?.console_log {
            Some(path) => crate::tail(&path, bytes_max).await,
            None => Ok(Vec::new()),
        }
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

/// Libvirt's event numbers into ours.
async fn translate_events(
    mut received: broadcast::Receiver<LifecycleEvent>,
    events: broadcast::Sender<Event>,
    stalled: Arc<Notify>,
) {
    loop {
        let lifecycle = match received.recv().await {
            Ok(lifecycle) => lifecycle,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let change = match lifecycle.event {
            0 => Change::Defined,
            1 => Change::Undefined,
            2 => Change::Started,
            stalled::EVENT_SUSPENDED if lifecycle.detail == stalled::DETAIL_IO_ERROR => {
                stalled.notify_one();
                continue;
            }
            3 => Change::Paused,
            4 => Change::Resumed,
            5 => Change::Stopped,
            8 => Change::Crashed,
            _ => continue, // shutdown begins, sleeps by its own will
        };
        let uuid = Uuid::from_bytes(lifecycle.domain.uuid).to_string();
        tracing::debug!(uuid, ?change, detail = lifecycle.detail, "domain event");
        let _ = events.send(Event { uuid, change });
    }
}

/// The machine's memory and what of it is available, in MiB.
async fn memory() -> Result<(u64, u64)> {
    let text = tokio::fs::read_to_string("/proc/meminfo").await?;
    let mib = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
    };
    match (mib("MemTotal:"), mib("MemAvailable:")) {
        (Some(total), Some(available)) => Ok((total, available)),
        _ => Err(Error::internal("/proc/meminfo: not understood")),
    }
}

/// Size and use of the file system that holds a folder, in GiB.
async fn disk_space(dir: &std::path::Path) -> Result<(u64, u64)> {
    let text = run("df").args(["--block-size=1", "--output=size,used"]).arg(dir).text().await?;
    let numbers: Vec<u64> =
        text.lines().nth(1).unwrap_or("").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [size, used] => Ok((size >> 30, used.div_ceil(1 << 30))),
        _ => Err(Error::internal(format!("df: not understood: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machine_is_read() {
        let (total, available) = memory().await.unwrap();
        assert!(total > 0 && available <= total);
        let (size, used) = disk_space(std::path::Path::new("/")).await.unwrap();
        assert!(size > 0 && used <= size + 1);
    }
}
