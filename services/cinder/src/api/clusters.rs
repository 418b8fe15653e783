//! Clusters of back ends that share their storage: there are none, and clients that ask are told so.

use super::text;
use crate::{Cinder, errors::invalid_input, schemas};
use base::{Error, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get, put};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/clusters", "clusters:get_all", list).since(3, 7),
        get("/v3/clusters/detail", "clusters:get_all", list).since(3, 7),
        get("/v3/clusters/{name}", "clusters:get", show).since(3, 7),
        put("/v3/clusters/enable", "clusters:update", change).since(3, 7),
        put("/v3/clusters/disable", "clusters:update", change).since(3, 7),
    ]
}

const FILTERS: &[&str] = &["name", "binary", "is_up", "disabled", "num_hosts", "num_down_hosts"];
const REPLICATION_FILTERS: &[&str] = &["replication_status", "frozen", "active_backend_id"];

async fn list(_cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let known =
        |key: &str| FILTERS.contains(&key) || request.since(3, 26) && REPLICATION_FILTERS.contains(&key);
    let unknown: Vec<&str> =
        request.query.0.iter().map(|(key, _)| key.as_str()).filter(|key| !known(key)).collect();
    match unknown.is_empty() {
        true => Ok(Reply::ok(json!({"clusters": []}))),
        false => Err(invalid_input(format!("Invalid filter keys: {}", unknown.join(", ")))),
    }
}

async fn show(_cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    Err(missing(request.query.get("binary").unwrap_or("cinder-volume"), request.param("name")))
}

async fn change(_cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    schemas::CLUSTER.body(request.json())?;
    let given = request.json().as_object().cloned().unwrap_or_default();
    Err(missing(text(&given, "binary").unwrap_or("cinder-volume"), text(&given, "name").unwrap_or_default()))
}

fn missing(binary: &str, name: &str) -> Error {
    Error::not_found(format!("Cluster {{'binary': '{binary}', 'name': '{name}'}} could not be found."))
}
