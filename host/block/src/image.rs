//! Whether foreign bytes are the image they are said to be, before any tool opens them: one that names another file
//! would make QEMU open that file with the host's rights.

use base::{Error, Result};
use std::path::Path;
use tokio::io::AsyncReadExt;

const HEAD_BYTES: u64 = 4096;
const QCOW2: &[u8] = b"QFI\xfb";
const EXTERNAL_DATA: u64 = 1 << 2;
const KNOWN_FEATURES: u64 = 0b1_1111;
/// Beginnings by which QEMU's tools know formats other than raw.
const OTHER_FORMATS: &[(&str, &[u8])] = &[
    ("qcow2", QCOW2),
    ("vmdk", b"KDMV"),
    ("vmdk", b"COWD"),
    ("vmdk", b"# Disk DescriptorFile"),
    ("vdi", b"<<< "),
    ("vhd", b"conectix"),
    ("vhdx", b"vhdxfile"),
    ("qed", b"QED\0"),
    ("luks", b"LUKS\xba\xbe"),
    ("ploop", b"WithoutFreeSpace"),
    ("ploop", b"WithouFreSpacExt"),
];

/// The size a guest sees, of an image that may be opened under the format.
pub async fn virtual_bytes(image: &Path, format: &str) -> Result<u64> {
    let file = tokio::fs::File::open(image).await?;
    let bytes = file.metadata().await?.len();
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).await?;
    match format {
        "raw" => match OTHER_FORMATS.iter().find(|(_, beginning)| head.starts_with(beginning)) {
            Some((other, _)) => Err(unacceptable(format!("it is said to be raw and is {other}"))),
            None => Ok(bytes),
        },
        "qcow2" => qcow2_virtual_bytes(&head),
        other => Err(unacceptable(format!("volumes are made of raw and qcow2 images, not of {other}"))),
    }
}

fn qcow2_virtual_bytes(head: &[u8]) -> Result<u64> {
    if !head.starts_with(QCOW2) {
        return Err(unacceptable("it is said to be qcow2 and is not"));
    }
    match word(head, 4)? {
        2 => {}
        3 => {
            let features = double_word(head, 72)?;
            if features & EXTERNAL_DATA != 0 {
                return Err(unacceptable("its data is in another file"));
            }
            if features & !KNOWN_FEATURES != 0 {
                return Err(unacceptable("it uses unknown features"));
            }
        }
        version => return Err(unacceptable(format!("qcow2 version {version} is unknown"))),
    }
    if double_word(head, 8)? != 0 || word(head, 16)? != 0 {
        return Err(unacceptable("it has a backing file"));
    }
    if word(head, 32)? != 0 {
        return Err(unacceptable("it is encrypted"));
    }
    double_word(head, 24)
}

fn word(head: &[u8], at: usize) -> Result<u32> {
    let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or_else(|| unacceptable("it is cut short"))
}

fn double_word(head: &[u8], at: usize) -> Result<u64> {
    let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| unacceptable("it is cut short"))
}

fn unacceptable(why: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Image is unacceptable: {why}"))
}
