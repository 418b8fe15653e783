//! The type of a project's volumes that name none.

use super::{body, no_body, text};
use crate::{Cinder, model::DefaultType, requests, schemas};
use base::{Error, ErrorKind, Json, Result};
use db::{List, params, sql};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, put};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/default-types", "volume_extension:default_get_all", list).since(3, 62),
        get("/v3/default-types/{owner}", "volume_extension:default_get", show).since(3, 62),
        put("/v3/default-types/{owner}", "volume_extension:default_set_or_update", set).since(3, 62),
        delete("/v3/default-types/{owner}", "volume_extension:default_unset", unset).since(3, 62),
    ]
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let all = cinder.read(|tx| tx.list::<DefaultType>(&List::all())).await?;
    Ok(Reply::ok(json!({"default_types": all.iter().map(view).collect::<Vec<_>>()})))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let project = request.param("owner").to_string();
    let found = cinder.read(move |tx| tx.find::<DefaultType>(&project)).await?;
    let missing =
        || Error::not_found(format!("Default type for project {} not found.", request.param("owner")));
    Ok(Reply::ok(json!({"default_type": view(&found.ok_or_else(missing)?)})))
}

async fn set(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::DEFAULT_TYPE, "default_type")?;
    let wanted = text(&given, "volume_type").unwrap_or_default().to_string();
    let (cx, project) = (request.ctx.clone(), request.param("owner").to_string());
    let row = cinder
        .write(move |tx| {
            let kind = requests::type_for(tx, &cx, &wanted).map_err(|error| match error.kind {
                ErrorKind::NotFound => Error::bad_request(error.message),
                _ => error,
            })?;
            let row = DefaultType { project_id: project.clone(), volume_type_id: kind.id };
            tx.execute(
                sql!(
                    "INSERT INTO default_volume_types (project_id, volume_type_id) VALUES ($1, $2)
                     ON CONFLICT (project_id) DO UPDATE SET volume_type_id = excluded.volume_type_id"
                ),
                params![row.project_id, row.volume_type_id],
            )?;
            Ok(row)
        })
        .await?;
    Ok(Reply::ok(json!({"default_type": view(&row)})))
}

async fn unset(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let project = request.param("owner").to_string();
    cinder.write(move |tx| tx.remove::<DefaultType>(&project)).await?;
    Ok(no_body(StatusCode::NO_CONTENT))
}

fn view(row: &DefaultType) -> Json {
    json!({"project_id": row.project_id, "volume_type_id": row.volume_type_id})
}
