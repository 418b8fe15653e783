//! What every service asks of identity: whom a token stands for, and whether a project is there.

use async_trait::async_trait;
use base::{Context, Result};
use std::collections::BTreeMap;

/// Keystone's own implementation in one process; over HTTP when keystone runs elsewhere.
#[async_trait]
pub trait Identity: Send + Sync {
    /// The context of a token that holds now; `Unauthorized` for one that does not.
    async fn validate(&self, token: &str) -> Result<Context>;

    /// None when there is no such project (nova refuses quotas for those).
    async fn project(&self, id: &str) -> Result<Option<Project>>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub domain_id: String,
    pub enabled: bool,
}

/// Where services are, as the caller's token says it.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// None: the caller's catalog has none of that type (`image`) in that region by that interface (`public`).
    async fn endpoint(
        &self,
        cx: &Context,
        service_type: &str,
        region: &str,
        interface: &str,
    ) -> Result<Option<String>>;
}

/// Unified limits: how much of a service's resources a project may have.
#[async_trait]
pub trait Limits: Send + Sync {
    /// By resource; what nobody registered is absent, and -1 is without end.
    async fn limits(
        &self,
        service_type: &str,
        region: &str,
        project_id: &str,
    ) -> Result<BTreeMap<String, i64>>;
}
