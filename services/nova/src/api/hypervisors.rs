//! Hypervisors: the hosts' resources, and what of them the servers take.

use super::queries::{self, Page, counts, once, since};
use crate::{
    Nova, guest,
    model::Instance,
    scheduler::{self, Host},
    schemas::{self, Form},
};
use base::{Error, Json, Result, id};
use db::{Filter, List};
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/os-hypervisors";
    vec![
        get(ALL, "os_compute_api:os-hypervisors:list", index),
        get("/v2.1/os-hypervisors/detail", "os_compute_api:os-hypervisors:list-detail", detail),
        get("/v2.1/os-hypervisors/statistics", "os_compute_api:os-hypervisors:statistics", statistics)
            .until(2, 87),
        get("/v2.1/os-hypervisors/{hypervisor_id}", "os_compute_api:os-hypervisors:show", show),
        get("/v2.1/os-hypervisors/{hypervisor_id}/uptime", "os_compute_api:os-hypervisors:uptime", uptime)
            .until(2, 87),
        get("/v2.1/os-hypervisors/{hypervisor_id}/search", "os_compute_api:os-hypervisors:search", search)
            .until(2, 52),
        get("/v2.1/os-hypervisors/{hypervisor_id}/servers", "os_compute_api:os-hypervisors:servers", servers)
            .until(2, 52),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, "os-hypervisors", false).await
}

async fn detail(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, "os-hypervisors/detail", true).await
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &SHOW)?;
    request.can(&())?;
    let host = nova.hypervisor(&request).await?;
    let servers = with_servers(&nova, &request, std::slice::from_ref(&host)).await?;
    let mut one = view(&request, &host, true, servers.as_ref());
    add_uptime(&nova, &request, &host, &mut one).await;
    Ok(Reply::ok(json!({ "hypervisor": one })))
}

async fn uptime(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let host = nova.hypervisor(&request).await?;
    if !host.up {
        let name = &host.node.host;
        return Err(Error::bad_request(format!("Compute service of {name} is unavailable at this time.")));
    }
    let mut one = view(&request, &host, false, None);
    one["uptime"] = nova.compute(&host.node.host).uptime(&nova.own(&request.ctx)).await?.into();
    Ok(Reply::ok(json!({ "hypervisor": one })))
}

/// Since 2.88 in detail; null of a host that does not answer.
async fn add_uptime(nova: &Nova, request: &Request, host: &Host, one: &mut Json) {
    if !request.since(2, 88) {
        return;
    }
    let agent = nova.compute(&host.node.host);
    let said = match host.up {
        true => agent.uptime(&nova.own(&request.ctx)).await.ok(),
        false => None,
    };
    one["uptime"] = said.into();
}

async fn search(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let hosts = named(nova.hosts().await?, request.param("hypervisor_id"))?;
    let all: Vec<Json> = hosts.iter().map(|host| view(&request, host, false, None)).collect();
    Ok(Reply::ok(json!({ "hypervisors": all })))
}

async fn servers(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let hosts = named(nova.hosts().await?, request.param("hypervisor_id"))?;
    let servers = nova.servers_of(&hosts).await?;
    let all: Vec<Json> = hosts.iter().map(|host| view(&request, host, false, Some(&servers))).collect();
    Ok(Reply::ok(json!({ "hypervisors": all })))
}

/// Sums over the hosts that are not disabled.
async fn statistics(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let hosts: Vec<Host> = nova.hosts().await?.into_iter().filter(|host| !host.service.disabled).collect();
    let mut sums = json!({"count": hosts.len(), "disk_available_least": 0});
    for name in RESOURCES {
        let of = |host: &Host| resources(host)[name].as_i64().unwrap_or_default();
        sums[name] = hosts.iter().map(of).sum::<i64>().into();
    }
    Ok(Reply::ok(json!({ "hypervisor_statistics": sums })))
}

