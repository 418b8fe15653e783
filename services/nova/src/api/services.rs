//! The processes of compute on the hosts: which are up, and which get no new servers.

use super::{
    checked, is_true,
    queries::{self, query, since, texts},
};
use crate::{
    Nova,
    model::{Aggregate, ComputeNode, Service},
    scheduler,
    schemas::{self, Form},
    store,
};
use base::{Error, Json, Result, id};
use db::{Filter, List, Tx};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use web::{Reply, Request, Routes, delete, get, put};

pub fn routes() -> Routes<Nova> {
    const ONE: &str = "/v2.1/os-services/{service_id}";
    vec![
        get("/v2.1/os-services", "os_compute_api:os-services:list", index),
        put(ONE, "os_compute_api:os-services:update", update_by_verb).until(2, 52),
        put(ONE, "os_compute_api:os-services:update", update).since(2, 53),
        delete(ONE, "os_compute_api:os-services:delete", remove),
    ]
}

const COMPUTE: &str = "nova-compute";

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    request.can(&())?;
    let (services, aggregates) = nova.read(store::services_and_aggregates).await?;
    let wanted = |service: &&Service| {
        let fits = |key: &str, value: &str| {
            request.query.get(key).is_none_or(|asked| asked.is_empty() || asked == value)
        };
        fits("host", &service.host) && fits("binary", &service.program)
    };
    let one = |service: &Service| view(&nova, &request, service, &aggregates);
    Ok(Reply::ok(json!({"services": services.iter().filter(wanted).map(one).collect::<Vec<_>>()})))
}

/// `PUT /os-services/disable` and its like.
async fn update_by_verb(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &UPDATE_OLD)?.clone();
    request.can(&())?;
    let text = |key: &str| given.get(key).and_then(Json::as_str).map(str::to_string);
    let (host, binary) = (text("host").unwrap_or_default(), text("binary").unwrap_or_default());
    let reason = text("disabled_reason");
    let mut told = json!({"host": host, "binary": binary});
    let change: Change = match request.param("service_id") {
        "enable" => {
            told["status"] = "enabled".into();
            Change { disabled: Some((false, None)), forced_down: None }
        }
        "disable" => {
            told["status"] = "disabled".into();
            Change { disabled: Some((true, None)), forced_down: None }
        }
        "disable-log-reason" => {
            let Some(reason) = reason else {
                return Err(Error::bad_request("Missing disabled reason field"));
            };
            told["status"] = "disabled".into();
            told["disabled_reason"] = reason.clone().into();
            Change { disabled: Some((true, Some(reason))), forced_down: None }
        }
        "force-down" if request.since(2, 11) => {
            let Some(down) = given.get("forced_down").map(is_true) else {
                return Err(Error::bad_request("Missing forced_down field"));
            };
            told["forced_down"] = down.into();
            Change { disabled: None, forced_down: Some(down) }
        }
        _ => return Err(Error::not_found("Unknown action")),
    };
    check_binary(&binary)?;
    let now = nova.clock.now();
    nova.write(move |tx| {
        let missing = || Error::not_found(format!("Host '{host}' is not mapped to any cell"));
        let mut service = store::service_on(tx, &host)?.ok_or_else(missing)?;
        change.apply(&mut service);
        service.updated_at = now;
        tx.update(&service)
    })
    .await?;
    Ok(Reply::ok(json!({ "service": told })))
}

async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &UPDATE)?.clone();
    let uuid = request.param("service_id").to_string();
    if !id::is_uuid(&uuid) {
        return Err(Error::bad_request(format!("Invalid uuid {uuid}")));
    }
    request.can(&())?;
    let reason = given["disabled_reason"].as_str().map(str::to_string);
    let disabled = match given["status"].as_str() {
        Some("enabled") if reason.is_some() => {
            Err(Error::bad_request("Specifying 'disabled_reason' with status 'enabled' is invalid."))
        }
        Some("enabled") => Ok(Some((false, None))),
        Some(_) => Ok(Some((true, reason))),
        None => Ok(None),
    };
    let forced_down = given.get("forced_down").map(is_true);
    let now = nova.clock.now();
    let (service, aggregates) = nova
        .write(move |tx| {
            let missing = || Error::not_found(format!("Service {uuid} could not be found."));
            let mut service = tx.find::<Service>(&uuid)?.ok_or_else(missing)?;
            check_binary(&service.program)?;
            let change = Change { disabled: disabled.clone()?, forced_down };
            if change.disabled.is_none() && change.forced_down.is_none() {
                return Err(Error::bad_request(
                    "No updates were requested. Fields 'status' or 'forced_down' should be specified.",
                ));
            }
            change.apply(&mut service);
            service.updated_at = now;
            tx.update(&service)?;
            Ok((service, tx.list::<Aggregate>(&List::all())?))
        })
        .await?;
    Ok(Reply::ok(json!({"service": view(&nova, &request, &service, &aggregates)})))
}

