//! What the agent does by itself: tells nova of the host and of guests that change, removes what nova does not
//! know, and keeps its disk tidy.

use crate::Manager;
use base::{Context, Result};
use contracts::compute::{Compute, ComputeReports, ExpectedInstance, Observed, PowerState};
use host_virt::{Domain, Event};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::broadcast::error::RecvError, time::MissedTickBehavior};

/// Logs and images grow slowly.
const TIDY_EVERY_TICKS: u64 = 30;
/// Makes good what an event that was lost would have told.
const RECONCILE_EVERY_TICKS: u64 = 6;

/// Before this host answers nova: what may run elsewhere is stopped, and what nova has elsewhere now is removed.
pub async fn begin(manager: &Manager, reports: &dyn ComputeReports) -> Result<()> {
    manager.stop_what_may_run_elsewhere().await?;
    let known = async {
        loop {
            let done = async {
                report(manager, reports).await?;
                clear(manager, reports).await.map(drop)
            };
            match done.await {
                // Whoever ends now leaves nobody to stop the guests in time.
                Err(error) if manager.fence.is_armed() => {
                    tracing::warn!(%error, "nova does not hear this host yet");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                done => return done,
            }
        }
    };
    tokio::select! {
        known = known => known,
        () = manager.keep_fence() => Ok(()),
    }
}

const AGAIN_AFTER: Duration = Duration::from_secs(1);

async fn report(manager: &Manager, reports: &dyn ComputeReports) -> Result<()> {
    let cx = Context::internal();
    let report = manager.fence.report(manager.clock.now());
    let mut host = manager.host(&cx).await?;
    (host.report, host.fenced) = (report.number, report.fenced.clone());
    let lease = reports.host_reported(&cx, &host).await?;
    manager.fence.renew(report, &lease, manager.clock.now())
}

/// What the host has and nova does not know goes. Answers what it has, and what nova has here.
async fn clear(
    manager: &Manager,
    reports: &dyn ComputeReports,
) -> Result<(Vec<Domain>, Vec<ExpectedInstance>)> {
    // The host first: what nova has made since is not taken for unknown.
    let domains = manager.hypervisor.domains().await?;
    let folders = manager.disks.uuids().await?;
    let expected = reports.instances_on(&Context::internal(), manager.host_name()).await?;
    let held: BTreeSet<&String> = domains.iter().map(|domain| &domain.uuid).chain(&folders).collect();
    for uuid in held {
        if !expected.iter().any(|instance| instance.uuid == *uuid) {
            tracing::warn!(uuid, "nova does not know this guest, it is removed");
            manager.fence.took(uuid)?;
            manager.destroy(&Context::internal(), uuid).await?;
        }
    }
    for instance in expected.iter().filter(|instance| !instance.leaving) {
        manager.fence.gave(&instance.uuid)?;
    }
    Ok((domains, expected))
}

/// Runs until dropped. Nova may not be there yet, and may go away: everything is tried again.
pub async fn run(manager: Arc<Manager>, reports: Arc<dyn ComputeReports>) {
    let guarded = manager.clone();
    tokio::join!(guarded.keep_fence(), keep_reporting(manager, reports));
}

async fn keep_reporting(manager: Arc<Manager>, reports: Arc<dyn ComputeReports>) {
    let mut reporter = Reporter { manager: manager.clone(), reports, told: HashMap::new(), started: false };
    let mut events = manager.hypervisor.events();
    let mut ticks =
        tokio::time::interval(Duration::from_secs(manager.options.report_interval_seconds.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = 0;
    loop {
        let done = tokio::select! {
            _ = ticks.tick() => {
                let done = reporter.tick(tick).await;
                tick += 1;
                done
            }
            () = manager.fence.doubted.notified() => reporter.reconcile().await,
            event = events.recv() => match event {
                Ok(event) => reporter.event(&event).await,
                Err(RecvError::Lagged(_)) => reporter.reconcile().await,
                Err(RecvError::Closed) => return,
            },
        };
        if let Err(error) = done {
            tracing::warn!(%error, "report failed, it is repeated");
        }
    }
}

struct Reporter {
    manager: Arc<Manager>,
    reports: Arc<dyn ComputeReports>,
    /// The power state nova was told last; only a change is told again.
    told: HashMap<String, PowerState>,
    started: bool,
}

impl Reporter {
    async fn tick(&mut self, tick: u64) -> Result<()> {
        report(&self.manager, &*self.reports).await?;
        if !self.started || tick.is_multiple_of(RECONCILE_EVERY_TICKS) {
            self.reconcile().await?;
        }
        if tick.is_multiple_of(TIDY_EVERY_TICKS) {
            let options = &self.manager.options;
            let keep = Duration::from_secs(options.remove_unused_base_images_after_seconds);
            self.manager.disks.tidy(options.console_log_bytes_max, keep).await?;
        }
        Ok(())
    }

    /// Looks at the guest rather than trusting the event, which may be old by now.
    async fn event(&mut self, event: &Event) -> Result<()> {
        let cx = Context::internal();
        let domain = self.manager.hypervisor.domain(&event.uuid).await?;
        let Some(domain) = domain else {
            self.told.remove(&event.uuid);
            return Ok(());
        };
        self.tell(&cx, self.manager.view(domain)).await
    }

    async fn tell(&mut self, cx: &Context, observed: Observed) -> Result<()> {
        // It is off for a while and by this host's doing: that is no news of the guest.
        if self.manager.fence.stopped(&observed.uuid) {
            return Ok(());
        }
        if self.told.get(&observed.uuid) != Some(&observed.power_state) {
            self.reports.instance_reported(cx, &observed).await?;
            self.told.insert(observed.uuid, observed.power_state);
        }
        Ok(())
    }

    /// Compares the host with nova's list: the unknown goes, the different is reported.
    async fn reconcile(&mut self) -> Result<()> {
        let cx = Context::internal();
        let (domains, expected) = clear(&self.manager, &*self.reports).await?;
        self.told.retain(|uuid, _| expected.iter().any(|instance| instance.uuid == *uuid));
        let resume = self.manager.options.resume_guests_state_on_host_boot && !self.started;
        let mut states: HashMap<String, _> =
            domains.into_iter().map(|domain| (domain.uuid.clone(), domain)).collect();
        for instance in &expected {
            let observed = match states.remove(&instance.uuid) {
                Some(domain) => self.manager.view(domain),
                None => self.manager.nothing(&instance.uuid),
            };
            let off = matches!(observed.power_state, PowerState::Shutdown | PowerState::Crashed);
            let fence = &self.manager.fence;
            if instance.leaving || fence.check(&instance.uuid).is_err() {
                continue;
            }
            if (resume || fence.stopped(&instance.uuid)) && instance.running && off {
                tracing::info!(uuid = instance.uuid, "started again");
                self.manager.hypervisor.start(&instance.uuid).await?;
                fence.runs(&instance.uuid)?;
                continue; // its event reports it
            }
            fence.runs(&instance.uuid)?;
            self.tell(&cx, observed).await?;
        }
        self.started = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FakeDisks, FakePlug, Options};
    use async_trait::async_trait;
    use base::Clock;
    use contracts::compute::{ExpectedInstance, Host, Instance, InstanceImage, Lease};
    use host_virt::{Fake, Hypervisor, State};
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    const KNOWN: &str = "0e8a7f6c-0000-4000-8000-000000000001";
    const UNKNOWN: &str = "0e8a7f6c-0000-4000-8000-000000000002";
    const LOST: &str = "0e8a7f6c-0000-4000-8000-000000000003";

    #[derive(Default)]
    struct Nova {
        told: Mutex<Vec<(String, PowerState)>>,
        hosts: Mutex<Vec<Host>>,
        expected: Vec<ExpectedInstance>,
        failures: Mutex<u32>,
        lease: Lease,
        cut_off: AtomicBool,
        gone: AtomicBool,
    }

    impl Nova {
        fn answers(&self) -> Result<()> {
            match self.cut_off.load(SeqCst) {
                true => Err(base::Error::unavailable("cut off")),
                false => Ok(()),
            }
        }

        fn of(&self, uuid: &str) -> Vec<PowerState> {
            self.told.lock().iter().filter(|(told, _)| told == uuid).map(|(_, state)| *state).collect()
        }
    }

    #[async_trait]
    impl ComputeReports for Nova {
        async fn host_reported(&self, _cx: &Context, host: &Host) -> Result<Lease> {
            self.answers()?;
            self.hosts.lock().push(host.clone());
            Ok(self.lease.clone())
        }

        async fn instance_reported(&self, _cx: &Context, observed: &Observed) -> Result<()> {
            self.answers()?;
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(base::Error::unavailable("nobody there"));
            }
            self.told.lock().push((observed.uuid.clone(), observed.power_state));
            Ok(())
        }

        async fn instances_on(&self, _cx: &Context, _host: &str) -> Result<Vec<ExpectedInstance>> {
            self.answers()?;
            Ok(if self.gone.load(SeqCst) { Vec::new() } else { self.expected.clone() })
        }
    }

    async fn manager(fake: &Fake, options: Options) -> Arc<Manager> {
        let (disks, plug) = (Arc::new(FakeDisks::default()), Arc::new(FakePlug));
        let manager = Manager::new(options, Arc::new(fake.clone()), disks, plug, Clock::real(), false);
        Arc::new(manager.await.unwrap())
    }

    async fn build(manager: &Manager, uuid: &str) {
        let instance = Instance {
            uuid: uuid.into(),
            name: uuid.into(),
            image: Some(InstanceImage::default()),
            power_on: true,
            ..Instance::default()
        };
        manager.build(&Context::internal(), &instance).await.unwrap();
    }

    fn expected() -> Vec<ExpectedInstance> {
        [KNOWN, LOST]
            .map(|uuid| ExpectedInstance { uuid: uuid.into(), running: true, leaving: false })
            .to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn the_unknown_goes_and_changes_are_told_once() {
        let fake = Fake::default();
        let manager = manager(&fake, Options::default()).await;
        build(&manager, KNOWN).await;
        build(&manager, UNKNOWN).await;
        let nova = Arc::new(Nova { expected: expected(), failures: Mutex::new(1), ..Nova::default() });
        let agent = tokio::spawn(run(manager.clone(), nova.clone()));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(fake.domain(UNKNOWN).await.unwrap().is_none());
        assert_eq!(nova.of(KNOWN), [PowerState::Running], "told once, though the first report failed");
        assert_eq!(nova.of(LOST), [PowerState::NoState]);
        assert!(nova.hosts.lock().len() >= 10, "signs of life");
        fake.power_button(KNOWN).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(nova.of(KNOWN), [PowerState::Running, PowerState::Shutdown]);
        agent.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn guests_that_died_are_started_again_when_wanted() {
        for (wanted, state) in [(true, PowerState::Running), (false, PowerState::Shutdown)] {
            let fake = Fake::default();
            let options = Options { resume_guests_state_on_host_boot: wanted, ..Options::default() };
            let manager = manager(&fake, options).await;
            build(&manager, KNOWN).await;
            fake.power_button(KNOWN).unwrap();
            let nova = Arc::new(Nova { expected: expected(), ..Nova::default() });
            let agent = tokio::spawn(run(manager.clone(), nova.clone()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(nova.of(KNOWN), [state]);
            agent.abort();
        }
    }

    async fn runs(fake: &Fake, uuid: &str) -> bool {
        fake.domain(uuid).await.unwrap().is_some_and(|domain| domain.state == State::Running)
    }

    /// Guests KNOWN and UNKNOWN, of which nova may start the first elsewhere.
    async fn guarded(fake: &Fake) -> (Arc<Manager>, Arc<Nova>) {
        let manager = manager(fake, Options { report_interval_seconds: 2, ..Options::default() }).await;
        build(&manager, KNOWN).await;
        build(&manager, UNKNOWN).await;
        let both = [KNOWN, UNKNOWN].map(|uuid| ExpectedInstance {
            uuid: uuid.into(),
            running: true,
            leaving: false,
        });
        let lease = Lease { fence_after_seconds: 10, ha: vec![KNOWN.into()] };
        (manager, Arc::new(Nova { expected: both.to_vec(), lease, ..Nova::default() }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_cut_off_stops_what_may_run_elsewhere_and_goes_on_with_it() {
        let fake = Fake::default();
        let (manager, nova) = guarded(&fake).await;
        let agent = tokio::spawn(run(manager.clone(), nova.clone()));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(nova.hosts.lock().last().unwrap().fenced, [KNOWN]);
        nova.cut_off.store(true, SeqCst);
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!(runs(&fake, KNOWN).await, "not before its time");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!runs(&fake, KNOWN).await && runs(&fake, UNKNOWN).await);
        // A message that was on its way does not start it.
        let instance = Instance { uuid: KNOWN.into(), power_on: true, ..Instance::default() };
        let refused = manager.start(&Context::internal(), &instance).await.unwrap_err();
        assert!(refused.is(base::ErrorKind::Unavailable), "{refused}");
        nova.cut_off.store(false, SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(runs(&fake, KNOWN).await);
        assert!(!nova.of(KNOWN).contains(&PowerState::Shutdown), "its owner did not stop it");
        agent.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_meanwhile_is_removed_and_does_not_come_back() {
        let fake = Fake::default();
        let (manager, nova) = guarded(&fake).await;
        let agent = tokio::spawn(run(manager.clone(), nova.clone()));
        tokio::time::sleep(Duration::from_secs(5)).await;
        nova.cut_off.store(true, SeqCst);
        tokio::time::sleep(Duration::from_secs(20)).await;
        nova.gone.store(true, SeqCst);
        nova.cut_off.store(false, SeqCst);
        let instance = Instance { uuid: KNOWN.into(), power_on: true, ..Instance::default() };
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(manager.start(&Context::internal(), &instance).await.is_err());
            assert!(!runs(&fake, KNOWN).await);
        }
        assert!(fake.domain(KNOWN).await.unwrap().is_none());
        agent.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_comes_back_late_stops_and_asks_first() {
        let (fake, folder) = (Fake::default(), tempfile::tempdir().unwrap());
        let path = folder.path().join("fence.json");
        let (_, nova) = guarded(&fake).await;
        let clock = Clock::test(Clock::real().now());
        let started = async || {
            let (disks, plug) = (Arc::new(FakeDisks::default()), Arc::new(FakePlug));
            let fake = Arc::new(fake.clone());
            let manager = Manager::new(Options::default(), fake, disks, plug, clock.clone(), false).await;
            let fence = crate::Fence::kept(path.clone(), clock.now()).unwrap();
            manager.unwrap().fenced_by(fence)
        };
        begin(&started().await, &*nova).await.unwrap();
        assert!(runs(&fake, KNOWN).await);
        // Killed; the guest goes on without an agent, for too long.
        clock.advance(Duration::from_secs(60));
        nova.cut_off.store(true, SeqCst);
        let late = started().await;
        let beginning = tokio::time::timeout(Duration::from_secs(2), begin(&late, &*nova)).await;
        assert!(beginning.is_err(), "it waits for nova");
        assert!(!runs(&fake, KNOWN).await && runs(&fake, UNKNOWN).await);
        nova.cut_off.store(false, SeqCst);
        nova.gone.store(true, SeqCst);
        begin(&late, &*nova).await.unwrap();
        assert!(fake.domain(KNOWN).await.unwrap().is_none());
    }
}