async fn list(nova: &Nova, request: &Request, noun: &str, in_detail: bool) -> Result<Reply> {
    queries::check(request, &QUERY)?;
    request.can(&())?;
    let mut hosts = nova.hosts().await?;
    let pattern = request.query.get("hypervisor_hostname_pattern").filter(|_| request.since(2, 53));
    let page = match request.since(2, 33) {
        true => Page::of(nova, request)?,
        false => Page { limit: u64::MAX, marker: None },
    };
    if let Some(pattern) = pattern {
        if request.query.has("limit") || page.marker.is_some() {
            return Err(Error::bad_request(
                "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
            ));
        }
        hosts = named(hosts, pattern)?;
    }
    let missing =
        || Error::bad_request(format!("marker [{}] not found", page.marker.as_deref().unwrap_or_default()));
    let hosts = page.cut(hosts, |host, marker| id_text(request, host) == marker).ok_or_else(missing)?;
    let servers = with_servers(nova, request, &hosts).await?;
    let mut all: Vec<Json> =
        hosts.iter().map(|host| view(request, host, in_detail, servers.as_ref())).collect();
    if in_detail {
        let asked = hosts.iter().zip(&mut all).map(|(host, one)| add_uptime(nova, request, host, one));
        futures::future::join_all(asked).await;
    }
    let mut body = json!({ "hypervisors": all });
    let pages = pattern.is_none() && request.since(2, 33);
    let last = hosts.last().filter(|_| pages).map(|host| id_text(request, host));
    if let Some(links) = page.next(request, noun, hosts.len(), last.as_deref()) {
        body["hypervisors_links"] = links;
    }
    Ok(Reply::ok(body))
}

/// Names and ids of servers by host.
type Servers = HashMap<String, Vec<(String, String)>>;

async fn with_servers(nova: &Nova, request: &Request, hosts: &[Host]) -> Result<Option<Servers>> {
    let asked = request.since(2, 53) && request.query.flag("with_servers")? == Some(true);
    if asked { nova.servers_of(hosts).await.map(Some) } else { Ok(None) }
}

impl Nova {
    async fn hosts(&self) -> Result<Vec<Host>> {
        let (options, now) = (self.options.clone(), self.clock.now());
        let mut hosts = self.read(move |tx| scheduler::hosts(tx, &options, now)).await?;
        hosts.sort_by_key(|host| host.node.number);
        Ok(hosts)
    }

    /// The host of the path.
    async fn hypervisor(&self, request: &Request) -> Result<Host> {
        let asked = request.param("hypervisor_id");
        if request.since(2, 53) && !id::is_uuid(asked) {
            return Err(Error::bad_request(format!("Invalid uuid {asked}")));
        }
        let found = self.hosts().await?.into_iter().find(|host| id_text(request, host) == asked);
        found.ok_or_else(|| Error::not_found(format!("Hypervisor with ID '{asked}' could not be found.")))
    }

    async fn servers_of(&self, hosts: &[Host]) -> Result<Servers> {
        let names: Vec<String> = hosts.iter().map(|host| host.node.host.clone()).collect();
        let wanted = List::all().eq("deleted", false).filter(Filter::any("host", &names));
        let mut servers = Servers::new();
        for server in self.read(move |tx| tx.list::<Instance>(&wanted)).await? {
            let one = (guest::host_name(&server), server.uuid);
            servers.entry(server.host.unwrap_or_default()).or_default().push(one);
        }
        Ok(servers)
    }
}

fn named(hosts: Vec<Host>, pattern: &str) -> Result<Vec<Host>> {
    let found: Vec<Host> =
        hosts.into_iter().filter(|host| host.node.facts.hypervisor_hostname.contains(pattern)).collect();
    match found.is_empty() {
        true => Err(Error::not_found(format!("No hypervisor matching '{pattern}' could be found."))),
        false => Ok(found),
    }
}

fn id_text(request: &Request, host: &Host) -> String {
    if request.since(2, 53) { host.node.uuid.clone() } else { host.node.number.to_string() }
}

