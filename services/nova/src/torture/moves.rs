//! Servers on their way to another flavor or host, off or running, and away from a host that is down.

use super::{Base, Case, HOST, OTHER_HOST, SPARE_VOLUME, VOLUME};
use crate::model::{Instance, VmState};
use async_trait::async_trait;
use base::Json;
use serde_json::json;

/// Larger than the one that servers here begin with.
async fn larger_flavor(base: &Base) -> String {
    base.ask("GET", "/flavors", Json::Null).await["flavors"][1]["id"].as_str().unwrap().to_string()
}

async fn booted_and(base: &Base, action: Json) -> String {
    let uuid = base.booted().await;
    base.act(&uuid, action).await;
    base.nova.flows.settled().await;
    uuid
}

/// As it was before anybody asked, but for the reason why it did not become otherwise.
fn check_as_it_was(base: &Base, server: &Instance, state: VmState) {
    assert_eq!((server.vm_state, server.host.as_deref()), (state, Some(HOST)));
    assert_eq!((server.vcpus, server.memory_mb), (server.flavor.vcpus, server.flavor.memory_mb));
    assert!(server.fault.is_some());
    if state == VmState::Active {
        base.check_running(&server.uuid);
    }
}

struct Resizing<const OFF: bool>;

#[async_trait]
impl<const OFF: bool> Case for Resizing<OFF> {
    async fn build(base: &Base) -> String {
        match OFF {
            true => booted_and(base, json!({"os-stop": null})).await,
            false => base.booted().await,
        }
    }

    async fn start(base: &Base, uuid: &mut String) {
        let flavor = larger_flavor(base).await;
        base.act(uuid, json!({"resize": {"flavorRef": flavor}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        let was = if OFF { VmState::Stopped } else { VmState::Active };
        if fails {
            check_as_it_was(base, &server, was);
            assert_ne!(server.flavor_id, larger_flavor(base).await);
            assert!(base.hosts.nothing_moves());
        } else {
            assert_eq!((server.vm_state, server.host.as_deref()), (VmState::Resized, Some(OTHER_HOST)));
            assert_eq!(server.flavor_id, larger_flavor(base).await);
            assert_eq!(base.outside.books().rooms.len(), 2, "the move holds the room where it was");
            base.check_devices_on(OTHER_HOST, uuid);
        }
        base.check_deletable(uuid).await;
    }
}

struct Migrating;

#[async_trait]
impl Case for Migrating {
    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"migrate": null})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        match fails {
            true => check_as_it_was(base, &server, VmState::Active),
            false => {
                assert_eq!((server.vm_state, server.host.as_deref()), (VmState::Resized, Some(OTHER_HOST)));
                base.check_devices_on(OTHER_HOST, uuid);
            }
        }
        base.check_deletable(uuid).await;
    }
}

struct Confirming;

#[async_trait]
impl Case for Confirming {
    async fn build(base: &Base) -> String {
        let flavor = larger_flavor(base).await;
        booted_and(base, json!({"resize": {"flavorRef": flavor}})).await
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"confirmResize": null})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        if fails {
            assert_eq!((server.vm_state, server.fault.is_some()), (VmState::Error, true));
        } else {
            assert_eq!((server.vm_state, server.vcpus), (VmState::Active, server.flavor.vcpus));
            base.check_running_on(OTHER_HOST, uuid);
        }
        base.check_deletable(uuid).await;
    }
}

struct Reverting<const OFF: bool>;

#[async_trait]
impl<const OFF: bool> Case for Reverting<OFF> {
    async fn build(base: &Base) -> String {
        let mut uuid = Resizing::<OFF>::build(base).await;
        Resizing::<OFF>::start(base, &mut uuid).await;
        base.nova.flows.settled().await;
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"revertResize": null})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        if fails {
            assert_eq!((server.vm_state, server.fault.is_some()), (VmState::Error, true));
        } else {
            let was = if OFF { VmState::Stopped } else { VmState::Active };
            assert_eq!((server.vm_state, server.host.as_deref()), (was, Some(HOST)));
            assert_ne!(server.flavor_id, larger_flavor(base).await);
            assert_eq!((server.vcpus, server.memory_mb), (server.flavor.vcpus, server.flavor.memory_mb));
            base.check_devices_on(HOST, uuid);
            assert!(base.hosts.nothing_moves() && base.outside.books().rooms.len() == 1);
        }
        base.check_deletable(uuid).await;
    }
}

