//! Volumes that become another type or go to another back end.

use super::{body, no_body, text, volume_actions::permitted};
use crate::{
    Cinder,
    errors::{invalid_input, invalid_volume},
    model::*,
    moves, schemas,
};
use base::Result;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action};

const PATH: &str = "/v3/volumes/{volume_id}/action";

pub fn routes() -> Routes<Cinder> {
    vec![
        action(PATH, "os-retype", "volume:retype", retype),
        action(PATH, "os-migrate_volume", "volume_extension:volume_admin_actions:migrate_volume", migrate),
        action(
            PATH,
            "os-extend_volume_completion",
            "volume_extension:volume_admin_actions:extend_volume_completion",
            complete_extension,
        )
        .since(3, 71),
    ]
}

async fn retype(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::RETYPE, "os-retype")?;
    let wanted = text(&given, "new_type").unwrap_or_default().to_string();
    let may_move = text(&given, "migration_policy") == Some("on-demand");
    let volume = permitted(&cinder, &request).await?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| moves::retype(&own, tx, &cx, &volume.id, &wanted, may_move)).await?;
    Ok(no_body(StatusCode::ACCEPTED))
}

async fn migrate(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let form = if request.since(3, 16) { &schemas::MIGRATE_V316 } else { &schemas::MIGRATE };
    let given = body(&request, form, "os-migrate_volume")?;
    let host = text(&given, "host").filter(|host| !host.is_empty()).map(String::from);
    let cluster = text(&given, "cluster").filter(|name| !name.is_empty());
    // A volume that is copied is locked whether or not that is asked for; a copy by the host is the only way.
    let volume = permitted(&cinder, &request).await?;
    let host = match (host, cluster) {
        (Some(host), None) => host,
        (None, Some(name)) => return Err(moves::no_service(name)),
        _ => return Err(invalid_input("One and only one of cluster and host must be set.")),
    };
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| moves::migrate(&own, tx, &cx, &volume.id, &host)).await?;
    Ok(no_body(StatusCode::ACCEPTED))
}

/// For drivers whose extensions somebody else completes; none of ours waits for that.
async fn complete_extension(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    body(&request, &schemas::EXTEND_COMPLETION, "os-extend_volume_completion")?;
    let volume = permitted(&cinder, &request).await?;
    match volume.status {
        VolumeStatus::Extending => {
            Err(invalid_volume("Required volume admin metadata is malformed or missing."))
        }
        _ => Err(invalid_volume("Volume is not being extended.")),
    }
}
