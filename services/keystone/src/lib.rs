//! Keystone: who is who, who may do what where, and where the services are. Issues Fernet tokens and
//! validates them for every other service; knows nothing of what those services do.

mod api;
mod authentication;
mod bootstrap;
mod catalog;
mod compliance;
mod contract;
mod directories;
mod domain_defaults;
mod federation;
mod fernet;
mod jws;
mod ldap;
pub mod mapping;
mod model;
mod oauth1;
mod openid;
mod options;
mod password;
mod receipts;
mod rules;
mod saml;
mod schemas;
mod sealing;
mod signature;
mod store;
mod tokens;
mod totp;
pub mod upkeep;

pub use api::routes;
pub use bootstrap::{Bootstrap, EndpointUrls, FirstMember};
pub use model::TABLES;
pub use options::{LimitModel, OpenId, Options, Saml, SecurityCompliance, TokenProvider};
pub use rules::RULES;
pub use upkeep::rotate_token_keys;

use base::{Clock, Context, Error, ErrorKind, Result};
use db::{Db, Tx};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// The service. Handlers get it in an `Arc`.
pub struct Keystone {
    db: Db,
    clock: Clock,
    options: Options,
    token_keys: fernet::Keys,
    /// Where tokens are signed rather than encrypted.
    signing: Option<jws::Keys>,
    credential_keys: Arc<fernet::Keys>,
    providers: openid::Providers,
    saml: saml::Signing,
    cache: tokens::Cache,
    /// Counts our writes; what was cached before the last one is not believed.
    generation: Arc<AtomicU64>,
    /// Told of each of our writes, for other processes that share the database.
    wrote: Arc<Notify>,
}

const SERVICE: web::Declaration<Keystone> = web::Declaration {
    name: "keystone",
    routes: api::routes,
    rules: RULES,
    refusal: |rule| format!("You are not authorized to perform the requested action: {rule}."),
    faults: web::Faults::Keystone,
    microversions: None,
    prefixes: &[],
    body_bytes_max: BODY_BYTES_MAX,
};

impl Keystone {
    /// Keys live below `directory`; the database has been opened with [`TABLES`].
    pub fn new(db: Db, clock: Clock, options: Options, directory: &Path) -> Result<Arc<Self>> {
        let token_keys = fernet::Keys::open(&directory.join(TOKEN_KEYS), options.max_active_keys)?;
        let credential_keys =
            fernet::Keys::open(&directory.join("credential-keys"), options.max_active_keys)?;
        let credential_keys = Arc::new(credential_keys);
        let signing = match options.token_provider {
            TokenProvider::Fernet => None,
            TokenProvider::Jws => Some(jws::Keys::open(&directory.join("jws-keys"))?),
        };
        let (cache, generation) = (tokens::Cache::default(), Arc::default());
        let (providers, saml) = (openid::Providers::default(), saml::Signing::new(&directory.join("saml")));
        Ok(Arc::new(Self {
            db,
            clock,
            options,
            token_keys,
            signing,
            credential_keys,
            providers,
            saml,
            cache,
            generation,
            wrote: Arc::default(),
        }))
    }

    /// Returns when this process has written something since the last time.
    pub async fn changed(&self) {
        self.wrote.notified().await;
    }

    /// Another process has written something: what is remembered of tokens is not believed any more.
    pub fn forget_cached(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The HTTP service, its rules with those of a `policy.yaml` over them.
    pub fn service(
        self: &Arc<Self>,
        overrides: Option<&str>,
        identity_url: &str,
    ) -> Result<web::Service<Self>> {
        SERVICE.serve(self, overrides, self.clone(), identity_url)
    }

    /// Every write may change what tokens are good for, so each of them empties the cache.
    async fn write<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (generation, wrote) = (self.generation.clone(), self.wrote.clone());
        self.db
            .write(move |tx| {
                let (generation, wrote) = (generation.clone(), wrote.clone());
                tx.after_commit(move || {
                    generation.fetch_add(1, Ordering::SeqCst);
                    wrote.notify_one();
                });
                work(tx)
            })
            .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.read(work).await
    }
}

/// Below the state directory.
const TOKEN_KEYS: &str = "fernet-keys";

/// The limit that keystone sets on bodies.
const BODY_BYTES_MAX: usize = 114_688;

#[async_trait::async_trait]
impl web::Authenticate for Keystone {
    async fn authenticate(&self, token: &str) -> Result<Context> {
        contracts::identity::Identity::validate(self, token).await
    }
}

#[async_trait::async_trait]
impl contracts::identity::Identity for Keystone {
    async fn validate(&self, token: &str) -> Result<Context> {
        let valid = self.valid(token).await.map_err(|error| match error.kind {
            ErrorKind::NotFound => Error::unauthorized(error.message),
            _ => error,
        })?;
        Ok(valid.context.clone())
    }

    async fn project(&self, id: &str) -> Result<Option<contracts::identity::Project>> {
        let id = id.to_string();
        let found = self.read(move |tx| tx.find::<model::Project>(&id)).await?;
        Ok(found.filter(|project| !project.is_domain).map(|project| contracts::identity::Project {
            id: project.id,
            name: project.name,
            domain_id: project.domain_id,
            enabled: project.enabled,
        }))
    }
}
