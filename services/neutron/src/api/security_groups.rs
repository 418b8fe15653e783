//! Security groups and their rules.

use super::{can, can_change, load, own, standard};
use crate::{
    Neutron,
    attributes::{self, Attribute, Given, Kind, both, flag_or, post, shown, text, text_or},
    errors::conflict,
    listing::{Wanted, chosen},
    model::*,
    quota, rbac,
    sg_rules::Facts,
    store::{self, RULE, SECURITY_GROUP},
};
use base::{Context, Json, Result, Timestamp, id};
use db::{Filter, Tx};
use ipnet::IpNet;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/security-groups", "get_security_group", list),
        post_route("/v2.0/security-groups", "create_security_group", create),
        get("/v2.0/security-groups/{security_group_id}", "get_security_group", show),
        put("/v2.0/security-groups/{security_group_id}", "update_security_group", update),
        delete("/v2.0/security-groups/{security_group_id}", "delete_security_group", remove),
        get("/v2.0/security-group-rules", "get_security_group_rule", list_rules),
        post_route("/v2.0/security-group-rules", "create_security_group_rule", create_rules),
        get("/v2.0/security-group-rules/{rule_id}", "get_security_group_rule", show_rule),
        delete("/v2.0/security-group-rules/{rule_id}", "delete_security_group_rule", remove_rule),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    both("stateful", Kind::Bool),
    shown("shared"),
    shown("security_group_rules"),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    shown("tags"),
];

const RULE_ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    post("security_group_id", Kind::Uuid).required(),
    post("direction", Kind::OneOf(&["ingress", "egress"])).required(),
    post("ethertype", Kind::Any),
    post("protocol", Kind::Any),
    post("port_range_min", Kind::Any),
    post("port_range_max", Kind::Any),
    post("remote_ip_prefix", Kind::TextOrNull(255)),
    post("remote_group_id", Kind::TextOrNull(255)),
    post("remote_address_group_id", Kind::TextOrNull(255)),
    post("description", Kind::TextOrNull(255)),
    shown("normalized_cidr"),
    shown("belongs_to_default_sg"),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
];

fn target(project_id: &str) -> Json {
    json!({
        "project_id": project_id, "tenant_id": project_id, "security_group:project_id": project_id,
    })
}

fn group_target(group: &SecurityGroup) -> Json {
    let mut target = target(&group.project_id);
    target["shared"] = json!(group.shared);
    target
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (bodies, many) = attributes::bodies(&request, "security_group", "security_groups")?;
    let mut wanted = Vec::new();
    for given in bodies {
        let given = attributes::created(&request, ATTRIBUTES, given)?;
        can(&request, &target(given["project_id"].as_str().unwrap_or_default()))?;
        wanted.push(given);
    }
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    let made = neutron
        .write(move |tx, _| {
            let now = clock.now();
            let mut made = Vec::new();
            for given in &wanted {
                let project_id = text_or(given, "project_id", "");
                store::default_group(tx, &project_id, now)?;
                let name = text_or(given, "name", "");
                check_name(&name)?;
                quota::take(tx, &options, &project_id, "security_group")?;
                let group = SecurityGroup {
                    id: id::uuid(),
                    project_id,
                    name,
                    description: text_or(given, "description", ""),
                    stateful: flag_or(given, "stateful", true),
                    shared: false,
                    tags: Vec::new(),
                    revision_number: 1,
                    created_at: now,
                    updated_at: now,
                };
                tx.insert(&group)?;
                store::first_rules(tx, &group, now)?;
                let rules = store::all_of::<SecurityGroupRule>(tx, "security_group_id", &group.id)?;
                made.push((group, rules));
            }
            Ok(made)
        })
        .await?;
    let views: Vec<Json> = made.iter().map(|(group, rules)| view(group, rules)).collect();
    Ok(match many {
        true => Reply::created(json!({"security_groups": views})),
        false => Reply::created(json!({"security_group": views[0]})),
    })
}

