//! What a process on a host says of itself to the control nodes, and what it hears of them.

use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};

#[async_trait]
pub trait HostReports: Send + Sync {
    /// A sign of life. Answers what is thought of the host.
    async fn host_alive(&self, cx: &Context, host: &HostAlive) -> Result<HostOrder>;
}

bus::remote! {
    /// A control node, on the topic `hosts`.
    pub struct RemoteHostReports: HostReports as host_reports_handlers {
        host_alive(host: &HostAlive = HostAlive) -> HostOrder;
    }
}

/// The service that hears hosts.
pub const REPORTS_TOPIC: &str = "hosts";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAlive {
    pub name: String,
    /// `compute`, `network`, `storage`, `control`.
    pub roles: Vec<String>,
    /// Where other hosts reach it.
    pub address: String,
    /// Of the program.
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostOrder {
    Serve,
    /// The operator empties the host.
    Drain,
    /// The host is no part of the cloud any more: its agents end.
    Leave,
}
