//! Extra specs of flavors whose names are known: what values each may have. What has no known namespace is the
//! operator's own and taken as it stands.

use base::{Error, Result};
use fancy_regex::Regex;
use std::sync::LazyLock;

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Number,
    /// At least.
    From(i64),
    Between(i64, i64),
    One(&'static [&'static str]),
    Form(&'static str),
}

use Kind::{Between, Flag, Form, From, Number, One, Text};

const CPUS: Kind = Form(r"\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*");
const LEVEL: Kind = One(&["custom", "high", "normal", "low"]);

/// Names as patterns, in upstream's order.
const KNOWN: &[(&str, Kind)] = &[
    ("accel:device_profile", Text),
    ("aggregate_instance_extra_specs:.+", Text),
    (
        "capabilities:(id|uuid|service_id|host|vcpus|memory_mb|local_gb|vcpus_used|memory_mb_used|local_gb_used|hypervisor_type|hypervisor_version|hypervisor_hostname|free_ram_mb|free_disk_gb|current_workload|running_vms|disk_available_least|host_ip|mapped|cpu_allocation_ratio|ram_allocation_ratio|disk_allocation_ratio|total_usable_ram_mb|total_usable_disk_gb|disk_mb_used|free_disk_mb|vcpus_total|num_instances|num_io_ops|failed_builds|aggregates|cell_uuid|updated)",
        Text,
    ),
    (
        r"capabilities:(cpu_info|metrics|stats|numa_topology|supported_hv_specs|pci_device_pools|nodename|pci_stats|supported_instances|limits|instances)(:\w+)*",
        Text,
    ),
    ("hw:cpu_realtime", Flag),
    ("hw:cpu_realtime_mask", Form(r"(\^)?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*")),
    ("hw:hide_hypervisor_id", Flag),
    ("hw:cpu_policy", One(&["dedicated", "shared", "mixed"])),
    ("hw:cpu_thread_policy", One(&["prefer", "isolate", "require"])),
    ("hw:emulator_threads_policy", One(&["isolate", "share"])),
    ("hw:cpu_dedicated_mask", CPUS),
    ("hw:mem_page_size", Form(r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)")),
    ("hw:locked_memory", Flag),
    ("hw:numa_nodes", From(1)),
    (r"hw:numa_cpus\.\d+", CPUS),
    (r"hw:numa_mem\.\d+", From(1)),
    ("hw:pci_numa_affinity_policy", One(&["required", "preferred", "legacy", "socket"])),
    ("hw:cpu_(max_)?(sockets|cores|threads)", From(1)),
    ("hw:boot_menu", Flag),
    ("hw:vif_multiqueue_enabled", Flag),
    ("hw:mem_encryption", Flag),
    ("hw:mem_encryption_model", One(&["amd-sev", "amd-sev-es", "amd-sev-snp", "intel-tdx"])),
    ("hw:pmem", Form("([a-zA-Z0-9_]+(,)?)+")),
    ("hw:pmu", Flag),
    ("hw:serial_port_count", From(0)),
    ("hw:tpm_model", One(&["tpm-tis", "tpm-crb"])),
    ("hw:tpm_version", One(&["1.2", "2.0"])),
    ("hw:tpm_secret_security", One(&["user", "host", "deployment"])),
    ("hw:watchdog_action", One(&["none", "pause", "poweroff", "reset", "disabled"])),
    ("hw:viommu_model", One(&["intel", "smmuv3", "virtio", "auto"])),
    ("hw:virtio_packed_ring", Flag),
    ("hw:sound_model", One(&["sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"])),
    ("hw:usb_model", One(&["none", "nec-xhci", "qemu-xhci"])),
    ("hw:redirected_usb_ports", Between(0, 15)),
    ("hw:ephemeral_encryption", Flag),
    ("hw:ephemeral_encryption_format", One(&["plain", "luks", "luksv2"])),
    ("hw_rng:allowed", Flag),
    ("hw_rng:rate_(bytes|period)", From(0)),
    ("hw_video:ram_max_mb", From(0)),
    ("hide_hypervisor_id", Flag),
    ("group_policy", One(&["isolate", "none"])),
    ("os:secure_boot", One(&["disabled", "required"])),
    ("pci_passthrough:alias", Form(r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*")),
    ("quota:(cpu|memory|disk_io|vif)_limit", From(0)),
    ("quota:(cpu|memory|disk_io|vif)_reservation", Number),
    ("quota:(cpu|memory|disk_io|vif)_shares_level", LEVEL),
    ("quota:(cpu|memory|disk_io|vif)_shares_share", From(0)),
    ("quota:cpu_(shares|period)", From(0)),
    ("quota:cpu_quota", Number),
    ("quota:disk_(read|write|total)_(bytes|iops)_sec", From(0)),
    ("quota:vif_(inbound|outbound)_(average|peak|burst)", From(0)),
    ("resources([a-zA-Z0-9_-]{1,64})?:[A-Z0-9_]+", Number),
    ("trait([a-zA-Z0-9_-]{1,64})?:[A-Z0-9_]+", One(&["required", "forbidden"])),
    ("vmware:(hw_version|storage_policy)", Text),
];

/// The namespaces in which a name that is not known is a mistake.
const NAMESPACES: &str = "quota|os|aggregate_instance_extra_specs|capabilities|hw|hw_rng|hw_video|pci_passthrough|vmware|accel|(trait|resources)([a-zA-Z0-9_-]{1,64})?";

static PATTERNS: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| KNOWN.iter().map(|(name, _)| whole(name)).collect());
static NAMESPACE: LazyLock<Option<Regex>> = LazyLock::new(|| whole(NAMESPACES));

/// Since 2.86, whether an extra spec may be set.
pub fn check(name: &str, value: &str) -> Result<()> {
    let known = PATTERNS.iter().zip(KNOWN).find(|(pattern, _)| fits(pattern.as_ref(), name));
    if let Some((_, (_, kind))) = known {
        return kind.check(value).map_err(|why| Error::bad_request(format!("Validation failed; {why}")));
    }
    match name.split_once(':') {
        Some((namespace, _)) if fits(NAMESPACE.as_ref(), namespace) => Err(Error::bad_request(format!(
            "Validation failed; extra spec '{name}' does not appear to be a valid extra spec."
        ))),
        _ => Ok(()),
    }
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        let number = || {
            let wrong = |_| format!("'{value}' is not a valid integer value.");
            value.trim().parse::<i64>().map_err(wrong)
        };
        let from = |least: i64| match number()? {
            number if number < least => Err(format!("'{number}' is less than the min value of '{least}'.")),
            number => Ok(number),
        };
        match self {
            Text => Ok(()),
            Number => number().map(drop),
            From(least) => from(least).map(drop),
            Between(least, most) => match number()? {
                number if number > most => {
                    Err(format!("'{number}' is greater than the max value of '{most}'."))
                }
                _ => from(least).map(drop),
            },
            One(values) if values.contains(&value) => Ok(()),
            One(values) => Err(format!("'{value}' is not one of: {}.", values.join(", "))),
            Form(pattern) if fits(whole(pattern).as_ref(), value) => Ok(()),
            Form(pattern) => Err(format!("'{value}' is not of the format '{pattern}'.")),
            Flag => match value.trim().to_lowercase().as_str() {
                "1" | "t" | "true" | "on" | "y" | "yes" | "0" | "f" | "false" | "off" | "n" | "no" => Ok(()),
                _ => Err(format!("'{value}' is not a valid boolean-like value.")),
            },
        }
    }
}

fn whole(pattern: &str) -> Option<Regex> {
    Regex::new(&format!(r"\A(?:{pattern})\z")).ok()
}

fn fits(pattern: Option<&Regex>, text: &str) -> bool {
    pattern.is_some_and(|pattern| pattern.is_match(text).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        assert!(PATTERNS.iter().all(Option::is_some) && NAMESPACE.is_some());
        assert!(KNOWN.iter().all(|(_, kind)| !matches!(kind, Form(form) if whole(form).is_none())));
    }

    #[test]
    fn known_ones_are_checked_and_others_are_the_operators() {
        for (name, value, refusal) in [
            ("mine", "anything", ""),
            ("mine:own", "anything", ""),
            ("hw:cpu_policy", "shared", ""),
            ("hw:cpu_policy", "pigeon", "'pigeon' is not one of: dedicated, shared, mixed."),
            ("hw:pigeon", "1", "extra spec 'hw:pigeon' does not appear to be a valid extra spec."),
            ("hw:numa_nodes", "0", "'0' is less than the min value of '1'."),
            ("hw:numa_nodes", "x", "'x' is not a valid integer value."),
            ("hw:redirected_usb_ports", "16", "'16' is greater than the max value of '15'."),
            ("hw:cpu_realtime", "maybe", "'maybe' is not a valid boolean-like value."),
            ("hw:numa_cpus.0", "0-3", ""),
            ("trait:CUSTOM_GOLD", "required", ""),
            ("trait1:HW_CPU_X86_AVX2", "liked", "'liked' is not one of: required, forbidden."),
            ("resources:CUSTOM_GOLD", "1", ""),
        ] {
            let said = check(name, value).map_err(|error| error.message);
            let expected = match refusal {
                "" => Ok(()),
                why => Err(format!("Validation failed; {why}")),
            };
            assert_eq!(said, expected, "{name}={value}");
        }
    }
}
