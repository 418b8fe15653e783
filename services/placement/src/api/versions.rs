//! Which versions there are.

use crate::{MAX, MIN, Placement};
use base::Result;
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, get};

pub fn routes() -> Routes<Placement> {
    vec![get("/", "", all).marks(&[Mark::Open])]
}

async fn all(_: Arc<Placement>, _: Request) -> Result<Reply> {
    let links = json!([{"rel": "self", "href": ""}]);
    let one = json!({
        "id": "v1.0", "max_version": MAX.to_string(), "min_version": MIN.to_string(), "status": "CURRENT",
        "links": links,
    });
    Ok(Reply::ok(json!({"versions": [one]})))
}
