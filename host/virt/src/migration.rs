//! A running guest on its way to another host, in plain types.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A way that a guest takes from one host to another: the hypervisors speak through sockets, and who owns both hosts
/// carries what goes in at one to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub name: &'static str,
    /// Where the hypervisor of the host that the guest leaves connects to; somebody shall listen there.
    pub leaving: PathBuf,
    /// Where that of the host it arrives at listens.
    pub arriving: PathBuf,
    /// The user who shall be able to connect, when it is not root.
    pub user: Option<u32>,
}

/// A host that is ready for a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Its hypervisor, as that of the other host reaches it.
    pub uri: String,
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
