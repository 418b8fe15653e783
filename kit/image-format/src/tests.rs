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
        (Format::Gpt, 4096, disk),
        (Format::Luks, 8, b"LUKS\xba\xbe\0\x01".to_vec()),
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
        ("version of LUKS", b"LUKS\xba\xbe\0\x02".to_vec()),
        ("unknown features", qcow2(|b| b[79] = 16)),
        ("boot flag", gpt(|b| b[446] = 7)),
        ("beside its GPT", gpt(|b| b[446 + 20] = 0x83)),
        ("wrong place", gpt(|b| b[446 + 8] = 2)),
        ("empty", gpt(|b| b[446 + 4] = 0)),
        ("differences", vdi(4)),
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

/// Headers of every format with random bytes in them, and random bytes alone: a verdict, never a panic.
#[test]
fn no_bytes_make_it_stumble() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let starts = [
        qcow2(|_| ()),
        vmdk(GOOD_VMDK),
        streamed_vmdk(|_| ()),
        vdi(1),
        vhd(2),
        iso(),
        gpt(|_| ()),
        vhdx(0),
        vec![0; 64],
    ];
    for start in &starts {
        let times = if start.len() > 1 << 20 { 30 } else { 300 };
        for _ in 0..times {
            let mut bytes = start.clone();
            for _ in 0..(random() % 40) {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() as usize % (bytes.len() + 1));
            let _ = look(&bytes).check();
        }
    }
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
