//! The `[cinder]` section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The zone of volumes that name none, and of back ends that name none.
    pub storage_availability_zone: String,
    /// The type of volumes that name none.
    pub default_volume_type: String,
    /// The most items in one page of a list.
    pub osapi_max_limit: u64,
    /// A project's volumes, unless its quota says otherwise; -1 is no limit.
    pub quota_volumes: i64,
    /// A project's snapshots.
    pub quota_snapshots: i64,
    /// GiB of a project's volumes and snapshots together.
    pub quota_gigabytes: i64,
    /// GiB of one volume.
    pub per_volume_size_limit: i64,
    /// A project's backups.
    pub quota_backups: i64,
    /// GiB of the volumes that a project's backups are of.
    pub quota_backup_gigabytes: i64,
    /// A project's groups.
    pub quota_groups: i64,
    /// A back end that gave no sign of life for so long gets no new volumes.
    pub service_down_time_seconds: u64,
    /// How long a back end may take for one operation, such as writing an image to a volume.
    pub volume_timeout_seconds: u64,
    /// Whether users may make images of volumes that servers have, with `force`.
    pub enable_force_upload: bool,
    /// How long a message to a user is kept.
    pub message_ttl_seconds: u64,
    /// The pause before an operation that a back end did not answer is tried again.
    pub retry_pause_milliseconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            storage_availability_zone: "nova".into(),
            default_volume_type: "__DEFAULT__".into(),
            osapi_max_limit: 1000,
            quota_volumes: 10,
            quota_snapshots: 10,
            quota_gigabytes: 1000,
            per_volume_size_limit: -1,
            quota_backups: 10,
            quota_backup_gigabytes: 1000,
            quota_groups: 10,
            service_down_time_seconds: 60,
            volume_timeout_seconds: 3600,
            enable_force_upload: false,
            message_ttl_seconds: 2_592_000,
            retry_pause_milliseconds: 1000,
        }
    }
}

impl Options {
    pub fn retry_pause(&self) -> Duration {
        Duration::from_millis(self.retry_pause_milliseconds)
    }
}

impl Section for Options {
    const NAME: &'static str = "cinder";
}
