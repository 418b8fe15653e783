//! Rules of QoS policies: how much ports may send and get, how much they are promised, how what they send is marked.
//! Whether a host has what is promised, placement says.

use super::{can, qos};
use crate::{
    Neutron,
    agents::Touched,
    attributes::{self, Attribute, Given, Kind, both, shown, text},
    errors::{conflict, missing},
    listing::{Wanted, chosen},
    model::*,
    qos_ports::{self, ANY, MINIMUM_BANDWIDTH, MINIMUM_PACKET_RATE, promises},
    rbac,
    store::{self, QOS_POLICY},
};
use base::{Error, Json, Result, id};
use db::{Filter, Tx};
use serde_json::json;
use std::{fmt::Display, sync::Arc};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

/// A kind of rule: its attributes, and where they are kept.
trait RuleKind: Send + 'static {
    const KIND: &'static str;
    const SINGULAR: &'static str;
    const PLURAL: &'static str;
    const ATTRIBUTES: &'static [Attribute];
    fn view(rule: &QosRule) -> Json;
}

const DIRECTIONS: Kind = Kind::OneOf(&["egress", "ingress"]);
const RATE: Kind = Kind::IntRange(0, 2_147_483_647);

struct BandwidthLimit;

impl RuleKind for BandwidthLimit {
    const KIND: &'static str = "bandwidth_limit";
    const SINGULAR: &'static str = "bandwidth_limit_rule";
    const PLURAL: &'static str = "bandwidth_limit_rules";
    const ATTRIBUTES: &'static [Attribute] = &[
        shown("id"),
        both("max_kbps", RATE).required(),
        both("max_burst_kbps", RATE),
        both("direction", DIRECTIONS),
    ];

    fn view(rule: &QosRule) -> Json {
        json!({"max_kbps": rule.rate, "max_burst_kbps": rule.burst, "direction": rule.direction})
    }
}

struct PacketRateLimit;

impl RuleKind for PacketRateLimit {
    const KIND: &'static str = "packet_rate_limit";
    const SINGULAR: &'static str = "packet_rate_limit_rule";
    const PLURAL: &'static str = "packet_rate_limit_rules";
    const ATTRIBUTES: &'static [Attribute] = &[
        shown("id"),
        both("max_kpps", RATE).required(),
        both("max_burst_kpps", RATE),
        both("direction", DIRECTIONS),
    ];

    fn view(rule: &QosRule) -> Json {
        json!({"max_kpps": rule.rate, "max_burst_kpps": rule.burst, "direction": rule.direction})
    }
}

struct DscpMarking;

impl RuleKind for DscpMarking {
    const KIND: &'static str = "dscp_marking";
    const SINGULAR: &'static str = "dscp_marking_rule";
    const PLURAL: &'static str = "dscp_marking_rules";
    const ATTRIBUTES: &'static [Attribute] = &[shown("id"), both("dscp_mark", Kind::Any).required()];

    fn view(rule: &QosRule) -> Json {
        json!({"dscp_mark": rule.dscp_mark})
    }
}

struct MinimumBandwidth;

impl RuleKind for MinimumBandwidth {
    const KIND: &'static str = MINIMUM_BANDWIDTH;
    const SINGULAR: &'static str = "minimum_bandwidth_rule";
    const PLURAL: &'static str = "minimum_bandwidth_rules";
    const ATTRIBUTES: &'static [Attribute] =
        &[shown("id"), both("min_kbps", RATE).required(), both("direction", DIRECTIONS)];

    fn view(rule: &QosRule) -> Json {
        json!({"min_kbps": rule.rate, "direction": rule.direction})
    }
}

struct MinimumPacketRate;

impl RuleKind for MinimumPacketRate {
    const KIND: &'static str = MINIMUM_PACKET_RATE;
    const SINGULAR: &'static str = "minimum_packet_rate_rule";
    const PLURAL: &'static str = "minimum_packet_rate_rules";
    const ATTRIBUTES: &'static [Attribute] = &[
        shown("id"),
        both("min_kpps", RATE).required(),
        both("direction", Kind::OneOf(&["egress", "ingress", ANY])),
    ];

    fn view(rule: &QosRule) -> Json {
        json!({"min_kpps": rule.rate, "direction": rule.direction})
    }
}

