//! The nouns of compute as tables, and which state may follow which.

use crate::flows::{port_requests::Allocations, relocate::Place};
use base::{Json, Timestamp};
use contracts::{compute, networks};
use db::{AsJson, Resource, Table, text_enum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const TABLES: &[&Table] = &[
    Instance::TABLE,
    BlockDevice::TABLE,
    InstanceAction::TABLE,
    InstanceActionEvent::TABLE,
    Flavor::TABLE,
    KeyPair::TABLE,
    ServerGroup::TABLE,
    Aggregate::TABLE,
    Service::TABLE,
    ComputeNode::TABLE,
    Quota::TABLE,
    Migration::TABLE,
    InstanceExtra::TABLE,
    ConsoleToken::TABLE,
    GuestPassword::TABLE,
    flow::TABLES[0],
    flow::TABLES[1],
    flow::TABLES[2],
];

/// What databases from before have that is no longer asked for.
pub const MIGRATIONS: &[db::Migration] = &[db::Migration {
    number: 1,
    name: "lists of servers by an index of their whole order",
    statements: &[
        "DROP INDEX IF EXISTS instances_deleted_project_id_created_atDESC_uuid",
        "DROP INDEX IF EXISTS instances_deleted_created_atDESC_uuid",
    ],
}];

text_enum! {
    /// What a server is when nothing is being done to it.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum VmState {
        Building = "building", Active = "active", Paused = "paused", Suspended = "suspended",
        Stopped = "stopped", Rescued = "rescued", Resized = "resized", SoftDeleted = "soft-delete",
        Deleted = "deleted", Error = "error", Shelved = "shelved", ShelvedOffloaded = "shelved_offloaded",
    }
}

text_enum! {
    /// What is being done to it.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum TaskState {
        Scheduling = "scheduling", BlockDeviceMapping = "block_device_mapping", Networking = "networking",
        Spawning = "spawning", Deleting = "deleting", PoweringOff = "powering-off", PoweringOn = "powering-on",
        Rebooting = "rebooting", RebootingHard = "rebooting_hard", Pausing = "pausing",
        Unpausing = "unpausing", Suspending = "suspending", Resuming = "resuming", Rebuilding = "rebuilding",
        RebuildSpawning = "rebuild_spawning", ResizePrep = "resize_prep", ResizeMigrating = "resize_migrating",
        ResizeFinish = "resize_finish", ResizeReverting = "resize_reverting", Migrating = "migrating",
        ImageSnapshotPending = "image_snapshot_pending", ImageSnapshot = "image_snapshot",
        ImagePendingUpload = "image_pending_upload", ImageUploading = "image_uploading",
        ImageBackup = "image_backup", ResizeMigrated = "resize_migrated", ResizeConfirming = "resize_confirming",
        Rescuing = "rescuing", Unrescuing = "unrescuing", Shelving = "shelving",
        ShelvingImagePendingUpload = "shelving_image_pending_upload",
        ShelvingImageUploading = "shelving_image_uploading", ShelvingOffloading = "shelving_offloading",
        Unshelving = "unshelving",
    }
}

