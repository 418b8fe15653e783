//! Volume types and their extra specs.

use super::{Object, bare, body, flag, lists, no_body, of_project, text};
use crate::{
    Cinder,
    errors::type_not_found,
    model::*,
    requests::{self, sees_type},
    schemas,
};
use base::{Error, Json, Result, id};
use db::{AsJson, Filter, List, Resource, Tx};
use serde_json::{Map, json};
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/types", "volume_extension:type_get_all", list),
        post("/v3/types", "volume_extension:type_create", create),
        get("/v3/types/default", "volume_extension:type_get", show_default),
        get("/v3/types/{type_id}", "volume_extension:type_get", show),
        put("/v3/types/{type_id}", "volume_extension:type_update", update),
        delete("/v3/types/{type_id}", "volume_extension:type_delete", remove),
        get("/v3/types/{type_id}/extra_specs", "volume_extension:types_extra_specs:index", list_specs),
        post("/v3/types/{type_id}/extra_specs", "volume_extension:types_extra_specs:create", add_specs),
        get("/v3/types/{type_id}/extra_specs/{key}", "volume_extension:types_extra_specs:show", show_spec),
        put("/v3/types/{type_id}/extra_specs/{key}", "volume_extension:types_extra_specs:update", set_spec),
        delete(
            "/v3/types/{type_id}/extra_specs/{key}",
            "volume_extension:types_extra_specs:delete",
            remove_spec,
        ),
    ]
}

/// What users see of the specs, which else are about the cloud's insides.
const VISIBLE_SPECS: &[&str] = &["RESKEY:availability_zones", "multiattach", "replication_enabled"];

pub fn find(tx: &mut Tx, id: &str) -> Result<VolumeType> {
    tx.find::<VolumeType>(id)?.ok_or_else(|| type_not_found(id))
}

/// A type that the caller may see and do this to.
pub async fn permitted(cinder: &Cinder, request: &Request) -> Result<VolumeType> {
    request.can(&of_project(&request.ctx.project_id))?;
    let (cx, id) = (request.ctx.clone(), request.param("type_id").to_string());
    cinder
        .read(move |tx| {
            let kind = find(tx, &id)?;
            if sees_type(&cx, &kind) { Ok(kind) } else { Err(type_not_found(&id)) }
        })
        .await
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, VolumeType::TABLE, &[])?;
    let mut given = lists::filters(&request);
    if request.since(3, 52) {
        lists::allowed(&request, &mut given, &["is_public", "extra_specs"])?;
    }
    let word = |key: &str| given.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let wanted_public = is_public(&request, word("is_public").as_deref())?;
    let specs = match word("extra_specs").filter(|_| request.since(3, 52)) {
        Some(text) => lists::pairs(&text).unwrap_or_default(),
        None => Vec::new(),
    };
    let sensitive = may_see_all_specs(&request);
    if !sensitive && specs.iter().any(|(key, _)| !VISIBLE_SPECS.contains(&key.as_str())) {
        return Ok(Reply::ok(json!({"volume_types": []})));
    }
    let (cx, paging) = (request.ctx.clone(), page.clone());
    let (found, _) = cinder
        .read(move |tx| {
            let fits = |kind: &VolumeType| {
                let public = match wanted_public {
                    Some(public) => kind.is_public == public || (!cx.is_admin() && sees_type(&cx, kind)),
                    None => true,
                };
                public && specs.iter().all(|(key, value)| kind.extra_specs.get(key) == Some(value))
            };
            lists::fetch::<VolumeType>(tx, &paging, &[], Some(&fits), |kind| kind.id.as_str(), type_not_found)
        })
        .await?;
    let mut answer =
        json!({"volume_types": found.iter().map(|kind| full(&request, kind)).collect::<Vec<_>>()});
    let last = found.last().map(|kind| kind.id.as_str());
    if let Some(next) = lists::next_links(&request, "types", &page, last, found.len()) {
        answer["volume_type_links"] = next;
    }
    Ok(Reply::ok(answer))
}