/// The marks that have a name.
const DSCP_MARKS: [i64; 22] =
    [0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56];

macro_rules! rule_routes {
    ($kind:ident $singular:literal) => {
        [
            get(
                concat!("/v2.0/qos/policies/{policy_id}/", $singular, "s"),
                concat!("get_policy_", $singular),
                list_rules::<$kind>,
            ),
            post_route(
                concat!("/v2.0/qos/policies/{policy_id}/", $singular, "s"),
                concat!("create_policy_", $singular),
                create_rule::<$kind>,
            ),
            get(
                concat!("/v2.0/qos/policies/{policy_id}/", $singular, "s/{rule_id}"),
                concat!("get_policy_", $singular),
                show_rule::<$kind>,
            ),
            put(
                concat!("/v2.0/qos/policies/{policy_id}/", $singular, "s/{rule_id}"),
                concat!("update_policy_", $singular),
                update_rule::<$kind>,
            ),
            delete(
                concat!("/v2.0/qos/policies/{policy_id}/", $singular, "s/{rule_id}"),
                concat!("delete_policy_", $singular),
                remove_rule::<$kind>,
            ),
        ]
    };
}

/// Rules by their own id alone.
macro_rules! alias_routes {
    ($kind:ident $singular:literal) => {
        [
            get(
                concat!("/v2.0/qos/alias_", $singular, "s/{rule_id}"),
                concat!("get_alias_", $singular),
                show_rule::<$kind>,
            ),
            put(
                concat!("/v2.0/qos/alias_", $singular, "s/{rule_id}"),
                concat!("update_alias_", $singular),
                update_rule::<$kind>,
            ),
            delete(
                concat!("/v2.0/qos/alias_", $singular, "s/{rule_id}"),
                concat!("delete_alias_", $singular),
                remove_rule::<$kind>,
            ),
        ]
    };
}

pub fn routes() -> Routes<Neutron> {
    let mut routes = vec![
        get("/v2.0/qos/rule-types", "get_rule_type", list_kinds),
        get("/v2.0/qos/rule-types/{rule_type}", "get_rule_type", show_kind),
    ];
    routes.extend(rule_routes!(BandwidthLimit "bandwidth_limit_rule"));
    routes.extend(rule_routes!(DscpMarking "dscp_marking_rule"));
    routes.extend(rule_routes!(MinimumBandwidth "minimum_bandwidth_rule"));
    routes.extend(rule_routes!(MinimumPacketRate "minimum_packet_rate_rule"));
    routes.extend(rule_routes!(PacketRateLimit "packet_rate_limit_rule"));
    routes.extend(alias_routes!(BandwidthLimit "bandwidth_limit_rule"));
    routes.extend(alias_routes!(DscpMarking "dscp_marking_rule"));
    routes.extend(alias_routes!(MinimumBandwidth "minimum_bandwidth_rule"));
    routes.extend(alias_routes!(MinimumPacketRate "minimum_packet_rate_rule"));
    routes
}

/// A rule as its policy shows it.
pub fn in_policy(rule: &QosRule) -> Json {
    let mut view = match rule.kind.as_str() {
        BandwidthLimit::KIND => rule_view::<BandwidthLimit>(rule),
        PacketRateLimit::KIND => rule_view::<PacketRateLimit>(rule),
        MinimumBandwidth::KIND => rule_view::<MinimumBandwidth>(rule),
        MinimumPacketRate::KIND => rule_view::<MinimumPacketRate>(rule),
        _ => rule_view::<DscpMarking>(rule),
    };
    view["type"] = json!(rule.kind);
    view["qos_policy_id"] = json!(rule.qos_policy_id);
    view
}

fn rule_view<K: RuleKind>(rule: &QosRule) -> Json {
    let mut view = K::view(rule);
    view["id"] = json!(rule.id);
    view
}

