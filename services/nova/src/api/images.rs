//! Images as compute once showed them, until 2.35, and their metadata, until 2.38: glance's, asked of it in the
//! caller's name.

use super::{checked, links, queries, word_is_true};
use crate::{Nova, schemas, schemas::Form};
use base::{Error, ErrorKind, Json, Result};
use serde_json::{Map, json};
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Nova> {
    const ONE: &str = "/v2.1/images/{image_id}";
    const METADATA: &str = "/v2.1/images/{image_id}/metadata";
    const ITEM: &str = "/v2.1/images/{image_id}/metadata/{key}";
    // Glance alone says who may.
    let images = [
        get("/v2.1/images", "", index),
        get("/v2.1/images/detail", "", detail),
        get(ONE, "", show),
        delete(ONE, "", remove),
    ];
    let metadata = [
        get(METADATA, "", list_metadata),
        post(METADATA, "", merge_metadata),
        put(METADATA, "", replace_metadata),
        get(ITEM, "", show_item),
        put(ITEM, "", set_item),
        delete(ITEM, "", remove_item),
    ];
    let images = images.into_iter().map(|route| route.until(2, 35));
    images.chain(metadata.into_iter().map(|route| route.until(2, 38))).collect()
}

const IMAGES: &str = "/v2/images";

async fn index(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, "images", basic).await
}

async fn detail(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    list(&nova, &request, "images/detail", view).await
}

async fn list(
    nova: &Nova,
    request: &Request,
    path: &str,
    view: fn(&Nova, &Request, &Json) -> Json,
) -> Result<Reply> {
    queries::check(request, &QUERY)?;
    let mut query = Vec::new();
    for (key, value) in &request.query.0 {
        match (key.as_str(), value) {
            ("name" | "limit" | "marker", value) => query.push((key.clone(), value.clone())),
            ("status", value) => query.push(("status".into(), value.to_lowercase())),
            ("changes-since", value) => query.push(("updated_at".into(), format!("gte:{value}"))),
            ("minRam", value) => query.push(("min_ram".into(), value.clone())),
            ("minDisk", value) => query.push(("min_disk".into(), value.clone())),
            ("type", value) => query.push(("image_type".into(), value.clone())),
            ("server", value) => {
                let id = value.rsplit('/').next().unwrap_or_default();
                query.push(("instance_uuid".into(), id.to_string()));
            }
            (key, value) => {
                if let Some(property) = key.strip_prefix("property-") {
                    query.push((property.to_string(), value.clone()));
                }
            }
        }
    }
    let query = { form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish() };
    let found = ask(nova, request, "GET", &format!("{IMAGES}?{query}"), None).await?;
    let images = found["images"].as_array().cloned().unwrap_or_default();
    let mut shown = json!({"images": images.iter().map(|one| view(nova, request, one)).collect::<Vec<_>>()});
    let page = queries::Page::of(nova, request)?;
    let last = images.last().and_then(|image| image["id"].as_str());
    if let Some(next) = page.next(request, path, images.len(), last) {
        shown["images_links"] = next;
    }
    Ok(Reply::ok(shown))
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let image = image(&nova, &request).await?;
    Ok(Reply::ok(json!({"image": view(&nova, &request, &image)})))
}

async fn remove(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let path = format!("{IMAGES}/{}", request.param("image_id"));
    ask(&nova, &request, "DELETE", &path, None).await.map_err(|error| match error.kind {
        ErrorKind::Forbidden => Error::forbidden("You are not allowed to delete the image."),
        _ => error,
    })?;
    Ok(Reply::no_content())
}

async fn list_metadata(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(json!({"metadata": properties(&image(&nova, &request).await?)})))
}

async fn merge_metadata(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::METADATA)?["metadata"].clone();
    let before = properties(&image(&nova, &request).await?);
    let mut after = before.clone();
    after.extend(given.as_object().cloned().unwrap_or_default());
    change(&nova, &request, &before, &after).await?;
    Ok(Reply::ok(json!({"metadata": after})))
}

async fn replace_metadata(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::METADATA)?["metadata"].clone();
    let before = properties(&image(&nova, &request).await?);
    let after = given.as_object().cloned().unwrap_or_default();
    change(&nova, &request, &before, &after).await?;
    Ok(Reply::ok(json!({"metadata": after})))
}

async fn show_item(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let key = request.param("key");
    let found = properties(&image(&nova, &request).await?).get(key).cloned();
    let missing = || Error::not_found("The resource could not be found.");
    Ok(Reply::ok(json!({"meta": {key: found.ok_or_else(missing)?}})))
}

async fn set_item(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::METADATA_ITEM)?["meta"].clone();
    let key = request.param("key");
    let Some(value) = given.get(key) else {
        return Err(Error::bad_request("Request body and URI mismatch"));
    };
    let before = properties(&image(&nova, &request).await?);
    let mut after = before.clone();
    after.insert(key.into(), value.clone());
    change(&nova, &request, &before, &after).await?;
    Ok(Reply::ok(json!({"meta": given})))
}

