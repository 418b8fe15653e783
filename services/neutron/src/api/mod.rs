//! The route table of networking, and what its nouns share.

mod extensions;
mod floating_ips;
mod networks;
mod ports;
mod routers;
mod security_groups;
mod subnets;
mod versions;

use crate::{
    Neutron,
    errors::not_allowed,
    model::*,
    store::{self, Noun},
};
use base::{Context, Error, ErrorKind, Json, Result, Timestamp};
use db::{Filter, Resource, Tx};
use serde_json::json;
use web::{Request, Routes};

pub fn routes() -> Routes<Neutron> {
    let mut routes = versions::routes();
    for table in [
        extensions::routes(),
        networks::routes(),
        subnets::routes(),
        ports::routes(),
        security_groups::routes(),
        routers::routes(),
        floating_ips::routes(),
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

/// What all views have: whose it is, its revision, times and tags.
fn standard(view: &mut Json, project_id: &str, revision: i64, created: Timestamp, updated: Timestamp) {
    view["project_id"] = json!(project_id);
    view["tenant_id"] = json!(project_id);
    view["revision_number"] = json!(revision);
    view["created_at"] = json!(created.seconds());
    view["updated_at"] = json!(updated.seconds());
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
