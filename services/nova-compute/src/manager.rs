//! Serves nova's messages. One change at a time per instance; what waits long (images, ports) can be called off by
//! a delete. Each message looks at the host first, so that a repeated one does no harm.

use crate::{
    Options,
    disks::{Disks, FileDisks},
    fence::Fence,
    inventory,
    link::Link,
    locks::{Held, Locks},
    plug::Plug,
    spec,
    travels::Travels,
    visitors::{self, Visitors},
};
use async_trait::async_trait;
use base::{Clock, Context, Error, ErrorKind, Result, Secret};
use contracts::{
    compute::{
        Compute, ConsoleAddress, Diagnostics, Host, Instance, InstanceImage, LiveState, LiveTarget, Observed,
        Port, PowerState, Reboot, Rescue, SnapshotImage, Volume,
    },
    peers::Peer,
};
use host_virt::{Capabilities, Domain, DomainSpec, Hypervisor, State};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

pub struct Manager {
    pub(crate) options: Options,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) disks: Arc<dyn Disks>,
    plug: Arc<dyn Plug>,
    pub(crate) clock: Clock,
    pub(crate) host: String,
    guests_have_cpu: bool,
    pub(crate) locks: Locks,
    pub(crate) fence: Fence,
    pub(crate) travels: Arc<Travels>,
    pub(crate) link: Option<Link>,
    /// Ended when it is dropped.
    visits: JoinSet<()>,
}

impl Manager {
    /// `guests_have_cpu`: guests run on the host's own processor (KVM), not on an emulated one.
    pub async fn new(
        options: Options,
        hypervisor: Arc<dyn Hypervisor>,
        disks: Arc<dyn Disks>,
        plug: Arc<dyn Plug>,
        clock: Clock,
        guests_have_cpu: bool,
    ) -> Result<Self> {
        let host = host_name(&options, &hypervisor.capabilities().await?);
        Ok(Self {
            options,
            hypervisor,
            disks,
            plug,
            clock,
            host,
            guests_have_cpu,
            locks: Locks::default(),
            fence: Fence::default(),
            travels: Arc::default(),
            link: None,
            visits: JoinSet::new(),
        })
    }

    /// There are other hosts: guests go there and come from there.
    pub(crate) fn link(&mut self, link: Link, disks: Arc<FileDisks>) {
        self.link = Some(link.clone());
        let (hypervisor, travels) = (self.hypervisor.clone(), self.travels.clone());
        self.visits.spawn(visitors::receive(Arc::new(Visitors { link, disks, hypervisor, travels })));
    }

    /// With what an earlier agent of the host knew of it.
    pub fn fenced_by(self, fence: Fence) -> Self {
        Self { fence, ..self }
    }

    pub fn host_name(&self) -> &str {
        &self.host
    }

    /// The definition with its disks made and its ports plugged; given up when the instance is deleted meanwhile.
    pub(crate) async fn prepare(
        &self,
        cx: &Context,
        instance: &Instance,
        held: &mut Held,
    ) -> Result<DomainSpec> {
        self.fence.check(&instance.uuid)?;
        let work = async {
            let disks = self.disks.prepare(cx, instance);
            let (local, ()) = tokio::try_join!(disks, self.wait_for_ports(&instance.ports))?;
            spec::domain(instance, &local, &self.options)
        };
        tokio::select! {
            prepared = work => prepared,
            () = held.called_off() => {
                Err(Error::conflict(format!("Instance {} disappeared during build", instance.uuid)))
            }
        }
    }

    async fn wait_for_ports(&self, ports: &[Port]) -> Result<()> {
        let patience = Duration::from_secs(self.options.vif_plugging_timeout_seconds);
        for port in ports {
            self.plug.wait(port, patience).await?;
        }
        Ok(())
    }

    /// Starts a guest that does not run, under the definition the instance has now.
    pub(crate) async fn start_held(&self, cx: &Context, instance: &Instance, held: &mut Held) -> Result<()> {
        self.fence.check(&instance.uuid)?;
        let state = self.hypervisor.domain(&instance.uuid).await?.map(|domain| domain.state);
        match state {
            Some(State::Running | State::Paused) => return Ok(()),
            // Saved memory fits only the definition it was saved under.
            Some(State::Suspended) => self.wait_for_ports(&instance.ports).await?,
            Some(State::Shutoff | State::Crashed) | None => {
                let domain = self.prepare(cx, instance, held).await?;
                self.hypervisor.define(&domain).await?;
            }
        }
        self.fence.check(&instance.uuid)?;
        self.hypervisor.start(&instance.uuid).await?;
        self.fence.runs(&instance.uuid)
    }

