//! Libvirt's XML: written from the typed spec with every text escaped, read back with a parser.

use crate::{Bus, Disk, DomainSpec, Format, Nic, Source};
use base::{Error, Result};
use quick_xml::{
    Writer,
    events::{BytesEnd, BytesStart, BytesText, Event},
};
use roxmltree::{Document, Node};
use std::{collections::BTreeMap, io::Write as _, ops::Range, path::PathBuf};

/// Under which libvirt keeps our notes.
pub const PREFIX: &str = "ferrostack";
pub const NAMESPACE: &str = "https://ferrostack.org/xmlns/domain/1";

/// How the guest's processor is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

/// A device element with its attributes, `("target", &[("dev", "vda")])`.
type Attributes<'a> = &'a [(&'a str, &'a str)];

/// The definition of a domain.
pub fn domain(spec: &DomainSpec, accelerator: Accelerator) -> Result<String> {
    let devices = device_names(spec)?;
    let mut x = Xml::new();
    let kind = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    };
    x.open("domain", &[("type", kind)]);
    x.text("name", &spec.name);
    x.text("uuid", &spec.uuid);
    metadata(&mut x, &spec.metadata);
    x.text_with("memory", &[("unit", "MiB")], &spec.memory_mib.to_string());
    x.text("vcpu", &spec.vcpus.to_string());
    if spec.smbios {
        smbios(&mut x, spec);
    }
    x.open("os", &[]);
    x.text_with("type", &[("arch", "x86_64"), ("machine", "pc")], "hvm");
    if spec.smbios {
        x.empty("smbios", &[("mode", "sysinfo")]);
    }
    x.close("os");
    x.open("features", &[]);
    x.empty("acpi", &[]);
    x.empty("apic", &[]);
    if accelerator == Accelerator::Tcg {
        // Without it a small guest takes twice its memory.
        x.open("tcg", &[]);
        x.text_with("tb-cache", &[("unit", "MiB")], "64");
        x.close("tcg");
    }
    x.close("features");
    cpu(&mut x, spec, accelerator);
    x.open("clock", &[("offset", "utc")]);
    if accelerator == Accelerator::Kvm {
        x.empty("timer", &[("name", "pit"), ("tickpolicy", "delay")]);
        x.empty("timer", &[("name", "rtc"), ("tickpolicy", "catchup")]);
    }
    x.empty("timer", &[("name", "hpet"), ("present", "no")]);
    x.close("clock");
    x.text("on_poweroff", "destroy");
    x.text("on_reboot", "restart");
    x.text("on_crash", "destroy");
    x.open("devices", &[]);
    let later = usize::from(spec.boot_first.is_some());
    for (index, (disk, device)) in spec.disks.iter().zip(&devices).enumerate() {
        let first = spec.boot_first.as_ref() == Some(&disk.serial);
        disk_into(&mut x, disk, device, Some(if first { 1 } else { index + 1 + later }), None);
    }
    if let Some(iso) = &spec.config_drive {
        x.open("disk", &[("type", "file"), ("device", "cdrom")]);
        x.empty("driver", &[("name", "qemu"), ("type", "raw")]);
        x.empty("source", &[("file", &iso.to_string_lossy())]);
        x.empty("target", &[("dev", "hdd"), ("bus", "ide")]);
        x.empty("readonly", &[]);
        x.close("disk");
    }
    for nic in &spec.nics {
        nic_into(&mut x, nic);
    }
    x.open("serial", &[("type", "pty")]);
    if let Some(log) = &spec.console_log {
        x.empty("log", &[("file", &log.to_string_lossy()), ("append", "on")]);
    }
    x.empty("target", &[("port", "0")]);
    x.close("serial");
    if let Some(listen) = &spec.vnc_listen {
        x.empty("graphics", &[("type", "vnc"), ("port", "-1"), ("autoport", "yes"), ("listen", listen)]);
        x.open("video", &[]);
        x.empty("model", &[("type", "vga")]);
        x.close("video");
    }
    if spec.guest_agent {
        x.open("channel", &[("type", "unix")]);
        x.empty("target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")]);
        x.close("channel");
    }
    x.empty("controller", &[("type", "usb"), ("model", "none")]);
    if spec.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        x.empty("controller", &[("type", "scsi"), ("model", "virtio-scsi")]);
    }
    x.open("rng", &[("model", "virtio")]);
    x.text_with("backend", &[("model", "random")], "/dev/urandom");
    x.close("rng");
    x.empty("memballoon", &[("model", "virtio")]);
    x.close("devices");
    x.close("domain");
    Ok(x.end())
}

