//! What servers live through on one host: made, powered, rebuilt, deleted.

use super::{Base, Case, HOST, OTHER_IMAGE};
use crate::{flows::power::Verb, model::VmState};
use async_trait::async_trait;
use base::Json;
use contracts::compute::PowerState;
use serde_json::json;

struct Booting;

#[async_trait]
impl Case for Booting {
    async fn build(_: &Base) -> String {
        String::new()
    }

    async fn start(base: &Base, uuid: &mut String) {
        *uuid = base.create().await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        if fails {
            assert_eq!((server.vm_state, server.host), (VmState::Error, None));
            assert!(server.fault.is_some() && server.nics.is_empty());
            base.check_nothing();
        } else {
            assert_eq!((server.vm_state, server.host.as_deref()), (VmState::Active, Some(HOST)));
            assert_eq!((server.nics.len(), server.power_state), (2, 1));
            base.check_running(uuid);
        }
        // Whatever became of it, it can be deleted.
        base.check_deletable(uuid).await;
    }
}

struct Deleting;

#[async_trait]
impl Case for Deleting {
    async fn start(base: &Base, uuid: &mut String) {
        base.ask("DELETE", &format!("/servers/{uuid}"), Json::Null).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        if fails {
            let server = base.server(uuid).await;
            assert_eq!(server.vm_state, VmState::Error);
            assert!(server.fault.is_some() && !server.deleted);
            base.ask("DELETE", &format!("/servers/{uuid}"), Json::Null).await;
            base.nova.flows.settled().await;
        }
        let server = base.server(uuid).await;
        assert!(server.deleted && server.terminated_at.is_some());
        assert!(base.devices(uuid).await.is_empty());
        base.check_nothing();
    }
}

/// What is done by one message: the n-th of the verbs.
struct Powering<const N: usize>;

/// What is done before and the state it leads to; what is done and what it leads to.
type Powered = (Verb, Option<&'static str>, VmState, &'static str, PowerState, VmState);

const VERBS: [Powered; 8] = {
    use VmState::{Active, Paused, Stopped, Suspended};
    [
        (Verb::Stop, None, Active, "os-stop", PowerState::Shutdown, Stopped),
        (Verb::Start, Some("os-stop"), Stopped, "os-start", PowerState::Running, Active),
        (Verb::RebootSoft, None, Active, "SOFT", PowerState::Running, Active),
        (Verb::RebootHard, None, Active, "HARD", PowerState::Running, Active),
        (Verb::Pause, None, Active, "pause", PowerState::Paused, Paused),
        (Verb::Unpause, Some("pause"), Paused, "unpause", PowerState::Running, Active),
        (Verb::Suspend, None, Active, "suspend", PowerState::Shutdown, Suspended),
        (Verb::Resume, Some("suspend"), Suspended, "resume", PowerState::Running, Active),
    ]
};

fn body_of(action: &str) -> Json {
    match action {
        "SOFT" | "HARD" => json!({"reboot": {"type": action}}),
        action => json!({action: null}),
    }
}

#[async_trait]
impl<const N: usize> Case for Powering<N> {
    async fn build(base: &Base) -> String {
        let uuid = base.booted().await;
        if let Some(before) = VERBS[N].1 {
            base.act(&uuid, body_of(before)).await;
            base.nova.flows.settled().await;
        }
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, body_of(VERBS[N].3)).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let (_, _, was, _, state, vm_state) = VERBS[N];
        let server = base.server(uuid).await;
        if fails {
            // The host may have done it; the server is told to be as it was, with the reason.
            assert_eq!((server.vm_state, server.fault.is_some()), (was, true));
        } else {
            assert_eq!(server.vm_state, vm_state);
            assert_eq!(base.guest(uuid).state, state);
        }
        assert_eq!(base.outside.books().rooms.len(), 1);
    }
}

struct Rebuilding<const STOPPED: bool>;

#[async_trait]
impl<const STOPPED: bool> Case for Rebuilding<STOPPED> {
    async fn build(base: &Base) -> String {
        let uuid = base.booted().await;
        if STOPPED {
            base.act(&uuid, body_of("os-stop")).await;
            base.nova.flows.settled().await;
        }
        uuid
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"rebuild": {"imageRef": OTHER_IMAGE, "name": "anew"}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        let server = base.server(uuid).await;
        assert_eq!((&*server.display_name, &*server.image_ref), ("anew", OTHER_IMAGE));
        if fails {
            assert_eq!((server.vm_state, server.fault.is_some()), (VmState::Error, true));
            // It can be rebuilt once more.
            Self::start(base, &mut uuid.to_string()).await;
            base.nova.flows.settled().await;
        }
        let stopped = STOPPED && !fails;
        let server = base.server(uuid).await;
        assert_eq!(server.vm_state, if stopped { VmState::Stopped } else { VmState::Active });
        if !stopped {
            base.check_running(uuid);
        }
        assert_eq!(base.outside.books().rooms.len(), 1);
    }
}

/// A server that boots from a volume, which is written anew.
struct Reimaging;

#[async_trait]
impl Case for Reimaging {
    async fn build(base: &Base) -> String {
        base.booted_from_volume().await
    }

    async fn start(base: &Base, uuid: &mut String) {
        base.act(uuid, json!({"rebuild": {"imageRef": OTHER_IMAGE, "name": "anew"}})).await;
    }

    async fn check(base: &Base, uuid: &str, fails: bool) {
        if fails {
            assert_eq!(base.server(uuid).await.vm_state, VmState::Error);
            // It can be rebuilt once more.
            Self::start(base, &mut uuid.to_string()).await;
            base.nova.flows.settled().await;
        }
        let server = base.server(uuid).await;
        assert_eq!(
            (server.vm_state, &*server.image_ref, &*server.display_name),
            (VmState::Active, "", "anew")
        );
        let devices = base.devices(uuid).await;
        let root = devices.iter().find(|device| device.boot_index == Some(0)).unwrap();
        let written = base.outside.books().written.get(root.volume_id.as_ref().unwrap()).cloned();
        assert_eq!(written.as_deref(), Some(OTHER_IMAGE));
        base.check_running(uuid);
        base.check_deletable(uuid).await;
    }
}

tests! {
    booting: Booting, 6 * 6 + 4 * 5;
    deleting: Deleting, 5 * 6;
    stopping: Powering<0>, 6;
    starting: Powering<1>, 6;
    rebooting: Powering<2>, 6;
    rebooting_hard: Powering<3>, 6;
    pausing: Powering<4>, 6;
    unpausing: Powering<5>, 6;
    suspending: Powering<6>, 6;
    resuming: Powering<7>, 6;
    rebuilding: Rebuilding<false>, 6 * 6;
    rebuilding_what_is_off: Rebuilding<true>, 6 * 6;
    rebuilding_from_a_volume: Reimaging, 6 * 6;
}

#[test]
fn every_verb_is_tortured() {
    for facts in crate::flows::power::VERBS {
        assert!(VERBS.iter().any(|(verb, ..)| *verb == facts.verb), "{:?}", facts.verb);
    }
}