fn parent(policy: &QosPolicy) -> Json {
    json!({"ext_parent:project_id": policy.project_id})
}

/// The policy whose rules are asked for; who may not is told so, who may not see it that it is not there. Who would make
/// a rule is told that he may not before that.
async fn policy_of(neutron: &Neutron, request: &Request) -> Result<QosPolicy> {
    if request.method == web::Method::POST {
        let id = request.param("policy_id").to_string();
        let policy = neutron.read(move |tx| store::get::<QosPolicy>(tx, QOS_POLICY, &id)).await?;
        can(request, &parent(&policy))?;
    }
    let (policy, _) = qos::one(neutron, request).await?;
    can(request, &parent(&policy))?;
    Ok(policy)
}

/// By its policy and itself, or by itself alone.
async fn rule_of<K: RuleKind>(neutron: &Neutron, request: &Request) -> Result<QosRule> {
    let id = request.param("rule_id").to_string();
    let is_alias = request.path.contains("/alias_");
    let wanted_policy = match is_alias {
        true => None,
        false => Some(policy_of(neutron, request).await?.id),
    };
    let (found_id, cx) = (id.clone(), request.ctx.clone());
    let found = neutron
        .read(move |tx| match tx.find::<QosRule>(&found_id)? {
            Some(rule) => {
                let policy = rbac::load::<QosPolicy>(tx, &cx, &rule.qos_policy_id)?;
                Ok(Some((rule, policy)))
            }
            None => Ok(None),
        })
        .await?;
    let of_policy =
        |rule: &QosRule| wanted_policy.as_ref().is_none_or(|policy| *policy == rule.qos_policy_id);
    match found.filter(|(rule, _)| rule.kind == K::KIND && of_policy(rule)) {
        Some((rule, policy)) => {
            can(request, &parent(&policy))?;
            Ok(rule)
        }
        None => Err(no_rule(&id, wanted_policy.as_deref().unwrap_or_default())),
    }
}

fn no_rule(id: &str, policy_id: &str) -> Error {
    let text = format!("QoS rule {id} for policy {policy_id} could not be found.");
    missing("QosRuleNotFound", text)
}

/// The filter of a kind's own number.
fn by_number<K: RuleKind>(name: &str, values: &[&str]) -> Result<Option<Filter>> {
    let column = match name {
        "max_kbps" | "max_kpps" | "min_kbps" | "min_kpps" => "rate",
        "max_burst_kbps" | "max_burst_kpps" => "burst",
        _ => return Ok(None),
    };
    if K::ATTRIBUTES.iter().all(|attribute| attribute.name != name) {
        return Ok(None);
    }
    let numbers =
        values.iter().map(|text| attributes::integer(&json!(text))).collect::<Result<Vec<i64>>>()?;
    Ok(Some(Filter::any(column, numbers)))
}

async fn list_rules<K: RuleKind>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let policy = policy_of(&neutron, &request).await?;
    let max = neutron.options.pagination_max_limit;
    let mut wanted = Wanted::parse::<QosRule>(&request, max, by_number::<K>)?;
    wanted.list =
        wanted.list.filter(Filter::eq("qos_policy_id", &*policy.id)).filter(Filter::eq("kind", K::KIND));
    let (wanted, found) = neutron
        .read(move |tx| {
            let found = wanted.find::<QosRule>(tx, QOS_POLICY)?;
            Ok((wanted.clone(), found))
        })
        .await?;
    Ok(wanted.reply(&request, K::PLURAL, found.iter().map(rule_view::<K>).collect()))
}

async fn show_rule<K: RuleKind>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = rule_of::<K>(&neutron, &request).await?;
    let name = body_name::<K>(&request);
    Ok(Reply::ok(json!({name: chosen(&request, rule_view::<K>(&rule))})))
}

/// What the body is under.
fn body_name<K: RuleKind>(request: &Request) -> String {
    match request.path.contains("/alias_") {
        true => format!("alias_{}", K::SINGULAR),
        false => K::SINGULAR.into(),
    }
}

