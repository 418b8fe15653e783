//! Guests that go to another host or size: off, with their disks put aside until the move is confirmed; or running.

use crate::{Manager, spec};
use base::{Context, Error, Result};
use contracts::{
    compute::{Instance, LivePhase, LiveState, LiveTarget, Observed, Progress},
    peers::Peer,
};
use host_virt::{Destination, Phase, State};
use std::time::Duration;

impl Manager {
    pub(crate) async fn put_aside(&self, uuid: &str, dest: &str, grace_seconds: u64) -> Result<()> {
        // What was put aside has no definition any more.
        if self.hypervisor.domain(uuid).await?.is_some()
            && !self.hypervisor.power_off(uuid, Duration::from_secs(grace_seconds)).await?
        {
            self.hypervisor.destroy(uuid).await?;
        }
        let _held = self.locks.hold(uuid).await;
        self.disks.set_aside(uuid, dest).await?;
        self.hypervisor.undefine(uuid).await
    }

    pub(crate) async fn arrive(&self, cx: &Context, instance: &Instance, source: &Peer) -> Result<Observed> {
        let uuid = &instance.uuid;
        let mut held = self.locks.hold(uuid).await;
        if source.host == self.host_name() {
            self.disks.copy_from_aside(instance).await?;
        } else {
            tokio::select! {
                fetched = self.disks.fetch_aside(cx, source, instance) => fetched?,
                () = held.called_off() => {
                    return Err(Error::conflict(format!("Instance {uuid} disappeared during its move")));
                }
            }
        }
        if instance.power_on {
            self.start_held(cx, instance, &mut held).await?;
        } else {
            let domain = self.prepare(cx, instance, &mut held).await?;
            self.hypervisor.define(&domain).await?;
        }
        self.observed(uuid).await
    }

    pub(crate) async fn come_back(&self, cx: &Context, instance: &Instance) -> Result<Observed> {
        let uuid = &instance.uuid;
        let mut held = self.locks.hold(uuid).await;
        self.disks.take_back(uuid).await?;
        if instance.power_on {
            self.start_held(cx, instance, &mut held).await?;
        } else if self.hypervisor.domain(uuid).await?.is_none() {
            let domain = self.prepare(cx, instance, &mut held).await?;
            self.hypervisor.define(&domain).await?;
        }
        self.observed(uuid).await
    }

    /// The other host may ask for what it needs to expect the guest.
    pub(crate) async fn let_go(&self, uuid: &str, dest: &str) -> Result<()> {
        match self.get(uuid).await?.state {
            State::Running | State::Paused => {
                self.travels.leaves(uuid, dest);
                Ok(())
            }
            _ => Err(Error::conflict(format!("Instance {uuid} does not run."))),
        }
    }

    /// The disks that come with the guest are here, empty, on the same base; volumes are connected; ports plugged.
    pub(crate) async fn expect_guest(
        &self,
        cx: &Context,
        instance: &Instance,
        block_migration: bool,
        source: &Peer,
    ) -> Result<LiveTarget> {
        let uuid = &instance.uuid;
        let mut held = self.locks.hold(uuid).await;
        self.travels.expect(uuid, &source.host, &self.hypervisor.channels(uuid));
        self.disks.expect(cx, source, instance).await?;
        let domain = self.prepare(cx, instance, &mut held).await?;
        let destination = self.hypervisor.destination(&domain).await?;
        Ok(LiveTarget {
            host: self.host.clone(),
            address: self.options.my_ip.clone(),
            uri: destination.uri,
            block_migration,
            definition: destination.definition,
        })
    }

    pub(crate) async fn send_guest(&self, instance: &Instance, target: &LiveTarget) -> Result<()> {
        let uuid = &instance.uuid;
        let Some(domain) = self.hypervisor.domain(uuid).await? else {
            // Asked again after it has gone.
            return match self.hypervisor.migration(uuid).await?.phase {
                Phase::Completed => Ok(()),
                _ => Err(Error::not_found(format!("Instance {uuid} could not be found."))),
            };
        };
        if !matches!(domain.state, State::Running | State::Paused) {
            return Err(Error::conflict(format!("Instance {uuid} does not run.")));
        }
        let volumes: Vec<String> = instance.volumes.iter().map(|volume| spec::disk(volume).serial).collect();
        let local = domain.disks.into_iter().filter(|serial| !volumes.contains(serial)).collect::<Vec<_>>();
        if !target.block_migration && !local.is_empty() {
            return Err(Error::conflict(format!(
                "{} is not on shared storage: Shared storage live-migration requires either shared storage or boot-from-volume with no local disks.",
                self.host
            )));
        }
        if self.hypervisor.migration(uuid).await?.phase != Phase::Running {
            self.lead_to(uuid, target)?;
        }
        let destination = Destination { uri: target.uri.clone(), definition: target.definition.clone() };
        self.hypervisor.migrate(uuid, &destination, &local).await
    }

    fn lead_to(&self, uuid: &str, target: &LiveTarget) -> Result<()> {
        let channels = self.hypervisor.channels(uuid);
        if channels.is_empty() {
            return Ok(());
        }
        let alone = || Error::conflict("This host has joined no cloud of several hosts.");
        let to = Peer { host: target.host.clone(), address: target.address.clone() };
        self.travels.lead(uuid, channels, self.link.as_ref().ok_or_else(alone)?, &to)
    }

    pub(crate) async fn sending(&self, uuid: &str) -> Result<LiveState> {
        let migration = self.hypervisor.migration(uuid).await?;
        if migration.phase != Phase::Running {
            self.travels.end(uuid);
        }
        let progress = |progress: host_virt::Progress| Progress {
            total_bytes: progress.total_bytes,
            processed_bytes: progress.processed_bytes,
            remaining_bytes: progress.remaining_bytes,
        };
        Ok(LiveState {
            phase: match migration.phase {
                Phase::None => LivePhase::None,
                Phase::Running => LivePhase::Running,
                Phase::Completed => LivePhase::Completed,
                Phase::Failed => LivePhase::Failed,
                Phase::Cancelled => LivePhase::Cancelled,
            },
            error: migration.error,
            memory: progress(migration.memory),
            disk: progress(migration.disk),
        })
    }
}
