//! What a new cloud begins with, besides its catalog: metadata definitions, an external network and an image to boot.

use crate::Settings;
use base::Result;
use glance::Glance;
use keystone::Keystone;
use neutron::Neutron;
use std::sync::Arc;

pub struct FirstSteps {
    pub keystone: Arc<Keystone>,
    pub glance: Arc<Glance>,
    pub neutron: Arc<Neutron>,
}

impl FirstSteps {
    /// Each may be taken again: what is there is left as it is.
    pub async fn take(&self, settings: &Settings) -> Result<()> {
        self.glance.load_catalogue().await?;
        if !settings.options.demo {
            return Ok(());
        }
        let admin = self.keystone.project_named("admin").await?;
        self.neutron.bootstrap(&admin).await?;
        match settings.guest_image() {
            Some(file) => self.glance.bootstrap("cirros", &admin, &file).await,
            None => Ok(()),
        }
    }
}
