//! What a guest is made of, in plain types; every driver reads the same ones.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// All of a domain's definition. Defining it again replaces the definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSpec {
    pub uuid: String,
    /// Libvirt's name of it, `instance-00000001`.
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// In boot order; the first gets `vda`.
    pub disks: Vec<Disk>,
    /// The serial of the disk that boots before all others.
    pub boot_first: Option<String>,
    /// An ISO image shown as a CD-ROM.
    pub config_drive: Option<PathBuf>,
    pub nics: Vec<Nic>,
    /// Where the serial console is written; it grows until the owner cuts it.
    pub console_log: Option<PathBuf>,
    /// The address the guest's screen is served on (VNC, a port of libvirt's choosing); none: no screen.
    pub vnc_listen: Option<String>,
    /// A channel for the guest agent.
    pub guest_agent: bool,
    /// The firmware's tables name the guest (`/sys/class/dmi`), for cloud-init's platform detection.
    pub smbios: bool,
    /// The owner's notes, kept with the definition and given back by [`crate::Domain`].
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Names the disk in attach, detach and inside the guest (`/sys/block/*/serial`); 20 bytes reach a virtio guest.
    pub serial: String,
    /// `vdb`; the next free one when not said. What the guest calls it is the guest's choice.
    pub device: Option<String>,
    pub source: Source,
    pub format: Format,
    pub bus: Bus,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    File(PathBuf),
    /// An NBD export over TCP.
    Nbd {
        host: String,
        port: u16,
        export: String,
        /// With TLS; the server's certificate has this name.
        tls_hostname: Option<String>,
    },
    /// An NBD export on a unix socket.
    NbdUnix {
        socket: PathBuf,
        export: String,
    },
    /// A disk of a Ceph cluster.
    Rbd {
        pool: String,
        disk: String,
        /// The cluster's configuration. Empty: where Ceph looks for it.
        conf: String,
        /// As whom, and libvirt's secret with the key. None: as the configuration says.
        secret: Option<(String, String)>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    Raw,
    #[default]
    Qcow2,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bus {
    #[default]
    Virtio,
    Ide,
    Scsi,
}

/// A network card on a tap device that somebody made beforehand and nobody here removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub tap: String,
    /// Names the card in detach.
    pub mac: String,
    pub mtu: Option<u16>,
    /// `virtio` when not said; `e1000`, `rtl8139` and so on.
    pub model: Option<String>,
}

impl Disk {
    /// A writable virtio disk on a file.
    pub fn file(serial: impl Into<String>, path: impl Into<PathBuf>, format: Format) -> Self {
        Self {
            serial: serial.into(),
            device: None,
            source: Source::File(path.into()),
            format,
            bus: Bus::Virtio,
            read_only: false,
        }
    }

    /// A writable virtio disk on something served over NBD.
    pub fn network(serial: impl Into<String>, source: Source) -> Self {
        Self {
            serial: serial.into(),
            device: None,
            source,
            format: Format::Raw,
            bus: Bus::Virtio,
            read_only: false,
        }
    }
}
