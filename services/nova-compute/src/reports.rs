//! What the agent does by itself: tells nova of the host and of guests that change, removes what nova does not
//! know, and keeps its disk tidy.

use crate::Manager;
use base::{Context, Result};
use contracts::compute::{Compute, ComputeReports, Observed, PowerState};
use host_virt::Event;
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

/// Runs until dropped. Nova may not be there yet, and may go away: everything is tried again.
pub async fn run(manager: Arc<Manager>, reports: Arc<dyn ComputeReports>) {
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
        let cx = Context::internal();
        let host = self.manager.host(&cx).await?;
        self.reports.host_reported(&cx, &host).await?;
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
        if self.told.get(&observed.uuid) != Some(&observed.power_state) {
            self.reports.instance_reported(cx, &observed).await?;
            self.told.insert(observed.uuid, observed.power_state);
        }
        Ok(())
    }

    /// Compares the host with nova's list: the unknown goes, the different is reported.
    async fn reconcile(&mut self) -> Result<()> {
        let cx = Context::internal();
        // The host first: what nova has made since is not taken for unknown.
        let domains = self.manager.hypervisor.domains().await?;
        let folders = self.manager.disks.uuids().await?;
        let expected = self.reports.instances_on(&cx, self.manager.host_name()).await?;

        let held: BTreeSet<&String> = domains.iter().map(|domain| &domain.uuid).chain(&folders).collect();
        for uuid in held {
            if !expected.iter().any(|instance| instance.uuid == *uuid) {
                tracing::warn!(uuid, "nova does not know this guest, it is removed");
                self.manager.destroy(&cx, uuid).await?;
                self.told.remove(uuid);
            }
        }
        let resume = self.manager.options.resume_guests_state_on_host_boot && !self.started;
        let mut states: HashMap<String, _> =
            domains.into_iter().map(|domain| (domain.uuid.clone(), domain)).collect();
        for instance in &expected {
            let observed = match states.remove(&instance.uuid) {
                Some(domain) => self.manager.view(domain),
                None => self.manager.nothing(&instance.uuid),
            };
            let off = matches!(observed.power_state, PowerState::Shutdown | PowerState::Crashed);
            if resume && instance.running && off {
                tracing::info!(uuid = instance.uuid, "started again");
                self.manager.hypervisor.start(&instance.uuid).await?;
                continue; // its event reports it
            }
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
    use contracts::compute::{ExpectedInstance, Host, Instance, InstanceImage};
    use host_virt::{Fake, Hypervisor};
    use parking_lot::Mutex;

    const KNOWN: &str = "0e8a7f6c-0000-4000-8000-000000000001";
    const UNKNOWN: &str = "0e8a7f6c-0000-4000-8000-000000000002";
    const LOST: &str = "0e8a7f6c-0000-4000-8000-000000000003";

    #[derive(Default)]
    struct Nova {
        told: Mutex<Vec<(String, PowerState)>>,
        hosts: Mutex<Vec<Host>>,
        expected: Vec<ExpectedInstance>,
        failures: Mutex<u32>,
    }

    impl Nova {
        fn of(&self, uuid: &str) -> Vec<PowerState> {
            self.told.lock().iter().filter(|(told, _)| told == uuid).map(|(_, state)| *state).collect()
        }
    }

    #[async_trait]
    impl ComputeReports for Nova {
        async fn host_reported(&self, _cx: &Context, host: &Host) -> Result<()> {
            self.hosts.lock().push(host.clone());
            Ok(())
        }

        async fn instance_reported(&self, _cx: &Context, observed: &Observed) -> Result<()> {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(base::Error::unavailable("nobody there"));
            }
            self.told.lock().push((observed.uuid.clone(), observed.power_state));
            Ok(())
        }

        async fn instances_on(&self, _cx: &Context, _host: &str) -> Result<Vec<ExpectedInstance>> {
            Ok(self.expected.clone())
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
        [KNOWN, LOST].map(|uuid| ExpectedInstance { uuid: uuid.into(), running: true }).to_vec()
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
}