/// A server. Deleted ones stay, for those who ask what has changed.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "instances",
    singular = "server",
    unique = "number",
    index = "deleted, project_id, created_at DESC, uuid DESC",
    index = "deleted, created_at DESC, uuid DESC",
    // What hosts and projects use is summed up without a look at the servers themselves.
    index = "deleted, host, task_state, vcpus, memory_mb, disk_gb",
    index = "project_id, deleted, vcpus, memory_mb",
    index = "server_group_id",
    index = "updated_at"
)]
pub struct Instance {
    #[field(key, sort)]
    pub uuid: String,
    /// The number in its name on the host.
    pub number: i64,
    #[field(sort, filter)]
    pub project_id: String,
    #[field(sort, filter)]
    pub user_id: String,
    #[field(sort)]
    pub display_name: String,
    #[field(sort)]
    pub display_description: Option<String>,
    #[field(sort)]
    pub hostname: String,
    #[field(sort, filter)]
    pub vm_state: VmState,
    #[field(sort, filter)]
    pub task_state: Option<TaskState>,
    #[field(sort, filter)]
    pub power_state: i64,
    #[field(sort)]
    pub progress: i64,
    #[field(sort, filter)]
    pub host: Option<String>,
    #[field(sort, filter)]
    pub node: Option<String>,
    /// Where it is.
    #[field(sort)]
    pub availability_zone: Option<String>,
    /// Where it must be.
    pub pinned_availability_zone: Option<String>,
    /// As it was when the server was made or resized.
    pub flavor: AsJson<Flavor>,
    #[field(filter)]
    pub flavor_id: String,
    /// For the quota, which sums them up.
    pub vcpus: i64,
    pub memory_mb: i64,
    /// Of the host's own disk.
    pub disk_gb: i64,
    /// Empty for a server that boots from a volume.
    #[field(sort, filter)]
    pub image_ref: String,
    /// What the scheduler, the host and the user may need to know of the image.
    pub image: AsJson<ImageFacts>,
    #[field(sort)]
    pub key_name: Option<String>,
    pub public_key: Option<String>,
    pub key_type: Option<String>,
    pub user_data: Option<String>,
    /// `""` or `"True"`.
    #[field(sort)]
    pub config_drive: String,
    pub metadata: AsJson<BTreeMap<String, String>>,
    pub tags: Vec<String>,
    #[field(sort)]
    pub access_ip_v4: Option<String>,
    #[field(sort)]
    pub access_ip_v6: Option<String>,
    /// `owner` or `admin`.
    #[field(sort)]
    pub locked_by: Option<String>,
    pub locked_reason: Option<String>,
    #[field(sort)]
    pub auto_disk_config: bool,
    #[field(sort)]
    pub root_device_name: Option<String>,
    #[field(filter)]
    pub reservation_id: String,
    #[field(sort)]
    pub launch_index: i64,
    pub personality: AsJson<Vec<InjectedFile>>,
    pub security_groups: Vec<String>,
    pub scheduler_hints: Json,
    pub server_group_id: Option<String>,
    pub trusted_image_certificates: Option<AsJson<Vec<String>>>,
    /// Its cards as they were last seen, in the order in which the guest has them.
    pub nics: AsJson<Vec<Nic>>,
    pub fault: Option<AsJson<Fault>>,
    pub deleted: bool,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Timestamp,
    #[field(sort)]
    pub launched_at: Option<Timestamp>,
    #[field(sort)]
    pub terminated_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFacts {
    pub disk_format: String,
    pub min_disk_gb: u64,
    pub min_ram_mb: u64,
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InjectedFile {
    pub path: String,
    /// base64
    pub contents: String,
}

/// A port as the server's card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    pub port: networks::Port,
    /// Made for the server, and deleted with it.
    pub ours: bool,
    pub tag: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub code: u16,
    pub message: String,
    /// Administrators see it.
    pub details: String,
    pub created_at: Timestamp,
}

/// A disk of a server that is told apart from its flavor's: a volume, or a local one asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, Resource)]
#[resource(table = "block_devices", index = "instance_uuid", index = "volume_id")]
pub struct BlockDevice {
    #[field(key)]
    pub id: String,
    pub instance_uuid: String,
    /// `volume`, `image`, `snapshot` or `blank`.
    pub source_type: String,
    /// `volume` or `local`.
    pub destination_type: String,
    /// The image or snapshot.
    pub source_id: Option<String>,
    pub volume_id: Option<String>,
    pub volume_size_gb: Option<i64>,
    pub volume_type: Option<String>,
    pub attachment_id: Option<String>,
    pub connection: Option<AsJson<compute::Connection>>,
    pub device_name: Option<String>,
    pub boot_index: Option<i64>,
    pub delete_on_termination: bool,
    pub guest_format: Option<String>,
    pub tag: Option<String>,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "instance_actions", index = "instance_uuid, updated_at DESC", index = "request_id")]
pub struct InstanceAction {
    #[field(key)]
    pub id: String,
    pub instance_uuid: String,
    pub request_id: String,
    pub action: String,
    pub project_id: String,
    pub user_id: String,
    pub start_time: Timestamp,
    pub finish_time: Option<Timestamp>,
    /// `Error` when it failed.
    pub message: Option<String>,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "instance_action_events", index = "action_id, start_time")]
pub struct InstanceActionEvent {
    #[field(key)]
    pub id: String,
    pub action_id: String,
    /// `compute__do_build_and_run_instance` and the like.
    pub event: String,
    pub start_time: Timestamp,
    pub finish_time: Option<Timestamp>,
    /// `Success` or `Error`.
    pub result: Option<String>,
    pub traceback: Option<String>,
    pub host: Option<String>,
    /// What users are told.
    pub details: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[serde(default)]
#[resource(table = "flavors", singular = "flavor", unique = "name", index = "is_public")]
pub struct Flavor {
    #[field(key, sort)]
    pub flavorid: String,
    #[field(sort)]
    pub name: String,
    #[field(sort)]
    pub memory_mb: i64,
    #[field(sort)]
    pub vcpus: i64,
    #[field(sort)]
    pub root_gb: i64,
    #[field(sort)]
    pub ephemeral_gb: i64,
    /// In MiB.
    #[field(sort)]
    pub swap: i64,
    #[field(sort)]
    pub rxtx_factor: f64,
    #[field(sort)]
    pub vcpu_weight: Option<i64>,
    #[field(sort)]
    pub disabled: bool,
    #[field(sort, filter)]
    pub is_public: bool,
    pub description: Option<String>,
    pub extra_specs: AsJson<BTreeMap<String, String>>,
    /// Projects that see it when it is not public.
    pub projects: Vec<String>,
    #[field(sort)]
    pub created_at: Timestamp,
    #[field(sort)]
    pub updated_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "key_pairs", singular = "keypair", unique = "number")]
pub struct KeyPair {
    #[field(key)]
    pub user_id: String,
    #[field(key, sort)]
    pub name: String,
    pub number: i64,
    /// `ssh` or `x509`.
    pub r#type: String,
    pub fingerprint: String,
    pub public_key: String,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "server_groups", singular = "server_group", index = "project_id, created_at")]
