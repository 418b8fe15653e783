//! What neutron and cinder tell nova of its servers: `os-server-external-events`, and the same as a call.

use super::checked;
use crate::{
    Nova, actions,
    flows::placing,
    model::{Instance, Nic},
    schemas, store,
};
use async_trait::async_trait;
use base::{Context, Json, Result};
use contracts::servers::{ExternalEvent, Servers};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, post};

pub fn routes() -> Routes<Nova> {
    vec![post("/v2.1/os-server-external-events", "os_compute_api:os-server-external-events:create", create)]
}

async fn create(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    request.can(&json!({}))?;
    let mut events = checked(&request, &schemas::EXTERNAL_EVENTS)?["events"].clone();
    let mut all_fine = true;
    for event in events.as_array_mut().into_iter().flatten() {
        let code = take(&nova, &request, event).await?;
        all_fine &= code == 200;
        event["code"] = code.into();
        event["status"] = if code == 200 { "completed" } else { "failed" }.into();
    }
    let status = if all_fine { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok(Reply::json(status, json!({"events": events})))
}

const NEED_TAG: [&str; 3] = ["volume-extended", "power-update", "accelerator-request-bound"];

async fn take(nova: &Arc<Nova>, request: &Request, event: &Json) -> Result<u16> {
    let text = |name: &str| event[name].as_str().map(String::from);
    let server_id = text("server_uuid").unwrap_or_default();
    let uuid = server_id.clone();
    let Ok(instance) = nova.read(move |tx| store::instance(tx, &uuid)).await else { return Ok(404) };
    let (name, tag) = (text("name").unwrap_or_default(), text("tag"));
    if tag.is_none() && NEED_TAG.contains(&name.as_str()) {
        return Ok(400);
    }
    if instance.host.is_none() {
        return Ok(422);
    }
    let status = text("status").unwrap_or_else(|| "completed".into());
    nova.external_event(&request.ctx, &ExternalEvent { server_id, name, tag, status }).await?;
    Ok(200)
}

#[async_trait]
impl Servers for Nova {
    async fn external_event(&self, cx: &Context, event: &ExternalEvent) -> Result<()> {
        let uuid = event.server_id.clone();
        let found = self.read(move |tx| Ok(store::instance(tx, &uuid).ok())).await?;
        let Some(instance) = found else { return Ok(()) };
        match event.name.as_str() {
            "network-changed" | "network-vif-plugged" | "network-vif-unplugged" | "network-vif-deleted" => {
                self.refresh_nics(cx, &instance.uuid).await
            }
            "volume-extended" => {
                let volume_id = event.tag.as_deref().unwrap_or_default();
                self.extend_volume(cx, &instance, volume_id).await
            }
            _ => Ok(()),
        }
    }

    async fn attachment(&self, _: &Context, server_id: &str, volume_id: &str) -> Result<Option<String>> {
        let (uuid, volume_id) = (server_id.to_string(), volume_id.to_string());
        let devices = self.read(move |tx| store::block_devices(tx, &uuid)).await?;
        let held = devices.into_iter().find(|device| device.volume_id.as_ref() == Some(&volume_id));
        Ok(held.and_then(|device| device.attachment_id))
    }
}

/// As clients that wait for it know the action.
const EXTEND: &str = "extend_volume";

impl Nova {
    /// Takes over what neutron says of the server's ports; those that are gone leave the guest, too.
    pub async fn refresh_nics(&self, cx: &Context, uuid: &str) -> Result<()> {
        let own = self.own(cx);
        let uuid = uuid.to_string();
        let ports = self.networks().ports_of(&own, std::slice::from_ref(&uuid)).await?;
        let now = self.clock.now();
        let gone = self
            .write(move |tx| {
                let Ok(instance) = store::instance(tx, &uuid) else { return Ok(None) };
                let mut nics = instance.nics.0.clone();
                let there = |id: &str| ports.iter().find(|port| port.id == id);
                let gone: Vec<Nic> =
                    nics.iter().filter(|nic| there(&nic.port.id).is_none()).cloned().collect();
                nics.retain(|nic| there(&nic.port.id).is_some());
                for nic in &mut nics {
                    if let Some(port) = there(&nic.port.id) {
                        nic.port = port.clone();
                    }
                }
                if nics != instance.nics.0 {
                    store::change(tx, &uuid, now, |found| found.nics.0 = nics.clone())?;
                }
                Ok(Some((instance, gone)))
            })
            .await?;
        let Some((instance, gone)) = gone else { return Ok(()) };
        let Some(host) = &instance.host else { return Ok(()) };
        for nic in &gone {
            self.compute(host).detach_interface(&own, &instance.uuid, &nic.port.mac).await?;
        }
        // What is being done to the server counts for itself.
        let is_idle = instance.task_state.is_none();
        match is_idle && gone.iter().any(|nic| !nic.port.allocation.is_empty()) {
            true => placing::recount(self, cx, &instance.uuid).await,
            false => Ok(()),
        }
    }

    async fn extend_volume(&self, cx: &Context, instance: &Instance, volume_id: &str) -> Result<()> {
        let own = self.own(cx);
        let volume = self.volumes().show(&own, volume_id).await?;
        let uuid = instance.uuid.clone();
        let mut devices = self.read(move |tx| store::block_devices(tx, &uuid)).await?;
        devices.retain(|device| device.volume_id.as_deref() == Some(volume_id));
        let (Some(mut device), Some(host)) = (devices.pop(), &instance.host) else { return Ok(()) };
        device.volume_size_gb = i64::try_from(volume.size_gb).ok();
        let (now, told, uuid) = (self.clock.now(), cx.clone(), instance.uuid.clone());
        self.write(move |tx| {
            tx.update(&device)?;
            // The event may be told twice.
            match actions::by_request(tx, &uuid, &told.request_id)? {
                Some(_) => Ok(()),
                None => actions::begin(tx, &told, &uuid, EXTEND, now),
            }
        })
        .await?;
        let grown =
            self.compute(host).extend_volume(&own, &instance.uuid, volume_id, volume.size_gb << 30).await;
        let (now, told, uuid, host) =
            (self.clock.now(), cx.clone(), instance.uuid.clone(), Some(host.clone()));
        let failure = grown.as_ref().err().cloned();
        self.write(move |tx| {
            let event = actions::Event {
                instance_uuid: &uuid,
                action: EXTEND,
                event: "compute_extend_volume",
                host: host.clone(),
            };
            actions::end(tx, &told, &event, failure.as_ref(), now)
        })
        .await?;
        grown
    }
}
