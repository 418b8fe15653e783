//! Makes a server anew on another host because its own is down. When that host comes back, its agent asks what it
//! shall have and clears the rest away.

use super::{
    failed_as_it_was, or_gone,
    placing::{self, Wish},
    port_requests::{self, PortRequest},
    power::check_state,
    relocate::{self, Place, PlannedVolume},
};
use crate::{
    Nova, actions, guest, migrations,
    model::{TaskState, VmState},
    store,
};
use base::{Context, Error, Result};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evacuate {
    pub uuid: String,
    pub migration_uuid: String,
    pub was: VmState,
    /// It starts on the new host.
    pub power_on: bool,
    pub source: Place,
    pub forced_host: Option<String>,
    pub volumes: Vec<PlannedVolume>,
    /// Known once it is scheduled.
    pub dest: Place,
    #[serde(default)]
    pub requests: Vec<PortRequest>,
}

impl Flow for Evacuate {
    const KIND: &'static str = "evacuate";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(schedule, undo unschedule),
                step!(move_devices, undo move_back),
                step!(build, undo destroy).interruptible(),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        migrations::set(tx, &self.migration_uuid, "failed", now)?;
        failed_as_it_was(nova, tx, cx, &self.event(None), error)
    }
}

impl Evacuate {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_rebuild_instance";
        actions::Event { instance_uuid: &self.uuid, action: "evacuate", event, host }
    }

    fn ids(&self, which: impl Fn(&PlannedVolume) -> &str) -> Vec<&str> {
        self.volumes.iter().map(which).collect()
    }
}

/// The room on the new host takes the place of that on the old.
async fn schedule(nova: &Arc<Nova>, cx: &Context, flow: &mut Evacuate) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let (forced_host, excluded) = (flow.forced_host.clone(), vec![flow.source.host.clone()]);
    let requests = port_requests::of_server(nova, cx, &flow.uuid).await?;
    let wish = Wish { instance, forced_host, forced_node: None, excluded, requests };
    let placed = placing::place(nova, cx, wish).await?;
    flow.dest = Place::of(&placed.host);
    flow.requests = placed.requests;
    let (nova, flow) = (nova.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        if placed.group {
            placing::check_group_again(tx, &flow.uuid, &flow.dest.host)?;
        }
        migrations::goes_to(tx, &flow.migration_uuid, &flow.dest, "pre-migrating", nova.clock.now())
    }))
}

async fn unschedule(nova: &Arc<Nova>, cx: &Context, flow: &mut Evacuate) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let old = placing::held(&instance, &flow.source.node_uuid, &flow.requests);
    nova.placement().allocate(&nova.own(cx), &old).await?;
    Ok(Effect::none())
}

async fn move_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut Evacuate) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let wanted: Vec<_> = flow.volumes.iter().map(|volume| (volume, volume.new.as_str())).collect();
    let connected = relocate::connect(nova, cx, &flow.uuid, &flow.dest, &wanted).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.old)).await?;
    let nics = relocate::bind(nova, cx, &instance, &flow.dest, &port_requests::now(&flow.requests)).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        relocate::record(tx, &uuid, &connected)?;
        store::change(tx, &uuid, nova.clock.now(), |instance| {
            instance.nics = AsJson(nics.clone());
            instance.task_state = Some(TaskState::RebuildSpawning);
        })
        .map(drop)
    }))
}

async fn move_back(nova: &Arc<Nova>, cx: &Context, flow: &mut Evacuate) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let wanted: Vec<_> = flow.volumes.iter().map(|volume| (volume, volume.back.as_str())).collect();
    let connected = relocate::connect(nova, cx, &flow.uuid, &flow.source, &wanted).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.new)).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.old)).await?;
    relocate::complete(nova, cx, &flow.ids(|volume| &volume.back)).await?;
    let nics = relocate::bind(nova, cx, &instance, &flow.source, &port_requests::was(&flow.requests)).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        relocate::record(tx, &uuid, &connected)?;
        store::change(tx, &uuid, nova.clock.now(), |i| i.nics = AsJson(nics.clone())).map(drop)
    }))
}

async fn build(nova: &Arc<Nova>, cx: &Context, flow: &mut Evacuate) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let mut wanted = guest::instance(nova, &instance, &devices)?;
    wanted.power_on = flow.power_on;
    let observed = nova.compute(&flow.dest.host).build(&nova.own(cx), &wanted).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        let state = observed.power_state as i64;
        store::change(tx, &uuid, nova.clock.now(), |instance| instance.power_state = state).map(drop)
    }))
}

async fn destroy(nova: &Arc<Nova>, cx: &Context, flow: &mut Evacuate) -> Result<Effect> {
    or_gone(nova.compute(&flow.dest.host).destroy(&nova.own(cx), &flow.uuid).await)?;
    Ok(Effect::none())
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut Evacuate) -> Result<Effect> {
    relocate::complete(nova, cx, &flow.ids(|volume| &volume.new)).await?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        store::change(tx, &flow.uuid, now, |instance| {
            flow.dest.set(instance);
            instance.vm_state = if flow.power_on { VmState::Active } else { VmState::Stopped };
            instance.launched_at = Some(now);
            instance.fault = None;
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        migrations::set(tx, &flow.migration_uuid, "done", now)?;
        actions::end(tx, &cx, &flow.event(Some(flow.dest.host.clone())), None, now)
    }))
}

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub host: Option<String>,
    /// It waits on the new host until somebody starts it.
    pub stays_off: bool,
}

const FROM: &[VmState] = &[VmState::Active, VmState::Stopped, VmState::Error];

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str, wanted: &Wanted) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    check_state(&instance, FROM, &[], "evacuate")?;
    let (now, source) = (nova.clock.now(), relocate::place_of(tx, &instance)?);
    let migration = migrations::begin(tx, cx, &instance, "evacuation", &instance.flavor, now)?;
    let flow = Evacuate {
        uuid: uuid.into(),
        migration_uuid: migration.uuid,
        was: instance.vm_state,
        power_on: instance.vm_state == VmState::Active && !wanted.stays_off,
        forced_host: wanted.host.clone(),
        volumes: relocate::plan(&store::block_devices(tx, uuid)?),
        dest: Place::default(),
        requests: Vec::new(),
        source,
    };
    store::change(tx, uuid, now, |instance| instance.task_state = Some(TaskState::Rebuilding))?;
    actions::begin(tx, cx, uuid, "evacuate", now)?;
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
