//! What keystone does by itself from time to time: new keys for tokens, and forgetting what has ended.

use crate::{Keystone, Options, TOKEN_KEYS, fernet, store};
use base::{Error, Result};
use std::{path::Path, sync::Arc, time::Duration};

/// Looked at so often; keys that another process rotated are seen as late as this.
const EVERY: Duration = Duration::from_secs(60);

/// OAuth 1 signatures are taken so long before and after the time that they name.
const SIGNATURES_HOLD: Duration = Duration::from_secs(600);

/// Runs for ever; whoever spawned it ends it.
pub async fn run(keystone: Arc<Keystone>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = keystone.keep_keys() {
            tracing::error!(?error, "the token keys could not be kept");
        }
        match keystone.purge().await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "forgot what has ended"),
            Err(error) => tracing::warn!(?error, "could not forget what has ended; tried again"),
        }
    }
}

/// Until then a staged key may be unknown to some process: copied to its node, read by it.
const KNOWN_EVERYWHERE_WITHIN: Duration = Duration::from_secs(120);

/// The staged key of a state directory becomes the one that new tokens are made with. A cloud that runs on it sees
/// this within a minute. `Conflict` when tokens made with it would be refused by those who have not heard of it.
pub fn rotate_token_keys(directory: &Path, options: &Options) -> Result<()> {
    let keys = fernet::Keys::open(&directory.join(TOKEN_KEYS), options.max_active_keys)?;
    let left = KNOWN_EVERYWHERE_WITHIN.saturating_sub(keys.staged_age()?);
    if !left.is_zero() {
        return Err(Error::conflict(format!(
            "The keys were rotated just now, and not every process knows the next one yet: again in {} s.",
            left.as_secs() + 1
        )));
    }
    keys.rotate()
}

impl Keystone {
    /// Rotates the token keys when it is time, and reads what others rotated.
    pub fn keep_keys(&self) -> Result<()> {
        let hours = self.options.key_rotation_hours;
        let span = Duration::from_secs(hours * 3600);
        if hours > 0 && self.token_keys.primary_age()? >= span {
            tracing::info!("rotating the token keys");
            self.token_keys.rotate()?;
        }
        if let Some(keys) = &self.signing {
            keys.reload()?;
        }
        self.token_keys.reload()
    }

    /// Forgets revocations whose tokens have expired, and trusts, OAuth 1 tokens that ended before any token
    /// made of them could. Answers how many rows.
    pub async fn purge(&self) -> Result<u64> {
        let now = self.clock.now();
        let lifetime = self.options.token_expiration_seconds + self.options.allow_expired_window_seconds;
        let horizon = now.minus(Duration::from_secs(lifetime));
        self.write(move |tx| {
            let forgotten = store::forget_revocations_before(tx, horizon)?;
            Ok(forgotten
                + store::forget_ended_before(tx, horizon)?
                + store::forget_assertions_until(tx, now)?
                + store::forget_signatures_before(tx, now.minus(2 * SIGNATURES_HOLD))?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ErrorKind;
    use std::{fs, time::SystemTime};

    #[test]
    fn keys_are_not_rotated_faster_than_they_spread() {
        let (directory, options) = (tempfile::tempdir().unwrap(), Options::default());
        let rotate = || rotate_token_keys(directory.path(), &options);
        assert_eq!(rotate().unwrap_err().kind, ErrorKind::Conflict, "made just now");
        let staged = directory.path().join(TOKEN_KEYS).join("0");
        let long_ago = SystemTime::now() - KNOWN_EVERYWHERE_WITHIN;
        fs::File::options().append(true).open(&staged).unwrap().set_modified(long_ago).unwrap();
        rotate().unwrap();
        assert_eq!(rotate().unwrap_err().kind, ErrorKind::Conflict, "rotated just now");
        let keys = fs::read_dir(staged.parent().unwrap()).unwrap().count();
        assert_eq!(keys, 3);
    }
}
