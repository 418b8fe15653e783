//! A host that its operator empties: no new servers, and those it has go elsewhere, running ones running.

use crate::{
    Nova,
    flows::{live_migrate, resize, shelve},
    model::{Instance, Migration, Service, VmState},
    scheduler, store,
};
use async_trait::async_trait;
use base::{Context, ErrorKind, Result, Timestamp};
use contracts::hosts::{HostUser, Left};
use db::Tx;
use std::{sync::Arc, time::Duration};

/// Why a host is disabled that is drained. One that an administrator disabled keeps his reason, and stays disabled.
const REASON: &str = "The host is drained.";
/// How often a server is sent off before its operator must look at it.
const ATTEMPTS_MAX: usize = 3;
/// Between a move that failed and the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Of nova's servers.
pub struct Drain(pub Arc<Nova>);

#[async_trait]
impl HostUser for Drain {
    async fn close(&self, _cx: &Context, host: &str) -> Result<()> {
        let (host, now) = (host.to_string(), self.0.clock.now());
        let work = move |tx: &mut Tx| {
            let Some(mut service) = store::service_on(tx, &host)? else { return Ok(()) };
            if !service.disabled {
                (service.disabled, service.disabled_reason) = (true, Some(REASON.into()));
            }
            // Moves that failed before this moment count no more.
            service.updated_at = now;
            tx.update(&service).map(drop)
        };
        self.0.write(work).await
    }

    async fn empty(&self, cx: &Context, host: &str) -> Result<()> {
        let Some(plan) = self.0.plan(host).await? else { return Ok(()) };
        let moving = plan.iter().filter(|(_, fate)| matches!(fate, Fate::Moving(_))).count();
        let free = self.0.options.drain_moves_max.saturating_sub(moving);
        let may_go = plan.into_iter().filter_map(|(server, fate)| match fate {
            Fate::Goes(how) => Some((server, how)),
            _ => None,
        });
        for (uuid, how) in may_go.take(free) {
            let (own, cx) = (self.0.clone(), cx.clone());
            let begun = self.0.write(move |tx| how.begin(&own, tx, &cx, &uuid)).await;
            // Its state has changed since: it is looked at again.
            begun.or_else(|error| if error.is(ErrorKind::Conflict) { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }

    async fn left(&self, _cx: &Context, host: &str) -> Result<Vec<Left>> {
        let plan = self.0.plan(host).await?.unwrap_or_default();
        Ok(plan.into_iter().map(|(uuid, fate)| fate.told(&uuid)).collect())
    }

    async fn open(&self, _cx: &Context, host: &str) -> Result<()> {
        let (host, now) = (host.to_string(), self.0.clock.now());
        let work = move |tx: &mut Tx| match store::service_on(tx, &host)? {
            Some(mut service) if service.disabled_reason.as_deref() == Some(REASON) => {
                (service.disabled, service.disabled_reason) = (false, None);
                service.updated_at = now;
                tx.update(&service).map(drop)
            }
            _ => Ok(()),
        };
        self.0.write(work).await
    }
}

/// What a server on the host can do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Goes(How),
    Moving(String),
    /// Something else is done to it, or it pauses.
    Waits(String),
    Stuck(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Live,
    Cold,
    Offload,
}

impl How {
    fn begin(self, nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str) -> Result<()> {
        match self {
            Self::Live => live_migrate::begin(nova, tx, cx, uuid, &live_migrate::Wanted::default()),
            Self::Cold => resize::begin(nova, tx, cx, uuid, &resize::Wanted::elsewhere()),
            Self::Offload => shelve::begin_offload_alone(nova, tx, cx, uuid),
        }
    }
}

impl Fate {
    fn told(self, uuid: &str) -> Left {
        match self {
            Self::Goes(How::Live) => Left::going("server", uuid, "waits to go, running"),
            Self::Goes(How::Cold) => Left::going("server", uuid, "waits to go, off"),
            Self::Goes(How::Offload) => Left::going("server", uuid, "waits to be offloaded"),
            Self::Moving(how) | Self::Waits(how) => Left::going("server", uuid, how),
            Self::Stuck(why) => Left::stuck("server", uuid, why),
        }
    }
}

impl Nova {
    /// What becomes of each server that is on the host or may come back to it; none where there is no compute service.
    async fn plan(&self, host: &str) -> Result<Option<Vec<(String, Fate)>>> {
        let (host, now) = (host.to_string(), self.clock.now());
        let down_after = Duration::from_secs(self.options.service_down_time_seconds);
        let work = move |tx: &mut Tx| {
            let Some(service) = store::service_on(tx, &host)? else { return Ok(None) };
            let up = scheduler::is_up(&service, now, down_after);
            let mut plan = Vec::new();
            for server in store::servers_of_host(tx, &host)? {
                let fate = fate(tx, &service, &server, up, now)?;
                plan.push((server.uuid, fate));
            }
            for uuid in store::resized_away_from(tx, &host)? {
                let why = "its resize waits to be confirmed or reverted";
                plan.push((uuid, Fate::Stuck(why.into())));
            }
            Ok(Some(plan))
        };
        self.read(work).await
    }
}

fn fate(tx: &mut Tx, service: &Service, server: &Instance, up: bool, now: Timestamp) -> Result<Fate> {
    if let Some(task) = server.task_state {
        let moves = matches!(task.as_str(), "migrating" | "shelving_offloading")
            || task.as_str().starts_with("resize");
        let told = task.as_str().replace('_', " ");
        return Ok(if moves { Fate::Moving(told) } else { Fate::Waits(told) });
    }
    if !up {
        return Ok(Fate::Stuck("its host is down: evacuate it".into()));
    }
    let how = match server.vm_state {
        VmState::Active | VmState::Paused => How::Live,
        VmState::Stopped => How::Cold,
        VmState::Shelved => How::Offload,
        VmState::Resized => return Ok(Fate::Stuck("its resize waits to be confirmed or reverted".into())),
        VmState::Building => return Ok(Fate::Waits("building".into())),
        state => return Ok(Fate::Stuck(format!("it cannot be moved while it is {}", state.as_str()))),
    };
    let failed = failed_moves(tx, service, server)?;
    let Some(last) = failed.last() else { return Ok(Fate::Goes(how)) };
    let why = server.fault.as_ref().map_or("its host says no more", |fault| fault.message.as_str());
    if failed.len() >= ATTEMPTS_MAX {
        return Ok(Fate::Stuck(format!("it was not moved in {ATTEMPTS_MAX} attempts: {why}")));
    }
    let rested = now.since(last.updated_at.unwrap_or(last.created_at)) >= PAUSE;
    Ok(if rested { Fate::Goes(how) } else { Fate::Waits(format!("is tried again: {why}")) })
}

/// Since the operator said so last.
fn failed_moves(tx: &mut Tx, service: &Service, server: &Instance) -> Result<Vec<Migration>> {
    let mut moves = store::migrations_of(tx, &server.uuid)?;
    moves.retain(|one| {
        one.created_at >= service.updated_at
            && one.source_compute.as_deref() == Some(&service.host)
            && matches!(one.status.as_str(), "error" | "failed")
    });
    Ok(moves)
}