async fn remove_item(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let before = properties(&image(&nova, &request).await?);
    let mut after = before.clone();
    if after.shift_remove(request.param("key")).is_none() {
        return Err(Error::not_found("Invalid metadata key"));
    }
    change(&nova, &request, &before, &after).await?;
    Ok(Reply::no_content())
}

/// Makes the image's properties so.
async fn change(
    nova: &Nova,
    request: &Request,
    before: &Map<String, Json>,
    after: &Map<String, Json>,
) -> Result<()> {
    let (options, project_id) = (nova.options.clone(), request.ctx.project_id.clone());
    let limits = nova.read(move |tx| crate::quota::limits(tx, &options, &project_id)).await?;
    let limit = limits.get("metadata_items").copied().unwrap_or(-1);
    if limit >= 0 && after.len() as i64 > limit {
        return Err(Error::over_quota("Image metadata limit exceeded"));
    }
    let path = |key: &str| format!("/{}", key.replace('~', "~0").replace('/', "~1"));
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.map(|key| json!({"op": "remove", "path": path(key)}));
    let new = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let new = new.map(|(key, value)| {
        let op = if before.contains_key(key) { "replace" } else { "add" };
        json!({"op": op, "path": path(key), "value": value})
    });
    let patch: Vec<Json> = gone.chain(new).collect();
    if patch.is_empty() {
        return Ok(());
    }
    let image_id = request.param("image_id");
    let patched = ask(nova, request, "PATCH", &format!("{IMAGES}/{image_id}"), Some(patch.into())).await;
    patched.map(drop).map_err(|error| match error.kind {
        ErrorKind::Forbidden => Error::forbidden(format!("Not authorized for image {image_id}.")),
        _ => error,
    })
}

async fn image(nova: &Nova, request: &Request) -> Result<Json> {
    ask(nova, request, "GET", &format!("{IMAGES}/{}", request.param("image_id")), None).await
}

async fn ask(nova: &Nova, request: &Request, method: &str, path: &str, body: Option<Json>) -> Result<Json> {
    let answer = nova.peers.apis.image.call(&request.ctx, method, path, body.as_ref()).await;
    answer.map_err(|error| match error.kind {
        ErrorKind::NotFound => Error::not_found("Image not found."),
        ErrorKind::BadRequest => Error::bad_request(format!("Invalid input received: {}", error.message)),
        _ => error,
    })
}

/// Of glance's own attributes; all others are the image's properties.
const OWN: &[&str] = &[
    "id",
    "name",
    "status",
    "visibility",
    "size",
    "virtual_size",
    "min_disk",
    "min_ram",
    "disk_format",
    "container_format",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "os_hidden",
    "owner",
    "protected",
    "created_at",
    "updated_at",
    "tags",
    "self",
    "file",
    "schema",
    "locations",
    "direct_url",
    "stores",
];

fn properties(image: &Json) -> Map<String, Json> {
    let all = image.as_object().into_iter().flatten();
    all.filter(|(key, _)| !OWN.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn basic(nova: &Nova, request: &Request, image: &Json) -> Json {
    json!({"id": image["id"], "name": image["name"], "links": all_links(nova, request, image)})
}

fn view(nova: &Nova, request: &Request, image: &Json) -> Json {
    let status = image["status"].as_str().unwrap_or_default();
    let (word, progress) = match status {
        "active" => ("ACTIVE", 100),
        "queued" => ("SAVING", 25),
        "saving" => ("SAVING", 50),
        "deleted" | "pending_delete" => ("DELETED", 0),
        "killed" => ("ERROR", 0),
        _ => ("UNKNOWN", 0),
    };
    let metadata = properties(image);
    let mut shown = basic(nova, request, image);
    for (name, value) in [
        ("minRam", image["min_ram"].clone()),
        ("minDisk", image["min_disk"].clone()),
        ("created", image["created_at"].clone()),
        ("updated", image["updated_at"].clone()),
        ("status", word.into()),
        ("progress", progress.into()),
        ("OS-EXT-IMG-SIZE:size", image["size"].clone()),
    ] {
        shown[name] = value;
    }
    if let Some(server) = metadata.get("instance_uuid").and_then(Json::as_str) {
        shown["server"] = json!({"id": server, "links": links(request, "servers", server)});
    }
    if let Some(auto) = metadata.get("auto_disk_config").and_then(Json::as_str) {
        shown["OS-DCF:diskConfig"] = if word_is_true(auto) { "AUTO" } else { "MANUAL" }.into();
    }
    shown["metadata"] = metadata.into();
    shown
}

fn all_links(nova: &Nova, request: &Request, image: &Json) -> Json {
    let id = image["id"].as_str().unwrap_or_default();
    let mut all = links(request, "images", id);
    let elsewhere = format!("{}/images/{id}", nova.peers.apis.image.url());
    if let Some(all) = all.as_array_mut() {
        let media_type = "application/vnd.openstack.image";
        all.push(json!({"rel": "alternate", "type": media_type, "href": elsewhere}));
    }
    all
}

static QUERY: Form = Form::new(|| {
    let count = json!({"type": "array", "items": {
        "type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 1, "minLength": 1}});
    json!({"type": "object", "properties": {"limit": count, "page_size": count, "offset": count}})
});
