//! Security groups as compute shows them: those of a server, and until 2.35 all of the project's, which are neutron's
//! and are asked of it in the caller's name.

use super::{own_project, queries, server_actions::accepted};
use crate::{Nova, model::Instance, schemas, schemas::Form};
use base::{Error, ErrorKind, Json, Result, id};
use serde_json::{Map, json};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Nova> {
    const GROUP: &str = "/v2.1/os-security-groups/{group_id}";
    let proxies = [
        get("/v2.1/os-security-groups", "os_compute_api:os-security-groups:get", index),
        post("/v2.1/os-security-groups", "os_compute_api:os-security-groups:create", create),
        get(GROUP, "os_compute_api:os-security-groups:show", show),
        put(GROUP, "os_compute_api:os-security-groups:update", update),
        delete(GROUP, "os_compute_api:os-security-groups:delete", remove),
        post("/v2.1/os-security-group-rules", "os_compute_api:os-security-groups:rule:create", create_rule),
        delete(
            "/v2.1/os-security-group-rules/{rule_id}",
            "os_compute_api:os-security-groups:rule:delete",
            remove_rule,
        ),
    ];
    let mut routes: Routes<Nova> = proxies.into_iter().map(|route| route.until(2, 35)).collect();
    let of_server = "/v2.1/servers/{server_id}/os-security-groups";
    routes.push(get(of_server, "os_compute_api:os-security-groups:list", index_of_server));
    routes
}

const GROUPS: &str = "/v2.0/security-groups";
const RULES: &str = "/v2.0/security-group-rules";

async fn index_of_server(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &queries::NOTHING)?;
    let instance = nova.server(&request).await?;
    let groups = of_server(&nova, &request, &instance).await?;
    let views = views(&nova, &request, &groups).await?;
    Ok(Reply::ok(json!({"security_groups": views})))
}

/// The groups of the server's ports.
async fn of_server(nova: &Nova, request: &Request, instance: &Instance) -> Result<Vec<Json>> {
    let own = nova.own(&request.ctx);
    let ports = nova.networks().ports_of(&own, std::slice::from_ref(&instance.uuid)).await?;
    let ids: BTreeSet<&str> =
        ports.iter().flat_map(|port| &port.security_groups).map(|group| group.id.as_str()).collect();
    groups(nova, request, ids.into_iter().map(|id| ("id", id))).await
}

async fn groups<'a>(
    nova: &Nova,
    request: &Request,
    wanted: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<Json>> {
    let query = { form_urlencoded::Serializer::new(String::new()).extend_pairs(wanted).finish() };
    if query.is_empty() {
        return Ok(Vec::new());
    }
    let found = ask(nova, request, "GET", &format!("{GROUPS}?{query}"), None).await?;
    Ok(found["security_groups"].as_array().cloned().unwrap_or_default())
}

