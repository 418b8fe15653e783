//! What nova and the agent on a compute host say to each other. Arguments carry everything the agent needs, for it
//! has no database. Every message may arrive twice: what is already so is a success.

use crate::peers::Peer;
use async_trait::async_trait;
use base::{Context, Result, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite};

/// The agent of one compute host. A `Timeout` error means an unknown outcome: `observe`, then decide.
#[async_trait]
pub trait Compute: Send + Sync {
    /// Makes disks and definition, waits for the ports to be plugged, and starts the guest when `power_on`.
    async fn build(&self, cx: &Context, instance: &Instance) -> Result<Observed>;

    /// Ends the guest and removes everything of it from the host; volumes and ports are their owners'.
    async fn destroy(&self, cx: &Context, uuid: &str) -> Result<()>;

    /// Starts a stopped guest, or goes on after `suspend`, with devices as the instance has them now.
    async fn start(&self, cx: &Context, instance: &Instance) -> Result<Observed>;

    /// Presses the power button, and pulls the plug after `grace_seconds`.
    async fn stop(&self, cx: &Context, uuid: &str, grace_seconds: u64) -> Result<Observed>;

    async fn reboot(&self, cx: &Context, instance: &Instance, kind: Reboot) -> Result<Observed>;

    async fn pause(&self, cx: &Context, uuid: &str) -> Result<Observed>;

    async fn unpause(&self, cx: &Context, uuid: &str) -> Result<Observed>;

    /// Memory to disk, then off; `start` goes on from there.
    async fn suspend(&self, cx: &Context, uuid: &str) -> Result<Observed>;

    /// The last bytes of the serial console.
    async fn console_log(&self, cx: &Context, uuid: &str, bytes_max: u64) -> Result<Vec<u8>>;

    /// Where the guest's screen (VNC) is served; `Conflict` while it does not run.
    async fn console(&self, cx: &Context, uuid: &str) -> Result<ConsoleAddress>;

    /// Answers the device name the definition has, `/dev/vdb`; the guest may see another.
    async fn attach_volume(&self, cx: &Context, uuid: &str, volume: &Volume) -> Result<String>;

    /// Returns when the guest has released the volume.
    async fn detach_volume(&self, cx: &Context, uuid: &str, volume_id: &str) -> Result<()>;

    /// Tells a running guest that its volume has grown.
    async fn extend_volume(&self, cx: &Context, uuid: &str, volume_id: &str, bytes: u64) -> Result<()>;

    async fn attach_interface(&self, cx: &Context, uuid: &str, port: &Port) -> Result<()>;

    /// Returns when the guest has released the card.
    async fn detach_interface(&self, cx: &Context, uuid: &str, mac: &str) -> Result<()>;

    /// Puts another volume, at least as large, in the place of one the guest has, with the bytes of the old.
    async fn swap_volume(&self, cx: &Context, uuid: &str, old_volume_id: &str, new: &Volume) -> Result<()>;

    /// Streams the root disk as it stands into an image that waits for its bytes.
    async fn snapshot(&self, cx: &Context, uuid: &str, image: &SnapshotImage) -> Result<()>;

    /// Starts the guest from a rescue disk, its own disks behind it. The guest was on or off.
    async fn rescue(&self, cx: &Context, instance: &Instance, rescue: &Rescue) -> Result<Observed>;

    /// Starts the guest from its own disk again and removes the rescue disk.
    async fn unrescue(&self, cx: &Context, instance: &Instance) -> Result<Observed>;

    /// The guest's own agent sets a user's password. `Conflict` when the guest does not run, `NotImplemented` when its
    /// agent does not answer.
    async fn set_admin_password(&self, cx: &Context, uuid: &str, user: &str, password: &Secret)
    -> Result<()>;

    /// An interrupt that the guest cannot pass over; `Conflict` when it does not run.
    async fn trigger_crash_dump(&self, cx: &Context, uuid: &str) -> Result<()>;

    /// Fetches an image for the servers to come that are made of it.
    async fn cache_image(&self, cx: &Context, image: &InstanceImage) -> Result<()>;

    /// How long the host is up, how many work on it and its load, as `uptime` words it.
    async fn uptime(&self, cx: &Context) -> Result<String>;

    /// What a running guest has used; `Conflict` when it does not run.
    async fn diagnostics(&self, cx: &Context, uuid: &str) -> Result<Diagnostics>;

    /// A move begins: stops the guest and sets its disks aside, for the host `dest` that shall have it next.
    async fn resize_instance(&self, cx: &Context, uuid: &str, dest: &str, grace_seconds: u64) -> Result<()>;

