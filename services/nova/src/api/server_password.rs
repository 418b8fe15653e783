//! The administrator's password of a guest: set through the guest's agent, and shown as it was left with the metadata
//! service or set here, encrypted with its owner's key.

use super::{checked, server_actions::accepted, word_is_true};
use crate::{
    Nova, actions,
    flows::power::check_state,
    keys,
    model::{GuestPassword, Instance, VmState},
    schemas, store,
};
use base::{Error, ErrorKind, Result, Secret};
use contracts::compute::PowerState;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, action, delete, get};

pub fn routes() -> Routes<Nova> {
    const PATH: &str = "/v2.1/servers/{server_id}/os-server-password";
    vec![
        get(PATH, "os_compute_api:os-server-password:show", show),
        delete(PATH, "os_compute_api:os-server-password:clear", clear),
        action(
            "/v2.1/servers/{server_id}/action",
            "changePassword",
            "os_compute_api:os-admin-password",
            change_password,
        ),
    ]
}

async fn show(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let uuid = nova.server(&request).await?.uuid;
    let found = nova.read(move |tx| tx.find::<GuestPassword>(&uuid)).await?;
    Ok(Reply::ok(json!({"password": found.map(|row| row.password).unwrap_or_default()})))
}

async fn clear(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let uuid = nova.server(&request).await?.uuid;
    nova.write(move |tx| tx.remove::<GuestPassword>(&uuid)).await?;
    Ok(Reply::no_content())
}

/// The password stays with the caller, so nothing of it may be left to a flow: who is interrupted asks again.
async fn change_password(nova: Arc<Nova>, request: Request) -> Result<Reply> {
    let given = checked(&request, &schemas::CHANGE_PASSWORD)?["changePassword"]["adminPass"].as_str();
    let password = Secret::new(given.unwrap_or_default());
    let instance = nova.server(&request).await?;
    if super::check_unlocked(&request, &instance).is_err() {
        let uuid = &instance.uuid;
        return Err(Error::conflict(format!("Instance {uuid} is in an invalid state for 'changePassword'")));
    }
    check_state(&instance, &[VmState::Active], &[], "changePassword")?;
    let encrypted = for_its_owner(&instance, &password)?;
    const ACTION: &str = "changePassword";
    nova.act(&request.ctx, &instance, ACTION, "compute_set_admin_password", async || {
        set(&nova, &request, &instance, &password).await
    })
    .await?;
    if let Some(password) = encrypted {
        let row = GuestPassword { instance_uuid: instance.uuid, password };
        nova.write(move |tx| if tx.update(&row)? { Ok(()) } else { tx.insert(&row) }).await?;
    }
    Ok(accepted())
}

async fn set(nova: &Nova, request: &Request, instance: &Instance, password: &Secret) -> Result<()> {
    let failed = |why: &str| {
        Error::conflict(format!("Failed to set admin password on {} because {why}", instance.uuid))
    };
    if instance.power_state != PowerState::Running as i64 {
        return Err(failed(&format!("instance {} is not running", instance.uuid)));
    }
    let properties = &instance.image.properties;
    let property = |name: &str| properties.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if !property("hw_qemu_guest_agent").is_some_and(word_is_true) {
        return Err(Error::conflict("QEMU guest agent is not enabled"));
    }
    let is_windows = property("os_type") == Some("windows");
    let usual = if is_windows { "Administrator" } else { "root" };
    let user = property("os_admin_user").unwrap_or(usual);
    let host = super::server_actions::host_of(instance)?;
    let own = nova.own(&request.ctx);
    let set = nova.compute(host).set_admin_password(&own, &instance.uuid, user, password).await;
    set.map_err(|error| match error.kind {
        ErrorKind::NotImplemented => Error::not_implemented("Unable to set password on instance"),
        ErrorKind::Timeout | ErrorKind::Unavailable => error,
        // What the guest said might have the password in it.
        _ => failed("error setting admin password"),
    })
}

/// As the guest itself would leave it; none for who has no RSA key.
fn for_its_owner(instance: &Instance, password: &Secret) -> Result<Option<String>> {
    match &instance.public_key {
        Some(key) if key.starts_with("ssh-rsa") => keys::encrypt(key, password).map(Some),
        _ => Ok(None),
    }
}

impl Nova {
    /// Something of one call to the host, in the server's record of actions with how it went.
    pub async fn act(
        &self,
        cx: &base::Context,
        instance: &Instance,
        action: &'static str,
        event: &'static str,
        work: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<()> {
        let (own, uuid, now) = (cx.clone(), instance.uuid.clone(), self.clock.now());
        self.write(move |tx| {
            store::instance(tx, &uuid)?;
            actions::begin(tx, &own, &uuid, action, now)
        })
        .await?;
        let done = work().await;
        let (own, instance, now) = (cx.clone(), instance.clone(), self.clock.now());
        let failure = done.as_ref().err().cloned();
        self.write(move |tx| {
            let host = instance.host.clone();
            let event = actions::Event { instance_uuid: &instance.uuid, action, event, host };
            actions::end(tx, &own, &event, failure.as_ref(), now)
        })
        .await?;
        done
    }
}
