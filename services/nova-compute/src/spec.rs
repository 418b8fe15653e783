//! From what nova says of an instance to the host's definition of a guest.

use crate::{Options, disks::LocalDisks};
use base::{Error, Result};
use contracts::compute::{Connection, Instance, Port, Volume};
use host_virt::{Bus, Disk, DomainSpec, Format, Nic, Source};
use std::collections::BTreeMap;

/// What an instance is called in the definition's notes.
pub const NOTE_PROJECT: &str = "project_id";
const NIC_MODELS: [&str; 5] = ["virtio", "e1000", "e1000e", "rtl8139", "ne2k_pci"];

/// The guest: root disk, local disks, volumes in nova's order, cards on their taps.
pub fn domain(instance: &Instance, local: &LocalDisks, options: &Options) -> Result<DomainSpec> {
    let bus = disk_bus(instance)?;
    let mut disks = Vec::new();
    let (root, others): (Vec<&Volume>, Vec<&Volume>) =
        instance.volumes.iter().partition(|volume| volume.boot_index == Some(0));
    let rescue = local.rescue.clone().map(|(disk, stable)| (Disk { bus, ..disk }, stable));
    disks.extend(rescue.iter().filter(|(_, stable)| !stable).map(|(disk, _)| disk.clone()));
    disks.extend(local.root.clone().map(|disk| Disk { bus, ..disk }));
    for volume in root {
        disks.push(Disk { bus, ..disk(volume) });
    }
    if disks.is_empty() {
        return Err(Error::bad_request("Block Device Mapping is Invalid: no disk to boot from"));
    }
    disks.extend(local.others.iter().cloned().map(|disk| Disk { bus, ..disk }));
    disks.extend(others.into_iter().map(|volume| Disk { bus, ..disk(volume) }));
    let stable = rescue.filter(|(_, stable)| *stable).map(|(disk, _)| disk);
    let boot_first = stable.as_ref().map(|disk| disk.serial.clone());
    disks.extend(stable);
    forget_clashing_names(&mut disks);
    Ok(DomainSpec {
        uuid: instance.uuid.clone(),
        name: instance.name.clone(),
        vcpus: instance.vcpus,
        memory_mib: instance.memory_mb,
        disks,
        boot_first,
        config_drive: local.config_drive.clone(),
        nics: instance.ports.iter().map(|port| nic(port, nic_model(instance))).collect(),
        console_log: Some(local.console_log.clone()),
        vnc_listen: Some(options.vnc_listen.clone()),
        guest_agent: true,
        smbios: true,
        metadata: notes(instance),
    })
}

/// A volume as a disk; its id is its serial, by which the guest finds it.
pub fn disk(volume: &Volume) -> Disk {
    let source = match &volume.connection {
        Connection::Nbd { host, port, export, tls_hostname } => Source::Nbd {
            host: host.clone(),
            port: *port,
            export: export.clone(),
            tls_hostname: tls_hostname.clone(),
        },
        Connection::NbdUnix { socket, export } => {
            Source::NbdUnix { socket: socket.into(), export: export.clone() }
        }
    };
    let device = volume.device_name.as_deref().map(|name| name.trim_start_matches("/dev/").to_string());
    Disk {
        serial: volume.volume_id.clone(),
        // The name chooses a place on our bus only when it is of that kind.
        device: device.filter(|name| is_virtio_name(name)),
        source,
        format: Format::Raw,
        bus: Bus::Virtio,
        read_only: volume.read_only,
    }
}

pub fn nic(port: &Port, model: Option<String>) -> Nic {
    Nic { tap: port.tap(), mac: port.mac.clone(), mtu: port.mtu, model }
}

fn disk_bus(instance: &Instance) -> Result<Bus> {
    match property(instance, "hw_disk_bus") {
        None | Some("virtio") => Ok(Bus::Virtio),
        Some("scsi") => Ok(Bus::Scsi),
        Some("ide") => Ok(Bus::Ide),
        Some(other) => Err(Error::bad_request(format!("Disk bus '{other}' is not supported"))),
    }
}

/// A card model that QEMU does not know would only fail at the start; virtio then, as without the property.
fn nic_model(instance: &Instance) -> Option<String> {
    property(instance, "hw_vif_model").filter(|model| NIC_MODELS.contains(model)).map(String::from)
}

fn property<'a>(instance: &'a Instance, name: &str) -> Option<&'a str> {
    instance.image.as_ref()?.properties.get(name).map(String::as_str)
}

