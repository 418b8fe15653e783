//! The nouns of block storage as tables, and their states.

use base::{Json, Timestamp};
use contracts::{agents::volume, compute::Connection};
use db::{AsJson, Migration, Resource, Table, text_enum};
use std::collections::BTreeMap;

pub const TABLES: &[&Table] = &[
    Volume::TABLE,
    Attachment::TABLE,
    Snapshot::TABLE,
    VolumeType::TABLE,
    QosSpecs::TABLE,
    Encryption::TABLE,
    Quota::TABLE,
    BackEnd::TABLE,
    Message::TABLE,
    Transfer::TABLE,
    GroupType::TABLE,
    Group::TABLE,
    GroupSnapshot::TABLE,
    Backup::TABLE,
    DefaultType::TABLE,
    flow::TABLES[0],
    flow::TABLES[1],
    flow::TABLES[2],
];

/// What databases from before lack.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "groups and backups",
        statements: &[
            "ALTER TABLE volumes ADD COLUMN group_id TEXT",
            "ALTER TABLE volumes ADD COLUMN backup_id TEXT",
            "ALTER TABLE snapshots ADD COLUMN group_snapshot_id TEXT",
        ],
    },
    Migration {
        number: 2,
        name: "what backups know of images",
        statements: &[
            "ALTER TABLE backups ADD COLUMN image_metadata TEXT NOT NULL DEFAULT '{}'",
            "ALTER TABLE backups ADD COLUMN bootable BOOLEAN NOT NULL DEFAULT FALSE",
        ],
    },
];

pub type Texts = AsJson<BTreeMap<String, String>>;

text_enum! {
    pub enum VolumeStatus {
        Creating = "creating", Downloading = "downloading", Available = "available", Reserved = "reserved",
        Attaching = "attaching", InUse = "in-use", Detaching = "detaching", Extending = "extending",
        Uploading = "uploading", Retyping = "retyping", Reverting = "reverting", Deleting = "deleting",
        AwaitingTransfer = "awaiting-transfer", Maintenance = "maintenance", RestoringBackup = "restoring-backup",
        Managing = "managing",
        BackingUp = "backing-up", Error = "error", ErrorDeleting = "error_deleting",
        ErrorExtending = "error_extending", ErrorRestoring = "error_restoring", ErrorBackingUp = "error_backing-up",
        ErrorManaging = "error_managing",
    }
}

text_enum! {
    pub enum AttachStatus {
        Attached = "attached", Attaching = "attaching", Detached = "detached", Detaching = "detaching",
        Reserved = "reserved", ErrorAttaching = "error_attaching", ErrorDetaching = "error_detaching",
        Deleted = "deleted",
    }
}

text_enum! {
    pub enum SnapshotStatus {
        Creating = "creating", Available = "available", Deleting = "deleting", Deleted = "deleted",
        Updating = "updating", Error = "error", ErrorDeleting = "error_deleting", Restoring = "restoring",
        Unmanaging = "unmanaging", BackingUp = "backing-up",
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "volumes",
    singular = "volume",
    plural = "volumes",
    index = "project_id, created_at DESC, id DESC",
    index = "created_at DESC, id DESC",
    index = "host",
    index = "source_volid",
    index = "snapshot_id",
    index = "group_id"
)]
pub struct Volume {
    #[field(key, sort, filter)]
    pub id: String,
    #[field(sort, filter)]
    pub project_id: String,
    #[field(sort, filter)]
    pub user_id: String,
    #[field(sort, filter)]
    pub display_name: Option<String>,
    #[field(sort, filter)]
    pub display_description: Option<String>,
    /// GiB.
    #[field(sort, filter)]
    pub size: i64,
    /// What an extension under way will make it; 0 without one. The quota counts the larger.
    pub wanted_size: i64,
    #[field(sort, filter)]
    pub availability_zone: String,
    #[field(sort, filter)]
    pub status: VolumeStatus,
    /// What it was before something that is being done to it.
    pub previous_status: Option<VolumeStatus>,
    #[field(sort, filter)]
    pub attach_status: AttachStatus,
    #[field(sort, filter)]
    pub migration_status: Option<String>,
    #[field(sort, filter)]
    pub volume_type_id: String,
    #[field(sort, filter)]
    pub snapshot_id: Option<String>,
    #[field(sort, filter)]
    pub source_volid: Option<String>,
    pub backup_id: Option<String>,
    pub image_id: Option<String>,
    /// As glance has it, for the agent.
    pub image_disk_format: Option<String>,
    #[field(sort, filter)]
    pub bootable: bool,
    #[field(sort, filter)]
    pub multiattach: bool,
    /// None until somebody says.
    pub readonly: Option<bool>,
    pub attached_mode: Option<String>,
    pub metadata: Texts,
    /// What the image it was made from said of itself.
    pub image_metadata: Texts,
    /// `host@backend#pool`; none before it is scheduled.
    #[field(sort, filter)]
    pub host: Option<String>,
    #[field(filter)]
    pub group_id: Option<String>,
    #[field(sort, filter)]
    pub created_at: Timestamp,
    #[field(sort, filter)]
    pub updated_at: Option<Timestamp>,
    #[field(sort)]
    pub launched_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "volume_attachments",
    singular = "attachment",
    plural = "attachments",
    index = "volume_id",
    index = "project_id, created_at DESC, id DESC"
)]
pub struct Attachment {
    #[field(key, sort)]
    pub id: String,
    #[field(sort, filter)]
    pub volume_id: String,
    #[field(sort, filter)]
    pub project_id: String,
    #[field(sort, filter)]
    pub instance_uuid: Option<String>,
    pub attached_host: Option<String>,
    pub mountpoint: Option<String>,
    /// `rw`, `ro` or `null`.
    pub attach_mode: String,
    #[field(sort, filter)]
    pub attach_status: AttachStatus,
    #[field(sort)]
    pub attach_time: Option<Timestamp>,
    pub detach_time: Option<Timestamp>,
    /// As the host sent it.
    pub connector: Json,
    pub connection: Option<AsJson<Connection>>,
    #[field(sort)]
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "snapshots",
    singular = "snapshot",
    plural = "snapshots",
    index = "volume_id",
    index = "group_snapshot_id",
    index = "project_id, created_at DESC, id DESC",
    index = "created_at DESC, id DESC"
)]
pub struct Snapshot {
    #[field(key, sort, filter)]
    pub id: String,
    #[field(sort, filter)]
    pub volume_id: String,
    #[field(sort, filter)]
    pub project_id: String,
    #[field(sort, filter)]
    pub user_id: String,
    #[field(sort, filter)]
    pub display_name: Option<String>,
    #[field(sort, filter)]
    pub display_description: Option<String>,
    #[field(sort, filter)]
    pub status: SnapshotStatus,
    pub progress: String,
    #[field(sort, filter)]
    pub volume_size: i64,
    pub volume_type_id: String,
    #[field(filter)]
    pub group_snapshot_id: Option<String>,
    pub metadata: Texts,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "volume_types", singular = "volume_type", plural = "volume_types", unique = "name")]
