//! The agent of one back end: makes, grows, keeps and serves the volumes that cinder places on it, and tells cinder
//! how much room there is. It has no database: every message carries what it needs.

mod agent;
mod options;
mod reports;

use base::Result;
use bus::{Bus, Serving, Topic};
use contracts::{
    agents::volume::{AGENT_TOPIC, volume_agent_handlers},
    compute::{ImageSink, ImageSource},
};
use host_block::{Fake, Files};
use std::{path::Path, sync::Arc};

pub use agent::Agent;
pub use host_block::PROGRAMS;
pub use options::Options;
pub use reports::run;

/// The agent of one back end of this machine, volumes as files below `dir`.
pub fn on_files(
    options: Options,
    dir: &Path,
    images: Arc<dyn ImageSource>,
    sink: Arc<dyn ImageSink>,
) -> Result<Arc<Agent>> {
    let files = Files::open(dir)?;
    let files = match options.backup_directory.as_str() {
        "" => files,
        place => files.backups_in(Path::new(place))?,
    };
    let files = match options.network()? {
        Some(network) => files.on_network(network)?,
        None => files,
    };
    Ok(Arc::new(Agent::new(options, Arc::new(files), Some(images)).uploads_to(sink)))
}

/// Ends what outlives the agent: the exports of the volumes below `dir`.
pub async fn clean(dir: &Path) -> Result<()> {
    Files::open(dir)?.unexport_all().await
}

/// An agent like it on a fake back end, for tests and `--simulate`.
pub fn simulated(options: Options, back_end: Fake, sink: Option<Arc<dyn ImageSink>>) -> Arc<Agent> {
    let agent = Agent::new(options, Arc::new(back_end), None);
    Arc::new(match sink {
        Some(sink) => agent.uploads_to(sink),
        None => agent,
    })
}

/// Answers cinder on the bus until the answer is dropped. [`run`] gives the signs of life.
pub async fn serve(bus: &Bus, agent: Arc<Agent>) -> Result<Serving> {
    let topic = Topic::on(AGENT_TOPIC, agent.host());
    bus.serve(topic, volume_agent_handlers(agent)).await
}
