//! A host's part of the tenants' networks: bridges, taps, namespaces, DHCP, routers, packet filters and the
//! metadata proxy. Everything is said as one [`contracts::agents::network::Desired`] state; converging makes the host so, however often it is
//! repeated and whatever somebody removed meanwhile. What networks are for, and who may have them, is neutron's.

mod dhcp;
mod fake;
mod filter;
mod links;
mod linux;
mod metadata;
mod names;
mod nat;
mod netns;
mod nft;
mod shape;
pub mod trunk;

pub use fake::Fake;
pub use linux::{Linux, Options};
pub use metadata::MetadataOptions;

use async_trait::async_trait;
use base::Result;
use contracts::agents::network::Desired;
use std::collections::{BTreeMap, BTreeSet};

/// Programs the real host part calls, and the Debian package each is in.
pub const PROGRAMS: [(&str, &str); 6] = [
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
];

/// How much of the host is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What differs from the last state converged; cheap among a thousand ports.
    Changes,
    /// Everything, against what the host really has: at start, and regularly to repair what somebody broke.
    Everything,
}

/// What stands after converging. One thing that failed does not stop the others; converging again tries again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Ids of ports that are wired here: guests', and those of DHCP servers and routers.
    pub up: BTreeSet<String>,
    /// What failed and why, by the id of the port, network or router.
    pub failed: BTreeMap<String, String>,
}

/// The networks of this host.
#[async_trait]
pub trait HostNet: Send + Sync {
    /// Makes the host as `desired` says and removes what is ours beyond it.
    async fn converge(&self, desired: &Desired, depth: Depth) -> Result<Report>;

    /// Removes everything of ours from the host.
    async fn clean(&self) -> Result<()> {
        self.converge(&Desired::default(), Depth::Everything).await.map(drop)
    }
}