/// A disk to attach, under the name the guest's definition shall give it.
pub fn disk(disk: &Disk, device: &str) -> String {
    let mut x = Xml::new();
    disk_into(&mut x, disk, device, None, None);
    x.end()
}

/// The notes alone, as libvirt takes them for a running guest: it declares the namespace itself.
pub fn notes(notes: &BTreeMap<String, String>) -> String {
    let mut x = Xml::new();
    x.open("domain", &[]);
    for (name, value) in notes {
        x.text_with("note", &[("name", name)], value);
    }
    x.close("domain");
    x.end()
}

/// Says of a running guest which disk took the place of the one it was given; the guest goes on seeing the old serial.
pub fn replaced_note(device: &str) -> String {
    format!("replaced:{device}")
}

/// A disk of which the guest sees the first `bytes`.
pub fn beginning_of_disk(disk: &Disk, device: &str, bytes: u64) -> String {
    let mut x = Xml::new();
    disk_into(&mut x, disk, device, None, Some(bytes));
    x.end()
}

/// A network card to attach.
pub fn nic(nic: &Nic) -> String {
    let mut x = Xml::new();
    nic_into(&mut x, nic);
    x.end()
}

/// The first device name of a bus that is not taken.
pub fn free_device(bus: Bus, taken: &[String]) -> Result<String> {
    let (prefix, names) = match bus {
        Bus::Virtio => ("vd", 'a'..='z'),
        Bus::Scsi => ("sd", 'a'..='z'),
        Bus::Ide => ("hd", 'a'..='c'), // hdd is the config drive's
    };
    let free = names.map(|letter| format!("{prefix}{letter}")).find(|name| !taken.contains(name));
    free.ok_or_else(|| Error::conflict("No free disk device name"))
}

fn device_names(spec: &DomainSpec) -> Result<Vec<String>> {
    let mut taken: Vec<String> = spec.disks.iter().filter_map(|disk| disk.device.clone()).collect();
    let mut names = Vec::new();
    for disk in &spec.disks {
        let name = match &disk.device {
            Some(name) => name.clone(),
            None => free_device(disk.bus, &taken)?,
        };
        taken.push(name.clone());
        names.push(name);
    }
    Ok(names)
}

fn metadata(x: &mut Xml, notes: &BTreeMap<String, String>) {
    x.open("metadata", &[]);
    x.open("ferrostack:domain", &[("xmlns:ferrostack", NAMESPACE)]);
    for (name, value) in notes {
        x.text_with("ferrostack:note", &[("name", name)], value);
    }
    x.close("ferrostack:domain");
    x.close("metadata");
}

