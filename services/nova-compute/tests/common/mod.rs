//! What the agent is given in tests with real guests.

use async_trait::async_trait;
use base::{Context, Result};
use contracts::compute::{ImageSink, ImageSource};
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Glance, as far as one file goes.
pub struct OneImage(pub PathBuf);

#[async_trait]
impl ImageSource for OneImage {
    async fn download(
        &self,
        _cx: &Context,
        _image_id: &str,
        into: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let mut file = tokio::fs::File::open(&self.0).await?;
        tokio::io::copy(&mut file, into).await?;
        Ok(())
    }
}

/// What was uploaded is an image whose bytes begin as a qcow2 disk's.
#[async_trait]
impl ImageSink for OneImage {
    async fn upload(
        &self,
        _cx: &Context,
        _image_id: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).await?;
        assert!(bytes.starts_with(b"QFI\xfb") && bytes.len() > 1 << 20, "{} bytes", bytes.len());
        Ok(())
    }
}
