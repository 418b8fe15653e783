//! Takes a network card from a server while it is there.

use super::{attach_interface::FROM, boot::unplug, or_gone, placing, power::check_state};
use crate::{Nova, actions, model::Nic, store};
use base::{Context, Error, Result};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DetachInterface {
    pub uuid: String,
    pub port_id: String,
    /// The port takes something of placement besides what the flavor does.
    #[serde(default)]
    pub counted: bool,
}

impl Flow for DetachInterface {
    const KIND: &'static str = "detach_interface";
    type Service = Nova;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(detach).interruptible(), step!(unplug_port)] }
    }

    /// The guest keeps what it did not release.
    fn failed(&self, nova: &Nova, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let now = nova.clock.now();
        store::change(tx, &self.uuid, now, |_| ())?;
        actions::end(tx, cx, &self.event(None), Some(error), now)
    }
}

impl DetachInterface {
    fn event(&self, host: Option<String>) -> actions::Event<'_> {
        let event = "compute_detach_interface";
        actions::Event { instance_uuid: &self.uuid, action: "detach_interface", event, host }
    }
}

fn nic<'a>(instance: &'a crate::model::Instance, port_id: &str) -> Option<&'a Nic> {
    instance.nics.iter().find(|nic| nic.port.id == port_id)
}

async fn detach(nova: &Arc<Nova>, cx: &Context, flow: &mut DetachInterface) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    if let (Some(host), Some(nic)) = (&instance.host, nic(&instance, &flow.port_id)) {
        or_gone(nova.compute(host).detach_interface(&nova.own(cx), &flow.uuid, &nic.port.mac).await)?;
    }
    Ok(Effect::none())
}

async fn unplug_port(nova: &Arc<Nova>, cx: &Context, flow: &mut DetachInterface) -> Result<Effect> {
    let instance = nova.instance(&flow.uuid).await?;
    if let Some(nic) = nic(&instance, &flow.port_id) {
        unplug(nova, cx, &flow.port_id, nic.ours).await?;
    }
    if flow.counted {
        placing::recount(nova, cx, &flow.uuid).await?;
    }
    let (nova, cx, flow) = (nova.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let (now, mut host) = (nova.clock.now(), None);
        store::change(tx, &flow.uuid, now, |instance| {
            host = instance.host.clone();
            instance.nics.0.retain(|nic| nic.port.id != flow.port_id);
        })?;
        actions::end(tx, &cx, &flow.event(host), None, now)
    }))
}

pub async fn begin(nova: &Arc<Nova>, cx: &Context, uuid: &str, port_id: &str) -> Result<()> {
    let (work, cx, uuid) = (nova.clone(), cx.clone(), uuid.to_string());
    let port_id = port_id.to_string();
    nova.write(move |tx| {
        let instance = store::instance(tx, &uuid)?;
        check_state(&instance, FROM, &[], "detach_interface")?;
        let counted = nic(&instance, &port_id).is_some_and(|nic| !nic.port.allocation.is_empty());
        actions::begin(tx, &cx, &uuid, "detach_interface", work.clock.now())?;
        let flow = DetachInterface { uuid: uuid.clone(), port_id: port_id.clone(), counted };
        work.flows.start(tx, &cx, &flow, &uuid).map(drop)
    })
    .await
}
