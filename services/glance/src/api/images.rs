//! Images: create, list, show, change and delete.

use super::{body, detailed, locations, patch};
use crate::{
    Glance,
    list::Wanted,
    model::{Image, Status, Visibility, Whole},
    protections::Deed,
    quotas, schemas, store,
};
use base::{Error, Json, Result, id};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Mark, Reply, Request, Routes, delete, get, patch as patch_route, post};

pub fn routes() -> Routes<Glance> {
    vec![
        get("/v2/images", "get_images", list),
        post("/v2/images", "add_image", create),
        get("/v2/images/{image_id}", "get_image", show),
        patch_route("/v2/images/{image_id}", "modify_image", update).marks(&[Mark::Raw]),
        delete("/v2/images/{image_id}", "delete_image", remove),
    ]
}

/// Set by glance alone.
pub const READ_ONLY: [&str; 14] = [
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "direct_url",
    "self",
    "file",
    "schema",
    "id",
    "os_hash_algo",
    "os_hash_value",
    "stores",
];
/// Names that no property may have.
pub const RESERVED: [&str; 3] = ["location", "deleted", "deleted_at"];
/// Bytes of the name of a property of one's own.
const NAME_BYTES_MAX: usize = 255;
/// What glance notes at images while it imports them.
pub const RESERVED_PREFIX: &str = "os_glance";
/// What has a column.
pub const BASE: [&str; 11] = [
    "name",
    "visibility",
    "protected",
    "os_hidden",
    "owner",
    "container_format",
    "disk_format",
    "tags",
    "min_ram",
    "min_disk",
    "locations",
];

async fn create(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let given = body(&request)?.clone();
    let Some(object) = given.as_object() else {
        return Err(Error::bad_request("Malformed JSON in request body."));
    };
    schemas::check(&given)?;
    for name in object.keys() {
        if name != "id" && READ_ONLY.contains(&name.as_str()) {
            request.can(&json!({"project_id": request.ctx.project_id, "owner": request.ctx.project_id}))?;
            return Err(Error::forbidden(format!("Attribute '{name}' is read-only.")));
        }
        if RESERVED.contains(&name.as_str()) || name.starts_with(RESERVED_PREFIX) {
            return Err(detailed(Error::forbidden(format!("Attribute '{name}' is reserved."))));
        }
    }
    object.iter().try_for_each(|(name, value)| check_property(name, value))?;
    let text = |name: &str| given[name].as_str().map(str::to_string);
    let owner = text("owner").unwrap_or_else(|| request.ctx.project_id.clone());
    let visibility = text("visibility").and_then(|v| Visibility::parse(&v)).unwrap_or(Visibility::Shared);
    let target =
        json!({"project_id": request.ctx.project_id, "owner": owner, "visibility": visibility.as_str()});
    if owner != request.ctx.project_id && !request.ctx.is_admin() {
        let sentence = format!("You are not permitted to create images owned by '{owner}'");
        return Err(detailed(Error::forbidden(sentence)));
    }
    request.can(&target)?;
    check_visibility(&request, visibility, &target)?;
    let now = glance.clock.now();
    let image = Image {
        id: text("id").unwrap_or_else(id::uuid),
        name: text("name"),
        status: Status::Queued,
        visibility,
        owner: Some(owner),
        disk_format: text("disk_format"),
        container_format: text("container_format"),
        size: None,
        virtual_size: None,
        checksum: None,
        os_hash_algo: None,
        os_hash_value: None,
        min_disk: given["min_disk"].as_i64().unwrap_or(0),
        min_ram: given["min_ram"].as_i64().unwrap_or(0),
        protected: given["protected"].as_bool().unwrap_or(false),
        os_hidden: given["os_hidden"].as_bool().unwrap_or(false),
        stores: None,
        process: None,
        stage_host: None,
        created_at: now,
        updated_at: now,
    };
    let tags: BTreeSet<String> =
        given["tags"].as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_string).collect();
    let own = |name: &String| name != "id" && !BASE.contains(&name.as_str());
    let properties: Vec<(String, String)> = object
        .iter()
        .filter(|(name, _)| own(name))
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_string())))
        .collect();
    check_quotas(&glance, &tags, &properties)?;
    for (name, _) in &properties {
        glance.protections.check(&request.ctx.roles, Deed::Create, name)?;
    }
    let (limits, project_id) = (glance.limits(&request.ctx).await?, request.ctx.project_id.clone());
    let whole = glance
        .db
        .write(move |tx| {
            if store::is_taken(tx, &image.id)? {
                return Err(Error::conflict(format!("Image ID {} already exists!", image.id)));
            }
            if let Some(limits) = &limits {
                let used = store::usage(tx, &project_id)?;
                quotas::check(&project_id, limits, &used, &[(quotas::COUNT_TOTAL, 1)])?;
            }
            tx.insert(&image)?;
            store::set_tags(tx, &image.id, &tags)?;
            store::set_properties(tx, &image.id, &properties)?;
            Ok(Whole {
                image: image.clone(),
                tags: tags.iter().cloned().collect(),
                properties: properties.clone(),
                locations: Vec::new(),
            })
        })
        .await?;
    let location = format!("{}/v2/images/{}", request.base_url, whole.image.id);
    let methods = glance.options.enabled_import_methods.join(",");
    Ok(Reply::created(glance.view(&request.ctx, &whole))
        .header("location", location)
        .header("openstack-image-import-methods", methods)
        .header("openstack-image-store-ids", super::stores::all_ids(&glance)))
}

/// Making an image seen by more people has rules of its own.
pub fn check_visibility(request: &Request, wanted: Visibility, target: &Json) -> Result<()> {
    match wanted {
        Visibility::Public => request.can_rule("publicize_image", target),
        Visibility::Community => request.can_rule("communitize_image", target),
        Visibility::Private | Visibility::Shared => Ok(()),
    }
}

