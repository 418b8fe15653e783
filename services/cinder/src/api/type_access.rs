//! Which projects may use a type that is not public.

use super::{bare, body, text, types};
use crate::{Cinder, schemas};
use base::{Error, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, action, get};

const ACTION: &str = "/v3/types/{type_id}/action";

pub fn routes() -> Routes<Cinder> {
    vec![
        get(
            "/v3/types/{type_id}/os-volume-type-access",
            "volume_extension:volume_type_access:get_all_for_type",
            list,
        ),
        action(ACTION, "addProjectAccess", "volume_extension:volume_type_access:addProjectAccess", add),
        action(
            ACTION,
            "removeProjectAccess",
            "volume_extension:volume_type_access:removeProjectAccess",
            remove,
        ),
    ]
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let kind = types::permitted(&cinder, &request).await?;
    if kind.is_public {
        return Err(Error::not_found("Access list not available for public volume types."));
    }
    let access: Vec<_> = kind
        .projects
        .iter()
        .map(|project| json!({"volume_type_id": kind.id, "project_id": project}))
        .collect();
    Ok(Reply::ok(json!({"volume_type_access": access})))
}

async fn add(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ADD_PROJECT_ACCESS, "addProjectAccess")?;
    let kind = types::permitted(&cinder, &request).await?;
    let project = text(&given, "project").unwrap_or_default().to_string();
    cinder
        .write(move |tx| {
            let mut kind = types::find(tx, &kind.id)?;
            if kind.is_public {
                return Err(public());
            }
            if kind.projects.contains(&project) {
                return Err(Error::conflict(format!(
                    "Volume type access for {} / {project} combination already exists.",
                    kind.id
                )));
            }
            kind.projects.push(project.clone());
            tx.update(&kind).map(drop)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::REMOVE_PROJECT_ACCESS, "removeProjectAccess")?;
    let kind = types::permitted(&cinder, &request).await?;
    let project = text(&given, "project").unwrap_or_default().to_string();
    cinder
        .write(move |tx| {
            let mut kind = types::find(tx, &kind.id)?;
            if kind.is_public {
                return Err(public());
            }
            if !kind.projects.contains(&project) {
                return Err(Error::not_found(format!(
                    "Volume type access not found for {} / {project} combination.",
                    kind.id
                )));
            }
            kind.projects.retain(|other| *other != project);
            tx.update(&kind).map(drop)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

fn public() -> Error {
    Error::bad_request(
        "Invalid volume type: Type access modification is not applicable to public volume type.",
    )
}