/// Chosen names hold for one disk each, and only on the virtio bus; the others get the next free one.
fn forget_clashing_names(disks: &mut [Disk]) {
    let mut taken: Vec<String> = Vec::new();
    for (index, disk) in disks.iter_mut().enumerate() {
        let clashes = disk.device.as_ref().is_some_and(|name| taken.contains(name));
        if clashes || index == 0 || disk.bus != Bus::Virtio {
            disk.device = None;
        }
        if index == 0 && disk.bus == Bus::Virtio {
            disk.device = Some("vda".into());
        }
        taken.extend(disk.device.clone());
    }
}

fn is_virtio_name(name: &str) -> bool {
    let letter = name.strip_prefix("vd").filter(|letter| letter.len() == 1);
    letter.is_some_and(|letter| letter.bytes().all(|byte| byte.is_ascii_lowercase()))
}

fn notes(instance: &Instance) -> BTreeMap<String, String> {
    let notes = [
        ("display_name", &instance.display_name),
        (NOTE_PROJECT, &instance.project_id),
        ("user_id", &instance.user_id),
    ];
    notes.into_iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::compute::InstanceImage;

    fn volume(id: &str, boot_index: Option<i32>, device: Option<&str>) -> Volume {
        Volume {
            volume_id: id.into(),
            connection: Connection::Nbd { host: "h".into(), port: 1, export: id.into(), tls_hostname: None },
            device_name: device.map(String::from),
            boot_index,
            read_only: false,
        }
    }

    fn local(root: bool) -> LocalDisks {
        LocalDisks {
            root: root.then(|| Disk::file("root", "/d/disk", Format::Qcow2)),
            others: vec![Disk::file("swap", "/d/disk.swap", Format::Raw)],
            ..LocalDisks::default()
        }
    }

    fn layout(instance: &Instance, root: bool) -> Vec<(String, Option<String>)> {
        let spec = domain(instance, &local(root), &Options::default()).unwrap();
        spec.disks.into_iter().map(|disk| (disk.serial, disk.device)).collect()
    }

    fn names(expected: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        expected.iter().map(|(serial, device)| (serial.to_string(), device.map(String::from))).collect()
    }

    #[test]
    fn root_first_then_local_then_volumes() {
        let image = Some(InstanceImage::default());
        let volumes = vec![volume("v1", None, Some("/dev/vdd")), volume("v2", Some(-1), Some("/dev/vda"))];
        let from_image = Instance { image, volumes, ..Instance::default() };
        let expected = names(&[("root", Some("vda")), ("swap", None), ("v1", Some("vdd")), ("v2", None)]);
        assert_eq!(layout(&from_image, true), expected);
    }

    #[test]
    fn boot_from_volume() {
        let volumes = vec![volume("data", None, None), volume("boot", Some(0), Some("/dev/sda"))];
        let instance = Instance { volumes, ..Instance::default() };
        let expected = names(&[("boot", Some("vda")), ("swap", None), ("data", None)]);
        assert_eq!(layout(&instance, false), expected);
        assert!(domain(&Instance::default(), &local(false), &Options::default()).is_err(), "nothing to boot");
    }

    #[test]
    fn a_rescue_disk_is_first_or_boots_first() {
        let instance = Instance { image: Some(InstanceImage::default()), ..Instance::default() };
        let with = |stable| LocalDisks {
            rescue: Some((Disk::file("rescue", "/d/disk.rescue", Format::Qcow2), stable)),
            ..local(true)
        };
        let serials = |stable| {
            let spec = domain(&instance, &with(stable), &Options::default()).unwrap();
            (spec.disks.into_iter().map(|disk| disk.serial).collect::<Vec<_>>(), spec.boot_first)
        };
        let list = |serials: &[&str]| serials.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(serials(false), (list(&["rescue", "root", "swap"]), None));
        assert_eq!(serials(true), (list(&["root", "swap", "rescue"]), Some("rescue".into())));
    }

    #[test]
    fn image_properties_choose_bus_and_card() {
        let properties =
            [("hw_disk_bus", "ide"), ("hw_vif_model", "e1000")].map(|(k, v)| (k.to_string(), v.to_string()));
        let image = InstanceImage { properties: properties.into(), ..InstanceImage::default() };
        let mut instance =
            Instance { image: Some(image), ports: vec![Port::default()], ..Instance::default() };
        let spec = domain(&instance, &local(true), &Options::default()).unwrap();
        assert_eq!((spec.disks[0].bus, spec.disks[0].device.clone()), (Bus::Ide, None));
        assert_eq!(spec.nics[0].model.as_deref(), Some("e1000"));
        if let Some(image) = &mut instance.image {
            image.properties.insert("hw_disk_bus".into(), "floppy".into());
        }
        assert!(domain(&instance, &local(true), &Options::default()).is_err());
    }
}
