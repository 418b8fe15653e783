//! What all lists share: filters, sort keys, marker, limit, offset, and the link to the next page.

use super::prefix;
use crate::{Options, errors::invalid_input};
use base::{Error, Json, Result, Timestamp};
use db::{Direction, Filter, Kind, List, Op, Resource, Table, Tx, Value};
use serde_json::json;
use web::{Reply, Request};

/// Query keys that are no filters.
const PAGING: &[&str] =
    &["limit", "marker", "offset", "sort", "sort_key", "sort_dir", "with_count", "list_volume"];

#[derive(Clone, Debug)]
pub struct Page {
    pub limit: u64,
    pub offset: u64,
    pub marker: Option<String>,
    pub sort: Vec<(&'static str, Direction)>,
}

/// Reads the query's paging. Names in bodies that columns have not are renamed.
pub fn page(request: &Request, options: &Options, table: &'static Table, names: Names) -> Result<Page> {
    Ok(Page { sort: sort(request, table, names)?, ..limits(request, options)? })
}

fn limits(request: &Request, options: &Options) -> Result<Page> {
    let query = &request.query;
    let limit = match query.get("limit") {
        None => options.osapi_max_limit,
        Some(text) => {
            let limit: i64 =
                text.trim().parse().map_err(|_| Error::bad_request("limit param must be an integer"))?;
            let limit =
                u64::try_from(limit).map_err(|_| Error::bad_request("limit param must be positive"))?;
            limit.min(options.osapi_max_limit)
        }
    };
    let offset = match query.get("offset") {
        None => 0,
        Some(text) => {
            let refusal = |what: &str| Error::bad_request(format!("offset must be {what}"));
            let offset: i64 = text.trim().parse().map_err(|_| refusal("an integer"))?;
            u64::try_from(offset).map_err(|_| refusal(">= 0"))?
        }
    };
    Ok(Page { limit, offset, marker: query.get("marker").map(String::from), sort: Vec::new() })
}

/// For lists that are in no table: what to sort by, and whether ascending; the rest of the paging.
pub fn plain_page(request: &Request, options: &Options) -> Result<(Vec<(String, bool)>, Page)> {
    let limits = limits(request, options)?;
    let mut keys = Vec::new();
    for (key, direction) in sort_pairs(request, "reference")? {
        match direction.as_str() {
            "" | "desc" => keys.push((key, false)),
            "asc" => keys.push((key, true)),
            other => return Err(Error::bad_request(format!("Invalid sort dirs passed: {other}"))),
        }
    }
    Ok((keys, limits))
}

pub type Names = &'static [(&'static str, &'static str)];

fn renamed(names: Names, key: &str) -> &str {
    names.iter().find(|(name, _)| *name == key).map_or(key, |(_, column)| column)
}

fn sort_pairs(request: &Request, default: &str) -> Result<Vec<(String, String)>> {
    let query = &request.query;
    if query.has("sort") && (query.has("sort_key") || query.has("sort_dir")) {
        return Err(Error::bad_request(
            "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
        ));
    }
    Ok(match query.get("sort") {
        Some(text) => {
            let parts = text.trim().split(',').map(|part| part.split_once(':').unwrap_or((part, "")));
            parts.map(|(key, direction)| (key.trim().into(), direction.trim().into())).collect()
        }
        None => {
            let key = query.get("sort_key").unwrap_or(default).trim();
            vec![(key.into(), query.get("sort_dir").unwrap_or_default().trim().into())]
        }
    })
}

fn sort(request: &Request, table: &'static Table, names: Names) -> Result<Vec<(&'static str, Direction)>> {
    let mut order = Vec::new();
    for (key, direction) in &sort_pairs(request, "created_at")? {
        let direction = match direction.as_str() {
            "" | "desc" => Direction::Desc,
            "asc" => Direction::Asc,
            _ => return Err(invalid_input("Unknown sort direction, must be 'desc' or 'asc'.")),
        };
        let field = table.fields.iter().find(|field| field.sort && field.column == renamed(names, key));
        let field = field.ok_or_else(|| invalid_input("Invalid sort key"))?;
        order.push((field.column, direction));
    }
    Ok(order)
}

/// The query's pairs that are no paging.
pub fn filters(request: &Request) -> Vec<(String, String)> {
    let pairs = request.query.0.iter();
    pairs.filter(|(key, _)| !PAGING.contains(&key.as_str())).cloned().collect()
}

/// Drops, or from 3.31 refuses, what only administrators may filter by.
pub fn allowed(request: &Request, given: &mut Vec<(String, String)>, names: &[&str]) -> Result<()> {
    if request.ctx.is_admin() {
        return Ok(());
    }
    // Clients always send it.
    given.retain(|(key, _)| key != "all_tenants");
    if !request.since(3, 31) {
        given.retain(|(key, _)| names.contains(&key.as_str()));
        return Ok(());
    }
    let invalid: Vec<&str> =
        given.iter().map(|(key, _)| key.as_str()).filter(|key| !names.contains(key)).collect();
    match invalid.is_empty() {
        true => Ok(()),
        false => Err(Error::bad_request(format!(
            "Invalid filters {} are found in query options.",
            invalid.join(",")
        ))),
    }
}

/// What a plain list's query asks for, in the caller's project or, for administrators that say so, in all. None:
/// nothing can match.
pub fn conditions(
    request: &Request,
    table: &'static Table,
    names: Names,
    users: &[&str],
) -> Result<Option<Vec<Filter>>> {
    let mut given = filters(request);
    allowed(request, &mut given, users)?;
    let everywhere = request.ctx.is_admin()
        && given.iter().any(|(key, value)| key == "all_tenants" && super::word_is_true(value));
    let own = (!everywhere).then(|| Filter::eq("project_id", &request.ctx.project_id));
    let wanted = given.iter().filter(|(key, _)| key != "all_tenants");
    let wanted = wanted.map(|(key, value)| condition(table, names, key, value));
    Ok(own.into_iter().map(Some).chain(wanted).collect())
}

/// A page of a list, with the link to the next one, and how many there are in all if that was asked for.
pub fn answer(
    request: &Request,
    plural: &str,
    detail: bool,
    page: &Page,
    shown: Vec<Json>,
    total: Option<usize>,
) -> Reply {
    let path = if detail { format!("{plural}/detail") } else { plural.to_string() };
    let last = shown.last().and_then(|one| one["id"].as_str()).map(String::from);
    let next = next_links(request, &path, page, last.as_deref(), shown.len());
    let mut answer = json!({plural: shown});
    if let Some(next) = next {
        answer[format!("{plural}_links")] = next;
    }
    if let Some(total) = total {
        answer["count"] = total.into();
    }
    Reply::ok(answer)
}

/// Whether the answer says how many there are.
pub fn with_count(request: &Request) -> Result<bool> {
    Ok(request.since(3, 45) && super::query_flag(request, "with_count")?)
}

/// A condition on a column that may be filtered by; none: nothing can match.
pub fn condition(table: &'static Table, names: Names, key: &str, text: &str) -> Option<Filter> {
    let (key, op) = match key.strip_suffix('~') {
        Some(key) => (key, Op::Like),
        None => (key, Op::Eq),
    };
    let field = table.fields.iter().find(|field| field.filter && field.column == renamed(names, key))?;
    let value = match (field.kind, op) {
        (Kind::Text, Op::Like) => Value::Text(format!("%{}%", escaped(text))),
        (Kind::Text, _) => Value::Text(text.into()),
        (_, Op::Like) => return None,
        (Kind::Int, _) => Value::Int(text.trim().parse().ok()?),
        (Kind::Bool, _) => Value::Bool(super::word_is_true(text)),
        (Kind::Time, _) => Value::Int(Timestamp::parse(text)?.0),
        _ => return None,
    };
    Some(Filter { column: field.column, op, values: vec![value] })
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_")
}

/// `gt:2026-01-01T00:00:00,lt:…`
pub fn times(column: &'static str, text: &str) -> Result<Vec<Filter>> {
    text.split(',')
        .map(|unit| {
            let (operator, time) = unit.split_once(':').unwrap_or((unit, ""));
            let op = match operator {
                "gt" => Op::Gt,
                "gte" => Op::Ge,
                "eq" => Op::Eq,
                "neq" => Op::Ne,
                "lt" => Op::Lt,
                "lte" => Op::Le,
                _ => return Err(Error::bad_request(format!("Invalid {operator} operator"))),
            };
            let time =
                Timestamp::parse(time).ok_or_else(|| Error::bad_request(format!("Invalid {time} value")))?;
            Ok(Filter { column, op, values: vec![Value::Int(time.0)] })
        })
        .collect()
}

/// `{'colour': 'red'}` as Python or JSON writes it.
pub fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parsed: Json =
        serde_json::from_str(text).or_else(|_| serde_json::from_str(&text.replace('\'', "\""))).ok()?;
    let object = parsed.as_object()?;
    object.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_string()))).collect()
}

