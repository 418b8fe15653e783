//! Makes an image of a server's root disk: a snapshot, or a backup, of which only the newest are kept.

use super::{failed_as_it_was, power::check_state};
use crate::{
    Nova, actions, guest,
    model::{Instance, TaskState, VmState},
    store,
};
use base::{Context, Error, Json, Result};
use contracts::{compute::SnapshotImage, images::NewImage};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub uuid: String,
    pub image: NewImage,
    pub rotation: Option<Rotation>,
}

/// Backups of a type, and how many of them are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rotation {
    pub backup_type: String,
    pub keep: usize,
}

impl Flow for Snapshot {
    const KIND: &'static str = "snapshot";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(make_image, undo discard_image),
                step!(upload).interruptible(),
                step!(rotate),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        failed_as_it_was(nova, tx, cx, &self.event(None), error)
    }
}

impl Snapshot {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let (action, event) = match self.rotation {
            None => ("createImage", "compute_snapshot_instance"),
            Some(_) => ("createBackup", "compute_backup_instance"),
        };
        actions::Event { instance_uuid: &self.uuid, action, event, host }
    }
}

async fn make_image(nova: &Arc<Nova>, cx: &Context, flow: &mut Snapshot) -> Result<Effect> {
    nova.image_maker().create(cx, &flow.image).await?;
    Ok(task(nova, &flow.uuid, TaskState::ImageUploading))
}

/// The image, in the caller's request: his token is not kept. Who makes one of somebody else's server shares it.
pub async fn make(nova: &Nova, cx: &Context, instance: &Instance, image: &NewImage) -> Result<()> {
    nova.image_maker().create(cx, image).await?;
    share(nova, cx, instance, &image.id).await;
    Ok(())
}

async fn share(nova: &Nova, cx: &Context, instance: &Instance, image_id: &str) {
    if cx.project_id == instance.project_id {
        return;
    }
    let (path, body) = (format!("/v2/images/{image_id}/members"), json!({"member": instance.project_id}));
    match nova.peers.apis.image.call(cx, "POST", &path, Some(&body)).await {
        Err(error) if !error.is(base::ErrorKind::Conflict) => {
            tracing::warn!(image_id, %error, "the image is not shared with the server's project");
        }
        _ => {}
    }
}

async fn discard_image(nova: &Arc<Nova>, cx: &Context, flow: &mut Snapshot) -> Result<Effect> {
    nova.image_maker().discard(cx, &flow.image.id).await?;
    Ok(Effect::none())
}

async fn upload(nova: &Arc<Nova>, cx: &Context, flow: &mut Snapshot) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    to_image(nova, cx, &instance, &flow.image).await?;
    Ok(Effect::none())
}

/// The host brings the server's root disk to the image.
pub async fn to_image(nova: &Nova, cx: &Context, instance: &Instance, image: &NewImage) -> Result<()> {
    let host = instance.host.as_deref().ok_or_else(|| Error::conflict("The server is on no host."))?;
    let wanted = SnapshotImage { id: image.id.clone(), disk_format: image.disk_format.clone() };
    nova.compute(host).snapshot(&nova.own(cx), &instance.uuid, &wanted).await
}

/// The oldest backups beyond those that are kept go.
async fn rotate(nova: &Arc<Nova>, cx: &Context, flow: &mut Snapshot) -> Result<Effect> {
    let Some(rotation) = &flow.rotation else { return Ok(Effect::none()) };
    let properties = [
        ("instance_uuid", flow.uuid.as_str()),
        ("image_type", "backup"),
        ("backup_type", rotation.backup_type.as_str()),
    ];
    let properties = properties.map(|(name, value)| (name.to_string(), value.to_string())).into();
    let images = &nova.peers.image_keeper;
    for id in images.newest_first(cx, &properties).await?.into_iter().skip(rotation.keep) {
        images.delete(cx, &id).await?;
    }
    Ok(Effect::none())
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut Snapshot) -> Result<Effect> {
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.clone();
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

/// Progress that does not hide that somebody is deleting the server.
pub fn task(nova: &Arc<Nova>, uuid: &str, task: TaskState) -> Effect {
    let (nova, uuid) = (nova.clone(), uuid.to_string());
    Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = Some(task);
            }
        })
        .map(drop)
    })
}

const FROM: &[VmState] = &[VmState::Active, VmState::Stopped, VmState::Paused, VmState::Suspended];

/// The refusal comes before the image is made; [`begin`] looks again.
pub fn check(instance: &Instance, rotation: Option<&Rotation>) -> Result<()> {
    let name = if rotation.is_some() { "createBackup" } else { "createImage" };
    check_state(instance, FROM, &[], name)
}

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, flow: &Snapshot) -> Result<()> {
    let instance = store::instance(tx, &flow.uuid)?;
    check(&instance, flow.rotation.as_ref())?;
    let now = nova.clock.now();
    let task = if flow.rotation.is_some() { TaskState::ImageBackup } else { TaskState::ImageSnapshotPending };
    store::change(tx, &flow.uuid, now, |instance| instance.task_state = Some(task))?;
    actions::begin(tx, cx, &flow.uuid, flow.event(None).action, now)?;
    nova.flows.start(tx, cx, flow, &flow.uuid).map(drop)
}

/// The image that a server's disk becomes: what its own image said of itself, and what is said of it now.
pub fn image_of(cx: &Context, instance: &Instance, id: &str, name: &str, kind: &str) -> NewImage {
    let facts = &instance.image.0;
    let own = |key: &str| !NOT_INHERITED.contains(&key) && !key.starts_with("os_glance");
    let mut properties: std::collections::BTreeMap<String, String> =
        facts.properties.iter().filter(|(key, _)| own(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if !instance.image_ref.is_empty() {
        properties.insert("base_image_ref".into(), instance.image_ref.clone());
    }
    let owner = cx.project_id == instance.project_id;
    let more = [
        ("instance_uuid", instance.uuid.clone()),
        ("user_id", cx.user_id.clone()),
        ("image_type", kind.to_string()),
        ("owner_project_name", cx.project_name.clone()),
        ("owner_user_name", cx.user_name.clone()),
    ];
    properties
        .extend(more.into_iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.to_string(), v)));
    if !owner {
        properties.insert("instance_owner".into(), instance.project_id.clone());
    }
    NewImage {
        id: id.into(),
        name: name.into(),
        disk_format: guest::local_disk_format(instance).into(),
        container_format: "bare".into(),
        visibility: if owner { "private" } else { "shared" }.into(),
        protected: false,
        min_disk_gb: facts.min_disk_gb.max(instance.flavor.root_gb.unsigned_abs()),
        min_ram_mb: facts.min_ram_mb,
        properties,
    }
}

/// What is of the image alone, not of what is made of it.
const NOT_INHERITED: &[&str] = &[
    "cache_in_nova",
    "bittorrent",
    "img_signature_hash_method",
    "img_signature",
    "img_signature_key_type",
    "img_signature_certificate_uuid",
    "block_device_mapping",
    "bdm_v2",
    "root_device_name",
];

/// Metadata that a request gives to its image goes before all else.
pub fn add_metadata(image: &mut NewImage, metadata: &Json) {
    for (key, value) in metadata.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), String::from);
        image.properties.insert(key.clone(), value);
    }
}