/// What cloud-init looks for to know that it runs in OpenStack.
fn smbios(x: &mut Xml, spec: &DomainSpec) {
    x.open("sysinfo", &[("type", "smbios")]);
    x.open("system", &[]);
    for (name, value) in [
        ("manufacturer", "OpenStack Foundation"),
        ("product", "OpenStack Nova"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("serial", &spec.uuid),
        ("uuid", &spec.uuid),
        ("family", "Virtual Machine"),
    ] {
        x.text_with("entry", &[("name", name)], value);
    }
    x.close("system");
    x.close("sysinfo");
}

fn cpu(x: &mut Xml, spec: &DomainSpec, accelerator: Accelerator) {
    match accelerator {
        Accelerator::Kvm => x.open("cpu", &[("mode", "host-model")]),
        Accelerator::Tcg => {
            x.open("cpu", &[("mode", "custom"), ("match", "exact")]);
            x.text("model", "qemu64");
        }
    }
    let sockets = spec.vcpus.to_string();
    x.empty("topology", &[("sockets", &sockets), ("cores", "1"), ("threads", "1")]);
    x.close("cpu");
}

fn disk_into(x: &mut Xml, disk: &Disk, device: &str, boot_order: Option<usize>, bytes: Option<u64>) {
    let format = match disk.format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    };
    let bus = match disk.bus {
        Bus::Virtio => "virtio",
        Bus::Ide => "ide",
        Bus::Scsi => "scsi",
    };
    match &disk.source {
        Source::File(path) => {
            x.open("disk", &[("type", "file"), ("device", "disk")]);
            x.empty(
                "driver",
                &[("name", "qemu"), ("type", format), ("cache", "writeback"), ("discard", "unmap")],
            );
            x.open("source", &[("file", &path.to_string_lossy())]);
        }
        Source::Nbd { host, port, export, tls_hostname } => {
            open_network_disk(x, format);
            let mut source = vec![("protocol", "nbd"), ("name", export.as_str())];
            if let Some(name) = tls_hostname {
                source.extend([("tls", "yes"), ("tlsHostname", name.as_str())]);
            }
            x.open("source", &source);
            x.empty("host", &[("name", host), ("port", &port.to_string())]);
        }
        Source::NbdUnix { socket, export } => {
            open_network_disk(x, format);
            x.open("source", &[("protocol", "nbd"), ("name", export)]);
            x.empty("host", &[("transport", "unix"), ("socket", &socket.to_string_lossy())]);
        }
        Source::Rbd { pool, disk, conf, secret } => {
            open_network_disk(x, format);
            x.open("source", &[("protocol", "rbd"), ("name", &format!("{pool}/{disk}"))]);
            if !conf.is_empty() {
                x.empty("config", &[("file", conf)]);
            }
            if let Some((user, secret)) = secret {
                x.open("auth", &[("username", user)]);
                x.empty("secret", &[("type", "ceph"), ("uuid", secret)]);
                x.close("auth");
            }
        }
    }
    if let Some(bytes) = bytes {
        x.open("slices", &[]);
        x.empty("slice", &[("type", "storage"), ("offset", "0"), ("size", &bytes.to_string())]);
        x.close("slices");
    }
    x.close("source");
    x.empty("target", &[("dev", device), ("bus", bus)]);
    if let Some(order) = boot_order {
        x.empty("boot", &[("order", &order.to_string())]);
    }
    if disk.read_only {
        x.empty("readonly", &[]);
    }
    x.text("serial", &disk.serial);
    x.close("disk");
}

/// A guest whose disk does not answer stops, and goes on when it does: see [`crate::stalled`].
fn open_network_disk(x: &mut Xml, format: &str) {
    x.open("disk", &[("type", "network"), ("device", "disk")]);
    let driver = [("name", "qemu"), ("type", format), ("cache", "none"), ("error_policy", "stop")];
    x.empty("driver", &[&driver[..], &[("discard", "unmap")]].concat());
}

fn nic_into(x: &mut Xml, nic: &Nic) {
    x.open("interface", &[("type", "ethernet")]);
    x.empty("mac", &[("address", &nic.mac)]);
    x.empty("target", &[("dev", &nic.tap), ("managed", "no")]);
    x.empty("model", &[("type", nic.model.as_deref().unwrap_or("virtio"))]);
    if let Some(mtu) = nic.mtu {
        x.empty("mtu", &[("size", &mtu.to_string())]);
    }
    // Saves the firmware's network boot time.
    x.empty("rom", &[("enabled", "no")]);
    x.close("interface");
}

/// A writer into memory, which cannot fail.
struct Xml(Writer<Vec<u8>>);

impl Xml {
    fn new() -> Self {
        Self(Writer::new_with_indent(Vec::new(), b' ', 2))
    }

