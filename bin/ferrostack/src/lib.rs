//! A whole cloud in one process: opens every service's database, gives the services each other, binds OpenStack's
//! ports, starts the agents of this host and makes what a new cloud begins with. What a cloud does is the services'.

mod api;
pub mod background;
pub mod clean;
mod cloud;
mod clouds_yaml;
pub mod doctor;
mod endpoints;
mod first_steps;
mod host;
pub mod identity;
pub mod options;
pub mod routes;
mod secrets;
mod settings;
mod state;
pub mod status;

pub use cloud::Cloud;
pub use secrets::Secrets;
pub use settings::Settings;

use base::Result;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a cloud until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked_to_end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(asked_to_end);
        let cloud = tokio::select! {
            cloud = Cloud::start(settings) => cloud?,
            () = &mut asked_to_end => return Ok(()),
        };
        tokio::select! {
            ready = cloud.ready() => {
                ready?;
                println!("{}", clouds_yaml::next_steps(cloud.settings()));
                asked_to_end.await;
            }
            () = &mut asked_to_end => {}
        }
        cloud.stop().await;
        Ok(())
    })
}