static INDEX: Form = Form::new(|| {
    json!({"type": "object", "properties": {
        "limit": queries::counts(), "offset": queries::counts(), "all_tenants": queries::texts()}})
});

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &INDEX)?;
    request.can(&own_project(&request))?;
    let of_all = request.ctx.is_admin() && request.query.has("all_tenants");
    let found = match of_all {
        true => ask(&nova, &request, "GET", GROUPS, None).await?["security_groups"].clone(),
        false => groups(&nova, &request, [("tenant_id", &*request.ctx.project_id)].into_iter()).await?.into(),
    };
    let page = queries::slice(&nova, &request, &found);
    Ok(Reply::ok(json!({"security_groups": views(&nova, &request, &page).await?})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let group = group(&nova, &request).await?;
    one(&nova, &request, &group).await
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let body = wanted(&request)?;
    request.can(&own_project(&request))?;
    let made = ask(&nova, &request, "POST", GROUPS, Some(&body)).await.map_err(over_limit)?;
    one(&nova, &request, &made["security_group"]).await
}

async fn update(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let body = wanted(&request)?;
    request.can(&own_project(&request))?;
    let path = format!("{GROUPS}/{}", uuid(&request, "group_id")?);
    group(&nova, &request).await?;
    let made = ask(&nova, &request, "PUT", &path, Some(&body)).await?;
    one(&nova, &request, &made["security_group"]).await
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let path = format!("{GROUPS}/{}", uuid(&request, "group_id")?);
    ask(&nova, &request, "DELETE", &path, None).await.map_err(in_use)?;
    Ok(accepted())
}

/// What neutron is asked to make it.
fn wanted(request: &Request) -> Result<Json> {
    schemas::SECURITY_GROUP.at(request.version()).body(request.json())?;
    let given = &request.json()["security_group"];
    Ok(json!({"security_group": {"name": given["name"], "description": given["description"]}}))
}

async fn create_rule(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    schemas::SECURITY_GROUP_RULE.at(request.version()).body(request.json())?;
    request.can(&own_project(&request))?;
    let given = &request.json()["security_group_rule"];
    let parent = group_of(&nova, &request, given["parent_group_id"].as_str().unwrap_or_default()).await?;
    let source = match given["group_id"].as_str() {
        Some(id) => Some(group_of(&nova, &request, id).await?),
        None => None,
    };
    let rule = rule(given, source.is_some())?;
    let shown = parent["security_group_rules"].as_array().into_iter().flatten();
    if shown.filter(|there| there["direction"] == "ingress").any(|there| is_same(there, &rule)) {
        let parent = parent["id"].as_str().unwrap_or_default();
        return Err(Error::bad_request(format!("This rule already exists in group {parent}")));
    }
    let body = json!({"security_group_rule": rule});
    let made = ask(&nova, &request, "POST", RULES, Some(&body)).await.map_err(over_limit)?;
    let names = [source].into_iter().flatten().map(|group| name_of(&group)).collect();
    Ok(Reply::ok(json!({"security_group_rule": rule_view(&made["security_group_rule"], &names)})))
}

async fn remove_rule(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let path = format!("{RULES}/{}", uuid(&request, "rule_id")?);
    ask(&nova, &request, "DELETE", &path, None).await?;
    Ok(accepted())
}

/// A rule in neutron's terms. One for addresses needs a protocol and ports; one for a group may leave them out.
fn rule(given: &Json, of_group: bool) -> Result<Json> {
    let protocol = given["ip_protocol"].as_str().filter(|protocol| !protocol.is_empty());
    let protocol_is = |names: &[&str]| {
        protocol.is_some_and(|protocol| names.iter().any(|name| name.eq_ignore_ascii_case(protocol)))
    };
    let (mut from, mut to) = (given["from_port"].clone(), given["to_port"].clone());
    if of_group && from.is_null() && to.is_null() {
        (from, to) = match protocol_is(&["icmp"]) {
            true => (json!(-1), json!(-1)),
            false if protocol_is(&["tcp", "udp"]) => (json!(1), json!(65535)),
            false => (from, to),
        };
    }
    let cidr = match (of_group, given["cidr"].as_str().filter(|cidr| !cidr.is_empty())) {
        (true, _) => None,
        (false, cidr) => Some(checked_cidr(cidr.unwrap_or("0.0.0.0/0"))?),
    };
    let is_six = cidr.as_deref().is_some_and(|cidr| cidr.contains(':'));
    let mut rule = json!({
        "direction": "ingress",
        "ethertype": if is_six { "IPv6" } else { "IPv4" },
        "security_group_id": given["parent_group_id"],
        "remote_ip_prefix": cidr,
        "remote_group_id": if of_group { given["group_id"].clone() } else { Json::Null },
    });
    let Some(protocol) = protocol.filter(|_| !from.is_null() && !to.is_null()) else {
        let too_little = || Error::bad_request("Not enough parameters to build a valid rule.");
        return of_group.then_some(rule).ok_or_else(too_little);
    };
    let (from, to) = match (queries::number(&from), queries::number(&to)) {
        (Some(from), Some(to)) => (from, to),
        _ if protocol_is(&["icmp"]) => {
            return Err(invalid_input("Type and Code must be integers for ICMP protocol type"));
        }
        _ => return Err(invalid_input("To and From ports must be integers")),
    };
    check_ports(protocol, from, to)?;
    rule["protocol"] = protocol.into();
    for (name, port) in [("port_range_min", from), ("port_range_max", to)] {
        if port != -1 {
            rule[name] = port.into();
        }
    }
    Ok(rule)
}

fn invalid_input(reason: &str) -> Error {
    Error::bad_request(format!("Invalid input received: {reason}"))
}

fn checked_cidr(cidr: &str) -> Result<String> {
    let wrong = || Error::bad_request(format!("{cidr} is not a valid IP network."));
    let (address, prefix) = cidr.split_once('/').ok_or_else(wrong)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(wrong)?;
    if prefix == 0 && !address.is_unspecified() {
        return Err(Error::bad_request(format!("Bad prefix for network in cidr {cidr}")));
    }
    Ok(cidr.to_string())
}

fn check_ports(protocol: &str, from: i64, to: i64) -> Result<()> {
    let wrong = |why: &str| Err(Error::bad_request(format!("Invalid port range {from}:{to}. {why}")));
    match protocol.to_uppercase().as_str() {
        "TCP" | "UDP" if from > to => wrong("Former value cannot be greater than the later"),
        upper @ ("TCP" | "UDP") if from < 1 || to > 65535 => {
            wrong(&format!("Valid {upper} ports should be between 1-65535"))
        }
        "ICMP" if !(-1..=255).contains(&from) || !(-1..=255).contains(&to) => {
            wrong("For ICMP, the type:code must be valid")
        }
        "TCP" | "UDP" | "ICMP" => Ok(()),
        _ => Err(Error::bad_request(format!("Invalid IP protocol {protocol}."))),
    }
}

fn is_same(there: &Json, wanted: &Json) -> bool {
    let everything = json!("0.0.0.0/0");
    let from = |rule: &Json| match &rule["remote_ip_prefix"] {
        Json::Null if rule["remote_group_id"].is_null() => everything.clone(),
        prefix => prefix.clone(),
    };
    let keys = ["remote_group_id", "port_range_min", "port_range_max", "protocol"];
    keys.iter().all(|key| there[*key] == wanted[*key]) && from(there) == from(wanted)
}

async fn group(nova: &Nova, request: &Request) -> Result<Json> {
    let id = uuid(request, "group_id")?;
    group_of(nova, request, &id).await
}

async fn group_of(nova: &Nova, request: &Request, id: &str) -> Result<Json> {
    Ok(ask(nova, request, "GET", &format!("{GROUPS}/{id}"), None).await?["security_group"].take())
}

fn uuid(request: &Request, name: &str) -> Result<String> {
    let id = request.param(name);
    let wrong = || Error::bad_request("Security group id should be uuid");
    id::is_uuid(id).then(|| id.to_string()).ok_or_else(wrong)
}

async fn ask(nova: &Nova, request: &Request, method: &str, path: &str, body: Option<&Json>) -> Result<Json> {
    nova.peers.apis.network.call(&request.ctx, method, path, body).await
}

/// Neutron's conflicts at making something are quotas.
fn over_limit(error: Error) -> Error {
    if error.is(ErrorKind::Conflict) { Error::forbidden(error.message) } else { error }
}

fn in_use(error: Error) -> Error {
    if error.is(ErrorKind::Conflict) { Error::bad_request(error.message) } else { error }
}

type Names = HashMap<String, (Json, Json)>;

fn name_of(group: &Json) -> (String, (Json, Json)) {
    (group["id"].as_str().unwrap_or_default().into(), (group["name"].clone(), group["tenant_id"].clone()))
}

async fn one(nova: &Nova, request: &Request, group: &Json) -> Result<Reply> {
    let views = views(nova, request, std::slice::from_ref(group)).await?;
    Ok(Reply::ok(json!({"security_group": views.into_iter().next()})))
}

/// Groups with their rules, whose own groups are named; by project and name.
async fn views(nova: &Nova, request: &Request, groups: &[Json]) -> Result<Vec<Json>> {
    let mut names: Names = groups.iter().map(name_of).collect();
    let rules = groups.iter().flat_map(|group| group["security_group_rules"].as_array()).flatten();
    let others: BTreeSet<&str> = rules
        .filter_map(|rule| rule["remote_group_id"].as_str())
        .filter(|id| !names.contains_key(*id))
        .collect();
    let others = self::groups(nova, request, others.into_iter().map(|id| ("id", id))).await?;
    names.extend(others.iter().map(name_of));
    let mut views: Vec<Json> = groups.iter().map(|group| view(group, &names)).collect();
    let key = |view: &Json| (view["tenant_id"].to_string(), view["name"].to_string());
    views.sort_by_key(key);
    Ok(views)
}

fn view(group: &Json, names: &Names) -> Json {
    let rules = group["security_group_rules"].as_array().into_iter().flatten();
    let ingress = rules.filter(|rule| rule["direction"] == "ingress");
    // The group of a rule may have been deleted meanwhile.
    let known =
        ingress.filter(|rule| rule["remote_group_id"].as_str().is_none_or(|id| names.contains_key(id)));
    json!({
        "id": group["id"],
        "name": group["name"],
        "description": group["description"],
        "tenant_id": group["tenant_id"],
        "rules": known.map(|rule| rule_view(rule, names)).collect::<Vec<_>>(),
    })
}

fn rule_view(rule: &Json, names: &Names) -> Json {
    let protocol = rule["protocol"].as_str();
    let no_ports = rule["port_range_min"].is_null() && rule["port_range_max"].is_null();
    let (from, to) = match protocol {
        Some("tcp" | "udp") if no_ports => (json!(1), json!(65535)),
        Some(_) if no_ports => (json!(-1), json!(-1)),
        _ => (rule["port_range_min"].clone(), rule["port_range_max"].clone()),
    };
    let group = rule["remote_group_id"].as_str().and_then(|id| names.get(id));
    let group = group.map(|(name, tenant_id)| json!({"name": name, "tenant_id": tenant_id}));
    let range = match &group {
        Some(_) => json!({}),
        None => json!({"cidr": rule["remote_ip_prefix"].as_str().unwrap_or("0.0.0.0/0")}),
    };
    json!({
        "id": rule["id"],
        "parent_group_id": rule["security_group_id"],
        "ip_protocol": protocol,
        "from_port": from,
        "to_port": to,
        "group": group.unwrap_or_else(|| Map::new().into()),
        "ip_range": range,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_neutrons_terms() {
        let ssh = json!({"parent_group_id": "g", "ip_protocol": "tcp", "from_port": "22", "to_port": 22});
        let made = rule(&ssh, false).unwrap();
        assert_eq!(made["port_range_min"], 22);
        assert_eq!(made["remote_ip_prefix"], "0.0.0.0/0");
        let ping = json!({"ip_protocol": "icmp", "from_port": -1, "to_port": -1, "cidr": "fe80::/10"});
        let made = rule(&ping, false).unwrap();
        assert_eq!((&made["ethertype"], made.get("port_range_min")), (&json!("IPv6"), None));
        let of_group = rule(&json!({"group_id": "s", "ip_protocol": "udp"}), true).unwrap();
        assert_eq!((&of_group["port_range_max"], &of_group["remote_group_id"]), (&json!(65535), &json!("s")));
        for (given, message) in [
            (json!({}), "Not enough parameters to build a valid rule."),
            (json!({"cidr": "10.0.0.0"}), "10.0.0.0 is not a valid IP network."),
            (json!({"cidr": "10.0.0.0/0"}), "Bad prefix for network in cidr 10.0.0.0/0"),
            (
                json!({"ip_protocol": "tcp", "from_port": 9, "to_port": 8}),
                "Invalid port range 9:8. Former value cannot be greater than the later",
            ),
            (
                json!({"ip_protocol": "tcp", "from_port": 0, "to_port": 8}),
                "Invalid port range 0:8. Valid TCP ports should be between 1-65535",
            ),
            (
                json!({"ip_protocol": "icmp", "from_port": 256, "to_port": 0}),
                "Invalid port range 256:0. For ICMP, the type:code must be valid",
            ),
            (json!({"ip_protocol": "ah", "from_port": 1, "to_port": 2}), "Invalid IP protocol ah."),
            (
                json!({"ip_protocol": "tcp", "from_port": "a", "to_port": 2}),
                "Invalid input received: To and From ports must be integers",
            ),
        ] {
            assert_eq!(rule(&given, false).unwrap_err().message, message);
        }
    }
}
