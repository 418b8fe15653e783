//! What services do for the operator of a host: keep new things away from it, move elsewhere what it has, say what is
//! left.

use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};

/// A service that has things on hosts. Every question may be asked again and again, and by several control nodes at once.
#[async_trait]
pub trait HostUser: Send + Sync {
    /// Nothing new comes to the host. Asked anew, what could not be moved is tried anew.
    async fn close(&self, cx: &Context, host: &str) -> Result<()>;

    /// What can go elsewhere begins to, a few at a time.
    async fn empty(&self, cx: &Context, host: &str) -> Result<()>;

    /// What is still there, or still bound to come back to it.
    async fn left(&self, cx: &Context, host: &str) -> Result<Vec<Left>>;

    /// New things may come again, unless somebody else closed the host.
    async fn open(&self, cx: &Context, host: &str) -> Result<()>;
}

/// Something on a host that shall be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// `server`, `volume`, `router`, …
    pub kind: String,
    pub id: String,
    /// What becomes of it, or why nothing does.
    pub state: String,
    /// It does not go by itself.
    pub stuck: bool,
}

impl Left {
    pub fn going(kind: &str, id: &str, state: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into(), state: state.into(), stuck: false }
    }

    pub fn stuck(kind: &str, id: &str, why: impl Into<String>) -> Self {
        Self { stuck: true, ..Self::going(kind, id, why) }
    }
}
