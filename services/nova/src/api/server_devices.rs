//! The block device mapping of a new server, old form and new, checked and made into its disks.

use crate::{
    Nova,
    model::{BlockDevice, Flavor},
};
use base::{Context, Error, ErrorKind, Json, Result, id};
use contracts::volumes::Volume;

/// What a server shall boot from.
#[derive(Debug)]
pub enum Root {
    /// The image itself, on the host's disk.
    Image,
    /// A volume that is made of this image.
    VolumeOfImage {
        image_id: String,
        size_gb: i64,
    },
    Volume(Box<Volume>),
}

/// The disks that a server is to have beside those of its flavor, and its root.
#[derive(Debug)]
pub struct Devices {
    pub root: Root,
    pub volumes: Vec<BlockDevice>,
}

fn invalid(details: &str) -> Error {
    Error::bad_request(format!("Block Device Mapping is Invalid: {details}"))
}

/// The mapping in the new form, whichever was given.
pub fn mapping(server: &Json) -> Result<Vec<BlockDevice>> {
    let list = |name: &str| server[name].as_array().filter(|list| !list.is_empty());
    let has_image = server["imageRef"].as_str().is_some_and(|image| !image.is_empty());
    match (list("block_device_mapping"), list("block_device_mapping_v2")) {
        (Some(_), Some(_)) => Err(Error::bad_request(
            "Using different block_device_mapping syntaxes is not allowed in the same request.",
        )),
        (Some(old), None) => Ok(old.iter().filter_map(|device| legacy(device, has_image)).collect()),
        (None, Some(new)) => {
            let devices = new.iter().filter(|device| is_device(device));
            devices.map(|given| device(given, has_image)).collect()
        }
        (None, None) => Ok(Vec::new()),
    }
}

/// What an image says that a server of it is made of, where the request says nothing else: the snapshot of a server
/// of volumes is such an image.
pub async fn with_images(
    nova: &Nova,
    cx: &Context,
    image_ref: &str,
    mapping: Vec<BlockDevice>,
) -> Result<Vec<BlockDevice>> {
    if image_ref.is_empty() {
        return Ok(mapping);
    }
    // One that is not there is refused where it is asked for.
    let Ok(image) = nova.images().show(cx, image_ref).await else { return Ok(mapping) };
    let said = image.properties.get("block_device_mapping").and_then(|text| serde_json::from_str(text).ok());
    let Some(Json::Array(said)) = said else { return Ok(mapping) };
    let mut all = Vec::new();
    for mut given in said.into_iter().filter(is_device) {
        let behind = ["snapshot_id", "image_id", "volume_id"].map(|key| text(&given, key));
        given["uuid"] = behind.into_iter().flatten().next().into();
        all.push(device(&given, false)?);
    }
    let is_overridden = |one: &BlockDevice| {
        let same_root = |other: &BlockDevice| one.boot_index == Some(0) && other.boot_index == Some(0);
        mapping.iter().any(|other| one.device_name == other.device_name || same_root(other))
    };
    all.retain(|one| !is_overridden(one));
    all.extend(mapping);
    Ok(all)
}

/// `no_device` says that there shall be none.
fn is_device(device: &Json) -> bool {
    matches!(device.get("no_device"), None | Some(Json::Null) | Some(Json::Bool(false)))
}

fn text(device: &Json, name: &str) -> Option<String> {
    device[name].as_str().filter(|text| !text.is_empty()).map(String::from)
}

fn number(value: &Json) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn legacy(given: &Json, has_image: bool) -> Option<BlockDevice> {
    if !is_device(given) {
        return None;
    }
    let (volume_id, snapshot_id) = (text(given, "volume_id"), text(given, "snapshot_id"));
    let source_type = match (&volume_id, &snapshot_id) {
        (Some(_), _) => "volume",
        (None, Some(_)) => "snapshot",
        (None, None) => return None,
    };
    let device_name = device_name(given);
    let is_root = !has_image && device_name.as_deref().is_none_or(|name| name == ROOT_DEVICE);
    Some(BlockDevice {
        source_type: source_type.into(),
        destination_type: "volume".into(),
        source_id: snapshot_id.filter(|_| source_type == "snapshot"),
        volume_id,
        volume_size_gb: number(&given["volume_size"]),
        boot_index: is_root.then_some(0),
        device_name,
        delete_on_termination: super::is_true(&given["delete_on_termination"]),
        ..BlockDevice::default()
    })
}

