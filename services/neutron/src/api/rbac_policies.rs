//! RBAC policies: who may use a network, a group, a pool or an address scope of somebody else.

use super::{can, can_change, own};
use crate::{
    Neutron,
    attributes::{self, Attribute, Given, Kind, both, post, shown, text_or},
    errors::{conflict, invalid, named_bad, not_allowed},
    listing::{Wanted, chosen, not_found},
    model::*,
    quota,
    rbac::{self, EVERYBODY, KINDS, Shareable},
    store::{self, Noun},
};
use base::{Context, Json, Result, id};
use db::{Filter, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/rbac-policies", "get_rbac_policy", list),
        post_route("/v2.0/rbac-policies", "create_rbac_policy", create),
        get("/v2.0/rbac-policies/{rbac_policy_id}", "get_rbac_policy", show),
        put("/v2.0/rbac-policies/{rbac_policy_id}", "update_rbac_policy", update),
        delete("/v2.0/rbac-policies/{rbac_policy_id}", "delete_rbac_policy", remove),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    post("object_type", Kind::Any).required(),
    post("object_id", Kind::Uuid).required(),
    both("target_tenant", Kind::Any).required(),
    post("action", Kind::Any).required(),
];

const UNKNOWN: Noun = ("RbacPolicyNotFound", "RBAC policy of type unknown with ID {} not found");

fn target(project_id: &str, target_tenant: &str) -> Json {
    json!({
        "project_id": project_id, "tenant_id": project_id, "target_tenant": target_tenant,
        "target_project": target_tenant,
    })
}

/// The project, or everybody, that a body names.
fn target_tenant(given: &Given) -> Result<Option<String>> {
    let Some(value) = given.get("target_tenant") else { return Ok(None) };
    match value.as_str().filter(|text| *text == EVERYBODY || id::is_uuid(text)) {
        Some(text) => Ok(Some(text.into())),
        None => Err(invalid(format!(
            "'{}' is not a valid target project ID; expected a UUID or '*'",
            attributes::python(value)
        ))),
    }
}

fn kind_of(given: &Given) -> Result<(&'static str, &'static [&'static str])> {
    let name = given.get("object_type").map(attributes::python).unwrap_or_default();
    let normal = name.trim().to_lowercase();
    let known = KINDS.iter().find(|(kind, _)| *kind == normal);
    known.copied().ok_or_else(|| invalid(format!("'{name}' is not a valid RBAC object type")))
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let mut given = attributes::one(request.json(), "rbac_policy")?;
    // Its newer name.
    if let Some(target) = given.remove("target_project") {
        given.insert("target_tenant".into(), target);
    }
    let given = attributes::created(&request, ATTRIBUTES, given)?;
    let (kind, actions) = kind_of(&given)?;
    let target_tenant = target_tenant(&given)?.unwrap_or_default();
    let target = target(&text_or(&given, "project_id", ""), &target_tenant);
    let allowed = can(&request, &target).is_ok();
    if !allowed || !request.may("create_rbac_policy:target_tenant", &target) {
        return Err(not_allowed(
            "((((rule:create_rbac_policy and rule:create_rbac_policy:object_type) and \
             rule:create_rbac_policy:object_id) and rule:create_rbac_policy:target_tenant) and \
             rule:create_rbac_policy:action)",
        ));
    }
    let action = attributes::python(&given["action"]);
    if !actions.contains(&action.as_str()) {
        let valid = match actions {
            [one] => format!("('{one}',)"),
            many => format!("('{}')", many.join("', '")),
        };
        return Err(named_bad(
            "InvalidActionForType",
            format!("Invalid action '{action}' for object type '{kind}'. Valid actions: {valid}"),
        ));
    }
    let policy = RbacPolicy {
        id: id::uuid(),
        project_id: text_or(&given, "project_id", ""),
        object_type: kind.into(),
        object_id: text_or(&given, "object_id", ""),
        action,
        target_tenant,
    };
    let (options, cx) = (neutron.options.clone(), request.ctx.clone());
    let policy = neutron
        .write(move |tx, touched| {
            check_owner(tx, &cx, &policy)?;
            quota::take(tx, &options, &policy.project_id, "rbac_policy")?;
            check_new(tx, &policy)?;
            tx.insert(&policy)?;
            rbac::bring_flags(tx, &policy)?;
            if kind == "network" {
                touched.networks.insert(policy.object_id.clone());
            }
            Ok(policy.clone())
        })
        .await?;
    Ok(Reply::created(json!({"rbac_policy": view(&policy)})))
}

fn check_new(tx: &mut Tx, policy: &RbacPolicy) -> Result<()> {
    let same = [
        Filter::eq("object_id", &*policy.object_id),
        Filter::eq("object_type", &*policy.object_type),
        Filter::eq("action", &*policy.action),
        Filter::eq("target_tenant", &*policy.target_tenant),
        Filter::new("id", db::Op::Ne, &*policy.id),
    ];
    match tx.count::<RbacPolicy>(&same)? {
        0 => Ok(()),
        _ => {
            let sentence = "An RBAC policy already exists with those values.";
            Err(conflict("DuplicateRbacPolicy", sentence))
        }
    }
}

/// Only who owns the thing, or an administrator, says who sees it.
fn check_owner(tx: &mut Tx, cx: &Context, policy: &RbacPolicy) -> Result<()> {
    let id = &policy.object_id;
    match policy.object_type.as_str() {
        "network" => owned(cx, rbac::load::<Network>(tx, cx, id)?),
        "security_group" => owned(cx, rbac::load::<SecurityGroup>(tx, cx, id)?),
        "subnetpool" => owned(cx, rbac::load::<SubnetPool>(tx, cx, id)?),
        "address_group" => owned(cx, rbac::load::<AddressGroup>(tx, cx, id)?),
        "qos_policy" => owned(cx, rbac::load::<QosPolicy>(tx, cx, id)?),
        _ => owned(cx, rbac::load::<AddressScope>(tx, cx, id)?),
    }
}

fn owned<T: Shareable>(cx: &Context, thing: T) -> Result<()> {
    match cx.is_admin() || thing.project_id() == cx.project_id {
        true => Ok(()),
        false => Err(invalid("Only admins can manipulate policies on objects they do not own")),
    }
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id, ""))?;
    let mut wanted =
        Wanted::parse::<RbacPolicy>(&request, neutron.options.pagination_max_limit, |name, values| {
            let by_target = || Filter::any("target_tenant", values.iter().copied());
            Ok((name == "target_project").then(by_target))
        })?;
    wanted.list.filters.extend(own(&request.ctx));
    let (wanted, found) = neutron
        .read(move |tx| {
            let found = wanted.find::<RbacPolicy>(tx, UNKNOWN)?;
            Ok((wanted.clone(), found))
        })
        .await?;
    Ok(wanted.reply(&request, "rbac_policies", found.iter().map(view).collect()))
}