    fn write(&mut self, event: Event<'_>) {
        self.0.write_event(event).expect("memory takes every write");
    }

    fn open(&mut self, name: &str, attributes: Attributes) {
        self.write(Event::Start(BytesStart::new(name).with_attributes(attributes.iter().copied())));
    }

    fn empty(&mut self, name: &str, attributes: Attributes) {
        self.write(Event::Empty(BytesStart::new(name).with_attributes(attributes.iter().copied())));
    }

    fn close(&mut self, name: &str) {
        self.write(Event::End(BytesEnd::new(name)));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.text_with(name, &[], text);
    }

    fn text_with(&mut self, name: &str, attributes: Attributes, text: &str) {
        self.open(name, attributes);
        self.write(Event::Text(BytesText::new(&printable(text))));
        self.close(name);
    }

    fn end(mut self) -> String {
        self.0.get_mut().write_all(b"\n").expect("memory takes every write");
        String::from_utf8_lossy(&self.0.into_inner()).into_owned()
    }
}

/// XML 1.0 has no form, escaped or not, for most control characters; a server's name may hold them.
fn printable(text: &str) -> String {
    let allowed = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().filter(allowed).filter(|c| !matches!(c, '\u{fffe}' | '\u{ffff}')).collect()
}

/// What the driver needs to know of a definition that libvirt gave back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    pub metadata: BTreeMap<String, String>,
    pub vnc: Option<(String, u16)>,
    pub console_log: Option<PathBuf>,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disks: Vec<DiskElement>,
    pub nics: Vec<NicElement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskElement {
    pub serial: String,
    /// Differs once another disk took this one's place under the running guest.
    pub seen_serial: String,
    /// Where its bytes are: libvirt's words for it.
    pub source: Vec<(String, String)>,
    pub device: String,
    /// As QEMU calls the running guest's.
    pub alias: String,
    /// The element as it stands, to hand back when detaching.
    pub xml: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicElement {
    pub mac: String,
    pub xml: String,
}

/// Reads a definition.
pub fn read(text: &str) -> Result<Definition> {
    let document = parse(text)?;
    let root = document.root_element();
    let devices = child(root, "devices");
    let elements = |name: &'static str| {
        devices.into_iter().flat_map(move |node| node.children().filter(move |n| n.has_tag_name(name)))
    };
    let notes = root.descendants().filter(|node| node.has_tag_name((NAMESPACE, "note")));
    let vnc = elements("graphics").find(|node| node.attribute("type") == Some("vnc"));
    let metadata: BTreeMap<String, String> =
        notes.map(|node| (attribute(node, "name"), node.text().unwrap_or_default().to_string())).collect();
    Ok(Definition {
        vnc: vnc.and_then(|node| {
            let port = node.attribute("port")?.parse().ok()?;
            Some((attribute(node, "listen"), port))
        }),
        console_log: elements("serial")
            .find_map(|node| child(node, "log")?.attribute("file").map(PathBuf::from)),
        vcpus: child(root, "vcpu").and_then(|node| node.text()?.trim().parse().ok()).unwrap_or(0),
        memory_mib: child(root, "memory").map(memory_mib).unwrap_or(0),
        disks: elements("disk").map(|node| disk_element(node, text, &metadata)).collect(),
        nics: elements("interface")
            .map(|node| NicElement {
                mac: child(node, "mac").map(|n| attribute(n, "address")).unwrap_or_default(),
                xml: text[node.range()].to_string(),
            })
            .collect(),
        metadata,
    })
}

fn disk_element(node: Node, text: &str, notes: &BTreeMap<String, String>) -> DiskElement {
    let seen_serial = child(node, "serial").and_then(|n| n.text()).unwrap_or_default().to_string();
    let device = child(node, "target").map(|n| attribute(n, "dev")).unwrap_or_default();
    DiskElement {
        serial: notes.get(&replaced_note(&device)).unwrap_or(&seen_serial).clone(),
        seen_serial,
        source: child(node, "source").map(place).unwrap_or_default(),
        device,
        alias: child(node, "alias").map(|n| attribute(n, "name")).unwrap_or_default(),
        xml: text[node.range()].to_string(),
    }
}

