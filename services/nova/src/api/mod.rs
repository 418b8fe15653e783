//! The route table of compute, and what its nouns share.

mod aggregates;
mod assisted_volume_snapshots;
mod availability_zones;
mod extensions;
mod external_events;
mod flavors;
mod floating_ips;
mod gone;
mod hosts;
mod hypervisors;
mod images;
mod keypairs;
mod migrations;
mod networks;
mod queries;
mod quota_sets;
mod remote_consoles;
mod security_groups;
mod server_actions;
mod server_create;
pub mod server_devices;
mod server_facts;
mod server_fixed_ips;
mod server_groups;
mod server_images;
mod server_instance_actions;
mod server_interfaces;
mod server_list;
mod server_metadata;
mod server_migrations;
mod server_moves;
mod server_networks;
mod server_password;
mod server_rebuild;
mod server_rescue;
mod server_shares;
mod server_shelve;
mod server_view;
pub mod server_volumes;
mod servers;
mod services;
mod usage;
mod versions;
mod volume_proxies;

use crate::{Nova, model::Instance, schemas::Form, store};
use base::{Context, Error, Json, Result};
use serde_json::json;
use web::{Request, Routes};

pub fn routes() -> Routes<Nova> {
    let mut routes = versions::routes();
    for table in [
        servers::routes(),
        server_metadata::routes(),
        server_actions::routes(),
        server_rebuild::routes(),
        server_images::routes(),
        server_rescue::routes(),
        server_shelve::routes(),
        server_moves::routes(),
        server_migrations::routes(),
        server_password::routes(),
        server_fixed_ips::routes(),
        server_shares::routes(),
        remote_consoles::routes(),
        flavors::routes(),
        keypairs::routes(),
        server_groups::routes(),
        aggregates::routes(),
        availability_zones::routes(),
        services::routes(),
        hypervisors::routes(),
        hosts::routes(),
        migrations::routes(),
        quota_sets::routes(),
        usage::routes(),
        extensions::routes(),
        networks::routes(),
        security_groups::routes(),
        floating_ips::routes(),
        images::routes(),
        volume_proxies::routes(),
        gone::routes(),
        server_volumes::routes(),
        server_interfaces::routes(),
        server_instance_actions::routes(),
        server_facts::routes(),
        external_events::routes(),
        assisted_volume_snapshots::routes(),
    ] {
        routes.extend(table);
    }
    routes.extend(volumes_boot());
    routes
}

/// Servers by the path that they once had for those that boot from volumes: the same operations.
fn volumes_boot() -> Routes<Nova> {
    const PATHS: [(&str, &str); 4] = [
        ("/v2.1/servers", "/v2.1/os-volumes_boot"),
        ("/v2.1/servers/detail", "/v2.1/os-volumes_boot/detail"),
        ("/v2.1/servers/{server_id}", "/v2.1/os-volumes_boot/{server_id}"),
        ("/v2.1/servers/{server_id}/action", "/v2.1/os-volumes_boot/{server_id}/action"),
    ];
    let tables = [
        servers::routes(),
        server_actions::routes(),
        server_rebuild::routes(),
        server_images::routes(),
        server_moves::routes(),
    ];
    let again = tables.into_iter().flatten().filter_map(|mut route| {
        route.path = PATHS.iter().find(|(path, _)| *path == route.path)?.1;
        Some(route.until(2, 102))
    });
    again.collect()
}

/// Upstream asks most rules about the caller's own project.
fn own_project(request: &Request) -> Json {
    json!({"project_id": request.ctx.project_id, "user_id": request.ctx.user_id})
}

/// The target of rules about a server.
fn target(instance: &Instance) -> Json {
    json!({"project_id": instance.project_id, "user_id": instance.user_id})
}

/// What the caller's project does not have is not there for it.
fn check_visible(cx: &Context, instance: &Instance) -> Result<()> {
    let visible = cx.is_admin() || instance.project_id == cx.project_id;
    if visible { Ok(()) } else { Err(store::instance_not_found(&instance.uuid)) }
}

/// The body, checked against the form of the request's version.
fn checked<'a>(request: &'a Request, form: &Form) -> Result<&'a Json> {
    form.at(request.version()).body(request.json())?;
    Ok(request.json())
}

/// `["1"]` or `[true]` and its like, as upstream's lists of words have them.
fn is_true(value: &Json) -> bool {
    match value {
        Json::Bool(flag) => *flag,
        Json::String(text) => word_is_true(text),
        _ => false,
    }
}

fn word_is_true(text: &str) -> bool {
    matches!(text.trim().to_lowercase().as_str(), "1" | "t" | "true" | "on" | "y" | "yes")
}

fn links(request: &Request, noun: &str, id: &str) -> Json {
    json!([
        {"rel": "self", "href": format!("{}/v2.1/{noun}/{id}", request.base_url)},
        {"rel": "bookmark", "href": format!("{}/{noun}/{id}", request.base_url)},
    ])
}

fn bookmark(request: &Request, noun: &str, id: &str) -> Json {
    json!([{"rel": "bookmark", "href": format!("{}/{noun}/{id}", request.base_url)}])
}

/// A zone that some host is in; or none, for any.
async fn check_zone(nova: &Nova, zone: Option<&str>) -> Result<()> {
    let Some(zone) = zone else { return Ok(()) };
    let (services, aggregates) = nova.read(store::services_and_aggregates).await?;
    let default = &nova.options.default_availability_zone;
    let hosts = services.iter().filter(|service| service.program == "nova-compute").map(|s| &s.host);
    for host in hosts {
        if store::zone_of(&aggregates, host).as_ref().unwrap_or(default) == zone {
            return Ok(());
        }
    }
    Err(Error::bad_request("The requested availability zone is not available"))
}

/// Refuses to change a locked server for all but administrators.
fn check_unlocked(request: &Request, instance: &Instance) -> Result<()> {
    let rule = "os_compute_api:os-lock-server:unlock:unlock_override";
    if instance.locked_by.is_none() || request.may(rule, &target(instance)) {
        return Ok(());
    }
    Err(Error::conflict(format!("Instance {} is locked", instance.uuid)))
}

impl Nova {
    /// The server of the path, if the caller may do to it what the route's rule says.
    async fn server(&self, request: &Request) -> Result<Instance> {
        let uuid = request.param("server_id").to_string();
        let instance = self.read(move |tx| store::instance(tx, &uuid)).await?;
        check_visible(&request.ctx, &instance)?;
        request.can(&target(&instance))?;
        Ok(instance)
    }
}
