//! Moves a server, off, to another flavor or another host. What it was waits until its owner confirms or reverts.

use super::{
    confirm_resize, failed_as_it_was, or_gone,
    placing::{self, Wish},
    port_requests::{self, PortRequest},
    power::check_state,
    relocate::{self, Place, PlannedVolume},
};
use crate::{
    Nova, actions, guest, migrations,
    model::{Flavor, Instance, Resized, TaskState, VmState},
    quota, store,
};
use base::{Context, Error, Result};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resize {
    pub uuid: String,
    pub migration_uuid: String,
    /// It keeps its flavor: `migrate`.
    pub cold_migration: bool,
    pub was: VmState,
    pub old_flavor: Flavor,
    pub new_flavor: Flavor,
    pub source: Place,
    pub forced_host: Option<String>,
    pub excluded: Vec<String>,
    pub volumes: Vec<PlannedVolume>,
    /// Nobody is asked whether it stays there.
    #[serde(default)]
    pub confirms_itself: bool,
    /// Known once it is scheduled.
    pub dest: Place,
    #[serde(default)]
    pub requests: Vec<PortRequest>,
}

impl Flow for Resize {
    const KIND: &'static str = "resize";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(hold_source, undo give_back),
                step!(schedule),
                step!(leave, undo come_back),
                step!(move_devices, undo move_back),
                step!(finish, undo destroy).interruptible(),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        migrations::set(tx, &self.migration_uuid, "error", now)?;
        store::change(tx, &self.uuid, now, |instance| take(instance, &self.old_flavor, &self.old_flavor))?;
        failed_as_it_was(nova, tx, cx, &self.event(None, error.code.as_deref() == Some("NoValidHost")), error)
    }
}

impl Resize {
    fn event(&self, host: Option<String>, unscheduled: bool) -> actions::Event<'_> {
        let action = if self.cold_migration { "migrate" } else { "resize" };
        let event = if unscheduled { "cold_migrate" } else { "compute_finish_resize" };
        actions::Event { instance_uuid: &self.uuid, action, event, host }
    }

    fn same_host(&self) -> bool {
        self.source.host == self.dest.host
    }

    fn ids(&self, which: impl Fn(&PlannedVolume) -> &str) -> Vec<&str> {
        self.volumes.iter().map(which).collect()
    }
}

/// What the server has of a flavor; the quota counts the larger of two while both may come to be.
fn take(instance: &mut Instance, flavor: &Flavor, other: &Flavor) {
    instance.vcpus = flavor.vcpus.max(other.vcpus);
    instance.memory_mb = flavor.memory_mb.max(other.memory_mb);
}

/// The server with a flavor.
pub fn apply(instance: &mut Instance, flavor: &Flavor) {
    instance.vcpus = flavor.vcpus;
    instance.memory_mb = flavor.memory_mb;
    instance.disk_gb = local_disk_gb(instance, flavor);
    instance.flavor_id.clone_from(&flavor.flavorid);
    instance.flavor = AsJson(flavor.clone());
}

/// What it takes of the host's own disk.
fn local_disk_gb(instance: &Instance, flavor: &Flavor) -> i64 {
    let root = if instance.image_ref.is_empty() { 0 } else { flavor.root_gb };
    root + flavor.ephemeral_gb + (flavor.swap + 1023) / 1024
}

/// From now on the move holds the room where the server is, in its own name.
async fn hold_source(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    hold(nova, cx, &flow.uuid, &flow.migration_uuid).await?;
    let (nova, flow) = (nova.clone(), flow.clone());
    Ok(Effect::write(move |tx| migrations::set(tx, &flow.migration_uuid, "pre-migrating", nova.clock.now())))
}

pub async fn hold(nova: &Nova, cx: &Context, uuid: &str, holder: &str) -> Result<()> {
    nova.placement().move_allocations(&nova.own(cx), uuid, holder, "MIGRATION").await
}

/// The server has its room at the source again, and the move has none.
pub async fn unhold(nova: &Nova, cx: &Context, uuid: &str, holder: &str) -> Result<()> {
    nova.placement().move_allocations(&nova.own(cx), holder, uuid, "").await
}

async fn give_back(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    unhold(nova, cx, &flow.uuid, &flow.migration_uuid).await?;
    Ok(Effect::none())
}