/// File, or export and host, of a disk; without what libvirt adds to the source of a running guest's.
fn place(source: Node) -> Vec<(String, String)> {
    let named = |node: Node| {
        let said = node.attributes().filter(|a| matches!(a.name(), "file" | "name" | "port" | "socket"));
        said.map(|a| (a.name().to_string(), a.value().to_string())).collect::<Vec<_>>()
    };
    named(source).into_iter().chain(child(source, "host").map(named).unwrap_or_default()).collect()
}

/// Whether two disk elements' bytes are in the same place.
pub fn same_place(held: &DiskElement, element: &str) -> Result<bool> {
    let document = parse(element)?;
    Ok(child(document.root_element(), "source").map(place).unwrap_or_default() == held.source)
}

/// The definition a running guest goes on with elsewhere: what it sees stays as it is, to the addresses of its devices;
/// where its disks, its log and its screen are, the definition says that it has there.
pub fn elsewhere(live: &str, there: &str) -> Result<String> {
    let (here, there_document) = (parse(live)?, parse(there)?);
    let notes = read(live)?.metadata;
    let of_there: Vec<Node> = elements(&there_document).collect();
    let log = there_document.descendants().find(|node| node.has_tag_name("log"));
    let mut changes: Vec<(Range<usize>, &str)> = Vec::new();
    for device in elements(&here) {
        let there_is = |same: &dyn Fn(Node) -> bool| {
            of_there.iter().copied().find(|node| node.tag_name() == device.tag_name() && same(*node))
        };
        match device.tag_name().name() {
            "disk" => {
                let held = disk_element(device, live, &notes);
                let same = |node: Node| {
                    let other = disk_element(node, there, &BTreeMap::new());
                    other.serial == held.serial && node.attribute("device") == device.attribute("device")
                };
                let source = there_is(&same).and_then(|node| child(node, "source"));
                let missing = || Error::internal(format!("disk {} is not expected there", held.device));
                let source = source.ok_or_else(missing)?;
                changes.extend(child(device, "source").map(|node| (node.range(), &there[source.range()])));
                // There it is looked up anew.
                changes.extend(child(device, "backingStore").map(|node| (node.range(), "")));
            }
            "graphics" => {
                let screen = there_is(&|_| true);
                changes.extend(screen.map(|screen| (device.range(), &there[screen.range()])));
            }
            _ => {
                let written = child(device, "log").zip(log);
                changes.extend(written.map(|(node, log)| (node.range(), &there[log.range()])));
            }
        }
    }
    changes.sort_by_key(|(range, _)| range.start);
    let mut text = live.to_string();
    for (range, new) in changes.into_iter().rev() {
        text.replace_range(range, new);
    }
    Ok(text)
}

fn elements<'a, 'i>(document: &'a Document<'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    let devices = child(document.root_element(), "devices");
    devices.into_iter().flat_map(|devices| devices.children().filter(Node::is_element))
}

/// The processor of the host, from libvirt's capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCpu {
    pub arch: String,
    pub model: String,
    pub vendor: String,
    pub features: Vec<String>,
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
}

pub fn read_capabilities(text: &str) -> Result<HostCpu> {
    let document = parse(text)?;
    let Some(cpu) = child(document.root_element(), "host").and_then(|host| child(host, "cpu")) else {
        return Ok(HostCpu::default());
    };
    let word = |name| child(cpu, name).and_then(|node| node.text()).unwrap_or_default().to_string();
    let topology = |name| child(cpu, "topology").and_then(|n| n.attribute(name)?.parse().ok()).unwrap_or(1);
    let features = cpu.children().filter(|node| node.has_tag_name("feature"));
    Ok(HostCpu {
        arch: word("arch"),
        model: word("model"),
        vendor: word("vendor"),
        features: features.map(|node| attribute(node, "name")).collect(),
        sockets: topology("sockets"),
        cores: topology("cores"),
        threads: topology("threads"),
    })
}

