//! Images that go. Their bytes leave the stores first and then nothing tells of them any more; with delayed deletes the
//! scrubber does both later. What a store says is in use stays.

use crate::{
    Glance,
    model::{Image, Status, Whole},
    store,
};
use base::{Error, ErrorKind, Result};
use db::{Filter, Stored};
use std::{sync::Arc, time::Duration};

/// A delete that has gone on for so long was cut off: the scrubber ends it.
const CUT_OFF_AFTER: Duration = Duration::from_secs(600);

const IN_USE: &str =
    "The image cannot be deleted because it is in use through the backend store outside of Glance.";

impl Glance {
    /// `Conflict` while a store says that the bytes are in use: then the image stays as it was.
    pub async fn delete_image(&self, image_id: &str) -> Result<()> {
        let whole = self.claim(image_id).await?;
        self.stores.staged.remove(image_id)?;
        self.cache.remove(image_id)?;
        if self.options.delayed_delete && whole.image.stores.is_some() {
            return Ok(());
        }
        match self.remove_bytes(&whole).await {
            Ok(()) => self.forget(image_id).await,
            Err(error) => {
                self.stay(image_id, whole.image.status).await?;
                Err(error)
            }
        }
    }

    /// Nobody sees it from now on.
    async fn claim(&self, image_id: &str) -> Result<Whole> {
        let (id, now) = (image_id.to_string(), self.clock.now());
        self.db
            .write(move |tx| {
                let image = store::there(tx, &id)?.ok_or_else(|| store::missing(&id))?;
                if image.protected {
                    let sentence = format!("Image {id} is protected and cannot be deleted.");
                    return Err(Error::forbidden(sentence));
                }
                let known = [Filter::eq("id", &*id), Filter::eq("status", image.status)];
                let changes = [("status", Status::PendingDelete.store()), ("updated_at", now.store())];
                tx.set::<Image>(&known, &changes)?;
                Ok(store::with_all(tx, vec![image])?.remove(0))
            })
            .await
    }

    async fn stay(&self, image_id: &str, status: Status) -> Result<()> {
        let (id, now) = (image_id.to_string(), self.clock.now());
        self.db
            .write(move |tx| {
                let known = [Filter::eq("id", &*id), Filter::eq("status", Status::PendingDelete)];
                tx.set::<Image>(&known, &[("status", status.store()), ("updated_at", now.store())])
            })
            .await
            .map(drop)
    }

    /// From every store that has them; those that have let them go are the image's no more.
    async fn remove_bytes(&self, whole: &Whole) -> Result<()> {
        let id = &whole.image.id;
        let mut left: Vec<&str> = crate::stores::ids(&whole.image).collect();
        for store in self.stores.of(&whole.image) {
            let removed = self.stores.remove_from(store, whole).await.map_err(in_use);
            if removed.is_err() {
                let (id, left, now) = (id.clone(), left.join(","), self.clock.now());
                self.db.write(move |tx| store::set_stores(tx, &id, &left, now)).await?;
                return removed;
            }
            left.retain(|known| *known != store.id);
        }
        Ok(())
    }

    async fn forget(&self, image_id: &str) -> Result<()> {
        let (id, now) = (image_id.to_string(), self.clock.now());
        self.db.write(move |tx| store::remove(tx, &id, now)).await
    }

    /// What was deleted long enough ago leaves its stores. What is in use, or whose store does not answer, waits for the
    /// next time. Answers how many went.
    pub async fn scrub(&self) -> Result<usize> {
        let wait = match self.options.delayed_delete {
            true => Duration::from_secs(self.options.scrub_time_seconds),
            false => CUT_OFF_AFTER,
        };
        let until = self.clock.now().minus(wait);
        let mut gone = 0;
        for whole in self.db.read(move |tx| store::deleted_until(tx, until)).await? {
            match self.remove_bytes(&whole).await {
                Ok(()) => {
                    self.forget(&whole.image.id).await?;
                    gone += 1;
                }
                Err(error) => {
                    tracing::warn!(image = whole.image.id, ?error, "not scrubbed; tried again")
                }
            }
        }
        Ok(gone)
    }

    /// Scrubs for ever, as long as somebody holds the service.
    pub(crate) fn keep_scrubbing(self: &Arc<Self>) {
        let every = Duration::from_secs(self.options.scrub_every_seconds.max(1));
        let glance = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(glance) = glance.upgrade() else { return };
                match glance.scrub().await {
                    Ok(0) => {}
                    Ok(images) => tracing::info!(images, "scrubbed"),
                    Err(error) => tracing::warn!(?error, "could not scrub; tried again"),
                }
            }
        });
    }
}

/// What is said to whoever deletes.
pub fn in_use(error: Error) -> Error {
    match error.is(ErrorKind::Conflict) {
        true => Error::conflict(IN_USE).cause(error),
        false => error,
    }
}
