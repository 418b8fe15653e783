//! The formats: how each is known, how large its disk is, and what in it leads elsewhere.

use crate::{Finding, Format};

/// What a format makes of the bytes: none when they are another's.
type Look = fn(&Bytes) -> Option<Seen>;

/// In the order of trust: what has a magic number at its start goes before what has it further inside.
const LOOKS: &[(Format, Look)] = &[
    (Format::Qcow2, qcow2),
    (Format::Qed, qed),
    (Format::Vmdk, vmdk),
    (Format::Vdi, vdi),
    (Format::Vhdx, vhdx),
    (Format::Vhd, vhd),
    (Format::Luks, luks),
    (Format::Iso, iso),
    (Format::Gpt, gpt),
];

pub struct Bytes<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    size: u64,
}

#[derive(Default)]
struct Seen {
    virtual_size: Option<u64>,
    bad: Vec<String>,
}

pub fn inspect(head: &[u8], tail: &[u8], size: u64) -> Finding {
    let bytes = Bytes { head, tail, size };
    let seen: Vec<(Format, Seen)> =
        LOOKS.iter().filter_map(|(format, look)| Some((*format, look(&bytes)?))).collect();
    let formats: Vec<Format> = seen.iter().map(|(format, _)| *format).collect();
    let several = formats.len() > 1 && formats != [Format::Iso, Format::Gpt];
    let Some((format, first)) = seen.into_iter().next() else {
        return Finding {
            format: Format::Raw,
            virtual_size_bytes: size,
            unsafe_because: Vec::new(),
            only_partitions_wrong: false,
        };
    };
    let only_partitions_wrong = format == Format::Gpt && !first.bad.is_empty();
    let mut unsafe_because = first.bad;
    if several {
        // A file that is two things at once is made to be taken for the wrong one.
        let names: Vec<&str> = formats.iter().map(|format| format.as_str()).collect();
        unsafe_because.push(format!("it is {} at once", names.join(" and ")));
    }
    Finding {
        format,
        virtual_size_bytes: first.virtual_size.unwrap_or(size),
        unsafe_because,
        only_partitions_wrong,
    }
}

impl<'a> Bytes<'a> {
    fn at(&self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.head.get(at..at.checked_add(length)?)
    }

    fn is(&self, at: usize, magic: &[u8]) -> bool {
        self.at(at, magic.len()) == Some(magic)
    }

    fn be32(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.at(at, 4)?.try_into().ok()?))
    }

    fn be64(&self, at: usize) -> Option<u64> {
        Some(u64::from_be_bytes(self.at(at, 8)?.try_into().ok()?))
    }

    fn le32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.at(at, 4)?.try_into().ok()?))
    }

    fn le64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.at(at, 8)?.try_into().ok()?))
    }
}

const CUT_SHORT: &str = "its header is cut short";

fn cut_short() -> Seen {
    Seen { virtual_size: None, bad: vec![CUT_SHORT.into()] }
}

/// QEMU's `docs/interop/qcow2.txt`.
fn qcow2(bytes: &Bytes) -> Option<Seen> {
    const EXTERNAL_DATA: u64 = 1 << 2;
    /// Dirty, corrupt, external data and compression: what the reference knows.
    const KNOWN_FEATURES: u64 = 0b1111;
    const L1_ENTRIES_MAX: u32 = 32 * 1024 * 1024 / 8;
    if !bytes.is(0, b"QFI\xfb") {
        return None;
    }
    let look = || -> Option<Seen> {
        let mut bad = Vec::new();
        let version = bytes.be32(4)?;
        if bytes.be64(8)? != 0 || bytes.be32(16)? != 0 {
            bad.push("it has a backing file".into());
        }
        let cluster_bits = bytes.be32(20)?;
        if !(9..=21).contains(&cluster_bits) {
            bad.push(format!("its clusters have 2^{cluster_bits} bytes"));
        }
        if bytes.be32(32)? != 0 {
            bad.push("it is encrypted".into());
        }
        if bytes.be32(36)? > L1_ENTRIES_MAX {
            bad.push("its first table is too large".into());
        }
        match version {
            2 => {}
            3 => {
                let features = bytes.be64(72)?;
                if features & EXTERNAL_DATA != 0 {
                    bad.push("its data is in another file".into());
                }
                if features & !KNOWN_FEATURES != 0 {
                    bad.push("it uses unknown features".into());
                }
            }
            version => bad.push(format!("qcow2 version {version} is unknown")),
        }
        Some(Seen { virtual_size: Some(bytes.be64(24)?), bad })
    };
    Some(look().unwrap_or_else(cut_short))
}

