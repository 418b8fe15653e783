//! A host that remembers what it was told and behaves as the real one does, without a guest. A test can make
//! any verb slow or fail, a guest deaf to its power button, and kill guests behind the owner's back.

use crate::{
    Capabilities, Change, Channel, Destination, Disk, DiskStats, Domain, DomainSpec, Event, Hypervisor,
    Migration, Nic, NicStats, Phase, State, Stats, not_found, xml,
};
use async_trait::async_trait;
use base::{Error, ErrorKind, Kept, Result, Secret};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};
use tokio::sync::broadcast;

const EVENTS_HELD: usize = 4096;
const VNC_PORT_FIRST: u16 = 5900;
const SCHEME: &str = "fake://";
/// Looks of a slow migration whether somebody is in a hurry, or calls it back.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The verbs a test can hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Define,
    Start,
    Shutdown,
    Destroy,
    Undefine,
    Pause,
    Unpause,
    Suspend,
    AttachDisk,
    DetachDisk,
    AttachNic,
    DetachNic,
    ResizeDisk,
    SwapDisk,
    Migrate,
    SetPassword,
    InjectNmi,
}

/// The fake hosts that can send guests to each other. Clones are the same wire.
#[derive(Clone, Default)]
pub struct Wire(std::sync::Arc<Mutex<HashMap<String, std::sync::Weak<Inner>>>>);

/// The fake host. Clones share it, so that it outlives an agent that is "killed".
#[derive(Clone)]
pub struct Fake(std::sync::Arc<Inner>);

struct Inner {
    capabilities: Capabilities,
    guests: Mutex<Kept<Guest>>,
    hooks: Mutex<HashMap<Verb, Hook>>,
    events: broadcast::Sender<Event>,
    wire: Wire,
    /// Guests that were sent, and how that went.
    sent: Mutex<HashMap<String, Migration>>,
    hastened: Mutex<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct Guest {
    spec: DomainSpec,
    state: State,
    console: String,
    vnc_port: u16,
    deaf: bool,
}

#[derive(Clone, Default)]
struct Hook {
    delay: Duration,
    failures: u32,
    error: Option<Error>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new(Capabilities {
            hypervisor_type: "fake".into(),
            hypervisor_version: 1000,
            hostname: "fake".into(),
            vcpus: 64,
            memory_mib: 256 * 1024,
            memory_used_mib: 512,
            disk_gib: 4096,
            disk_used_gib: 0,
            arch: "x86_64".into(),
            cpu_model: "qemu64".into(),
            cpu_vendor: "Fake".into(),
            cpu_features: Vec::new(),
            sockets: 64,
            cores: 1,
            threads: 1,
        })
    }
}

impl Fake {
    pub fn new(capabilities: Capabilities) -> Self {
        Self::with_guests(capabilities, Kept::default(), &Wire::default())
    }

    /// One that others of the wire can send guests to.
    pub fn on(capabilities: Capabilities, wire: &Wire) -> Self {
        Self::with_guests(capabilities, Kept::default(), wire)
    }

    /// One whose guests go on when the process ends: the folder remembers them.
    pub fn kept(capabilities: Capabilities, folder: &Path, wire: &Wire) -> Result<Self> {
        Ok(Self::with_guests(capabilities, Kept::open(folder)?, wire))
    }

    fn with_guests(capabilities: Capabilities, guests: Kept<Guest>, wire: &Wire) -> Self {
        let (events, _) = broadcast::channel(EVENTS_HELD);
        let name = capabilities.hostname.clone();
        let inner = std::sync::Arc::new(Inner {
            capabilities,
            guests: Mutex::new(guests),
            hooks: Mutex::default(),
            events,
            wire: wire.clone(),
            sent: Mutex::default(),
            hastened: Mutex::default(),
        });
        wire.0.lock().insert(name, std::sync::Arc::downgrade(&inner));
        Self(inner)
    }

