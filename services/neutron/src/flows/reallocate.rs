//! Another QoS policy for servers' ports: placement's books change before the ports do, and both or none, also when
//! the caller hangs up or the process ends between the two.

use crate::{
    Neutron,
    agents::Touched,
    api::{networks, ports},
    attributes::{Given, python},
    errors::conflict,
    model::*,
    qos_ports::{self, Reallocation},
    store,
};
use base::{Context, Error, ErrorKind, Result, id};
use contracts::placement::AllocationChange;
use db::Tx;
use flow::{Effect, Flow, Outcome, Step, step};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// What somebody wants changed of a port or a network.
#[derive(Clone, Serialize, Deserialize)]
pub enum Change {
    Port { id: String, given: Given },
    Network { id: String, given: Given },
}

#[derive(Serialize, Deserialize)]
pub struct Reallocate {
    /// Under which placement makes the change once.
    id: String,
    change: Change,
    decided: Vec<Reallocation>,
}

impl Neutron {
    /// Changes a port or a network; by a flow where placement's books change with it, which others of the same network
    /// then wait for.
    pub async fn change(self: &Arc<Self>, cx: &Context, change: Change) -> Result<()> {
        match self.begin_change(cx, change).await? {
            None => Ok(()),
            Some(outcome) => outcome.wait().await,
        }
    }

    pub async fn begin_change(self: &Arc<Self>, cx: &Context, change: Change) -> Result<Option<Outcome>> {
        let (neutron, cx) = (self.clone(), cx.clone());
        self.write(move |tx, touched| {
            let decided = change.decide(tx)?;
            if counted(&decided).is_empty() {
                change.apply(tx, touched, &neutron, &decided)?;
                return Ok(None);
            }
            let flow = Reallocate { id: id::uuid(), change: change.clone(), decided: Vec::new() };
            let network_id = change.network_id(tx)?;
            neutron.flows.start(tx, &cx, &flow, &network_id).map(Some)
        })
        .await
    }
}

impl Change {
    fn network_id(&self, tx: &mut Tx) -> Result<String> {
        match self {
            Self::Port { id, .. } => Ok(store::get::<Port>(tx, store::PORT, id)?.network_id),
            Self::Network { id, .. } => Ok(id.clone()),
        }
    }

    /// What it changes in placement's books.
    fn decide(&self, tx: &mut Tx) -> Result<Vec<Reallocation>> {
        let (Self::Port { id, given } | Self::Network { id, given }) = self;
        let Some(policy) = given.get("qos_policy_id") else { return Ok(Vec::new()) };
        let policy = policy.as_str().map(String::from);
        let mut ports = Vec::new();
        match self {
            Self::Port { .. } => ports.push(store::get::<Port>(tx, store::PORT, id)?),
            Self::Network { .. } => {
                ports = store::all_of::<Port>(tx, "network_id", id)?;
                ports.retain(|port| port.qos_policy_id.is_none() && qos_ports::is_servers(port));
                ports.sort_by(|a, b| a.id.cmp(&b.id));
            }
        }
        let mut decided = Vec::new();
        for whole in store::whole(tx, ports)? {
            let then = match self {
                Self::Port { .. } => policy.as_ref().or(whole.network_qos.as_ref()),
                Self::Network { .. } => policy.as_ref(),
            };
            decided.extend(qos_ports::reallocation(tx, &whole, then)?);
        }
        Ok(decided)
    }

    fn apply(
        &self,
        tx: &mut Tx,
        touched: &mut Touched,
        neutron: &Neutron,
        decided: &[Reallocation],
    ) -> Result<()> {
        let now = neutron.clock.now();
        match self {
            Self::Port { id, given } => {
                ports::change(tx, touched, &neutron.options, (id, given), decided, now)
            }
            Self::Network { id, given } => {
                networks::change(tx, touched, &neutron.options, (id, given), decided, now)
            }
        }
    }
}

impl Flow for Reallocate {
    const KIND: &'static str = "reallocate";
    const CANCELLABLE: bool = false;
    type Service = Neutron;

    fn steps() -> &'static [Step<Self>] {
        &[step!(decide), step!(count, undo take_back), step!(apply)]
    }

    fn failed(&self, _: &Neutron, _: &mut Tx, _: &Context, _: &Error) -> Result<()> {
        Ok(())
    }
}

/// Again, for another change of the same network may have ended since.
async fn decide(neutron: &Arc<Neutron>, _: &Context, flow: &mut Reallocate) -> Result<Effect> {
    let change = flow.change.clone();
    flow.decided = neutron.read(move |tx| change.decide(tx)).await?;
    Ok(Effect::none())
}

async fn count(neutron: &Arc<Neutron>, cx: &Context, flow: &mut Reallocate) -> Result<Effect> {
    let changes = counted(&flow.decided);
    let counted = neutron.placement.change_allocations(cx, &flow.id, &changes).await;
    counted.map_err(|error| refused(error, &changes))?;
    Ok(Effect::none())
}

async fn take_back(neutron: &Arc<Neutron>, cx: &Context, flow: &mut Reallocate) -> Result<Effect> {
    neutron.placement.take_back_allocations(cx, &flow.id, &counted(&flow.decided)).await?;
    Ok(Effect::none())
}

/// Unless what was decided on has changed meanwhile.
async fn apply(neutron: &Arc<Neutron>, _: &Context, flow: &mut Reallocate) -> Result<Effect> {
    let (of, change, decided) = (neutron.clone(), flow.change.clone(), flow.decided.clone());
    Ok(neutron.effect(move |tx, touched| {
        if change.decide(tx)? != decided {
            let text = "The ports were changed by another request meanwhile.";
            return Err(conflict("RevisionNumberConstraintFailed", text));
        }
        change.apply(tx, touched, &of, &decided)
    }))
}

fn counted(decided: &[Reallocation]) -> Vec<AllocationChange> {
    let changes = decided.iter().map(|one| &one.change);
    changes.filter(|change| !change.difference.is_empty()).cloned().collect()
}

fn refused(error: Error, wanted: &[AllocationChange]) -> Error {
    let Some(first) = wanted.first().filter(|_| error.is(ErrorKind::Conflict)) else { return error };
    conflict(
        "QosPlacementAllocationUpdateConflict",
        format!(
            "Updating placement allocation with {} for consumer {} failed. The requested resources would exceed the \
             capacity available.",
            python(&json!(first.difference)),
            first.consumer_id
        ),
    )
}