fn device(given: &Json, has_image: bool) -> Result<BlockDevice> {
    let source_type = text(given, "source_type").unwrap_or_default();
    let uuid = text(given, "uuid");
    if source_type == "blank" && uuid.is_some() {
        return Err(invalid("Invalid device UUID."));
    }
    if source_type != "blank" && (uuid.is_none() || source_type.is_empty()) {
        return Err(invalid("Missing device UUID."));
    }
    let default = if matches!(source_type.as_str(), "volume" | "snapshot") { "volume" } else { "local" };
    let destination_type = text(given, "destination_type").unwrap_or_else(|| default.into());
    let boot_index = number(&given["boot_index"]);
    let volume_type = text(given, "volume_type");
    let is_root_image = has_image && boot_index == Some(0);
    if source_type == "image" && destination_type == "local" && !is_root_image {
        return Err(invalid("Mapping image to local is not supported."));
    }
    if matches!(source_type.as_str(), "volume" | "snapshot") && destination_type == "local" {
        return Err(invalid("Mapping a volume or snapshot to local is not supported."));
    }
    if destination_type == "local" && volume_type.is_some() {
        return Err(invalid("Specifying a volume_type with destination_type=local is not supported."));
    }
    if source_type == "volume" && volume_type.is_some() {
        return Err(invalid("Specifying volume type to existing volume is not supported."));
    }
    let is_volume = source_type == "volume";
    Ok(BlockDevice {
        volume_id: uuid.clone().filter(|_| is_volume),
        source_id: uuid.filter(|_| !is_volume),
        source_type,
        destination_type,
        volume_size_gb: number(&given["volume_size"]),
        volume_type,
        device_name: device_name(given),
        boot_index,
        delete_on_termination: super::is_true(&given["delete_on_termination"]),
        guest_format: text(given, "guest_format"),
        tag: text(given, "tag"),
        ..BlockDevice::default()
    })
}

pub const ROOT_DEVICE: &str = "/dev/vda";

fn device_name(given: &Json) -> Option<String> {
    let name = text(given, "device_name")?;
    Some(if name.starts_with("/dev/") { name } else { format!("/dev/{name}") })
}

/// Checks the mapping against the flavor, and against what cinder has.
pub async fn check(
    nova: &Nova,
    cx: &Context,
    has_image: bool,
    flavor: &Flavor,
    mapping: Vec<BlockDevice>,
    servers: i64,
) -> Result<Devices> {
    let (locals, mut volumes): (Vec<BlockDevice>, Vec<BlockDevice>) =
        mapping.into_iter().partition(|device| device.destination_type == "local");
    check_locals(&locals, flavor)?;
    let image_is_root = has_image && !volumes.iter().any(|device| device.boot_index == Some(0));
    check_boot_order(&locals, &volumes, image_is_root)?;
    if servers > 1 && volumes.iter().any(|device| device.source_type == "volume") {
        return Err(Error::bad_request("Cannot attach one or more volumes to multiple instances"));
    }
    let root_name_taken = |device: &BlockDevice| device.device_name.as_deref() == Some(ROOT_DEVICE);
    if image_is_root && volumes.iter().any(root_name_taken) {
        return Err(Error::bad_request(
            "The volume cannot be assigned the same device name as the root device vda",
        ));
    }
    let mut root = Root::Image;
    for device in &mut volumes {
        let found = volume_behind(nova, cx, device).await?;
        if device.boot_index == Some(0) {
            root = match found {
                Some(volume) => Root::Volume(Box::new(volume)),
                None if device.source_type == "blank" => Root::Volume(Box::default()),
                None => Root::VolumeOfImage {
                    image_id: device.source_id.clone().unwrap_or_default(),
                    size_gb: device.volume_size_gb.unwrap_or_default(),
                },
            };
        }
    }
    name_devices(&mut volumes, image_is_root, flavor);
    Ok(Devices { root, volumes })
}