    pub(crate) async fn get(&self, uuid: &str) -> Result<Domain> {
        check(uuid)?;
        let domain = self.hypervisor.domain(uuid).await?;
        domain.ok_or_else(|| Error::not_found(format!("Instance {uuid} could not be found.")))
    }

    pub(crate) async fn observed(&self, uuid: &str) -> Result<Observed> {
        Ok(self.view(self.get(uuid).await?))
    }

    pub(crate) fn view(&self, domain: Domain) -> Observed {
        Observed {
            uuid: domain.uuid,
            host: self.host.clone(),
            power_state: power_state(domain.state),
            volumes: domain.disks.into_iter().filter(|serial| base::id::is_uuid(serial)).collect(),
            macs: domain.nics,
            at: self.clock.now(),
        }
    }

    /// A guest that the host no longer has.
    pub(crate) fn nothing(&self, uuid: &str) -> Observed {
        Observed {
            uuid: uuid.into(),
            host: self.host.clone(),
            power_state: PowerState::NoState,
            volumes: Vec::new(),
            macs: Vec::new(),
            at: self.clock.now(),
        }
    }

    fn detach_patience(&self) -> Duration {
        Duration::from_secs(self.options.detach_timeout_seconds)
    }
}

#[async_trait]
impl Compute for Manager {
    async fn build(&self, cx: &Context, instance: &Instance) -> Result<Observed> {
        check(&instance.uuid)?;
        let mut held = self.locks.hold(&instance.uuid).await;
        if instance.power_on {
            self.start_held(cx, instance, &mut held).await?;
        } else if self.hypervisor.domain(&instance.uuid).await?.is_none() {
            let domain = self.prepare(cx, instance, &mut held).await?;
            self.hypervisor.define(&domain).await?;
        }
        self.observed(&instance.uuid).await
    }

    async fn destroy(&self, _cx: &Context, uuid: &str) -> Result<()> {
        check(uuid)?;
        self.locks.call_off(uuid);
        let _held = self.locks.hold(uuid).await;
        self.travels.forget(uuid, &self.hypervisor.channels(uuid));
        self.hypervisor.undefine(uuid).await?;
        self.disks.remove(uuid).await
    }

    async fn start(&self, cx: &Context, instance: &Instance) -> Result<Observed> {
        check(&instance.uuid)?;
        let mut held = self.locks.hold(&instance.uuid).await;
        self.start_held(cx, instance, &mut held).await?;
        self.observed(&instance.uuid).await
    }

    async fn stop(&self, _cx: &Context, uuid: &str, grace_seconds: u64) -> Result<Observed> {
        check(uuid)?;
        // Not held while the guest takes its time: a delete need not wait for it.
        if !self.hypervisor.power_off(uuid, Duration::from_secs(grace_seconds)).await? {
            let _held = self.locks.hold(uuid).await;
            self.hypervisor.destroy(uuid).await?;
        }
        self.observed(uuid).await
    }

    async fn reboot(&self, cx: &Context, instance: &Instance, kind: Reboot) -> Result<Observed> {
        check(&instance.uuid)?;
        let stopped = match kind {
            Reboot::Soft { grace_seconds } => {
                self.hypervisor.power_off(&instance.uuid, Duration::from_secs(grace_seconds)).await?
            }
            Reboot::Hard => false,
        };
        let mut held = self.locks.hold(&instance.uuid).await;
        if !stopped {
            self.hypervisor.destroy(&instance.uuid).await?;
        }
        self.start_held(cx, instance, &mut held).await?;
        self.observed(&instance.uuid).await
    }

    async fn pause(&self, _cx: &Context, uuid: &str) -> Result<Observed> {
        check(uuid)?;
        self.hypervisor.pause(uuid).await?;
        self.observed(uuid).await
    }

    async fn unpause(&self, _cx: &Context, uuid: &str) -> Result<Observed> {
        check(uuid)?;
        self.fence.check(uuid)?;
        self.hypervisor.unpause(uuid).await?;
        self.observed(uuid).await
    }

    async fn suspend(&self, _cx: &Context, uuid: &str) -> Result<Observed> {
        check(uuid)?;
        let _held = self.locks.hold(uuid).await;
        self.hypervisor.suspend(uuid).await?;
        self.observed(uuid).await
    }