/// What no schema says of an image's own and of its columns.
pub fn check_property(name: &str, value: &Json) -> Result<()> {
    let number = value.as_i64().filter(|_| matches!(name, "min_disk" | "min_ram"));
    match number {
        Some(number) if number < 0 => Err(Error::bad_request(format!(
            "Invalid value '{number}' for parameter '{name}': Cannot be a negative value"
        ))),
        Some(number) if number > i64::from(i32::MAX) => {
            let sentence = format!("'{name}' value out of range, must not exceed {}.", i32::MAX);
            Err(Error::bad_request(sentence))
        }
        _ if name.len() > NAME_BYTES_MAX => {
            let sentence = format!("The name of a property has at most {NAME_BYTES_MAX} bytes.");
            Err(Error::bad_request(sentence))
        }
        _ => Ok(()),
    }
}

pub fn check_quotas(glance: &Glance, tags: &BTreeSet<String>, properties: &[(String, String)]) -> Result<()> {
    let options = &glance.options;
    let checks = [
        ("tags", tags.len() as i64, options.image_tag_quota),
        ("properties", properties.len() as i64, options.image_property_quota),
    ];
    for (what, attempted, maximum) in checks {
        if maximum >= 0 && attempted > maximum {
            let sentence = format!(
                "The limit has been exceeded on the number of allowed image {what}. Attempted: {attempted}, Maximum: {maximum}"
            );
            return Err(Error::too_large(sentence));
        }
    }
    Ok(())
}

async fn list(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    request.can(&json!({"project_id": request.ctx.project_id}))?;
    let options = &glance.options;
    let wanted =
        Wanted::parse(&request.ctx, &request.query, options.limit_param_default, options.api_limit_max)?;
    let limit = wanted.limit;
    let found = glance
        .db
        .read(move |tx| {
            let images = wanted.find(tx)?;
            store::with_all(tx, images)
        })
        .await?;
    let url = |query: String| match query.is_empty() {
        true => "/v2/images".to_string(),
        false => format!("/v2/images?{query}"),
    };
    let mut view = json!({
        "images": found.iter().map(|whole| glance.view(&request.ctx, whole)).collect::<Vec<_>>(),
        "schema": "/v2/schemas/images",
        "first": url(once_each(&request).finish()),
    });
    if let Some(last) = found.last().filter(|_| found.len() as u64 == limit) {
        let mut query = once_each(&request);
        query.append_pair("marker", &last.image.id);
        view["next"] = json!(url(query.finish()));
    }
    Ok(Reply::ok(view))
}

/// The query without marker, each name with its last value, as upstream repeats it.
pub fn once_each(request: &Request) -> web::form_urlencoded::Serializer<'static, String> {
    let mut query = web::form_urlencoded::Serializer::new(String::new());
    let mut seen: Vec<&str> = vec!["marker"];
    for (name, _) in &request.query.0 {
        if !seen.contains(&name.as_str()) {
            seen.push(name);
            query.append_pair(name, request.query.get(name).unwrap_or_default());
        }
    }
    query
}

async fn show(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let (whole, _) = glance.allowed(&request).await?;
    Ok(Reply::ok(glance.view(&request.ctx, &whole)))
}

async fn update(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let changes = patch::parse(&request)?;
    let (before, target) = glance.allowed(&request).await?;
    if changes.iter().any(|change| change.name == "locations" && change.op == patch::Op::Remove) {
        request.can_rule("delete_image_location", &target)?;
    }
    let judged = locations::judge(&glance, &before, &changes).await?;
    if let Some(wanted) = patch::visibility(&changes) {
        check_visibility(&request, wanted, &target)?;
    }
    let (cx, id, clock) = (request.ctx.clone(), request.param("image_id").to_string(), glance.clock.clone());
    let service = glance.clone();
    let whole = glance
        .db
        .write(move |tx| {
            let mut whole = store::visible(tx, &cx, &id)?;
            for change in &changes {
                patch::apply(&service, &cx, &mut whole, change, &judged)?;
            }
            let tags: BTreeSet<String> = whole.tags.iter().cloned().collect();
            check_quotas(&service, &tags, &whole.properties)?;
            if !changes.is_empty() {
                whole.image.updated_at = clock.now();
            }
            tx.update(&whole.image)?;
            store::set_tags(tx, &id, &tags)?;
            store::set_properties(tx, &id, &whole.properties)?;
            store::set_locations(tx, &id, &whole.locations)?;
            Ok(whole)
        })
        .await?;
    Ok(Reply::ok(glance.view(&request.ctx, &whole)))
}

async fn remove(glance: Arc<Glance>, request: Request) -> Result<Reply> {
    let id = request.param("image_id").to_string();
    let (whole, target) = glance.image(&request).await.map_err(|error| match error.kind {
        base::ErrorKind::NotFound => Error::not_found(format!("Failed to find image {id} to delete")),
        _ => error,
    })?;
    request.can(&target)?;
    if whole.image.protected {
        return Err(Error::forbidden(format!("Image {id} is protected and cannot be deleted.")));
    }
    // Who staged it may be gone: then it is deleted here, and what was staged remains there until he starts again.
    if let Some(host) = glance.staged_elsewhere(&whole.image)
        && let Ok(reply) = glance.pass_on(&host, &request).await
        && !reply.status.is_server_error()
    {
        return Ok(reply);
    }
    glance.delete_image(&id).await.map_err(|error| match error.kind {
        base::ErrorKind::Conflict => {
            let sentence = format!("Image {id} could not be deleted because it is in use: {}", error.message);
            Error::conflict(sentence)
        }
        _ => error,
    })?;
    Ok(super::nothing())
}
