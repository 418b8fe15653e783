//! Compute hosts that remember what they were told, for tests of who asks them. They are as strict as the trait lets
//! an agent be: what is not there is `NotFound`, what cannot be done now is `Conflict`, and what is already so is fine.

use crate::{compute::*, peers::Peer};
use async_trait::async_trait;
use base::{Clock, Context, Error, Result, Secret};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// All hosts of a cloud: guests move among them. Clones share them, so that they outlive an agent that is "killed".
#[derive(Clone, Default)]
pub struct FakeHosts(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    /// By host and instance.
    guests: BTreeMap<(String, String), Guest>,
    /// Disks that wait for a move to be confirmed.
    set_aside: BTreeMap<(String, String), Guest>,
    /// Hosts that are ready for a running guest.
    expected: BTreeMap<(String, String), Instance>,
    sent: BTreeMap<String, LiveState>,
    snapshots: Vec<(String, String)>,
    /// Guests that are sent stay under way until somebody says otherwise.
    slow: bool,
}

/// A guest, or its disks alone when it is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub instance: Instance,
    pub state: PowerState,
    /// Its memory is on disk.
    pub suspended: bool,
    pub rescue: Option<Rescue>,
}

/// The agent of one of them.
pub struct FakeCompute {
    hosts: FakeHosts,
    name: String,
    clock: Clock,
}

impl FakeHosts {
    pub fn agent(&self, name: &str, clock: Clock) -> Arc<FakeCompute> {
        Arc::new(FakeCompute { hosts: self.clone(), name: name.into(), clock })
    }

    pub fn guest(&self, host: &str, uuid: &str) -> Option<Guest> {
        self.0.lock().guests.get(&key(host, uuid)).cloned()
    }

    /// The hosts that have the guest.
    pub fn hosts_of(&self, uuid: &str) -> Vec<String> {
        let world = self.0.lock();
        world.guests.keys().filter(|(_, of)| of == uuid).map(|(host, _)| host.clone()).collect()
    }

    /// Nothing is left anywhere: no guest, no disk that waits, no host that expects one.
    pub fn are_empty(&self) -> bool {
        let world = self.0.lock();
        world.guests.is_empty() && world.set_aside.is_empty() && world.expected.is_empty()
    }

    /// Nothing of a move is left: no disk that waits, no host that expects a guest.
    pub fn nothing_moves(&self) -> bool {
        let world = self.0.lock();
        world.set_aside.is_empty() && world.expected.is_empty()
    }

    /// Images that were given the bytes of a server's disk: server and image.
    pub fn snapshots(&self) -> Vec<(String, String)> {
        self.0.lock().snapshots.clone()
    }

    /// From now on guests that are sent stay under way, until they are hurried or called back.
    pub fn send_slowly(&self) {
        self.0.lock().slow = true;
    }

    /// A host loses all it has, as if it burnt.
    pub fn lose(&self, host: &str) {
        let mut world = self.0.lock();
        world.guests.retain(|(of, _), _| of != host);
        world.set_aside.retain(|(of, _), _| of != host);
    }
}

fn key(host: &str, uuid: &str) -> (String, String) {
    (host.into(), uuid.into())
}

fn not_found(uuid: &str) -> Error {
    Error::not_found(format!("Instance {uuid} could not be found."))
}

impl World {
    /// The guest is on the other host now.
    fn arrives(&mut self, uuid: &str, from: &str, to: &str) -> Result<()> {
        let instance = self.expected.remove(&key(to, uuid)).ok_or_else(|| not_found(uuid))?;
        let guest = self.guests.remove(&key(from, uuid)).ok_or_else(|| not_found(uuid))?;
        self.guests.insert(key(to, uuid), Guest { instance, ..guest });
        self.sent.insert(uuid.into(), ended(LivePhase::Completed));
        Ok(())
    }
}

fn ended(phase: LivePhase) -> LiveState {
    LiveState { phase, ..LiveState::default() }
}

impl FakeCompute {
    fn key(&self, uuid: &str) -> (String, String) {
        key(&self.name, uuid)
    }

    fn with<T>(&self, uuid: &str, change: impl FnOnce(&mut Guest) -> Result<T>) -> Result<T> {
        let mut world = self.hosts.0.lock();
        change(world.guests.get_mut(&self.key(uuid)).ok_or_else(|| not_found(uuid))?)
    }

