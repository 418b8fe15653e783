//! Bytes that do not come by an upload: what was staged, or what is elsewhere.

use super::body;
use crate::{
    Glance,
    model::{Image, Status},
    quotas,
    remote::Remote,
    stores,
    tasks::{self, Import, Source},
    web_download,
};
use base::{Error, Json, Result, id};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, get, post};

/// How bytes may come, besides being uploaded.
pub const METHODS: [&str; 4] = ["glance-direct", "web-download", "copy-image", "glance-download"];

pub fn routes() -> Routes<Glance> {
    vec![get("/v2/info/import", "", methods), post("/v2/images/{image_id}/import", "modify_image", import)]
}

async fn methods(glance: Arc<Glance>, _: Request) -> Result<Reply> {
    let known = &glance.options.enabled_import_methods;
    let methods = json!({"description": "Import methods available.", "type": "array", "value": known});
    Ok(Reply::ok(json!({"import-methods": methods})))
}

async fn import(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let asked = body(&request)?;
    let method = method(&glance, asked)?;
    let (whole, target) = glance.image(&request).await?;
    let image = &whole.image;
    check_state(image, method)?;
    match method {
        "copy-image" => request.can_rule("copy_image", &target)?,
        _ => request.can(&target)?,
    }
    let all_must_succeed = asked["all_stores_must_succeed"].as_bool().unwrap_or(true);
    let mut stores = wanted_stores(&glance, &request, asked)?;
    let source = match method {
        "glance-direct" => Source::Staged,
        "web-download" => {
            let uri = asked["method"]["uri"].as_str();
            let refused = || {
                let uri = uri.unwrap_or("None");
                Error::bad_request(format!("URI for web-download does not pass filtering: {uri}"))
            };
            let target = web_download::target(uri.unwrap_or_default(), &glance.options).await;
            Source::Web(target.ok_or_else(refused)?)
        }
        "glance-download" => Source::Glance(Box::new(remote(&request, &asked["method"])?)),
        _ => {
            stores = lacking(image, stores, asked["all_stores"] == true)?;
            Source::Stored
        }
    };
    if stores.is_empty() {
        // It is everywhere already.
        return Ok(accepted());
    }
    if let Source::Staged = source {
        if let Some(host) = glance.staged_elsewhere(image) {
            return glance.pass_on(&host, &request).await;
        }
        glance.check_staged_here(image)?;
    }
    let wanted: &[(&'static str, u64)] = match source {
        Source::Stored => &[(quotas::SIZE_TOTAL, 0)],
        Source::Staged => &[(quotas::SIZE_TOTAL, 0), (quotas::COUNT_UPLOADING, 0)],
        _ => &[(quotas::SIZE_TOTAL, 0), (quotas::STAGE_TOTAL, 0), (quotas::COUNT_UPLOADING, 0)],
    };
    let quota = glance.quota(&request.ctx, wanted).await?;
    let properties = match request.ctx.is_admin() {
        true => Vec::new(),
        false => glance.options.import_properties.clone().into_iter().collect(),
    };
    let cx = request.ctx.clone();
    let import = Import { cx, whole, source, stores, all_must_succeed, properties, quota };
    tasks::begin(&glance, &request.ctx, asked, import).await?;
    Ok(accepted())
}

/// With the content type that upstream leaves on it.
fn accepted() -> Reply {
    Reply::empty(StatusCode::ACCEPTED).header("content-type", "text/html; charset=UTF-8")
}

fn method<'a>(glance: &Glance, asked: &'a Json) -> Result<&'a str> {
    let required = |name: &str| Error::bad_request(format!("Import request requires a '{name}' field."));
    let method = asked.get("method").ok_or_else(|| required("method"))?;
    let name = method.get("name").ok_or_else(|| required("name"))?;
    let unknown = || {
        let name = name.as_str().map_or_else(|| name.to_string(), str::to_string);
        Error::bad_request(format!("Unknown import method name '{name}'."))
    };
    let name = name
        .as_str()
        .filter(|name| glance.options.enabled_import_methods.iter().any(|known| known == name))
        .ok_or_else(unknown)?;
    for flag in ["all_stores_must_succeed", "all_stores"] {
        if asked.get(flag).is_some_and(|value| !value.is_boolean()) {
            return Err(Error::bad_request(format!("'{flag}' must be boolean value only")));
        }
    }
    Ok(name)
}

