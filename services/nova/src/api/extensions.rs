//! The list of extensions, which old clients read to learn what the API can do. It has not changed for years.

use super::own_project;
use crate::Nova;
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    vec![
        get("/v2.1/extensions", "os_compute_api:extensions", index),
        get("/v2.1/extensions/{alias}", "os_compute_api:extensions", show),
    ]
}

/// Alias, name, description.
const EXTENSIONS: &str = include_str!("extensions.tsv");

async fn index(_: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    Ok(Reply::ok(json!({"extensions": all().collect::<Vec<_>>()})))
}

async fn show(_: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&own_project(&request))?;
    let found = all().find(|one| one["alias"] == request.param("alias"));
    let missing = || Error::not_found("The resource could not be found.");
    Ok(Reply::ok(json!({"extension": found.ok_or_else(missing)?})))
}

fn all() -> impl Iterator<Item = Json> {
    EXTENSIONS.lines().map(|line| {
        let mut columns = line.split('\t').map(|text| text.replace("\\n", "\n"));
        let mut next = || columns.next().unwrap_or_default();
        json!({
            "alias": next(), "name": next(), "description": next(), "links": [],
            "namespace": "http://docs.openstack.org/compute/ext/fake_xml", "updated": "2014-12-03T00:00:00Z",
        })
    })
}
