//! QoS policies and their rules: how much ports may send and get, and how what they send is marked. Rules that promise
//! something, which somebody would have to keep count of, are not here.

use super::{can, can_change, shared_target, standard, target};
use crate::{
    Neutron,
    agents::Touched,
    attributes::{self, Attribute, Given, Kind, both, flag_or, post, shown, text, text_or},
    errors::{conflict, missing},
    listing::{Wanted, chosen, not_found},
    model::*,
    rbac,
    store::{self, QOS_POLICY},
};
use base::{Error, Json, Result, id};
use db::{Filter, List, Tx};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
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

struct BandwidthLimit;

impl RuleKind for BandwidthLimit {
    const KIND: &'static str = "bandwidth_limit";
    const SINGULAR: &'static str = "bandwidth_limit_rule";
    const PLURAL: &'static str = "bandwidth_limit_rules";
    const ATTRIBUTES: &'static [Attribute] = &[
        shown("id"),
        both("max_kbps", Kind::IntFrom(0)).required(),
        both("max_burst_kbps", Kind::IntFrom(0)),
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
        both("max_kpps", Kind::IntFrom(0)).required(),
        both("max_burst_kpps", Kind::IntFrom(0)),
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
        get("/v2.0/qos/policies", "get_policy", list),
        post_route("/v2.0/qos/policies", "create_policy", create),
        get("/v2.0/qos/policies/{policy_id}", "get_policy", show),
        put("/v2.0/qos/policies/{policy_id}", "update_policy", update),
        delete("/v2.0/qos/policies/{policy_id}", "delete_policy", remove),
        get("/v2.0/qos/rule-types", "get_rule_type", list_kinds),
    ];
    routes.extend(rule_routes!(BandwidthLimit "bandwidth_limit_rule"));
    routes.extend(rule_routes!(DscpMarking "dscp_marking_rule"));
    routes.extend(rule_routes!(PacketRateLimit "packet_rate_limit_rule"));
    routes.extend(alias_routes!(BandwidthLimit "bandwidth_limit_rule"));
    routes.extend(alias_routes!(DscpMarking "dscp_marking_rule"));
    routes
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
async fn one(neutron: &Neutron, request: &Request) -> Result<(QosPolicy, Vec<QosRule>)> {
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
    let rules: Vec<Json> = rules.iter().map(rule_in_policy).collect();
    let mut view = json!({
        "id": policy.id, "name": policy.name, "description": policy.description, "shared": policy.shared,
        "is_default": policy.is_default, "rules": rules, "tags": policy.tags,
    });
    standard(&mut view, policy);
    view
}

fn rule_in_policy(rule: &QosRule) -> Json {
    let mut view = match rule.kind.as_str() {
        BandwidthLimit::KIND => rule_view::<BandwidthLimit>(rule),
        PacketRateLimit::KIND => rule_view::<PacketRateLimit>(rule),
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

/// The policy whose rules are asked for; who may not is told so, who may not see it that it is not there.
async fn policy_of(neutron: &Neutron, request: &Request) -> Result<QosPolicy> {
    let (policy, _) = one(neutron, request).await?;
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
        None => Err(no_rule(&id, wanted_policy.as_deref().unwrap_or("None"))),
    }
}

fn no_rule(id: &str, policy_id: &str) -> Error {
    let text = format!("QoS rule {id} for policy {policy_id} could not be found.");
    missing("QosRuleNotFound", text)
}

async fn list_rules<K: RuleKind>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let policy = policy_of(&neutron, &request).await?;
    let mut wanted =
        Wanted::parse::<QosRule>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
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
    let number = |names: [&str; 2]| names.iter().find_map(|name| given.get(*name)).and_then(Json::as_i64);
    if let Some(rate) = number(["max_kbps", "max_kpps"]) {
        rule.rate = rate;
    }
    if let Some(burst) = number(["max_burst_kbps", "max_burst_kpps"]) {
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

/// A policy says a thing once.
fn check_rule(tx: &mut Tx, rule: &QosRule) -> Result<()> {
    let others = store::all_of::<QosRule>(tx, "qos_policy_id", &rule.qos_policy_id)?;
    let same = |other: &&QosRule| {
        other.id != rule.id && other.kind == rule.kind && other.direction == rule.direction
    };
    match others.iter().find(same) {
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

/// Ports that have the policy, by themselves or by their network.
fn touch(tx: &mut Tx, touched: &mut Touched, policy_id: &str) -> Result<()> {
    let rows = tx.query(
        db::sql!(
            "SELECT id FROM ports WHERE qos_policy_id = $1
             UNION SELECT p.id FROM ports p JOIN networks n ON n.id = p.network_id WHERE n.qos_policy_id = $1"
        ),
        db::params![policy_id],
    )?;
    for row in rows {
        touched.ports.insert(row.at(0)?);
    }
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
            check_rule(tx, &rule)?;
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
            check_rule(tx, &rule)?;
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
            tx.remove::<QosRule>(&rule.id)?;
            touch(tx, touched, &rule.qos_policy_id)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_kinds(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let kinds = [BandwidthLimit::KIND, DscpMarking::KIND, PacketRateLimit::KIND];
    Ok(Reply::ok(json!({"rule_types": kinds.map(|kind| json!({"type": kind}))})))
}