fn check_state(image: &Image, method: &str) -> Result<()> {
    let is_copy = method == "copy-image";
    let problem = match image.status {
        Status::Active if !is_copy => "Image with status active cannot be target for import".into(),
        status if status != Status::Active && is_copy => {
            "Only images with status active can be targeted for copying".into()
        }
        status if status != Status::Queued && matches!(method, "web-download" | "glance-download") => {
            format!("Image needs to be in 'queued' state to use '{method}' method")
        }
        status if status != Status::Uploading && method == "glance-direct" => {
            "Image needs to be staged before 'glance-direct' method can be used".into()
        }
        _ if image.container_format.is_none() => "'container_format' needs to be set before import".into(),
        _ if image.disk_format.is_none() => "'disk_format' needs to be set before import".into(),
        _ => return Ok(()),
    };
    Err(Error::conflict(problem))
}

/// The image of another cloud that shall be fetched.
fn remote(request: &Request, asked: &Json) -> Result<Remote> {
    let text = |name: &str| {
        let lacking =
            || Error::bad_request(format!("'{name}' needs to be set for glance-download import method"));
        asked[name].as_str().map(str::to_string).ok_or_else(lacking)
    };
    let (region, image_id) = (text("glance_region")?, text("glance_image_id")?);
    if !id::is_uuid(&image_id) {
        let sentence = format!("Remote image id does not look like a UUID: {image_id}");
        return Err(Error::bad_request(sentence));
    }
    let interface = asked["glance_service_interface"].as_str().unwrap_or("public").to_string();
    Ok(Remote { cx: request.ctx.clone(), region, interface, image_id })
}

/// The stores that the body, a header or nobody names, each once.
fn wanted_stores(glance: &Glance, request: &Request, asked: &Json) -> Result<Vec<String>> {
    let header = request.header("x-image-meta-store");
    let named = asked.get("stores");
    if asked["all_stores"] == true {
        if named.is_some() || header.is_some() {
            let sentence =
                "All_stores parameter can't be used with x-image-meta-store header or stores parameter";
            return Err(Error::bad_request(sentence));
        }
        let written = glance.stores.all().iter().filter(|store| !store.backend.is_read_only());
        return Ok(written.map(|store| store.id.clone()).collect());
    }
    let Some(named) = named else {
        let store = match header {
            Some(id) => glance.stores.asked(id)?,
            None => glance.stores.default(),
        };
        return Ok(vec![store.id.clone()]);
    };
    if header.is_some() {
        let sentence = "Stores parameter and x-image-meta-store header can't be both specified";
        return Err(Error::bad_request(sentence));
    }
    let named = named.as_array().filter(|named| !named.is_empty());
    let named = named.ok_or_else(|| Error::bad_request("'stores' must be a list of at least one store"))?;
    let mut wanted: Vec<String> = Vec::new();
    for id in named {
        let id = &glance.stores.asked(id.as_str().unwrap_or_default())?.id;
        if !wanted.contains(id) {
            wanted.push(id.clone());
        }
    }
    Ok(wanted)
}

/// Of these stores, those that an image is yet to be copied to.
fn lacking(image: &Image, wanted: Vec<String>, all: bool) -> Result<Vec<String>> {
    let having: Vec<&str> = stores::ids(image).collect();
    match wanted.iter().find(|id| having.contains(&id.as_str())) {
        Some(id) if !all => Err(Error::bad_request(format!("Image is already present at store '{id}'"))),
        _ => Ok(wanted.into_iter().filter(|id| !having.contains(&id.as_str())).collect()),
    }
}
