//! Lists as neutron answers them: filters on every attribute, several sort keys, pages with links, chosen fields.

use crate::{
    attributes::boolean,
    errors::{bad, bad_resource, missing},
};
use base::{Error, Json, Result};
use db::{Direction, Filter, Kind, List, Op, Resource, Stored, Tx, Value};
use serde_json::{Map, json};
use web::{Reply, Request};

/// A list as it was asked for.
#[derive(Clone)]
pub struct Wanted {
    pub list: List,
    reverse: bool,
    limit: Option<u64>,
}

/// Tags of one filter that are looked at.
const TAGS_MAX: usize = 32;

const NO_FILTERS: [&str; 7] =
    ["fields", "limit", "marker", "sort_key", "sort_dir", "page_reverse", "revision_number"];

impl Wanted {
    /// `special` answers a filter of a name that is no column of its own; none: there is no such filter.
    pub fn parse<T: Resource>(
        request: &Request,
        max: u64,
        special: impl Fn(&str, &[&str]) -> Result<Option<Filter>>,
    ) -> Result<Self> {
        let query = &request.query;
        let mut list = List::all();
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in &query.0 {
            if !names.contains(&name.as_str()) && !NO_FILTERS.contains(&name.as_str()) {
                names.push(name);
            }
        }
        for name in names {
            let values: Vec<&str> = query.all(name).collect();
            list = list.filter(filter::<T>(name, &values, &special)?);
        }
        let (keys, directions): (Vec<&str>, Vec<&str>) =
            (query.all("sort_key").collect(), query.all("sort_dir").collect());
        if keys.len() != directions.len() {
            return Err(bad("The number of sort_keys and sort_dirs must be same"));
        }
        let reverse = query.flag("page_reverse").ok().flatten().unwrap_or(false);
        let mut sort = Vec::new();
        for (key, direction) in keys.iter().zip(directions) {
            let column = T::TABLE.fields.iter().find(|f| f.sort && is_named(f.json, key));
            let column =
                column.ok_or_else(|| bad(format!("['{key}'] is invalid attribute for sort_keys")))?;
            let direction = match direction {
                "asc" => Direction::Asc,
                "desc" => Direction::Desc,
                other => {
                    return Err(bad(format!(
                        "['{other}'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'"
                    )));
                }
            };
            sort.push((column.column, direction));
        }
        if sort.is_empty() {
            sort.push(("id", Direction::Asc));
        }
        for (column, direction) in sort {
            let turned = match (direction, reverse) {
                (Direction::Asc, true) => Direction::Desc,
                (Direction::Desc, true) => Direction::Asc,
                (direction, false) => direction,
            };
            list = list.sort(column, turned);
        }
        let limit = match query.get("limit") {
            None => None,
            Some(text) => match text.parse::<u64>() {
                Ok(0) => None,
                Ok(number) => Some(number),
                Err(_) => {
                    let sentence = format!("Limit must be an integer 0 or greater and not '{text}'");
                    return Err(bad_resource("limit", sentence));
                }
            },
        };
        let limit = match (limit, max) {
            (limit, 0) => limit,
            (None, max) => Some(max),
            (Some(limit), max) => Some(limit.min(max)),
        };
        if let Some(limit) = limit {
            list = list.limit(limit);
        }
        if let Some(marker) = query.get("marker") {
            list = list.marker(marker);
        }
        Ok(Self { list, reverse, limit })
    }