/// Every project has one default group, made for it.
fn check_name(name: &str) -> Result<()> {
    match name == store::DEFAULT {
        false => Ok(()),
        true => Err(conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists.")),
    }
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id))?;
    let cx = request.ctx.clone();
    let mut wanted = Wanted::parse::<SecurityGroup>(
        &request,
        neutron.options.pagination_max_limit,
        super::shared_special::<SecurityGroup>(&cx),
    )?;
    wanted.list.filters.extend(rbac::visible::<SecurityGroup>(&cx));
    let (project_id, clock) = (request.ctx.project_id.clone(), neutron.clock.clone());
    let (wanted, found) = neutron
        .write(move |tx, _| {
            if !project_id.is_empty() {
                store::default_group(tx, &project_id, clock.now())?;
            }
            let mut groups = wanted.find::<SecurityGroup>(tx, SECURITY_GROUP)?;
            rbac::seen_by(tx, &cx, &mut groups)?;
            Ok((wanted.clone(), with_rules(tx, groups)?))
        })
        .await?;
    let views = found.iter().map(|(group, rules)| view(group, rules)).collect();
    Ok(wanted.reply(&request, "security_groups", views))
}

fn with_rules(
    tx: &mut Tx,
    groups: Vec<SecurityGroup>,
) -> Result<Vec<(SecurityGroup, Vec<SecurityGroupRule>)>> {
    let ids: BTreeSet<String> = groups.iter().map(|group| group.id.clone()).collect();
    let mut rules: HashMap<String, Vec<SecurityGroupRule>> = HashMap::new();
    for rule in store::any_of::<SecurityGroupRule>(tx, "security_group_id", &ids)? {
        rules.entry(rule.security_group_id.clone()).or_default().push(rule);
    }
    Ok(groups
        .into_iter()
        .map(|group| {
            let own = rules.remove(&group.id).unwrap_or_default();
            (group, own)
        })
        .collect())
}