fn qed(bytes: &Bytes) -> Option<Seen> {
    bytes
        .is(0, b"QED\0")
        .then(|| Seen { virtual_size: bytes.le64(40), bad: vec!["QED is not supported".into()] })
}

/// VMware's Virtual Disk Format 5.0: sparse extents with an embedded descriptor. A descriptor alone names other files.
fn vmdk(bytes: &Bytes) -> Option<Seen> {
    const SECTOR: u64 = 512;
    const DESCRIPTOR_SECTORS_MAX: u64 = 2048;
    const DESCRIPTOR_AT: u64 = 1;
    const KINDS: [&str; 2] = ["monolithicsparse", "streamoptimized"];
    const AT_END: u64 = u64::MAX;
    if is_vmdk_descriptor(bytes) {
        return Some(Seen {
            virtual_size: None,
            bad: vec!["it is a descriptor that names other files".into()],
        });
    }
    if !bytes.is(0, b"KDMV") {
        return None;
    }
    let look = || -> Option<Seen> {
        let mut bad = Vec::new();
        if !(1..=3).contains(&bytes.le32(4)?) {
            bad.push("its version is unknown".into());
        }
        let (sectors, at, count) = (bytes.le64(12)?, bytes.le64(28)?, bytes.le64(36)?);
        let virtual_size = sectors.checked_mul(SECTOR);
        if at != DESCRIPTOR_AT {
            bad.push("its descriptor is not where it belongs".into());
        }
        if bytes.le64(56)? == AT_END && !has_own_footer(bytes) {
            bad.push("its footer does not agree with its header".into());
        }
        if count == 0 || count > DESCRIPTOR_SECTORS_MAX {
            bad.push("it has no descriptor of a sensible size".into());
            return Some(Seen { virtual_size, bad });
        }
        let start = usize::try_from(at.checked_mul(SECTOR)?).ok()?;
        let text = bytes.at(start, (count * SECTOR) as usize)?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        if !text.is_ascii() {
            bad.push("its descriptor is no plain text".into());
        }
        let text = String::from_utf8_lossy(text).to_lowercase();
        let value = |key: &str| {
            text.lines()
                .find_map(|line| Some(line.trim().strip_prefix(key)?.trim().trim_matches('"').to_string()))
        };
        let kind = value("createtype=").unwrap_or_default();
        if !KINDS.contains(&kind.as_str()) {
            bad.push(format!("its kind {kind:?} is not supported"));
        }
        if value("parentcid=").is_some_and(|parent| parent != "ffffffff")
            || value("parentfilenamehint=").is_some()
        {
            bad.push("it has a parent".into());
        }
        let extents: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| {
                ["rw", "rdonly", "noaccess"].contains(&line.split_whitespace().next().unwrap_or_default())
            })
            .collect();
        let is_known = |line: &str| {
            line.is_empty()
                || line.starts_with('#')
                || line.starts_with("ddb")
                || extents.contains(&line)
                || line.split_once('=').is_some_and(|(key, _)| !key.trim_end().contains(' '))
        };
        if !text.lines().map(str::trim).all(is_known) {
            bad.push("its descriptor has lines that mean nothing".into());
        }
        // One extent, in this very file; a path in it would be another file.
        let own =
            |extent: &&str| extent.contains(" sparse ") && !extent.contains('/') && !extent.contains("..");
        if extents.len() != 1 || !extents.iter().all(own) {
            bad.push("its extents are in other files".into());
        }
        Some(Seen { virtual_size, bad })
    };
    Some(look().unwrap_or_else(cut_short))
}

