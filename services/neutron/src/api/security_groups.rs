//! Security groups and their rules.

use super::{can, can_change, load, own, standard};
use crate::{
    Neutron,
    attributes::{self, Attribute, Given, Kind, both, flag_or, post, python, shown, text, text_or},
    desired::{PROTOCOLS, protocol_number},
    errors::{conflict, named_bad},
    listing::{Wanted, chosen},
    model::*,
    quota,
    store::{self, RULE, SECURITY_GROUP},
};
use base::{Json, Result, Timestamp, id};
use db::{Filter, Tx};
use ipnet::IpNet;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
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
    json!({"project_id": project_id, "tenant_id": project_id})
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
                if name == store::DEFAULT {
                    return Err(conflict(
                        "SecurityGroupDefaultAlreadyExists",
                        "Default security group already exists.",
                    ));
                }
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

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id))?;
    let mut wanted =
        Wanted::parse::<SecurityGroup>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    wanted.list.filters.extend(own(&request.ctx));
    let (project_id, clock) = (request.ctx.project_id.clone(), neutron.clock.clone());
    let (wanted, found) = neutron
        .write(move |tx, _| {
            if !project_id.is_empty() {
                store::default_group(tx, &project_id, clock.now())?;
            }
            let groups = wanted.find::<SecurityGroup>(tx, SECURITY_GROUP)?;
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
    let id = request.param("security_group_id").to_string();
    let found = neutron
        .read(move |tx| {
            let group = load::<SecurityGroup>(tx, SECURITY_GROUP, &id)?;
            Ok(with_rules(tx, vec![group])?.remove(0))
        })
        .await?;
    match request.may("get_security_group", &target(&found.0.project_id)) {
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
                group.name = name;
            }
            if let Some(description) = text(&given, "description") {
                group.description = description;
            }
            group.stateful = flag_or(&given, "stateful", group.stateful);
            if !given.is_empty() {
                group.revision_number += 1;
                group.updated_at = clock.now();
                tx.update(&group)?;
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
            let mut view = rule_view(rule);
            view["tags"] = json!([]);
            view
        })
        .collect();
    let mut view = json!({
        "id": group.id, "name": group.name, "description": group.description, "stateful": group.stateful,
        "shared": group.shared, "security_group_rules": rules, "tags": group.tags,
    });
    standard(&mut view, &group.project_id, group.revision_number, group.created_at, group.updated_at);
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
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    let made = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let mut made = Vec::new();
            for (given, facts) in &wanted {
                let project_id = text_or(given, "project_id", "");
                quota::take(tx, &options, &project_id, "security_group_rule")?;
                let rule = insert_rule(tx, given, facts, project_id, now)?;
                touched.security_groups.insert(rule.security_group_id.clone());
                touched.security_groups.extend(rule.remote_group_id.clone());
                made.push(rule);
            }
            Ok(made)
        })
        .await?;
    let views: Vec<Json> = made.iter().map(rule_view).collect();
    Ok(match many {
        true => Reply::created(json!({"security_group_rules": views})),
        false => Reply::created(json!({"security_group_rule": views[0]})),
    })
}

/// What a rule says, checked.
struct Facts {
    ethertype: String,
    protocol: Option<String>,
    port_min: Option<i64>,
    port_max: Option<i64>,
    prefix: Option<String>,
}

impl Facts {
    fn of(given: &Given) -> Result<Self> {
        let ethertype = match given.get("ethertype") {
            None | Some(Json::Null) => "IPv4".to_string(),
            Some(value) => match python(value).as_str() {
                word if word.eq_ignore_ascii_case("ipv4") => "IPv4".into(),
                word if word.eq_ignore_ascii_case("ipv6") => "IPv6".into(),
                other => {
                    return Err(named_bad(
                        "SecurityGroupRuleInvalidEtherType",
                        format!(
                            "Security group rule for ethertype '{other}' not supported. Allowed values are ['IPv4', 'IPv6']."
                        ),
                    ));
                }
            },
        };
        let protocol = protocol(given.get("protocol"))?;
        let (port_min, port_max) = (number(given, "port_range_min")?, number(given, "port_range_max")?);
        check_ports(protocol.as_deref(), &ethertype, port_min, port_max)?;
        let prefix = prefix(given, &ethertype)?;
        let remotes = [&prefix, &text(given, "remote_group_id"), &text(given, "remote_address_group_id")];
        if remotes.iter().filter(|remote| remote.is_some()).count() > 1 {
            return Err(named_bad(
                "SecurityGroupMultipleRemoteEntites",
                "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.",
            ));
        }
        Ok(Self { ethertype, protocol, port_min, port_max, prefix })
    }
}

fn protocol(given: Option<&Json>) -> Result<Option<String>> {
    let name = match given {
        None | Some(Json::Null) => return Ok(None),
        Some(value) => python(value).to_lowercase(),
    };
    if name == "any" || name == "0" {
        return Ok(Some(name));
    }
    let known = PROTOCOLS.iter().any(|(known, _)| *known == name) || name == "vrrp";
    if known || name.parse::<u8>().is_ok() {
        return Ok(Some(name));
    }
    let mut names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    names.push("vrrp");
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    Err(named_bad(
        "SecurityGroupRuleInvalidProtocol",
        format!(
            "Security group rule protocol {name} not supported. Only protocol values (None, 'any', {}) and integer \
             representations [0 to 255] are supported.",
            names.join(", ")
        ),
    ))
}