    /// The guest arrives with the disks that `source` has set aside (it may be this very host), as large as the
    /// instance now says.
    async fn finish_resize(&self, cx: &Context, instance: &Instance, source: &Peer) -> Result<Observed>;

    /// What was set aside here is no longer needed.
    async fn confirm_resize(&self, cx: &Context, uuid: &str) -> Result<()>;

    /// The guest is again what it was before it was set aside here; nothing was set aside: it stays as it is.
    async fn finish_revert_resize(&self, cx: &Context, instance: &Instance) -> Result<Observed>;

    /// A running guest shall go to the host `dest`, which may ask here for what it needs beforehand.
    async fn check_can_live_migrate_source(&self, cx: &Context, uuid: &str, dest: &str) -> Result<()>;

    /// Makes ready for a guest that will arrive running from `source`. Its local disks come with it when
    /// `block_migration`.
    async fn pre_live_migration(
        &self,
        cx: &Context,
        instance: &Instance,
        block_migration: bool,
        source: &Peer,
    ) -> Result<LiveTarget>;

    /// Begins to send a running guest to the host that answered `target`, and returns; the rest is told by
    /// `live_migration_state`.
    async fn live_migration(&self, cx: &Context, instance: &Instance, target: &LiveTarget) -> Result<()>;

    async fn live_migration_state(&self, cx: &Context, uuid: &str) -> Result<LiveState>;

    /// Does what it takes to end soon: the guest stands still, say. `Conflict` when none is under way.
    async fn live_migration_force_complete(&self, cx: &Context, uuid: &str) -> Result<()>;

    /// The guest goes on where it is. `Conflict` when none is under way.
    async fn live_migration_abort(&self, cx: &Context, uuid: &str) -> Result<()>;

    /// The guest as it stands; none when the host has none.
    async fn observe(&self, cx: &Context, uuid: &str) -> Result<Option<Observed>>;

    /// The host as it stands.
    async fn host(&self, cx: &Context) -> Result<Host>;
}

/// What the agent tells nova, and the one thing it asks.
#[async_trait]
pub trait ComputeReports: Send + Sync {
    /// At start, when something changed, and regularly as a sign of life.
    async fn host_reported(&self, cx: &Context, host: &Host) -> Result<Lease>;

    /// A guest's power state changed, by whomever.
    async fn instance_reported(&self, cx: &Context, observed: &Observed) -> Result<()>;

    /// The instances that nova has on this host. What the host has beyond them is removed.
    async fn instances_on(&self, cx: &Context, host: &str) -> Result<Vec<ExpectedInstance>>;
}

bus::remote! {
    /// The agent of another host, on the topic `compute` and its host's name.
    pub struct RemoteCompute: Compute as compute_handlers {
        build(instance: &Instance = Instance) -> Observed;
        destroy(uuid: &str = String) -> ();
        start(instance: &Instance = Instance) -> Observed;
        stop(uuid: &str = String, grace_seconds: u64 = u64) -> Observed;
        reboot(instance: &Instance = Instance, kind: Reboot = Reboot) -> Observed;
        pause(uuid: &str = String) -> Observed;
        unpause(uuid: &str = String) -> Observed;
        suspend(uuid: &str = String) -> Observed;
        console_log(uuid: &str = String, bytes_max: u64 = u64) -> Vec<u8>;
        console(uuid: &str = String) -> ConsoleAddress;
        attach_volume(uuid: &str = String, volume: &Volume = Volume) -> String;
        detach_volume(uuid: &str = String, volume_id: &str = String) -> ();
        extend_volume(uuid: &str = String, volume_id: &str = String, bytes: u64 = u64) -> ();
        attach_interface(uuid: &str = String, port: &Port = Port) -> ();
        detach_interface(uuid: &str = String, mac: &str = String) -> ();
        swap_volume(uuid: &str = String, old_volume_id: &str = String, new: &Volume = Volume) -> ();
        snapshot(uuid: &str = String, image: &SnapshotImage = SnapshotImage) -> ();
        rescue(instance: &Instance = Instance, rescue: &Rescue = Rescue) -> Observed;
        unrescue(instance: &Instance = Instance) -> Observed;
        set_admin_password(uuid: &str = String, user: &str = String, password: &Secret = Secret) -> ();
        trigger_crash_dump(uuid: &str = String) -> ();
        cache_image(image: &InstanceImage = InstanceImage) -> ();
        uptime() -> String;
        diagnostics(uuid: &str = String) -> Diagnostics;
        resize_instance(uuid: &str = String, dest: &str = String, grace_seconds: u64 = u64) -> ();
        finish_resize(instance: &Instance = Instance, source: &Peer = Peer) -> Observed;
        confirm_resize(uuid: &str = String) -> ();
        finish_revert_resize(instance: &Instance = Instance) -> Observed;
        check_can_live_migrate_source(uuid: &str = String, dest: &str = String) -> ();
        pre_live_migration(
            instance: &Instance = Instance, block_migration: bool = bool, source: &Peer = Peer
        ) -> LiveTarget;
        live_migration(instance: &Instance = Instance, target: &LiveTarget = LiveTarget) -> ();
        live_migration_state(uuid: &str = String) -> LiveState;
        live_migration_force_complete(uuid: &str = String) -> ();
        live_migration_abort(uuid: &str = String) -> ();
        observe(uuid: &str = String) -> Option<Observed>;
        host() -> Host;
    }
}