async fn schedule(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    let mut instance = nova.instance(&flow.uuid).await?;
    apply(&mut instance, &flow.new_flavor);
    let forced_host = flow.forced_host.clone();
    let requests = port_requests::of_server(nova, cx, &flow.uuid).await?;
    let wish = Wish { instance, forced_host, forced_node: None, excluded: flow.excluded.clone(), requests };
    let placed = placing::place(nova, cx, wish).await?;
    flow.dest = Place::of(&placed.host);
    flow.requests = placed.requests;
    let (nova, flow) = (nova.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        if placed.group {
            placing::check_group_again(tx, &flow.uuid, &flow.dest.host)?;
        }
        migrations::goes_to(tx, &flow.migration_uuid, &flow.dest, "migrating", now)?;
        store::change(tx, &flow.uuid, now, |i| i.task_state = Some(TaskState::ResizeMigrating)).map(drop)
    }))
}

async fn leave(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    let grace_seconds = nova.options.shutdown_timeout_seconds;
    let agent = nova.compute(&flow.source.host);
    agent.resize_instance(&nova.own(cx), &flow.uuid, &flow.dest.host, grace_seconds).await?;
    let (nova, flow) = (nova.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        migrations::set(tx, &flow.migration_uuid, "post-migrating", now)?;
        store::change(tx, &flow.uuid, now, |i| i.task_state = Some(TaskState::ResizeMigrated)).map(drop)
    }))
}

async fn come_back(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    let (mut instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    apply(&mut instance, &flow.old_flavor);
    let mut wanted = guest::instance(nova, &instance, &devices)?;
    wanted.power_on = flow.was == VmState::Active;
    nova.compute(&flow.source.host).finish_revert_resize(&nova.own(cx), &wanted).await?;
    Ok(Effect::none())
}

/// Volumes and ports are reached from the other host.
async fn move_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    let finishing = |flow: &Resize| {
        let (nova, uuid) = (nova.clone(), flow.uuid.clone());
        move |tx: &mut Tx, nics: Option<&Vec<crate::model::Nic>>| {
            store::change(tx, &uuid, nova.clock.now(), |instance| {
                instance.task_state = Some(TaskState::ResizeFinish);
                if let Some(nics) = nics {
                    instance.nics = AsJson(nics.clone());
                }
            })
            .map(drop)
        }
    };
    let finishing = finishing(flow);
    if flow.same_host() && flow.requests.is_empty() {
        return Ok(Effect::write(move |tx| finishing(tx, None)));
    }
    let (instance, allocations) = (nova.instance(&flow.uuid).await?, port_requests::now(&flow.requests));
    if flow.same_host() {
        let nics = relocate::bind(nova, cx, &instance, &flow.dest, &allocations).await?;
        return Ok(Effect::write(move |tx| finishing(tx, Some(&nics))));
    }
    let wanted: Vec<_> = flow.volumes.iter().map(|volume| (volume, volume.new.as_str())).collect();
    let connected = relocate::connect(nova, cx, &flow.uuid, &flow.dest, &wanted).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.old)).await?;
    let nics = relocate::bind(nova, cx, &instance, &flow.dest, &allocations).await?;
    let uuid = flow.uuid.clone();
    Ok(Effect::write(move |tx| {
        relocate::record(tx, &uuid, &connected)?;
        finishing(tx, Some(&nics))
    }))
}

async fn move_back(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    let (instance, allocations) = (nova.instance(&flow.uuid).await?, port_requests::was(&flow.requests));
    if flow.same_host() {
        if !flow.requests.is_empty() {
            relocate::bind(nova, cx, &instance, &flow.source, &allocations).await?;
        }
        return Ok(Effect::none());
    }
    let wanted: Vec<_> = flow.volumes.iter().map(|volume| (volume, volume.back.as_str())).collect();
    let connected = relocate::connect(nova, cx, &flow.uuid, &flow.source, &wanted).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.new)).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.old)).await?;
    relocate::complete(nova, cx, &flow.ids(|volume| &volume.back)).await?;
    let nics = relocate::bind(nova, cx, &instance, &flow.source, &allocations).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        relocate::record(tx, &uuid, &connected)?;
        store::change(tx, &uuid, nova.clock.now(), |i| i.nics = AsJson(nics.clone())).map(drop)
    }))
}

