//! Moves a running server to another host. Until the guest has arrived, all can be undone; what remains to be done
//! then is a flow of its own, which is not.

use super::{
    failed_as_it_was, or_gone,
    placing::{self, Wish},
    port_requests::{self, PortRequest},
    power::check_state,
    relocate::{self, Place, PlannedVolume},
    resize::{hold, unhold},
};
use crate::{
    Nova, actions, guest, migrations,
    model::{Instance, LeftBehind, Migration, TaskState, VmState},
    store,
};
use base::{Context, Error, ErrorKind, Result};
use contracts::compute::{Connection, LivePhase, LiveTarget};
use db::{AsJson, Tx};
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveMigrate {
    pub uuid: String,
    pub migration_uuid: String,
    /// None: if the server has local disks.
    pub block_migration: Option<bool>,
    pub was: VmState,
    pub source: Place,
    pub forced_host: Option<String>,
    pub volumes: Vec<PlannedVolume>,
    /// Known once it is scheduled.
    pub dest: Place,
    /// How the volumes are reached from there.
    pub connected: Vec<(String, String, Connection)>,
    pub target: LiveTarget,
    #[serde(default)]
    pub requests: Vec<PortRequest>,
}

impl Flow for LiveMigrate {
    const KIND: &'static str = "live_migrate";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(hold_source, undo give_back),
                step!(schedule),
                step!(prepare_devices, undo unprepare_devices),
                step!(prepare_host, undo unprepare_host).interruptible(),
                step!(send, undo bring_back),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        let was_called_back = error.code.as_deref() == Some(CALLED_BACK);
        let status = if was_called_back { "cancelled" } else { "error" };
        migrations::set(tx, &self.migration_uuid, status, now)?;
        if was_called_back {
            store::change(tx, &self.uuid, now, |instance| instance.task_state = None)?;
            return actions::end(tx, cx, &self.event(None), Some(error), now);
        }
        failed_as_it_was(nova, tx, cx, &self.event(None), error)
    }
}

/// The error of a guest that somebody has called back.
const CALLED_BACK: &str = "LiveMigrationAborted";
/// How often the source is asked how far the guest is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl LiveMigrate {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_live_migration";
        actions::Event { instance_uuid: &self.uuid, action: "live-migration", event, host }
    }

    fn ids(&self, which: impl Fn(&PlannedVolume) -> &str) -> Vec<&str> {
        self.volumes.iter().map(which).collect()
    }
}

async fn hold_source(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    hold(nova, cx, &flow.uuid, &flow.migration_uuid).await?;
    Ok(Effect::none())
}

async fn give_back(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    unhold(nova, cx, &flow.uuid, &flow.migration_uuid).await?;
    Ok(Effect::none())
}

async fn schedule(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
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
        migrations::goes_to(tx, &flow.migration_uuid, &flow.dest, "preparing", nova.clock.now())
    }))
}

/// Volumes are reached from both hosts, ports are ready on both.
async fn prepare_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let allocations = port_requests::now(&flow.requests);
    for nic in instance.nics.iter() {
        let (id, host) = (&nic.port.id, &flow.dest.host);
        let allocation = allocations.get(id).cloned().unwrap_or_default();
        nova.networks().create_binding(&nova.own(cx), id, host, &allocation).await?;
    }
    let wanted: Vec<_> = flow.volumes.iter().map(|volume| (volume, volume.new.as_str())).collect();
    flow.connected = relocate::connect(nova, cx, &flow.uuid, &flow.dest, &wanted).await?;
    Ok(Effect::none())
}

async fn unprepare_devices(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    relocate::detach(nova, cx, &flow.ids(|volume| &volume.new)).await?;
    for nic in instance.nics.iter() {
        or_gone(nova.networks().delete_binding(&nova.own(cx), &nic.port.id, &flow.dest.host).await)?;
    }
    Ok(Effect::none())
}

async fn prepare_host(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    let (instance, mut devices) = nova.instance_with_devices(&flow.uuid).await?;
    relocate::with(&mut devices, &flow.connected);
    let wanted = guest::instance(nova, &instance, &devices)?;
    let block = flow.block_migration.unwrap_or_else(|| guest::has_local_disks(&instance));
    flow.target = expect(nova, cx, &wanted, block, &flow.source, &flow.dest).await?;
    let (nova, flow) = (nova.clone(), flow.clone());
    Ok(Effect::write(move |tx| migrations::set(tx, &flow.migration_uuid, "running", nova.clock.now())))
}