/// None: all. Only administrators choose.
pub fn is_public(request: &Request, word: Option<&str>) -> Result<Option<bool>> {
    if !request.ctx.is_admin() {
        return Ok(Some(true));
    }
    match word.map(|word| word.trim().to_lowercase()).as_deref() {
        None => Ok(Some(true)),
        Some("none") => Ok(None),
        Some("1" | "t" | "true" | "on" | "y" | "yes") => Ok(Some(true)),
        Some("0" | "f" | "false" | "off" | "n" | "no") => Ok(Some(false)),
        Some(_) => {
            Err(Error::bad_request(format!("Invalid is_public filter [{}]", word.unwrap_or_default())))
        }
    }
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::TYPE_CREATE, "volume_type")?;
    let kind = VolumeType {
        id: id::uuid(),
        name: text(&given, "name").unwrap_or_default().to_string(),
        description: text(&given, "description").map(String::from),
        is_public: given.get("os-volume-type-access:is_public").is_none_or(flag),
        extra_specs: AsJson(specs(given.get("extra_specs"))),
        qos_specs_id: None,
        projects: Vec::new(),
        created_at: cinder.clock.now(),
        updated_at: None,
    };
    let row = kind.clone();
    cinder
        .write(move |tx| {
            refuse_taken_name(tx, &row.name, &row.id)?;
            tx.insert(&row)
        })
        .await?;
    let mut shown = plain(&request, &kind);
    shown["os-volume-type-access:is_public"] = kind.is_public.into();
    Ok(Reply::ok(json!({"volume_type": shown})))
}

fn refuse_taken_name(tx: &mut Tx, name: &str, id: &str) -> Result<()> {
    let same = tx.list::<VolumeType>(&List::all().eq("name", name))?;
    match same.iter().any(|other| other.id != id) {
        true => Err(Error::conflict(format!("Volume Type {name} already exists."))),
        false => Ok(()),
    }
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let kind = permitted(&cinder, &request).await?;
    Ok(Reply::ok(json!({"volume_type": full(&request, &kind)})))
}

