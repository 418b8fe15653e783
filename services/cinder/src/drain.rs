//! A host that its operator empties: no new volumes, and those that nobody uses go to other back ends.

use crate::{
    Cinder,
    model::{BackEnd, Volume, VolumeStatus},
    moves, scheduler, store,
};
use async_trait::async_trait;
use base::{Context, Result};
use contracts::hosts::{HostUser, Left};
use db::{List, Tx};
use std::sync::Arc;

/// Why a back end is disabled that is drained. One that an administrator disabled stays disabled.
const REASON: &str = "The host is drained.";
const MOVES_MAX: usize = 2;
const FAILED: &str = "error";

/// Of cinder's volumes.
pub struct Drain(pub Arc<Cinder>);

#[async_trait]
impl HostUser for Drain {
    /// What could not be moved is tried anew.
    async fn close(&self, _cx: &Context, host: &str) -> Result<()> {
        let (host, cinder) = (host.to_string(), self.0.clone());
        let work = move |tx: &mut Tx| {
            for mut back_end in back_ends(tx, &host)? {
                if !back_end.disabled {
                    (back_end.disabled, back_end.disabled_reason) = (true, Some(REASON.into()));
                    tx.update(&back_end)?;
                }
            }
            for volume in volumes(tx, &host)? {
                if volume.migration_status.as_deref() == Some(FAILED) {
                    let forget = |volume: &mut Volume| volume.migration_status = None;
                    store::change(tx, &volume.id, cinder.clock.now(), forget)?;
                }
            }
            Ok(())
        };
        self.0.write(work).await
    }

    async fn empty(&self, cx: &Context, host: &str) -> Result<()> {
        let (host, cx, cinder) = (host.to_string(), cx.clone(), self.0.clone());
        let work = move |tx: &mut Tx| {
            let volumes = volumes(tx, &host)?;
            let moving = volumes.iter().filter(|volume| moves(volume)).count();
            let may_go = volumes.iter().filter(|volume| waits(volume));
            for volume in may_go.take(MOVES_MAX.saturating_sub(moving)) {
                // Why one cannot go is told by `left`.
                if let Ok(to) = moves::somewhere_else(&cinder, tx, volume)? {
                    moves::begin(&cinder, tx, &cx, volume, to, None)?;
                }
            }
            Ok(())
        };
        self.0.write(work).await
    }

    async fn left(&self, _cx: &Context, host: &str) -> Result<Vec<Left>> {
        let (host, cinder) = (host.to_string(), self.0.clone());
        let work = move |tx: &mut Tx| {
            let mut left = Vec::new();
            for volume in volumes(tx, &host)? {
                left.push(told(&cinder, tx, &volume)?);
            }
            Ok(left)
        };
        self.0.read(work).await
    }

    async fn open(&self, _cx: &Context, host: &str) -> Result<()> {
        let host = host.to_string();
        let work = move |tx: &mut Tx| {
            let mut ours = back_ends(tx, &host)?;
            ours.retain(|back_end| back_end.disabled_reason.as_deref() == Some(REASON));
            ours.into_iter().try_for_each(|mut back_end| {
                (back_end.disabled, back_end.disabled_reason) = (false, None);
                tx.update(&back_end).map(drop)
            })
        };
        self.0.write(work).await
    }
}

fn back_ends(tx: &mut Tx, host: &str) -> Result<Vec<BackEnd>> {
    let mut all = tx.list::<BackEnd>(&List::all())?;
    all.retain(|back_end| back_end.host.split('@').next() == Some(host));
    Ok(all)
}

fn volumes(tx: &mut Tx, host: &str) -> Result<Vec<Volume>> {
    let names = back_ends(tx, host)?.into_iter().flat_map(|one| [scheduler::pool(&one), one.host]);
    store::volumes_on(tx, &names.collect::<Vec<_>>())
}

fn moves(volume: &Volume) -> bool {
    volume.migration_status.as_deref() == Some("migrating")
}

fn waits(volume: &Volume) -> bool {
    volume.status == VolumeStatus::Available && volume.migration_status.as_deref() != Some(FAILED)
}

fn told(cinder: &Cinder, tx: &mut Tx, volume: &Volume) -> Result<Left> {
    let (id, status) = (&volume.id, volume.status.as_str());
    if moves(volume) {
        return Ok(Left::going("volume", id, "migrating"));
    }
    Ok(match volume.status {
        VolumeStatus::Available if !waits(volume) => Left::stuck("volume", id, "its move failed"),
        VolumeStatus::Available => match moves::somewhere_else(cinder, tx, volume)? {
            Ok(_) => Left::going("volume", id, "waits to go"),
            Err(why) => Left::stuck("volume", id, why),
        },
        VolumeStatus::InUse => Left::stuck("volume", id, "a server uses it"),
        VolumeStatus::Error => Left::stuck("volume", id, "it is in error"),
        _ => Left::going("volume", id, status),
    })
}
