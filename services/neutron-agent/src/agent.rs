//! One loop that converges whenever there is news, repairs regularly, and tells neutron what changed. Telling is
//! repeated until neutron has heard it.

use crate::{Options, memory::Memory};
use async_trait::async_trait;
use base::{Context, Result};
use contracts::agents::network::{
    AgentState, Change, Desired, NetworkAgent, NetworkKind, NetworkReports, PortsState,
};
use host_net::{Depth, HostNet, Report};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::MissedTickBehavior};

/// How soon what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

pub struct Agent {
    name: String,
    options: Options,
    host: Arc<dyn HostNet>,
    reports: Arc<dyn NetworkReports>,
    memory: Mutex<Memory>,
    news: Notify,
    /// Set until neutron has told everything, at start and when it asks for it.
    must_sync: AtomicBool,
    told: tokio::sync::Mutex<Told>,
}

/// What neutron knows from us.
#[derive(Default)]
struct Told {
    started: bool,
    up: BTreeSet<String>,
    failed: BTreeMap<String, String>,
    first_ports: bool,
}

impl Agent {
    pub fn new(options: Options, host: Arc<dyn HostNet>, reports: Arc<dyn NetworkReports>) -> Self {
        let name = match options.host.as_str() {
            "" => base::machine_name(),
            name => name.into(),
        };
        Self {
            name,
            options,
            host,
            reports,
            memory: Mutex::default(),
            news: Notify::new(),
            must_sync: AtomicBool::new(true),
            told: tokio::sync::Mutex::default(),
        }
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        &self.name
    }

    /// Asks for everything if that is due, makes the host so and reports. Nothing is converged before neutron was
    /// heard for the first time: an agent that knows nothing would remove everything.
    pub async fn converge(&self, depth: Depth) -> Result<()> {
        let cx = Context::internal();
        let mut told = self.told.lock().await;
        let mut depth = depth;
        if self.must_sync.swap(false, Ordering::AcqRel) {
            self.memory.lock().asks(true);
            match self.reports.host_state(&cx, &self.name).await {
                Ok(state) => self.memory.lock().whole(state),
                Err(error) => {
                    self.memory.lock().asks(false);
                    self.must_sync.store(true, Ordering::Release);
                    if !told.first_ports {
                        return Err(error);
                    }
                    // What is known goes on being repaired.
                    tracing::warn!(%error, "neutron does not tell the host's state");
                }
            }
            if !told.first_ports {
                depth = Depth::Everything;
            }
        }
        let desired = self.of_this_host(self.memory.lock().desired.clone());
        let report = self.host.converge(&desired, depth).await?;
        self.report_ports(&cx, &mut told, report).await
    }

    /// Gives a sign of life.
    pub async fn report(&self) -> Result<()> {
        let mut told = self.told.lock().await;
        let desired = self.memory.lock().desired.clone();
        let agent = AgentState {
            host: self.name.clone(),
            tunnel_ip: self.options.local_ip,
            physical_networks: self.options.physical_networks.keys().cloned().collect(),
            networks: desired.networks.len() as u64,
            ports: desired.ports.len() as u64,
            routers: desired.routers.len() as u64,
            only_guests: !self.options.dhcp_and_routers,
            availability_zone: self.options.availability_zone.clone(),
            started: !told.started,
            resources: self.options.resources(&self.name)?,
        };
        let heard = self.reports.agent_reported(&Context::internal(), &agent).await;
        match heard {
            Ok(()) => told.started = true,
            // What neutron had to say meanwhile may be lost as well.
            Err(_) => self.must_sync.store(true, Ordering::Release),
        }
        heard
    }

    async fn report_ports(&self, cx: &Context, told: &mut Told, report: Report) -> Result<()> {
        let ports = PortsState {
            host: self.name.clone(),
            up: report.up.difference(&told.up).cloned().collect(),
            down: told.up.difference(&report.up).cloned().collect(),
            failed: report.failed.clone(),
        };
        let is_news = !ports.up.is_empty() || !ports.down.is_empty() || ports.failed != told.failed;
        if is_news || !told.first_ports {
            self.reports.ports_reported(cx, &ports).await?;
        }
        told.first_ports = true;
        told.up = report.up;
        told.failed = report.failed;
        Ok(())
    }