/// A host is made ready for the guest; what it needs for that it may ask of the other.
async fn expect(
    nova: &Nova,
    cx: &Context,
    wanted: &contracts::compute::Instance,
    block_migration: bool,
    from: &Place,
    to: &Place,
) -> Result<LiveTarget> {
    let own = nova.own(cx);
    nova.compute(&from.host).check_can_live_migrate_source(&own, &wanted.uuid, &to.host).await?;
    nova.compute(&to.host).pre_live_migration(&own, wanted, block_migration, &from.peer()).await
}

async fn unprepare_host(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    or_gone(nova.compute(&flow.dest.host).destroy(&nova.own(cx), &flow.uuid).await)?;
    Ok(Effect::none())
}

async fn send(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let wanted = guest::instance(nova, &instance, &devices)?;
    send_from(nova, cx, &flow.source.host, &wanted, &flow.target).await?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        migrations::set(tx, &flow.migration_uuid, "post-migrating", now)?;
        relocate::record(tx, &flow.uuid, &flow.connected)?;
        store::change(tx, &flow.uuid, now, |instance| flow.dest.set(instance))?;
        nova.flows.start(tx, &cx, &PostLiveMigrate(flow.clone()), &flow.uuid).map(drop)
    }))
}

/// Until the guest is on the other host, wherever an earlier attempt has left it.
async fn send_from(
    nova: &Nova,
    cx: &Context,
    source: &str,
    wanted: &contracts::compute::Instance,
    target: &LiveTarget,
) -> Result<()> {
    let (own, from, to) = (nova.own(cx), nova.compute(source), nova.compute(&target.host));
    let uuid = &wanted.uuid;
    let arrived = async || -> Result<bool> {
        let runs = |seen: Option<contracts::compute::Observed>| {
            use contracts::compute::PowerState::{Paused, Running};
            seen.is_some_and(|seen| matches!(seen.power_state, Running | Paused))
        };
        Ok(!runs(from.observe(&own, uuid).await?) && runs(to.observe(&own, uuid).await?))
    };
    if arrived().await? {
        return Ok(());
    }
    from.live_migration(&own, wanted, target).await?;
    loop {
        let state = from.live_migration_state(&own, uuid).await?;
        match state.phase {
            LivePhase::Completed => return Ok(()),
            LivePhase::Running => tokio::time::sleep(LOOK_EVERY).await,
            LivePhase::Cancelled => {
                return Err(Error::conflict("The migration was called back.").code(CALLED_BACK));
            }
            // Its agent was started again meanwhile and knows of nothing: the hosts tell.
            LivePhase::None if arrived().await? => return Ok(()),
            LivePhase::None | LivePhase::Failed => {
                let why = state.error.unwrap_or_else(|| "the host does not know of it any more".into());
                return Err(Error::internal(format!("Migration error: {why}")));
            }
        }
    }
}

/// A guest that has arrived after all is sent back.
async fn bring_back(nova: &Arc<Nova>, cx: &Context, flow: &mut LiveMigrate) -> Result<Effect> {
    let (instance, devices) = nova.instance_with_devices(&flow.uuid).await?;
    let (own, source) = (nova.own(cx), nova.compute(&flow.source.host));
    if source.observe(&own, &flow.uuid).await?.is_none() {
        let wanted = guest::instance(nova, &instance, &devices)?;
        let block = flow.target.block_migration;
        let target = expect(nova, cx, &wanted, block, &flow.dest, &flow.source).await?;
        send_from(nova, cx, &flow.dest.host, &wanted, &target).await?;
    }
    Ok(Effect::none())
}

/// The guest runs on the other host: what it had at the source goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostLiveMigrate(LiveMigrate);

impl Flow for PostLiveMigrate {
    const KIND: &'static str = "post_live_migrate";
    const CANCELLABLE: bool = false;
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(switch_ports), step!(clear_source), step!(finish)] }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        migrations::set(tx, &self.0.migration_uuid, "error", now)?;
        let left = LeftBehind {
            host: self.0.source.host.clone(),
            migration_uuid: self.0.migration_uuid.clone(),
            attachments: self.0.ids(|volume| &volume.old).into_iter().map(String::from).collect(),
        };
        migrations::change_extra(tx, &self.0.uuid, |extra| extra.left_behind.push(left))?;
        failed_as_it_was(nova, tx, cx, &self.0.event(Some(self.0.dest.host.clone())), error)
    }
}

async fn switch_ports(nova: &Arc<Nova>, cx: &Context, flow: &mut PostLiveMigrate) -> Result<Effect> {
    let instance = nova.instance(&flow.0.uuid).await?;
    let mut nics = instance.nics.0;
    for nic in &mut nics {
        nic.port = nova.networks().activate_binding(&nova.own(cx), &nic.port.id, &flow.0.dest.host).await?;
    }
    let (nova, uuid) = (nova.clone(), flow.0.uuid.clone());
    Ok(Effect::write(move |tx| {
        store::change(tx, &uuid, nova.clock.now(), |instance| instance.nics = AsJson(nics.clone())).map(drop)
    }))
}

