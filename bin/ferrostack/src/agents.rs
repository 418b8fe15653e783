//! A process that runs agents alone, on a host that has joined a cloud: no database, no API; the bus to the control
//! nodes, and their door for images and certificates.

use crate::{
    Settings, certificates,
    host::{Host, Surroundings},
    metrics,
    state::Running,
};
use base::{Clock, Result};
use bus::Bus;
use contracts::agents::host::HostAlive;
use hosts::{Member, RemoteImages};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// How often it is looked whether the certificate is to be renewed.
const RENEWAL_LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

pub struct Agents {
    host: Host,
    running: Running,
    alive: JoinHandle<()>,
    renewing: JoinHandle<()>,
    metrics: Option<JoinHandle<()>>,
}

impl Agents {
    /// Returns when the control nodes know the agents.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let running = Running::take(&settings.state, settings.listen)?;
        let (directory, clock) = (settings.membership(), Clock::real());
        let mut member = Member::read(&directory)?;
        if let Err(error) = member.renew_in_time(&directory, &clock).await {
            tracing::warn!(%error, "the certificate was not renewed; tried again");
        }
        let for_qemu = settings.qemu_certificates();
        certificates::hand_to_qemu(&directory, &for_qemu)?;
        let identity = member.identity.clone();
        let brokers = member.common.brokers.iter().map(|url| url.expose().to_string()).collect();
        let bus = crate::broker::bus(settings, brokers, &member.common.bus_prefix, &identity.name).await?;
        let images = Arc::new(RemoteImages::new(member.clone(), &directory));
        let around = Surroundings {
            bus: bus.clone(),
            clock: clock.clone(),
            images: images.clone(),
            image_sink: images,
            metadata_secret: member.common.metadata_secret.clone(),
            metadata_address: member.common.metadata_address.clone(),
            identity: Some(identity.clone()),
        };
        let metrics = metrics::serve(settings).await?;
        let alive = tokio::spawn(alive(settings, &bus, &identity));
        let host = Host::start(settings, &around).await?;
        let renewing = tokio::spawn(renew(member, directory, for_qemu, clock));
        running.ready()?;
        Ok(Self { host, running, alive, renewing, metrics })
    }

    /// Returns when the cloud has let this host go.
    pub async fn released(&mut self) {
        let _ = (&mut self.alive).await;
    }

    /// Guests, networks and volumes go on.
    pub async fn stop(self) {
        self.alive.abort();
        self.renewing.abort();
        self.metrics.inspect(JoinHandle::abort);
        self.host.stop().await;
        drop(self.running);
    }
}

fn alive(
    settings: &Settings,
    bus: &Bus,
    identity: &hosts::Identity,
) -> impl Future<Output = ()> + Send + use<> {
    let host = HostAlive {
        name: identity.name.clone(),
        roles: settings.roles.names(),
        address: identity.address.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    hosts::alive(bus.clone(), host)
}

async fn renew(mut member: Member, directory: PathBuf, for_qemu: PathBuf, clock: Clock) {
    loop {
        tokio::time::sleep(RENEWAL_LOOKED_AT_EVERY).await;
        let renewed = member.renew_in_time(&directory, &clock).await;
        let renewed = renewed.and_then(|new| certificates::hand_to_qemu(&directory, &for_qemu).map(|()| new));
        match renewed {
            Ok(true) => tracing::info!("the certificate of this host is renewed"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the certificate was not renewed; tried again"),
        }
    }
}
