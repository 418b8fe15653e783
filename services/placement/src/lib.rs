//! Placement: what hosts and other providers have of each class of resource, what their traits are, and who takes
//! how much. Claims are exact: two at once never take more than there is. Who should go where is the asker's matter.

mod api;
mod candidates;
mod claims;
mod contract;
mod groups;
mod model;
mod options;
mod rules;
mod schemas;
mod standard;
mod store;
mod trees;

pub use api::routes;
pub use model::TABLES;
pub use options::Options;
pub use rules::RULES;

use base::{Clock, Result, Version};
use db::Db;
use std::sync::Arc;

/// The service. Handlers get it in an `Arc`.
pub struct Placement {
    db: Db,
    clock: Clock,
    options: Options,
}

const MIN: Version = Version(1, 0);
const MAX: Version = Version(1, 39);

/// A reshape of a big tree is the longest body.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

const SERVICE: web::Declaration<Placement> = web::Declaration {
    name: "placement",
    routes: api::routes,
    rules: RULES,
    refusal: |rule| format!("Policy does not allow {rule} to be performed."),
    faults: web::Faults::Placement,
    microversions: Some(web::Microversions { service: "placement", legacy_header: None, min: MIN, max: MAX }),
    prefixes: &[],
    body_bytes_max: BODY_BYTES_MAX,
};

impl Placement {
    /// On a database opened with [`TABLES`].
    pub fn new(db: Db, clock: Clock, options: Options) -> Arc<Self> {
        Arc::new(Self { db, clock, options })
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
}
