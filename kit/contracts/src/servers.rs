//! What others tell nova, beside its agents.

use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};

#[async_trait]
pub trait Servers: Send + Sync {
    /// As `POST /os-server-external-events`: nova looks again at what it knows of the server.
    async fn external_event(&self, cx: &Context, event: &ExternalEvent) -> Result<()>;

    /// The attachment by which a server has a volume; none when it has not.
    async fn attachment(&self, cx: &Context, server_id: &str, volume_id: &str) -> Result<Option<String>>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalEvent {
    pub server_id: String,
    /// `network-changed`, `network-vif-plugged`, `volume-extended`, …
    pub name: String,
    /// The port or volume.
    pub tag: Option<String>,
    pub status: String,
}
