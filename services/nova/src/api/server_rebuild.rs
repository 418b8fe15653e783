//! `rebuild`: a new disk of an image, and what else the request changes of the server.

use super::{
    check_unlocked, checked,
    server_create::{check_limits, image_facts, key_pair, password, personality},
    server_devices::Root,
    server_metadata,
    server_view::{self, In},
};
use crate::{
    Nova,
    flows::rebuild,
    model::{ImageFacts, Instance},
    schemas, store,
};
use base::{Error, ErrorKind, Json, Result};
use db::AsJson;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, action};

pub fn routes() -> Routes<Nova> {
    vec![action("/v2.1/servers/{server_id}/action", "rebuild", "os_compute_api:servers:rebuild", rebuild)]
}

async fn rebuild(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::REBUILD)?["rebuild"].clone();
    let instance = nova.server(&request).await?;
    check_unlocked(&request, &instance)?;
    if given.get("trusted_image_certificates").is_some() {
        let rule = "os_compute_api:servers:rebuild:trusted_certs";
        request.can_rule(rule, &super::target(&instance))?;
    }
    let wanted = Wanted::of(&nova, &request, &instance, &given).await?;
    let (work, cx, uuid) = (nova.clone(), request.ctx.clone(), instance.uuid.clone());
    let instance = nova
        .write(move |tx| {
            let reimage = wanted.reimage.as_deref();
            rebuild::begin(&work, tx, &cx, &uuid, reimage, |instance| wanted.apply(instance))?;
            store::instance(tx, &uuid)
        })
        .await?;
    let around = nova.around(std::slice::from_ref(&instance)).await?;
    let mut shown = server_view::detail(&request, &instance, &around, In::Changed);
    if request.since(2, 54) {
        shown["key_name"] = json!(instance.key_name);
    }
    if request.since(2, 57) {
        shown["user_data"] = json!(instance.user_data);
        if let Some(shown) = shown.as_object_mut() {
            shown.shift_remove("OS-EXT-SRV-ATTR:user_data");
        }
    }
    let password = given["adminPass"].as_str().map_or_else(|| password(&nova), String::from);
    shown["adminPass"] = password.into();
    let url = format!("{}/v2.1/servers/{}", request.base_url, instance.uuid);
    Ok(Reply::accepted(json!({"server": shown})).header("location", url))
}

/// The server as it is to be: what is none stays.
#[derive(Default)]
struct Wanted {
    image: Option<(String, ImageFacts)>,
    /// What is written over the volume that it boots from.
    reimage: Option<String>,
    given: Json,
    /// Name and public key, and its type.
    key: Option<Option<(String, String, String)>>,
}

impl Wanted {
    async fn of(nova: &Nova, request: &Request, instance: &Instance, given: &Json) -> Result<Self> {
        let image_ref = given["imageRef"].as_str().unwrap_or_default();
        let root = match instance.image_ref.is_empty() {
            true => check_volume(nova, request, instance, image_ref).await?,
            false => Root::Image,
        };
        let found = image_facts(nova, request, image_ref, &instance.flavor, &root).await;
        let facts = found.map_err(|error| match error.is(ErrorKind::BadRequest) && is_missing(&error) {
            true => Error::bad_request("Cannot find image for rebuild"),
            false => error,
        })?;
        let files = personality(&given["personality"]);
        let count = given["metadata"].as_object().map_or(0, serde_json::Map::len);
        check_limits(nova, request, count, &files).await?;
        let key = match given.get("key_name") {
            None => None,
            Some(name) => {
                let pair = key_pair(nova, request, name.as_str().map(String::from)).await?;
                Some(pair.map(|pair| (pair.name, pair.public_key, pair.r#type)))
            }
        };
        // What boots from a volume has no image, whatever is on it.
        let of_volume = instance.image_ref.is_empty();
        let reimage = (of_volume && request.since(2, 93)).then(|| image_ref.to_string());
        let named = if of_volume { String::new() } else { image_ref.to_string() };
        let image = (!of_volume || reimage.is_some()).then_some((named, facts));
        Ok(Self { image, reimage, given: given.clone(), key })
    }

    fn apply(&self, instance: &mut Instance) {
        let given = &self.given;
        let text = |key: &str| given[key].as_str().map(String::from);
        if let Some((image_ref, facts)) = &self.image {
            instance.image_ref.clone_from(image_ref);
            instance.image = AsJson(facts.clone());
        }
        if let Some(name) = text("name") {
            instance.display_name = name.trim().to_string();
        }
        if let Some(hostname) = text("hostname") {
            instance.hostname = hostname;
        }
        if given.get("description").is_some() {
            instance.display_description = text("description");
        }
        if given.get("metadata").is_some() {
            instance.metadata = AsJson(server_metadata::given(&given["metadata"]));
        }
        if given.get("personality").is_some() {
            instance.personality = AsJson(personality(&given["personality"]));
        }
        if given.get("user_data").is_some() {
            instance.user_data = text("user_data");
        }
        if let Some(config) = text("OS-DCF:diskConfig") {
            instance.auto_disk_config = config == "AUTO";
        }
        if let Some(address) = text("accessIPv4") {
            instance.access_ip_v4 = Some(address);
        }
        if let Some(address) = text("accessIPv6") {
            instance.access_ip_v6 = Some(address);
        }
        if let Some(ids) = given.get("trusted_image_certificates") {
            let ids = ids.as_array().map(|ids| ids.iter().filter_map(|id| id.as_str().map(String::from)));
            instance.trusted_image_certificates = ids.map(|ids| AsJson(ids.collect()));
        }
        if let Some(key) = &self.key {
            instance.key_name = key.as_ref().map(|(name, ..)| name.clone());
            instance.public_key = key.as_ref().map(|(_, key, _)| key.clone());
            instance.key_type = key.as_ref().map(|(.., kind)| kind.clone());
        }
    }
}

fn is_missing(error: &Error) -> bool {
    error.message == super::server_create::NO_IMAGE
}

/// The disk is a volume, which keeps what is on it until 2.93: then only its own image may be named.
async fn check_volume(nova: &Nova, request: &Request, instance: &Instance, image_ref: &str) -> Result<Root> {
    let uuid = instance.uuid.clone();
    let devices = nova.read(move |tx| store::block_devices(tx, &uuid)).await?;
    let root = devices.into_iter().find(|device| device.boot_index == Some(0));
    let volume_id = root.and_then(|root| root.volume_id).unwrap_or_default();
    let volume = nova.volumes().show(&request.ctx, &volume_id).await?;
    let is_its_own = volume.image_metadata.get("image_id").is_some_and(|id| id == image_ref);
    match is_its_own || request.since(2, 93) {
        true => Ok(Root::VolumeOfImage {
            image_id: image_ref.into(),
            size_gb: i64::try_from(volume.size_gb).unwrap_or_default(),
        }),
        false => Err(Error::bad_request(format!(
            "Image {image_ref} is unacceptable: Unable to rebuild with a different image for a volume-backed server."
        ))),
    }
}