pub struct ServerGroup {
    #[field(key, sort)]
    pub id: String,
    pub name: String,
    #[field(filter)]
    pub project_id: String,
    pub user_id: String,
    /// `affinity`, `anti-affinity`, `soft-affinity` or `soft-anti-affinity`.
    pub policy: String,
    /// `max_server_per_host`
    pub rules: AsJson<BTreeMap<String, i64>>,
    #[field(sort)]
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "aggregates", singular = "aggregate", unique = "name", unique = "uuid")]
pub struct Aggregate {
    #[field(key)]
    pub id: i64,
    pub uuid: String,
    pub name: String,
    /// `availability_zone` among it.
    pub metadata: AsJson<BTreeMap<String, String>>,
    pub hosts: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
}

/// A process of nova on a host, as `os-services` shows it.
#[derive(Clone, Debug, Resource)]
#[resource(table = "services", singular = "service", unique = "host, program", unique = "number")]
pub struct Service {
    #[field(key)]
    pub uuid: String,
    pub number: i64,
    pub host: String,
    /// `nova-compute` and so on. Its name in bodies is a word of PostgreSQL's own.
    #[field(json = "binary")]
    pub program: String,
    pub topic: String,
    pub disabled: bool,
    pub disabled_reason: Option<String>,
    pub forced_down: bool,
    pub last_seen_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A host's resources as its agent last told them.
#[derive(Clone, Debug, Resource)]
#[resource(table = "compute_nodes", singular = "hypervisor", unique = "host", unique = "number")]
pub struct ComputeNode {
    /// Also the id of its resource provider.
    #[field(key)]
    pub uuid: String,
    pub number: i64,
    pub host: String,
    pub facts: AsJson<compute::Host>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A limit that differs from the configured one, of a project, or of a user in it.
#[derive(Clone, Debug, Resource)]
#[resource(table = "quotas")]
pub struct Quota {
    #[field(key)]
    pub project_id: String,
    /// Empty: the project as a whole. A class of limits has `class:default` for its project.
    #[field(key)]
    pub user_id: String,
    /// `instances`, `cores`, …
    #[field(key)]
    pub resource: String,
    pub hard_limit: i64,
}

/// A move of a server to another host or flavor, done or under way.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "migrations",
    singular = "migration",
    unique = "number",
    index = "instance_uuid, created_at",
    index = "source_compute, status",
    index = "dest_compute, status"
)]
pub struct Migration {
    #[field(key)]
    pub uuid: String,
    pub number: i64,
    #[field(filter)]
    pub instance_uuid: String,
    /// `migration`, `resize`, `live-migration` or `evacuation`.
    #[field(filter)]
    pub migration_type: String,
    /// `queued`, `preparing`, `running`, `finished`, `confirmed`, `reverted`, `error`, …
    #[field(filter)]
    pub status: String,
    #[field(filter)]
    pub source_compute: Option<String>,
    pub source_node: Option<String>,
    pub dest_compute: Option<String>,
    pub dest_node: Option<String>,
    pub dest_host: Option<String>,
    pub old_flavor_id: Option<String>,
    pub new_flavor_id: Option<String>,
    #[field(filter)]
    pub user_id: String,
    #[field(filter)]
    pub project_id: String,
    #[field(sort)]
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
}

/// What a server remembers beside its row, of states and operations that few are in.
#[derive(Clone, Debug, Resource)]
#[resource(table = "instance_extra")]
pub struct InstanceExtra {
    #[field(key)]
    pub instance_uuid: String,
    pub extra: AsJson<Extra>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// Until it is confirmed or reverted.
    pub resized: Option<Resized>,
    pub shelved: Option<Shelved>,
    /// What moves that went wrong could not clear away.
    pub left_behind: Vec<LeftBehind>,
}

/// What a server was before it was resized or migrated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resized {
    /// Also the consumer that holds the room at the source.
    pub migration_uuid: String,
    pub old_flavor: Flavor,
    pub source: Place,
    pub was: VmState,
    /// Who gave its ports at the source what they ask for.
    #[serde(default)]
    pub allocations: Allocations,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shelved {
    /// None for a server of volumes.
    pub image_id: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftBehind {
    pub host: String,
    pub migration_uuid: String,
    pub attachments: Vec<String>,
}

/// The right to see a server's screen for a while. The token itself is with its owner alone.
#[derive(Clone, Debug, Resource)]
#[resource(table = "console_tokens", index = "instance_uuid", index = "expires_at")]
pub struct ConsoleToken {
    /// SHA-256
    #[field(key)]
    pub token_hash: String,
    pub instance_uuid: String,
    /// `novnc`
    pub console_type: String,
    pub host: String,
    pub port: i64,
    pub expires_at: Timestamp,
}

/// What a guest left as its administrator's password, encrypted with its owner's key.
#[derive(Clone, Debug, Resource)]
#[resource(table = "guest_passwords")]
pub struct GuestPassword {
    #[field(key)]
    pub instance_uuid: String,
    pub password: String,
}
