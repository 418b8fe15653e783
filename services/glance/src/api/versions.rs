//! Which versions there are.

use crate::Glance;
use base::{Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, StatusCode, get};

const VERSIONS: [&str; 16] = [
    "v2.15", "v2.13", "v2.12", "v2.11", "v2.10", "v2.9", "v2.8", "v2.17", "v2.7", "v2.6", "v2.5", "v2.4",
    "v2.3", "v2.2", "v2.1", "v2.0",
];
const CURRENT: &str = "v2.17";

pub fn routes() -> Routes<Glance> {
    vec![get("/", "", choices).marks(&[Mark::Open]), get("/versions", "", all).marks(&[Mark::Open])]
}

async fn choices(_: Arc<Glance>, request: Request) -> Result<Reply> {
    Ok(Reply::json(StatusCode::MULTIPLE_CHOICES, view(&request)))
}

async fn all(_: Arc<Glance>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(view(&request)))
}

fn view(request: &Request) -> Json {
    let links = json!([{"rel": "self", "href": format!("{}/v2/", request.base_url)}]);
    let one = |id: &&'static str| {
        let status = if id == &CURRENT { "CURRENT" } else { "SUPPORTED" };
        json!({"id": id, "status": status, "links": links})
    };
    json!({"versions": VERSIONS.iter().map(one).collect::<Vec<_>>()})
}