async fn show_default(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let (own, project) = (cinder.clone(), request.ctx.project_id.clone());
    let kind = cinder.read(move |tx| requests::default_type(&own, tx, &project)).await?;
    let mut shown = full(&request, &kind);
    // Upstream's extension looks for it under the name `default` and does not find it.
    shown.as_object_mut().map(|shown| shown.remove("os-volume-type-access:is_public"));
    Ok(Reply::ok(json!({"volume_type": shown})))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::TYPE_UPDATE, "volume_type")?;
    let name = text(&given, "name").map(|name| name.trim().to_string());
    if name.as_deref() == Some("") {
        return Err(Error::bad_request("Volume type name can not be empty."));
    }
    let description = text(&given, "description").map(String::from);
    let is_public = given.get("is_public").map(flag);
    if name.is_none() && description.is_none() && is_public.is_none() {
        return Err(Error::bad_request(
            "Specify volume type name, description, is_public or a combination thereof.",
        ));
    }
    let (id, now) = (request.param("type_id").to_string(), cinder.clock.now());
    let kind = cinder
        .write(move |tx| {
            let mut kind = find(tx, &id)?;
            if let Some(name) = &name {
                refuse_taken_name(tx, name, &id)?;
                kind.name = name.clone();
            }
            kind.description = description.clone().or(kind.description);
            kind.is_public = is_public.unwrap_or(kind.is_public);
            kind.updated_at = Some(now);
            tx.update(&kind)?;
            Ok(kind)
        })
        .await?;
    Ok(Reply::ok(json!({"volume_type": plain(&request, &kind)})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("type_id").to_string();
    let default = cinder.options.default_volume_type.clone();
    cinder
        .write(move |tx| {
            let kind = find(tx, &id)?;
            let of_projects = tx.count::<DefaultType>(&[Filter::eq("volume_type_id", &id)])?;
            if kind.name == default || of_projects > 0 {
                return Err(Error::bad_request(format!(
                    "The volume type {id} is a default volume type and cannot be deleted."
                )));
            }
            if tx.count::<Volume>(&[Filter::eq("volume_type_id", &id)])? > 0 {
                return Err(Error::bad_request("Target volume type is still in use."));
            }
            tx.remove::<Encryption>(&id)?;
            tx.remove::<VolumeType>(&id)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn list_specs(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let kind = permitted(&cinder, &request).await?;
    Ok(Reply::ok(json!({"extra_specs": visible_specs(&request, &kind)})))
}

async fn add_specs(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::EXTRA_SPECS, "extra_specs")?;
    change_specs(&cinder, &request, &given).await?;
    Ok(Reply::ok(json!({"extra_specs": given})))
}

async fn show_spec(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let kind = permitted(&cinder, &request).await?;
    let key = request.param("key");
    let value = visible_specs(&request, &kind).remove(key);
    let value = value.ok_or_else(|| no_spec(&kind.id, key))?;
    Ok(Reply::ok(json!({key: value})))
}

async fn set_spec(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = request.json().clone();
    schemas::EXTRA_SPEC.body(&given)?;
    let given = given.as_object().cloned().unwrap_or_default();
    if !given.contains_key(request.param("key")) {
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    change_specs(&cinder, &request, &given).await?;
    Ok(Reply::ok(Json::Object(given)))
}

/// Volumes that are there were placed by what the type was.
async fn change_specs(cinder: &Arc<Cinder>, request: &Request, given: &Object) -> Result<()> {
    let (id, given, now) =
        (request.param("type_id").to_string(), specs(Some(&given.clone().into())), cinder.clock.now());
    cinder
        .write(move |tx| {
            let mut kind = find(tx, &id)?;
            refuse_in_use(tx, &id)?;
            kind.extra_specs.0.extend(given.clone());
            kind.updated_at = Some(now);
            tx.update(&kind).map(drop)
        })
        .await
}

fn refuse_in_use(tx: &mut Tx, id: &str) -> Result<()> {
    match tx.count::<Volume>(&[Filter::eq("volume_type_id", id)])? {
        0 => Ok(()),
        _ => Err(Error::bad_request("Volume Type is currently in use.")),
    }
}

async fn remove_spec(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (id, key) = (request.param("type_id").to_string(), request.param("key").to_string());
    let now = cinder.clock.now();
    cinder
        .write(move |tx| {
            let mut kind = find(tx, &id)?;
            refuse_in_use(tx, &id)?;
            kind.extra_specs.0.remove(&key).ok_or_else(|| no_spec(&id, &key))?;
            kind.updated_at = Some(now);
            tx.update(&kind).map(drop)
        })
        .await?;
    Ok(no_body(StatusCode::ACCEPTED))
}

fn no_spec(type_id: &str, key: &str) -> Error {
    Error::not_found(format!("Volume Type {type_id} has no extra specs with key {key}."))
}

/// Null is an empty text, as upstream's column has it.
fn specs(value: Option<&Json>) -> BTreeMap<String, String> {
    let pairs = value.and_then(Json::as_object).into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_string())).collect()
}

fn may_see_all_specs(request: &Request) -> bool {
    request.may("volume_extension:types_extra_specs:read_sensitive", &())
}

fn visible_specs(request: &Request, kind: &VolumeType) -> BTreeMap<String, String> {
    let all = may_see_all_specs(request);
    let mut specs = kind.extra_specs.0.clone();
    specs.retain(|key, _| all || VISIBLE_SPECS.contains(&key.as_str()));
    specs
}

fn plain(request: &Request, kind: &VolumeType) -> Json {
    let mut shown = Map::new();
    shown.insert("id".into(), json!(kind.id));
    shown.insert("name".into(), json!(kind.name));
    shown.insert("is_public".into(), json!(kind.is_public));
    shown.insert("description".into(), json!(kind.description));
    if request.may("volume_extension:access_types_extra_specs", &of_project(&request.ctx.project_id)) {
        shown.insert("extra_specs".into(), json!(visible_specs(request, kind)));
    }
    Json::Object(shown)
}

fn full(request: &Request, kind: &VolumeType) -> Json {
    let mut shown = plain(request, kind);
    let project = of_project(&request.ctx.project_id);
    if request.may("volume_extension:access_types_qos_specs_id", &project) {
        shown["qos_specs_id"] = json!(kind.qos_specs_id);
    }
    if request.may("volume_extension:volume_type_access", &project) {
        shown["os-volume-type-access:is_public"] = kind.is_public.into();
    }
    shown
}