    async fn console_log(&self, _cx: &Context, uuid: &str, bytes_max: u64) -> Result<Vec<u8>> {
        check(uuid)?;
        self.hypervisor.console_log(uuid, bytes_max.min(self.options.console_log_bytes_max)).await
    }

    async fn console(&self, _cx: &Context, uuid: &str) -> Result<ConsoleAddress> {
        let screen = self.get(uuid).await?.vnc;
        let (listen, port) =
            screen.ok_or_else(|| Error::conflict(format!("Instance {uuid} is not running")))?;
        // Served on every address: then the one by which others reach this host.
        let host = if listen == "0.0.0.0" { self.options.my_ip.clone() } else { listen };
        Ok(ConsoleAddress { host, port })
    }

    async fn attach_volume(&self, _cx: &Context, uuid: &str, volume: &Volume) -> Result<String> {
        check(uuid)?;
        let _held = self.locks.hold(uuid).await;
        let device = self.hypervisor.attach_disk(uuid, &spec::disk(volume)).await?;
        Ok(format!("/dev/{device}"))
    }

    async fn detach_volume(&self, _cx: &Context, uuid: &str, volume_id: &str) -> Result<()> {
        check(uuid)?;
        self.hypervisor.detach_disk(uuid, volume_id, self.detach_patience()).await
    }

    async fn extend_volume(&self, _cx: &Context, uuid: &str, volume_id: &str, bytes: u64) -> Result<()> {
        check(uuid)?;
        self.hypervisor.resize_disk(uuid, volume_id, bytes).await
    }

    async fn attach_interface(&self, _cx: &Context, uuid: &str, port: &Port) -> Result<()> {
        check(uuid)?;
        let mut held = self.locks.hold(uuid).await;
        tokio::select! {
            plugged = self.wait_for_ports(std::slice::from_ref(port)) => plugged?,
            () = held.called_off() => return Err(Error::not_found(format!("Instance {uuid} is deleted"))),
        }
        self.hypervisor.attach_nic(uuid, &spec::nic(port, None)).await
    }

    async fn detach_interface(&self, _cx: &Context, uuid: &str, mac: &str) -> Result<()> {
        check(uuid)?;
        self.hypervisor.detach_nic(uuid, mac, self.detach_patience()).await
    }

    async fn swap_volume(&self, _cx: &Context, uuid: &str, old_volume_id: &str, new: &Volume) -> Result<()> {
        check(uuid)?;
        let _held = self.locks.hold(uuid).await;
        self.hypervisor.swap_disk(uuid, old_volume_id, &spec::disk(new)).await
    }

    async fn snapshot(&self, cx: &Context, uuid: &str, image: &SnapshotImage) -> Result<()> {
        check(uuid)?;
        self.copy_to_image(cx, uuid, image).await
    }

    async fn rescue(&self, cx: &Context, instance: &Instance, rescue: &Rescue) -> Result<Observed> {
        check(&instance.uuid)?;
        self.start_rescued(cx, instance, rescue).await
    }

    async fn unrescue(&self, cx: &Context, instance: &Instance) -> Result<Observed> {
        check(&instance.uuid)?;
        self.end_rescue(cx, instance).await
    }

    async fn set_admin_password(
        &self,
        _cx: &Context,
        uuid: &str,
        user: &str,
        password: &Secret,
    ) -> Result<()> {
        check(uuid)?;
        let set = self.hypervisor.set_password(uuid, user, password).await;
        set.map_err(|error| match error.kind {
            // Not this host is away, but somebody in the guest.
            ErrorKind::Unavailable => {
                Error::not_implemented("The guest's agent does not answer").cause(error)
            }
            _ => error,
        })
    }

    async fn trigger_crash_dump(&self, _cx: &Context, uuid: &str) -> Result<()> {
        check(uuid)?;
        self.hypervisor.inject_nmi(uuid).await
    }

    async fn cache_image(&self, cx: &Context, image: &InstanceImage) -> Result<()> {
        self.disks.cache(cx, image).await
    }

    async fn uptime(&self, _cx: &Context) -> Result<String> {
        let said = host_run::run("uptime").env("LC_ALL", "C").text().await?;
        Ok(said.trim_end().to_string())
    }

    async fn diagnostics(&self, _cx: &Context, uuid: &str) -> Result<Diagnostics> {
        check(uuid)?;
        self.diagnose(uuid).await
    }

    async fn resize_instance(&self, _cx: &Context, uuid: &str, dest: &str, grace_seconds: u64) -> Result<()> {
        check(uuid)?;
        self.put_aside(uuid, dest, grace_seconds).await
    }

