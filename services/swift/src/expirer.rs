//! Removes objects when their time has come.

use crate::{Swift, store};
use base::Result;
use std::{sync::Arc, time::Duration};

/// Objects that one transaction removes.
const AT_ONCE: u64 = 100;

pub async fn run(swift: Arc<Swift>) {
    loop {
        tokio::time::sleep(Duration::from_secs(swift.options.expirer_interval_seconds.max(1))).await;
        match base::background(once(&swift)).await {
            Ok(0) => {}
            Ok(objects) => tracing::info!(objects, "removed objects whose time has come"),
            Err(error) => tracing::warn!(?error, "objects whose time has come stay until the next look"),
        }
    }
}

pub async fn once(swift: &Swift) -> Result<usize> {
    let mut removed = 0;
    loop {
        let (now, files) = (swift.clock.now(), swift.files.clone());
        let some = swift.db.write(move |tx| {
            let expired = store::expired(tx, now, AT_ONCE)?;
            for (object, container) in &expired {
                store::remove(tx, &files, container, object)?;
            }
            Ok(expired.len())
        });
        match some.await? {
            0 => return Ok(removed),
            some => removed += some,
        }
    }
}
