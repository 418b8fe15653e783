//! Whether foreign bytes are the image they are said to be, and how QEMU's tools are told to read them.

use base::{Error, Result};
use image_format::{Format, inspect_file};
use std::path::Path;

/// An image that may be opened.
pub struct Image {
    /// As `qemu-img` names it; it never guesses.
    pub format: &'static str,
    pub virtual_bytes: u64,
}

pub async fn inspect(path: &Path, said: &str) -> Result<Image> {
    let file = path.to_path_buf();
    let looked = tokio::task::spawn_blocking(move || inspect_file(&file)).await;
    let found = looked.map_err(|e| Error::internal(format!("inspecting an image: {e}")))??;
    found.check()?;
    let format = match (said, found.format) {
        // What has a partition table or a CD's is a raw disk all the same.
        ("raw" | "iso", Format::Raw | Format::Gpt | Format::Iso) => "raw",
        ("qcow2", Format::Qcow2) => "qcow2",
        ("vmdk", Format::Vmdk) => "vmdk",
        ("vdi", Format::Vdi) => "vdi",
        ("vhd", Format::Vhd) => "vpc",
        ("vhdx", Format::Vhdx) => "vhdx",
        ("raw" | "iso" | "qcow2" | "vmdk" | "vdi" | "vhd" | "vhdx", other) => {
            return Err(unacceptable(format!("it is said to be {said} and is {other}")));
        }
        (other, _) => return Err(unacceptable(format!("no volume is made of {other}"))),
    };
    Ok(Image { format, virtual_bytes: found.virtual_size_bytes })
}

fn unacceptable(why: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Image is unacceptable: {why}"))
}
