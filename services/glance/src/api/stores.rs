//! Where bytes are kept: the stores there are, and the places of an image's bytes in them.

use crate::{
    Glance,
    model::{Image, Status},
    removal, store,
    stores::Store,
};
use base::{Error, ErrorKind, Json, Result};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get};

/// As upstream tells them to who creates an image, its own two for staging and tasks among them.
pub fn all_ids(glance: &Glance) -> String {
    let ids: Vec<&str> = glance.stores.all().iter().map(|store| store.id.as_str()).collect();
    format!("{},os_glance_staging_store,os_glance_tasks_store", ids.join(","))
}

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/info/stores", "", stores),
        get("/v2/info/stores/detail", "stores_info_detail", detail),
        get("/v2/info/usage", "", usage),
        delete("/v2/stores/{store_id}/{image_id}", "delete_image_location", remove),
    ]
}

fn view(glance: &Glance, store: &Store) -> Json {
    let mut view = json!({"id": store.id});
    if !store.description.is_empty() {
        view["description"] = json!(store.description);
    }
    if store.backend.is_read_only() {
        view["read-only"] = json!("true");
    }
    if glance.stores.is_default(store) {
        view["default"] = json!("true");
    }
    view
}

async fn stores(glance: Arc<Glance>, _: Request) -> Result<Reply> {
    let views: Vec<Json> = glance.stores.all().iter().map(|store| view(&glance, store)).collect();
    Ok(Reply::ok(json!({"stores": views})))
}

async fn detail(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let detailed = |store: &Store| {
        let mut view = view(&glance, store);
        view["type"] = json!(store.backend.kind());
        view["weight"] = json!(store.weight);
        view["properties"] = store.backend.properties();
        view
    };
    let views: Vec<Json> = glance.stores.all().iter().map(detailed).collect();
    Ok(Reply::ok(json!({"stores": views})))
}

/// Of what keystone limits, and only if it does.
async fn usage(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"usage": glance.usage(&request.ctx).await?})))
}

/// From the last store that has them, an image's bytes go with the image alone.
async fn remove(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (wanted, id) = (request.param("store_id").to_string(), request.param("image_id").to_string());
    let Some(from) = glance.stores.find(&wanted) else {
        let sentence = format!("The selected store {wanted} is not available on this node.");
        return Err(Error::conflict(sentence));
    };
    let (whole, target) = glance.image(&request).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => Error::not_found(format!("Failed to find image {id}")),
        _ => error,
    })?;
    request.can_rule("get_image_location", &target)?;
    request.can(&target)?;
    let (gone, now) = (id.clone(), glance.clock.now());
    glance
        .db
        .write(move |tx| {
            let image = tx.find::<Image>(&gone)?.ok_or_else(|| store::missing(&gone))?;
            let left = without(&image, &wanted)?;
            store::set_stores(tx, &gone, &left, now).map(drop)
        })
        .await?;
    if let Err(error) = glance.stores.remove_from(from, &whole).await.map_err(removal::in_use) {
        let (store, now) = (from.id.clone(), glance.clock.now());
        let stays = id.clone();
        glance.db.write(move |tx| store::add_store(tx, &stays, &store, now)).await?;
        return Err(match error.kind {
            ErrorKind::Conflict => Error::conflict(format!(
                "The data for Image {id} could not be deleted because it is in use: {}",
                error.message
            )),
            _ => error,
        });
    }
    Ok(super::nothing())
}

/// The stores that are left when one is taken away.
fn without(image: &Image, wanted: &str) -> Result<String> {
    if image.status != Status::Active {
        let sentence = "It's not allowed to remove image data from store if image status is not 'active'";
        return Err(Error::conflict(sentence));
    }
    let having: Vec<&str> = crate::stores::ids(image).collect();
    if having.len() == 1 {
        let sentence = "Cannot delete image data from the only store containing it. Consider deleting the image instead.";
        return Err(Error::forbidden(sentence));
    }
    if !having.contains(&wanted) {
        let id = &image.id;
        return Err(Error::not_found(format!("Image {id} is not stored in store {wanted}.")));
    }
    let left: Vec<&str> = having.into_iter().filter(|id| *id != wanted).collect();
    Ok(left.join(","))
}