bus::remote! {
    /// Nova, wherever it runs, on the topic `conductor`.
    pub struct RemoteComputeReports: ComputeReports as compute_reports_handlers {
        host_reported(host: &Host = Host) -> Lease;
        instance_reported(observed: &Observed = Observed) -> ();
        instances_on(host: &str = String) -> Vec<ExpectedInstance>;
    }
}

/// Where the agent gets image bytes from: glance, wherever it runs.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// Streams the image's bytes. They are foreign: whoever opens them checks them first.
    async fn download(
        &self,
        cx: &Context,
        image_id: &str,
        into: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()>;
}

/// Where the agent brings image bytes to.
#[async_trait]
pub trait ImageSink: Send + Sync {
    /// Streams the bytes into an image that waits for them; one that has its bytes already stays as it is.
    async fn upload(
        &self,
        cx: &Context,
        image_id: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()>;
}

/// All of an instance that the host needs to make its guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    pub uuid: String,
    /// The guest's name on the host, `instance-00000001`.
    pub name: String,
    pub display_name: String,
    pub project_id: String,
    pub user_id: String,
    pub vcpus: u32,
    pub memory_mb: u64,
    /// The size of the root disk; 0: as large as the image.
    pub root_gb: u64,
    pub ephemeral_gb: u64,
    pub swap_mb: u64,
    /// The flavor's extra specs.
    pub extra_specs: BTreeMap<String, String>,
    /// The image of the root disk; none when the instance boots from a volume.
    pub image: Option<InstanceImage>,
    /// In the order of their device names. The one with boot index 0 is the root disk when there is no image.
    pub volumes: Vec<Volume>,
    /// In the order in which the guest sees its cards.
    pub ports: Vec<Port>,
    /// The files of the config drive, by path; none: no config drive.
    pub config_drive: Option<BTreeMap<String, String>>,
    /// Whether `build` starts the guest.
    pub power_on: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceImage {
    pub id: String,
    /// As glance has it: `raw` or `qcow2`.
    pub disk_format: String,
    /// `hw_disk_bus`, `hw_vif_model` and so on.
    pub properties: BTreeMap<String, String>,
}

/// An image that waits for the bytes of a server's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotImage {
    pub id: String,
    /// `raw` or `qcow2`.
    pub disk_format: String,
}

/// What a server is rescued with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rescue {
    pub image: InstanceImage,
    /// The guest keeps its disks in their order, and the rescue disk comes behind them (`hw_rescue_device`).
    pub stable: bool,
}

/// A host that is ready for a running guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveTarget {
    pub host: String,
    /// Where its agent is, and its hypervisor in that one's words.
    pub address: String,
    pub uri: String,
    /// The guest's local disks come with it.
    pub block_migration: bool,
    /// The definition that the guest has there, in the hypervisor's own words.
    pub definition: String,
}

/// How far a running guest is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveState {
    pub phase: LivePhase,
    /// Why it failed.
    pub error: Option<String>,
    pub memory: Progress,
    pub disk: Progress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LivePhase {
    /// No guest of that name is being sent.
    #[default]
    None,
    Running,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub total_bytes: u64,
    pub processed_bytes: u64,
    pub remaining_bytes: u64,
}

