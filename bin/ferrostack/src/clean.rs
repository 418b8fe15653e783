//! `ferrostack clean`: removes a stopped cloud and every trace of it on this machine.

use crate::{say::say, state};
use base::{Error, Result, config::Config};
use std::path::Path;

/// Guests, taps, bridges, namespaces, rules, then the state directory itself.
pub fn everything(directory: &Path, config: &Config) -> Result<()> {
    if let Some(pid) = state::runner(directory)? {
        return Err(Error::conflict(format!("a cloud runs here as process {pid}; stop it first")));
    }
    if !state::exists(directory) {
        say!("No cloud was ever on {}.", directory.display());
        return Ok(());
    }
    let directory = std::path::absolute(directory)?;
    tokio::runtime::Runtime::new()?.block_on(from_host(&directory, config))?;
    std::fs::remove_dir_all(&directory)?;
    say!("Nothing is left of the cloud on {}.", directory.display());
    Ok(())
}

async fn from_host(directory: &Path, config: &Config) -> Result<()> {
    use host_net::HostNet;
    if directory.join("libvirt").exists() {
        let options = host_virt::Options {
            dir: directory.join("libvirt"),
            instances_dir: directory.join("instances"),
            accelerator: Some(host_virt::Accelerator::Tcg),
            ..host_virt::Options::default()
        };
        host_virt::Libvirt::start(options).await?.remove_everything().await?;
    }
    for (_, dir) in config.section::<cinder_volume::Options>()?.each(directory) {
        if dir.exists() {
            cinder_volume::clean(&dir).await?;
        }
    }
    if directory.join("net").exists() {
        let physical_networks = config.section::<neutron_agent::Options>()?.physical_networks;
        let options = host_net::Options { dir: directory.join("net"), physical_networks, metadata: None };
        host_net::Linux::new(options).await?.clean().await?;
    }
    Ok(())
}
