//! A directory of this machine.

use super::Backend;
use crate::bytes::{self, Arrived, CHUNK_BYTES, Chunks, Facts, Files};
use async_trait::async_trait;
use base::{Json, Result};
use serde_json::json;
use std::ops::Range;

pub struct FileStore(pub Files);

#[async_trait]
impl Backend for FileStore {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn properties(&self) -> Json {
        let directory = self.0.directory().display().to_string();
        json!({"data_dir": directory, "chunk_size": CHUNK_BYTES, "thin_provisioning": true})
    }

    fn url(&self, image_id: &str) -> String {
        format!("file://{}", self.0.path(image_id).display())
    }

    fn gathers_in(&self) -> Option<&Files> {
        Some(&self.0)
    }

    async fn keep(&self, image_id: &str, arrived: Arrived) -> Result<Facts> {
        arrived.move_to(&self.0.path(image_id)).await
    }

    async fn read(&self, image_id: &str, _elsewhere: Option<&str>, range: Range<u64>) -> Result<Chunks> {
        bytes::read(self.0.path(image_id), range).await
    }

    async fn remove(&self, image_id: &str, _elsewhere: Option<&str>) -> Result<()> {
        self.0.remove(image_id)
    }
}
