//! What nova asks of placement: who has room, and that the room is taken.

use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[async_trait]
pub trait Placement: Send + Sync {
    /// Providers that have room for all of it, in no particular order.
    async fn candidates(&self, cx: &Context, wanted: &Wanted) -> Result<Vec<Candidate>>;

    /// Takes the room for a consumer, instead of what it had. `Conflict` when it no longer fits.
    async fn allocate(&self, cx: &Context, allocation: &Allocation) -> Result<()>;

    /// Several consumers at once, all or none: what one gives up another may have. One without resources gives up all.
    async fn allocate_together(&self, cx: &Context, allocations: &[Allocation]) -> Result<()>;

    /// Gives up all room of a consumer; one that has none is fine.
    async fn release(&self, cx: &Context, consumer_id: &str) -> Result<()>;

    /// Makes a provider, its inventory and traits as told. Custom classes and traits are made, too.
    async fn provide(&self, cx: &Context, provider: &Provider) -> Result<()>;

    /// `Conflict` while it has allocations; one that is gone is fine.
    async fn remove_provider(&self, cx: &Context, provider_id: &str) -> Result<()>;
}

/// Resource classes (`VCPU`, `MEMORY_MB`, `DISK_GB`) and amounts.
pub type Resources = BTreeMap<String, u64>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    pub resources: Resources,
    pub required_traits: Vec<String>,
    pub forbidden_traits: Vec<String>,
    /// The most candidates to answer; 0: all.
    pub limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Candidate {
    pub provider_id: String,
    pub allocations: BTreeMap<String, Resources>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocation {
    pub consumer_id: String,
    /// `INSTANCE` when it is empty; `MIGRATION` for what a move holds.
    pub consumer_type: String,
    pub project_id: String,
    pub user_id: String,
    /// Provider ids and what is taken of each.
    pub resources: BTreeMap<String, Resources>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provider {
    pub id: String,
    pub name: String,
    pub inventories: BTreeMap<String, Inventory>,
    pub traits: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    pub total: u64,
    pub reserved: u64,
    pub min_unit: u64,
    pub max_unit: u64,
    pub step_size: u64,
    pub allocation_ratio: f64,
}
