//! One change at a time per disk.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::OwnedMutexGuard;

#[derive(Default)]
pub struct Locks(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// Holds the name until dropped.
    pub async fn hold(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock();
            // Forget those nobody holds or waits for, so that the map stays as small as the work.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(name.to_string()).or_default().clone()
        };
        lock.lock_owned().await
    }
}
