//! Nova: servers and all that is about them: flavors, keypairs, hosts, quotas; where a server goes, and the long
//! operations that make, change and remove it. Guests themselves are the compute agents' matter, ports neutron's,
//! volumes cinder's, images glance's.

mod actions;
mod api;
mod console;
mod drain;
mod extra_specs;
mod flows;
mod guest;
mod ha;
mod keys;
mod metadata;
mod migrations;
mod model;
mod options;
mod quota;
mod reports;
mod resize_window;
mod rules;
mod scheduler;
mod schemas;
mod status;
mod store;
#[cfg(test)]
mod torture;

pub use api::routes;
pub use drain::Drain;
pub use model::{MIGRATIONS, TABLES};
pub use options::Options;
pub use rules::RULES;

use base::{Clock, Context, Result, Secret, Version};
use bus::{Bus, Serving, Topic};
use contracts::{
    apis::Api,
    compute::{Compute, ImageSink, RemoteCompute, compute_reports_handlers},
    identity::Identity,
    images::{ImageKeeper, ImageMaker, Images},
    networks::Networks,
    placement::Placement,
    volumes::Volumes,
};
use db::{Db, Tx};
use flow::Flows;
use std::{sync::Arc, time::Duration};

/// The service. Handlers and flows get it in an `Arc`.
pub struct Nova {
    db: Db,
    clock: Clock,
    options: Options,
    flows: Flows,
    rounds: scheduler::Rounds,
    bus: Bus,
    peers: Peers,
}

/// The services that nova asks.
#[derive(Clone)]
pub struct Peers {
    pub identity: Arc<dyn Identity>,
    pub images: Arc<dyn Images>,
    pub image_maker: Arc<dyn ImageMaker>,
    pub image_keeper: Arc<dyn ImageKeeper>,
    pub image_sink: Arc<dyn ImageSink>,
    pub networks: Arc<dyn Networks>,
    pub volumes: Arc<dyn Volumes>,
    pub placement: Arc<dyn Placement>,
    pub apis: Apis,
}

/// The same services as their users see them, for what nova passes on in the caller's name.
#[derive(Clone)]
pub struct Apis {
    pub image: Arc<dyn Api>,
    pub network: Arc<dyn Api>,
    pub volume: Arc<dyn Api>,
}

/// The topics of compute agents, and of nova itself for what they report.
pub const COMPUTE_TOPIC: &str = "compute";
pub const CONDUCTOR_TOPIC: &str = "conductor";

const MIN: Version = Version(2, 1);
const MAX: Version = Version(2, 104);

/// Upstream's limit on bodies.
const BODY_BYTES_MAX: usize = 114_688;

const SERVICE: web::Declaration<Nova> = web::Declaration {
    name: "nova",
    routes: api::routes,
    rules: RULES,
    refusal: policy::refusal,
    faults: web::Faults::Nova,
    microversions: Some(web::Microversions {
        service: "compute",
        legacy_header: Some("x-openstack-nova-api-version"),
        min: MIN,
        max: MAX,
    }),
    prefixes: &[web::Prefix { from: "/v2", to: "/v2.1", lowest_microversion: true }],
    body_bytes_max: BODY_BYTES_MAX,
};

impl Nova {
    /// On a database opened with [`TABLES`]. Nothing runs before [`Nova::start`].
    pub fn new(db: Db, clock: Clock, options: Options, bus: Bus, peers: Peers) -> Arc<Self> {
        let limits = flow::Options { pause: options.retry_pause(), ..flow::Options::default() };
        let flows = Flows::new(db.clone(), clock.clone(), limits);
        Arc::new(Self { db, clock, options, flows, rounds: scheduler::Rounds::default(), bus, peers })
    }

    /// Goes on with unfinished operations and listens to the compute agents until the answer is dropped.
    pub async fn start(self: &Arc<Self>) -> Result<Serving> {
        flows::register(self);
        let reports = compute_reports_handlers(self.clone());
        let serving = self.bus.serve(Topic::any(CONDUCTOR_TOPIC), reports).await?;
        self.flows.resume().await?;
        self.watch_hosts();
        self.watch_resizes();
        Ok(serving)
    }

    /// Stops the operations where they stand; a later start goes on.
    pub async fn stop(&self) {
        self.flows.leave().await;
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

    /// The proxy for servers' screens: noVNC's pages and the websocket behind them.
    pub fn console_router(self: &Arc<Self>) -> axum::Router {
        console::router(self.clone())
    }

    /// The metadata service, with the secret that the network agents' proxies sign with.
    pub fn metadata_router(self: &Arc<Self>, shared_secret: &Secret) -> axum::Router {
        metadata::router(self.clone(), shared_secret.clone())
    }

    /// The agent of a host.
    fn compute(&self, host: &str) -> Box<dyn Compute> {
        let patient = self.bus.with_patience(Duration::from_secs(self.options.compute_timeout_seconds));
        Box::new(RemoteCompute::new(patient, Topic::on(COMPUTE_TOPIC, host)))
    }

    fn images(&self) -> &dyn Images {
        &*self.peers.images
    }

    fn image_maker(&self) -> &dyn ImageMaker {
        &*self.peers.image_maker
    }

    fn networks(&self) -> &dyn Networks {
        &*self.peers.networks
    }

    fn volumes(&self) -> &dyn Volumes {
        &*self.peers.volumes
    }

    fn placement(&self) -> &dyn Placement {
        &*self.peers.placement
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

    /// For what users cause but may not do themselves.
    fn own(&self, cx: &Context) -> Context {
        cx.elevated()
    }
}