fn parse(text: &str) -> Result<Document<'_>> {
    Document::parse(text).map_err(|e| Error::internal(format!("XML from libvirt: {e}")))
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn attribute(node: Node, name: &str) -> String {
    node.attribute(name).unwrap_or_default().to_string()
}

fn memory_mib(node: Node) -> u64 {
    let amount: u64 = node.text().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => amount / 1024 / 1024,
        "MiB" => amount,
        "GiB" => amount * 1024,
        _ => amount / 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DomainSpec {
        DomainSpec {
            boot_first: None,
            uuid: "0e8a7f6c-0000-4000-8000-000000000001".into(),
            name: "instance-00000001".into(),
            vcpus: 2,
            memory_mib: 512,
            disks: vec![
                Disk::file("root", "/s/a&b/disk", Format::Qcow2),
                Disk::network(
                    "vol-1",
                    Source::Nbd {
                        host: "10.0.0.1".into(),
                        port: 10809,
                        export: "v\"1".into(),
                        tls_hostname: Some("s1".into()),
                    },
                ),
            ],
            config_drive: Some("/s/disk.config".into()),
            nics: vec![Nic {
                tap: "tap1".into(),
                mac: "fa:16:3e:00:00:01".into(),
                mtu: Some(1450),
                model: None,
            }],
            console_log: Some("/s/console.log".into()),
            vnc_listen: Some("127.0.0.1".into()),
            guest_agent: true,
            smbios: true,
            metadata: [("display_name".to_string(), "</x> <script>&\u{7}é".to_string())].into(),
        }
    }

    /// The whole definition, so that a change of any element is seen. Refresh with `UPDATE_SNAPSHOTS=1`.
    fn assert_snapshot(name: &str, text: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(text == expected, "{name} differs:\n{text}");
    }

    #[test]
    fn snapshots() {
        assert_snapshot("domain-tcg.xml", &domain(&spec(), Accelerator::Tcg).unwrap());
        assert_snapshot("domain-kvm.xml", &domain(&spec(), Accelerator::Kvm).unwrap());
        let unix = Source::NbdUnix { socket: "/run/v.sock".into(), export: "v".into() };
        assert_snapshot("disk-nbd-unix.xml", &disk(&Disk::network("vol-2", unix), "vdc"));
        let rbd = Source::Rbd {
            pool: "vms".into(),
            disk: "i_h".into(),
            conf: "/etc/ceph/c.conf".into(),
            secret: Some(("nova".into(), "s-1".into())),
        };
        assert_snapshot("disk-rbd.xml", &disk(&Disk::network("root", rbd), "vda"));
        assert_snapshot("nic.xml", &nic(&spec().nics[0]));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let read = read(&domain(&spec(), Accelerator::Tcg).unwrap()).unwrap();
        assert_eq!(read.metadata["display_name"], "</x> <script>&é");
        assert_eq!((read.vcpus, read.memory_mib), (2, 512));
        assert_eq!(read.console_log, Some("/s/console.log".into()));
        let disks: Vec<_> = read.disks.iter().map(|d| (d.serial.as_str(), d.device.as_str())).collect();
        assert_eq!(disks, [("root", "vda"), ("vol-1", "vdb"), ("", "hdd")]);
        assert_eq!(read.nics[0].mac, "fa:16:3e:00:00:01");
        assert!(read.nics[0].xml.starts_with("<interface") && read.nics[0].xml.ends_with("</interface>"));
        assert_eq!(read.vnc, None, "no port before the guest runs");
    }

    #[test]
    fn a_replaced_disk_keeps_the_serial_the_guest_sees() {
        let mut replaced = spec();
        replaced.metadata.insert(replaced_note("vdb"), "vol-2".into());
        let live = read(&domain(&replaced, Accelerator::Tcg).unwrap()).unwrap();
        let held = &live.disks[1];
        assert_eq!((&*held.serial, &*held.seen_serial), ("vol-2", "vol-1"));
        let element = |disk: &Disk| beginning_of_disk(disk, "vdc", 4096);
        assert!(same_place(held, &element(&spec().disks[1])).unwrap(), "whatever its name and length");
        let unix = Source::NbdUnix { socket: "/run/v.sock".into(), export: "v".into() };
        assert!(!same_place(held, &element(&Disk::network("vol-1", unix))).unwrap());

        let mut there = spec();
        there.disks[1].serial = "vol-2".into();
        let there = domain(&there, Accelerator::Tcg).unwrap();
        let moved = elsewhere(&domain(&replaced, Accelerator::Tcg).unwrap(), &there).unwrap();
        assert_eq!(read(&moved).unwrap(), live);
    }

    #[test]
    fn elsewhere_a_guest_sees_the_same_devices() {
        let address = "<address type='pci' slot='0x08'/>";
        let live = domain(&spec(), Accelerator::Tcg).unwrap();
        let live = live.replace("<target dev=\"vdb\"", &format!("{address}<target dev=\"vdb\""));
        let live = live.replace(
            "<target dev=\"vda\"",
            "<backingStore type='file'><source file='/b'/></backingStore>\n<target dev=\"vda\"",
        );
        let mut there = spec();
        there.disks.reverse();
        there.disks[1].source = Source::File("/t/disk".into());
        there.disks[0].source = Source::NbdUnix { socket: "/run/v.sock".into(), export: "v".into() };
        there.config_drive = Some("/t/disk.config".into());
        there.console_log = Some("/t/console.log".into());
        there.vnc_listen = Some("10.0.0.2".into());
        let there = domain(&there, Accelerator::Tcg).unwrap();
        let moved = elsewhere(&live, &there).unwrap();
        assert!(
            moved.contains(address) && !moved.contains("/s/") && !moved.contains("backingStore"),
            "{moved}"
        );
        for new in ["/t/disk\"", "/run/v.sock", "/t/disk.config", "/t/console.log", "10.0.0.2"] {
            assert!(moved.contains(new), "{new} in {moved}");
        }
        let devices = |text: &str| {
            let disks = read(text).unwrap().disks.into_iter();
            disks.map(|disk| (disk.serial, disk.device)).collect::<Vec<_>>()
        };
        assert_eq!(devices(&moved), devices(&live));
        let without = domain(&DomainSpec { disks: spec().disks[..1].to_vec(), ..spec() }, Accelerator::Tcg);
        assert!(elsewhere(&live, &without.unwrap()).is_err(), "a disk that is not expected");
    }

    #[test]
    fn scsi_disks_get_a_controller() {
        let mut spec = spec();
        assert!(!domain(&spec, Accelerator::Tcg).unwrap().contains("virtio-scsi"));
        spec.disks[0].bus = Bus::Scsi;
        let text = domain(&spec, Accelerator::Tcg).unwrap();
        assert!(text.contains("virtio-scsi") && text.contains("\"sda\""));
    }

    #[test]
    fn device_names_fill_the_gaps() {
        let mut spec = spec();
        spec.disks[0].device = Some("vdb".into());
        assert_eq!(device_names(&spec).unwrap(), ["vdb", "vda"]);
        let all: Vec<String> = ('a'..='z').map(|letter| format!("vd{letter}")).collect();
        assert!(free_device(Bus::Virtio, &all).is_err());
    }

    #[test]
    fn capabilities() {
        let text = "<capabilities><host><cpu><arch>x86_64</arch><model>Skylake</model><vendor>Intel</vendor>
            <topology sockets='1' dies='1' cores='2' threads='2'/><feature name='aes'/></cpu></host></capabilities>";
        let cpu = read_capabilities(text).unwrap();
        assert_eq!((cpu.arch.as_str(), cpu.model.as_str(), cpu.cores), ("x86_64", "Skylake", 2));
        assert_eq!(cpu.features, ["aes"]);
        assert_eq!(read_capabilities("<capabilities/>").unwrap(), HostCpu::default());
        assert!(read_capabilities("<cap").is_err());
    }
}
