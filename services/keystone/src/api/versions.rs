//! Which versions there are. One: v3.14.

use crate::Keystone;
use base::{Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, StatusCode, get};

pub fn routes() -> Routes<Keystone> {
    vec![get("/", "", all).marks(&[Mark::Open]), get("/v3", "", one).marks(&[Mark::Open])]
}

async fn all(_: Arc<Keystone>, request: Request) -> Result<Reply> {
    let body = json!({"versions": {"values": [version(&request)]}});
    let reply = Reply::json(StatusCode::MULTIPLE_CHOICES, body);
    Ok(reply.header("location", format!("{}/v3/", request.base_url)))
}

async fn one(_: Arc<Keystone>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"version": version(&request)})))
}

fn version(request: &Request) -> Json {
    json!({
        "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{}/v3/", request.base_url)}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}