/// Text that says what kind of disk it describes; QEMU goes by the words, whatever stands before them.
fn is_vmdk_descriptor(bytes: &Bytes) -> bool {
    const DESCRIPTOR_BYTES_MAX: usize = 1 << 20;
    let start = &bytes.head[..bytes.head.len().min(DESCRIPTOR_BYTES_MAX)];
    let first = &start[..start.len().min(512)];
    let is_text = first.iter().all(|byte| matches!(byte, b'\t'..=b'\r' | b' '..=b'~'));
    let says_kind = || start.to_ascii_lowercase().windows(12).any(|words| words == b"createtype=\"");
    bytes.is(0, b"# Disk DescriptorFile") || (is_text && says_kind())
}

/// A marker, the header again, and the marker of the end: the last three sectors.
fn has_own_footer(bytes: &Bytes) -> bool {
    const FOOTER: u32 = 3;
    let tail = Bytes { head: bytes.tail, tail: &[], size: bytes.size };
    let is_marker = |at: usize, kind: u32| {
        tail.le32(at + 8) == Some(0)
            && tail.le32(at + 12) == Some(kind)
            && tail.at(at + 16, 496).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    };
    // Signature, version, and place and size of the descriptor.
    let same = |at: usize, length: usize| {
        bytes.at(at, length).is_some() && bytes.at(at, length) == tail.at(512 + at, length)
    };
    bytes.tail.len() == 3 * 512
        && same(0, 8)
        && same(28, 16)
        && tail.le64(512 + 56).is_some_and(|directory| directory != u64::MAX)
        && is_marker(0, FOOTER)
        && tail.le64(1024) == Some(0)
        && is_marker(1024, 0)
}

/// VirtualBox's `VDICore.h`.
fn vdi(bytes: &Bytes) -> Option<Seen> {
    const KIND_AT: usize = 0x4c;
    /// Undo and difference images.
    const DIFFERENCES: [u32; 2] = [3, 4];
    if bytes.le32(0x40) != Some(0xbeda_107f) {
        return None;
    }
    let look = || -> Option<Seen> {
        let mut bad = Vec::new();
        if DIFFERENCES.contains(&bytes.le32(KIND_AT)?) {
            bad.push("it holds differences from another file".into());
        }
        Some(Seen { virtual_size: Some(bytes.le64(0x170)?), bad })
    };
    Some(look().unwrap_or_else(cut_short))
}

/// Microsoft's Virtual Hard Disk Image Format Specification: the footer is the last sector, and for dynamic disks
/// the first, too.
fn vhd(bytes: &Bytes) -> Option<Seen> {
    const DIFFERENCES: u32 = 4;
    let last = &bytes.tail[bytes.tail.len().saturating_sub(512)..];
    let footer = [bytes.head, last].into_iter().find(|sector| sector.starts_with(b"conectix"))?;
    let sector = Bytes { head: footer, tail: &[], size: bytes.size };
    let look = || -> Option<Seen> {
        let mut bad = Vec::new();
        if sector.be32(60)? == DIFFERENCES {
            bad.push("it holds differences from another file".into());
        }
        Some(Seen { virtual_size: Some(sector.be64(48)?), bad })
    };
    Some(look().unwrap_or_else(cut_short))
}

/// Microsoft's [MS-VHDX]: region table at 192 KiB, metadata region with the disk's size and whether it has a parent.
fn vhdx(bytes: &Bytes) -> Option<Seen> {
    const REGIONS_AT: usize = 192 * 1024;
    const METADATA: [u8; 16] =
        [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e];
    const DISK_SIZE: [u8; 16] =
        [0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8];
    const FILE_PARAMETERS: [u8; 16] =
        [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b];
    const PARENT_LOCATOR: [u8; 16] =
        [0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c];
    const HAS_PARENT: u32 = 1 << 1;
    if !bytes.is(0, b"vhdxfile") {
        return None;
    }
    let look = || -> Option<Seen> {
        if !bytes.is(REGIONS_AT, b"regi") {
            return None;
        }
        let regions = bytes.le32(REGIONS_AT + 8)?.min(64) as usize;
        let mut places = (0..regions).map(|number| REGIONS_AT + 16 + number * 32);
        let region = places.find(|at| bytes.is(*at, &METADATA))?;
        let metadata = usize::try_from(bytes.le64(region + 16)?).ok()?;
        if !bytes.is(metadata, b"metadata") {
            return None;
        }
        let count = u16::from_le_bytes(bytes.at(metadata + 10, 2)?.try_into().ok()?).min(1024) as usize;
        let item = |id: &[u8; 16]| {
            let entry = (0..count).map(|n| metadata + 32 + n * 32).find(|at| bytes.is(*at, id))?;
            metadata.checked_add(bytes.le32(entry + 16)? as usize)
        };
        let mut bad = Vec::new();
        let says_parent = bytes.le32(item(&FILE_PARAMETERS)?.checked_add(4)?)? & HAS_PARENT != 0;
        if says_parent || item(&PARENT_LOCATOR).is_some() {
            bad.push("it has a parent".into());
        }
        Some(Seen { virtual_size: Some(bytes.le64(item(&DISK_SIZE)?)?), bad })
    };
    Some(look().unwrap_or_else(cut_short))
}