/// What is given, into the row.
fn take(given: &Given, rule: &mut QosRule) -> Result<()> {
    let number = |names: &[&str]| names.iter().find_map(|name| given.get(*name)).and_then(Json::as_i64);
    if let Some(rate) = number(&["max_kbps", "max_kpps", "min_kbps", "min_kpps"]) {
        rule.rate = rate;
    }
    if let Some(burst) = number(&["max_burst_kbps", "max_burst_kpps"]) {
        rule.burst = burst;
    }
    if let Some(direction) = text(given, "direction") {
        rule.direction = Some(direction);
    }
    if let Some(mark) = given.get("dscp_mark") {
        let number = attributes::integer(mark)?;
        if !DSCP_MARKS.contains(&number) {
            return Err(crate::errors::bad(format!(
                "Invalid input for dscp_mark. Reason: {number} is not in valid_values."
            )));
        }
        rule.dscp_mark = Some(number);
    }
    Ok(())
}

/// A policy says a thing once, and nothing that contradicts it. The bound that a request does not name a direction for is
/// compared with those of both.
fn check_rule(tx: &mut Tx, rule: &QosRule, given: &Given) -> Result<()> {
    let others = store::all_of::<QosRule>(tx, "qos_policy_id", &rule.qos_policy_id)?;
    let direction = text(given, "direction");
    for other in &others {
        let beside = direction.is_none() || direction == other.direction;
        let contradicts = match other.kind.as_str() {
            MinimumBandwidth::KIND if given.contains_key("max_kbps") => other.rate > rule.rate,
            BandwidthLimit::KIND if given.contains_key("min_kbps") => other.rate < rule.rate,
            _ => false,
        };
        if beside && contradicts {
            return Err(contradiction(rule, &rule.rate, other, &other.rate));
        }
    }
    let same_kind = || others.iter().filter(|other| other.id != rule.id && other.kind == rule.kind);
    let way = |rule: &QosRule| rule.direction.clone().unwrap_or_default();
    if rule.kind == MinimumPacketRate::KIND
        && let Some(other) = same_kind().find(|other| (way(other) == ANY) != (way(rule) == ANY))
    {
        return Err(contradiction(rule, &way(rule), other, &way(other)));
    }
    match same_kind().find(|other| other.direction == rule.direction) {
        None => Ok(()),
        Some(other) => Err(conflict(
            "QoSRulesConflict",
            format!(
                "Rule {} conflicts with rule {} which already exists in QoS Policy {}.",
                rule.kind, other.id, rule.qos_policy_id
            ),
        )),
    }
}

fn contradiction(rule: &QosRule, value: &impl Display, other: &QosRule, existing: &impl Display) -> Error {
    let text = format!(
        "Unable to add the rule with value {value} to the policy {} as the existing rule of type {} has value {existing}.",
        rule.qos_policy_id, other.kind
    );
    conflict("QoSRuleParameterConflict", text)
}

/// What placement keeps count of stays as it is while a server has a port with it.
fn check_unbound(tx: &mut Tx, rule: &QosRule) -> Result<()> {
    if !promises(&rule.kind) {
        return Ok(());
    }
    match qos_ports::with_policy(tx, &rule.qos_policy_id)?.iter().any(qos_ports::is_servers) {
        false => Ok(()),
        true => Err(Error::not_implemented(
            "Cannot update QoS policies/rules backed by resources tracked in Placement",
        )),
    }
}

/// Ports that have the policy, by themselves or by their network.
fn touch(tx: &mut Tx, touched: &mut Touched, policy_id: &str) -> Result<()> {
    touched.ports.extend(qos_ports::with_policy(tx, policy_id)?.into_iter().map(|port| port.id));
    Ok(())
}

