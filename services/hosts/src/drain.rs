//! Hosts that their operator empties. What is on them is the services' matter: they are asked again and again, by every
//! control node, so that it goes on whichever of them ends.

use crate::{Hosts, model::HostState, store};
use base::{Context, Error, Result};
use contracts::hosts::Left;
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;

const LOOKED_AFTER_EVERY: Duration = Duration::from_secs(2);

/// Until it is dropped.
pub async fn keep_emptying(hosts: Arc<Hosts>) {
    let mut ticks = tokio::time::interval(LOOKED_AFTER_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = base::background(hosts.empty_all()).await {
            tracing::warn!(%error, "a host is not emptied for now");
        }
    }
}

impl Hosts {
    async fn empty_all(&self) -> Result<()> {
        let mut rows = self.read(store::hosts).await?;
        rows.retain(|row| row.state == HostState::Draining);
        for row in rows {
            for user in &self.users {
                user.empty(&Context::internal(), &row.name).await?;
            }
        }
        Ok(())
    }

    /// Nothing new comes to the host when this returns.
    pub(crate) async fn close(&self, host: &str) -> Result<()> {
        for user in &self.users {
            user.close(&Context::internal(), host).await?;
        }
        Ok(())
    }

    pub(crate) async fn open_again(&self, host: &str) -> Result<()> {
        for user in &self.users {
            user.open(&Context::internal(), host).await?;
        }
        Ok(())
    }

    pub(crate) async fn left(&self, host: &str) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        for user in &self.users {
            left.extend(user.left(&Context::internal(), host).await?);
        }
        Ok(left)
    }

    /// What is lost with a host is lost on purpose alone.
    pub(crate) async fn check_empty(&self, host: &str) -> Result<()> {
        let left = self.left(host).await?;
        match left.is_empty() {
            true => Ok(()),
            false => {
                let told = told(&left);
                Err(Error::conflict(format!(
                    "The host {host} is not empty ({told}): drain it, or use --force."
                )))
            }
        }
    }
}

/// `3 servers, 1 router`
pub fn told(left: &[Left]) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for one in left {
        match kinds.iter_mut().find(|(kind, _)| *kind == one.kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((&one.kind, 1)),
        }
    }
    let plural =
        |(kind, count): &(&str, usize)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" });
    kinds.iter().map(plural).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_counted_by_kind() {
        let one = |kind: &str| Left::going(kind, "id", "");
        assert_eq!(told(&[one("server"), one("router"), one("server")]), "2 servers, 1 router");
        assert_eq!(told(&[]), "");
    }
}
