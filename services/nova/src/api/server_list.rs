//! Lists of servers: filters, order, pages.

use super::{
    own_project,
    server_view::{self, In},
    word_is_true,
};
use crate::{
    Nova,
    model::{Instance, VmState},
    schemas, status,
};
use base::{Error, Json, Result, Timestamp};
use db::{Direction, Filter, List, Op};
use fancy_regex::Regex;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request};

pub async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let found = names(&nova, &request).await?;
    let shown = found.iter().map(|(uuid, name)| server_view::basic(&request, uuid, name)).collect();
    Ok(Reply::ok(page(&nova, &request, "servers", shown, found.last().map(|(uuid, _)| uuid.as_str()))?))
}

pub async fn detail(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let found = match asked(&nova, &request, "detail")? {
        Some(asked) => find(&nova, asked).await?,
        None => Vec::new(),
    };
    let around = nova.around(&found).await?;
    let one = |instance: &Instance| server_view::detail(&request, instance, &around, In::List);
    let shown = found.iter().map(one).collect();
    let last = found.last().map(|instance| instance.uuid.as_str());
    Ok(Reply::ok(page(&nova, &request, "servers/detail", shown, last)?))
}

/// Query keys that everybody may filter by; others are an administrator's.
const FOR_ALL: &[&str] = &[
    "reservation_id",
    "name",
    "status",
    "image",
    "flavor",
    "ip",
    "changes-since",
    "changes-before",
    "all_tenants",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
    "ip6",
    "locked",
];
const FOR_ALL_SINCE_2_83: &[&str] = &[
    "availability_zone",
    "config_drive",
    "key_name",
    "created_at",
    "launched_at",
    "terminated_at",
    "power_state",
    "task_state",
    "vm_state",
    "progress",
    "user_id",
];
const ALL_FILTERS: &str = "os_compute_api:servers:allow_all_filters";

struct Asked {
    wanted: List,
    /// What only we can compare is compared after the database's part, so the page is cut there.
    matches: Matches,
    limit: u64,
}

async fn find(nova: &Nova, asked: Asked) -> Result<Vec<Instance>> {
    let Asked { wanted, matches, limit } = asked;
    let mut found = nova.read(move |tx| tx.list::<Instance>(&wanted)).await?;
    found.retain(|instance| matches.fit(instance));
    found.truncate(limit as usize);
    Ok(found)
}

/// Ids and names: of most lists no more is read.
async fn names(nova: &Nova, request: &Request) -> Result<Vec<(String, String)>> {
    let Some(asked) = asked(nova, request, "index")? else { return Ok(Vec::new()) };
    if !asked.matches.nothing() {
        let found = find(nova, asked).await?;
        return Ok(found.into_iter().map(|instance| (instance.uuid, instance.display_name)).collect());
    }
    let rows = nova.read(move |tx| tx.columns::<Instance>(&["uuid", "display_name"], &asked.wanted)).await?;
    rows.into_iter().map(|mut row| Ok((row.take(0)?, row.take(1)?))).collect()
}

/// None: nothing can match.
fn asked(nova: &Nova, request: &Request, verb: &str) -> Result<Option<Asked>> {
    schemas::check_query(&schemas::SERVER_QUERY, request)?;
    let admin = request.may(ALL_FILTERS, &own_project(request));
    let asked: Vec<(String, String)> = request
        .query
        .0
        .iter()
        .filter(|(key, _)| {
            let ours = FOR_ALL.contains(&key.as_str())
                || request.since(2, 83) && FOR_ALL_SINCE_2_83.contains(&key.as_str());
            ours || admin
        })
        .cloned()
        .collect();
    let get = |name: &str| asked.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut wanted = List::all();
    if !all_tenants(request, verb)? {
        wanted = wanted.eq("project_id", request.ctx.project_id.as_str());
    } else if let Some(project) = get("project_id").or_else(|| get("tenant_id")) {
        wanted = wanted.eq("project_id", project);
    }
    let Some(mut wanted) = by_state(request, wanted, &asked, admin)? else { return Ok(None) };
    for (key, column) in [
        ("user_id", "user_id"),
        ("host", "host"),
        ("image", "image_ref"),
        ("image_ref", "image_ref"),
        ("flavor", "flavor_id"),
        ("uuid", "uuid"),
        ("reservation_id", "reservation_id"),
        ("node", "node"),
    ] {
        if let Some(value) = get(key) {
            wanted = wanted.eq(column, value);
        }
    }
    if let Some(value) = get("power_state") {
        wanted = wanted.eq("power_state", value.parse::<i64>().unwrap_or(-1));
    }
    for (key, op) in [("changes-since", Op::Ge), ("changes-before", Op::Le)] {
        if let Some(time) = get(key).and_then(Timestamp::parse) {
            wanted = wanted.filter(Filter::new("updated_at", op, time));
        }
    }
    for (column, direction) in order(request) {
        wanted = wanted.sort(column, direction);
    }
    let limit = limit(nova, request)?;
    if let Some(marker) = request.query.get("marker") {
        wanted = wanted.marker(marker);
    }
    let matches = Matches::new(&asked, request)?;
    if matches.nothing() {
        wanted = wanted.limit(limit);
    }
    Ok(Some(Asked { wanted, matches, limit }))
}

