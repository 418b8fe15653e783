//! The route table of networking, and what its nouns share.

mod address_groups;
mod address_scopes;
pub mod agents;
mod availability;
mod default_rules;
mod extensions;
mod floating_ips;
pub mod networks;
mod port_bindings;
mod port_forwardings;
pub mod ports;
mod qos;
mod qos_rules;
mod quotas;
mod rbac_policies;
mod routers;
mod security_groups;
mod subnet_pools;
mod subnets;
mod tags;
mod trunks;
mod versions;

use crate::{
    Neutron,
    attributes::{self, Given},
    errors::not_allowed,
    model::*,
    rbac::{self, Shareable},
    schedule::Layout,
    store::{self, Noun},
};
use base::{Context, Error, ErrorKind, Json, Result, Timestamp};
use db::{Filter, Resource, Tx};
use serde_json::json;
use web::{Request, Routes};

pub use ports::VNIC_TYPE_NORMAL;

pub fn routes() -> Routes<Neutron> {
    let mut routes = versions::routes();
    for table in [
        extensions::routes(),
        networks::routes(),
        subnets::routes(),
        ports::routes(),
        port_bindings::routes(),
        security_groups::routes(),
        routers::routes(),
        floating_ips::routes(),
        port_forwardings::routes(),
        subnet_pools::routes(),
        address_scopes::routes(),
        address_groups::routes(),
        rbac_policies::routes(),
        default_rules::routes(),
        tags::routes(),
        quotas::routes(),
        qos::routes(),
        qos_rules::routes(),
        trunks::routes(),
        agents::routes(),
        availability::routes(),
    ] {
        routes.extend(table);
    }
    routes
}

/// Asks the route's rule.
fn can(request: &Request, target: &Json) -> Result<()> {
    request.can(target).map_err(refused)
}

/// A refusal in neutron's words.
fn refused(error: Error) -> Error {
    match error.kind {
        ErrorKind::Forbidden => error.code("PolicyNotAuthorized"),
        _ => error,
    }
}

/// Asks a rule by name, and whether the thing is to be seen at all: who may not see it is told that it is not there.
fn can_change(request: &Request, noun: Noun, id: &str, show_rule: &str, target: &Json) -> Result<()> {
    match can(request, target) {
        Err(_) if !request.may(show_rule, target) => Err(crate::listing::not_found(noun, id)),
        other => other,
    }
}

/// Of an own project's things, or all of them for an administrator.
fn own(cx: &Context) -> Option<Filter> {
    (!cx.is_admin()).then(|| Filter::eq("project_id", &*cx.project_id))
}

/// The filter `shared` of things that can be shared.
fn shared_special<T: Shareable>(cx: &Context) -> impl Fn(&str, &[&str]) -> Result<Option<Filter>> + use<T> {
    let cx = cx.clone();
    move |name, values| match (name, values.first()) {
        ("shared", Some(flag)) => {
            let shared = attributes::boolean(&json!(flag))?;
            Ok(Some(rbac::shared_filter::<T>(&cx, shared)))
        }
        _ => Ok(None),
    }
}

/// What all views have: whose it is, its revision, times and tags.
fn standard(view: &mut Json, of: &impl Standard) {
    let (project_id, revision, created, updated) = of.standard();
    view["project_id"] = json!(project_id);
    view["tenant_id"] = json!(project_id);
    view["revision_number"] = json!(revision);
    view["created_at"] = json!(created.seconds());
    view["updated_at"] = json!(updated.seconds());
}

/// What rules are asked about a project's thing.
fn target(project_id: &str) -> Json {
    json!({"project_id": project_id, "tenant_id": project_id})
}

/// The same of a thing that can be shared.
fn shared_target(project_id: &str, shared: bool) -> Json {
    json!({"project_id": project_id, "tenant_id": project_id, "shared": shared})
}

/// The zones of a network's servers or of a router: each must be one where an agent is.
fn zone_hints(
    tx: &mut Tx,
    neutron: &crate::Options,
    now: Timestamp,
    given: &Given,
    resource: &str,
) -> Result<Vec<String>> {
    let hints = attributes::texts(given, "availability_zone_hints");
    if hints.is_empty() {
        return Ok(hints);
    }
    let zones = Layout::load(tx, neutron, now)?.zones();
    match hints.iter().find(|hint| !zones.iter().any(|((of, name), _)| *of == resource && name == *hint)) {
        None => Ok(hints),
        Some(zone) => {
            let text = format!("AvailabilityZone {zone} could not be found.");
            Err(crate::errors::missing("AvailabilityZoneNotFound", text))
        }
    }
}

/// What rules are asked about a network.
fn network_target(network: &Network) -> Json {
    json!({
        "project_id": network.project_id, "tenant_id": network.project_id, "shared": network.shared,
        "router:external": network.external, "network:project_id": network.project_id,
    })
}

/// The same about a thing that is on a network.
fn on_network(project_id: &str, network: &Network) -> Json {
    json!({
        "project_id": project_id, "tenant_id": project_id, "network:project_id": network.project_id,
        "shared": network.shared, "router:external": network.external,
    })
}

/// The network that a thing is on, with `shared` as the caller sees it.
fn network_of(tx: &mut Tx, cx: &Context, id: &str) -> Result<Network> {
    let mut found = [load::<Network>(tx, store::NETWORK, id)?];
    rbac::seen_by(tx, cx, &mut found)?;
    let [network] = found;
    Ok(network)
}

fn load<T: Resource>(tx: &mut Tx, noun: Noun, id: &str) -> Result<T> {
    store::get::<T>(tx, noun, id)
}

/// `If-Match: revision_number=3`: the change is for that revision alone.
fn check_revision(request: &Request, revision: i64) -> Result<()> {
    let Some(text) = request.header("if-match") else { return Ok(()) };
    let wanted =
        text.trim().trim_matches('"').strip_prefix("revision_number=").and_then(|n| n.parse::<i64>().ok());
    match wanted {
        Some(wanted) if wanted == revision => Ok(()),
        Some(wanted) => Err(Error::precondition_failed(format!(
            "Constrained to {wanted}, but current revision is {revision}"
        ))
        .code("RevisionNumberConstraintFailed")),
        None => Err(not_allowed("rule:if_match")),
    }
}