/// A page, and how many there are in all. `keep` is what columns cannot say.
pub fn fetch<T: Resource>(
    tx: &mut Tx,
    page: &Page,
    filters: &[Filter],
    keep: Option<&(dyn Fn(&T) -> bool + Send)>,
    id: impl Fn(&T) -> &str,
    missing: impl Fn(&str) -> Error,
) -> Result<(Vec<T>, usize)> {
    let mut wanted = List { filters: filters.to_vec(), sort: page.sort.clone(), ..List::default() };
    let (offset, limit) = (page.offset as usize, page.limit as usize);
    let Some(keep) = keep else {
        let total = tx.count::<T>(filters)? as usize;
        wanted.limit = Some(page.limit.saturating_add(page.offset));
        wanted.marker = page.marker.clone();
        let found = tx.list::<T>(&wanted).map_err(|error| match &page.marker {
            Some(marker) if error.code.as_deref() == Some("marker") => missing(marker),
            _ => error,
        })?;
        return Ok((found.into_iter().skip(offset).collect(), total));
    };
    let all: Vec<T> = tx.list::<T>(&wanted)?;
    let total = all.iter().filter(|one| keep(one)).count();
    let after = match &page.marker {
        None => 0,
        Some(marker) => all.iter().position(|one| id(one) == marker).ok_or_else(|| missing(marker))? + 1,
    };
    Ok((all.into_iter().skip(after).filter(|one| keep(one)).skip(offset).take(limit).collect(), total))
}

/// `[{"rel": "next", …}]` when there may be more.
pub fn next_links(
    request: &Request,
    path: &str,
    page: &Page,
    last_id: Option<&str>,
    count: usize,
) -> Option<Json> {
    let last_id = last_id.filter(|_| count as u64 == page.limit)?;
    let mut query = request.query.without(&["marker"]);
    query.append_pair("marker", last_id);
    Some(json!([{"rel": "next", "href": format!("{}/{path}?{}", prefix(request), query.finish())}]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dicts_of_python_and_json() {
        let red = Some(vec![("colour".to_string(), "red".to_string())]);
        assert_eq!(pairs("{'colour':'red'}"), red);
        assert_eq!(pairs(r#"{"colour": "red"}"#), red);
        assert_eq!(pairs("colour"), None);
    }

    #[test]
    fn comparisons_of_times() {
        let filters = times("created_at", "gt:2026-01-01T00:00:00,lte:2026-02-01T00:00:00").unwrap();
        assert_eq!(filters.iter().map(|f| f.op).collect::<Vec<_>>(), [Op::Gt, Op::Le]);
        assert!(times("created_at", "after:2026-01-01").is_err() && times("created_at", "gt:soon").is_err());
    }
}