    async fn finish_resize(&self, cx: &Context, instance: &Instance, source: &Peer) -> Result<Observed> {
        check(&instance.uuid)?;
        self.arrive(cx, instance, source).await
    }

    async fn confirm_resize(&self, _cx: &Context, uuid: &str) -> Result<()> {
        check(uuid)?;
        self.disks.remove_aside(uuid).await
    }

    async fn finish_revert_resize(&self, cx: &Context, instance: &Instance) -> Result<Observed> {
        check(&instance.uuid)?;
        self.come_back(cx, instance).await
    }

    async fn check_can_live_migrate_source(&self, _cx: &Context, uuid: &str, dest: &str) -> Result<()> {
        check(uuid)?;
        self.let_go(uuid, dest).await
    }

    async fn pre_live_migration(
        &self,
        cx: &Context,
        instance: &Instance,
        block_migration: bool,
        source: &Peer,
    ) -> Result<LiveTarget> {
        check(&instance.uuid)?;
        self.expect_guest(cx, instance, block_migration, source).await
    }

    async fn live_migration(&self, _cx: &Context, instance: &Instance, target: &LiveTarget) -> Result<()> {
        check(&instance.uuid)?;
        self.send_guest(instance, target).await
    }

    async fn live_migration_state(&self, _cx: &Context, uuid: &str) -> Result<LiveState> {
        check(uuid)?;
        self.sending(uuid).await
    }

    async fn live_migration_force_complete(&self, _cx: &Context, uuid: &str) -> Result<()> {
        check(uuid)?;
        self.hypervisor.hasten_migration(uuid).await
    }

    async fn live_migration_abort(&self, _cx: &Context, uuid: &str) -> Result<()> {
        check(uuid)?;
        self.hypervisor.abort_migration(uuid).await
    }

    async fn observe(&self, _cx: &Context, uuid: &str) -> Result<Option<Observed>> {
        check(uuid)?;
        Ok(self.hypervisor.domain(uuid).await?.map(|domain| self.view(domain)))
    }

    async fn host(&self, _cx: &Context) -> Result<Host> {
        let capabilities = self.hypervisor.capabilities().await?;
        Ok(inventory::host(&self.options, capabilities, self.guests_have_cpu))
    }
}

/// The name nova knows this host by.
pub fn host_name(options: &Options, capabilities: &Capabilities) -> String {
    if options.host.is_empty() { capabilities.hostname.clone() } else { options.host.clone() }
}

/// An instance's id names its folder here.
fn check(uuid: &str) -> Result<()> {
    if base::id::is_uuid(uuid) {
        Ok(())
    } else {
        Err(Error::bad_request(format!("Invalid instance id: {uuid}")))
    }
}

