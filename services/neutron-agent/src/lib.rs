//! The network agent of one host: keeps what neutron says the host's networks shall be, makes the host so, repairs
//! what somebody breaks, and tells neutron which ports stand. It has no database: what it forgets it asks for.
//! Addresses, quotas and who may have which network are neutron's matter.

mod agent;
mod memory;
mod options;

use base::{Error, Result};
use bus::{Bus, Serving, Topic};
use contracts::agents::network::{AGENT_TOPIC, NetworkReports, network_agent_handlers};
use host_net::{Fake, HostNet, Linux, MetadataOptions};
use std::{path::Path, sync::Arc};

pub use agent::{Agent, run};
pub use host_net::PROGRAMS;
pub use options::Options;

/// The agent of this machine. Everything of it goes below `state`.
pub async fn on_linux(
    options: Options,
    state: &Path,
    reports: Arc<dyn NetworkReports>,
) -> Result<(Arc<Agent>, Arc<Linux>)> {
    let metadata = match options.metadata_address.as_str() {
        "" => None,
        _ if options.metadata_shared_secret.is_empty() => {
            return Err(Error::bad_request("[neutron_agent]: metadata_shared_secret is empty"));
        }
        address => Some(MetadataOptions {
            address: address.into(),
            shared_secret: options.metadata_shared_secret.clone(),
        }),
    };
    let physical_networks = options.physical_networks.clone();
    let linux = host_net::Options { dir: state.join("net"), physical_networks, metadata };
    let linux = Arc::new(Linux::new(linux).await?);
    Ok((Arc::new(Agent::new(options, linux.clone(), reports)), linux))
}

/// Answers neutron on the bus until the answer is dropped. [`run`] does the work.
pub async fn serve(bus: &Bus, agent: Arc<Agent>) -> Result<Serving> {
    let topic = Topic::on(AGENT_TOPIC, agent.host());
    bus.serve(topic, network_agent_handlers(agent)).await
}

/// An agent like it on a fake host, for tests and `--simulate`.
pub fn simulated(options: Options, host: Arc<Fake>, reports: Arc<dyn NetworkReports>) -> Arc<Agent> {
    let host: Arc<dyn HostNet> = host;
    Arc::new(Agent::new(options, host, reports))
}