struct LiveMigrating;

#[async_trait]
impl Case for LiveMigrating {
    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"os-migrateLive": {"host": null, "block_migration": "auto"}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        assert_eq!(server.vm_state, VmState::Active);
        match server.host.as_deref() {
            Some(OTHER_HOST) if fails => {
                // It has arrived; what could not be cleared away is gone at the latest when the server is.
                assert!(base.hosts.guest(OTHER_HOST, uuid).is_some() && server.fault.is_some());
            }
            Some(OTHER_HOST) => base.check_running_on(OTHER_HOST, uuid),
            _ => {
                assert!(fails, "it is where it was");
                check_as_it_was(base, &server, VmState::Active);
            }
        }
        base.check_deletable(uuid).await;
    }
}

struct Evacuating;

#[async_trait]
impl Case for Evacuating {
    async fn build(base: &Base) -> String {
        let uuid = base.booted().await;
        base.hosts.lose(HOST);
        let services = base.ask("GET", "/os-services", Json::Null).await;
        let services = services["services"].as_array().unwrap().clone();
        let lost = services.iter().find(|service| service["host"] == HOST).unwrap();
        let path = format!("/os-services/{}", lost["id"].as_str().unwrap());
        base.ask("PUT", &path, json!({"forced_down": true})).await;
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"evacuate": {}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        let (state, host) = if fails { (VmState::Active, HOST) } else { (VmState::Stopped, OTHER_HOST) };
        assert_eq!((server.vm_state, server.host.as_deref()), (state, Some(host)));
        assert_eq!(base.outside.books().rooms.len(), 1);
        match fails {
            true => assert!(base.hosts.are_empty()),
            false => base.check_devices_on(OTHER_HOST, uuid),
        }
        base.check_deletable(uuid).await;
    }
}

struct SwappingVolume;

#[async_trait]
impl Case for SwappingVolume {
    async fn start(base: &Base, uuid: &mut String) {
        let body = json!({"volumeAttachment": {"volumeId": SPARE_VOLUME}});
        base.ask("PUT", &format!("/servers/{uuid}/os-volume_attachments/{VOLUME}"), body).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let (has, has_not) = if fails { (VOLUME, SPARE_VOLUME) } else { (SPARE_VOLUME, VOLUME) };
        let held = base.held(uuid);
        assert!(held.iter().any(|id| id == has) && !held.iter().any(|id| id == has_not), "{held:?}");
        base.check_running(uuid);
        base.check_deletable(uuid).await;
    }

    const BEHIND: &'static [&'static str] = &["let_go"];
}

tests! {
    resizing: Resizing<false>, 6 * 6 + 4 * 5;
    resizing_what_is_off: Resizing<true>, 6 * 6 + 4 * 5;
    migrating: Migrating, 6 * 6 + 4 * 5;
    confirming: Confirming, 2 * 6;
    reverting: Reverting<false>, 5 * 6;
    reverting_what_is_off: Reverting<true>, 5 * 6;
    migrating_live: LiveMigrating, 8 * 6;
    evacuating: Evacuating, 4 * 6 + 3 * 5;
    swapping_a_volume: SwappingVolume, 4 * 6;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_confirms_is_confirmed_in_time() {
    let (base, window) = (Base::new().await, std::time::Duration::from_secs(60));
    let flavor = larger_flavor(&base).await;
    let uuid = booted_and(&base, json!({"resize": {"flavorRef": flavor}})).await;
    base.clock.advance(window / 2);
    for (waits, state, rooms) in [(true, VmState::Resized, 2), (false, VmState::Active, 1)] {
        base.nova.confirm_old_resizes(window).await.unwrap();
        base.nova.flows.settled().await;
        assert_eq!(base.server(&uuid).await.vm_state, state, "waits: {waits}");
        assert_eq!(base.outside.books().rooms.len(), rooms);
        base.clock.advance(window);
    }
    assert_eq!(base.told(&uuid).await, None);
    // Again: there is nothing left to confirm.
    base.nova.confirm_old_resizes(window).await.unwrap();
    base.check_deletable(&uuid).await;
}
