//! What nova asks of placement: who has room, and that the room is taken.

use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[async_trait]
pub trait Placement: Send + Sync {
    /// Providers that have room for all of it, in no particular order.
    async fn candidates(&self, cx: &Context, wanted: &Wanted) -> Result<Vec<Candidate>>;

    /// Takes the room for a consumer, instead of what it had. `Conflict` when it no longer fits; with the code
    /// [`CONCURRENT_UPDATE`] when the consumer is not the one that the caller knows.
    async fn allocate(&self, cx: &Context, allocation: &Allocation) -> Result<()>;

    /// Several consumers at once, all or none: what one gives up another may have. One without resources gives up all.
    async fn allocate_together(&self, cx: &Context, allocations: &[Allocation]) -> Result<()>;

    /// What a consumer has; nothing for one that nobody knows.
    async fn allocations(&self, cx: &Context, consumer_id: &str) -> Result<Allocated>;

    /// What one consumer has another, of a type as in [`Allocation`], has from now on, instead of what it had. One that has
    /// nothing changes nothing: a repeated call is harmless.
    async fn move_allocations(&self, cx: &Context, from: &str, to: &str, consumer_type: &str) -> Result<()>;

    /// More and less for some consumers, all or none. `Conflict` when it does not fit or was taken back, `NotFound` for
    /// a consumer that has nothing. What has an id is made once, however often it is asked for within a month.
    async fn change_allocations(&self, cx: &Context, id: &str, changes: &[AllocationChange]) -> Result<()>;

    /// Undoes a change if it was made; it will not be made any more. A consumer that is gone has nothing to give back.
    async fn take_back_allocations(&self, cx: &Context, id: &str, changes: &[AllocationChange])
    -> Result<()>;

    /// Gives up all room of a consumer; one that has none is fine.
    async fn release(&self, cx: &Context, consumer_id: &str) -> Result<()>;

    /// Makes a provider, its inventory and traits as told. Custom classes and traits are made, too.
    async fn provide(&self, cx: &Context, provider: &Provider) -> Result<()>;

    /// The provider of a name.
    async fn provider_id(&self, cx: &Context, name: &str) -> Result<Option<String>>;

    /// With those below it. `Conflict` while one of them has allocations; one that is gone is fine.
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
    /// Each from one provider.
    pub groups: Vec<Group>,
    /// Ids of groups whose providers lie below one of them.
    pub same_subtrees: Vec<Vec<String>>,
    /// Only the tree of this provider.
    pub in_tree: Option<String>,
    /// The most candidates to answer; 0: all.
    pub limit: u64,
}

/// Resources that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// UUIDs, or other words without `,`.
    pub id: String,
    pub resources: Resources,
    pub required_traits: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Candidate {
    /// The root of the tree.
    pub provider_id: String,
    pub allocations: BTreeMap<String, Resources>,
    /// Which provider gives what a group asks for, by the group's id.
    pub mappings: BTreeMap<String, String>,
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
    /// As the caller knows the consumer; none: it does not matter.
    pub generation: Option<Generation>,
}

/// How often a consumer was changed; none: it is new.
pub type Generation = Option<i64>;

/// The code of a `Conflict` with another change.
pub const CONCURRENT_UPDATE: &str = "placement.concurrent_update";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocated {
    pub generation: Generation,
    pub resources: BTreeMap<String, Resources>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocationChange {
    pub consumer_id: String,
    /// By provider and class.
    pub difference: BTreeMap<String, BTreeMap<String, i64>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provider {
    pub id: String,
    pub name: String,
    /// None: the root of a tree. It stays what it was when the provider was made.
    pub parent_id: Option<String>,
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
