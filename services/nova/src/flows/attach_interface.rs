//! Gives a server a network card while it is there.

use super::{
    boot::{PlannedPort, plug, unplug},
    or_gone, placing,
    port_requests::{self, PortRequest},
    power::check_state,
    relocate,
};
use crate::{
    Nova, actions, guest,
    model::{Nic, VmState},
    store,
};
use base::{Context, Error, ErrorKind, Result};
use contracts::placement::Wanted;
use db::Tx;
use flow::{Effect, Flow, Outcome, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachInterface {
    pub uuid: String,
    pub port: PlannedPort,
    /// Once it is plugged.
    pub nic: Option<Nic>,
    #[serde(default)]
    pub requests: Vec<PortRequest>,
}

impl Flow for AttachInterface {
    const KIND: &'static str = "attach_interface";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(choose_providers),
                step!(plug_port, undo unplug_port),
                step!(take_room),
                step!(attach, undo detach).interruptible(),
                step!(complete),
            ]
        }
    }

    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        store::change(tx, &self.uuid, now, |_| ())?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl AttachInterface {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_attach_interface";
        actions::Event { instance_uuid: &self.uuid, action: "attach_interface", event, host }
    }
}

/// Who on the server's host gives what the port asks for.
async fn choose_providers(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachInterface) -> Result<Effect> {
    let mut requests = port_requests::of_planned(nova, cx, std::slice::from_ref(&flow.port)).await?;
    let mut wanted = Wanted::default();
    port_requests::ask(&mut wanted, &requests);
    if !wanted.groups.is_empty() {
        let instance = nova.instance(&flow.uuid).await?;
        let place = nova.read(move |tx| relocate::place_of(tx, &instance)).await?;
        wanted.in_tree = Some(place.node_uuid);
        wanted.limit = 1;
        let found = nova.placement().candidates(&nova.own(cx), &wanted).await?;
        let best = found.first().ok_or_else(|| no_room(&flow.uuid))?;
        port_requests::given(&mut requests, &best.mappings);
    }
    flow.requests = requests;
    Ok(Effect::none())
}

fn no_room(uuid: &str) -> Error {
    Error::bad_request(format!("Failed to allocate additional resources to {uuid} during interface attach"))
}

async fn plug_port(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachInterface) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let host = instance.host.clone().ok_or_else(|| Error::conflict("The server is on no host."))?;
    let allocations = port_requests::now(&flow.requests);
    flow.nic = Some(plug(nova, cx, &instance, &flow.port, &host, &allocations).await?);
    Ok(Effect::none())
}

async fn unplug_port(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachInterface) -> Result<Effect> {
    unplug(nova, cx, &flow.port.id, flow.port.network_id.is_some()).await?;
    if !flow.requests.is_empty() {
        placing::recount(nova, cx, &flow.uuid).await?;
    }
    Ok(Effect::none())
}

/// What the port says that it is given is counted.
async fn take_room(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachInterface) -> Result<Effect> {
    if !flow.requests.is_empty() {
        let counted = placing::recount(nova, cx, &flow.uuid).await;
        counted.map_err(|error| if error.is(ErrorKind::Conflict) { no_room(&flow.uuid) } else { error })?;
    }
    Ok(Effect::none())
}

async fn attach(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachInterface) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    let host = instance.host.ok_or_else(|| Error::conflict("The server is on no host."))?;
    let nic = flow.nic.as_ref().ok_or_else(|| Error::internal("attach: no port"))?;
    nova.compute(&host).attach_interface(&nova.own(cx), &flow.uuid, &guest::port(nic)).await?;
    Ok(Effect::none())
}

async fn detach(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachInterface) -> Result<Effect> {
    let Ok(instance) = nova.instance(&flow.uuid).await else { return Ok(Effect::none()) };
    if let (Some(host), Some(nic)) = (&instance.host, &flow.nic) {
        or_gone(nova.compute(host).detach_interface(&nova.own(cx), &flow.uuid, &nic.port.mac).await)?;
    }
    Ok(Effect::none())
}

async fn complete(nova: &Arc<Nova>, cx: &Context, flow: &mut AttachInterface) -> Result<Effect> {
    let nic = flow.nic.clone().ok_or_else(|| Error::internal("attach: no port"))?;
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.clone();
            instance.nics.0.retain(|held| held.port.id != nic.port.id);
            instance.nics.0.push(nic.clone());
        })?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

pub const FROM: &[VmState] = &[VmState::Active, VmState::Paused, VmState::Stopped];

pub async fn begin(nova: &Arc<Nova>, cx: &Context, uuid: &str, port: PlannedPort) -> Result<Outcome> {
    let (work, cx, uuid) = (nova.clone(), cx.clone(), uuid.to_string());
    nova.write(move |tx| {
        check_state(&store::instance(tx, &uuid)?, FROM, &[], "attach_interface")?;
        actions::begin(tx, &cx, &uuid, "attach_interface", work.clock.now())?;
        let flow =
            AttachInterface { uuid: uuid.clone(), port: port.clone(), nic: None, requests: Vec::new() };
        work.flows.start(tx, &cx, &flow, &uuid)
    })
    .await
}
