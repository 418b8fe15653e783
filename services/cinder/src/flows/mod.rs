//! The long operations on volumes, each in a file named by its verb, and what they share.

pub mod backup;
pub mod connect;
pub mod create;
pub mod delete;
pub mod disconnect;
pub mod extend;
pub mod manage;
pub mod migrate;
pub mod reimage;
pub mod revert;
pub mod snapshot;
pub mod upload;

use crate::{Cinder, model::Volume, store};
use base::{Error, ErrorKind, Result};
use contracts::agents::volume::VolumeAgent;
use std::sync::Arc;

pub fn register(cinder: &Arc<Cinder>) {
    cinder.flows.register::<create::Create>(cinder.clone());
    cinder.flows.register::<delete::Delete>(cinder.clone());
    cinder.flows.register::<extend::Extend>(cinder.clone());
    cinder.flows.register::<reimage::Reimage>(cinder.clone());
    cinder.flows.register::<revert::Revert>(cinder.clone());
    cinder.flows.register::<snapshot::CreateSnapshot>(cinder.clone());
    cinder.flows.register::<snapshot::DeleteSnapshot>(cinder.clone());
    cinder.flows.register::<connect::Connect>(cinder.clone());
    cinder.flows.register::<upload::Upload>(cinder.clone());
    cinder.flows.register::<manage::ManageVolume>(cinder.clone());
    cinder.flows.register::<manage::ManageSnapshot>(cinder.clone());
    cinder.flows.register::<disconnect::Disconnect>(cinder.clone());
    cinder.flows.register::<migrate::Migrate>(cinder.clone());
    cinder.flows.register::<migrate::RemoveOld>(cinder.clone());
    cinder.flows.register::<backup::MakeBackup>(cinder.clone());
    cinder.flows.register::<backup::DeleteBackup>(cinder.clone());
    cinder.flows.register::<backup::Restore>(cinder.clone());
}

impl Cinder {
    async fn volume(&self, id: &str) -> Result<Volume> {
        let id = id.to_string();
        self.read(move |tx| store::volume(tx, &id)).await
    }

    /// None when a repeated step finds that all is done.
    async fn volume_if_there(&self, id: &str) -> Result<Option<Volume>> {
        let id = id.to_string();
        self.read(move |tx| tx.find::<Volume>(&id)).await
    }

    fn agent_of(&self, volume: &Volume) -> Result<Box<dyn VolumeAgent>> {
        let host = volume.back_end().ok_or_else(|| Error::conflict("The volume is on no back end."))?;
        Ok(self.agent(host))
    }
}

/// What is already gone is a success.
fn or_gone<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(error) if error.is(ErrorKind::NotFound) => Ok(T::default()),
        other => other,
    }
}
