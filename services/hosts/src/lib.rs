//! Hosts that belong to a cloud: how one joins it, what it is given for that, and whether it lives. Runs on control
//! nodes when agents live elsewhere; what agents do on their hosts is the other services' matter.

mod authority;
mod body;
mod client;
mod door;
mod drain;
mod lines;
mod model;
mod options;
mod reports;
mod store;
mod tls;
mod tokens;

pub use client::{Door, Identity, Member, RemoteImages, join};
pub use door::{DOOR_PORT, HostView, serve as serve_door};
pub use drain::{keep_emptying, told};
pub use lines::{LINES_PORT, Lines};
pub use model::{HostState, TABLES};
pub use options::Options;
pub use reports::{REPORT_EVERY, alive};
pub use tls::{AUTHORITY_FILE, CERTIFICATE_FILE, Credentials, KEY_FILE};
pub use tokens::Token;

use authority::Authority;
use base::{Clock, Result, Secret};
use bus::{Bus, Serving, Topic};
use contracts::{
    agents::host::{REPORTS_TOPIC, host_reports_handlers},
    compute::{ImageSink, ImageSource},
    hosts::HostUser,
};
use db::{Db, Tx};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The service, on every control node.
pub struct Hosts {
    db: Db,
    clock: Clock,
    options: Options,
    authority: Authority,
    /// What every host is given.
    common: Common,
    /// By which the operator's command line on a control node is known.
    operator: Secret,
    images: Arc<dyn ImageSource>,
    image_sink: Arc<dyn ImageSink>,
    users: Vec<Arc<dyn HostUser>>,
}

/// What a host must know of its cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Common {
    /// Doors of control nodes, `https://control:8799`.
    pub doors: Vec<String>,
    /// The message broker's addresses with the password.
    pub brokers: Vec<Secret>,
    /// The beginning of its queues' names.
    pub bus_prefix: String,
    /// Where nova's metadata service is for the hosts' proxies.
    pub metadata_address: String,
    pub metadata_secret: Secret,
}

/// What the service is given.
pub struct Surroundings {
    pub common: Common,
    pub operator: Secret,
    pub images: Arc<dyn ImageSource>,
    pub image_sink: Arc<dyn ImageSink>,
    /// The services that have things on hosts.
    pub users: Vec<Arc<dyn HostUser>>,
}

impl Hosts {
    /// On a database opened with [`TABLES`]; the first control node of a cloud makes its authority.
    pub async fn open(db: Db, clock: Clock, options: Options, around: Surroundings) -> Result<Arc<Self>> {
        let authority = Self::authority(&db, &clock).await?;
        let Surroundings { common, operator, images, image_sink, users } = around;
        Ok(Arc::new(Self { db, clock, options, authority, common, operator, images, image_sink, users }))
    }

    /// The authority of a cloud, made when there is none.
    async fn authority(db: &Db, clock: &Clock) -> Result<Authority> {
        let made = authority::make(clock.now())?;
        let kept = db.write(move |tx| store::authority_or(tx, &made)).await?;
        Authority::from_pem(&kept)
    }

    /// The certificate of a control node, by which it is known to hosts and broker.
    pub async fn control_credentials(db: &Db, clock: &Clock, name: &str) -> Result<Credentials> {
        Self::authority(db, clock).await?.for_control(name, clock.now())
    }

    /// The certificate of a server that hosts use, as the broker, by the name or address they use it by.
    pub async fn server_credentials(db: &Db, clock: &Clock, name: &str) -> Result<Credentials> {
        Self::authority(db, clock).await?.for_server(name, clock.now())
    }

    /// Listens to the hosts' signs of life until the answer is dropped.
    pub async fn start(self: &Arc<Self>, bus: &Bus) -> Result<Serving> {
        bus.serve(Topic::any(REPORTS_TOPIC), host_reports_handlers(self.clone())).await
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
}
