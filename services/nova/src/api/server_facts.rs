//! Small questions about one server: its diagnostics, its NUMA topology.

use super::server_actions::host_of;
use crate::{
    Nova,
    flows::power::check_state,
    model::{TaskState, VmState},
};
use base::{Json, Result};
use contracts::compute::{Diagnostics, DiskDiagnostics, NicDiagnostics};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    vec![
        get("/v2.1/servers/{server_id}/topology", "compute:server:topology:index", topology).since(2, 78),
        get("/v2.1/servers/{server_id}/diagnostics", "os_compute_api:os-server-diagnostics", diagnostics),
    ]
}

/// Guests have no NUMA nodes of their own: then upstream shows none.
async fn topology(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    nova.server(&request).await?;
    Ok(Reply::ok(json!({"nodes": [], "pagesize_kb": null})))
}

async fn diagnostics(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = nova.server(&request).await?;
    let host = host_of(&instance)?;
    if instance.power_state != contracts::compute::PowerState::Running as i64 {
        let wanted = [VmState::Active, VmState::Paused, VmState::Rescued];
        check_state(&instance, &wanted, TaskState::ALL, "get_diagnostics")?;
    }
    let found = nova.compute(host).diagnostics(&nova.own(&request.ctx), &instance.uuid).await?;
    let with_drive = nova.options.force_config_drive || !instance.config_drive.is_empty();
    Ok(Reply::ok(match request.since(2, 48) {
        true => common(&found, with_drive),
        false => of_libvirt(&found),
    }))
}

/// Every hypervisor's, since 2.48.
fn common(found: &Diagnostics, with_drive: bool) -> Json {
    let cpu = |(id, time): (usize, &u64)| json!({"id": id, "time": time, "utilisation": null});
    let disk = |disk: &DiskDiagnostics| {
        json!({
            "read_bytes": disk.read_bytes, "read_requests": disk.read_requests,
            "write_bytes": disk.write_bytes, "write_requests": disk.write_requests,
            "errors_count": disk.errors,
        })
    };
    let nic = |nic: &NicDiagnostics| {
        json!({
            "mac_address": nic.mac,
            "rx_octets": nic.rx_octets, "rx_packets": nic.rx_packets, "rx_errors": nic.rx_errors,
            "rx_drop": nic.rx_drop, "rx_rate": null,
            "tx_octets": nic.tx_octets, "tx_packets": nic.tx_packets, "tx_errors": nic.tx_errors,
            "tx_drop": nic.tx_drop, "tx_rate": null,
        })
    };
    json!({
        "state": found.state,
        "driver": found.driver,
        "hypervisor": found.hypervisor,
        "hypervisor_os": found.hypervisor_os,
        "uptime": found.uptime_seconds,
        "config_drive": with_drive,
        "num_cpus": found.cpus.len(),
        "num_nics": found.nics.len(),
        "num_disks": found.disks.len(),
        "cpu_details": found.cpus.iter().enumerate().map(cpu).collect::<Vec<_>>(),
        "nic_details": found.nics.iter().map(nic).collect::<Vec<_>>(),
        "disk_details": found.disks.iter().map(disk).collect::<Vec<_>>(),
        "memory_details": {"maximum": found.memory_maximum_mib, "used": found.memory_used_mib.unwrap_or(0)},
    })
}

/// As the hypervisor's own counters are called, before.
fn of_libvirt(found: &Diagnostics) -> Json {
    let mut shown = serde_json::Map::new();
    for (id, time) in found.cpus.iter().enumerate() {
        shown.insert(format!("cpu{id}_time"), json!(time));
    }
    for disk in &found.disks {
        let device = &disk.device;
        shown.insert(format!("{device}_read"), json!(disk.read_bytes));
        shown.insert(format!("{device}_read_req"), json!(disk.read_requests));
        shown.insert(format!("{device}_write"), json!(disk.write_bytes));
        shown.insert(format!("{device}_write_req"), json!(disk.write_requests));
        shown.insert(format!("{device}_errors"), json!(disk.errors.map_or(-1, |count| count as i64)));
    }
    for nic in &found.nics {
        let numbers = [
            ("rx", nic.rx_octets),
            ("rx_packets", nic.rx_packets),
            ("rx_errors", nic.rx_errors),
            ("rx_drop", nic.rx_drop),
            ("tx", nic.tx_octets),
            ("tx_packets", nic.tx_packets),
            ("tx_errors", nic.tx_errors),
            ("tx_drop", nic.tx_drop),
        ];
        for (name, number) in numbers {
            shown.insert(format!("{}_{name}", nic.device), json!(number));
        }
    }
    shown.insert("memory".into(), json!(found.memory_maximum_mib * 1024));
    Json::Object(shown)
}
