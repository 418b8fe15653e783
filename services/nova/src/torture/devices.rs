//! Volumes and cards that come and go while the server is there.

use super::{Asker, Base, Case, PORT, SPARE_PORT, SPARE_VOLUME, VOLUME};
use crate::{
    flows::{attach_interface, boot::PlannedPort},
    model::VmState,
};
use async_trait::async_trait;
use base::{Context, Json, id};
use serde_json::json;
use web::Authenticate;

struct AttachingVolume;

#[async_trait]
impl Case for AttachingVolume {
    async fn start(base: &Base, uuid: &mut String) {
        let body = json!({"volumeAttachment": {"volumeId": SPARE_VOLUME}});
        base.ask("POST", &format!("/servers/{uuid}/os-volume_attachments"), body).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let count = if fails { 2 } else { 3 };
        let attachments = base.outside.books().attachments;
        assert_eq!((base.devices(uuid).await.len(), attachments.len()), (count, count));
        assert_eq!(base.held(uuid).len(), count);
        assert!(attachments.values().all(|held| held.complete));
        assert_eq!(base.server(uuid).await.vm_state, VmState::Active);
    }
}

struct DetachingVolume;

#[async_trait]
impl Case for DetachingVolume {
    async fn start(base: &Base, uuid: &mut String) {
        let path = format!("/servers/{uuid}/os-volume_attachments/{VOLUME}");
        base.ask("DELETE", &path, Json::Null).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        if fails {
            // It is still the server's, and can be taken from it.
            assert_eq!(
                (base.devices(uuid).await.len(), base.outside.books().attachments.is_empty()),
                (2, false)
            );
            Self::start(base, &mut uuid.to_string()).await;
            base.nova.flows.settled().await;
        }
        assert_eq!((base.devices(uuid).await.len(), base.outside.books().attachments.len()), (1, 1));
        assert_eq!(base.held(uuid).len(), 1);
        assert!(base.outside.books().volumes.iter().any(|id| id == VOLUME), "its owner keeps it");
    }
}

struct AttachingInterface;

#[async_trait]
impl Case for AttachingInterface {
    async fn start(base: &Base, uuid: &mut String) {
        // Not by the request, which waits for the end of the operation, and that may be in another process.
        let port = PlannedPort {
            id: SPARE_PORT.into(),
            network_id: None,
            fixed_ip: None,
            security_group_ids: Vec::new(),
            tag: None,
        };
        let cx = Asker.authenticate("t").await.unwrap();
        let cx = Context { request_id: id::request(), ..cx };
        attach_interface::begin(&base.nova, &cx, uuid, port).await.unwrap();
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let count = if fails { 2 } else { 3 };
        let books = base.outside.books();
        assert_eq!(base.server(uuid).await.nics.len(), count);
        assert_eq!(books.ports.values().filter(|port| port.device_id == *uuid).count(), count);
        assert_eq!(books.ports.len(), 3, "the one made for the server, and its owner's two");
        assert_eq!(base.guest(uuid).instance.ports.len(), count);
    }
}

struct DetachingInterface;

#[async_trait]
impl Case for DetachingInterface {
    async fn start(base: &Base, uuid: &mut String) {
        base.ask("DELETE", &format!("/servers/{uuid}/os-interface/{PORT}"), Json::Null).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        if fails {
            assert_eq!(base.server(uuid).await.nics.len(), 2);
            Self::start(base, &mut uuid.to_string()).await;
            base.nova.flows.settled().await;
        }
        let books = base.outside.books();
        assert_eq!(base.server(uuid).await.nics.len(), 1);
        assert_eq!(books.ports[PORT].device_id, "", "its owner keeps it, free");
        assert_eq!(base.guest(uuid).instance.ports.len(), 1);
    }
}

tests! {
    attaching_a_volume: AttachingVolume, 4 * 6 + 2 * 5;
    detaching_a_volume: DetachingVolume, 2 * 6;
    attaching_an_interface: AttachingInterface, 3 * 6 + 2 * 5;
    detaching_an_interface: DetachingInterface, 2 * 6;
}
