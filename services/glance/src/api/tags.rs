//! Tags of an image, one at a time.

use super::{images::check_quotas, not_found};
use crate::{Glance, model::Tag, schemas, store};
use base::{Error, Result};
use db::Stored;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, delete, put};

pub fn routes() -> Routes<Glance> {
    vec![
        put("/v2/images/{image_id}/tags/{tag_value}", "modify_image", add),
        delete("/v2/images/{image_id}/tags/{tag_value}", "modify_image", remove),
    ]
}

async fn add(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let tag = request.param("tag_value").to_string();
    glance.allowed(&request).await.map_err(|error| not_found(error, &request))?;
    schemas::check(&json!({"tags": [tag]}))?;
    let (cx, id, quotas) = (request.ctx.clone(), request.param("image_id").to_string(), glance.clone());
    glance
        .db
        .write(move |tx| {
            let whole = store::visible(tx, &cx, &id)?;
            let mut tags: BTreeSet<String> = whole.tags.into_iter().collect();
            if tags.insert(tag.clone()) {
                check_quotas(&quotas, &tags, &[])?;
                tx.insert(&Tag { image_id: id.clone(), tag: tag.clone() })?;
            }
            Ok(())
        })
        .await?;
    Ok(super::nothing())
}

async fn remove(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    glance.allowed(&request).await.map_err(|error| not_found(error, &request))?;
    let (id, tag) = (request.param("image_id").to_string(), request.param("tag_value").to_string());
    match glance.db.write(move |tx| tx.delete::<Tag>(&[id.store(), tag.store()])).await? {
        true => Ok(super::nothing()),
        false => Err(Error::not_found("The resource could not be found.")),
    }
}