fn power_state(state: State) -> PowerState {
    match state {
        State::Running => PowerState::Running,
        State::Paused => PowerState::Paused,
        State::Shutoff => PowerState::Shutdown,
        State::Crashed => PowerState::Crashed,
        // Nova's word for memory on disk is that the guest is off.
        State::Suspended => PowerState::Shutdown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FakeDisks, FakePlug};
    use base::ErrorKind;
    use contracts::compute::{Connection, InstanceImage};
    use host_virt::{Fake, Verb};

    const UUID: &str = "0e8a7f6c-0000-4000-8000-000000000001";
    const VOLUME: &str = "0e8a7f6c-0000-4000-8000-00000000000a";

    /// A network that never plugs anything.
    struct DeadPlug;

    #[async_trait]
    impl Plug for DeadPlug {
        async fn wait(&self, port: &Port, patience: Duration) -> Result<()> {
            tokio::time::sleep(patience).await;
            Err(Error::timeout(format!("port {} was not plugged", port.id)))
        }
    }

    async fn manager(fake: &Fake, plug: Arc<dyn Plug>) -> Arc<Manager> {
        let disks = Arc::new(FakeDisks::default());
        let fake = Arc::new(fake.clone());
        Arc::new(Manager::new(Options::default(), fake, disks, plug, Clock::real(), false).await.unwrap())
    }

    fn instance() -> Instance {
        Instance {
            uuid: UUID.into(),
            name: "instance-00000001".into(),
            vcpus: 1,
            memory_mb: 128,
            image: Some(InstanceImage { disk_format: "qcow2".into(), ..InstanceImage::default() }),
            ports: vec![Port { id: UUID.into(), mac: "fa:16:3e:00:00:01".into(), mtu: None }],
            power_on: true,
            ..Instance::default()
        }
    }

    fn volume() -> Volume {
        Volume {
            volume_id: VOLUME.into(),
            connection: Connection::NbdUnix { socket: "/s".into(), export: "v".into() },
            device_name: None,
            boot_index: None,
            read_only: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_message_may_come_twice() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let manager = manager(&fake, Arc::new(FakePlug)).await;
        let hard = Reboot::Hard;
        for _ in 0..2 {
            let built = manager.build(&cx, &instance()).await.unwrap();
            assert_eq!(built.power_state, PowerState::Running);
            assert_eq!(built.macs, ["fa:16:3e:00:00:01"]);
        }
        for _ in 0..2 {
            assert_eq!(manager.attach_volume(&cx, UUID, &volume()).await.unwrap(), "/dev/vdb");
        }
        assert_eq!(manager.observe(&cx, UUID).await.unwrap().unwrap().volumes, [VOLUME]);
        let with_volume = Instance { volumes: vec![volume()], ..instance() };
        for _ in 0..2 {
            let stopped = manager.stop(&cx, UUID, 10).await.unwrap();
            assert_eq!(stopped.power_state, PowerState::Shutdown);
        }
        for _ in 0..2 {
            let started = manager.start(&cx, &with_volume).await.unwrap();
            assert_eq!((started.power_state, started.volumes.len()), (PowerState::Running, 1));
        }
        for kind in [hard, Reboot::Soft { grace_seconds: 5 }] {
            let rebooted = manager.reboot(&cx, &with_volume, kind).await.unwrap();
            assert_eq!(rebooted.power_state, PowerState::Running);
        }
        for _ in 0..2 {
            manager.detach_volume(&cx, UUID, VOLUME).await.unwrap();
            manager.detach_interface(&cx, UUID, "fa:16:3e:00:00:01").await.unwrap();
        }
        let console = manager.console(&cx, UUID).await.unwrap();
        assert_eq!(console, ConsoleAddress { host: "127.0.0.1".into(), port: 5900 });
        assert!(!manager.console_log(&cx, UUID, 100).await.unwrap().is_empty());
        for _ in 0..2 {
            manager.destroy(&cx, UUID).await.unwrap();
        }
        assert_eq!(manager.observe(&cx, UUID).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_guest_is_stopped_all_the_same() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let manager = manager(&fake, Arc::new(FakePlug)).await;
        manager.build(&cx, &instance()).await.unwrap();
        fake.deafen(UUID).unwrap();
        assert_eq!(manager.stop(&cx, UUID, 3).await.unwrap().power_state, PowerState::Shutdown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_never_comes_fails_the_build() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let manager = manager(&fake, Arc::new(DeadPlug)).await;
        let error = manager.build(&cx, &instance()).await.unwrap_err();
        assert!(error.message.contains("not plugged"), "{error}");
        assert!(fake.domain(UUID).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_calls_the_build_off() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let manager = manager(&fake, Arc::new(DeadPlug)).await;
        let (builder, build_cx) = (manager.clone(), cx.clone());
        let build = tokio::spawn(async move { builder.build(&build_cx, &instance()).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = tokio::time::Instant::now();
        manager.destroy(&cx, UUID).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(1), "the delete does not wait for the ports");
        assert!(build.await.unwrap().unwrap_err().is(ErrorKind::Conflict));
        assert!(fake.domain(UUID).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_fails_leaves_a_guest_that_can_be_destroyed() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let manager = manager(&fake, Arc::new(FakePlug)).await;
        fake.fail(Verb::Start, 1, Error::internal("libvirt: no memory"));
        let error = manager.build(&cx, &instance()).await.unwrap_err();
        assert!(error.message.contains("no memory"));
        assert_eq!(manager.observe(&cx, UUID).await.unwrap().unwrap().power_state, PowerState::Shutdown);
        assert!(manager.console(&cx, UUID).await.unwrap_err().is(ErrorKind::Conflict));
        manager.build(&cx, &instance()).await.unwrap();
        manager.destroy(&cx, UUID).await.unwrap();
    }

    #[tokio::test]
    async fn an_id_is_no_path() {
        let (fake, cx) = (Fake::default(), Context::internal());
        let manager = manager(&fake, Arc::new(FakePlug)).await;
        for wrong in ["", "..", "../../etc", "_base"] {
            assert!(manager.destroy(&cx, wrong).await.unwrap_err().is(ErrorKind::BadRequest));
            let odd = Instance { uuid: wrong.into(), ..instance() };
            assert!(manager.build(&cx, &odd).await.unwrap_err().is(ErrorKind::BadRequest));
        }
    }
}