fn luks(bytes: &Bytes) -> Option<Seen> {
    const HEADER_BYTES: u64 = 592;
    bytes.is(0, b"LUKS\xba\xbe").then(|| match bytes.at(6, 2) {
        Some([0, 1]) if bytes.size < HEADER_BYTES => cut_short(),
        Some([0, 1]) => {
            let payload = bytes.be32(104).map(|sectors| u64::from(sectors) * 512);
            Seen { virtual_size: payload.map(|start| bytes.size.saturating_sub(start)), bad: Vec::new() }
        }
        _ => Seen { virtual_size: None, bad: vec!["its version of LUKS is unknown".into()] },
    })
}

/// ECMA-119 and UDF: the first volume descriptor is in the seventeenth sector.
fn iso(bytes: &Bytes) -> Option<Seen> {
    const DESCRIPTOR_AT: usize = 16 * 2048;
    const MAGICS: [&[u8]; 3] = [b"CD001", b"NSR02", b"NSR03"];
    const PRIMARY: &[u8] = &[1];
    MAGICS.iter().any(|magic| bytes.is(DESCRIPTOR_AT + 1, magic)).then(|| {
        if !bytes.is(DESCRIPTOR_AT, PRIMARY) {
            return Seen::default();
        }
        let blocks = bytes.le32(DESCRIPTOR_AT + 80).map(u64::from);
        let block_bytes =
            bytes.at(DESCRIPTOR_AT + 128, 2).map(|b| u64::from(u16::from_le_bytes([b[0], b[1]])));
        Seen { virtual_size: blocks.zip(block_bytes).map(|(blocks, bytes)| blocks * bytes), bad: Vec::new() }
    })
}

/// A partition table, old or new: a raw disk that says so. The boot sector of a FAT file system ends the same way.
fn gpt(bytes: &Bytes) -> Option<Seen> {
    const PARTITIONS_AT: usize = 446;
    const PROTECTIVE: u8 = 0xee;
    const FATS_AT: usize = 0x10;
    const MEDIUM_AT: usize = 0x15;
    const FIXED_DISK: u8 = 0xf8;
    let is_fat = bytes.is(FATS_AT, &[2]) && bytes.is(MEDIUM_AT, &[FIXED_DISK]);
    if !bytes.is(510, &[0x55, 0xaa]) || is_fat {
        return None;
    }
    let mut bad = Vec::new();
    let mut used = Vec::new();
    let mut is_gpt = false;
    for number in 0..4 {
        let entry = bytes.at(PARTITIONS_AT + number * 16, 16)?;
        if !matches!(entry[0], 0 | 0x80) {
            bad.push(format!("partition {number} has an invalid boot flag"));
        }
        if entry[4] != 0 {
            used.push(number);
        }
        if entry[4] == PROTECTIVE {
            is_gpt = true;
            if entry[1..4] != [0, 2, 0] || entry[8..12] != [1, 0, 0, 0] {
                bad.push("its partition table begins at the wrong place".into());
            }
        }
    }
    if is_gpt && used != [0] {
        bad.push("it has partitions beside its GPT".into());
    }
    if used.is_empty() {
        bad.push("its partition table is empty".into());
    }
    Some(Seen { virtual_size: None, bad })
}