fn number(given: &Given, name: &str) -> Result<Option<i64>> {
    match given.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            let invalid = || {
                named_bad(
                    "SecurityGroupInvalidPortValue",
                    format!("Invalid value for port {}", python(value)),
                )
            };
            number.map(Some).ok_or_else(invalid)
        }
    }
}

fn check_ports(protocol: Option<&str>, ethertype: &str, min: Option<i64>, max: Option<i64>) -> Result<()> {
    if min.is_none() && max.is_none() {
        return Ok(());
    }
    let Some(protocol) = protocol else {
        return Err(named_bad(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.",
        ));
    };
    match protocol_number(protocol, ethertype == "IPv6") {
        Some(6 | 17 | 33 | 132 | 136) => {
            for port in [min, max].into_iter().flatten() {
                if !(1..=65_535).contains(&port) {
                    return Err(named_bad(
                        "SecurityGroupInvalidPortValue",
                        format!("Invalid value for port {port}"),
                    ));
                }
            }
            match (min, max) {
                (Some(min), Some(max)) if min <= max => Ok(()),
                _ => Err(named_bad(
                    "SecurityGroupInvalidPortRange",
                    "For TCP/UDP protocols, port_range_min must be <= port_range_max",
                )),
            }
        }
        Some(1 | 58) => {
            for (value, field) in [(min, "type (port_range_min)"), (max, "code (port_range_max)")] {
                if let Some(value) = value.filter(|value| !(0..=255).contains(value)) {
                    return Err(named_bad(
                        "SecurityGroupInvalidIcmpValue",
                        format!("Invalid value for ICMP {field} {value}. It must be 0 to 255."),
                    ));
                }
            }
            match (min, max) {
                (None, Some(max)) => Err(named_bad(
                    "SecurityGroupMissingIcmpType",
                    format!(
                        "ICMP code (port-range-max) {max} is provided but ICMP type (port-range-min) is missing."
                    ),
                )),
                _ => Ok(()),
            }
        }
        _ => Err(named_bad(
            "SecurityGroupInvalidProtocolForPort",
            format!(
                "Invalid protocol {protocol} for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP."
            ),
        )),
    }
}

fn prefix(given: &Given, ethertype: &str) -> Result<Option<String>> {
    let Some(text) = text(given, "remote_ip_prefix") else { return Ok(None) };
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(net) = parsed else {
        return Err(named_bad("InvalidCIDR", format!("Invalid CIDR {text} given as IP prefix.")));
    };
    if net.network().is_ipv4() != (ethertype == "IPv4") {
        return Err(named_bad(
            "SecurityGroupRuleParameterConflict",
            format!("Conflicting value ethertype {ethertype} for CIDR {text}"),
        ));
    }
    Ok(Some(if text.contains('/') { text } else { net.to_string() }))
}

fn insert_rule(
    tx: &mut Tx,
    given: &Given,
    facts: &Facts,
    project_id: String,
    now: Timestamp,
) -> Result<SecurityGroupRule> {
    let group = load::<SecurityGroup>(tx, SECURITY_GROUP, &text_or(given, "security_group_id", ""))?;
    let remote_group_id = text(given, "remote_group_id");
    if let Some(remote) = &remote_group_id {
        load::<SecurityGroup>(tx, SECURITY_GROUP, remote)?;
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
            Ok((wanted.clone(), found))
        })
        .await?;
    Ok(wanted.reply(&request, "security_group_rules", found.iter().map(rule_view).collect()))
}

async fn rule(neutron: &Neutron, request: &Request) -> Result<SecurityGroupRule> {
    let id = request.param("rule_id").to_string();
    let rule = neutron.read(move |tx| load::<SecurityGroupRule>(tx, RULE, &id)).await?;
    match request.may("get_security_group_rule", &target(&rule.project_id)) {
        true => Ok(rule),
        false => Err(base::Error::not_found("The resource could not be found.")),
    }
}

async fn show_rule(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = rule(&neutron, &request).await?;
    Ok(Reply::ok(json!({"security_group_rule": chosen(&request, rule_view(&rule))})))
}

async fn remove_rule(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = rule(&neutron, &request).await?;
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

fn rule_view(rule: &SecurityGroupRule) -> Json {
    let normal = rule.remote_ip_prefix.as_deref().and_then(|text| text.parse::<IpNet>().ok());
    let mut view = json!({
        "id": rule.id, "security_group_id": rule.security_group_id, "direction": rule.direction,
        "ethertype": rule.ethertype, "protocol": rule.protocol, "port_range_min": rule.port_range_min,
        "port_range_max": rule.port_range_max, "remote_ip_prefix": rule.remote_ip_prefix,
        "remote_group_id": rule.remote_group_id, "remote_address_group_id": null, "description": rule.description,
        "normalized_cidr": normal.map(|net| net.trunc().to_string()), "belongs_to_default_sg": false,
    });
    standard(&mut view, &rule.project_id, rule.revision_number, rule.created_at, rule.updated_at);
    view
}
