use super::*;

fn look(bytes: &[u8]) -> Finding {
    let mut inspector = Inspector::new();
    bytes.chunks(1000).for_each(|chunk| inspector.feed(chunk));
    inspector.finish()
}

fn put(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    if bytes.len() < at + what.len() {
        bytes.resize(at + what.len(), 0);
    }
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn qcow2(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    put(&mut bytes, 0, b"QFI\xfb\0\0\0\x03");
    put(&mut bytes, 20, &16u32.to_be_bytes());
    put(&mut bytes, 24, &(1u64 << 30).to_be_bytes());
    change(&mut bytes);
    bytes
}

fn vmdk(descriptor: &str) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    put(&mut bytes, 0, b"KDMV\x01\0\0\0");
    put(&mut bytes, 12, &2048u64.to_le_bytes());
    put(&mut bytes, 28, &1u64.to_le_bytes());
    put(&mut bytes, 36, &2u64.to_le_bytes());
    put(&mut bytes, 512, descriptor.as_bytes());
    bytes
}

/// With its directory at the end, where the header stands again.
fn streamed_vmdk(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vmdk(&GOOD_VMDK.replace("monolithicSparse", "streamOptimized"));
    put(&mut bytes, 56, &[0xff; 8]);
    let mut footer = vec![0; 3 * 512];
    put(&mut footer, 12, &3u32.to_le_bytes());
    put(&mut footer, 512, &bytes[..512]);
    put(&mut footer, 512 + 56, &4u64.to_le_bytes());
    bytes.extend(footer);
    change(&mut bytes);
    bytes
}

const GOOD_VMDK: &str = "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 2048 SPARSE \"a.vmdk\"\n";

fn vdi(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    put(&mut bytes, 0x40, &0xbeda_107fu32.to_le_bytes());
    put(&mut bytes, 0x4c, &[kind, 0, 0, 0]);
    put(&mut bytes, 0x170, &(5u64 << 20).to_le_bytes());
    bytes
}

fn vhd(kind: u8) -> Vec<u8> {
    let mut bytes = vec![7; 4096];
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 48, &4096u64.to_be_bytes());
    put(&mut footer, 60, &[0, 0, 0, kind]);
    bytes.extend(footer);
    bytes
}

fn luks() -> Vec<u8> {
    let mut bytes = b"LUKS\xba\xbe\0\x01".to_vec();
    bytes.resize(600, 0);
    bytes
}

fn iso() -> Vec<u8> {
    let mut bytes = vec![0; 20 * 2048];
    put(&mut bytes, 16 * 2048, b"\x01CD001");
    put(&mut bytes, 16 * 2048 + 80, &20u32.to_le_bytes());
    put(&mut bytes, 16 * 2048 + 128, &2048u16.to_le_bytes());
    bytes
}

fn partition_table(bytes: &mut Vec<u8>) {
    put(bytes, 446, &[0x80, 0, 0, 0, 0x83]);
    put(bytes, 510, &[0x55, 0xaa]);
}

/// A protective entry that spans the disk.
fn gpt(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    put(&mut bytes, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1]);
    put(&mut bytes, 510, &[0x55, 0xaa]);
    change(&mut bytes);
    bytes
}

/// Region table, metadata table with two items: the file's parameters and the disk's size.
fn vhdx(parameters: u32) -> Vec<u8> {
    let guid = |hex: &str| -> Vec<u8> {
        (0..16).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
    };
    const METADATA_AT: usize = 1 << 20;
    let mut bytes = vec![0; METADATA_AT];
    put(&mut bytes, 0, b"vhdxfile");
    put(&mut bytes, 192 * 1024, b"regi");
    put(&mut bytes, 192 * 1024 + 8, &[1]);
    put(&mut bytes, 192 * 1024 + 16, &guid("06a27c8b90479a4bb8fe575f050f886e"));
    put(&mut bytes, 192 * 1024 + 32, &(METADATA_AT as u64).to_le_bytes());
    put(&mut bytes, METADATA_AT, b"metadata");
    put(&mut bytes, METADATA_AT + 10, &[2, 0]);
    put(&mut bytes, METADATA_AT + 32, &guid("3767a1ca36fa434db3b633f0aa44e76b"));
    put(&mut bytes, METADATA_AT + 48, &65536u32.to_le_bytes());
    put(&mut bytes, METADATA_AT + 64, &guid("2442a52f1bcd7648b2115dbed83bf4b8"));
    put(&mut bytes, METADATA_AT + 80, &65544u32.to_le_bytes());
    put(&mut bytes, METADATA_AT + 65540, &parameters.to_le_bytes());
    put(&mut bytes, METADATA_AT + 65544, &(3u64 << 30).to_le_bytes());
    bytes
}