pub struct VolumeType {
    #[field(key, sort)]
    pub id: String,
    #[field(sort, filter)]
    pub name: String,
    #[field(sort, filter)]
    pub description: Option<String>,
    #[field(sort, filter)]
    pub is_public: bool,
    pub extra_specs: Texts,
    pub qos_specs_id: Option<String>,
    /// Projects that see it when it is not public.
    pub projects: Vec<String>,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Option<Timestamp>,
}

/// How volumes of a type are to be encrypted.
#[derive(Clone, Debug, Resource)]
#[resource(table = "encryption")]
pub struct Encryption {
    #[field(key)]
    pub volume_type_id: String,
    pub encryption_id: String,
    pub provider: String,
    /// `front-end` or `back-end`.
    pub control_location: String,
    pub cipher: Option<String>,
    /// Bits.
    pub key_size: Option<i64>,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "quality_of_service_specs", singular = "qos_specs", plural = "qos_specs", unique = "name")]
pub struct QosSpecs {
    #[field(key, sort)]
    pub id: String,
    #[field(sort, filter)]
    pub name: String,
    /// `back-end`, `front-end` or `both`.
    #[field(sort, filter)]
    pub consumer: String,
    pub specs: Texts,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Option<Timestamp>,
}

/// A limit that differs from the configured one: a project's, or that of the class `default`.
#[derive(Clone, Debug, Resource)]
#[resource(table = "quotas")]
pub struct Quota {
    /// A project's id, or `class:` and a name.
    #[field(key)]
    pub owner: String,
    #[field(key)]
    pub resource: String,
    pub hard_limit: i64,
}

/// A `cinder-volume` as its agent reports it.
#[derive(Clone, Debug, Resource)]
#[resource(table = "services")]
pub struct BackEnd {
    /// `host@backend`.
    #[field(key)]
    pub host: String,
    pub uuid: String,
    pub disabled: bool,
    pub disabled_reason: Option<String>,
    /// Nothing on it is made, removed or kept until it is thawed.
    pub frozen: bool,
    pub facts: AsJson<volume::BackEnd>,
    pub last_seen_at: Timestamp,
    pub created_at: Timestamp,
}

/// Why something that a user asked for failed.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "messages",
    singular = "message",
    plural = "messages",
    index = "project_id, created_at DESC, id DESC",
    index = "expires_at"
)]
pub struct Message {
    #[field(key, sort)]
    pub id: String,
    #[field(sort, filter)]
    pub project_id: String,
    #[field(sort, filter)]
    pub request_id: String,
    #[field(sort, filter)]
    pub resource_type: String,
    #[field(sort, filter)]
    pub resource_uuid: String,
    #[field(sort, filter)]
    pub event_id: String,
    #[field(sort, filter)]
    pub message_level: String,
    pub user_message: String,
    #[field(sort)]
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// A volume on its way to another project.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "transfers",
    singular = "transfer",
    plural = "transfers",
    unique = "volume_id",
    index = "source_project_id, created_at DESC, id DESC"
)]
pub struct Transfer {
    #[field(key, sort)]
    pub id: String,
    #[field(sort, filter)]
    pub volume_id: String,
    #[field(sort, filter)]
    pub display_name: Option<String>,
    pub salt: String,
    pub crypt_hash: String,
    pub source_project_id: String,
    pub no_snapshots: bool,
    #[field(sort)]
    pub created_at: Timestamp,
}