fn all_tenants(request: &Request, verb: &str) -> Result<bool> {
    let asked = match request.query.get("all_tenants") {
        None => false,
        Some("") => true,
        Some(text) => request.query.flag("all_tenants").map_err(|_| {
            Error::bad_request(format!(
                "Unrecognized value '{text}', acceptable values are: '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'"
            ))
        })?.unwrap_or_default(),
    };
    if asked {
        let rule = format!("os_compute_api:servers:{verb}:get_all_tenants");
        request.can_rule(&rule, &own_project(request))?;
    }
    Ok(asked)
}

/// None: nothing can match.
fn by_state(
    request: &Request,
    mut wanted: List,
    asked: &[(String, String)],
    admin: bool,
) -> Result<Option<List>> {
    let all = |name: &'static str| asked.iter().filter(move |(key, _)| key == name).map(|(_, value)| value);
    let words: Vec<&String> = all("status").collect();
    let mut deleted = admin && all("deleted").next().is_some_and(|value| word_is_true(value));
    if !words.is_empty() {
        let mut states: Vec<VmState> = words.iter().flat_map(|word| status::states(word)).collect();
        if states.is_empty() {
            // Upstream has refused since 2.38 what it found nothing for before.
            if request.since(2, 38) {
                return Err(Error::bad_request("Invalid status value"));
            }
            return Ok(None);
        }
        if states.contains(&VmState::Deleted) {
            if !admin {
                return Err(Error::forbidden("Only administrators may list deleted servers"));
            }
            deleted = true;
        }
        states.dedup();
        wanted = wanted.filter(Filter::any("vm_state", states));
    }
    for name in ["vm_state", "task_state"] {
        let values: Vec<&String> = all(name).collect();
        if !values.is_empty() {
            wanted = wanted.filter(Filter::any(name, values));
        }
    }
    let times = request.query.has("changes-since") || request.query.has("changes-before");
    if !times || request.query.has("deleted") {
        wanted = wanted.eq("deleted", deleted);
    }
    Ok(Some(wanted))
}

/// Sort keys as columns; what has no column of its own is not heeded.
fn order(request: &Request) -> Vec<(&'static str, Direction)> {
    use db::Resource;
    let directions: Vec<&str> = request.query.all("sort_dir").collect();
    let mut order = Vec::new();
    for (n, key) in request.query.all("sort_key").enumerate() {
        let direction = directions.get(n).or(directions.last()).copied().unwrap_or("desc");
        let column = match key {
            "instance_type_id" => "flavor_id",
            "locked" => "locked_by",
            other => other,
        };
        let field = Instance::TABLE.fields.iter().find(|field| field.sort && field.column == column);
        if let Some(field) = field {
            order.push((field.column, direction_of(direction)));
        }
    }
    let given = order.clone();
    let last = directions.last().copied().map_or(Direction::Desc, direction_of);
    for column in ["created_at", "uuid"] {
        if !given.iter().any(|(there, _)| *there == column) {
            order.push((column, last));
        }
    }
    order
}

fn direction_of(text: &str) -> Direction {
    if text == "asc" { Direction::Asc } else { Direction::Desc }
}

fn limit(nova: &Nova, request: &Request) -> Result<u64> {
    let max = nova.options.max_limit;
    match request.query.get("limit").filter(|text| !text.is_empty()) {
        None => Ok(max),
        Some(text) => {
            let number: u64 =
                text.parse().map_err(|_| Error::bad_request("limit param must be an integer"))?;
            Ok(number.min(max))
        }
    }
}

