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

#[test]
fn formats_and_sizes() {
    let mut disk = vec![0; 4096];
    partition_table(&mut disk);
    let mut iso_with_table = iso();
    partition_table(&mut iso_with_table);
    let cases = [
        (Format::Raw, 22, b"some bytes of an image".to_vec()),
        (Format::Raw, 0, Vec::new()),
        (Format::Qcow2, 1 << 30, qcow2(|_| ())),
        (Format::Qcow2, 1 << 30, qcow2(|b| b[79] = 1)),
        (Format::Vmdk, 1 << 20, vmdk(GOOD_VMDK)),
        (Format::Vdi, 5 << 20, vdi(1)),
        (Format::Vhd, 4096, vhd(2)),
        (Format::Iso, 40960, iso()),
        (Format::Iso, 40960, iso_with_table),
        (Format::Gpt, 4096, disk),
        (Format::Luks, 8, b"LUKS\xba\xbe\0\x01".to_vec()),
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
    let mut vhdx = vec![0; 300 * 1024];
    put(&mut vhdx, 0, b"vhdxfile");
    put(&mut vhdx, 192 * 1024, b"regi");
    let starts = [qcow2(|_| ()), vmdk(GOOD_VMDK), vdi(1), vhd(2), iso(), vhdx, vec![0; 64]];
    for start in &starts {
        for _ in 0..300 {
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