    fn turn(&self, uuid: &str, change: impl FnOnce(&mut Guest) -> Result<()>) -> Result<Observed> {
        self.with(uuid, |guest| {
            change(guest)?;
            Ok(self.view(guest))
        })
    }

    fn view(&self, guest: &Guest) -> Observed {
        let Guest { instance, state, .. } = guest;
        Observed {
            uuid: instance.uuid.clone(),
            host: self.name.clone(),
            power_state: *state,
            volumes: instance.volumes.iter().map(|volume| volume.volume_id.clone()).collect(),
            macs: instance.ports.iter().map(|port| port.mac.clone()).collect(),
            at: self.clock.now(),
        }
    }
}

fn runs(guest: &Guest) -> bool {
    matches!(guest.state, PowerState::Running | PowerState::Paused)
}

fn off(guest: &mut Guest) -> Result<()> {
    guest.state = PowerState::Shutdown;
    Ok(())
}

fn not_running() -> Error {
    Error::conflict("the domain is not running")
}

#[async_trait]
impl Compute for FakeCompute {
    async fn build(&self, _: &Context, instance: &Instance) -> Result<Observed> {
        let state = if instance.power_on { PowerState::Running } else { PowerState::Shutdown };
        let mut world = self.hosts.0.lock();
        let made = Guest { instance: instance.clone(), state, suspended: false, rescue: None };
        let guest = world.guests.entry(self.key(&instance.uuid)).or_insert(made);
        if instance.power_on && !runs(guest) {
            guest.state = PowerState::Running;
        }
        Ok(self.view(guest))
    }

    async fn destroy(&self, _: &Context, uuid: &str) -> Result<()> {
        let mut world = self.hosts.0.lock();
        world.guests.remove(&self.key(uuid));
        world.expected.remove(&self.key(uuid));
        Ok(())
    }

    async fn start(&self, _: &Context, instance: &Instance) -> Result<Observed> {
        self.turn(&instance.uuid, |guest| {
            if !runs(guest) {
                (guest.state, guest.suspended) = (PowerState::Running, false);
                guest.instance = instance.clone();
            }
            Ok(())
        })
    }

    async fn stop(&self, _: &Context, uuid: &str, _: u64) -> Result<Observed> {
        self.turn(uuid, off)
    }

    async fn reboot(&self, cx: &Context, instance: &Instance, _: Reboot) -> Result<Observed> {
        self.turn(&instance.uuid, off)?;
        self.start(cx, instance).await
    }

    async fn pause(&self, _: &Context, uuid: &str) -> Result<Observed> {
        self.turn(uuid, |guest| match runs(guest) {
            true => {
                guest.state = PowerState::Paused;
                Ok(())
            }
            false => Err(not_running()),
        })
    }

    async fn unpause(&self, _: &Context, uuid: &str) -> Result<Observed> {
        self.turn(uuid, |guest| match runs(guest) {
            true => {
                guest.state = PowerState::Running;
                Ok(())
            }
            false => Err(not_running()),
        })
    }

    async fn suspend(&self, _: &Context, uuid: &str) -> Result<Observed> {
        self.turn(uuid, |guest| match runs(guest) || guest.suspended {
            true => {
                (guest.state, guest.suspended) = (PowerState::Shutdown, true);
                Ok(())
            }
            false => Err(not_running()),
        })
    }

    async fn console_log(&self, _: &Context, uuid: &str, _: u64) -> Result<Vec<u8>> {
        self.with(uuid, |guest| Ok(format!("{} login: ", guest.instance.name).into_bytes()))
    }

    async fn console(&self, _: &Context, uuid: &str) -> Result<ConsoleAddress> {
        self.with(uuid, |guest| match runs(guest) {
            true => Ok(ConsoleAddress { host: self.name.clone(), port: 5900 }),
            false => Err(not_running()),
        })
    }

    async fn attach_volume(&self, _: &Context, uuid: &str, volume: &Volume) -> Result<String> {
        self.with(uuid, |guest| {
            let held = &mut guest.instance.volumes;
            held.retain(|held| held.volume_id != volume.volume_id);
            held.push(volume.clone());
            Ok(volume.device_name.clone().unwrap_or_else(|| "/dev/vdz".into()))
        })
    }

