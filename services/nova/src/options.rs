//! Nova's section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The availability zone of hosts that are in no aggregate with one.
    pub default_availability_zone: String,
    /// The zone of servers that ask for none; empty: any.
    pub default_schedule_zone: String,
    /// The filters that a host must pass, in order.
    pub enabled_filters: Vec<String>,
    /// How much free memory counts among the hosts that pass: positive spreads, negative stacks.
    pub ram_weight_multiplier: f64,
    /// The same for free processors.
    pub cpu_weight_multiplier: f64,
    /// The same for free disk.
    pub disk_weight_multiplier: f64,
    /// The same for operations that run on the host now: fewer are better.
    pub io_ops_weight_multiplier: f64,
    /// The same for servers of the same group on a host, with the soft policies.
    pub soft_affinity_weight_multiplier: f64,
    /// The server goes to one of this many best hosts, at random.
    pub host_subset_size: usize,
    /// How many servers leave a host at the same time that is drained.
    pub drain_moves_max: usize,
    /// How many hosts are tried before a server is given up.
    pub max_attempts: u32,
    /// Virtual processors per real one.
    pub cpu_allocation_ratio: f64,
    pub ram_allocation_ratio: f64,
    pub disk_allocation_ratio: f64,
    /// A host that has not reported for this long is down.
    pub service_down_time_seconds: u64,
    /// Servers with `HA_Enabled=True` among their metadata start elsewhere when their host is silent for so long; the
    /// host, when it only lost its cloud, stops them at half that time. 0: never. Not below 4 of the agents'
    /// `report_interval_seconds`, and longer than the control nodes, database and broker may be away together.
    pub evacuate_after_seconds: u64,
    /// The longest a compute agent may take for one message: an image may have to be downloaded.
    pub compute_timeout_seconds: u64,
    /// The pause before a failed call is tried again; it doubles each time.
    pub retry_pause_milliseconds: u64,
    /// How long a guest gets to shut itself down.
    pub shutdown_timeout_seconds: u64,
    /// How long to wait for a volume that is made for a server.
    pub block_device_timeout_seconds: u64,
    /// A server that is resized may stay on its host.
    pub allow_resize_to_same_host: bool,
    /// A resize or migration that its owner neither confirms nor reverts for so long is confirmed; 0: never.
    pub resize_confirm_window_seconds: u64,
    /// 0: a shelved server leaves its host at once; anything else: when an administrator says so.
    pub shelved_offload_time: i64,
    /// The most entries that one list answers.
    pub max_limit: u64,
    /// Whether deleted servers stay in lists for administrators, in days; 0: for ever.
    pub deleted_servers_kept_days: u64,
    pub quota_instances: i64,
    pub quota_cores: i64,
    /// In MiB.
    pub quota_ram: i64,
    pub quota_metadata_items: i64,
    pub quota_injected_files: i64,
    pub quota_injected_file_content_bytes: i64,
    pub quota_injected_file_path_length: i64,
    pub quota_key_pairs: i64,
    pub quota_server_groups: i64,
    pub quota_server_group_members: i64,
    /// The domain behind servers' names in their metadata; empty: none.
    pub dhcp_domain: String,
    /// Every server gets a config drive.
    pub force_config_drive: bool,
    pub password_length: usize,
    /// How long a console's address may be opened.
    pub console_token_seconds: u64,
    /// The page that shows a server's screen, as browsers reach it.
    pub novncproxy_base_url: String,
    /// Where noVNC's pages are on this machine; the proxy serves them.
    pub novnc_directory: String,
    /// Flavors m1.tiny and so on are made on an empty database.
    pub make_default_flavors: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            default_availability_zone: "nova".into(),
            default_schedule_zone: String::new(),
            enabled_filters: [
                "AvailabilityZoneFilter",
                "ComputeFilter",
                "RamFilter",
                "CoreFilter",
                "DiskFilter",
                "ComputeCapabilitiesFilter",
                "ImagePropertiesFilter",
                "DifferentHostFilter",
                "SameHostFilter",
                "ServerGroupAntiAffinityFilter",
                "ServerGroupAffinityFilter",
            ]
            .map(String::from)
            .to_vec(),
            ram_weight_multiplier: 1.0,
            cpu_weight_multiplier: 1.0,
            disk_weight_multiplier: 1.0,
            io_ops_weight_multiplier: -1.0,
            soft_affinity_weight_multiplier: 1.0,
            host_subset_size: 1,
            drain_moves_max: 4,
            max_attempts: 3,
            cpu_allocation_ratio: 4.0,
            ram_allocation_ratio: 1.0,
            disk_allocation_ratio: 1.0,
            service_down_time_seconds: 60,
            evacuate_after_seconds: 0,
            compute_timeout_seconds: 1800,
            retry_pause_milliseconds: 1000,
            shutdown_timeout_seconds: 60,
            block_device_timeout_seconds: 180,
            allow_resize_to_same_host: true,
            resize_confirm_window_seconds: 0,
            shelved_offload_time: 0,
            max_limit: 1000,
            deleted_servers_kept_days: 0,
            quota_instances: 10,
            quota_cores: 20,
            quota_ram: 51200,
            quota_metadata_items: 128,
            quota_injected_files: 5,
            quota_injected_file_content_bytes: 10240,
            quota_injected_file_path_length: 255,
            quota_key_pairs: 100,
            quota_server_groups: 10,
            quota_server_group_members: 10,
            dhcp_domain: "novalocal".into(),
            force_config_drive: false,
            password_length: 12,
            console_token_seconds: 600,
            novncproxy_base_url: "http://127.0.0.1:6080/vnc_lite.html".into(),
            novnc_directory: "/usr/share/novnc".into(),
            make_default_flavors: true,
        }
    }
}

impl Options {
    /// None: never.
    pub(crate) fn evacuate_after(&self) -> Option<Duration> {
        (self.evacuate_after_seconds > 0).then(|| Duration::from_secs(self.evacuate_after_seconds.max(2)))
    }

    pub(crate) fn retry_pause(&self) -> Duration {
        Duration::from_millis(self.retry_pause_milliseconds)
    }
}

impl Section for Options {
    const NAME: &'static str = "nova";
}
