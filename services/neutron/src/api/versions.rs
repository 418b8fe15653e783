//! Which versions there are.

use crate::Neutron;
use base::{Error, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Mark, Reply, Request, Routes, get};

pub fn routes() -> Routes<Neutron> {
    vec![get("/", "", all).marks(&[Mark::Open]), get("/v2.0", "", resources)]
}

async fn all(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    let links = json!([{"rel": "self", "href": format!("{}/v2.0/", request.base_url)}]);
    Ok(Reply::ok(json!({"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})))
}

async fn resources(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    if !request.path.ends_with('/') {
        return Err(Error::not_found("The resource could not be found."));
    }
    let one = |(name, collection): (&str, &str)| -> Json {
        let href = format!("{}/v2.0/{collection}", request.base_url);
        json!({"name": name, "collection": collection, "links": [{"rel": "self", "href": href}]})
    };
    let all =
        [("network", "networks"), ("subnet", "subnets"), ("subnetpool", "subnetpools"), ("port", "ports")];
    Ok(Reply::ok(json!({"resources": all.map(one)})))
}
