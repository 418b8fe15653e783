//! Moves a volume that nobody has to another back end, and makes it of another type if that was asked for. The new
//! disk is made beside the old one; one transaction makes it the volume's, and only then does the old one go.

use super::or_gone;
use crate::{
    Cinder,
    messages::{self, Action},
    model::*,
    requests::is_multiattach,
    store,
};
use base::{Context, Error, ErrorKind, Result};
use contracts::agents::volume::{DiskSource, NewDisk, Reach};
use db::Tx;
use flow::{Effect, Flow, Step, step};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Migrate {
    pub volume_id: String,
    /// Hosts with their pools.
    pub from: String,
    pub to: String,
    pub new_type_id: Option<String>,
}

/// Removes the disk that a volume had before it moved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveOld {
    pub volume_id: String,
    pub host: String,
}

impl Flow for Migrate {
    const KIND: &'static str = "migrate";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(copy, undo discard), step!(switch)] }
    }

    fn failed(&self, cinder: &Cinder, tx: &mut Tx, cx: &Context, error: &Error) -> Result<()> {
        let Some(volume) = tx.find::<Volume>(&self.volume_id)? else { return Ok(()) };
        store::change(tx, &volume.id, cinder.clock.now(), |volume| {
            give_back(volume);
            volume.migration_status = self.new_type_id.is_none().then(|| "error".into());
        })?;
        let action = if self.new_type_id.is_some() { Action::Retype } else { Action::Migrate };
        messages::tell(cinder, tx, cx, ("VOLUME", &volume.id, &volume.project_id), action, error)
    }
}

impl Flow for RemoveOld {
    const KIND: &'static str = "remove_old";
    const CANCELLABLE: bool = false;
    type Service = Cinder;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(remove)] }
    }

    /// The volume is well; what is left of it elsewhere is the operator's to remove.
    fn failed(&self, _cinder: &Cinder, _tx: &mut Tx, _cx: &Context, error: &Error) -> Result<()> {
        tracing::error!(volume = self.volume_id, host = self.host, %error, "its old disk is left");
        Ok(())
    }
}

fn give_back(volume: &mut Volume) {
    if matches!(volume.status, VolumeStatus::Maintenance | VolumeStatus::Retyping) {
        volume.status = volume.previous_status.take().unwrap_or(VolumeStatus::Available);
    }
}

/// `host@backend` of `host@backend#pool`.
fn back_end(host: &str) -> &str {
    host.split('#').next().unwrap_or(host)
}

async fn copy(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Migrate) -> Result<Effect> {
    let volume = cinder.volume(&flow.volume_id).await?;
    let (own, to) = (cinder.own(cx), back_end(&flow.to));
    let (source, target) = (cinder.agent(back_end(&flow.from)), cinder.agent(to));
    let machine = to.split('@').next().unwrap_or(to).to_string();
    let reach = Reach { host: machine, read_only: true, ..Reach::default() };
    let connection = source.connect(&own, &volume.id, &reach).await?;
    let disk = NewDisk {
        id: volume.id.clone(),
        size_gb: volume.size.unsigned_abs(),
        source: DiskSource::Export { connection },
    };
    target.create(&own, &disk).await?;
    source.disconnect(&own, &volume.id, &[]).await?;
    Ok(Effect::none())
}

async fn discard(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Migrate) -> Result<Effect> {
    let own = cinder.own(cx);
    or_gone(cinder.agent(back_end(&flow.to)).delete(&own, &flow.volume_id).await)?;
    or_gone(cinder.agent(back_end(&flow.from)).disconnect(&own, &flow.volume_id, &[]).await)?;
    Ok(Effect::none())
}

async fn switch(cinder: &Arc<Cinder>, cx: &Context, flow: &mut Migrate) -> Result<Effect> {
    let (cinder, cx, flow) = (cinder.clone(), cx.clone(), flow.clone());
    Ok(Effect::write(move |tx| {
        let kind = match &flow.new_type_id {
            Some(id) => Some(
                tx.find::<VolumeType>(id)?
                    .ok_or_else(|| Error::new(ErrorKind::Conflict, "The type is gone."))?,
            ),
            None => None,
        };
        store::change(tx, &flow.volume_id, cinder.clock.now(), |volume| {
            volume.host = Some(flow.to.clone());
            volume.migration_status = Some("success".into());
            if let Some(kind) = kind {
                volume.multiattach = is_multiattach(&kind);
                volume.volume_type_id = kind.id;
            }
            give_back(volume);
        })?;
        // Of the same subject: over before the volume may come back.
        let old = RemoveOld { volume_id: flow.volume_id.clone(), host: back_end(&flow.from).into() };
        cinder.flows.start(tx, &cx, &old, &flow.volume_id).map(drop)
    }))
}

async fn remove(cinder: &Arc<Cinder>, cx: &Context, flow: &mut RemoveOld) -> Result<Effect> {
    or_gone(cinder.agent(&flow.host).delete(&cinder.own(cx), &flow.volume_id).await)?;
    Ok(Effect::none())
}
