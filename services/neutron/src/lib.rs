//! Neutron: networks, subnets, ports, routers, floating addresses and security groups; which address a port gets, and
//! what every host's networks shall be. Making them so is the network agents' matter.

mod agents;
mod api;
mod attributes;
mod contract;
mod desired;
mod drain;
mod errors;
mod events;
mod flows;
mod forwardings;
mod ipam;
mod listing;
mod model;
mod options;
mod pools;
mod ports;
mod qos_ports;
mod quota;
mod rbac;
mod resources;
mod routing;
mod rules;
mod schedule;
mod sg_rules;
mod store;
#[cfg(test)]
mod torture;
mod trunks;

pub use api::routes;
pub use model::{MIGRATIONS, TABLES};
pub use options::Options;
pub use rules::RULES;

use agents::Touched;
use base::{Clock, Result};
use bus::{Bus, Serving, Topic};
use contracts::{
    agents::network::{AgentState, REPORTS_TOPIC, network_reports_handlers},
    placement::Placement,
    servers::Servers,
};
use db::{Db, Tx};
use events::Event;
use flow::Flows;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, Weak},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// The service. Handlers get it in an `Arc`.
pub struct Neutron {
    db: Db,
    clock: Clock,
    options: Options,
    bus: Bus,
    /// What agents are still to be told.
    touched: mpsc::UnboundedSender<Touched>,
    to_tell: Mutex<Option<mpsc::UnboundedReceiver<Touched>>>,
    /// What nova is still to be told.
    happened: mpsc::UnboundedSender<BTreeSet<Event>>,
    to_nova: Mutex<Option<mpsc::UnboundedReceiver<BTreeSet<Event>>>>,
    servers: OnceLock<Weak<dyn Servers>>,
    placement: Arc<dyn Placement>,
    /// What placement is still to be told of hosts.
    reported: mpsc::UnboundedSender<AgentState>,
    to_placement: Mutex<Option<mpsc::UnboundedReceiver<AgentState>>>,
    flows: Flows,
    /// Hosts that are to ask for everything and have not heard it yet.
    missed: parking_lot::Mutex<BTreeSet<String>>,
}

/// Upstream's limit on bodies.
const BODY_BYTES_MAX: usize = 114_688;

/// While it lives, agents are heard and told, and so is nova.
pub struct Running {
    _serving: Serving,
    telling: [JoinHandle<()>; 5],
}

impl Drop for Running {
    fn drop(&mut self) {
        self.telling.iter().for_each(JoinHandle::abort);
    }
}

const SERVICE: web::Declaration<Neutron> = web::Declaration {
    name: "neutron",
    routes: api::routes,
    rules: RULES,
    refusal: |rule| format!("rule:{rule} is disallowed by policy"),
    faults: web::Faults::Neutron,
    microversions: None,
    prefixes: &[],
    body_bytes_max: BODY_BYTES_MAX,
};

impl Neutron {
    /// On a database opened with [`TABLES`]. Nothing runs before [`Neutron::start`].
    pub fn new(db: Db, clock: Clock, options: Options, bus: Bus, placement: Arc<dyn Placement>) -> Arc<Self> {
        let flows = Flows::new(db.clone(), clock.clone(), flow::Options::default());
        let (reported, to_placement) = mpsc::unbounded_channel();
        let (touched, to_tell) = mpsc::unbounded_channel();
        let (happened, to_nova) = mpsc::unbounded_channel();
        let (to_tell, to_nova) = (Mutex::new(Some(to_tell)), Mutex::new(Some(to_nova)));
        Arc::new(Self {
            db,
            clock,
            options,
            bus,
            touched,
            to_tell,
            happened,
            to_nova,
            servers: OnceLock::new(),
            placement,
            reported,
            to_placement: Mutex::new(Some(to_placement)),
            flows,
            missed: parking_lot::Mutex::default(),
        })
    }

    /// Who is told of what happens to servers' ports. Nova itself asks neutron, so each is there before the other:
    /// neutron holds nova weakly, and hears of it once.
    pub fn tells(&self, servers: Weak<dyn Servers>) {
        self.servers.set(servers).ok();
    }

    fn servers(&self) -> Option<Arc<dyn Servers>> {
        self.servers.get()?.upgrade()
    }

    /// Listens to the network agents and tells them of changes until the answer is dropped.
    pub async fn start(self: &Arc<Self>) -> Result<Running> {
        self.options.vlan_ranges()?;
        self.write(|tx, _| rbac::complete(tx)).await?;
        flows::register(self);
        self.flows.resume().await?;
        let reports = network_reports_handlers(self.clone());
        let serving = self.bus.serve(Topic::any(REPORTS_TOPIC), reports).await?;
        let to_tell = self.to_tell.lock().ok().and_then(|mut held| held.take());
        let to_nova = self.to_nova.lock().ok().and_then(|mut held| held.take());
        let to_placement = self.to_placement.lock().ok().and_then(|mut held| held.take());
        let telling = [
            tokio::spawn(agents::tell(self.clone(), to_tell)),
            tokio::spawn(agents::watch(self.clone())),
            tokio::spawn(agents::greet(self.clone())),
            tokio::spawn(events::tell(self.clone(), to_nova)),
            tokio::spawn(resources::tell(self.clone(), to_placement)),
        ];
        Ok(Running { _serving: serving, telling })
    }

    /// Stops the operations where they stand; a later start goes on.
    pub async fn stop(&self) {
        self.flows.leave().await;
    }

    /// Returns when no operation runs any more.
    pub async fn settled(&self) {
        self.flows.settled().await;
    }

    /// The HTTP service, its rules with those of a `policy.yaml` over them.
    pub fn service(
        self: &Arc<Self>,
        overrides: Option<&str>,
        identity: Arc<dyn web::Authenticate>,
        identity_url: &str,
    ) -> Result<web::Service<Self>> {
        SERVICE.serve(self, overrides, identity, identity_url)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.read(work).await
    }

    /// A transaction, and afterwards word to the agents of what it touched, and to nova of what happened.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx, &mut Touched) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.write(self.telling(work)).await
    }

    /// The same as the effect of a flow's step.
    fn effect(&self, work: impl FnMut(&mut Tx, &mut Touched) -> Result<()> + Send + 'static) -> flow::Effect {
        flow::Effect::write(self.telling(work))
    }

    fn telling<T>(
        &self,
        mut work: impl FnMut(&mut Tx, &mut Touched) -> Result<T> + Send + 'static,
    ) -> impl FnMut(&mut Tx) -> Result<T> + Send + 'static {
        let (sender, happened) = (self.touched.clone(), self.happened.clone());
        move |tx| {
            let mut touched = Touched::default();
            let done = work(tx, &mut touched)?;
            let events = std::mem::take(&mut touched.events);
            if !events.is_empty() {
                let happened = happened.clone();
                tx.after_commit(move || drop(happened.send(events)));
            }
            if !touched.is_empty() {
                let sender = sender.clone();
                tx.after_commit(move || drop(sender.send(touched)));
            }
            Ok(done)
        }
    }
}