/// Local disks are the flavor's; a mapping may only ask for what the flavor has.
fn check_locals(locals: &[BlockDevice], flavor: &Flavor) -> Result<()> {
    let is_swap = |device: &&BlockDevice| device.guest_format.as_deref() == Some("swap");
    let blank = || locals.iter().filter(|device| device.source_type == "blank");
    let sum = |size: Option<i64>| size.unwrap_or_default();
    let swap_gb: i64 = blank().filter(is_swap).map(|device| sum(device.volume_size_gb)).sum();
    let swaps = blank().filter(is_swap).count();
    if swaps > 1 || swap_gb > flavor.swap {
        return Err(Error::bad_request("Swap drive requested is larger than instance type allows."));
    }
    let ephemeral_gb: i64 = blank().filter(|d| !is_swap(d)).map(|device| sum(device.volume_size_gb)).sum();
    if ephemeral_gb > flavor.ephemeral_gb {
        return Err(Error::bad_request(
            "Ephemeral disks requested are larger than the instance type allows. If no size is given in one block device mapping, flavor ephemeral size will be used.",
        ));
    }
    Ok(())
}

/// Boot indexes go up from 0 without a gap.
fn check_boot_order(locals: &[BlockDevice], volumes: &[BlockDevice], image_is_root: bool) -> Result<()> {
    let given = locals.iter().filter(|device| device.source_type != "image").chain(volumes);
    let mut indexes: Vec<i64> =
        given.filter_map(|device| device.boot_index).filter(|index| *index >= 0).collect();
    if image_is_root {
        indexes.push(0);
    }
    indexes.sort_unstable();
    let fits = !indexes.is_empty() && indexes.iter().enumerate().all(|(n, index)| *index == n as i64);
    if fits {
        return Ok(());
    }
    Err(invalid("Boot sequence for the instance and image/block device mapping combination is not valid."))
}

/// The volume that is used, or of which the new one is made; none for one made of an image or of nothing.
async fn volume_behind(nova: &Nova, cx: &Context, device: &mut BlockDevice) -> Result<Option<Volume>> {
    let volumes = nova.volumes();
    match device.source_type.as_str() {
        "volume" => {
            let id = device.volume_id.clone().unwrap_or_default();
            let wrong = |_| invalid(&format!("failed to get volume {id}."));
            let volume = volumes.show(cx, &id).await.map_err(wrong)?;
            if device.boot_index == Some(0) && !volume.bootable {
                return Err(Error::bad_request(format!("Block Device {id} is not bootable.")));
            }
            check_available(&volume)?;
            device.volume_size_gb = i64::try_from(volume.size_gb).ok();
            Ok(Some(volume))
        }
        "snapshot" => {
            let id = device.source_id.clone().unwrap_or_default();
            let wrong = || invalid(&format!("failed to get snapshot {id}."));
            let snapshot = volumes.show_snapshot(cx, &id).await.map_err(|_| wrong())?;
            device.volume_size_gb = device.volume_size_gb.or(i64::try_from(snapshot.size_gb).ok());
            volumes.show(cx, &snapshot.volume_id).await.map(Some).map_err(|_| wrong())
        }
        "image" => {
            let id = device.source_id.clone().unwrap_or_default();
            let found = nova.images().show(cx, &id).await;
            found.map_err(|_| invalid(&format!("failed to get image {id}.")))?;
            match device.volume_size_gb.unwrap_or_default() {
                0 => Err(invalid(
                    "Images with destination_type 'volume' need to have a non-zero size specified",
                )),
                _ => Ok(None),
            }
        }
        _ => match device.volume_size_gb.unwrap_or_default() {
            0 => Err(invalid("Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size")),
            _ => Ok(None),
        },
    }
}

pub fn check_available(volume: &Volume) -> Result<()> {
    let fine = volume.status == "available" || volume.multiattach && volume.status == "in-use";
    if fine {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "Invalid volume: Invalid input received: Invalid volume: Volume {} status must be available or downloading to reserve, but the current status is {}.",
        volume.id, volume.status
    )))
}