    async fn detach_volume(&self, _: &Context, uuid: &str, volume_id: &str) -> Result<()> {
        let mut world = self.hosts.0.lock();
        if let Some(guest) = world.guests.get_mut(&self.key(uuid)) {
            guest.instance.volumes.retain(|held| held.volume_id != volume_id);
        }
        Ok(())
    }

    async fn extend_volume(&self, _: &Context, uuid: &str, _: &str, _: u64) -> Result<()> {
        self.with(uuid, |_| Ok(()))
    }

    async fn attach_interface(&self, _: &Context, uuid: &str, port: &Port) -> Result<()> {
        self.with(uuid, |guest| {
            if !guest.instance.ports.contains(port) {
                guest.instance.ports.push(port.clone());
            }
            Ok(())
        })
    }

    async fn detach_interface(&self, _: &Context, uuid: &str, mac: &str) -> Result<()> {
        let mut world = self.hosts.0.lock();
        if let Some(guest) = world.guests.get_mut(&self.key(uuid)) {
            guest.instance.ports.retain(|port| port.mac != mac);
        }
        Ok(())
    }

    async fn swap_volume(&self, _: &Context, uuid: &str, old: &str, new: &Volume) -> Result<()> {
        self.with(uuid, |guest| {
            let held = &mut guest.instance.volumes;
            if held.iter().any(|held| held.volume_id == new.volume_id) {
                return Ok(());
            }
            let place = held.iter_mut().find(|held| held.volume_id == old);
            *place.ok_or_else(|| Error::not_found(format!("volume {old}")))? = new.clone();
            Ok(())
        })
    }

    async fn snapshot(&self, _: &Context, uuid: &str, image: &SnapshotImage) -> Result<()> {
        self.with(uuid, |_| Ok(()))?;
        let made = (uuid.to_string(), image.id.clone());
        let mut world = self.hosts.0.lock();
        if !world.snapshots.contains(&made) {
            world.snapshots.push(made);
        }
        Ok(())
    }

    async fn rescue(&self, _: &Context, instance: &Instance, rescue: &Rescue) -> Result<Observed> {
        self.turn(&instance.uuid, |guest| {
            (guest.state, guest.rescue) = (PowerState::Running, Some(rescue.clone()));
            Ok(())
        })
    }

    async fn unrescue(&self, _: &Context, instance: &Instance) -> Result<Observed> {
        self.turn(&instance.uuid, |guest| {
            (guest.state, guest.rescue) = (PowerState::Running, None);
            Ok(())
        })
    }

    async fn set_admin_password(&self, _: &Context, uuid: &str, _: &str, _: &Secret) -> Result<()> {
        self.with(uuid, |guest| if runs(guest) { Ok(()) } else { Err(not_running()) })
    }

    async fn trigger_crash_dump(&self, _: &Context, uuid: &str) -> Result<()> {
        self.with(uuid, |guest| if runs(guest) { Ok(()) } else { Err(not_running()) })
    }

    async fn cache_image(&self, _: &Context, _: &InstanceImage) -> Result<()> {
        Ok(())
    }

    async fn uptime(&self, _: &Context) -> Result<String> {
        Ok(" 12:00:00 up 1 day,  0 users,  load average: 0.00, 0.00, 0.00".into())
    }

    async fn diagnostics(&self, _: &Context, uuid: &str) -> Result<Diagnostics> {
        self.with(uuid, |guest| match runs(guest) {
            true => {
                Ok(Diagnostics { state: "running".into(), driver: "fake".into(), ..Diagnostics::default() })
            }
            false => Err(not_running()),
        })
    }

    async fn resize_instance(&self, _: &Context, uuid: &str, _: &str, _: u64) -> Result<()> {
        let mut world = self.hosts.0.lock();
        if world.set_aside.contains_key(&self.key(uuid)) {
            return Ok(());
        }
        let guest = world.guests.remove(&self.key(uuid)).ok_or_else(|| not_found(uuid))?;
        world.set_aside.insert(self.key(uuid), guest);
        Ok(())
    }

    async fn finish_resize(&self, cx: &Context, instance: &Instance, source: &Peer) -> Result<Observed> {
        if !self.hosts.0.lock().set_aside.contains_key(&key(&source.host, &instance.uuid)) {
            return Err(not_found(&instance.uuid));
        }
        self.build(cx, instance).await
    }