const RESOURCES: [&str; 10] = [
    "vcpus",
    "memory_mb",
    "local_gb",
    "vcpus_used",
    "memory_mb_used",
    "local_gb_used",
    "free_ram_mb",
    "free_disk_gb",
    "current_workload",
    "running_vms",
];

/// Until 2.88. What the host keeps for itself counts as used.
fn resources(host: &Host) -> Json {
    let facts = &host.node.facts;
    let (memory, disk) = (facts.memory_mb as i64, facts.disk_gb as i64);
    let memory_used = host.used_memory_mb + facts.reserved_memory_mb as i64;
    let disk_used = host.used_disk_gb + facts.reserved_disk_gb as i64;
    json!({
        "vcpus": facts.vcpus, "memory_mb": memory, "local_gb": disk,
        "vcpus_used": host.used_vcpus, "memory_mb_used": memory_used, "local_gb_used": disk_used,
        "free_ram_mb": memory - memory_used, "free_disk_gb": disk - disk_used,
        "current_workload": host.busy, "running_vms": host.servers,
    })
}

fn view(request: &Request, host: &Host, in_detail: bool, servers: Option<&Servers>) -> Json {
    let (facts, by_uuid) = (&host.node.facts, request.since(2, 53));
    let mut one = json!({
        "id": if by_uuid { json!(host.node.uuid) } else { json!(host.node.number) },
        "hypervisor_hostname": facts.hypervisor_hostname,
        "state": if host.up { "up" } else { "down" },
        "status": if host.service.disabled { "disabled" } else { "enabled" },
    });
    if in_detail {
        one["hypervisor_type"] = facts.hypervisor_type.clone().into();
        one["hypervisor_version"] = facts.hypervisor_version.into();
        one["host_ip"] = facts.host_ip.clone().into();
        one["service"] = json!({
            "id": if by_uuid { json!(host.service.uuid) } else { json!(host.service.number) },
            "host": host.node.host,
            "disabled_reason": host.service.disabled_reason,
        });
    }
    if in_detail && !request.since(2, 88) {
        let known = resources(host);
        for name in RESOURCES {
            one[name] = known[name].clone();
        }
        // Agents do not tell it.
        one["disk_available_least"] = Json::Null;
        let cpu = cpu_info(host);
        one["cpu_info"] = if request.since(2, 28) { cpu } else { cpu.to_string().into() };
    }
    if let Some(servers) = servers {
        let there = servers.get(&host.node.host).map_or(&[][..], Vec::as_slice);
        if !there.is_empty() || request.since(2, 75) {
            let all = there.iter().map(|(name, uuid)| json!({"name": name, "uuid": uuid}));
            one["servers"] = all.collect::<Vec<_>>().into();
        }
    }
    one
}

fn cpu_info(host: &Host) -> Json {
    let cpu = &host.node.facts.cpu;
    json!({
        "arch": cpu.arch, "model": cpu.model, "vendor": cpu.vendor, "features": cpu.features,
        "topology": {"sockets": cpu.sockets, "cores": cpu.cores, "threads": cpu.threads},
    })
}

fn flag() -> Json {
    once(json!({"type": "array", "items": schemas::boolean()}))
}

static QUERY: Form = Form::new(|| {
    let marker = || json!({"type": "array", "items": {"type": "string"}});
    let pattern = json!({"type": "array", "items": {
        "type": "string", "pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255}});
    let old = json!({
        "type": "object", "additionalProperties": true, "x-until": "2.52",
        "properties": {"limit": since("2.33", counts()), "marker": since("2.33", marker())},
    });
    let new = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "limit": once(counts()), "marker": once(marker()), "with_servers": flag(),
            "hypervisor_hostname_pattern": once(pattern),
        },
    });
    json!({"allOf": [old, since("2.53", new)]})
});

static SHOW: Form =
    Form::new(|| queries::query("2.52", "2.53", json!({"with_servers": since("2.53", flag())})));