/// Patterns and lists that the database does not compare.
#[derive(Default)]
struct Matches {
    patterns: Vec<(&'static str, Regex)>,
    tags: Vec<(&'static str, Vec<String>)>,
    locked: Option<bool>,
}

impl Matches {
    fn new(asked: &[(String, String)], request: &Request) -> Result<Self> {
        let mut matches = Self::default();
        for (key, value) in asked {
            let field = match key.as_str() {
                "name" | "display_name" => "name",
                "description" | "display_description" => "description",
                "hostname" => "hostname",
                "key_name" => "key_name",
                "availability_zone" => "availability_zone",
                "ip" => "ip",
                "ip6" => "ip6",
                "tags" | "tags-any" | "not-tags" | "not-tags-any" if request.since(2, 26) => {
                    let name = ["tags", "tags-any", "not-tags", "not-tags-any"];
                    let name = name.into_iter().find(|name| name == key).unwrap_or("tags");
                    matches.tags.push((name, value.split(',').map(str::to_string).collect()));
                    continue;
                }
                "locked" if request.since(2, 73) => {
                    matches.locked = Some(word_is_true(value));
                    continue;
                }
                _ => continue,
            };
            let wrong = |_| Error::bad_request(format!("Invalid regular expression: {value}"));
            matches.patterns.push((field, Regex::new(value).map_err(wrong)?));
        }
        Ok(matches)
    }

    fn nothing(&self) -> bool {
        self.patterns.is_empty() && self.tags.is_empty() && self.locked.is_none()
    }

    fn fit(&self, instance: &Instance) -> bool {
        let pattern = |(field, pattern): &(&str, Regex)| {
            let fits = |text: &str| pattern.is_match(text).unwrap_or(false);
            let optional = |text: &Option<String>| text.as_deref().is_some_and(fits);
            let fixed = |six: bool| {
                let addresses = instance.nics.iter().flat_map(|nic| &nic.port.fixed_ips);
                let mut all = addresses.flat_map(|ip| std::iter::once(&ip.address).chain(&ip.floating_ips));
                all.any(|address| address.contains(':') == six && fits(address))
            };
            match *field {
                "name" => fits(&instance.display_name),
                "description" => optional(&instance.display_description),
                "hostname" => fits(&instance.hostname),
                "key_name" => optional(&instance.key_name),
                "availability_zone" => optional(&instance.availability_zone),
                "ip" => fixed(false),
                _ => fixed(true),
            }
        };
        let tags = |(how, tags): &(&str, Vec<String>)| {
            let has = |tag: &String| instance.tags.contains(tag);
            match *how {
                "tags" => tags.iter().all(has),
                "tags-any" => tags.iter().any(has),
                "not-tags" => !tags.iter().all(has),
                _ => !tags.iter().any(has),
            }
        };
        self.patterns.iter().all(pattern)
            && self.tags.iter().all(tags)
            && self.locked.is_none_or(|locked| instance.locked_by.is_some() == locked)
    }
}

/// With a link to the next one where there may be more.
fn page(nova: &Nova, request: &Request, path: &str, shown: Vec<Json>, last: Option<&str>) -> Result<Json> {
    let limit = limit(nova, request)?;
    let more = shown.len() as u64 == limit && (request.query.has("limit") || limit == nova.options.max_limit);
    let mut body = json!({"servers": shown});
    if let (true, Some(last)) = (more, last) {
        // Upstream's order: sorted by name, the marker in its place when it was there before.
        let mut pairs: Vec<(String, String)> =
            request.query.0.iter().filter(|(key, _)| key != "marker").cloned().collect();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        let marker = ("marker".to_string(), last.to_string());
        if request.query.has("marker") {
            let at = pairs.iter().position(|(key, _)| key.as_str() > "marker").unwrap_or(pairs.len());
            pairs.insert(at, marker);
        } else {
            pairs.push(marker);
        }
        let query = pairs.iter().fold(web::Query::default().without(&[]), |mut text, (key, value)| {
            text.append_pair(key, value);
            text
        });
        let href = format!("{}/v2.1/{path}?{}", request.base_url, {
            let mut query = query;
            query.finish()
        });
        body["servers_links"] = json!([{"rel": "next", "href": href}]);
    }
    Ok(body)
}
