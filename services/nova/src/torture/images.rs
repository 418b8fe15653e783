//! A server's disk becomes an image; a server starts from another disk, is put away, comes back.

use super::{Base, Case, HOST, OTHER_IMAGE};
use crate::model::VmState;
use async_trait::async_trait;
use base::Json;
use contracts::compute::PowerState;
use serde_json::json;

struct Snapshotting;

#[async_trait]
impl Case for Snapshotting {
    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"createImage": {"name": "shot"}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        check_image(base, uuid, fails);
        assert_eq!(base.server(uuid).await.vm_state, VmState::Active);
        base.check_running(uuid);
    }
}

fn check_image(base: &Base, uuid: &str, fails: bool) {
    let images = base.outside.books().images;
    match fails {
        true => assert!(images.is_empty(), "an image without bytes is left"),
        false => assert_eq!(base.hosts.snapshots(), [(uuid.to_string(), images[0].clone())]),
    }
}

struct BackingUp;

#[async_trait]
impl Case for BackingUp {
    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        check_image(base, uuid, fails);
        base.check_running(uuid);
    }
}

struct Rescuing;

#[async_trait]
impl Case for Rescuing {
    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"rescue": {"rescue_image_ref": OTHER_IMAGE}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        assert_eq!(server.vm_state, if fails { VmState::Active } else { VmState::Rescued });
        if !fails {
            assert_eq!(base.guest(uuid).rescue.unwrap().image.id, OTHER_IMAGE);
        }
        base.check_running(uuid);
    }
}

struct Unrescuing;

#[async_trait]
impl Case for Unrescuing {
    async fn build(base: &Base) -> String {
        let mut uuid = base.booted().await;
        Rescuing::start(base, &mut uuid).await;
        base.nova.flows.settled().await;
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"unrescue": null})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        assert_eq!(server.vm_state, if fails { VmState::Rescued } else { VmState::Active });
        if !fails {
            assert_eq!(base.guest(uuid).rescue, None);
        }
        base.check_running(uuid);
    }
}

struct Shelving;

#[async_trait]
impl Case for Shelving {
    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"shelve": null})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        if fails {
            assert_eq!((server.vm_state, server.host.as_deref()), (VmState::Active, Some(HOST)));
            base.check_running(uuid);
        } else {
            check_offloaded(base, uuid).await;
        }
        check_image(base, uuid, fails);
        base.check_deletable(uuid).await;
    }

    const BEHIND: &'static [&'static str] = &["shelve_offload"];
}

/// It takes nothing of any host, and keeps what it has.
async fn check_offloaded(base: &Base, uuid: &str) {
    let (server, books) = (base.server(uuid).await, base.outside.books());
    assert_eq!((server.vm_state, server.host, server.node), (VmState::ShelvedOffloaded, None, None));
    assert!(base.hosts.are_empty() && books.rooms.is_empty(), "{books:?}");
    let ports: Vec<_> = books.ports.values().filter(|port| port.device_id == *uuid).collect();
    assert!(ports.len() == 2 && ports.iter().all(|port| port.host.is_empty()), "{ports:?}");
    let spoken_for = |held: &super::Attachment| held.server == *uuid && !held.connected;
    assert!(books.attachments.len() == 2 && books.attachments.values().all(spoken_for), "{books:?}");
}

struct Unshelving;

#[async_trait]
impl Case for Unshelving {
    async fn build(base: &Base) -> String {
        let mut uuid = base.booted().await;
        Shelving::start(base, &mut uuid).await;
        base.nova.flows.settled().await;
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"unshelve": null})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        match fails {
            true => check_offloaded(base, uuid).await,
            false => {
                assert_eq!(server.vm_state, VmState::Active);
                base.check_running_on(server.host.as_deref().unwrap(), uuid);
            }
        }
        base.check_deletable(uuid).await;
    }

    const BEHIND: &'static [&'static str] = &["remove_image"];
}

/// A snapshot of what is off leaves it off.
struct SnapshottingWhatIsOff;

#[async_trait]
impl Case for SnapshottingWhatIsOff {
    async fn build(base: &Base) -> String {
        let uuid = base.booted().await;
        base.act(&uuid, json!({"os-stop": Json::Null})).await;
        base.nova.flows.settled().await;
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        Snapshotting::start(base, uuid).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        check_image(base, uuid, fails);
        assert_eq!(base.server(uuid).await.vm_state, VmState::Stopped);
        assert_eq!(base.guest(uuid).state, PowerState::Shutdown);
    }
}

tests! {
    snapshotting: Snapshotting, 4 * 6 + 5;
    snapshotting_what_is_off: SnapshottingWhatIsOff, 4 * 6 + 5;
    backing_up: BackingUp, 4 * 6 + 5;
    rescuing: Rescuing, 6;
    unrescuing: Unrescuing, 6;
    shelving: Shelving, 7 * 6;
    unshelving: Unshelving, 5 * 6;
}
