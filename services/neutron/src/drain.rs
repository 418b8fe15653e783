//! A host that its operator empties: others serve the networks' DHCP and the routers, if there are others.

use crate::{
    Neutron,
    agents::{self, touch_all},
    model::*,
    schedule::{self, Layout},
    store,
};
use async_trait::async_trait;
use base::{Context, Result};
use contracts::hosts::{HostUser, Left};
use db::Tx;

/// Before the description of an agent that serves nothing while its host is drained.
const MARK: &str = "The host is drained. ";

#[async_trait]
impl HostUser for Neutron {
    /// An agent that is the only one of its kind goes on: a network without DHCP helps nobody.
    async fn close(&self, _cx: &Context, host: &str) -> Result<()> {
        let (host, options, clock) = (host.to_string(), self.options.clone(), self.clock.clone());
        self.write(move |tx, touched| {
            let layout = Layout::load(tx, &options, clock.now())?;
            let mut closed = false;
            for mut agent in store::all_of::<Agent>(tx, "host", &host)? {
                if !serves(&agent) || !agent.admin_state_up || !layout.has_other(&agent) {
                    continue;
                }
                agent.admin_state_up = false;
                agent.description = Some(format!("{MARK}{}", agent.description.unwrap_or_default()));
                tx.update(&agent)?;
                closed = true;
            }
            if closed { touch_all(tx, touched, &options, clock.now()) } else { Ok(()) }
        })
        .await
    }

    /// Another host to serve what this one does may have come meanwhile.
    async fn empty(&self, cx: &Context, host: &str) -> Result<()> {
        self.close(cx, host).await
    }

    async fn left(&self, _cx: &Context, host: &str) -> Result<Vec<Left>> {
        let (host, options, clock) = (host.to_string(), self.options.clone(), self.clock.clone());
        self.read(move |tx| {
            let layout = Layout::load(tx, &options, clock.now())?;
            left(tx, &layout, &host)
        })
        .await
    }

    async fn open(&self, _cx: &Context, host: &str) -> Result<()> {
        let (host, options, clock) = (host.to_string(), self.options.clone(), self.clock.clone());
        self.write(move |tx, touched| {
            let mut opened = false;
            for mut agent in store::all_of::<Agent>(tx, "host", &host)? {
                let before = agent.description.as_deref().and_then(|text| text.strip_prefix(MARK));
                let Some(before) = before.map(str::to_string) else { continue };
                agent.admin_state_up = true;
                agent.description = (!before.is_empty()).then_some(before);
                tx.update(&agent)?;
                opened = true;
            }
            if opened { touch_all(tx, touched, &options, clock.now()) } else { Ok(()) }
        })
        .await
    }
}

fn serves(agent: &Agent) -> bool {
    [agents::DHCP.name, agents::L3.name].contains(&agent.agent_type.as_str())
}

fn left(tx: &mut Tx, layout: &Layout, host: &str) -> Result<Vec<Left>> {
    const ALONE: &str = "no other host can serve it";
    let mut left = Vec::new();
    for network in schedule::networks_on(tx, layout, host)? {
        left.push(Left::stuck("DHCP of network", &network.id, ALONE));
    }
    for router in schedule::routers_on(tx, layout, host)? {
        left.push(Left::stuck("router", &router.id, ALONE));
    }
    Ok(left)
}
