//! The filters by upstream's names. Each says yes, or what the host lacks.

use super::{Host, Request};
use crate::Options;
use base::Json;

pub type Filter = fn(&Options, &Request, &Host) -> Result<(), String>;

pub const FILTERS: &[(&str, Filter)] = &[
    ("AvailabilityZoneFilter", availability_zone),
    ("ComputeFilter", compute),
    ("RamFilter", ram),
    ("CoreFilter", core),
    ("DiskFilter", disk),
    ("ComputeCapabilitiesFilter", compute_capabilities),
    ("ImagePropertiesFilter", image_properties),
    ("DifferentHostFilter", different_host),
    ("SameHostFilter", same_host),
    ("ServerGroupAntiAffinityFilter", anti_affinity),
    ("ServerGroupAffinityFilter", affinity),
];

fn ensure(fine: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if fine { Ok(()) } else { Err(why()) }
}

fn availability_zone(_: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let Some(wanted) = &request.instance.pinned_availability_zone else { return Ok(()) };
    ensure(*wanted == host.zone, || format!("it is in zone {}, not in {wanted}", host.zone))
}

fn compute(_: &Options, _: &Request, host: &Host) -> Result<(), String> {
    ensure(!host.service.disabled, || {
        let reason = host.service.disabled_reason.as_deref().unwrap_or("no reason given");
        format!("its service is disabled ({reason})")
    })?;
    ensure(host.up, || "its service is down".into())
}

fn ram(options: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let (wanted, free) = (request.instance.memory_mb, host.free_memory_mb(options));
    ensure(wanted as f64 <= free, || format!("{wanted} MiB of memory wanted, {} free", free.max(0.0)))
}

fn core(options: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let wanted = request.instance.vcpus;
    // More than there really are cannot be given to one guest, whatever the ratio.
    let real = i64::from(host.node.facts.vcpus);
    ensure(wanted <= real, || format!("{wanted} processors wanted, {real} there"))?;
    let free = host.free_vcpus(options);
    ensure(wanted as f64 <= free, || format!("{wanted} processors wanted, {} free", free.max(0.0)))
}

fn disk(options: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let (wanted, free) = (request.disk_gb, host.free_disk_gb(options));
    ensure(wanted as f64 <= free, || format!("{wanted} GiB of disk wanted, {} free", free.max(0.0)))
}

/// Extra specs without a scope, or with `capabilities:`, are compared with the host's facts.
fn compute_capabilities(_: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let mut facts = None;
    for (key, wanted) in request.instance.flavor.extra_specs.iter() {
        let path = match key.strip_prefix("capabilities:") {
            Some(path) => path,
            None if key.contains(':') => continue,
            None => key.as_str(),
        };
        // Few flavors ask.
        let told = || serde_json::to_value(&host.node.facts.0).unwrap_or(Json::Null);
        let found = capability(facts.get_or_insert_with(told), path);
        let fine = found.as_ref().is_some_and(|found| matches(found, wanted));
        ensure(fine, || {
            let found = found.map_or_else(|| "nothing".into(), |found| found.to_string());
            format!("{key} wanted {wanted}, there is {found}")
        })?;
    }
    Ok(())
}

/// Upstream's names of what a host tells.
fn capability(facts: &Json, path: &str) -> Option<Json> {
    let parts: Vec<&str> = path.split(':').collect();
    let found = match parts.as_slice() {
        ["cpu_info", "topology", what] => &facts["cpu"][*what],
        ["cpu_info", what] => &facts["cpu"][*what],
        ["memory_mb" | "total_usable_ram_mb"] => &facts["memory_mb"],
        ["vcpus" | "vcpus_total"] => &facts["vcpus"],
        ["hypervisor_type" | "hypervisor_version" | "hypervisor_hostname" | "host"] => &facts[parts[0]],
        ["host_ip"] => &facts["host_ip"],
        _ => &Json::Null,
    };
    (!found.is_null()).then(|| found.clone())
}

