//! What others ask of glance. Bytes are [`crate::compute::ImageSource`]'s.

use async_trait::async_trait;
use base::{Context, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[async_trait]
pub trait Images: Send + Sync {
    /// An image that the caller may see; `NotFound` otherwise.
    async fn show(&self, cx: &Context, image_id: &str) -> Result<Image>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    pub id: String,
    pub name: String,
    /// `active`, `queued`, …
    pub status: String,
    pub owner: String,
    pub visibility: String,
    pub disk_format: String,
    pub container_format: String,
    pub size_bytes: u64,
    pub virtual_size_bytes: Option<u64>,
    pub min_disk_gb: u64,
    pub min_ram_mb: u64,
    pub checksum: Option<String>,
    pub tags: Vec<String>,
    /// `hw_disk_bus`, `os_distro` and so on.
    pub properties: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
