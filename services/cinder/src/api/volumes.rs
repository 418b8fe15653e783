//! Volumes: create, list, show, update, delete, summary.

use super::{
    Object, bare, body, flag, hide, integer, links, lists, of_project, query_flag, text, texts, trimmed,
};
use crate::{
    Cinder,
    errors::{malformed, volume_not_found},
    model::*,
    requests::{self, Wanted},
    schemas, store,
};
use base::{Error, ErrorKind, Json, Result, id};
use contracts::images::Image;
use db::{Filter, Resource, Tx};
use serde_json::{Map, json};
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/volumes", "volume:get_all", list),
        get("/v3/volumes/detail", "volume:get_all", list_detail),
        get("/v3/volumes/summary", "volume:get_all", summary).since(3, 12),
        post("/v3/volumes", "volume:create", create),
        get("/v3/volumes/{volume_id}", "volume:get", show),
        put("/v3/volumes/{volume_id}", "volume:update", update),
        delete("/v3/volumes/{volume_id}", "volume:delete", remove),
    ]
}

/// A volume with what its body tells of others.
pub struct Shown {
    pub volume: Volume,
    pub attachments: Vec<Attachment>,
    pub type_name: Option<String>,
    pub service_uuid: Option<String>,
}

impl Shown {
    pub fn load(tx: &mut Tx, volume: Volume) -> Result<Self> {
        let attachments = store::attachments(tx, &volume.id)?;
        let type_name = tx.find::<VolumeType>(&volume.volume_type_id)?.map(|kind| kind.name);
        let service_uuid = match volume.back_end() {
            Some(host) => tx.find::<BackEnd>(host)?.map(|back_end| back_end.uuid),
            None => None,
        };
        Ok(Self { volume, attachments, type_name, service_uuid })
    }

    fn load_all(tx: &mut Tx, volumes: Vec<Volume>) -> Result<Vec<Self>> {
        let ids: Vec<String> = volumes.iter().map(|volume| volume.id.clone()).collect();
        let mut attachments = store::attachments_of(tx, &ids)?;
        let (names, services) = (store::type_names(tx)?, store::service_ids(tx)?);
        let shown = |volume: Volume| Self {
            attachments: attachments.remove(&volume.id).unwrap_or_default(),
            type_name: names.get(&volume.volume_type_id).cloned(),
            service_uuid: volume.back_end().and_then(|host| services.get(host).cloned()),
            volume,
        };
        Ok(volumes.into_iter().map(shown).collect())
    }
}

/// A volume that the caller may see.
pub async fn load(cinder: &Cinder, request: &Request) -> Result<Volume> {
    let (cx, id) = (request.ctx.clone(), request.param("volume_id").to_string());
    let volume = cinder.read(move |tx| requests::volume_for(tx, &cx, &id)).await?;
    let may_see = request.can_rule("volume:get", &of_project(&volume.project_id));
    may_see.map_err(|refusal| hide(refusal, volume_not_found(&volume.id)))?;
    Ok(volume)
}

const FILTERS: &[&str] = &[
    "name",
    "status",
    "metadata",
    "bootable",
    "migration_status",
    "availability_zone",
    "group_id",
    "size",
    "created_at",
    "updated_at",
    "consumes_quota",
];
const NAMES: lists::Names = &[("name", "display_name"), ("description", "display_description")];

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, false).await
}

async fn list_detail(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    listed(cinder, request, true).await
}

async fn listed(cinder: Arc<Cinder>, request: Request, detail: bool) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let page = lists::page(&request, &cinder.options, Volume::TABLE, NAMES)?;
    let with_count = lists::with_count(&request)?;
    let Some((filters, metadata)) = conditions(&request)? else {
        return Ok(Reply::ok(json!({"volumes": []})));
    };
    let wanted = page.clone();
    let (shown, total) = cinder
        .read(move |tx| {
            let has = |all: &BTreeMap<String, String>, pairs: &[(String, String)]| {
                pairs.iter().all(|(key, value)| all.get(key) == Some(value))
            };
            let fits = |volume: &Volume| {
                has(&volume.metadata, &metadata.user) && has(&volume.image_metadata, &metadata.image)
            };
            let keep: Option<&(dyn Fn(&Volume) -> bool + Send)> =
                if metadata.is_empty() { None } else { Some(&fits) };
            let (found, total) =
                lists::fetch::<Volume>(tx, &wanted, &filters, keep, |v| v.id.as_str(), volume_not_found)?;
            Ok((Shown::load_all(tx, found)?, total))
        })
        .await?;
    let view = |shown: &Shown| match detail {
        true => detailed(&request, shown, true),
        false => json!({
            "id": shown.volume.id,
            "name": shown.volume.display_name,
            "links": links(&request, "volumes", &shown.volume.id),
        }),
    };
    let shown = shown.iter().map(view).collect();
    Ok(lists::answer(&request, "volumes", detail, &page, shown, with_count.then_some(total)))
}