async fn one(neutron: &Neutron, request: &Request) -> Result<(SecurityGroup, Vec<SecurityGroupRule>)> {
    let (id, cx) = (request.param("security_group_id").to_string(), request.ctx.clone());
    let found = neutron
        .read(move |tx| {
            let group = rbac::load::<SecurityGroup>(tx, &cx, &id)?;
            Ok(with_rules(tx, vec![group])?.remove(0))
        })
        .await?;
    match request.may("get_security_group", &group_target(&found.0)) {
        true => Ok(found),
        false => Err(crate::listing::not_found(SECURITY_GROUP, &found.0.id)),
    }
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (group, rules) = one(&neutron, &request).await?;
    Ok(Reply::ok(json!({"security_group": chosen(&request, view(&group, &rules))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (group, rules) = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "security_group")?)?;
    can_change(&request, SECURITY_GROUP, &group.id, "get_security_group", &target(&group.project_id))?;
    let (id, clock) = (group.id, neutron.clock.clone());
    let group = neutron
        .write(move |tx, touched| {
            let mut group = load::<SecurityGroup>(tx, SECURITY_GROUP, &id)?;
            if group.name == store::DEFAULT && given.contains_key("name") {
                return Err(conflict(
                    "SecurityGroupCannotUpdateDefault",
                    "Updating default security group not allowed.",
                ));
            }
            if let Some(name) = text(&given, "name") {
                check_name(&name)?;
                group.name = name;
            }
            if let Some(description) = text(&given, "description") {
                group.description = description;
            }
            let stateful = flag_or(&given, "stateful", group.stateful);
            if stateful != group.stateful
                && tx.count::<PortGroup>(&[Filter::eq("security_group_id", &*id)])? > 0
            {
                return Err(conflict("SecurityGroupInUse", format!("Security Group {id} in use.")));
            }
            group.stateful = stateful;
            if !given.is_empty() {
                group.change(tx, clock.now())?;
                touched.security_groups.insert(id.clone());
            }
            Ok(group)
        })
        .await?;
    Ok(Reply::ok(json!({"security_group": chosen(&request, view(&group, &rules))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (group, _) = one(&neutron, &request).await?;
    can_change(&request, SECURITY_GROUP, &group.id, "get_security_group", &target(&group.project_id))?;
    let (id, admin) = (group.id, request.ctx.is_admin());
    neutron
        .write(move |tx, touched| {
            let group = load::<SecurityGroup>(tx, SECURITY_GROUP, &id)?;
            if group.name == store::DEFAULT && !admin {
                return Err(conflict(
                    "SecurityGroupCannotRemoveDefault",
                    "Insufficient rights for removing default security group.",
                ));
            }
            let used = tx.count::<PortGroup>(&[Filter::eq("security_group_id", &*id)])?;
            if used > 0 {
                return Err(conflict("SecurityGroupInUse", format!("Security Group {id} in use.")));
            }
            tx.execute(
                db::sql!("DELETE FROM security_group_rules WHERE security_group_id = $1"),
                db::params![id],
            )?;
            for mut other in store::all_of::<SecurityGroupRule>(tx, "remote_group_id", &id)? {
                touched.security_groups.insert(std::mem::take(&mut other.security_group_id));
                tx.remove::<SecurityGroupRule>(&other.id)?;
            }
            rbac::forget(tx, "security_group", &id)?;
            tx.remove::<SecurityGroup>(&id)?;
            touched.security_groups.insert(id.clone());
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

fn view(group: &SecurityGroup, rules: &[SecurityGroupRule]) -> Json {
    let rules: Vec<Json> = rules
        .iter()
        .map(|rule| {
            let mut view = rule_view(rule, false);
            view["tags"] = json!([]);
            // Within its group a rule of the default one says nothing of it.
            if group.name == store::DEFAULT {
                view["belongs_to_default_sg"] = Json::Null;
            }
            view
        })
        .collect();
    let mut view = json!({
        "id": group.id, "name": group.name, "description": group.description, "stateful": group.stateful,
        "shared": group.shared, "security_group_rules": rules, "tags": group.tags,
    });
    standard(&mut view, group);
    view
}

async fn create_rules(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (bodies, many) = attributes::bodies(&request, "security_group_rule", "security_group_rules")?;
    let mut wanted = Vec::new();
    for given in bodies {
        let given = attributes::created(&request, RULE_ATTRIBUTES, given)?;
        let facts = Facts::of(&given)?;
        let id = text_or(&given, "security_group_id", "");
        let group = neutron.read(move |tx| load::<SecurityGroup>(tx, SECURITY_GROUP, &id)).await?;
        can(&request, &target(&group.project_id))?;
        wanted.push((given, facts));
    }
    let (options, clock, cx) = (neutron.options.clone(), neutron.clock.clone(), request.ctx.clone());
    let made = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let mut made = Vec::new();
            for (given, facts) in &wanted {
                let project_id = text_or(given, "project_id", "");
                quota::take(tx, &options, &project_id, "security_group_rule")?;
                let rule = insert_rule(tx, &cx, given, facts, project_id, now)?;
                touched.security_groups.insert(rule.security_group_id.clone());
                touched.security_groups.extend(rule.remote_group_id.clone());
                made.push(rule);
            }
            marked(tx, made)
        })
        .await?;
    let views: Vec<Json> = made.iter().map(|(rule, of_default)| rule_view(rule, *of_default)).collect();
    Ok(match many {
        true => Reply::created(json!({"security_group_rules": views})),
        false => Reply::created(json!({"security_group_rule": views[0]})),
    })
}

/// Rules, and whether each is one of a default group.
fn marked(tx: &mut Tx, rules: Vec<SecurityGroupRule>) -> Result<Vec<(SecurityGroupRule, bool)>> {
    let ids: BTreeSet<String> = rules.iter().map(|rule| rule.security_group_id.clone()).collect();
    let mut groups = store::any_of::<SecurityGroup>(tx, "id", &ids)?;
    groups.retain(|group| group.name == store::DEFAULT);
    let defaults: BTreeSet<String> = groups.into_iter().map(|group| group.id).collect();
    let mark = |rule: SecurityGroupRule| (defaults.contains(&rule.security_group_id), rule);
    Ok(rules.into_iter().map(mark).map(|(of_default, rule)| (rule, of_default)).collect())
}

fn insert_rule(
    tx: &mut Tx,
    cx: &Context,
    given: &Given,
    facts: &Facts,
    project_id: String,
    now: Timestamp,
) -> Result<SecurityGroupRule> {
    let group = load::<SecurityGroup>(tx, SECURITY_GROUP, &text_or(given, "security_group_id", ""))?;
    let remote_group_id = text(given, "remote_group_id");
    if let Some(remote) = &remote_group_id {
        rbac::load::<SecurityGroup>(tx, cx, remote)?;
    }
    let remote_address_group_id = text(given, "remote_address_group_id");
    if let Some(remote) = &remote_address_group_id {
        rbac::load::<AddressGroup>(tx, cx, remote)?;
    }
    let rule = SecurityGroupRule {
        id: id::uuid(),
        project_id,
        security_group_id: group.id,
        direction: text_or(given, "direction", "ingress"),
        ethertype: facts.ethertype.clone(),
        protocol: facts.protocol.clone(),
        port_range_min: facts.port_min,
        port_range_max: facts.port_max,
        remote_ip_prefix: facts.prefix.clone(),
        remote_group_id,
        remote_address_group_id,
        description: Some(text_or(given, "description", "")),
        revision_number: 0,
        created_at: now,
        updated_at: now,
    };
    let same = |other: &SecurityGroupRule| {
        let facts = |rule: &SecurityGroupRule| {
            (
                rule.direction.clone(),
                rule.ethertype.clone(),
                rule.protocol.clone().filter(|protocol| protocol != "any"),
                (rule.port_range_min, rule.port_range_max),
                rule.remote_ip_prefix.clone(),
                rule.remote_group_id.clone(),
                rule.remote_address_group_id.clone(),
            )
        };
        facts(other) == facts(&rule)
    };
    let others = store::all_of::<SecurityGroupRule>(tx, "security_group_id", &rule.security_group_id)?;
    if let Some(other) = others.iter().find(|other| same(other)) {
        return Err(conflict(
            "SecurityGroupRuleExists",
            format!("Security group rule already exists. Rule id is {}.", other.id),
        ));
    }
    tx.insert(&rule)?;
    Ok(rule)
}

async fn list_rules(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id))?;
    let mut wanted =
        Wanted::parse::<SecurityGroupRule>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    wanted.list.filters.extend(own(&request.ctx));
    let (project_id, clock) = (request.ctx.project_id.clone(), neutron.clock.clone());
    let (wanted, found) = neutron
        .write(move |tx, _| {
            if !project_id.is_empty() {
                store::default_group(tx, &project_id, clock.now())?;
            }
            let found = wanted.find::<SecurityGroupRule>(tx, RULE)?;
            Ok((wanted.clone(), marked(tx, found)?))
        })
        .await?;
    let views = found.iter().map(|(rule, of_default)| rule_view(rule, *of_default)).collect();
    Ok(wanted.reply(&request, "security_group_rules", views))
}

async fn rule(neutron: &Neutron, request: &Request) -> Result<(SecurityGroupRule, bool)> {
    let id = request.param("rule_id").to_string();
    let (rule, of_default) = neutron
        .read(move |tx| {
            let rule = load::<SecurityGroupRule>(tx, RULE, &id)?;
            Ok(marked(tx, vec![rule])?.remove(0))
        })
        .await?;
    match request.may("get_security_group_rule", &target(&rule.project_id)) {
        true => Ok((rule, of_default)),
        false => Err(base::Error::not_found("The resource could not be found.")),
    }
}

async fn show_rule(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (rule, of_default) = rule(&neutron, &request).await?;
    Ok(Reply::ok(json!({"security_group_rule": chosen(&request, rule_view(&rule, of_default))})))
}

async fn remove_rule(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (rule, _) = rule(&neutron, &request).await?;
    can_change(&request, RULE, &rule.id, "get_security_group_rule", &target(&rule.project_id))?;
    neutron
        .write(move |tx, touched| {
            load::<SecurityGroupRule>(tx, RULE, &rule.id)?;
            touched.security_groups.insert(rule.security_group_id.clone());
            tx.remove::<SecurityGroupRule>(&rule.id)
        })
        .await?;
    Ok(Reply::no_content())
}

fn rule_view(rule: &SecurityGroupRule, of_default: bool) -> Json {
    let normal = rule.remote_ip_prefix.as_deref().and_then(|text| text.parse::<IpNet>().ok());
    let mut view = json!({
        "id": rule.id, "security_group_id": rule.security_group_id, "direction": rule.direction,
        "ethertype": rule.ethertype, "protocol": rule.protocol, "port_range_min": rule.port_range_min,
        "port_range_max": rule.port_range_max, "remote_ip_prefix": rule.remote_ip_prefix,
        "remote_group_id": rule.remote_group_id, "remote_address_group_id": rule.remote_address_group_id,
        "description": rule.description,
        "normalized_cidr": normal.map(|net| net.trunc().to_string()), "belongs_to_default_sg": of_default,
    });
    standard(&mut view, rule);
    view
}
