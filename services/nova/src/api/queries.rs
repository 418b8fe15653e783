//! What the lists and queries of compute share: their forms, pages, links to the next page.

use crate::{Nova, schemas::Form};
use base::{Error, Json, Result};
use serde_json::{Map, json};
use web::Request;

/// A query in which keys that nobody knows are refused since a version, given with the one before it, and were
/// passed over until then.
pub fn query(until: &str, since: &str, properties: Json) -> Json {
    let form =
        |others: bool| json!({"type": "object", "properties": properties, "additionalProperties": others});
    let (mut old, mut new) = (form(true), form(false));
    old["x-until"] = until.into();
    new["x-since"] = since.into();
    json!({"allOf": [old, new]})
}

/// No key at all.
pub static NOTHING: Form = Form::new(|| query("2.101", "2.102", json!({})));

/// Values of a query come as lists.
pub fn texts() -> Json {
    json!({"type": "array", "items": {"type": "string"}})
}

pub fn counts() -> Json {
    json!({"type": "array",
           "items": {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 0, "minLength": 1}})
}

/// At most one value, with the form's version bound.
pub fn once(mut values: Json) -> Json {
    values["maxItems"] = 1.into();
    values
}

pub fn since(version: &str, mut form: Json) -> Json {
    form["x-since"] = version.into();
    form
}

/// A part of a list, whatever else is asked.
pub static OFFSET: Form =
    Form::new(|| json!({"type": "object", "properties": {"limit": counts(), "offset": counts()}}));

/// The part of a list that `offset` and `limit` name.
pub fn slice(nova: &Nova, request: &Request, rows: &Json) -> Vec<Json> {
    let number = |name: &str| request.query.get(name).and_then(|text| text.parse::<usize>().ok());
    let most = usize::try_from(nova.options.max_limit).unwrap_or(usize::MAX);
    let (offset, limit) = (number("offset").unwrap_or(0), number("limit").unwrap_or(most).min(most));
    rows.as_array().into_iter().flatten().skip(offset).take(limit).cloned().collect()
}

pub fn check(request: &Request, form: &Form) -> Result<()> {
    let mut given = Map::new();
    for (key, value) in &request.query.0 {
        if let Json::Array(values) = given.entry(key.clone()).or_insert_with(|| json!([])) {
            values.push(value.clone().into());
        }
    }
    form.at(request.version()).query(&Json::Object(given))
}

/// What part of a list is wanted.
#[derive(Clone, Debug)]
pub struct Page {
    pub limit: u64,
    pub marker: Option<String>,
}

impl Page {
    pub fn of(nova: &Nova, request: &Request) -> Result<Self> {
        let asked = match request.query.get("limit") {
            None => None,
            Some(text) => {
                let wrong = || Error::bad_request("limit param must be an integer");
                Some(text.parse::<u64>().map_err(|_| wrong())?)
            }
        };
        let limit = asked.map_or(nova.options.max_limit, |asked| asked.min(nova.options.max_limit));
        Ok(Self { limit, marker: request.query.get("marker").map(str::to_string) })
    }

    /// The rows after the marker; none when there is no such row.
    pub fn cut<T>(&self, rows: Vec<T>, is: impl Fn(&T, &str) -> bool) -> Option<Vec<T>> {
        let first = match &self.marker {
            None => 0,
            Some(marker) => rows.iter().position(|row| is(row, marker))? + 1,
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        Some(rows.into_iter().skip(first).take(limit).collect())
    }

    /// The link to the page after one that is full and ends with `last`.
    pub fn next(&self, request: &Request, noun: &str, count: usize, last: Option<&str>) -> Option<Json> {
        let last = last.filter(|_| self.limit > 0 && count as u64 == self.limit)?;
        let mut pairs: Vec<(String, String)> = request.query.0.clone();
        pairs.sort();
        match pairs.iter_mut().find(|(key, _)| key == "marker") {
            Some((_, marker)) => *marker = last.to_string(),
            None => pairs.push(("marker".into(), last.to_string())),
        }
        let query = pairs.iter().fold(web::Query::default().without(&[]), |mut query, (key, value)| {
            query.append_pair(key, value);
            query
        });
        let query = { query }.finish();
        Some(json!([{"rel": "next", "href": format!("{}/v2.1/{noun}?{query}", request.base_url)}]))
    }
}

/// A number that may have come as text; the form has seen to that it is one.
pub fn number(value: &Json) -> Option<i64> {
    match value {
        Json::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|real| real as i64)),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