async fn create_rule<K: RuleKind>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let given = attributes::created(&request, K::ATTRIBUTES, attributes::one(request.json(), K::SINGULAR)?)?;
    let policy = policy_of(&neutron, &request).await?;
    let has_direction = K::ATTRIBUTES.iter().any(|attribute| attribute.name == "direction");
    let mut rule = QosRule {
        id: id::uuid(),
        qos_policy_id: policy.id,
        kind: K::KIND.into(),
        rate: 0,
        burst: 0,
        direction: has_direction.then(|| "egress".into()),
        dscp_mark: None,
    };
    take(&given, &mut rule)?;
    let rule = neutron
        .write(move |tx, touched| {
            check_rule(tx, &rule, &given)?;
            check_unbound(tx, &rule)?;
            tx.insert(&rule)?;
            touch(tx, touched, &rule.qos_policy_id)?;
            Ok(rule.clone())
        })
        .await?;
    Ok(Reply::created(json!({K::SINGULAR: rule_view::<K>(&rule)})))
}

async fn update_rule<K: RuleKind>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = rule_of::<K>(&neutron, &request).await?;
    let name = body_name::<K>(&request);
    let given = attributes::updated(K::ATTRIBUTES, attributes::one(request.json(), &name)?)?;
    let rule = neutron
        .write(move |tx, touched| {
            let found = tx.find::<QosRule>(&rule.id)?;
            let mut rule = found.ok_or_else(|| no_rule(&rule.id, &rule.qos_policy_id))?;
            take(&given, &mut rule)?;
            check_rule(tx, &rule, &given)?;
            check_unbound(tx, &rule)?;
            tx.update(&rule)?;
            touch(tx, touched, &rule.qos_policy_id)?;
            Ok(rule)
        })
        .await?;
    Ok(Reply::ok(json!({name: chosen(&request, rule_view::<K>(&rule))})))
}

async fn remove_rule<K: RuleKind>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let rule = rule_of::<K>(&neutron, &request).await?;
    neutron
        .write(move |tx, touched| {
            check_unbound(tx, &rule)?;
            tx.remove::<QosRule>(&rule.id)?;
            touch(tx, touched, &rule.qos_policy_id)
        })
        .await?;
    Ok(Reply::no_content())
}

/// In the order of upstream's filter of it.
const KINDS: [&str; 5] = [
    MinimumPacketRate::KIND,
    BandwidthLimit::KIND,
    MinimumBandwidth::KIND,
    PacketRateLimit::KIND,
    DscpMarking::KIND,
];

async fn list_kinds(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    Ok(Reply::ok(json!({"rule_types": KINDS.map(|kind| json!({"type": kind}))})))
}

/// Of a kind, who sees to it and with which numbers.
async fn show_kind(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    if !request.ctx.is_admin() {
        return Err(Error::forbidden("Not authorized.").code("NotAuthorized"));
    }
    let kind = request.param("rule_type");
    let parameters = match kind {
        BandwidthLimit::KIND => parameters::<BandwidthLimit>(),
        PacketRateLimit::KIND => parameters::<PacketRateLimit>(),
        DscpMarking::KIND => parameters::<DscpMarking>(),
        MinimumBandwidth::KIND => parameters::<MinimumBandwidth>(),
        MinimumPacketRate::KIND => parameters::<MinimumPacketRate>(),
        // Upstream stumbles over it.
        _ => return Err(missing("QosRuleTypeNotFound", format!("QoS rule type {kind} could not be found."))),
    };
    let drivers = json!([{"name": DRIVER, "supported_parameters": parameters}]);
    Ok(Reply::ok(json!({"rule_type": chosen(&request, json!({"type": kind, "drivers": drivers}))})))
}

const DRIVER: &str = "linuxbridge";

fn parameters<K: RuleKind>() -> Vec<Json> {
    let values = |attribute: &Attribute| match attribute.kind {
        Kind::IntRange(start, end) => ("range", json!({"start": start, "end": end})),
        Kind::OneOf(words) => ("choices", json!(words)),
        _ => ("choices", json!(DSCP_MARKS)),
    };
    let all = K::ATTRIBUTES.iter().filter(|attribute| attribute.put);
    all.map(|attribute| {
        let (kind, values) = values(attribute);
        json!({"parameter_name": attribute.name, "parameter_type": kind, "parameter_values": values})
    })
    .collect()
}
