//! Images rewritten for glance by this machine's tools.

use async_trait::async_trait;
use base::Result;
use contracts::images::Converter;
use std::path::Path;

pub struct QemuImg;

/// A disk that an image says to be larger is not written out.
const DISK_BYTES_MAX: u64 = 16 << 40;

#[async_trait]
impl Converter for QemuImg {
    async fn convert(&self, from: &Path, format: &str, to: &Path, to_format: &str) -> Result<()> {
        host_block::convert(from, format, to, (to_format, DISK_BYTES_MAX)).await
    }
}
