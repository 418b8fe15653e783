//! The version documents.

use crate::{Cinder, MAX, MIN};
use base::{Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, StatusCode, get};

pub fn routes() -> Routes<Cinder> {
    vec![get("/", "", versions).marks(&[Mark::Open]), get("/v3", "", version)]
}

async fn versions(_: Arc<Cinder>, request: Request) -> Result<Reply> {
    Ok(Reply::json(StatusCode::MULTIPLE_CHOICES, json!({"versions": [document(&request)]})))
}

async fn version(_: Arc<Cinder>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"versions": [document(&request)]})))
}

fn document(request: &Request) -> Json {
    json!({
        "id": "v3.0",
        "status": "CURRENT",
        "version": MAX.to_string(),
        "min_version": MIN.to_string(),
        "updated": "2023-08-31T00:00:00Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": format!("{}/v3/", request.base_url)},
        ],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"},
        ],
    })
}
