//! What projects used of the cloud in a span of time, and the log of audits of it, of which there are none.

use super::queries::{self, Page, counts, query, since, texts};
use crate::{Nova, model::Instance, schemas::Form, store};
use base::{Error, Json, Result, Timestamp};
use serde_json::{Map, json};
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    vec![
        get("/v2.1/os-simple-tenant-usage", "os_compute_api:os-simple-tenant-usage:list", index),
        get("/v2.1/os-simple-tenant-usage/{tenant_id}", "os_compute_api:os-simple-tenant-usage:show", show),
        get("/v2.1/os-instance_usage_audit_log", "os_compute_api:os-instance-usage-audit-log:list", audits),
        get(
            "/v2.1/os-instance_usage_audit_log/{before}",
            "os_compute_api:os-instance-usage-audit-log:show",
            audits_before,
        ),
    ]
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    request.can(&super::own_project(&request))?;
    let span = Span::of(&nova, &request)?;
    let detailed = first(&request, "detailed") == Some("1");
    let (usages, links) = usages(&nova, &request, span, None, detailed).await?;
    let mut body = json!({"tenant_usages": usages});
    if let Some(links) = links {
        body["tenant_usages_links"] = links;
    }
    Ok(Reply::ok(body))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    let tenant = request.param("tenant_id").to_string();
    request.can(&json!({"project_id": tenant}))?;
    let span = Span::of(&nova, &request)?;
    let (usages, links) = usages(&nova, &request, span, Some(&tenant), true).await?;
    let mut body = json!({"tenant_usage": usages.into_iter().next().unwrap_or_else(|| json!({}))});
    if let Some(links) = links {
        body["tenant_usage_links"] = links;
    }
    Ok(Reply::ok(body))
}

/// From and until when.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: Timestamp,
    stop: Timestamp,
}

impl Span {
    fn of(nova: &Nova, request: &Request) -> Result<Self> {
        let now = nova.clock.now();
        let time = |key: &str| match first(request, key) {
            None => Ok(now),
            Some(text) => time(text)
                .ok_or_else(|| Error::bad_request("Invalid datetime string: Datetime is in invalid format")),
        };
        let (start, stop) = (time("start")?, time("end")?);
        if start >= stop {
            return Err(Error::bad_request(
                "Invalid start time. The start time cannot occur after the end time.",
            ));
        }
        Ok(Self { start, stop: stop.min(now) })
    }

    fn hours(&self, server: &Instance) -> f64 {
        let Some(launched) = server.launched_at else { return 0.0 };
        let ended = server.terminated_at.map_or(self.stop, |ended| ended.min(self.stop));
        ended.since(launched.max(self.start)).as_secs_f64() / 3600.0
    }
}

/// Without a zone: it is UTC.
fn time(text: &str) -> Option<Timestamp> {
    let zoneless = text.len() >= 19 && !text.ends_with(['Z', 'z']) && !text[11..].contains(['+', '-']);
    Timestamp::parse(text).filter(|_| zoneless)
}

fn first<'a>(request: &'a Request, key: &str) -> Option<&'a str> {
    let found = request.query.0.iter().find(|(name, value)| name == key && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}

