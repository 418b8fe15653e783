//! Images, their tags, properties and members, and the tasks that import them, as tables.

use crate::stores::Stores;
use base::{Json, Timestamp};
use db::Resource;
use serde_json::{Map, json};

pub mod metadefs;

pub static TABLES: &[&db::Table] = &[
    Image::TABLE,
    Deleted::TABLE,
    Tag::TABLE,
    Property::TABLE,
    Member::TABLE,
    Location::TABLE,
    Cached::TABLE,
    Task::TABLE,
    metadefs::Namespace::TABLE,
    metadefs::Object::TABLE,
    metadefs::Property::TABLE,
    metadefs::Tag::TABLE,
    metadefs::ResourceType::TABLE,
    metadefs::Association::TABLE,
    flow::TABLES[0],
    flow::TABLES[1],
    flow::TABLES[2],
];

/// What databases from before lack.
pub const MIGRATIONS: &[db::Migration] = &[
    db::Migration {
        number: 1,
        name: "a cache for each node: what was cached is cached again",
        statements: &["DROP TABLE IF EXISTS cached_images"],
    },
    db::Migration {
        number: 2,
        name: "who takes bytes, and where they wait",
        statements: &[
            "ALTER TABLE images ADD COLUMN process TEXT",
            "ALTER TABLE images ADD COLUMN stage_host TEXT",
            "ALTER TABLE tasks ADD COLUMN process TEXT",
        ],
    },
];

db::text_enum! {
    pub enum Status {
        Queued = "queued",
        Saving = "saving",
        /// Bytes wait to be imported.
        Uploading = "uploading",
        Importing = "importing",
        Active = "active",
        Deactivated = "deactivated",
        /// Deleted; its bytes are still to go.
        PendingDelete = "pending_delete",
    }
}

db::text_enum! {
    pub enum Visibility {
        Community = "community",
        Public = "public",
        Private = "private",
        Shared = "shared",
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "images",
    index = "owner, created_at",
    index = "visibility, created_at",
    index = "created_at, id",
    index = "name",
    index = "status, updated_at, id"
)]
pub struct Image {
    #[field(key)]
    pub id: String,
    pub name: Option<String>,
    pub status: Status,
    pub visibility: Visibility,
    pub owner: Option<String>,
    pub disk_format: Option<String>,
    pub container_format: Option<String>,
    pub size: Option<i64>,
    pub virtual_size: Option<i64>,
    pub checksum: Option<String>,
    pub os_hash_algo: Option<String>,
    pub os_hash_value: Option<String>,
    pub min_disk: i64,
    pub min_ram: i64,
    pub protected: bool,
    pub os_hidden: bool,
    pub stores: Option<String>,
    /// Who takes its bytes now.
    pub process: Option<String>,
    /// Where the node is reached that has its staged bytes, if others have not.
    pub stage_host: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The id of an image that is gone. Nobody gets it again: others may still trust it.
#[derive(Clone, Debug, Resource)]
#[resource(table = "deleted_images")]
pub struct Deleted {
    #[field(key)]
    pub id: String,
    pub deleted_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "image_tags", index = "tag")]
pub struct Tag {
    #[field(key)]
    pub image_id: String,
    #[field(key)]
    pub tag: String,
}

/// A property of one's own: `hw_disk_bus`, `colour`.
#[derive(Clone, Debug, Resource)]
#[resource(table = "image_properties", index = "name, value")]
pub struct Property {
    #[field(key)]
    pub image_id: String,
    #[field(key)]
    pub name: String,
    pub value: String,
}

/// A project that a shared image is shared with.
#[derive(Clone, Debug, Resource)]
#[resource(table = "image_members", index = "member_id, status")]
pub struct Member {
    #[field(key)]
    pub image_id: String,
    #[field(key)]
    pub member_id: String,
    pub status: MemberStatus,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

db::text_enum! {
    pub enum MemberStatus {
        Pending = "pending",
        Accepted = "accepted",
        Rejected = "rejected",
    }
}

/// Where an image's bytes are, if somebody else keeps them.
#[derive(Clone, Debug, PartialEq, Resource)]
#[resource(table = "image_locations")]
pub struct Location {
    #[field(key)]
    pub image_id: String,
    #[field(key)]
    pub number: i64,
    pub store: String,
    pub url: String,
    pub metadata: Json,
}

db::text_enum! {
    pub enum CacheState {
        Queued = "queued",
        Cached = "cached",
    }
}

/// An image in a node's cache, or on its way there.
#[derive(Clone, Debug, Resource)]
#[resource(table = "cached_images", index = "node, state, last_accessed")]
pub struct Cached {
    #[field(key)]
    pub image_id: String,
    /// Where that node is reached; empty when there is only one.
    #[field(key)]
    pub node: String,
    pub number: i64,
    pub state: CacheState,
    pub size: i64,
    pub hits: i64,
    pub checksum: Option<String>,
    pub last_accessed: Timestamp,
    pub last_modified: Timestamp,
}

/// An image with all that is shown of it.
#[derive(Clone, Debug)]
pub struct Whole {
    pub image: Image,
    pub tags: Vec<String>,
    pub properties: Vec<(String, String)>,
    pub locations: Vec<Location>,
}

impl Whole {
    /// `locations`: whether it tells where its bytes are.
    pub fn view(&self, stores: &Stores, locations: bool) -> Json {
        let image = &self.image;
        let url = format!("/v2/images/{}", image.id);
        let mut view: Map<String, Json> =
            self.properties.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let columns = json!({
            "name": image.name, "disk_format": image.disk_format, "container_format": image.container_format,
            "visibility": image.visibility.as_str(), "size": image.size, "virtual_size": image.virtual_size,
            "status": image.status.as_str(), "checksum": image.checksum, "protected": image.protected,
            "min_ram": image.min_ram, "min_disk": image.min_disk, "owner": image.owner,
            "os_hidden": image.os_hidden, "os_hash_algo": image.os_hash_algo, "os_hash_value": image.os_hash_value,
            "id": image.id, "created_at": image.created_at.seconds(), "updated_at": image.updated_at.seconds(),
            "tags": self.tags, "self": url, "file": format!("{url}/file"), "schema": "/v2/schemas/image",
        });
        if let Json::Object(columns) = columns {
            view.extend(columns);
        }
        if image.stores.is_some() {
            view.insert("stores".into(), json!(stores.joined(crate::stores::ids(image))));
        }
        if locations {
            let places = stores.locations(self);
            if let Some(best) = places.first() {
                view.insert("direct_url".into(), best["url"].clone());
            }
            view.insert("locations".into(), json!(places));
        }
        Json::Object(view)
    }
}

db::text_enum! {
    pub enum TaskKind {
        Import = "import",
        ApiImageImport = "api_image_import",
        LocationImport = "location_import",
    }
}

db::text_enum! {
    pub enum TaskStatus {
        Pending = "pending",
        Processing = "processing",
        Success = "success",
        Failure = "failure",
    }
}

/// An import: what was asked for, and what became of it. Gone some time after it ended.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "tasks",
    index = "image_id",
    index = "created_at, id",
    index = "expires_at",
    index = "status"
)]
pub struct Task {
    #[field(key)]
    pub id: String,
    pub kind: TaskKind,
    pub status: TaskStatus,
    pub owner: String,
    pub image_id: String,
    pub user_id: String,
    pub request_id: String,
    pub input: Json,
    pub result: Json,
    pub message: String,
    /// Who runs it.
    pub process: Option<String>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
