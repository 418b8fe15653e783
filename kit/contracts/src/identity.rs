//! What every service asks of identity: whom a token stands for, and whether a project is there.

use async_trait::async_trait;
use base::{Context, Result};

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