    /// The guest is on the other host now. There first: a guest that is on both is still to be sent.
    fn hand_over(&self, uuid: &str, to: &Destination) -> Result<()> {
        // Held to the end: whoever sends back meanwhile waits, and nobody sees the guest run on both.
        let wire = self.0.wire.0.lock();
        let peer = wire.get(to.uri.trim_start_matches(SCHEME)).and_then(std::sync::Weak::upgrade);
        let peer = Self(peer.ok_or_else(|| Error::unavailable(format!("{}: no such host", to.uri)))?);
        let spec: DomainSpec = serde_json::from_str(&to.definition)?;
        let vnc_port = free_vnc_port(peer.0.guests.lock().entries());
        let moved = self.with(uuid, |guest| match guest.state {
            State::Running | State::Paused => {
                let (state, console, deaf) = (guest.state, guest.console.clone(), guest.deaf);
                Ok(Guest { spec, state, console, vnc_port, deaf })
            }
            _ => Err(Error::conflict("libvirt: the domain is not running")),
        })?;
        let (mut there, mut here) = (peer.0.guests.lock(), self.0.guests.lock());
        there.insert(uuid, moved)?;
        here.remove(uuid)?;
        drop((there, here));
        peer.tell(uuid, Change::Started);
        self.tell(uuid, Change::Undefined);
        Ok(())
    }

    fn under_way(&self, uuid: &str) -> Result<()> {
        match self.0.sent.lock().get(uuid).map(|sent| sent.phase) {
            Some(Phase::Running) => Ok(()),
            _ => Err(Error::conflict("no migration is under way")),
        }
    }

    /// Every call of the verb takes this long from now on.
    pub fn delay(&self, verb: Verb, delay: Duration) {
        self.0.hooks.lock().entry(verb).or_default().delay = delay;
    }

    /// The next `times` calls of the verb fail, and change nothing.
    pub fn fail(&self, verb: Verb, times: u32, error: Error) {
        let mut hooks = self.0.hooks.lock();
        let hook = hooks.entry(verb).or_default();
        hook.failures = times;
        hook.error = Some(error);
    }

    /// The guest no longer hears its power button.
    pub fn deafen(&self, uuid: &str) -> Result<()> {
        self.with(uuid, |guest| {
            guest.deaf = true;
            Ok(())
        })
    }

    /// The guest dies on its own.
    pub fn crash(&self, uuid: &str) -> Result<()> {
        self.with(uuid, |guest| {
            guest.state = State::Crashed;
            self.tell(uuid, Change::Crashed);
            Ok(())
        })
    }

    /// The guest switches itself off.
    pub fn power_button(&self, uuid: &str) -> Result<()> {
        self.with(uuid, |guest| {
            guest.state = State::Shutoff;
            self.tell(uuid, Change::Stopped);
            Ok(())
        })
    }

    /// The guest says something on its serial console.
    pub fn say(&self, uuid: &str, text: &str) -> Result<()> {
        self.with(uuid, |guest| {
            guest.console.push_str(text);
            Ok(())
        })
    }

    /// The definition as it stands, for a test to look at.
    pub fn spec(&self, uuid: &str) -> Option<DomainSpec> {
        self.0.guests.lock().get(uuid).map(|guest| guest.spec.clone())
    }

    fn tell(&self, uuid: &str, change: Change) {
        let _ = self.0.events.send(Event { uuid: uuid.into(), change });
    }