    async fn confirm_resize(&self, _: &Context, uuid: &str) -> Result<()> {
        self.hosts.0.lock().set_aside.remove(&self.key(uuid));
        Ok(())
    }

    async fn finish_revert_resize(&self, _: &Context, instance: &Instance) -> Result<Observed> {
        {
            let mut world = self.hosts.0.lock();
            if let Some(guest) = world.set_aside.remove(&self.key(&instance.uuid)) {
                let guest = Guest { instance: instance.clone(), state: PowerState::Shutdown, ..guest };
                world.guests.insert(self.key(&instance.uuid), guest);
            }
        }
        self.turn(&instance.uuid, |guest| {
            if instance.power_on && !runs(guest) {
                guest.state = PowerState::Running;
            }
            Ok(())
        })
    }

    async fn check_can_live_migrate_source(&self, _: &Context, uuid: &str, _: &str) -> Result<()> {
        self.with(uuid, |guest| if runs(guest) { Ok(()) } else { Err(not_running()) })
    }

    async fn pre_live_migration(
        &self,
        _: &Context,
        instance: &Instance,
        block: bool,
        _: &Peer,
    ) -> Result<LiveTarget> {
        let mut world = self.hosts.0.lock();
        if !world.guests.contains_key(&self.key(&instance.uuid)) {
            world.expected.insert(self.key(&instance.uuid), instance.clone());
        }
        Ok(LiveTarget { host: self.name.clone(), block_migration: block, ..LiveTarget::default() })
    }

    async fn live_migration(&self, _: &Context, instance: &Instance, target: &LiveTarget) -> Result<()> {
        let (uuid, mut world) = (&instance.uuid, self.hosts.0.lock());
        if world.guests.contains_key(&key(&target.host, uuid)) {
            return Ok(());
        }
        let guest = world.guests.get(&self.key(uuid)).ok_or_else(|| not_found(uuid))?;
        if !runs(guest) {
            return Err(not_running());
        }
        if world.slow {
            if world.sent.get(uuid).is_none_or(|sent| sent.phase != LivePhase::Running) {
                world.sent.insert(uuid.clone(), ended(LivePhase::Running));
            }
            return Ok(());
        }
        world.arrives(uuid, &self.name, &target.host)
    }

    async fn live_migration_state(&self, _: &Context, uuid: &str) -> Result<LiveState> {
        Ok(self.hosts.0.lock().sent.get(uuid).cloned().unwrap_or_default())
    }

    async fn live_migration_force_complete(&self, _: &Context, uuid: &str) -> Result<()> {
        let mut world = self.hosts.0.lock();
        match world.sent.get(uuid).map(|sent| sent.phase) {
            Some(LivePhase::Running) => {
                let to = world.expected.keys().find(|(_, of)| of == uuid).map(|(host, _)| host.clone());
                let to = to.ok_or_else(|| not_found(uuid))?;
                world.arrives(uuid, &self.name, &to)
            }
            Some(LivePhase::Completed) => Ok(()),
            _ => Err(Error::conflict("no migration is under way")),
        }
    }

    async fn live_migration_abort(&self, _: &Context, uuid: &str) -> Result<()> {
        let mut world = self.hosts.0.lock();
        match world.sent.get(uuid).map(|sent| sent.phase) {
            Some(LivePhase::Running) => {
                world.sent.insert(uuid.into(), ended(LivePhase::Cancelled));
                Ok(())
            }
            Some(LivePhase::Cancelled) => Ok(()),
            _ => Err(Error::conflict("no migration is under way")),
        }
    }

    async fn observe(&self, _: &Context, uuid: &str) -> Result<Option<Observed>> {
        Ok(self.hosts.0.lock().guests.get(&self.key(uuid)).map(|guest| self.view(guest)))
    }

    async fn host(&self, _: &Context) -> Result<Host> {
        Ok(Host {
            host: self.name.clone(),
            hypervisor_hostname: self.name.clone(),
            hypervisor_type: "fake".into(),
            hypervisor_version: 1000,
            host_ip: "127.0.0.1".into(),
            vcpus: 64,
            memory_mb: 256 * 1024,
            disk_gb: 4096,
            ..Host::default()
        })
    }
}
