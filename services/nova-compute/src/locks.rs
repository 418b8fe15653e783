//! One change at a time per name (an instance, an image), and a way to call off what is long under way.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{OwnedMutexGuard, watch};

#[derive(Default)]
pub struct Locks(Mutex<HashMap<String, Arc<Entry>>>);

struct Entry {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How often somebody called off; a holder looks for what comes after it began.
    calls_off: watch::Sender<u64>,
}

/// Holds the name until dropped.
pub struct Held {
    calls_off: watch::Receiver<u64>,
    _entry: Arc<Entry>,
    _guard: OwnedMutexGuard<()>,
}

impl Locks {
    pub async fn hold(&self, name: &str) -> Held {
        let entry = self.entry(name);
        let guard = entry.lock.clone().lock_owned().await;
        Held { calls_off: entry.calls_off.subscribe(), _entry: entry, _guard: guard }
    }

    /// Who holds the name and waits in [`Held::called_off`] gives up.
    pub fn call_off(&self, name: &str) {
        self.entry(name).calls_off.send_modify(|count| *count += 1);
    }

    fn entry(&self, name: &str) -> Arc<Entry> {
        let mut entries = self.0.lock();
        // Forget those nobody holds or waits for, so that the map stays as small as the work.
        entries.retain(|_, entry| Arc::strong_count(entry) > 1);
        let new = || Arc::new(Entry { lock: Arc::default(), calls_off: watch::Sender::new(0) });
        entries.entry(name.to_string()).or_insert_with(new).clone()
    }
}

impl Held {
    /// Returns when somebody wants the name free.
    pub async fn called_off(&mut self) {
        if self.calls_off.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_and_called_off() {
        let locks = Arc::new(Locks::default());
        let mut held = locks.hold("a").await;
        let _other = locks.hold("b").await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), locks.hold("a")).await;
        assert!(waiting.is_err(), "held");
        let caller = locks.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            caller.call_off("a");
        });
        held.called_off().await;
        drop(held);
        locks.hold("a").await;
        assert!(locks.0.lock().len() <= 2);
    }
}