    async fn hook(&self, verb: Verb) -> Result<()> {
        let delay = self.0.hooks.lock().get(&verb).map_or(Duration::ZERO, |hook| hook.delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match self.0.hooks.lock().get_mut(&verb) {
            Some(hook) if hook.failures > 0 => {
                hook.failures -= 1;
                Err(hook.error.clone().unwrap_or_else(|| Error::internal("made to fail")))
            }
            _ => Ok(()),
        }
    }

    /// Changes one guest under the lock.
    fn with<T>(&self, uuid: &str, change: impl FnOnce(&mut Guest) -> Result<T>) -> Result<T> {
        self.0.guests.lock().change(uuid, change)?.unwrap_or_else(|| Err(not_found(uuid)))
    }
}

fn free_vnc_port(guests: &BTreeMap<String, Guest>) -> u16 {
    let taken: Vec<u16> = guests.values().map(|guest| guest.vnc_port).collect();
    (VNC_PORT_FIRST..).find(|port| !taken.contains(port)).unwrap_or(VNC_PORT_FIRST)
}

/// A guest that does nothing has used nothing.
fn stats(spec: &DomainSpec) -> Stats {
    let disk =
        |disk: &Disk| DiskStats { device: disk.device.clone().unwrap_or_default(), ..DiskStats::default() };
    let nic = |nic: &Nic| NicStats { mac: nic.mac.clone(), device: nic.tap.clone(), ..NicStats::default() };
    Stats {
        memory_maximum_mib: spec.memory_mib,
        cpus: vec![0; spec.vcpus as usize],
        disks: spec.disks.iter().map(disk).collect(),
        nics: spec.nics.iter().map(nic).collect(),
        ..Stats::default()
    }
}

fn view(guest: &Guest) -> Domain {
    let runs = matches!(guest.state, State::Running | State::Paused);
    let listen = guest.spec.vnc_listen.clone().filter(|_| runs);
    Domain {
        uuid: guest.spec.uuid.clone(),
        name: guest.spec.name.clone(),
        state: guest.state,
        vcpus: guest.spec.vcpus,
        memory_mib: guest.spec.memory_mib,
        metadata: guest.spec.metadata.clone(),
        disks: guest.spec.disks.iter().map(|disk| disk.serial.clone()).collect(),
        nics: guest.spec.nics.iter().map(|nic| nic.mac.clone()).collect(),
        vnc: listen.map(|address| (address, guest.vnc_port)),
    }
}

#[async_trait]
impl Hypervisor for Fake {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.0.capabilities.clone())
    }

    async fn domains(&self) -> Result<Vec<Domain>> {
        Ok(self.0.guests.lock().entries().values().map(view).collect())
    }

    async fn domain(&self, uuid: &str) -> Result<Option<Domain>> {
        Ok(self.0.guests.lock().get(uuid).map(view))
    }

    async fn define(&self, spec: &DomainSpec) -> Result<()> {
        self.hook(Verb::Define).await?;
        let mut guests = self.0.guests.lock();
        if guests.change(&spec.uuid, |guest| guest.spec = spec.clone())?.is_none() {
            if guests.entries().values().any(|guest| guest.spec.name == spec.name) {
                return Err(Error::internal(format!(
                    "domain '{}' already exists with another uuid",
                    spec.name
                )));
            }
            let guest = Guest {
                spec: spec.clone(),
                state: State::Shutoff,
                console: String::new(),
                vnc_port: 0,
                deaf: false,
            };
            guests.insert(&spec.uuid, guest)?;
        }
        self.tell(&spec.uuid, Change::Defined);
        Ok(())
    }

    async fn start(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::Start).await?;
        let mut guests = self.0.guests.lock();
        let vnc_port = free_vnc_port(guests.entries());
        let started = guests.change(uuid, |guest| {
            if !matches!(guest.state, State::Running | State::Paused) {
                guest.state = State::Running;
                guest.vnc_port = vnc_port;
                // As long as the boot of a small guest: who asks for its last lines finds some.
                guest.console.push_str("Booting\nMemory found\nDisks found\nNetwork is up\n");
                guest.console.push_str(&format!("{} login: ", guest.spec.name));
                self.tell(uuid, Change::Started);
            }
        })?;
        started.ok_or_else(|| not_found(uuid))
    }

    async fn shutdown(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::Shutdown).await?;
        self.with(uuid, |guest| {
            if guest.state == State::Running && !guest.deaf {
                guest.state = State::Shutoff;
                guest.vnc_port = 0;
                self.tell(uuid, Change::Stopped);
            }
            Ok(())
        })
    }

    async fn destroy(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::Destroy).await?;
        let destroyed = self.0.guests.lock().change(uuid, |guest| {
            if matches!(guest.state, State::Running | State::Paused) {
                guest.state = State::Shutoff;
                guest.vnc_port = 0;
                self.tell(uuid, Change::Stopped);
            }
        });
        destroyed.map(drop)
    }

    async fn undefine(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::Undefine).await?;
        if self.0.guests.lock().remove(uuid)?.is_some() {
            self.tell(uuid, Change::Undefined);
        }
        Ok(())
    }

    async fn pause(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::Pause).await?;
        self.with(uuid, |guest| match guest.state {
            State::Paused => Ok(()),
            State::Running => {
                guest.state = State::Paused;
                self.tell(uuid, Change::Paused);
                Ok(())
            }
            _ => Err(Error::conflict("libvirt: the domain is not running")),
        })
    }

    async fn unpause(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::Unpause).await?;
        self.with(uuid, |guest| match guest.state {
            State::Running => Ok(()),
            State::Paused => {
                guest.state = State::Running;
                self.tell(uuid, Change::Resumed);
                Ok(())
            }
            _ => Err(Error::conflict("libvirt: the domain is not running")),
        })
    }

    async fn suspend(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::Suspend).await?;
        self.with(uuid, |guest| match guest.state {
            State::Suspended => Ok(()),
            State::Running | State::Paused => {
                guest.state = State::Suspended;
                guest.vnc_port = 0;
                self.tell(uuid, Change::Stopped);
                Ok(())
            }
            _ => Err(Error::conflict("libvirt: the domain is not running")),
        })
    }

    async fn attach_disk(&self, uuid: &str, disk: &Disk) -> Result<String> {
        self.hook(Verb::AttachDisk).await?;
        self.with(uuid, |guest| {
            let held = &mut guest.spec.disks;
            if let Some(disk) = held.iter().find(|held| held.serial == disk.serial) {
                return Ok(disk.device.clone().unwrap_or_default());
            }
            let mut taken = Vec::new();
            for disk in held.iter_mut() {
                let name = disk.device.clone().map_or_else(|| xml::free_device(disk.bus, &taken), Ok)?;
                disk.device = Some(name.clone());
                taken.push(name);
            }
            let wanted = disk.device.clone().filter(|device| !taken.contains(device));
            let device = wanted.map_or_else(|| xml::free_device(disk.bus, &taken), Ok)?;
            held.push(Disk { device: Some(device.clone()), ..disk.clone() });
            Ok(device)
        })
    }

    async fn detach_disk(&self, uuid: &str, serial: &str, _timeout: Duration) -> Result<()> {
        self.hook(Verb::DetachDisk).await?;
        let removed = self.with(uuid, |guest| {
            guest.spec.disks.retain(|disk| disk.serial != serial);
            Ok(())
        });
        match removed {
            Err(error) if error.is(ErrorKind::NotFound) => Ok(()),
            other => other,
        }
    }

    async fn attach_nic(&self, uuid: &str, nic: &Nic) -> Result<()> {
        self.hook(Verb::AttachNic).await?;
        self.with(uuid, |guest| {
            if !guest.spec.nics.iter().any(|held| held.mac == nic.mac) {
                guest.spec.nics.push(nic.clone());
            }
            Ok(())
        })
    }

    async fn detach_nic(&self, uuid: &str, mac: &str, _timeout: Duration) -> Result<()> {
        self.hook(Verb::DetachNic).await?;
        let removed = self.with(uuid, |guest| {
            guest.spec.nics.retain(|nic| nic.mac != mac);
            Ok(())
        });
        match removed {
            Err(error) if error.is(ErrorKind::NotFound) => Ok(()),
            other => other,
        }
    }

    async fn resize_disk(&self, uuid: &str, serial: &str, _bytes: u64) -> Result<()> {
        self.hook(Verb::ResizeDisk).await?;
        self.with(uuid, |guest| {
            let known = guest.spec.disks.iter().any(|disk| disk.serial == serial);
            let runs = matches!(guest.state, State::Running | State::Paused);
            if runs && !known {
                Err(Error::not_found(format!("Disk {serial} is not attached")))
            } else {
                Ok(())
            }
        })
    }

    async fn swap_disk(&self, uuid: &str, serial: &str, disk: &Disk) -> Result<()> {
        self.hook(Verb::SwapDisk).await?;
        self.with(uuid, |guest| {
            let held = &mut guest.spec.disks;
            if held.iter().any(|held| held.serial == disk.serial) {
                return Ok(());
            }
            let missing = || Error::not_found(format!("Disk {serial} is not attached"));
            let place = held.iter_mut().find(|held| held.serial == serial).ok_or_else(missing)?;
            *place = Disk { device: place.device.clone(), bus: place.bus, ..disk.clone() };
            Ok(())
        })
    }

    async fn stats(&self, uuid: &str) -> Result<Stats> {
        self.with(uuid, |guest| match guest.state {
            State::Running | State::Paused => Ok(stats(&guest.spec)),
            _ => Err(Error::conflict("libvirt: the domain is not running")),
        })
    }

    async fn set_password(&self, uuid: &str, user: &str, _password: &Secret) -> Result<()> {
        self.hook(Verb::SetPassword).await?;
        self.with(uuid, |guest| match guest.state {
            State::Running => {
                guest.console.push_str(&format!("password of {user} changed\n"));
                Ok(())
            }
            _ => Err(Error::conflict("libvirt: the domain is not running")),
        })
    }

    async fn inject_nmi(&self, uuid: &str) -> Result<()> {
        self.hook(Verb::InjectNmi).await?;
        self.with(uuid, |guest| match guest.state {
            State::Running | State::Paused => {
                guest.console.push_str("Uhhuh. NMI received.\n");
                Ok(())
            }
            _ => Err(Error::conflict("libvirt: the domain is not running")),
        })
    }

    fn channels(&self, _uuid: &str) -> Vec<Channel> {
        Vec::new()
    }

    async fn destination(&self, spec: &DomainSpec) -> Result<Destination> {
        let uri = format!("{SCHEME}{}", self.0.capabilities.hostname);
        Ok(Destination { uri, definition: serde_json::to_string(spec)? })
    }

    /// Takes as long as the verb is delayed, and can be hastened and called back meanwhile.
    async fn migrate(&self, uuid: &str, to: &Destination, _disks: &[String]) -> Result<()> {
        if self.under_way(uuid).is_ok() {
            return Ok(());
        }
        self.with(uuid, |_| Ok(()))?;
        let phase = |phase| Migration { phase, ..Migration::default() };
        self.0.sent.lock().insert(uuid.into(), phase(Phase::Running));
        let (fake, uuid, to) = (self.clone(), uuid.to_string(), to.clone());
        tokio::spawn(async move {
            let called_off = async {
                while fake.under_way(&uuid).is_ok() && !fake.0.hastened.lock().contains(&uuid) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            let hooked = tokio::select! {
                hooked = fake.hook(Verb::Migrate) => hooked,
                () = called_off => Ok(()),
            };
            if fake.0.sent.lock().get(&uuid).is_some_and(|sent| sent.phase == Phase::Cancelled) {
                return;
            }
            let ended = match hooked.and_then(|()| fake.hand_over(&uuid, &to)) {
                Ok(()) => phase(Phase::Completed),
                Err(error) => Migration { error: Some(error.message), ..phase(Phase::Failed) },
            };
            fake.0.hastened.lock().retain(|hastened| *hastened != uuid);
            fake.0.sent.lock().insert(uuid, ended);
        });
        Ok(())
    }

    async fn migration(&self, uuid: &str) -> Result<Migration> {
        Ok(self.0.sent.lock().get(uuid).cloned().unwrap_or_default())
    }

    async fn hasten_migration(&self, uuid: &str) -> Result<()> {
        self.under_way(uuid)?;
        self.0.hastened.lock().push(uuid.into());
        Ok(())
    }

    async fn abort_migration(&self, uuid: &str) -> Result<()> {
        self.under_way(uuid)?;
        self.0.sent.lock().insert(uuid.into(), Migration { phase: Phase::Cancelled, ..Migration::default() });
        Ok(())
    }

    async fn console_log(&self, uuid: &str, bytes_max: u64) -> Result<Vec<u8>> {
        self.with(uuid, |guest| {
            let bytes = guest.console.as_bytes();
            let from = bytes.len().saturating_sub(usize::try_from(bytes_max).unwrap_or(usize::MAX));
            Ok(bytes[from..].to_vec())
        })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    const UUID: &str = "0e8a7f6c-0000-4000-8000-000000000001";

    fn spec() -> DomainSpec {
        DomainSpec {
            uuid: UUID.into(),
            name: "instance-1".into(),
            vcpus: 1,
            memory_mib: 64,
            disks: vec![Disk::file("root", "/x", Format::Qcow2)],
            vnc_listen: Some("127.0.0.1".into()),
            ..DomainSpec::default()
        }
    }

    async fn running() -> Fake {
        let fake = Fake::default();
        fake.define(&spec()).await.unwrap();
        fake.start(UUID).await.unwrap();
        fake
    }

    async fn state(fake: &Fake) -> State {
        fake.domain(UUID).await.unwrap().unwrap().state
    }

    #[tokio::test]
    async fn a_life() {
        let fake = running().await;
        let mut events = fake.events();
        fake.start(UUID).await.unwrap();
        assert_eq!(fake.domain(UUID).await.unwrap().unwrap().vnc, Some(("127.0.0.1".into(), 5900)));
        assert_eq!(fake.console_log(UUID, 7).await.unwrap(), b"login: ");
        fake.pause(UUID).await.unwrap();
        fake.unpause(UUID).await.unwrap();
        fake.suspend(UUID).await.unwrap();
        assert_eq!(state(&fake).await, State::Suspended);
        fake.start(UUID).await.unwrap();
        fake.stop(UUID, Duration::from_secs(1)).await.unwrap();
        assert_eq!(state(&fake).await, State::Shutoff);
        assert!(fake.pause(UUID).await.is_err());
        for _ in 0..2 {
            fake.undefine(UUID).await.unwrap();
            fake.destroy(UUID).await.unwrap();
        }
        assert!(fake.start(UUID).await.unwrap_err().is(ErrorKind::NotFound));
        let mut changes = Vec::new();
        while let Ok(event) = events.try_recv() {
            changes.push(event.change);
        }
        use Change::*;
        assert_eq!(changes, [Paused, Resumed, Stopped, Started, Stopped, Undefined]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_guest_is_forced() {
        let fake = running().await;
        fake.deafen(UUID).unwrap();
        assert!(!fake.power_off(UUID, Duration::from_secs(5)).await.unwrap());
        fake.reboot(UUID, Some(Duration::from_secs(5))).await.unwrap();
        assert_eq!(state(&fake).await, State::Running);
        fake.stop(UUID, Duration::from_secs(5)).await.unwrap();
        assert_eq!(state(&fake).await, State::Shutoff);
    }

    #[tokio::test]
    async fn devices_come_and_go_twice() {
        let fake = running().await;
        let disk = Disk::file("vol", "/y", Format::Raw);
        for _ in 0..2 {
            assert_eq!(fake.attach_disk(UUID, &disk).await.unwrap(), "vdb");
        }
        assert_eq!(fake.domain(UUID).await.unwrap().unwrap().disks, ["root", "vol"]);
        for _ in 0..2 {
            fake.detach_disk(UUID, "vol", Duration::ZERO).await.unwrap();
        }
        assert_eq!(fake.domain(UUID).await.unwrap().unwrap().disks, ["root"]);
        assert!(fake.resize_disk(UUID, "vol", 1).await.unwrap_err().is(ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn what_a_guest_hears_only_while_it_runs() {
        let fake = running().await;
        let secret = Secret::new("s3cret");
        fake.set_password(UUID, "root", &secret).await.unwrap();
        fake.inject_nmi(UUID).await.unwrap();
        let console = String::from_utf8(fake.console_log(UUID, 1000).await.unwrap()).unwrap();
        assert!(console.contains("password of root changed\nUhhuh. NMI") && !console.contains("s3cret"));
        fake.fail(Verb::SetPassword, 1, Error::unavailable("no agent"));
        assert!(fake.set_password(UUID, "root", &secret).await.unwrap_err().is(ErrorKind::Unavailable));
        fake.destroy(UUID).await.unwrap();
        assert!(fake.set_password(UUID, "root", &secret).await.unwrap_err().is(ErrorKind::Conflict));
        assert!(fake.inject_nmi(UUID).await.unwrap_err().is(ErrorKind::Conflict));
    }

    #[tokio::test(start_paused = true)]
    async fn hooks() {
        let fake = running().await;
        fake.fail(Verb::Destroy, 1, Error::timeout("no answer"));
        assert!(fake.destroy(UUID).await.unwrap_err().is(ErrorKind::Timeout));
        assert_eq!(state(&fake).await, State::Running, "a failed call changes nothing");
        fake.delay(Verb::Destroy, Duration::from_secs(3));
        let started = tokio::time::Instant::now();
        fake.destroy(UUID).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_name_belongs_to_one_uuid() {
        let fake = running().await;
        let other = DomainSpec { uuid: "0e8a7f6c-0000-4000-8000-000000000002".into(), ..spec() };
        assert!(fake.define(&other).await.is_err());
    }
}
