//! What block storage begins with: the default type.

use crate::{Cinder, model::VolumeType};
use base::{Result, id};
use db::List;

impl Cinder {
    /// Makes the default type once.
    pub async fn bootstrap(&self) -> Result<()> {
        let (name, now) = (self.options.default_volume_type.clone(), self.clock.now());
        self.write(move |tx| {
            if !tx.list::<VolumeType>(&List::all().eq("name", &name))?.is_empty() {
                return Ok(());
            }
            tx.insert(&VolumeType {
                id: id::uuid(),
                name: name.clone(),
                description: Some("Default Volume Type".into()),
                is_public: true,
                extra_specs: Default::default(),
                qos_specs_id: None,
                projects: Vec::new(),
                created_at: now,
                updated_at: Some(now),
            })
        })
        .await
    }
}
