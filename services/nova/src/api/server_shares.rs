//! Shares of a file service that guests have as file systems. No host here can give a guest one (virtiofs), so none is
//! ever attached: asked for one, the answer is upstream's for such a host.

use super::{checked, queries, target};
use crate::{
    Nova,
    flows::power::check_state,
    model::{Instance, TaskState, VmState},
    schemas::Form,
};
use base::{Error, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Nova> {
    const ALL: &str = "/v2.1/servers/{server_id}/shares";
    const ONE: &str = "/v2.1/servers/{server_id}/shares/{share_id}";
    let all = [
        get(ALL, "os_compute_api:os-server-shares:index", index),
        post(ALL, "os_compute_api:os-server-shares:create", create),
        get(ONE, "os_compute_api:os-server-shares:show", show),
        delete(ONE, "os_compute_api:os-server-shares:delete", remove),
    ];
    all.into_iter().map(|route| route.since(2, 97)).collect()
}

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    server(&nova, &request).await?;
    Ok(Reply::ok(json!({"shares": []})))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    queries::check(&request, &QUERY)?;
    server(&nova, &request).await?;
    Err(missing(&request))
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    checked(&request, &CREATE)?;
    let instance = server(&nova, &request).await?;
    check_state(&instance, &[VmState::Stopped], TaskState::ALL, "create share")?;
    Err(Error::conflict(
        "Feature not supported because either compute or instance are not configured correctly.",
    ))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let instance = server(&nova, &request).await?;
    check_state(&instance, &[VmState::Stopped, VmState::Error], TaskState::ALL, "delete share")?;
    Err(missing(&request))
}

/// Unlike elsewhere, a foreign server is forbidden and not unknown.
async fn server(nova: &Nova, request: &Request) -> Result<Instance> {
    let uuid = request.param("server_id").to_string();
    let found = nova.read(move |tx| tx.find::<Instance>(&uuid)).await?.filter(|found| !found.deleted);
    let Some(instance) = found else {
        let uuid = request.param("server_id");
        return Err(Error::not_found(format!("Instance {uuid} has no mapping to a cell.")));
    };
    request.can(&target(&instance))?;
    Ok(instance)
}

fn missing(request: &Request) -> Error {
    Error::not_found(format!("Share {} could not be found.", request.param("share_id")))
}

static QUERY: Form = Form::new(|| json!({"type": "object", "properties": {}, "additionalProperties": false}));

static CREATE: Form = Form::new(|| {
    json!({
        "type": "object",
        "properties": {"share": {
            "type": "object",
            "properties": {
                "share_id": {"type": "string", "format": "uuid"},
                "tag": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9-]*$"},
            },
            "required": ["share_id"],
            "additionalProperties": false,
        }},
        "required": ["share"],
        "additionalProperties": false,
    })
});
