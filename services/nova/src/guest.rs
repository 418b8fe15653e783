//! What a server is to its host: the agent's `Instance`, made from ours.

use crate::{
    Nova, metadata,
    model::{BlockDevice, Instance, Nic},
};
use base::{Error, Result};
use contracts::compute;

pub const NAME_FORMAT: &str = "instance-";

/// The name on the host, `instance-00000001`.
pub fn host_name(instance: &Instance) -> String {
    format!("{NAME_FORMAT}{:08x}", instance.number)
}

/// All that the agent needs to make or start the guest.
pub fn instance(nova: &Nova, instance: &Instance, devices: &[BlockDevice]) -> Result<compute::Instance> {
    let image = (!instance.image_ref.is_empty()).then(|| compute::InstanceImage {
        id: instance.image_ref.clone(),
        disk_format: instance.image.disk_format.clone(),
        properties: instance.image.properties.clone(),
    });
    let with_drive = nova.options.force_config_drive || !instance.config_drive.is_empty();
    Ok(compute::Instance {
        uuid: instance.uuid.clone(),
        name: host_name(instance),
        display_name: instance.display_name.clone(),
        project_id: instance.project_id.clone(),
        user_id: instance.user_id.clone(),
        vcpus: number(instance.flavor.vcpus)?,
        memory_mb: number(instance.flavor.memory_mb)?,
        root_gb: number(instance.flavor.root_gb)?,
        ephemeral_gb: number(instance.flavor.ephemeral_gb)?,
        swap_mb: number(instance.flavor.swap)?,
        extra_specs: instance.flavor.extra_specs.0.clone(),
        image,
        volumes: devices.iter().filter_map(volume).collect(),
        ports: instance.nics.iter().map(port).collect(),
        config_drive: with_drive.then(|| metadata::drive_files(nova, instance, devices)),
        power_on: true,
    })
}

/// The format of the image that its local disk becomes: that of the image it came from.
pub fn local_disk_format(instance: &Instance) -> &str {
    match instance.image.disk_format.as_str() {
        "raw" => "raw",
        _ => "qcow2",
    }
}

/// Whether something of it is on its host's own disk.
pub fn has_local_disks(instance: &Instance) -> bool {
    !instance.image_ref.is_empty() || instance.flavor.ephemeral_gb > 0 || instance.flavor.swap > 0
}

pub fn port(nic: &Nic) -> compute::Port {
    let mtu = (nic.port.network.mtu > 0).then_some(nic.port.network.mtu);
    compute::Port { id: nic.port.id.clone(), mac: nic.port.mac.clone(), mtu }
}

pub fn volume(device: &BlockDevice) -> Option<compute::Volume> {
    Some(compute::Volume {
        volume_id: device.volume_id.clone()?,
        connection: device.connection.clone()?.0,
        device_name: device.device_name.clone(),
        boot_index: device.boot_index.and_then(|index| index.try_into().ok()),
        read_only: false,
    })
}

fn number<T: TryFrom<i64>>(value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| Error::internal(format!("a flavor with {value}")))
}