/// Names after the root's and those of the flavor's disks, in the order given.
fn name_devices(volumes: &mut [BlockDevice], image_is_root: bool, flavor: &Flavor) {
    let local = [flavor.ephemeral_gb, flavor.swap].iter().filter(|size| **size > 0).count();
    let mut taken: Vec<String> = vec![ROOT_DEVICE.to_string()];
    taken.extend((1..=local).map(nth_name));
    for device in volumes.iter_mut() {
        if !image_is_root && device.boot_index == Some(0) {
            device.device_name = Some(ROOT_DEVICE.into());
        }
    }
    taken.extend(volumes.iter().filter_map(|device| device.device_name.clone()));
    for device in volumes.iter_mut().filter(|device| device.device_name.is_none()) {
        device.device_name = next_name(&taken);
        taken.extend(device.device_name.clone());
    }
}

/// The first free name, `/dev/vdb` and so on.
pub fn next_name(taken: &[String]) -> Option<String> {
    (1..26).map(nth_name).find(|name| !taken.contains(name))
}

pub fn nth_name(n: usize) -> String {
    format!("/dev/vd{}", char::from(b'a' + (n as u8).min(25)))
}

/// The rows of one server, with ids of their own for what is to be made.
pub fn rows(devices: &[BlockDevice], instance_uuid: &str) -> Vec<BlockDevice> {
    let one = |device: &BlockDevice| BlockDevice {
        id: id::uuid(),
        instance_uuid: instance_uuid.into(),
        volume_id: device.volume_id.clone().or_else(|| Some(id::uuid())),
        attachment_id: Some(id::uuid()),
        ..device.clone()
    };
    devices.iter().map(one).collect()
}

/// What is not there is the request's mistake here.
pub fn is_missing(error: &Error) -> bool {
    error.is(ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "0e8a7f6c-0000-4000-8000-000000000001";

    #[test]
    fn forms_of_a_device() {
        let wrong = |given: Json, image: &str| {
            let server = json!({"imageRef": image, "block_device_mapping_v2": [given]});
            mapping(&server).unwrap_err().message
        };
        for (given, image, message) in [
            (json!({"boot_index": 0}), "", "Missing device UUID."),
            (json!({"source_type": "blank", "uuid": ID}), "", "Invalid device UUID."),
            (
                json!({"source_type": "image", "uuid": ID, "destination_type": "local", "boot_index": 0}),
                "",
                "Mapping image to local is not supported.",
            ),
            (
                json!({"source_type": "volume", "uuid": ID, "volume_type": "fast"}),
                "",
                "Specifying volume type to existing volume is not supported.",
            ),
        ] {
            assert_eq!(wrong(given, image), format!("Block Device Mapping is Invalid: {message}"));
        }
        let both = json!({"block_device_mapping": [{}], "block_device_mapping_v2": [{}]});
        assert!(mapping(&both).is_err());
        let old = json!({"block_device_mapping": [{"volume_id": ID, "device_name": "vda"}]});
        assert_eq!(mapping(&old).unwrap()[0].boot_index, Some(0));
    }

    #[test]
    fn boot_order_has_no_gaps() {
        let device = |index: Option<i64>| BlockDevice { boot_index: index, ..BlockDevice::default() };
        for (indexes, image, fine) in [
            (vec![], true, true),
            (vec![], false, false),
            (vec![Some(0), Some(1)], false, true),
            (vec![Some(0), Some(2)], false, false),
            (vec![Some(0)], true, false),
            (vec![Some(-1), None], true, true),
        ] {
            let volumes: Vec<BlockDevice> = indexes.iter().map(|index| device(*index)).collect();
            assert_eq!(check_boot_order(&[], &volumes, image).is_ok(), fine, "{indexes:?} {image}");
        }
    }

    #[test]
    fn names_leave_out_what_is_taken() {
        let flavor = Flavor { swap: 64, ..Flavor::default() };
        let named = |name: &str| BlockDevice { device_name: Some(name.into()), ..BlockDevice::default() };
        let mut volumes = vec![BlockDevice::default(), named("/dev/vdc"), BlockDevice::default()];
        name_devices(&mut volumes, true, &flavor);
        let names: Vec<_> = volumes.iter().filter_map(|device| device.device_name.as_deref()).collect();
        assert_eq!(names, ["/dev/vdd", "/dev/vdc", "/dev/vde"]);
    }
}