    /// Neutron's word with this host's own in it: its tunnel address, and whether it is a gateway.
    fn of_this_host(&self, mut desired: Desired) -> Desired {
        for network in desired.networks.values_mut() {
            if let NetworkKind::Vxlan(segment) = &mut network.kind {
                segment.local = segment.local.or(self.options.local_ip);
                segment.remotes.retain(|host| Some(*host) != segment.local);
            }
            if !self.options.external_gateway {
                network.host_addresses.clear();
            }
            network.masquerade = self.options.external_masquerade && !network.host_addresses.is_empty();
        }
        desired
    }

    fn failed(&self) -> bool {
        self.told.try_lock().is_ok_and(|told| !told.failed.is_empty())
    }
}

#[async_trait]
impl NetworkAgent for Agent {
    async fn changed(&self, _cx: &Context, change: &Change) -> Result<()> {
        let heard = self.memory.lock().change(change.clone());
        if heard.doubt {
            self.must_sync.store(true, Ordering::Release);
        }
        if heard.news || heard.doubt {
            self.news.notify_one();
        }
        Ok(())
    }

    async fn resync(&self, _cx: &Context) -> Result<()> {
        self.must_sync.store(true, Ordering::Release);
        self.news.notify_one();
        Ok(())
    }
}

/// Runs until dropped. Neutron may not be there yet, and may go away: everything is tried again.
pub async fn run(agent: Arc<Agent>) {
    let every = |seconds: u64| {
        let mut ticks = tokio::time::interval(Duration::from_secs(seconds.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let options = agent.options.clone();
    let mut reports = every(options.report_interval_seconds);
    let mut repairs = every(options.repair_interval_seconds);
    let mut resyncs = every(options.resync_interval_seconds);
    // Hosts that began together do not ask together.
    resyncs.reset_after(resyncs.period().mul_f64(0.5 + 0.5 * share(agent.host())));
    let mut retry = false;
    loop {
        let retry_at = tokio::time::sleep(RETRY_AFTER);
        let done = tokio::select! {
            _ = agent.news.notified() => agent.converge(Depth::Changes).await,
            _ = repairs.tick() => agent.converge(Depth::Everything).await,
            _ = reports.tick() => agent.report().await,
            _ = resyncs.tick() => agent.resync(&Context::internal()).await,
            _ = retry_at, if retry => agent.converge(Depth::Changes).await,
        };
        if let Err(error) = &done {
            tracing::warn!(%error, "network agent: it is tried again");
        }
        retry = done.is_err() || agent.failed() || agent.must_sync.load(Ordering::Acquire);
    }
}

/// Of a name, between 0 and 1, and mostly another than of other names.
fn share(name: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Error, ErrorKind};
    use contracts::agents::network::{
        AGENT_TOPIC, HostState, REPORTS_TOPIC, RemoteNetworkAgent, RemoteNetworkReports,
        network_reports_handlers,
    };
    use host_net::Fake;

    const NETWORK: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const PORT: &str = "bbbbbbbb-0000-4000-8000-000000000001";

    /// Neutron as the agent sees it.
    #[derive(Default)]
    struct Neutron {
        state: Mutex<HostState>,
        away: AtomicBool,
        agents: Mutex<Vec<AgentState>>,
        ports: Mutex<Vec<PortsState>>,
    }

    impl Neutron {
        fn answer<T>(&self, value: T) -> Result<T> {
            match self.away.load(Ordering::Relaxed) {
                true => Err(Error::unavailable("away")),
                false => Ok(value),
            }
        }
    }

    #[async_trait]
    impl NetworkReports for Neutron {
        async fn agent_reported(&self, _cx: &Context, agent: &AgentState) -> Result<()> {
            self.answer(())?;
            self.agents.lock().push(agent.clone());
            Ok(())
        }

        async fn ports_reported(&self, _cx: &Context, ports: &PortsState) -> Result<()> {
            self.answer(())?;
            self.ports.lock().push(ports.clone());
            Ok(())
        }

        async fn host_state(&self, _cx: &Context, _host: &str) -> Result<HostState> {
            self.answer(self.state.lock().clone())
        }
    }

    struct Bench {
        neutron: Arc<Neutron>,
        host: Arc<Fake>,
        agent: Arc<Agent>,
    }

    fn bench(options: Options) -> Bench {
        let (neutron, host) = (Arc::new(Neutron::default()), Arc::new(Fake::default()));
        let agent = crate::simulated(options, host.clone(), neutron.clone());
        Bench { neutron, host, agent }
    }

    fn desired() -> Desired {
        serde_json::from_value(serde_json::json!({
            "networks": {NETWORK: {"mtu": 1450, "host_addresses": ["172.24.4.1/24"],
                "kind": {"vxlan": {"vni": 7, "local": null, "remotes": ["10.0.0.1", "10.0.0.2"]}}}},
            "ports": {PORT: {"network_id": NETWORK, "mac": "fa:16:3e:00:00:01", "addresses": [],
                "port_security": true, "admin_state_up": true}}}))
        .unwrap()
    }

    fn change(revision: u64, port: bool) -> Change {
        let port = desired().ports.remove(PORT).filter(|_| port);
        Change { revision, ports: [(PORT.to_string(), port)].into(), ..Change::default() }
    }

    fn ids(ids: &BTreeSet<String>) -> Vec<&str> {
        ids.iter().map(String::as_str).collect()
    }

    /// An agent that knows nothing would otherwise take running guests off their networks.
    #[tokio::test]
    async fn nothing_is_touched_before_neutron_was_heard() {
        let bench = bench(Options::default());
        bench.neutron.away.store(true, Ordering::Relaxed);
        let error = bench.agent.converge(Depth::Everything).await.unwrap_err();
        assert!(error.is(ErrorKind::Unavailable));
        assert_eq!(bench.host.converged(), 0);
        bench.neutron.away.store(false, Ordering::Relaxed);
        bench.agent.converge(Depth::Everything).await.unwrap();
        assert_eq!(bench.host.converged(), 1);
    }

    #[tokio::test]
    async fn ports_are_reported_when_they_change() {
        let bench = bench(Options::default());
        *bench.neutron.state.lock() = HostState { revision: 1, desired: desired() };
        bench.agent.converge(Depth::Everything).await.unwrap();
        bench.agent.converge(Depth::Everything).await.unwrap();
        let cx = Context::internal();
        bench.agent.changed(&cx, &change(2, false)).await.unwrap();
        bench.agent.converge(Depth::Changes).await.unwrap();
        bench.host.fail(PORT, Some("no tap"));
        bench.agent.changed(&cx, &change(3, true)).await.unwrap();
        bench.agent.converge(Depth::Changes).await.unwrap();
        let told = bench.neutron.ports.lock().clone();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(ids(&told[0].up), [PORT]);
        assert_eq!(ids(&told[1].down), [PORT]);
        assert_eq!(told[2].failed[PORT], "no tap");
        assert!(bench.agent.failed());
    }

    #[tokio::test]
    async fn a_report_that_was_not_heard_is_repeated() {
        let bench = bench(Options::default());
        bench.agent.converge(Depth::Everything).await.unwrap();
        let mut whole = change(2, true);
        whole.networks.insert(NETWORK.into(), desired().networks.remove(NETWORK));
        bench.agent.changed(&Context::internal(), &whole).await.unwrap();
        bench.neutron.away.store(true, Ordering::Relaxed);
        assert!(bench.agent.converge(Depth::Changes).await.is_err());
        bench.neutron.away.store(false, Ordering::Relaxed);
        bench.agent.converge(Depth::Changes).await.unwrap();
        let told = bench.neutron.ports.lock().clone();
        assert_eq!(ids(&told.last().unwrap().up), [PORT]);
    }

    #[tokio::test]
    async fn the_host_adds_its_own_word() {
        let local = "10.0.0.1".parse().unwrap();
        let bench =
            bench(Options { local_ip: Some(local), external_masquerade: false, ..Options::default() });
        *bench.neutron.state.lock() = HostState { revision: 1, desired: desired() };
        bench.agent.converge(Depth::Everything).await.unwrap();
        let network = bench.host.desired().networks.remove(NETWORK).unwrap();
        let NetworkKind::Vxlan(segment) = &network.kind else { panic!("{network:?}") };
        assert_eq!(segment.local, Some(local));
        assert_eq!(segment.remotes, ["10.0.0.2".parse().unwrap()].into(), "no tunnel to itself");
        assert!(!network.masquerade && network.host_addresses.len() == 1);
    }

    /// Neutron was away: what it had to say meanwhile did not come.
    #[tokio::test(start_paused = true)]
    async fn who_was_not_heard_asks_for_everything() {
        let bench = bench(Options { report_interval_seconds: 5, ..Options::default() });
        *bench.neutron.state.lock() = HostState { revision: 1, desired: Desired::default() };
        let running = tokio::spawn(run(bench.agent.clone()));
        tokio::time::sleep(Duration::from_secs(8)).await;
        bench.neutron.away.store(true, Ordering::Relaxed);
        *bench.neutron.state.lock() = HostState { revision: 2, desired: desired() };
        tokio::time::sleep(Duration::from_secs(6)).await;
        bench.neutron.away.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(bench.neutron.ports.lock().iter().any(|told| told.up.contains(PORT)));
        running.abort();
    }

    /// Neutron and the agent in two processes, and every message comes twice.
    #[tokio::test]
    async fn over_the_bus() {
        let bus = bus::Bus::local_twice();
        let neutron = Arc::new(Neutron::default());
        let topic = bus::Topic::any(REPORTS_TOPIC);
        let _neutron = bus.serve(topic.clone(), network_reports_handlers(neutron.clone())).await.unwrap();
        let options = Options { host: "host-1".into(), ..Options::default() };
        let reports = Arc::new(RemoteNetworkReports::new(bus.clone(), topic));
        let agent = crate::simulated(options, Arc::default(), reports);
        let _agent = crate::serve(&bus, agent.clone()).await.unwrap();
        let running = tokio::spawn(run(agent));
        let remote = RemoteNetworkAgent::new(bus, bus::Topic::on(AGENT_TOPIC, "host-1"));
        let mut whole = change(2, true);
        whole.networks.insert(NETWORK.into(), desired().networks.remove(NETWORK));
        remote.changed(&Context::internal(), &whole).await.unwrap();
        while !neutron.ports.lock().iter().any(|told| told.up.contains(PORT)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(neutron.ports.lock()[0].host, "host-1");
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_loop_starts_converges_reports_and_resyncs() {
        let bench = bench(Options::default());
        bench.neutron.away.store(true, Ordering::Relaxed);
        let running = tokio::spawn(run(bench.agent.clone()));
        tokio::time::sleep(Duration::from_secs(5)).await;
        *bench.neutron.state.lock() = HostState { revision: 1, desired: desired() };
        bench.neutron.away.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(ids(&bench.neutron.ports.lock()[0].up), [PORT]);
        assert!(bench.neutron.agents.lock()[0].started);
        // A message that was lost: the next whole state has it.
        *bench.neutron.state.lock() = HostState { revision: 2, desired: Desired::default() };
        tokio::time::sleep(Duration::from_secs(320)).await;
        assert_eq!(ids(&bench.neutron.ports.lock().last().unwrap().down), [PORT]);
        assert!(bench.neutron.agents.lock().len() > 5 && !bench.neutron.agents.lock()[1].started);
        running.abort();
    }
}
