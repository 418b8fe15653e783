//! The route table of compute, and what its nouns share.

mod versions;

use crate::{Nova, model::Instance, store};
use base::{Context, Json, Result};
use serde_json::json;
use web::{Request, Routes};

pub fn routes() -> Routes<Nova> {
    versions::routes()
}

/// Upstream asks most rules about the caller's own project.
fn own_project(request: &Request) -> Json {
    json!({"project_id": request.ctx.project_id, "user_id": request.ctx.user_id})
}

/// The target of rules about a server.
fn target(instance: &Instance) -> Json {
    json!({"project_id": instance.project_id, "user_id": instance.user_id})
}

/// What the caller's project does not have is not there for it.
fn check_visible(cx: &Context, instance: &Instance) -> Result<()> {
    let visible = cx.is_admin() || instance.project_id == cx.project_id;
    if visible { Ok(()) } else { Err(store::instance_not_found(&instance.uuid)) }
}

impl Nova {
    /// The server of the path, if the caller may do to it what the route's rule says.
    async fn server(&self, request: &Request) -> Result<Instance> {
        let uuid = request.param("server_id").to_string();
        let instance = self.read(move |tx| store::instance(tx, &uuid)).await?;
        check_visible(&request.ctx, &instance)?;
        request.can(&target(&instance))?;
        Ok(instance)
    }
}
