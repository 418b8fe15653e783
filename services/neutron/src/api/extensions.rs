//! The list of extensions, by which clients find out what this network service can do. What is built is added to the
//! table beside this file.

use crate::Neutron;
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Neutron> {
    vec![get("/v2.0/extensions", "", index), get("/v2.0/extensions/{alias}", "", show)]
}

/// Alias, name, since when, description.
const EXTENSIONS: &str = include_str!("extensions.tsv");

async fn index(_: Arc<Neutron>, _: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"extensions": all().collect::<Vec<_>>()})))
}

async fn show(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    let alias = request.param("alias");
    let found = all().find(|extension| extension["alias"] == alias);
    let missing =
        || Error::not_found(format!("Extension with alias {alias} does not exist")).code(web::DETAIL);
    Ok(Reply::ok(json!({"extension": found.ok_or_else(missing)?})))
}

fn all() -> impl Iterator<Item = Json> {
    EXTENSIONS.lines().map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        json!({"alias": next(), "name": next(), "updated": next(), "description": next(), "links": []})
    })
}
