//! What nova asks of cinder. Ids are chosen by the caller, so that a repeated call makes nothing twice.

use crate::compute::Connection;
use async_trait::async_trait;
use base::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[async_trait]
pub trait Volumes: Send + Sync {
    /// A volume that the caller may see; `NotFound` otherwise.
    async fn show(&self, cx: &Context, volume_id: &str) -> Result<Volume>;

    async fn show_snapshot(&self, cx: &Context, snapshot_id: &str) -> Result<Snapshot>;

    /// Begins to make the volume, or answers the one that has this id already. It is `available` when it is ready.
    async fn create(&self, cx: &Context, volume: &NewVolume) -> Result<Volume>;

    /// One that is gone is fine.
    async fn delete(&self, cx: &Context, volume_id: &str) -> Result<()>;

    /// Begins to write an image over a volume that is spoken for and that nobody is connected to. It is `downloading`
    /// meanwhile, and `reserved` again afterwards.
    async fn reimage(&self, cx: &Context, volume_id: &str, image_id: &str) -> Result<()>;

    /// The volume is spoken for: cinder's attachment without a connector. `Conflict` when it is not to be had.
    async fn reserve(&self, cx: &Context, attachment: &NewAttachment) -> Result<()>;

    /// Makes the volume reachable from a host: cinder's attachment update.
    async fn connect(&self, cx: &Context, attachment_id: &str, connector: &Connector) -> Result<Connection>;

    /// The guest has it: `in-use`.
    async fn complete(&self, cx: &Context, attachment_id: &str) -> Result<()>;

    /// Deletes the attachment; one that is gone is fine.
    async fn detach(&self, cx: &Context, attachment_id: &str) -> Result<()>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub id: String,
    pub name: String,
    pub project_id: String,
    /// `available`, `in-use`, `creating`, `error`, …
    pub status: String,
    pub size_gb: u64,
    pub bootable: bool,
    pub multiattach: bool,
    pub availability_zone: String,
    /// Ids of the servers that hold it.
    pub attached_to: Vec<String>,
    /// What the image it was made from said of itself; `image_id` among it.
    pub image_metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    pub id: String,
    pub volume_id: String,
    pub status: String,
    pub size_gb: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewVolume {
    pub id: String,
    pub name: String,
    pub description: String,
    pub size_gb: u64,
    pub image_id: Option<String>,
    pub snapshot_id: Option<String>,
    pub volume_type: Option<String>,
    pub availability_zone: Option<String>,
    /// Spoken for from the beginning, so that nobody else takes it once it is made.
    pub attachment: Option<NewAttachment>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewAttachment {
    pub id: String,
    pub volume_id: String,
    pub instance_id: String,
    pub read_only: bool,
}

/// The host that wants to reach a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connector {
    pub host: String,
    pub ip: String,
    /// As the guest is to have it, `/dev/vdb`.
    pub mountpoint: Option<String>,
}
