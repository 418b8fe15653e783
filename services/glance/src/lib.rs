//! Glance: images and their bytes. What is uploaded is looked at on its way in, hashed, and kept as a file; who may
//! see it and change it follows from its owner, its visibility and its members.

mod api;
mod barbican;
mod bytes;
mod cache;
mod catalogue;
mod contract;
mod http;
mod list;
mod location_import;
mod lost;
mod model;
mod options;
mod protections;
mod proxy;
mod quotas;
mod remote;
mod removal;
mod rules;
mod schemas;
mod signatures;
mod store;
mod stores;
mod tasks;
mod web_download;

pub use api::routes;
pub use model::{MIGRATIONS, TABLES};
pub use options::{Options, PropertyProtection, StoreKind, StoreOptions};
pub use rules::RULES;

use base::{Clock, Error, Result, id};
use contracts::{
    identity::{Catalog, Limits},
    images::{Converter, Pools},
    keys::Certificates,
};
use db::Db;
use flow::Flows;
use futures::TryStreamExt;
use model::{Image, Status, Visibility};
use protections::Protections;
use std::{path::Path, sync::Arc};
use stores::Stores;

/// The service. Handlers get it in an `Arc`.
pub struct Glance {
    db: Db,
    clock: Clock,
    options: Options,
    stores: Stores,
    cache: bytes::Files,
    protections: Protections,
    /// This process among those that share the database.
    processes: Flows,
    peers: Peers,
    certificates: Arc<dyn Certificates>,
}

/// Whom glance asks.
pub struct Peers {
    pub catalog: Arc<dyn Catalog>,
    pub limits: Arc<dyn Limits>,
    /// The region that this glance is in.
    pub region: String,
    pub converter: Arc<dyn Converter>,
    /// Where images of `rbd` stores are.
    pub pools: Arc<dyn Pools>,
}

/// Upstream's limit on bodies that are not images.
const BODY_BYTES_MAX: usize = 1 << 20;

const SERVICE: web::Declaration<Glance> = web::Declaration {
    name: "glance",
    routes: api::routes,
    rules: RULES,
    refusal: |rule| format!("You are not authorized to complete {rule} action."),
    faults: web::Faults::Glance,
    microversions: None,
    prefixes: &[],
    body_bytes_max: BODY_BYTES_MAX,
};

impl Glance {
    /// On a database opened with [`TABLES`]; images are files below `directory` unless the options say otherwise.
    pub fn new(db: Db, clock: Clock, options: Options, directory: &Path, peers: Peers) -> Result<Arc<Self>> {
        let processes = Flows::new(db.clone(), clock.clone(), flow::Options::default());
        let stores = Stores::open(&options, directory, &peers.pools, processes.owner())?;
        let cache = cache::open(&options, directory, processes.owner())?;
        let protections = Protections::open(&options.property_protections)?;
        let certificates = Arc::new(barbican::Barbican {
            catalog: peers.catalog.clone(),
            region: peers.region.clone(),
            url: options.key_manager_url.clone(),
        });
        Ok(Arc::new(Self { db, clock, options, stores, cache, protections, processes, peers, certificates }))
    }

    /// Clears away what processes left half done that ended: their uploads are lost, the images wait for another.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        self.stores.prepare().await;
        self.processes.resume().await?;
        self.look_for_lost().await?;
        self.keep_scrubbing();
        self.start_cache().await
    }

    /// Before a process ends that was asked to: others need not wait to see that its uploads are lost.
    pub async fn stop(&self) {
        self.processes.leave().await;
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

    /// Makes a file a public qcow2 image of this name, if there is no public image of that name yet.
    pub async fn bootstrap(&self, name: &str, owner: &str, file: &Path) -> Result<()> {
        let wanted = name.to_string();
        if self.db.read(move |tx| store::has_public(tx, &wanted)).await? {
            return Ok(());
        }
        if let Err(e) = std::fs::metadata(file) {
            return Err(Error::bad_request(format!("{}: {e}", file.display())));
        }
        let store = self.stores.default();
        let mut upload = self.stores.begin(store)?;
        let mut chunks = bytes::read(file.into(), 0..std::fs::metadata(file)?.len()).await?;
        while let Some(chunk) = chunks.try_next().await? {
            upload.write(chunk).await?;
        }
        let (id, now) = (id::uuid(), self.clock.now());
        let facts = store.backend.keep(&id, upload.finish("qcow2", "bare", &self.options).await?).await?;
        let image = Image {
            id,
            name: Some(name.into()),
            status: Status::Active,
            visibility: Visibility::Public,
            owner: Some(owner.into()),
            disk_format: Some("qcow2".into()),
            container_format: Some("bare".into()),
            size: Some(facts.size as i64),
            virtual_size: facts.virtual_size.map(|bytes| bytes as i64),
            checksum: Some(facts.md5),
            os_hash_algo: Some("sha512".into()),
            os_hash_value: Some(facts.sha512),
            min_disk: 0,
            min_ram: 0,
            protected: false,
            os_hidden: false,
            stores: Some(store.id.clone()),
            process: None,
            stage_host: None,
            created_at: now,
            updated_at: now,
        };
        self.db.write(move |tx| tx.insert(&image)).await
    }
}