async fn clear_source(nova: &Arc<Nova>, cx: &Context, flow: &mut PostLiveMigrate) -> Result<Effect> {
    let LiveMigrate { uuid, source, .. } = &flow.0;
    let own = nova.own(cx);
    or_gone(nova.compute(&source.host).destroy(&own, uuid).await)?;
    relocate::detach(nova, cx, &flow.0.ids(|volume| &volume.old)).await?;
    let instance = nova.instance(uuid).await?;
    for nic in instance.nics.iter() {
        or_gone(nova.networks().delete_binding(&own, &nic.port.id, &source.host).await)?;
    }
    nova.placement().release(&own, &flow.0.migration_uuid).await?;
    Ok(Effect::none())
}

async fn finish(nova: &Arc<Nova>, cx: &Context, flow: &mut PostLiveMigrate) -> Result<Effect> {
    relocate::complete(nova, cx, &flow.0.ids(|volume| &volume.new)).await?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.0.clone());
    Ok(Effect::write(move |tx| {
        let now = nova.clock.now();
        store::change(tx, &flow.uuid, now, |instance| {
            instance.vm_state = flow.was;
            if instance.task_state != Some(TaskState::Deleting) {
                instance.task_state = None;
            }
        })?;
        migrations::set(tx, &flow.migration_uuid, "completed", now)?;
        actions::end(tx, &cx, &flow.event(Some(flow.source.host.clone())), None, now)
    }))
}

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub host: Option<String>,
    pub block_migration: Option<bool>,
}

/// What can be known beforehand to be impossible.
pub async fn check(nova: &Nova, instance: &Instance, wanted: &Wanted) -> Result<()> {
    let source = instance.host.as_deref().unwrap_or_default();
    if let Some(host) = wanted.host.as_deref() {
        if host == source {
            return Err(Error::bad_request(format!(
                "Unable to migrate instance ({}) to current host ({host}).",
                instance.uuid
            )));
        }
        if !nova.host_is_up(host).await? {
            return Err(Error::bad_request(format!(
                "Compute service of {host} is unavailable at this time."
            )));
        }
    }
    if wanted.block_migration == Some(false) && guest::has_local_disks(instance) {
        return Err(Error::bad_request(format!(
            "{source} is not on shared storage: Shared storage live-migration requires either shared storage or boot-from-volume with no local disks."
        )));
    }
    Ok(())
}

pub fn begin(nova: &Arc<Nova>, tx: &mut Tx, cx: &Context, uuid: &str, wanted: &Wanted) -> Result<()> {
    let instance = store::instance(tx, uuid)?;
    check_state(&instance, &[VmState::Active, VmState::Paused], &[], "os-migrateLive")?;
    let (now, source) = (nova.clock.now(), relocate::place_of(tx, &instance)?);
    let migration = migrations::begin(tx, cx, &instance, "live-migration", &instance.flavor, now)?;
    let flow = LiveMigrate {
        uuid: uuid.into(),
        migration_uuid: migration.uuid,
        block_migration: wanted.block_migration,
        was: instance.vm_state,
        forced_host: wanted.host.clone(),
        volumes: relocate::plan(&store::block_devices(tx, uuid)?),
        dest: Place::default(),
        connected: Vec::new(),
        target: LiveTarget::default(),
        requests: Vec::new(),
        source,
    };
    store::change(tx, uuid, now, |instance| instance.task_state = Some(TaskState::Migrating))?;
    actions::begin(tx, cx, uuid, "live-migration", now)?;
    nova.flows.start(tx, cx, &flow, uuid).map(drop)
}

impl Nova {
    /// The guest is told to hurry.
    pub async fn force_complete(&self, cx: &Context, migration: &Migration) -> Result<()> {
        let host = migration.source_compute.clone().unwrap_or_default();
        let agent = self.compute(&host);
        agent.live_migration_force_complete(&self.own(cx), &migration.instance_uuid).await
    }

    /// The guest is called back. One that has not set out yet is not, and that is a conflict.
    pub async fn abort_migration(&self, cx: &Context, migration: &Migration) -> Result<()> {
        let host = migration.source_compute.clone().unwrap_or_default();
        let asked = self.compute(&host).live_migration_abort(&self.own(cx), &migration.instance_uuid).await;
        match asked {
            Err(error) if error.is(ErrorKind::NotFound) => Err(Error::conflict("The guest has arrived.")),
            other => other,
        }
    }
}
