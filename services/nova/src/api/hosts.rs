//! Hosts as compute once showed them, until 2.42: their services, what they have and who uses it.

use super::{checked, queries};
use crate::{
    Nova,
    model::{Instance, Service},
    schemas::Form,
    store,
};
use base::{Error, Json, Result};
use db::{List, Tx};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, get, put};

pub fn routes() -> Routes<Nova> {
    const ONE: &str = "/v2.1/os-hosts/{host}";
    let all = [
        get("/v2.1/os-hosts", "os_compute_api:os-hosts:list", index),
        get(ONE, "os_compute_api:os-hosts:show", show),
        put(ONE, "os_compute_api:os-hosts:update", update),
        get("/v2.1/os-hosts/{host}/startup", "os_compute_api:os-hosts:start", power),
        get("/v2.1/os-hosts/{host}/shutdown", "os_compute_api:os-hosts:shutdown", power),
        get("/v2.1/os-hosts/{host}/reboot", "os_compute_api:os-hosts:reboot", power),
    ];
    all.into_iter().map(|route| route.until(2, 42)).collect()
}

const COMPUTE: &str = "nova-compute";

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    request.can(&())?;
    let (services, aggregates) = nova.read(store::services_and_aggregates).await?;
    let zone = |service: &Service| match service.program.as_str() {
        COMPUTE => store::zone_of(&aggregates, &service.host)
            .unwrap_or_else(|| nova.options.default_availability_zone.clone()),
        _ => "internal".into(),
    };
    let asked = request.query.get("zone").filter(|zone| !zone.is_empty());
    let shown = services.iter().filter(|service| !service.disabled).map(|service| (service, zone(service)));
    let shown = shown.filter(|(_, zone)| asked.is_none_or(|asked| asked == zone));
    let hosts: Vec<Json> = shown
        .map(|(service, zone)| json!({"host_name": service.host, "service": service.topic, "zone": zone}))
        .collect();
    Ok(Reply::ok(json!({"hosts": hosts})))
}

fn missing(host: &str) -> Error {
    Error::not_found(format!("Host '{host}' is not mapped to any cell"))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let host = request.param("host").to_string();
    let (wanted, name) = (host.clone(), host.clone());
    let found = nova.read(move |tx| {
        let Some(node) = store::node_on(tx, &wanted)? else { return Ok(None) };
        let on_it = List::all().eq("host", &wanted).eq("deleted", false);
        Ok(Some((node, tx.list::<Instance>(&on_it)?)))
    });
    let (node, instances) = found.await?.ok_or_else(|| missing(&name))?;
    let mut used = Used::default();
    let mut by_project: BTreeMap<&str, Used> = BTreeMap::new();
    for instance in &instances {
        used.add(instance);
        by_project.entry(&instance.project_id).or_default().add(instance);
    }
    let resource = |project: &str, used: Used| {
        let Used(cpu, memory_mb, disk_gb) = used;
        json!({"resource": {
            "host": host, "project": project, "cpu": cpu, "memory_mb": memory_mb, "disk_gb": disk_gb}})
    };
    let (facts, signed) = (&node.facts, |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX));
    let total = Used(facts.vcpus.into(), signed(facts.memory_mb), signed(facts.disk_gb));
    let now = Used(used.0, used.1 + signed(facts.reserved_memory_mb), used.2);
    let mut shown =
        vec![resource("(total)", total), resource("(used_now)", now), resource("(used_max)", used)];
    shown.extend(by_project.into_iter().map(|(project, used)| resource(project, used)));
    Ok(Reply::ok(json!({"host": shown})))
}

/// Processors, MiB, GiB.
#[derive(Clone, Copy, Default)]
struct Used(i64, i64, i64);

impl Used {
    fn add(&mut self, instance: &Instance) {
        self.0 += instance.vcpus;
        self.1 += instance.memory_mb;
        self.2 += instance.flavor.root_gb + instance.flavor.ephemeral_gb;
    }
}

/// Only whether servers may go to it; no hypervisor of ours knows of maintenance.
async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &UPDATE)?.clone();
    request.can(&())?;
    let host = request.param("host").to_string();
    let Some(status) = given["status"].as_str() else {
        known(&nova, &host).await?;
        return Err(unsupported());
    };
    let (disabled, now, name) = (!status.eq_ignore_ascii_case("enable"), nova.clock.now(), host.clone());
    nova.write(move |tx| {
        let mut service = store::service_on(tx, &name)?.ok_or_else(|| missing(&name))?;
        service.disabled = disabled;
        service.updated_at = now;
        tx.update(&service)
    })
    .await?;
    let status = if disabled { "disabled" } else { "enabled" };
    Ok(Reply::ok(json!({"host": host, "status": status})))
}

/// No hypervisor of ours switches its host.
async fn power(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    known(&nova, request.param("host")).await?;
    Err(unsupported())
}

async fn known(nova: &Nova, host: &str) -> Result<()> {
    let name = host.to_string();
    nova.read(move |tx: &mut Tx| store::service_on(tx, &name)).await?.map(drop).ok_or_else(|| missing(host))
}

fn unsupported() -> Error {
    Error::not_implemented("The requested functionality is not supported.")
}

static QUERY: Form = Form::new(|| json!({"type": "object", "properties": {"zone": queries::texts()}}));

static UPDATE: Form = Form::new(|| {
    let word = json!({"type": "string", "enum": [
        "enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]});
    json!({"type": "object", "additionalProperties": false,
           "properties": {"status": word, "maintenance_mode": word},
           "anyOf": [{"required": ["status"]}, {"required": ["maintenance_mode"]}]})
});