/// Forgets a host without servers: its zones, its resources, its service. An agent that still runs there reports it
/// again.
async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let asked = request.param("service_id").to_string();
    let by_uuid = request.since(2, 53);
    if by_uuid && !id::is_uuid(&asked) {
        return Err(Error::bad_request(format!("Invalid uuid {asked}")));
    }
    if !by_uuid && asked.trim().parse::<i64>().is_err() {
        return Err(Error::bad_request("Invalid input received: id must be an integer"));
    }
    let node = nova.write(move |tx| forget(tx, &asked, by_uuid)).await?;
    if let Some(node) = node {
        nova.placement().remove_provider(&nova.own(&request.ctx), &node.uuid).await?;
    }
    Ok(Reply::no_content())
}

fn forget(tx: &mut Tx, asked: &str, by_uuid: bool) -> Result<Option<ComputeNode>> {
    let missing = || Error::not_found(format!("Service {asked} not found."));
    let found = match by_uuid {
        true => tx.find::<Service>(asked)?,
        false => {
            let number: i64 = asked.trim().parse().unwrap_or_default();
            tx.list::<Service>(&List::all().filter(Filter::eq("number", number)))?.into_iter().next()
        }
    };
    let service = found.ok_or_else(missing)?;
    if store::servers_on(tx, std::slice::from_ref(&service.host))? > 0 {
        return Err(Error::conflict(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.",
        ));
    }
    for mut aggregate in tx.list::<Aggregate>(&List::all())? {
        if aggregate.hosts.contains(&service.host) {
            aggregate.hosts.retain(|host| *host != service.host);
            tx.update(&aggregate)?;
        }
    }
    let node = store::node_on(tx, &service.host)?;
    if let Some(node) = &node {
        tx.remove::<ComputeNode>(&node.uuid)?;
    }
    tx.remove::<Service>(&service.uuid)?;
    Ok(node)
}

/// What an administrator sets.
#[derive(Clone, Debug)]
struct Change {
    /// And why.
    disabled: Option<(bool, Option<String>)>,
    forced_down: Option<bool>,
}

impl Change {
    fn apply(&self, service: &mut Service) {
        if let Some((disabled, reason)) = &self.disabled {
            service.disabled = *disabled;
            service.disabled_reason.clone_from(reason);
        }
        if let Some(down) = self.forced_down {
            service.forced_down = down;
        }
    }
}

fn check_binary(binary: &str) -> Result<()> {
    match binary == COMPUTE {
        true => Ok(()),
        false => Err(Error::bad_request(format!(
            "Updating a {binary} service is not supported. Only nova-compute services can be updated."
        ))),
    }
}

fn view(nova: &Nova, request: &Request, service: &Service, aggregates: &[Aggregate]) -> Json {
    let down_after = Duration::from_secs(nova.options.service_down_time_seconds);
    let up = scheduler::is_up(service, nova.clock.now(), down_after);
    let zone = store::zone_of(aggregates, &service.host);
    let mut one = json!({
        "id": if request.since(2, 53) { json!(service.uuid) } else { json!(service.number) },
        "binary": service.program,
        "host": service.host,
        "zone": zone.unwrap_or_else(|| nova.options.default_availability_zone.clone()),
        "status": if service.disabled { "disabled" } else { "enabled" },
        "state": if up { "up" } else { "down" },
        "updated_at": service.last_seen_at.micros(),
        "disabled_reason": service.disabled_reason,
    });
    if request.since(2, 11) {
        one["forced_down"] = service.forced_down.into();
    }
    one
}

static QUERY: Form = Form::new(|| query("2.74", "2.75", json!({"host": texts(), "binary": texts()})));

fn word() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

static UPDATE_OLD: Form = Form::new(|| {
    let host = json!({"type": "string", "pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255});
    json!({
        "type": "object",
        "properties": {
            "host": host, "binary": word(), "disabled_reason": word(),
            "forced_down": since("2.11", schemas::boolean()),
        },
        "required": ["host", "binary"],
        "additionalProperties": false,
    })
});

static UPDATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["enabled", "disabled"]},
            "disabled_reason": word(),
            "forced_down": schemas::boolean(),
        },
        "additionalProperties": false,
    })
});