/// The operators of upstream's extra specs: `>= 4`, `<in> sse`, `<or> a <or> b`, `<all-in> a b`, or the same text.
fn matches(found: &Json, wanted: &str) -> bool {
    let text = found.as_str().map_or_else(|| found.to_string(), str::to_string);
    let words: Vec<&str> = wanted.split_whitespace().collect();
    let Some((operator, operands)) = words.split_first() else { return text.is_empty() };
    let operand = operands.first().copied().unwrap_or_default();
    let numbers = || Some((text.parse::<f64>().ok()?, operand.parse::<f64>().ok()?));
    let by_number = |compare: fn(f64, f64) -> bool| numbers().is_some_and(|(a, b)| compare(a, b));
    let has = |word: &str| match found {
        Json::Array(items) => items.iter().any(|item| item == word),
        _ => text.contains(word),
    };
    match *operator {
        "=" | ">=" => by_number(|a, b| a >= b),
        "<=" => by_number(|a, b| a <= b),
        "==" => by_number(|a, b| a == b),
        "!=" => by_number(|a, b| a != b),
        "s==" => text == operand,
        "s!=" => text != operand,
        "s>=" => text.as_str() >= operand,
        "s>" => text.as_str() > operand,
        "s<=" => text.as_str() <= operand,
        "s<" => text.as_str() < operand,
        "<in>" => has(operand),
        "<all-in>" => operands.iter().all(|word| has(word)),
        "<or>" => operands.iter().filter(|word| **word != "<or>").any(|word| text == *word),
        _ => text == wanted,
    }
}

fn image_properties(_: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let properties = &request.instance.image.properties;
    let wanted = |names: [&str; 2]| names.iter().find_map(|name| properties.get(*name));
    let facts = &host.node.facts;
    if let Some(arch) = wanted(["hw_architecture", "architecture"]) {
        ensure(*arch == facts.cpu.arch, || format!("the image is for {arch}, it is {}", facts.cpu.arch))?;
    }
    if let Some(kind) = wanted(["img_hv_type", "hypervisor_type"]) {
        let kind = if kind == "qemu" || kind == "kvm" { "QEMU" } else { kind };
        ensure(kind.eq_ignore_ascii_case(&facts.hypervisor_type), || {
            format!("the image is for {kind}, it has {}", facts.hypervisor_type)
        })?;
    }
    if let Some(mode) = wanted(["hw_vm_mode", "vm_mode"]) {
        ensure(mode == "hvm", || format!("the image wants machines of mode {mode}, it has hvm"))?;
    }
    Ok(())
}

/// The servers that a hint names, one or several.
fn named(request: &Request, hint: &str) -> Vec<String> {
    match request.instance.scheduler_hints.get(hint) {
        Some(Json::String(one)) => vec![one.clone()],
        Some(Json::Array(many)) => many.iter().filter_map(|id| id.as_str().map(String::from)).collect(),
        _ => Vec::new(),
    }
}

fn is_on(request: &Request, id: &str, host: &Host) -> bool {
    request.hosts_of.get(id).is_some_and(|at| at.as_deref() == Some(host.node.host.as_str()))
}

fn different_host(_: &Options, request: &Request, host: &Host) -> Result<(), String> {
    match named(request, "different_host").into_iter().find(|id| is_on(request, id, host)) {
        Some(id) => Err(format!("server {id} is on it")),
        None => Ok(()),
    }
}

fn same_host(_: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let wanted = named(request, "same_host");
    let fine = wanted.is_empty() || wanted.iter().any(|id| is_on(request, id, host));
    ensure(fine, || "none of the servers of the hint same_host is on it".into())
}

fn anti_affinity(_: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let Some(group) = request.group.as_ref().filter(|group| group.policy == "anti-affinity") else {
        return Ok(());
    };
    let there = group.hosts.iter().filter(|at| **at == host.node.host).count() as i64;
    ensure(there < group.max_per_host.max(1), || format!("{there} of the server group are on it"))
}

fn affinity(_: &Options, request: &Request, host: &Host) -> Result<(), String> {
    let Some(group) = request.group.as_ref().filter(|group| group.policy == "affinity") else {
        return Ok(());
    };
    let fine = group.hosts.is_empty() || group.hosts.contains(&host.node.host);
    ensure(fine, || "the server group is on another host".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operators_of_extra_specs() {
        for (found, wanted, fine) in [
            (json!(8), ">= 4", true),
            (json!(8), "= 8", true),
            (json!(2), "= 4", false),
            (json!("x86_64"), "x86_64", true),
            (json!("x86_64"), "<or> arm <or> x86_64", true),
            (json!("x86_64"), "<or> arm <or> ppc", false),
            (json!(["aes", "sse"]), "<in> aes", true),
            (json!(["aes", "sse"]), "<all-in> aes avx", false),
            (json!("b"), "s> a", true),
            (json!("a"), "s!= a", false),
        ] {
            assert_eq!(matches(&found, wanted), fine, "{found} {wanted}");
        }
    }
}
