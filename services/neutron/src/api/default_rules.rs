//! Default security group rules: what every new group begins with.

use super::can;
use crate::{
    Neutron,
    attributes::{self, Attribute, Kind, flag_or, post, shown, text, text_or},
    listing::{Wanted, chosen, not_found},
    model::*,
    sg_rules::Facts,
    store::{self, DEFAULT_RULE},
};
use base::{Json, Result, id};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/default-security-group-rules", "get_default_security_group_rule", list),
        post_route("/v2.0/default-security-group-rules", "create_default_security_group_rule", create),
        get("/v2.0/default-security-group-rules/{rule_id}", "get_default_security_group_rule", show),
        put("/v2.0/default-security-group-rules/{rule_id}", "get_default_security_group_rule", not_changed),
        delete("/v2.0/default-security-group-rules/{rule_id}", "delete_default_security_group_rule", remove),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    post("direction", Kind::OneOf(&["ingress", "egress"])).required(),
    post("used_in_default_sg", Kind::Bool).required(),
    post("used_in_non_default_sg", Kind::Bool).required(),
    post("ethertype", Kind::Any),
    post("protocol", Kind::Any),
    post("port_range_min", Kind::Any),
    post("port_range_max", Kind::Any),
    post("remote_ip_prefix", Kind::TextOrNull(255)),
    post("remote_group_id", Kind::TextOrNull(255)),
    post("remote_address_group_id", Kind::TextOrNull(255)),
    post("description", Kind::TextOrNull(255)),
];

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let given = attributes::one(request.json(), "default_security_group_rule")?;
    let given = attributes::created(&request, ATTRIBUTES, given)?;
    can(&request, &json!({}))?;
    let facts = Facts::of(&given)?;
    // Every project's groups begin so, and no address group is every project's.
    if let Some(id) = text(&given, "remote_address_group_id") {
        return Err(not_found(store::ADDRESS_GROUP, &id));
    }
    let rule = DefaultRule {
        id: id::uuid(),
        direction: text_or(&given, "direction", "ingress"),
        ethertype: facts.ethertype,
        protocol: facts.protocol,
        port_range_min: facts.port_min,
        port_range_max: facts.port_max,
        remote_ip_prefix: facts.prefix,
        remote_group_id: text(&given, "remote_group_id"),
        description: Some(text_or(&given, "description", "")),
        used_in_default_sg: flag_or(&given, "used_in_default_sg", false),
        used_in_non_default_sg: flag_or(&given, "used_in_non_default_sg", true),
    };
    let rule = neutron
        .write(move |tx, _| {
            store::default_rules(tx)?;
            tx.insert(&rule)?;
            Ok(rule.clone())
        })
        .await?;
    Ok(Reply::created(json!({"default_security_group_rule": view(&rule)})))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let wanted =
        Wanted::parse::<DefaultRule>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    let (wanted, found) = neutron
        .write(move |tx, _| {
            store::default_rules(tx)?;
            let found = wanted.find::<DefaultRule>(tx, DEFAULT_RULE)?;
            Ok((wanted.clone(), found))
        })
        .await?;
    Ok(wanted.reply(&request, "default_security_group_rules", found.iter().map(view).collect()))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<DefaultRule> {
    can(request, &json!({}))?;
    let id = request.param("rule_id").to_string();
    neutron.read(move |tx| store::get::<DefaultRule>(tx, DEFAULT_RULE, &id)).await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = one(&neutron, &request).await?;
    Ok(Reply::ok(json!({"default_security_group_rule": chosen(&request, view(&rule))})))
}

/// Nothing of a rule can be changed; the error says which attribute cannot.
async fn not_changed(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = one(&neutron, &request).await?;
    attributes::updated(ATTRIBUTES, attributes::one(request.json(), "default_security_group_rule")?)?;
    Ok(Reply::ok(json!({"default_security_group_rule": view(&rule)})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = one(&neutron, &request).await?;
    neutron.write(move |tx, _| tx.remove::<DefaultRule>(&rule.id)).await?;
    Ok(Reply::no_content())
}

fn view(rule: &DefaultRule) -> Json {
    json!({
        "id": rule.id, "direction": rule.direction, "ethertype": rule.ethertype, "protocol": rule.protocol,
        "port_range_min": rule.port_range_min, "port_range_max": rule.port_range_max,
        "remote_ip_prefix": rule.remote_ip_prefix, "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": null, "description": rule.description,
        "used_in_default_sg": rule.used_in_default_sg, "used_in_non_default_sg": rule.used_in_non_default_sg,
    })
}