async fn finish(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    let (mut instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    apply(&mut instance, &flow.new_flavor);
    let mut wanted = guest::instance(nova, &instance, &devices)?;
    wanted.power_on = flow.was == VmState::Active;
    let agent = nova.compute(&flow.dest.host);
    let observed = agent.finish_resize(&nova.own(cx), &wanted, &flow.source.peer()).await?;
    let (nova, uuid) = (nova.clone(), flow.uuid.clone());
    Ok(Effect::write(move |tx| {
        let state = observed.power_state as i64;
        store::change(tx, &uuid, nova.clock.now(), |instance| instance.power_state = state).map(drop)
    }))
}

async fn destroy(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    or_gone(nova.compute(&flow.dest.host).destroy(&nova.own(cx), &flow.uuid).await)?;
    Ok(Effect::none())
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut Resize) -> Result<Effect> {
    if !flow.same_host() {
        relocate::complete(nova, cx, &flow.ids(|volume| &volume.new)).await?;
    }
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        store::change(tx, &flow.uuid, now, |instance| {
            flow.dest.set(instance);
            apply(instance, &flow.new_flavor);
            take(instance, &flow.new_flavor, &flow.old_flavor);
            instance.vm_state = VmState::Resized;
            instance.task_state = None;
            instance.launched_at = Some(now);
        })?;
        migrations::set(tx, &flow.migration_uuid, "finished", now)?;
        migrations::change_extra(tx, &flow.uuid, |extra| {
            extra.resized = Some(Resized {
                migration_uuid: flow.migration_uuid.clone(),
                old_flavor: flow.old_flavor.clone(),
                source: flow.source.clone(),
                was: flow.was,
                allocations: port_requests::was(&flow.requests),
            });
        })?;
        actions::end(tx, &cx, &flow.event(Some(flow.dest.host.clone()), false), None, now)?;
        match flow.confirms_itself {
            true => confirm_resize::begin(&nova, tx, &cx, &flow.uuid),
            false => Ok(()),
        }
    }))
}

/// What a request asks for.
pub struct Wanted {
    pub new_flavor: Option<Flavor>,
    pub host: Option<String>,
    pub auto_disk_config: Option<bool>,
    pub confirms_itself: bool,
}

impl Wanted {
    /// As it is, on whichever other host, for good.
    pub fn elsewhere() -> Self {
        Self { new_flavor: None, host: None, auto_disk_config: None, confirms_itself: true }
    }
}

const FROM: &[VmState] = &[VmState::Active, VmState::Stopped];

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str, wanted: &Wanted) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    let cold_migration = wanted.new_flavor.is_none();
    check_state(&instance, FROM, &[], if cold_migration { "migrate" } else { "resize" })?;
    let old_flavor = instance.flavor.0.clone();
    let new_flavor = wanted.new_flavor.clone().unwrap_or_else(|| old_flavor.clone());
    quota::check_more(tx, &nova.options, &instance.project_id, &old_flavor, &new_flavor)?;
    let (now, source) = (nova.clock.now(), relocate::place_of(tx, &instance)?);
    let kind = if cold_migration { "migration" } else { "resize" };
    let migration = migrations::begin(tx, cx, &instance, kind, &new_flavor, now)?;
    let stays = !cold_migration && nova.options.allow_resize_to_same_host;
    let flow = Resize {
        uuid: uuid.into(),
        migration_uuid: migration.uuid,
        cold_migration,
        was: instance.vm_state,
        forced_host: wanted.host.clone(),
        excluded: if stays { Vec::new() } else { vec![source.host.clone()] },
        volumes: relocate::plan(&store::block_devices(tx, uuid)?),
        confirms_itself: wanted.confirms_itself,
        dest: Place::default(),
        requests: Vec::new(),
        old_flavor,
        new_flavor,
        source,
    };
    store::change(tx, uuid, now, |instance| {
        take(instance, &flow.new_flavor, &flow.old_flavor);
        instance.task_state = Some(TaskState::ResizePrep);
        instance.progress = 0;
        if let Some(auto) = wanted.auto_disk_config {
            instance.auto_disk_config = auto;
        }
    })?;
    actions::begin(tx, cx, uuid, flow.event(None, false).action, now)?;
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}
