//! Which versions there are: one, v3.14; the home document; and what of v3 is gone.

use super::json_home;
use crate::Keystone;
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, StatusCode, get};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/", "", all).marks(&[Mark::Open]),
        get("/v3", "", one).marks(&[Mark::Open]),
        get("/v3/OS-SIMPLE-CERT/ca", "", gone).marks(&[Mark::Open]),
        get("/v3/OS-SIMPLE-CERT/certificates", "", gone).marks(&[Mark::Open]),
    ]
}

async fn all(_: Arc<Keystone>, request: Request) -> Result<Reply> {
    if json_home::wanted(&request) {
        return Ok(json_home::reply("/v3"));
    }
    let body = json!({"versions": {"values": [version(&request)]}});
    let reply = Reply::json(StatusCode::MULTIPLE_CHOICES, body);
    Ok(reply.header("location", format!("{}/v3/", request.base_url)))
}

async fn one(_: Arc<Keystone>, request: Request) -> Result<Reply> {
    if json_home::wanted(&request) {
        return Ok(json_home::reply(""));
    }
    Ok(Reply::ok(json!({"version": version(&request)})))
}

/// PKI tokens went, and their certificates with them; clients still ask.
async fn gone(_: Arc<Keystone>, _: Request) -> Result<Reply> {
    Err(Error::gone("This API is no longer available due to the removal of support for PKI tokens."))
}

fn version(request: &Request) -> Json {
    json!({
        "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{}/v3/", request.base_url)}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}
