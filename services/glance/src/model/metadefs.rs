//! Metadata definitions as tables: namespaces, and the objects, properties, tags and types of resources in them.
//! Ids are numbers written so that they sort in the order in which they were given.

use base::{Json, Timestamp};
use db::Resource;

#[derive(Clone, Debug, Resource)]
#[resource(table = "metadef_namespaces", unique = "namespace", index = "created_at, id", index = "owner")]
pub struct Namespace {
    #[field(key)]
    pub id: String,
    pub namespace: String,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub visibility: String,
    pub protected: bool,
    pub owner: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A group of properties.
#[derive(Clone, Debug, Resource)]
#[resource(table = "metadef_objects", unique = "namespace_id, name")]
pub struct Object {
    #[field(key)]
    pub id: String,
    pub namespace_id: String,
    pub name: String,
    pub description: Option<String>,
    /// Names of properties; null when nothing was said of them.
    pub required: Json,
    /// By name; null when nothing was said of them.
    pub properties: Json,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "metadef_properties", unique = "namespace_id, name")]
pub struct Property {
    #[field(key)]
    pub id: String,
    pub namespace_id: String,
    pub name: String,
    /// As it was given: `{"title": …, "type": …}`.
    pub body: Json,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "metadef_tags", unique = "namespace_id, folded")]
pub struct Tag {
    #[field(key)]
    pub id: String,
    pub namespace_id: String,
    pub name: String,
    /// The name in small letters: tags that differ in capitals alone are the same.
    pub folded: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What properties are for: `OS::Nova::Flavor`. There since a namespace first named it.
#[derive(Clone, Debug, Resource)]
#[resource(table = "metadef_resource_types")]
pub struct ResourceType {
    #[field(key)]
    pub name: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "metadef_namespace_resource_types", index = "name")]
pub struct Association {
    #[field(key)]
    pub namespace_id: String,
    #[field(key)]
    pub name: String,
    /// What the names of properties begin with at such a resource.
    pub prefix: Option<String>,
    pub properties_target: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