    /// `unknown` is the error of a marker that there is not.
    pub fn find<T: Resource>(&self, tx: &mut Tx, unknown: (&'static str, &str)) -> Result<Vec<T>> {
        let found = tx.list::<T>(&self.list).map_err(|error| match error.code.as_deref() {
            Some("marker") => {
                let id = self.list.marker.clone().unwrap_or_default();
                missing(unknown.0, unknown.1.replace("{}", &id))
            }
            _ => error,
        });
        let mut found = found?;
        if self.reverse {
            found.reverse();
        }
        Ok(found)
    }

    /// The answer: views with the fields that were asked for, and links to the pages beside.
    pub fn reply(&self, request: &Request, plural: &str, views: Vec<Json>) -> Reply {
        let ids: Vec<String> =
            views.iter().filter_map(|view| view["id"].as_str().map(str::to_string)).collect();
        let mut body =
            json!({ plural: views.into_iter().map(|view| chosen(request, view)).collect::<Vec<_>>() });
        let links = self.links(request, &ids);
        if !links.is_empty() {
            body[format!("{plural}_links")] = json!(links);
        }
        Reply::ok(body)
    }

    fn links(&self, request: &Request, ids: &[String]) -> Vec<Json> {
        let Some(limit) = self.limit else { return Vec::new() };
        let mut links = Vec::new();
        let link = |rel: &str, marker: Option<&String>, back: bool| {
            let mut query = request.query.without(&["marker", "page_reverse"]);
            if let Some(marker) = marker {
                query.append_pair("marker", marker);
            }
            if back {
                query.append_pair("page_reverse", "True");
            }
            let href = format!("{}{}?{}", request.base_url, request.path, query.finish());
            json!({"rel": rel, "href": href})
        };
        // As upstream has it: a full page has both, and one that is short the one back.
        let is_short = (ids.len() as u64) < limit;
        if !is_short || self.reverse {
            links.push(link("next", ids.last(), false));
        }
        if !is_short || !self.reverse {
            links.push(link("previous", ids.first(), true));
        }
        links
    }
}

/// Only the fields that were asked for.
pub fn chosen(request: &Request, view: Json) -> Json {
    let fields: Vec<&str> = request.query.all("fields").filter(|field| !field.is_empty()).collect();
    match view {
        Json::Object(object) if !fields.is_empty() => {
            let kept: Map<String, Json> =
                object.into_iter().filter(|(name, _)| fields.contains(&name.as_str())).collect();
            Json::Object(kept)
        }
        view => view,
    }
}

fn is_named(json: &str, name: &str) -> bool {
    json == name || (json == "project_id" && name == "tenant_id")
}

fn filter<T: Resource>(
    name: &str,
    values: &[&str],
    special: &impl Fn(&str, &[&str]) -> Result<Option<Filter>>,
) -> Result<Filter> {
    if let Some(filter) = special(name, values)? {
        return Ok(filter);
    }
    if let Some(filter) = tags(name, values) {
        return Ok(filter);
    }
    let field = T::TABLE.fields.iter().find(|f| f.filter && is_named(f.json, name));
    let field = field.ok_or_else(|| bad(format!("['{name}'] is invalid attribute for filtering")))?;
    let values: Vec<Value> = values.iter().map(|text| value(field.kind, text)).collect::<Result<_>>()?;
    if field.null && values.contains(&Value::Null) {
        return Ok(Filter::is_null(field.column));
    }
    Ok(Filter { column: field.column, op: Op::In, values })
}

fn value(kind: Kind, text: &str) -> Result<Value> {
    Ok(match kind {
        Kind::Bool => boolean(&json!(text))?.store(),
        Kind::Int => match text.parse::<i64>() {
            Ok(number) => number.store(),
            Err(_) if text == "None" => Value::Null,
            Err(_) => return Err(bad(format!("'{text}' is not an integer"))),
        },
        _ => text.store(),
    })
}

/// `tags=a,b` (all of them), `tags-any`, `not-tags`, `not-tags-any`.
fn tags(name: &str, values: &[&str]) -> Option<Filter> {
    let wanted: Vec<String> = values
        .iter()
        .flat_map(|text| text.split(','))
        .take(TAGS_MAX)
        .map(|tag| format!("%{}%", json!(tag).to_string().replace('%', r"\%").replace('_', r"\_")))
        .collect();
    let like = |join: &str| vec![r"tags LIKE ? ESCAPE '\'"; wanted.len()].join(join);
    let sql = match name {
        "tags" => format!("({})", like(" AND ")),
        "tags-any" => format!("({})", like(" OR ")),
        "not-tags" => format!("NOT ({})", like(" AND ")),
        "not-tags-any" => format!("NOT ({})", like(" OR ")),
        _ => return None,
    };
    // A text for each number of tags, of which there are few: one of each is kept.
    Some(Filter::sql(interned(sql), wanted.iter().map(Stored::store)))
}

fn interned(sql: String) -> &'static str {
    use std::{collections::HashSet, sync::Mutex};
    static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    match texts.get(sql.as_str()) {
        Some(text) => text,
        None => {
            let text: &'static str = Box::leak(sql.into_boxed_str());
            texts.insert(text);
            text
        }
    }
}

/// The error of one that is not there or not to be seen.
pub fn not_found(noun: (&'static str, &str), id: &str) -> Error {
    missing(noun.0, noun.1.replace("{}", id))
}
