//! Small questions about one server: its diagnostics, its NUMA topology.

use crate::Nova;
use base::{Error, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Nova> {
    vec![
        get("/v2.1/servers/{server_id}/topology", "compute:server:topology:index", topology).since(2, 78),
        get("/v2.1/servers/{server_id}/diagnostics", "os_compute_api:os-server-diagnostics", diagnostics),
    ]
}

/// Guests have no NUMA nodes of their own: then upstream shows none.
async fn topology(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    nova.server(&request).await?;
    Ok(Reply::ok(json!({"nodes": [], "pagesize_kb": null})))
}

/// Compute agents do not measure guests yet.
async fn diagnostics(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    nova.server(&request).await?;
    Err(Error::not_implemented("The requested functionality is not supported."))
}