/// Not said to have a parent, but with the item that names one.
fn vhdx_with_locator() -> Vec<u8> {
    const METADATA_AT: usize = 1 << 20;
    let mut bytes = vhdx(0);
    put(&mut bytes, METADATA_AT + 10, &[3, 0]);
    put(&mut bytes, METADATA_AT + 96, b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c");
    put(&mut bytes, METADATA_AT + 112, &65560u32.to_le_bytes());
    bytes
}

/// What installers' media are: a disc with a GPT in the sectors before its first descriptor.
fn hybrid_iso() -> Vec<u8> {
    let mut bytes = iso();
    put(&mut bytes, 0, &gpt(|_| ())[..512]);
    put(&mut bytes, 512, b"EFI PART\0\0\x01\0\x5c\0\0\0");
    bytes
}

/// A deflated mebibyte of zeros that becomes 160: a literal, then copies of 258 bytes from one byte back.
fn gzip_bomb() -> Vec<u8> {
    const FIXED_CODES: [bool; 3] = [true, true, false];
    const ZERO: [bool; 8] = [false, false, true, true, false, false, false, false];
    const LENGTH_258_BACK_1: [bool; 13] =
        [true, true, false, false, false, true, false, true, false, false, false, false, false];
    let mut bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    let copies = std::iter::repeat_n(LENGTH_258_BACK_1, 8 * (1 << 20) / 13).flatten();
    let bits: Vec<bool> = FIXED_CODES.into_iter().chain(ZERO).chain(copies).collect();
    bytes.extend(
        bits.chunks(8).map(|eight| {
            eight.iter().enumerate().fold(0, |byte, (place, bit)| byte | u8::from(*bit) << place)
        }),
    );
    bytes
}

/// One entry that says to be four gibibytes.
fn zip_bomb() -> Vec<u8> {
    let mut bytes = b"PK\x03\x04\x14\0\0\0\x08\0".to_vec();
    put(&mut bytes, 18, &(1u32 << 20).to_le_bytes());
    put(&mut bytes, 22, &u32::MAX.to_le_bytes());
    put(&mut bytes, 26, &4u16.to_le_bytes());
    put(&mut bytes, 30, b"disk");
    bytes.resize(1 << 20, 0);
    bytes
}

#[test]
fn formats_and_sizes() {
    let mut disk = vec![0; 4096];
    partition_table(&mut disk);
    let mut iso_with_table = iso();
    partition_table(&mut iso_with_table);
    let mut udf = iso();
    put(&mut udf, 16 * 2048, b"\x00NSR02");
    let mut fat = disk.clone();
    put(&mut fat, 0x10, &[2]);
    put(&mut fat, 0x15, &[0xf8]);
    let cases = [
        (Format::Raw, 22, b"some bytes of an image".to_vec()),
        (Format::Raw, 0, Vec::new()),
        (Format::Qcow2, 1 << 30, qcow2(|_| ())),
        (Format::Qcow2, 1 << 30, qcow2(|b| b[79] = 1)),
        (Format::Vmdk, 1 << 20, vmdk(GOOD_VMDK)),
        (Format::Vmdk, 1 << 20, streamed_vmdk(|_| ())),
        (Format::Vdi, 5 << 20, vdi(1)),
        (Format::Vhdx, 3 << 30, vhdx(0)),
        (Format::Vhd, 4096, vhd(2)),
        (Format::Iso, 40960, iso()),
        (Format::Iso, 40960, iso_with_table),
        (Format::Iso, 40960, hybrid_iso()),
        (Format::Vhd, 4096, vhd(3)),
        (Format::Gpt, 4096, disk),
        (Format::Luks, 600, luks()),
        (Format::Iso, 40960, udf),
        (Format::Raw, 4096, fat),
        (Format::Gpt, 4096, gpt(|_| ())),
    ];
    for (format, size, bytes) in cases {
        let found = look(&bytes);
        assert_eq!((found.format, found.virtual_size_bytes), (format, size));
        found.check().unwrap();
    }
}

#[test]
fn what_leads_elsewhere_is_refused() {
    let extent = |line: &str| vmdk(&GOOD_VMDK.replace("RW 2048 SPARSE \"a.vmdk\"", line));
    let mut two_things = qcow2(|_| ());
    two_things.extend(vec![0; 40 * 1024]);
    put(&mut two_things, 16 * 2048, b"\x01CD001");
    let cases = [
        ("backing file", qcow2(|b| b[15] = 1)),
        ("backing file", qcow2(|b| b[19] = 5)),
        ("another file", qcow2(|b| b[79] = 4)),
        ("unknown features", qcow2(|b| b[72] = 1)),
        ("encrypted", qcow2(|b| b[35] = 1)),
        ("version", qcow2(|b| b[7] = 4)),
        ("too large", qcow2(|b| b[36] = 0xff)),
        ("clusters", qcow2(|b| b[23] = 60)),
        ("cut short", b"QFI\xfb\0\0\0\x03".to_vec()),
        ("other files", b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n".to_vec()),
        ("other files", extent("RW 2048 FLAT \"/etc/passwd\" 0")),
        ("other files", extent("RW 2048 SPARSE \"/etc/passwd\"")),
        ("other files", extent("RW 1 SPARSE \"a\"\nRW 1 SPARSE \"b\"")),
        ("kind", vmdk(&GOOD_VMDK.replace("monolithicSparse", "vmfs"))),
        ("parent", vmdk(&GOOD_VMDK.replace("ffffffff", "12345678"))),
        ("not where it belongs", {
            let mut bytes = vmdk(GOOD_VMDK);
            bytes[28] = 2;
            bytes
        }),
        ("mean nothing", vmdk(&format!("{GOOD_VMDK}include /etc/passwd\n"))),
        ("other files", b"createType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/passwd\" 0\n".to_vec()),
        ("footer", streamed_vmdk(|b| b.truncate(b.len() - 512))),
        (
            "footer",
            streamed_vmdk(|b| {
                let at = b.len() - 1024 + 28;
                b[at] = 9;
            }),
        ),
        ("parent", vhdx(2)),
        ("parent", vhdx_with_locator()),
        ("cut short", {
            let mut bytes = vhdx(0);
            // The metadata are said to be behind the end of all numbers.
            put(&mut bytes, 192 * 1024 + 32, &[0xff; 8]);
            bytes
        }),
        ("cut short", luks()[..500].to_vec()),
        ("plain text", vmdk(&GOOD_VMDK.replace("CID=1", "CID=ä"))),
        ("other files", b"\x0b\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/passwd\" 0\n".to_vec()),
        ("version of LUKS", b"LUKS\xba\xbe\0\x02".to_vec()),
        ("unknown features", qcow2(|b| b[79] = 16)),
        ("boot flag", gpt(|b| b[446] = 7)),
        ("beside its GPT", gpt(|b| b[446 + 20] = 0x83)),
        ("wrong place", gpt(|b| b[446 + 8] = 2)),
        ("empty", gpt(|b| b[446 + 4] = 0)),
        ("differences", vdi(4)),
        ("differences", vdi(3)),
        ("differences", vhd(4)),
        ("QED", b"QED\0".to_vec()),
        ("cut short", b"vhdxfile".to_vec()),
        ("at once", two_things),
    ];
    for (why, bytes) in cases {
        let found = look(&bytes);
        let error = found.check().expect_err(why);
        assert!(error.message.contains(why), "{why}: {error}");
    }
}

/// Bytes that are hostile in themselves are nobody's format, and nothing unpacks them to see.
#[test]
fn what_is_packed_stays_packed() {
    for start in [&b"\x1f\x8b\x08\0"[..], b"PK\x03\x04", b"BZh9", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c"] {
        let mut bytes = start.to_vec();
        bytes.resize(4096, 0);
        let found = look(&bytes);
        assert_eq!((found.format, found.virtual_size_bytes), (Format::Raw, 4096));
    }
    for bomb in [gzip_bomb(), zip_bomb()] {
        let found = look(&bomb);
        assert_eq!((found.format, found.virtual_size_bytes), (Format::Raw, bomb.len() as u64));
    }
}

/// Two formats in one file, in every pair that fits: refused, whichever comes first.
#[test]
fn polyglots_are_refused() {
    type Add = fn(&mut Vec<u8>);
    let later: [(&str, Add); 3] = [
        ("iso", |bytes| put(bytes, 16 * 2048, &iso()[16 * 2048..17 * 2048])),
        ("gpt", |bytes| {
            put(bytes, 446, &[0x80, 0, 0, 0, 0x83]);
            put(bytes, 510, &[0x55, 0xaa]);
        }),
        ("vhd", |bytes| {
            let footer = vhd(2).split_off(4096);
            bytes.extend(footer);
        }),
    ];
    for first in [qcow2(|_| ()), vmdk(GOOD_VMDK), vhdx(0), luks()] {
        for (name, add) in later {
            let mut bytes = first.clone();
            bytes.resize(bytes.len().max(20 * 2048), 0);
            add(&mut bytes);
            let found = look(&bytes);
            assert!(found.check().is_err(), "{} and {name}: {found:?}", found.format);
        }
    }
}

/// A cheap source of chance, the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// A good image or two with wrong bytes in it: where headers are more often than elsewhere, numbers at their limits,
/// parts of another, cut off, padded.
fn mutant(chance: &mut Chance, corpus: &[Vec<u8>]) -> Vec<u8> {
    const LIMITS: [u64; 8] = [0, 1, 4, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX, u64::MAX - 7];
    let mut bytes = corpus[chance.below(corpus.len())].clone();
    for _ in 0..1 + chance.below(12) {
        let hot = [64, 512, 1024, bytes.len()][chance.below(4)].min(bytes.len());
        let at = chance.below(hot);
        match chance.below(8) {
            0..=2 => put(&mut bytes, at, &[chance.next() as u8]),
            3 => {
                let limit = LIMITS[chance.below(LIMITS.len())];
                let wide = if chance.below(2) == 0 { limit.to_be_bytes() } else { limit.to_le_bytes() };
                put(&mut bytes, at & !3, &wide[..[2, 4, 8][chance.below(3)]]);
            }
            4 => {
                let other = &corpus[chance.below(corpus.len())];
                let from = chance.below(other.len());
                let part = &other[from..other.len().min(from + 1 + chance.below(600))];
                put(&mut bytes, from, part);
            }
            5 => bytes.truncate(chance.below(bytes.len() + 1)),
            6 => bytes.resize(bytes.len() + chance.below(70_000), 0),
            _ => bytes.insert(at, chance.next() as u8),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

fn corpus() -> Vec<Vec<u8>> {
    let mut padded = qcow2(|_| ());
    padded.resize(40 * 1024, 0);
    vec![
        qcow2(|_| ()),
        qcow2(|b| b[79] = 4),
        padded,
        vmdk(GOOD_VMDK),
        streamed_vmdk(|_| ()),
        GOOD_VMDK.as_bytes().to_vec(),
        vdi(1),
        vhd(2),
        iso(),
        gpt(|_| ()),
        vhdx(0),
        vhdx_with_locator(),
        hybrid_iso(),
        luks(),
        vec![0; 64],
    ]
}

/// A verdict, never a panic; the same in whatever pieces the bytes come, and of a file in place.
fn judge(chance: &mut Chance, bytes: &[u8], file: &std::path::Path) -> Finding {
    let whole = {
        let mut inspector = Inspector::new();
        inspector.feed(bytes);
        inspector.finish()
    };
    let mut inspector = Inspector::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at((1 + chance.below(5000)).min(rest.len()));
        inspector.feed(piece);
        rest = left;
    }
    assert_eq!(inspector.finish(), whole);
    if chance.below(50) == 0 {
        std::fs::write(file, bytes).unwrap();
        assert_eq!(inspect_file(file).unwrap(), whole);
    }
    whole
}

#[test]
fn no_bytes_make_it_stumble() {
    let directory = tempfile::tempdir().unwrap();
    let (mut chance, corpus) = (Chance(0x2545_f491_4f6c_dd1d), corpus());
    for _ in 0..1500 {
        let bytes = mutant(&mut chance, &corpus);
        judge(&mut chance, &bytes, &directory.path().join("image"));
    }
}

/// For as long as `FUZZ_SECONDS` says (10 without), another chance each time. With `FUZZ_DUMP`, the name of a folder, the
/// first thousands are left there with their verdicts as names, for other inspectors to look at.
#[test]
#[ignore = "runs as long as one likes: make fuzz"]
fn fuzz() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("FUZZ_SECONDS").unwrap_or(10);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number("FUZZ_SEED").unwrap_or(now.as_nanos() as u64 | 1);
    let dump = std::env::var("FUZZ_DUMP").ok().map(std::path::PathBuf::from);
    eprintln!("FUZZ_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let (mut chance, corpus) = (Chance(seed), corpus());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let (mut looks, mut refused, mut bytes_seen) = (0u64, 0u64, 0u64);
    while std::time::Instant::now() < end {
        let bytes = mutant(&mut chance, &corpus);
        let found = judge(&mut chance, &bytes, &directory.path().join("image"));
        if let Some(folder) = dump.as_ref().filter(|_| looks < 5000) {
            let verdict = if found.check().is_ok() { "safe" } else { "unsafe" };
            std::fs::write(folder.join(format!("{looks:05}-{}-{verdict}", found.format)), &bytes).unwrap();
        }
        looks += 1;
        refused += u64::from(found.check().is_err());
        bytes_seen += bytes.len() as u64;
    }
    eprintln!("{looks} images, {refused} refused, {} MiB, none stumbled", bytes_seen >> 20);
}

/// What an inspector keeps does not grow with the image.
#[test]
fn only_headers_are_remembered() {
    let mut inspector = Inspector::new();
    let chunk = vec![1; 1 << 20];
    for _ in 0..64 {
        inspector.feed(&chunk);
    }
    assert_eq!(inspector.size_bytes(), 64 << 20);
    assert!(inspector.head.len() <= HEAD_BYTES && inspector.tail.len() <= TAIL_BYTES);
}
