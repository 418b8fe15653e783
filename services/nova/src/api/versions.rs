//! Which versions there are.

use crate::{MAX, MIN, Nova};
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, StatusCode, get};

pub fn routes() -> Routes<Nova> {
    vec![
        get("/", "", all).marks(&[Mark::Open]),
        get("/v2.1", "", one).marks(&[Mark::Open]),
        get("/v2.1/versions/{version}", "", by_id),
        get("/{path}", "", choices).marks(&[Mark::Open]),
    ]
}

async fn all(_: Arc<Nova>, request: Request) -> Result<Reply> {
    let line = |old: bool| {
        let mut version = version(old);
        version["links"] = json!([link(&request, old)]);
        version
    };
    Ok(Reply::ok(json!({"versions": [line(true), line(false)]})))
}

async fn one(_: Arc<Nova>, request: Request) -> Result<Reply> {
    Ok(in_full(&request, !request.path.starts_with("/v2.1")))
}

async fn by_id(_: Arc<Nova>, request: Request) -> Result<Reply> {
    match request.param("version") {
        "v2.1" => Ok(in_full(&request, false)),
        "v2.0" => Ok(in_full(&request, true)),
        _ => Err(Error::not_found("The resource could not be found.")),
    }
}

fn in_full(request: &Request, old: bool) -> Reply {
    let mut version = version(old);
    let number = if old { "2" } else { "2.1" };
    let docs = json!({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"});
    version["links"] = json!([link(request, old), docs]);
    version["media-types"] = json!([{
        "base": "application/json", "type": format!("application/vnd.openstack.compute+json;version={number}"),
    }]);
    Reply::ok(json!({"version": version}))
}

/// Where the path may have been meant to lead.
async fn choices(_: Arc<Nova>, request: Request) -> Result<Reply> {
    let choice = |id: &str, root: &str, number: &str, status: &str| {
        let href = format!("{}/{root}{}", request.base_url, request.path);
        json!({
            "id": id, "status": status, "links": [{"rel": "self", "href": href}],
            "media-types": [{
                "base": "application/json",
                "type": format!("application/vnd.openstack.compute+json;version={number}"),
            }],
        })
    };
    let choices = [choice("v2.0", "v2", "2", "DEPRECATED"), choice("v2.1", "v2.1", "2.1", "CURRENT")];
    Ok(Reply::json(StatusCode::MULTIPLE_CHOICES, json!({ "choices": choices })))
}

fn version(old: bool) -> Json {
    match old {
        true => json!({
            "id": "v2.0", "status": "DEPRECATED", "version": "", "min_version": "",
            "updated": "2011-01-21T11:33:21Z",
        }),
        false => json!({
            "id": "v2.1", "status": "CURRENT", "version": MAX.to_string(), "min_version": MIN.to_string(),
            "updated": "2013-07-23T11:33:21Z",
        }),
    }
}

fn link(request: &Request, old: bool) -> Json {
    let number = if old { "v2" } else { "v2.1" };
    json!({"rel": "self", "href": format!("{}/{number}/", request.base_url)})
}