/// Pairs that a volume's metadata must have.
#[derive(Clone, Default)]
struct Metadata {
    user: Vec<(String, String)>,
    image: Vec<(String, String)>,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        self.user.is_empty() && self.image.is_empty()
    }
}

/// None when nothing can match.
fn conditions(request: &Request) -> Result<Option<(Vec<Filter>, Metadata)>> {
    let mut given = lists::filters(request);
    lists::allowed(request, &mut given, FILTERS)?;
    let admin = request.ctx.is_admin();
    let everywhere =
        admin && given.iter().any(|(key, value)| key == "all_tenants" && super::word_is_true(value));
    let mut filters = Vec::new();
    if !everywhere {
        filters.push(Filter::eq("project_id", &request.ctx.project_id));
    }
    let mut metadata = Metadata::default();
    for (key, value) in &given {
        match key.as_str() {
            "all_tenants" => {}
            // Each came with its version; before, it says nothing.
            "group_id" if !request.since(3, 10) => {}
            "glance_metadata" if !request.since(3, 4) => {}
            "consumes_quota" if !request.since(3, 65) => {}
            "created_at" | "updated_at" if !request.since(3, 60) => {}
            "metadata" | "glance_metadata" => match (lists::pairs(value), key.as_str()) {
                (Some(pairs), "metadata") => metadata.user = pairs,
                (Some(pairs), _) => metadata.image = pairs,
                (None, _) => return Ok(None),
            },
            "created_at" => filters.extend(lists::times("created_at", value)?),
            "updated_at" => filters.extend(lists::times("updated_at", value)?),
            // All volumes count.
            "consumes_quota" => {
                if !query_flag(request, "consumes_quota")? {
                    return Ok(None);
                }
            }
            "bootable" => filters.push(Filter::eq("bootable", bootable(request, value)?)),
            other => match lists::condition(Volume::TABLE, NAMES, other, value) {
                Some(condition) => filters.push(condition),
                None => return Ok(None),
            },
        }
    }
    Ok(Some((filters, metadata)))
}

/// Strict since 3.2; before, everything but some words for false was true.
fn bootable(request: &Request, word: &str) -> Result<bool> {
    if !request.since(3, 2) {
        return Ok(!matches!(word, "False" | "false" | "FALSE" | ""));
    }
    match word.trim().to_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Ok(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Ok(false),
        _ => Err(crate::errors::invalid_input(format!("'bootable = {word}'"))),
    }
}

async fn summary(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&of_project(&request.ctx.project_id))?;
    let everywhere = request.ctx.is_admin() && query_flag(&request, "all_tenants")?;
    let project = (!everywhere).then(|| request.ctx.project_id.clone());
    let ((count, size), metadata) = cinder
        .read(move |tx| {
            let sums = store::summary(tx, project.as_deref())?;
            let mut distinct: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (key, value) in store::metadata_of_all(tx, project.as_deref())? {
                let values = distinct.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Ok((sums, distinct))
        })
        .await?;
    let mut body = json!({"total_count": count, "total_size": size});
    if request.since(3, 36) {
        body["metadata"] = json!(metadata);
    }
    Ok(Reply::ok(json!({"volume-summary": body})))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let form = match request.version() {
        version if version >= base::Version(3, 53) => &schemas::VOLUME_CREATE_V353,
        version if version >= base::Version(3, 47) => &schemas::VOLUME_CREATE_V347,
        version if version >= base::Version(3, 13) => &schemas::VOLUME_CREATE_V313,
        _ => &schemas::VOLUME_CREATE,
    };
    let given = body(&request, form, "volume")?;
    let project = of_project(&request.ctx.project_id);
    let image_ref = text(&given, "imageRef").or(text(&given, "image_id"));
    match image_ref {
        Some(_) => request.can_rule("volume:create_from_image", &project)?,
        None => request.can(&project)?,
    }
    refuse_what_is_not_there(&given)?;
    let image = match image_ref {
        Some(image_ref) => Some(image(&cinder, &request, image_ref).await?),
        None => None,
    };
    let wanted = Wanted {
        id: id::uuid(),
        name: trimmed(&given, "name").or(trimmed(&given, "display_name")),
        description: trimmed(&given, "description").or(trimmed(&given, "display_description")),
        size: given.get("size").and_then(integer),
        image,
        snapshot_id: text(&given, "snapshot_id").map(String::from),
        source_volid: text(&given, "source_volid").map(String::from),
        volume_type: text(&given, "volume_type").filter(|name| !name.is_empty()).map(String::from),
        availability_zone: text(&given, "availability_zone").map(String::from),
        metadata: texts(given.get("metadata")),
        group_id: text(&given, "group_id").filter(|id| !id.is_empty()).map(String::from),
        backup_id: text(&given, "backup_id").map(String::from),
    };
    let sources = [&wanted.snapshot_id, &wanted.source_volid, &wanted.backup_id];
    if wanted.size.is_none() && sources.iter().all(|source| source.is_none()) {
        return Err(malformed());
    }
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    let shown = cinder
        .write(move |tx| {
            let volume = requests::create(&own, tx, &cx, &wanted)?;
            Shown::load(tx, volume)
        })
        .await?;
    Ok(Reply::accepted(json!({"volume": detailed(&request, &shown, false)})))
}