fn unseen(policy: &RbacPolicy) -> base::Error {
    let text = format!("RBAC policy of type {} with ID {} not found", policy.object_type, policy.id);
    crate::errors::missing(UNKNOWN.0, text)
}

async fn one(neutron: &Neutron, request: &Request) -> Result<RbacPolicy> {
    let id = request.param("rbac_policy_id").to_string();
    let policy = neutron.read(move |tx| store::get::<RbacPolicy>(tx, UNKNOWN, &id)).await?;
    match request.may("get_rbac_policy", &target(&policy.project_id, &policy.target_tenant)) {
        true => Ok(policy),
        false => Err(unseen(&policy)),
    }
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let policy = one(&neutron, &request).await?;
    Ok(Reply::ok(json!({"rbac_policy": chosen(&request, view(&policy))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let policy = one(&neutron, &request).await?;
    let mut given = attributes::one(request.json(), "rbac_policy")?;
    if let Some(target) = given.remove("target_project") {
        given.insert("target_tenant".into(), target);
    }
    let given = attributes::updated(ATTRIBUTES, given)?;
    let new = target_tenant(&given)?.unwrap_or_else(|| policy.target_tenant.clone());
    let wanted = target(&policy.project_id, &new);
    can_change(&request, UNKNOWN, &policy.id, "get_rbac_policy", &wanted)?;
    if !request.may("update_rbac_policy:target_tenant", &wanted) {
        return Err(not_allowed("(rule:update_rbac_policy and rule:update_rbac_policy:target_tenant)"));
    }
    let policy = neutron
        .write(move |tx, touched| {
            let mut policy = store::get::<RbacPolicy>(tx, UNKNOWN, &policy.id)?;
            if policy.target_tenant != new {
                rbac::check_unused(tx, &policy)?;
                policy.target_tenant.clone_from(&new);
                check_new(tx, &policy)?;
                tx.update(&policy)?;
                rbac::bring_flags(tx, &policy)?;
                if policy.object_type == Network::KIND {
                    touched.networks.insert(policy.object_id.clone());
                }
            }
            Ok(policy)
        })
        .await?;
    Ok(Reply::ok(json!({"rbac_policy": chosen(&request, view(&policy))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let policy = one(&neutron, &request).await?;
    can(&request, &target(&policy.project_id, &policy.target_tenant))?;
    neutron
        .write(move |tx, touched| {
            let Some(policy) = tx.find::<RbacPolicy>(&policy.id)? else {
                return Err(not_found(UNKNOWN, &policy.id));
            };
            rbac::check_unused(tx, &policy)?;
            tx.remove::<RbacPolicy>(&policy.id)?;
            rbac::bring_flags(tx, &policy)?;
            if policy.object_type == Network::KIND {
                touched.networks.insert(policy.object_id.clone());
            }
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

fn view(policy: &RbacPolicy) -> Json {
    json!({
        "id": policy.id, "project_id": policy.project_id, "tenant_id": policy.project_id,
        "object_type": policy.object_type, "object_id": policy.object_id, "action": policy.action,
        "target_tenant": policy.target_tenant,
    })
}
