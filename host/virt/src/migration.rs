//! A running guest on its way to another host, in plain types.

use serde::{Deserialize, Serialize};

/// A host that is ready for a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Its hypervisor, as another one reaches it.
    pub uri: String,
    /// Where the guest's memory goes; empty: where the hypervisor is.
    pub address: String,
    /// What the guest is there, in the hypervisor's own words.
    pub definition: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    pub phase: Phase,
    /// Why it failed.
    pub error: Option<String>,
    pub memory: Progress,
    pub disk: Progress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has sent this guest, as far as is remembered.
    #[default]
    None,
    Running,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub total_bytes: u64,
    pub processed_bytes: u64,
    pub remaining_bytes: u64,
}
