//! One look at foreign disk images, used by every path that takes one: which format the bytes are in, how large the
//! disk is that they hold, and whether opening them would lead elsewhere. No tool opens what has not passed here.
//! The facts are those of the formats' specifications and of oslo.utils' format inspector.

mod formats;

use base::{Error, Result};
use std::fmt;

/// As much of an image's beginning as is looked at: the largest header, VMDK's descriptor and VHDX's metadata.
pub const HEAD_BYTES: usize = 4 * 1024 * 1024;
/// Fixed VHD says who it is in its last sector alone; streamed VMDK repeats its header in the last three.
const TAIL_BYTES: usize = 3 * 512;

/// A disk format, named as glance names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    Raw,
    Qcow2,
    Vmdk,
    Vdi,
    Vhd,
    Vhdx,
    Iso,
    Gpt,
    Luks,
    Qed,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vdi => "vdi",
            Format::Vhd => "vhd",
            Format::Vhdx => "vhdx",
            Format::Iso => "iso",
            Format::Gpt => "gpt",
            Format::Luks => "luks",
            Format::Qed => "qed",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was found out about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub format: Format,
    /// The size of the disk; the file's own for formats that do not say.
    pub virtual_size_bytes: u64,
    /// Why nobody may open it.
    pub unsafe_because: Vec<String>,
    /// Whether all that is wrong is the partition table, which only what looks for one minds.
    pub only_partitions_wrong: bool,
}

impl Finding {
    /// `BadRequest` with the reasons when it is not safe to open.
    pub fn check(&self) -> Result<()> {
        match self.unsafe_because.as_slice() {
            [] => Ok(()),
            reasons => Err(Error::bad_request(format!("Image is unacceptable: {}", reasons.join("; ")))),
        }
    }
}

/// Takes the bytes of an image as they come, and keeps only as much as it needs.
#[derive(Default)]
pub struct Inspector {
    head: Vec<u8>,
    tail: Vec<u8>,
    size_bytes: u64,
}

impl Inspector {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        self.tail.extend_from_slice(last);
        let too_many = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..too_many);
    }

    /// Bytes fed so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The verdict, when all bytes were fed (or, of a file that is looked at in place, its head and tail).
    pub fn finish(self) -> Finding {
        formats::inspect(&self.head, &self.tail, self.size_bytes)
    }
}

/// Looks at a file in place.
pub fn inspect_file(path: &std::path::Path) -> Result<Finding> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(size_bytes.saturating_sub(TAIL_BYTES as u64)))?;
    Read::by_ref(&mut file).take(TAIL_BYTES as u64).read_to_end(&mut tail)?;
    Ok(formats::inspect(&head, &tail, size_bytes))
}

#[cfg(test)]
mod tests;
