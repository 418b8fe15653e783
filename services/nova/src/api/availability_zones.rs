//! Availability zones, as the aggregates and their hosts make them.

use super::queries;
use crate::{Nova, scheduler, store};
use base::{Json, Result};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    vec![
        get("/v2.1/os-availability-zone", "os_compute_api:os-availability-zone:list", index),
        get("/v2.1/os-availability-zone/detail", "os_compute_api:os-availability-zone:detail", detail),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let (available, others) = nova.zones().await?;
    let zones = available.into_keys().map(|zone| view(&zone, true, Json::Null));
    let others = others.iter().map(|zone| view(zone, false, Json::Null));
    Ok(Reply::ok(json!({"availabilityZoneInfo": zones.chain(others).collect::<Vec<_>>()})))
}

async fn detail(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let (available, others) = nova.zones().await?;
    let zones = available.into_iter().map(|(zone, hosts)| view(&zone, true, json!(hosts)));
    let others = others.iter().map(|zone| view(zone, false, Json::Null));
    Ok(Reply::ok(json!({"availabilityZoneInfo": zones.chain(others).collect::<Vec<_>>()})))
}

fn view(name: &str, available: bool, hosts: Json) -> Json {
    json!({"zoneName": name, "zoneState": {"available": available}, "hosts": hosts})
}

/// What runs on the hosts of a zone, by host and by binary.
type Hosts = BTreeMap<String, BTreeMap<String, Json>>;

impl Nova {
    /// The zones with a host that is not disabled, and those with none but disabled ones.
    async fn zones(&self) -> Result<(BTreeMap<String, Hosts>, BTreeSet<String>)> {
        let services = self.read(store::services_and_aggregates).await?;
        let (services, aggregates) = services;
        let now = self.clock.now();
        let down_after = std::time::Duration::from_secs(self.options.service_down_time_seconds);
        let (mut available, mut others) = (BTreeMap::<String, Hosts>::new(), BTreeSet::new());
        for service in services {
            let zone = store::zone_of(&aggregates, &service.host)
                .unwrap_or_else(|| self.options.default_availability_zone.clone());
            if service.disabled {
                others.insert(zone);
                continue;
            }
            let state = json!({
                "active": true,
                "available": scheduler::is_up(&service, now, down_after),
                "updated_at": service.last_seen_at.micros(),
            });
            let hosts = available.entry(zone).or_default();
            hosts.entry(service.host).or_default().insert(service.program, state);
        }
        others.retain(|zone| !available.contains_key(zone));
        Ok((available, others))
    }
}
