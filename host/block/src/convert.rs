//! Rewrites images in other formats by QEMU's tools, with limits.

use crate::{GIB, image::inspect};
use base::{Error, Result};
use host_run::run;
use std::{path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(3600);
/// Address space of the tool. A hostile image must not take the machine's memory.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// What a format may need beside the disk's own bytes.
const TABLES_BYTES_MAX: u64 = 64 << 20;

/// Writes an image out in another format, for a disk of at most so many bytes. Foreign bytes are not opened by QEMU's
/// tools before they are known to be what they are said to be, and not without limits.
pub async fn convert(
    image: &Path,
    format: &str,
    to: &Path,
    (to_format, bytes_max): (&str, u64),
) -> Result<()> {
    let found = inspect(image, format).await?;
    if found.virtual_bytes > bytes_max {
        let gib = |bytes: u64| bytes.div_ceil(GIB);
        return Err(Error::bad_request(format!(
            "Size of specified image {}GB is larger than volume size {}GB.",
            gib(found.virtual_bytes),
            gib(bytes_max)
        )));
    }
    let file_bytes_max = match to_format {
        "raw" => bytes_max,
        _ => found.virtual_bytes + found.virtual_bytes / 64 + TABLES_BYTES_MAX,
    };
    run("prlimit")
        .env("MALLOC_ARENA_MAX", "1")
        .arg(format!("--as={MEMORY_BYTES_MAX}"))
        .arg(format!("--fsize={file_bytes_max}"))
        .args(["--", "qemu-img", "convert", "-f", found.format, "-O", tool_format(to_format)?])
        .args([image, to])
        .timeout(PATIENCE)
        .output()
        .await
        .map(drop)
}

/// As `qemu-img` names a format of glance's.
pub fn tool_format(format: &str) -> Result<&'static str> {
    match format {
        "raw" => Ok("raw"),
        "qcow2" => Ok("qcow2"),
        "vmdk" => Ok("vmdk"),
        "vdi" => Ok("vdi"),
        "vhd" => Ok("vpc"),
        "vhdx" => Ok("vhdx"),
        other => Err(Error::bad_request(format!("A volume is not written out as {other}."))),
    }
}