/// Consistency groups, which groups have replaced; and an old way that upstream has removed.
fn refuse_what_is_not_there(given: &Object) -> Result<()> {
    if let Some(id) = text(given, "consistencygroup_id") {
        return Err(Error::not_found(format!("Group {id} could not be found.")));
    }
    match given.get("multiattach").is_some_and(flag) {
        true => Err(Error::bad_request(
            "multiattach parameter has been removed. The default behavior is to use multiattach enabled volume types. Contact your administrator to create a multiattach enabled volume type and use it to create multiattach volumes.",
        )),
        false => Ok(()),
    }
}

/// By id, or the end of a URL.
async fn image(cinder: &Cinder, request: &Request, image_ref: &str) -> Result<Image> {
    let invalid = || Error::bad_request("Invalid image identifier or unable to access requested image.");
    let id = image_ref.rsplit('/').next().unwrap_or(image_ref);
    if !id::is_uuid(id) {
        return Err(invalid());
    }
    match cinder.peers.images.show(&request.ctx, id).await {
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Forbidden) => Err(invalid()),
        other => other,
    }
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let volume = load(&cinder, &request).await?;
    let shown = cinder.read(move |tx| Shown::load(tx, volume.clone())).await?;
    Ok(Reply::ok(json!({"volume": detailed(&request, &shown, true)})))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let strict = request.since(3, 53);
    let form = if strict { &schemas::VOLUME_UPDATE_V353 } else { &schemas::VOLUME_UPDATE };
    let given = body(&request, form, "volume")?;
    let volume = load(&cinder, &request).await?;
    request.can(&of_project(&volume.project_id))?;
    let (id, now) = (volume.id.clone(), cinder.clock.now());
    let shown = cinder
        .write(move |tx| {
            let volume = store::volume(tx, &id)?;
            if volume.status == VolumeStatus::Maintenance {
                return Err(crate::errors::invalid_volume(
                    "The volume cannot be updated during maintenance.",
                ));
            }
            store::change(tx, &id, now, |volume| {
                for key in ["display_name", "name"].into_iter().filter(|key| given.contains_key(*key)) {
                    volume.display_name = trimmed(&given, key);
                }
                for key in ["display_description", "description"] {
                    if given.contains_key(key) {
                        volume.display_description = trimmed(&given, key);
                    }
                }
                if given.contains_key("metadata") {
                    volume.metadata.0 = texts(given.get("metadata"));
                }
            })?;
            let volume = store::volume(tx, &id)?;
            Shown::load(tx, volume)
        })
        .await?;
    Ok(Reply::ok(json!({"volume": detailed(&request, &shown, false)})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let cascade = query_flag(&request, "cascade")?;
    let force = request.since(3, 23) && query_flag(&request, "force")?;
    let volume = load(&cinder, &request).await?;
    if force {
        request.can_rule("volume:force_delete", &of_project(&volume.project_id))?;
    }
    request.can(&of_project(&volume.project_id))?;
    let (own, cx) = (cinder.clone(), request.ctx.clone());
    cinder.write(move |tx| requests::delete(&own, tx, &cx, &volume.id, cascade, force)).await?;
    Ok(bare(StatusCode::ACCEPTED))
}

/// The body of one. What create and update answer lacks what extensions add to the others.
pub fn detailed(request: &Request, shown: &Shown, extended: bool) -> Json {
    let Shown { volume, attachments, type_name, service_uuid } = shown;
    let admin = request.ctx.is_admin();
    let project = of_project(&volume.project_id);
    let mut body = json!({
        "id": volume.id,
        "status": match volume.status { VolumeStatus::Managing => "creating", VolumeStatus::ErrorManaging => "error", other => other.as_str() },
        "size": volume.size,
        "availability_zone": volume.availability_zone,
        "created_at": volume.created_at.micros(),
        "updated_at": volume.updated_at.map(|time| time.micros()),
        "name": volume.display_name,
        "description": volume.display_description,
        "volume_type": type_name,
        "snapshot_id": volume.snapshot_id,
        "source_volid": volume.source_volid,
        "metadata": metadata(volume),
        "links": links(request, "volumes", &volume.id),
        "user_id": volume.user_id,
        "bootable": volume.bootable.to_string(),
        "encrypted": false,
        "replication_status": null,
        "consistencygroup_id": null,
        "multiattach": volume.multiattach,
        "attachments": attached(request, attachments),
    });
    let mut add =
        |key: &str, value: Json| drop(body.as_object_mut().map(|body| body.insert(key.into(), value)));
    if admin {
        add("migration_status", json!(volume.migration_status));
    }
    if request.since(3, 13) {
        add("group_id", json!(volume.group_id));
    }
    if admin && request.since(3, 21) {
        add("provider_id", Json::Null);
    }
    if request.since(3, 48) {
        // As upstream's drivers say it, once one has the volume.
        add("shared_targets", volume.host.is_none().into());
        add("service_uuid", json!(service_uuid));
    }
    if admin && request.since(3, 61) {
        add("cluster_name", Json::Null);
    }
    if request.since(3, 63) {
        add("volume_type_id", json!(volume.volume_type_id));
    }
    if request.since(3, 65) {
        add("consumes_quota", true.into());
    }
    if !extended {
        return body;
    }
    if !volume.image_metadata.is_empty()
        && request.may("volume_extension:volume_image_metadata:show", &project)
    {
        add("volume_image_metadata", json!(*volume.image_metadata));
    }
    if request.may("volume_extension:volume_tenant_attribute", &project) {
        add("os-vol-tenant-attr:tenant_id", json!(volume.project_id));
    }
    if request.may("volume_extension:volume_host_attribute", &project) {
        add("os-vol-host-attr:host", json!(volume.host));
    }
    if request.may("volume_extension:volume_mig_status_attribute", &project) {
        add("os-vol-mig-status-attr:migstat", json!(volume.migration_status));
        add("os-vol-mig-status-attr:name_id", Json::Null);
    }
    body
}

/// The body as it was at 3.0: what is managed is answered so whatever the version.
pub fn as_first(request: &Request, shown: &Shown) -> Json {
    const LATER: &[&str] = &[
        "group_id",
        "provider_id",
        "shared_targets",
        "service_uuid",
        "cluster_name",
        "volume_type_id",
        "consumes_quota",
    ];
    let mut body = detailed(request, shown, false);
    if let Some(body) = body.as_object_mut() {
        body.retain(|key, _| !LATER.contains(&key.as_str()));
    }
    body
}

/// The user's, with what cinder adds for all to see.
fn metadata(volume: &Volume) -> Json {
    let mut shown: Map<String, Json> =
        volume.metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    if let Some(readonly) = volume.readonly {
        shown.insert("readonly".into(), if readonly { "True" } else { "False" }.into());
    }
    if let Some(mode) = &volume.attached_mode {
        shown.insert("attached_mode".into(), json!(mode));
    }
    Json::Object(shown)
}

fn attached(request: &Request, attachments: &[Attachment]) -> Vec<Json> {
    let sees_hosts = request.ctx.is_admin() || request.ctx.has_role("service");
    let attached = attachments.iter().filter(|one| one.attach_status == AttachStatus::Attached);
    attached
        .map(|one| {
            json!({
                "id": one.volume_id,
                "attachment_id": one.id,
                "volume_id": one.volume_id,
                "server_id": one.instance_uuid,
                "host_name": one.attached_host.as_ref().filter(|_| sees_hosts),
                "device": one.mountpoint,
                "attached_at": one.attach_time.map(|time| time.micros()),
            })
        })
        .collect()
}
