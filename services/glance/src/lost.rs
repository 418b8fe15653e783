//! What processes leave that end in the middle: uploads, imports, and files of nobody. Control nodes may share directories,
//! so what another one that lives has begun stays.

use crate::{Glance, bytes::Files, model::Status, store};
use base::Result;
use std::{sync::Arc, time::Duration};

/// Whose database was away for a while comes back to his uploads.
pub(crate) const SILENT_FOR: Duration = Duration::from_secs(60);
const LOOKED_FOR_EVERY: Duration = Duration::from_secs(60);

impl Glance {
    /// At start, and then again and again for those that end later.
    pub(crate) async fn look_for_lost(self: &Arc<Self>) -> Result<()> {
        self.give_up_lost().await?;
        self.forget_files().await?;
        let weak = Arc::downgrade(self);
        self.processes.every("lost uploads", LOOKED_FOR_EVERY, move || {
            let glance = weak.upgrade();
            async move {
                match glance {
                    Some(glance) => glance.give_up_lost().await,
                    None => Ok(()),
                }
            }
        });
        Ok(())
    }

    /// Images whose bytes were cut off wait for others, imports that were have failed.
    async fn give_up_lost(&self) -> Result<()> {
        let (processes, now) = (self.processes.clone(), self.clock.now());
        let lost = self.db.write(move |tx| {
            let living = processes.living(tx, SILENT_FOR)?;
            store::fail_tasks_but_of(tx, &living, now)?;
            // Ours until they are queued: nobody begins anew while what is half there goes.
            store::take_images_but_of(tx, &living, processes.owner())
        });
        for (id, status) in lost.await? {
            if status != Status::Uploading
                && let Err(error) = self.stores.remove(&id).await
            {
                tracing::warn!(image = id, ?error, "a store may keep what was half uploaded");
            }
            let process = self.processes.owner().to_string();
            self.db.write(move |tx| store::wait_for_other_bytes(tx, &id, status, &process, now)).await?;
        }
        Ok(())
    }

    /// The bytes of images that are gone, and what was being written by processes that are.
    async fn forget_files(&self) -> Result<()> {
        // Listed before it is asked whose they are: who claims an image does so before its file is there.
        let folders: Vec<(Option<&str>, &Files)> = self.stores.folders();
        let mut listed = Vec::new();
        for (store, files) in folders {
            listed.push((store, files, files.names()?, files.incoming_names()?));
        }
        let processes = self.processes.clone();
        let all = listed.iter().flat_map(|(_, _, names, _)| names.iter().cloned()).collect();
        let known = self.db.read(move |tx| {
            Ok((store::stored(tx, &all)?, store::under_way(tx)?, processes.living(tx, SILENT_FOR)?))
        });
        let (stored, under_way, living) = known.await?;
        for (store, files, names, incoming) in listed {
            let is_there = |id: &String| match store {
                Some(store) => stored.get(id).is_some_and(|ids| ids.split(',').any(|id| id == store)),
                None => false,
            };
            for name in names.iter().filter(|name| !under_way.contains(*name) && !is_there(name)) {
                files.remove(name)?;
            }
            files.remove_incoming_but_of(&living, &incoming)?;
        }
        Ok(())
    }
}
