//! The `[nova_compute]` section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The name by which this host is known; empty: the machine's host name.
    pub host: String,
    /// The address other hosts and the console proxy reach this one at.
    pub my_ip: String,
    /// How guests run: `auto` (KVM where a probe shows that it works), `kvm` or `tcg`.
    pub accelerator: Accelerator,
    /// Memory kept for the host itself, in MiB.
    pub reserved_host_memory_mb: u64,
    /// Disk kept for the host itself, in GiB.
    pub reserved_host_disk_gb: u64,
    /// The host's certificate, with which its guests reach volumes on other hosts: `ca-cert.pem`, `client-cert.pem`,
    /// `client-key.pem`, readable to the user QEMU runs as. Empty: none.
    pub tls_directory: String,
    /// The address guests' screens are served on.
    pub vnc_listen: String,
    /// How long a guest waits for the network agent to plug its ports before its build fails.
    pub vif_plugging_timeout_seconds: u64,
    /// How long a guest has to release a volume or network card.
    pub detach_timeout_seconds: u64,
    /// How often the host reports and repairs itself.
    pub report_interval_seconds: u64,
    /// Start again, when the agent starts, the guests that nova has running and the host has not.
    pub resume_guests_state_on_host_boot: bool,
    /// A guest's console log is cut down to a quarter of this when it has grown past it.
    pub console_log_bytes_max: u64,
    /// An image that no guest of the host uses is kept this long.
    pub remove_unused_base_images_after_seconds: u64,
    /// The pool of a Ceph cluster that the root disks of new guests are in: clones of their images, where glance keeps
    /// these in the same cluster as raw. Empty: they are files. Such guests do not go to other hosts.
    pub images_rbd_pool: String,
    /// The cluster's configuration. Empty: where Ceph looks for it.
    pub images_rbd_ceph_conf: String,
    /// The pool that glance keeps images in.
    pub images_rbd_glance_pool: String,
    /// As whom the cluster is asked, and the uuid of libvirt's secret with the key. Empty: as the configuration says.
    pub rbd_user: String,
    pub rbd_secret_uuid: String,
}

/// How guests run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    #[default]
    Auto,
    Kvm,
    Tcg,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: String::new(),
            my_ip: "127.0.0.1".into(),
            accelerator: Accelerator::Auto,
            reserved_host_memory_mb: 512,
            reserved_host_disk_gb: 0,
            tls_directory: String::new(),
            vnc_listen: "127.0.0.1".into(),
            vif_plugging_timeout_seconds: 300,
            detach_timeout_seconds: 60,
            report_interval_seconds: 10,
            resume_guests_state_on_host_boot: false,
            console_log_bytes_max: 8 * 1024 * 1024,
            remove_unused_base_images_after_seconds: 24 * 3600,
            images_rbd_pool: String::new(),
            images_rbd_ceph_conf: String::new(),
            images_rbd_glance_pool: "images".into(),
            rbd_user: String::new(),
            rbd_secret_uuid: String::new(),
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "nova_compute";
}
