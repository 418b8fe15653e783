//! What the host reports of itself, and the placement traits it truly has.

use crate::{Options, manager::host_name};
use contracts::compute::{Cpu, Host};
use host_virt::Capabilities;

/// What this agent and its driver can do, whatever the machine.
const DRIVER_TRAITS: [&str; 7] = [
    "COMPUTE_NODE",
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_NET_ATTACH_INTERFACE",
    "COMPUTE_VOLUME_ATTACH",
    "COMPUTE_VOLUME_EXTEND",
    "COMPUTE_GRAPHICS_MODEL_VGA",
];

/// Libvirt's name of a processor feature and placement's.
const CPU_TRAITS: [(&str, &str); 12] = [
    ("aes", "HW_CPU_X86_AESNI"),
    ("avx", "HW_CPU_X86_AVX"),
    ("avx2", "HW_CPU_X86_AVX2"),
    ("avx512f", "HW_CPU_X86_AVX512F"),
    ("bmi1", "HW_CPU_X86_BMI"),
    ("bmi2", "HW_CPU_X86_BMI2"),
    ("fma", "HW_CPU_X86_FMA3"),
    ("pclmuldq", "HW_CPU_X86_CLMUL"),
    ("sha-ni", "HW_CPU_X86_SHA"),
    ("sse4.1", "HW_CPU_X86_SSE41"),
    ("sse4.2", "HW_CPU_X86_SSE42"),
    ("vmx", "HW_CPU_X86_VMX"),
];

/// `guests_have_cpu`: guests get the host's processor, so that its features are theirs.
pub fn host(options: &Options, capabilities: Capabilities, guests_have_cpu: bool) -> Host {
    let mut traits: Vec<String> = DRIVER_TRAITS.map(String::from).to_vec();
    if guests_have_cpu {
        let has = |feature: &str| capabilities.cpu_features.iter().any(|held| held == feature);
        traits
            .extend(CPU_TRAITS.iter().filter(|(feature, _)| has(feature)).map(|(_, name)| name.to_string()));
    }
    Host {
        host: host_name(options, &capabilities),
        hypervisor_hostname: host_name(options, &capabilities),
        hypervisor_type: capabilities.hypervisor_type,
        hypervisor_version: capabilities.hypervisor_version,
        host_ip: options.my_ip.clone(),
        vcpus: capabilities.vcpus,
        memory_mb: capabilities.memory_mib,
        disk_gb: capabilities.disk_gib,
        reserved_memory_mb: options.reserved_host_memory_mb,
        reserved_disk_gb: options.reserved_host_disk_gb,
        cpu: Cpu {
            arch: capabilities.arch,
            model: capabilities.cpu_model,
            vendor: capabilities.cpu_vendor,
            features: capabilities.cpu_features,
            sockets: capabilities.sockets,
            cores: capabilities.cores,
            threads: capabilities.threads,
        },
        traits,
        report: 0,
        fenced: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulated_guests_have_none_of_the_hosts_features() {
        let capabilities = Capabilities { cpu_features: vec!["aes".into()], ..Capabilities::default() };
        let has_aes = |guests_have_cpu| {
            let host = host(&Options::default(), capabilities.clone(), guests_have_cpu);
            host.traits.iter().any(|name| name == "HW_CPU_X86_AESNI")
        };
        assert!(has_aes(true) && !has_aes(false));
    }
}