async fn usages(
    nova: &Nova,
    request: &Request,
    span: Span,
    tenant: Option<&str>,
    detailed: bool,
) -> Result<(Vec<Json>, Option<Json>)> {
    let pages = request.since(2, 40);
    let page = match pages {
        true => Page::of(nova, request)?,
        false => Page { limit: nova.options.max_limit, marker: None },
    };
    let asked = tenant.map(str::to_string);
    let servers = nova.read(move |tx| store::alive_in(tx, span.start, span.stop, asked.as_deref())).await?;
    let missing = || {
        let marker = page.marker.as_deref().unwrap_or_default();
        Error::bad_request(format!("Marker {marker} could not be found."))
    };
    let servers = page.cut(servers, |server, marker| server.uuid == marker).ok_or_else(missing)?;
    let now = nova.clock.now();
    let mut sums: Map<String, Json> = Map::new();
    for server in &servers {
        let sum = sums.entry(server.project_id.clone()).or_insert_with(|| {
            let mut sum = json!({
                "tenant_id": server.project_id, "total_local_gb_usage": 0.0, "total_vcpus_usage": 0.0,
                "total_memory_mb_usage": 0.0, "total_hours": 0.0,
                "start": span.start.micros(), "stop": span.stop.micros(),
            });
            if detailed {
                sum["server_usages"] = json!([]);
            }
            sum
        });
        let hours = span.hours(server);
        let disk = server.flavor.root_gb + server.flavor.ephemeral_gb;
        for (key, amount) in [
            ("total_local_gb_usage", disk as f64),
            ("total_vcpus_usage", server.flavor.vcpus as f64),
            ("total_memory_mb_usage", server.flavor.memory_mb as f64),
            ("total_hours", 1.0),
        ] {
            sum[key] = (sum[key].as_f64().unwrap_or_default() + amount * hours).into();
        }
        if let Some(list) = sum.get_mut("server_usages").and_then(Json::as_array_mut) {
            list.push(of_server(server, hours, disk, now));
        }
    }
    let noun = tenant.map_or_else(
        || "os-simple-tenant-usage".to_string(),
        |tenant| format!("os-simple-tenant-usage/{tenant}"),
    );
    let last = servers.last().map(|server| server.uuid.as_str()).filter(|_| pages);
    let links = page.next(request, &noun, servers.len(), last);
    Ok((sums.into_iter().map(|(_, sum)| sum).collect(), links))
}

fn of_server(server: &Instance, hours: f64, disk_gb: i64, now: Timestamp) -> Json {
    let launched = server.launched_at.unwrap_or(now);
    json!({
        "hours": hours,
        "flavor": server.flavor.name,
        "instance_id": server.uuid,
        "name": server.display_name,
        "tenant_id": server.project_id,
        "memory_mb": server.flavor.memory_mb,
        "local_gb": disk_gb,
        "vcpus": server.flavor.vcpus,
        "started_at": launched.micros(),
        "ended_at": server.terminated_at.map(Timestamp::micros),
        "state": if server.terminated_at.is_some() { "terminated" } else { server.vm_state.as_str() },
        "uptime": server.terminated_at.unwrap_or(now).since(launched).as_secs(),
    })
}

async fn audits(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let log = nova.audit_log(nova.clock.now()).await?;
    Ok(Reply::ok(json!({"instance_usage_audit_logs": log})))
}

async fn audits_before(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    request.can(&())?;
    let text = request.param("before");
    let wrong = || Error::bad_request(format!("Invalid timestamp for date {text}"));
    let before = Timestamp::parse(text).filter(|_| text.len() >= 19 && text.as_bytes()[10] == b' ');
    let log = nova.audit_log(before.ok_or_else(wrong)?).await?;
    Ok(Reply::ok(json!({"instance_usage_audit_log": log})))
}

impl Nova {
    /// The month before; hosts keep no such logs, so none has done it.
    async fn audit_log(&self, before: Timestamp) -> Result<Json> {
        let hosts: Vec<String> = self
            .read(store::services_and_aggregates)
            .await?
            .0
            .into_iter()
            .map(|service| service.host)
            .collect();
        let (year, month) = (before.format("%Y"), before.format("%m"));
        let (year, month): (i64, i64) = (year.parse().unwrap_or(1970), month.parse().unwrap_or(1));
        let earlier = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
        let done = if hosts.is_empty() { "ALL".to_string() } else { format!("0 of {}", hosts.len()) };
        Ok(json!({
            "period_beginning": format!("{:04}-{:02}-01 00:00:00", earlier.0, earlier.1),
            "period_ending": format!("{year:04}-{month:02}-01 00:00:00"),
            "num_hosts": hosts.len(),
            "num_hosts_done": 0,
            "num_hosts_running": 0,
            "num_hosts_not_run": hosts.len(),
            "hosts_not_run": hosts,
            "total_instances": 0,
            "total_errors": 0,
            "overall_status": format!("{done} hosts done. 0 errors."),
            "log": {},
        }))
    }
}

static QUERY: Form = Form::new(|| {
    query(
        "2.74",
        "2.75",
        json!({
            "start": texts(), "end": texts(), "detailed": texts(),
            "limit": since("2.40", counts()), "marker": since("2.40", texts()),
        }),
    )
});