text_enum! {
    pub enum GroupStatus {
        Error = "error", Available = "available", Creating = "creating", Deleting = "deleting",
        Deleted = "deleted", Updating = "updating", InUse = "in-use", ErrorDeleting = "error_deleting",
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "group_types", singular = "group_type", plural = "group_types", unique = "name")]
pub struct GroupType {
    #[field(key, sort)]
    pub id: String,
    #[field(sort, filter)]
    pub name: String,
    #[field(sort)]
    pub description: Option<String>,
    #[field(filter)]
    pub is_public: bool,
    pub group_specs: AsJson<BTreeMap<String, Option<String>>>,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "groups",
    singular = "group",
    plural = "groups",
    index = "project_id, created_at DESC, id DESC",
    index = "group_type_id"
)]
pub struct Group {
    #[field(key, sort, filter)]
    pub id: String,
    #[field(sort, filter)]
    pub project_id: String,
    pub user_id: String,
    #[field(sort, filter)]
    pub name: Option<String>,
    #[field(sort, filter)]
    pub description: Option<String>,
    #[field(sort, filter)]
    pub status: GroupStatus,
    #[field(sort, filter)]
    pub availability_zone: String,
    #[field(filter)]
    pub group_type_id: String,
    /// Ids of those that its volumes may have.
    pub volume_types: Vec<String>,
    #[field(filter)]
    pub group_snapshot_id: Option<String>,
    #[field(filter)]
    pub source_group_id: Option<String>,
    /// Where all its volumes are; none: no back end fits.
    pub host: Option<String>,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "group_snapshots",
    singular = "group_snapshot",
    plural = "group_snapshots",
    index = "project_id, created_at DESC, id DESC",
    index = "group_id"
)]
pub struct GroupSnapshot {
    #[field(key, sort, filter)]
    pub id: String,
    #[field(sort, filter)]
    pub group_id: String,
    pub group_type_id: String,
    #[field(sort, filter)]
    pub project_id: String,
    pub user_id: String,
    #[field(sort, filter)]
    pub name: Option<String>,
    #[field(sort, filter)]
    pub description: Option<String>,
    #[field(sort, filter)]
    pub status: GroupStatus,
    #[field(sort)]
    pub created_at: Timestamp,
}

text_enum! {
    pub enum BackupStatus {
        Creating = "creating", Available = "available", Deleting = "deleting", Error = "error",
        Restoring = "restoring", ErrorDeleting = "error_deleting",
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "backups",
    singular = "backup",
    plural = "backups",
    index = "project_id, created_at DESC, id DESC",
    index = "volume_id",
    index = "parent_id"
)]
pub struct Backup {
    #[field(key, sort, filter)]
    pub id: String,
    #[field(sort, filter)]
    pub project_id: String,
    pub user_id: String,
    #[field(sort, filter)]
    pub display_name: Option<String>,
    #[field(sort, filter)]
    pub display_description: Option<String>,
    #[field(sort, filter)]
    pub volume_id: String,
    #[field(filter)]
    pub snapshot_id: Option<String>,
    /// The one whose chunks it does not repeat.
    #[field(filter)]
    pub parent_id: Option<String>,
    #[field(sort, filter)]
    pub status: BackupStatus,
    /// GiB of the volume.
    #[field(sort, filter)]
    pub size: i64,
    pub object_count: i64,
    #[field(sort, filter)]
    pub container: Option<String>,
    #[field(sort, filter)]
    pub availability_zone: Option<String>,
    pub fail_reason: Option<String>,
    /// The back end that saved it.
    #[field(filter)]
    pub host: String,
    /// Its id where it is kept; that of another cloud, which may have given it another one here.
    #[field(filter)]
    pub stored_as: String,
    /// What the volume's users had written on it.
    pub volume_metadata: Texts,
    /// What the image said that the volume was made of.
    pub image_metadata: Texts,
    /// A server can start from the volume.
    pub bootable: bool,
    /// When the volume was as it is in here.
    #[field(sort)]
    pub data_timestamp: Timestamp,
    pub metadata: Texts,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Option<Timestamp>,
}

/// The type of a project's volumes that name none.
#[derive(Clone, Debug, Resource)]
#[resource(table = "default_volume_types")]
pub struct DefaultType {
    #[field(key)]
    pub project_id: String,
    pub volume_type_id: String,
}

impl Volume {
    /// The agent that has it: its host without the pool.
    pub fn back_end(&self) -> Option<&str> {
        self.host.as_deref().map(|host| host.split('#').next().unwrap_or(host))
    }
}
