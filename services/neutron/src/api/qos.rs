//! QoS policies, which networks and ports have. Their rules are beside this file.

use super::{can, can_change, qos_rules, shared_target, standard, target};
use crate::{
    Neutron,
    attributes::{self, Attribute, Given, Kind, both, flag_or, post, shown, text, text_or},
    errors::conflict,
    listing::{Wanted, chosen, not_found},
    model::*,
    rbac,
    store::{self, QOS_POLICY},
};
use base::{Json, Result, id};
use db::{List, Tx};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/qos/policies", "get_policy", list),
        post_route("/v2.0/qos/policies", "create_policy", create),
        get("/v2.0/qos/policies/{policy_id}", "get_policy", show),
        put("/v2.0/qos/policies/{policy_id}", "update_policy", update),
        delete("/v2.0/qos/policies/{policy_id}", "delete_policy", remove),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    both("shared", Kind::Bool),
    both("is_default", Kind::Bool),
    shown("rules"),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    post("tags", Kind::UniqueTexts(super::tags::TAG_CHARACTERS_MAX)),
];

/// A policy that a network or a port is given must be one that the caller may see.
pub async fn check(neutron: &Neutron, request: &Request, given: &Given) -> Result<()> {
    let Some(id) = text(given, "qos_policy_id") else { return Ok(()) };
    let cx = request.ctx.clone();
    neutron.read(move |tx| rbac::load::<QosPolicy>(tx, &cx, &id).map(drop)).await
}

/// What a project's networks begin with.
pub fn default_of(tx: &mut Tx, project_id: &str) -> Result<Option<String>> {
    let wanted = List::all().eq("project_id", project_id).eq("is_default", true);
    Ok(tx.list::<QosPolicy>(&wanted)?.pop().map(|policy| policy.id))
}

/// A project has one default policy.
fn check_default(tx: &mut Tx, policy: &QosPolicy) -> Result<()> {
    match default_of(tx, &policy.project_id)? {
        Some(other) if policy.is_default && other != policy.id => Err(conflict(
            "QoSPolicyDefaultAlreadyExists",
            format!("A default QoS policy exists for project {}.", policy.project_id),
        )),
        _ => Ok(()),
    }
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let given = attributes::created(&request, ATTRIBUTES, attributes::one(request.json(), "policy")?)?;
    can(&request, &target(&text_or(&given, "project_id", "")))?;
    let now = neutron.clock.now();
    let policy = neutron
        .write(move |tx, _| {
            let policy = QosPolicy {
                id: id::uuid(),
                project_id: text_or(&given, "project_id", ""),
                name: text_or(&given, "name", ""),
                description: text_or(&given, "description", ""),
                shared: flag_or(&given, "shared", false),
                is_default: flag_or(&given, "is_default", false),
                tags: attributes::texts(&given, "tags"),
                revision_number: 0,
                created_at: now,
                updated_at: now,
            };
            check_default(tx, &policy)?;
            tx.insert(&policy)?;
            rbac::set_for_all(tx, "qos_policy", &policy.id, &policy.project_id, rbac::SHARED, policy.shared)?;
            Ok(policy)
        })
        .await?;
    Ok(Reply::created(json!({"policy": view(&policy, &[])})))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id))?;
    let cx = request.ctx.clone();
    let shared = super::shared_special::<QosPolicy>(&cx);
    let mut wanted = Wanted::parse::<QosPolicy>(&request, neutron.options.pagination_max_limit, shared)?;
    wanted.list.filters.extend(rbac::visible::<QosPolicy>(&cx));
    let (wanted, found, mut rules) = neutron
        .read(move |tx| {
            let mut found = wanted.find::<QosPolicy>(tx, QOS_POLICY)?;
            rbac::seen_by(tx, &cx, &mut found)?;
            let ids: BTreeSet<String> = found.iter().map(|policy| policy.id.clone()).collect();
            let mut rules: HashMap<String, Vec<QosRule>> = HashMap::new();
            for rule in store::any_of::<QosRule>(tx, "qos_policy_id", &ids)? {
                rules.entry(rule.qos_policy_id.clone()).or_default().push(rule);
            }
            Ok((wanted.clone(), found, rules))
        })
        .await?;
    let views =
        found.iter().map(|policy| view(policy, &rules.remove(&policy.id).unwrap_or_default())).collect();
    Ok(wanted.reply(&request, "policies", views))
}

/// A policy that the caller may see, with its rules.
pub async fn one(neutron: &Neutron, request: &Request) -> Result<(QosPolicy, Vec<QosRule>)> {
    let (id, cx) = (request.param("policy_id").to_string(), request.ctx.clone());
    neutron
        .read(move |tx| {
            let policy = rbac::load::<QosPolicy>(tx, &cx, &id)?;
            Ok((policy, store::all_of::<QosRule>(tx, "qos_policy_id", &id)?))
        })
        .await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (policy, rules) = one(&neutron, &request).await?;
    can(&request, &shared_target(&policy.project_id, true)).map_err(|_| not_found(QOS_POLICY, &policy.id))?;
    Ok(Reply::ok(json!({"policy": chosen(&request, view(&policy, &rules))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (policy, rules) = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "policy")?)?;
    can_change(&request, QOS_POLICY, &policy.id, "get_policy", &shared_target(&policy.project_id, true))?;
    let clock = neutron.clock.clone();
    let policy = neutron
        .write(move |tx, _| {
            let mut policy = store::get::<QosPolicy>(tx, QOS_POLICY, &policy.id)?;
            policy.name = text_or(&given, "name", &policy.name);
            policy.description = text_or(&given, "description", &policy.description);
            policy.is_default = flag_or(&given, "is_default", policy.is_default);
            check_default(tx, &policy)?;
            if let Some(shared) = given.get("shared").and_then(Json::as_bool) {
                policy.shared = shared;
                rbac::set_for_all(tx, "qos_policy", &policy.id, &policy.project_id, rbac::SHARED, shared)?;
            }
            policy.change(tx, clock.now())?;
            Ok(policy)
        })
        .await?;
    Ok(Reply::ok(json!({"policy": chosen(&request, view(&policy, &rules))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (policy, _) = one(&neutron, &request).await?;
    can_change(&request, QOS_POLICY, &policy.id, "get_policy", &shared_target(&policy.project_id, true))?;
    neutron
        .write(move |tx, _| {
            let id = &policy.id;
            let network = store::all_of::<Network>(tx, "qos_policy_id", id)?.pop();
            let port = store::all_of::<Port>(tx, "qos_policy_id", id)?.pop();
            let user = network.map(|network| ("network", network.id)).or(port.map(|port| ("port", port.id)));
            if let Some((noun, user)) = user {
                let text = format!("QoS Policy {id} is used by {noun} {user}.");
                return Err(conflict("QosPolicyInUse", text));
            }
            tx.execute(db::sql!("DELETE FROM qos_rules WHERE qos_policy_id = $1"), db::params![id])?;
            rbac::forget(tx, "qos_policy", id)?;
            tx.remove::<QosPolicy>(id)
        })
        .await?;
    Ok(Reply::no_content())
}

fn view(policy: &QosPolicy, rules: &[QosRule]) -> Json {
    let rules: Vec<Json> = rules.iter().map(qos_rules::in_policy).collect();
    let mut view = json!({
        "id": policy.id, "name": policy.name, "description": policy.description, "shared": policy.shared,
        "is_default": policy.is_default, "rules": rules, "tags": policy.tags,
    });
    standard(&mut view, policy);
    view
}
