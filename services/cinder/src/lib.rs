//! Cinder: volumes, their snapshots and attachments, types, quotas; where a volume goes, and the long operations that
//! make, grow, keep and remove it. The disks themselves are the back ends' agents' matter, images glance's.

mod api;
mod backups;
mod bootstrap;
mod drain;
mod errors;
mod flows;
mod groups;
mod messages;
mod model;
mod moves;
mod options;
mod quota;
mod reports;
mod requests;
mod rules;
mod scheduler;
mod schemas;
mod store;
#[cfg(test)]
mod torture;
mod volumes;

pub use api::routes;
pub use drain::Drain;
pub use model::{MIGRATIONS, TABLES};
pub use options::Options;
pub use rules::RULES;

use base::{Clock, Context, Error, Result, Version};
use bus::{Bus, Serving, Topic};
use contracts::{
    agents::volume::{AGENT_TOPIC, REPORTS_TOPIC, RemoteVolumeAgent, VolumeAgent, volume_reports_handlers},
    images::{ImageMaker, Images},
    servers::Servers,
};
use db::{Db, Tx};
use flow::Flows;
use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

/// The service. Handlers and flows get it in an `Arc`.
pub struct Cinder {
    db: Db,
    clock: Clock,
    options: Options,
    flows: Flows,
    bus: Bus,
    peers: Peers,
    servers: OnceLock<Weak<dyn Servers>>,
    me: Weak<Self>,
}

/// The services that cinder asks.
#[derive(Clone)]
pub struct Peers {
    pub images: Arc<dyn Images>,
    pub image_maker: Arc<dyn ImageMaker>,
}

const MIN: Version = Version(3, 0);
const MAX: Version = Version(3, 71);

/// Upstream's limit on bodies.
const BODY_BYTES_MAX: usize = 114_688;

const MESSAGES_TIDIED_EVERY: Duration = Duration::from_secs(300);

const SERVICE: web::Declaration<Cinder> = web::Declaration {
    name: "cinder",
    routes: api::routes,
    rules: RULES,
    refusal: policy::refusal,
    faults: web::Faults::Cinder,
    microversions: Some(web::Microversions { service: "volume", legacy_header: None, min: MIN, max: MAX }),
    // Old clients' `/v2/{project}/volumes`; `/v2` itself is gone, as upstream.
    prefixes: &[web::Prefix { from: "/v2/", to: "/v3/", lowest_microversion: false }],
    body_bytes_max: BODY_BYTES_MAX,
};

impl Cinder {
    /// On a database opened with [`TABLES`]. Nothing runs before [`Cinder::start`].
    pub fn new(db: Db, clock: Clock, options: Options, bus: Bus, peers: Peers) -> Arc<Self> {
        let limits = flow::Options { pause: options.retry_pause(), ..flow::Options::default() };
        let flows = Flows::new(db.clone(), clock.clone(), limits);
        let servers = OnceLock::new();
        Arc::new_cyclic(|me| Self { db, clock, options, flows, bus, peers, servers, me: me.clone() })
    }

    /// Who is told when a server's volume has grown. Nova itself asks cinder, so each is there before the other:
    /// cinder holds nova weakly, and hears of it once.
    pub fn tells(&self, servers: Weak<dyn Servers>) {
        self.servers.set(servers).ok();
    }

    /// Makes the default type if there is none, goes on with unfinished operations and listens to the back ends'
    /// agents until the answer is dropped.
    pub async fn start(self: &Arc<Self>) -> Result<Serving> {
        self.bootstrap().await?;
        flows::register(self);
        let reports = volume_reports_handlers(self.clone());
        let serving = self.bus.serve(Topic::any(REPORTS_TOPIC), reports).await?;
        self.flows.resume().await?;
        let weak = Arc::downgrade(self);
        self.flows.every("messages", MESSAGES_TIDIED_EVERY, move || {
            let cinder = weak.upgrade();
            async move {
                match cinder {
                    Some(cinder) => cinder.forget_old_messages().await,
                    None => Ok(()),
                }
            }
        });
        Ok(serving)
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

    /// For transactions, which outlive the reference that begins them.
    fn me(&self) -> Result<Arc<Self>> {
        self.me.upgrade().ok_or_else(|| Error::unavailable("The volume service is not there."))
    }

    /// The agent of a back end.
    fn agent(&self, host: &str) -> Box<dyn VolumeAgent> {
        let patient = self.bus.with_patience(Duration::from_secs(self.options.volume_timeout_seconds));
        Box::new(RemoteVolumeAgent::new(patient, Topic::on(AGENT_TOPIC, host)))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.read(work).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.write(work).await
    }

    fn servers(&self) -> Option<Arc<dyn Servers>> {
        self.servers.get()?.upgrade()
    }

    /// For what users cause but may not do themselves.
    fn own(&self, cx: &Context) -> Context {
        cx.elevated()
    }
}
