//! A whole cloud in one process: opens every service's database, gives the services each other, binds OpenStack's
//! ports, starts the agents of this host and makes what a new cloud begins with. What a cloud does is the services'.

mod agents;
mod api;
pub mod background;
mod broker;
mod certificates;
pub mod clean;
mod cloud;
mod clouds_yaml;
mod convert;
pub mod database;
pub mod doctor;
mod endpoints;
mod first_steps;
mod host;
pub mod identity;
mod metrics;
pub mod operator;
pub mod options;
pub mod roles;
pub mod routes;
mod say;
mod secrets;
mod settings;
mod shared;
mod state;
pub mod status;
pub mod trace;

pub use cloud::Cloud;
pub use secrets::Secrets;
pub use settings::Settings;

use agents::Agents;
use base::{Error, Result};
use say::say;
use tokio::signal::unix::{SignalKind, signal};

/// The roles of a process whose command line names none: those with which its machine joined, or all.
pub fn roles_of(state: &std::path::Path) -> Result<roles::Roles> {
    match hosts::Member::read(&state.join("host")) {
        Ok(member) => roles::Roles::parse(member.identity.roles.iter().map(String::as_str)),
        Err(_) => Ok(roles::Roles::ALL),
    }
}

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
        if !settings.roles.control {
            return run_agents(&settings, asked_to_end).await;
        }
        let cloud = tokio::select! {
            cloud = Cloud::start(settings) => cloud?,
            () = &mut asked_to_end => return Ok(()),
        };
        tokio::select! {
            ready = cloud.ready() => {
                ready?;
                say!("{}", clouds_yaml::next_steps(cloud.settings()));
                asked_to_end.await;
            }
            () = &mut asked_to_end => {}
        }
        cloud.stop().await;
        Ok(())
    })
}

async fn run_agents(settings: &Settings, asked_to_end: impl Future<Output = ()> + Unpin) -> Result<()> {
    let mut asked_to_end = asked_to_end;
    let mut agents = tokio::select! {
        agents = Agents::start(settings) => agents?,
        () = &mut asked_to_end => return Ok(()),
    };
    say!("The agents run: {}.", settings.roles);
    let released = tokio::select! {
        () = agents.released() => true,
        () = &mut asked_to_end => false,
    };
    agents.stop().await;
    match released {
        true => Err(Error::forbidden("this host is no part of the cloud any more")),
        false => Ok(()),
    }
}
