//! The nouns of placement as tables.

use base::Timestamp;
use db::Resource;

pub static TABLES: &[&db::Table] = &[
    Provider::TABLE,
    Inventory::TABLE,
    ProviderTrait::TABLE,
    ProviderAggregate::TABLE,
    Trait::TABLE,
    ResourceClass::TABLE,
    Consumer::TABLE,
    Allocation::TABLE,
    Change::TABLE,
];

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "resource_providers",
    unique = "name",
    index = "root_uuid",
    index = "parent_uuid, created_at, uuid",
    index = "created_at"
)]
pub struct Provider {
    #[field(key)]
    pub uuid: String,
    #[field(filter)]
    pub name: String,
    /// Counts the changes of what the provider has and is; writers name the one they know.
    pub generation: i64,
    pub parent_uuid: Option<String>,
    /// Itself when it has no parent.
    #[field(filter)]
    pub root_uuid: String,
    #[field(sort)]
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "inventories", index = "resource_class")]
pub struct Inventory {
    #[field(key)]
    pub provider_uuid: String,
    #[field(key)]
    pub resource_class: String,
    pub total: i64,
    pub reserved: i64,
    pub min_unit: i64,
    pub max_unit: i64,
    pub step_size: i64,
    pub allocation_ratio: f64,
    /// The sum of the allocations, changed together with them.
    pub used: i64,
    pub updated_at: Timestamp,
}

impl Inventory {
    pub fn capacity(&self) -> i64 {
        ((self.total - self.reserved) as f64 * self.allocation_ratio) as i64
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "provider_traits", index = "trait_name")]
pub struct ProviderTrait {
    #[field(key)]
    pub provider_uuid: String,
    #[field(key)]
    pub trait_name: String,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "provider_aggregates", index = "aggregate_uuid")]
pub struct ProviderAggregate {
    #[field(key)]
    pub provider_uuid: String,
    #[field(key)]
    pub aggregate_uuid: String,
}

/// A custom one.
#[derive(Clone, Debug, Resource)]
#[resource(table = "traits")]
pub struct Trait {
    #[field(key)]
    pub name: String,
    pub created_at: Timestamp,
}

/// A custom one.
#[derive(Clone, Debug, Resource)]
#[resource(table = "resource_classes")]
pub struct ResourceClass {
    #[field(key)]
    pub name: String,
    pub created_at: Timestamp,
}

/// Who takes resources: a server, a migration, a volume.
#[derive(Clone, Debug, Resource)]
#[resource(table = "consumers", index = "project_id, user_id")]
pub struct Consumer {
    #[field(key)]
    pub uuid: String,
    pub project_id: String,
    pub user_id: String,
    pub generation: i64,
    pub consumer_type: Option<String>,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "allocations", index = "provider_uuid, resource_class")]
pub struct Allocation {
    #[field(key)]
    pub consumer_uuid: String,
    #[field(key)]
    pub provider_uuid: String,
    #[field(key)]
    pub resource_class: String,
    pub used: i64,
    pub updated_at: Timestamp,
}

/// A change of allocations that was asked for by an id: so that it is made once.
#[derive(Clone, Debug, Resource)]
#[resource(table = "allocation_changes", index = "created_at")]
pub struct Change {
    #[field(key)]
    pub id: String,
    /// It was undone, or is never to be made.
    pub taken_back: bool,
    pub created_at: Timestamp,
}