/// What a running guest has used since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diagnostics {
    /// `running`, `paused`, …
    pub state: String,
    /// `libvirt`
    pub driver: String,
    pub hypervisor: String,
    pub hypervisor_os: String,
    pub uptime_seconds: u64,
    pub config_drive: bool,
    pub memory_maximum_mib: u64,
    pub memory_used_mib: Option<u64>,
    /// Nanoseconds of each virtual processor.
    pub cpus: Vec<u64>,
    pub disks: Vec<DiskDiagnostics>,
    pub nics: Vec<NicDiagnostics>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskDiagnostics {
    /// `vda`
    pub device: String,
    pub read_bytes: u64,
    pub read_requests: u64,
    pub write_bytes: u64,
    pub write_requests: u64,
    pub errors: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NicDiagnostics {
    pub mac: String,
    /// The tap.
    pub device: String,
    pub rx_octets: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_drop: u64,
    pub tx_octets: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_drop: u64,
}

/// A volume and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub volume_id: String,
    pub connection: Connection,
    /// `/dev/vdb` when the user chose one.
    pub device_name: Option<String>,
    /// 0 is the root disk; none or negative does not boot.
    pub boot_index: Option<i32>,
    pub read_only: bool,
}

/// How a host reaches a volume, in the form of cinder's `connection_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver_volume_type", content = "data", rename_all = "snake_case")]
pub enum Connection {
    Nbd {
        host: String,
        port: u16,
        export: String,
        /// With TLS; the server's certificate has this name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls_hostname: Option<String>,
    },
    NbdUnix {
        socket: String,
        export: String,
    },
}

/// A neutron port as the guest's network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub id: String,
    pub mac: String,
    pub mtu: Option<u16>,
}

impl Port {
    /// The tap device, by OpenStack's rule: interface names have 15 characters at most. The network agent makes
    /// it and puts it on the network's bridge; the compute agent waits for that and gives it to the guest.
    pub fn tap(&self) -> String {
        tap_name(&self.id)
    }
}

/// The tap device of a port.
pub fn tap_name(port_id: &str) -> String {
    let head: String = port_id.chars().take(11).collect();
    format!("tap{head}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reboot {
    /// Through the guest, and hard when it does not follow.
    Soft {
        grace_seconds: u64,
    },
    Hard,
}

/// What a guest does. The numbers are nova's `OS-EXT-STS:power_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    #[default]
    NoState = 0,
    Running = 1,
    Paused = 3,
    Shutdown = 4,
    Crashed = 6,
    Suspended = 7,
}

/// A guest as the host has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub uuid: String,
    pub host: String,
    pub power_state: PowerState,
    /// Volume ids that the guest holds.
    pub volumes: Vec<String>,
    /// MAC addresses of its cards.
    pub macs: Vec<String>,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleAddress {
    pub host: String,
    pub port: u16,
}

/// What nova has on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExpectedInstance {
    pub uuid: String,
    /// The guest shall run: one that does not is started again (`resume_guests_state_on_host_boot`).
    pub running: bool,
    /// It is just being started elsewhere: here it must not be.
    pub leaving: bool,
}

/// What a host hears that has reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lease {
    /// When nova has not answered for so long, the host stops the servers below: they start elsewhere. 0: none does.
    pub fence_after_seconds: u64,
    /// Its servers that ask for that. Nova counts on it once a report of the host has named them.
    pub ha: Vec<String>,
}

/// A host's resources, totals without what the host itself needs set apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// The host's name, by which messages reach its agent.
    pub host: String,
    /// The node's name; one node per host.
    pub hypervisor_hostname: String,
    pub hypervisor_type: String,
    pub hypervisor_version: u64,
    pub host_ip: String,
    pub vcpus: u32,
    pub memory_mb: u64,
    pub disk_gb: u64,
    pub reserved_memory_mb: u64,
    pub reserved_disk_gb: u64,
    pub cpu: Cpu,
    /// Placement traits the host has, `HW_CPU_X86_AESNI`.
    pub traits: Vec<String>,
    /// Each report has a higher number than those before: an old one that comes late is none.
    pub report: u64,
    /// Servers that this host stops when nova does not answer it.
    pub fenced: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    pub arch: String,
    pub model: String,
    pub vendor: String,
    pub features: Vec<String>,
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_names_fit_an_interface() {
        assert_eq!(tap_name("0e8a7f6c-1234-4000-8000-000000000001"), "tap0e8a7f6c-12");
        assert!(tap_name("0e8a7f6c-1234-4000-8000-000000000001").len() <= 15);
    }

    /// Cinder's API shows the connection in this very form.
    #[test]
    fn connection_info_is_cinders() {
        let nbd = Connection::Nbd {
            host: "10.0.0.1".into(),
            port: 10809,
            export: "volume-1".into(),
            tls_hostname: None,
        };
        let json = serde_json::json!({"driver_volume_type": "nbd",
            "data": {"host": "10.0.0.1", "port": 10809, "export": "volume-1"}});
        assert_eq!(serde_json::to_value(&nbd).unwrap(), json);
        assert_eq!(serde_json::from_value::<Connection>(json).unwrap(), nbd);
    }
}
