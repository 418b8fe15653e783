//! Other people's web servers: an image's bytes stay where its URL says, and are read from there. As `web-download`, it
//! reads nothing of this machine or the networks behind it.

use super::Backend;
use crate::{
    Options,
    bytes::{self, Arrived, Chunks, Facts},
    web_download,
};
use async_trait::async_trait;
use base::{Error, Json, Result};
use serde_json::json;
use std::ops::Range;

pub const KIND: &str = "http";

pub struct WebStore(pub Options);

#[async_trait]
impl Backend for WebStore {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn properties(&self) -> Json {
        json!({})
    }

    fn url(&self, _image_id: &str) -> String {
        String::new()
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn serves(&self, url: &str) -> bool {
        url.starts_with("http://") || url.starts_with("https://")
    }

    async fn open(&self, url: &str) -> Result<(Chunks, Option<u64>)> {
        let refused = || Error::bad_request(format!("{url} may not be read"));
        let target = web_download::target(url, &self.0).await.ok_or_else(refused)?;
        web_download::open(target, None, &self.0).await
    }

    async fn keep(&self, _image_id: &str, _arrived: Arrived) -> Result<Facts> {
        Err(Error::gone("Error in store configuration. Adding images to store is disabled."))
    }

    async fn read(&self, image_id: &str, elsewhere: Option<&str>, range: Range<u64>) -> Result<Chunks> {
        let nowhere = || Error::not_found(format!("Image {image_id} has no URL"));
        let url = elsewhere.ok_or_else(nowhere)?;
        let refused = || Error::bad_request(format!("{url} may not be read"));
        let target = web_download::target(url, &self.0).await.ok_or_else(refused)?;
        // Not every server knows ranges: of a whole image none is asked for.
        let part = (range.start > 0).then_some(range.clone());
        let (chunks, length) = web_download::open(target, part, &self.0).await?;
        if length.is_some_and(|length| length < range.end - range.start) {
            return Err(Error::unavailable(format!("{url} is shorter than it was")));
        }
        Ok(bytes::part_of(chunks, 0..range.end - range.start))
    }

    /// Other people's bytes are not removed.
    async fn remove(&self, _image_id: &str, _elsewhere: Option<&str>) -> Result<()> {
        Ok(())
    }
}
