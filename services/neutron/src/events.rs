//! Tells nova what changed of its servers' ports: plugged, unplugged, other addresses, gone.

use crate::{Neutron, model::Port};
use base::Context;
use contracts::servers::{ExternalEvent, Servers};
use futures::{StreamExt, stream};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::mpsc;

pub const PLUGGED: &str = "network-vif-plugged";
pub const UNPLUGGED: &str = "network-vif-unplugged";
pub const CHANGED: &str = "network-changed";
pub const DELETED: &str = "network-vif-deleted";

/// Servers that nova is told of at a time.
const AT_ONCE: usize = 16;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub server_id: String,
    pub name: &'static str,
    pub port_id: String,
}

/// What there is to tell of a port: nothing unless a server has it.
pub fn of(port: &Port, name: &'static str) -> Option<Event> {
    let is_servers = port.device_owner.starts_with("compute:") && !port.device_id.is_empty();
    is_servers.then(|| Event { server_id: port.device_id.clone(), name, port_id: port.id.clone() })
}

/// Tells what comes, each thing once however often it came while nova was busy. What nova does not hear it finds when
/// it looks at the server's ports the next time.
pub async fn tell(neutron: Arc<Neutron>, events: Option<mpsc::UnboundedReceiver<BTreeSet<Event>>>) {
    let Some(mut events) = events else { return };
    while let Some(mut all) = events.recv().await {
        while let Ok(more) = events.try_recv() {
            all.extend(more);
        }
        let Some(servers) = neutron.servers() else { continue };
        stream::iter(all).for_each_concurrent(AT_ONCE, |event| tell_one(&*servers, event)).await;
    }
}

async fn tell_one(servers: &dyn Servers, event: Event) {
    let told = ExternalEvent {
        server_id: event.server_id,
        name: event.name.into(),
        tag: Some(event.port_id),
        status: "completed".into(),
    };
    if let Err(error) = servers.external_event(&Context::internal(), &told).await {
        tracing::warn!(server = told.server_id, event = told.name, %error, "nova was not told");
    }
}
