//! The administrator's password that a guest has left with its metadata service, encrypted with its owner's key.

use crate::{Nova, model::GuestPassword};
use base::Result;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get};

pub fn routes() -> Routes<Nova> {
    const PATH: &str = "/v2.1/servers/{server_id}/os-server-password";
    vec![
        get(PATH, "os_compute_api:os-server-password:show", show),
        delete(PATH, "os_compute_api:os-server-password:clear", clear),
    ]
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let uuid = nova.server(&request).await?.uuid;
    let found = nova.read(move |tx| tx.find::<GuestPassword>(&uuid)).await?;
    Ok(Reply::ok(json!({"password": found.map(|row| row.password).unwrap_or_default()})))
}

async fn clear(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let uuid = nova.server(&request).await?.uuid;
    nova.write(move |tx| tx.remove::<GuestPassword>(&uuid)).await?;
    Ok(Reply::no_content())
}
