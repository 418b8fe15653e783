//! What keeps a server from running twice. Nova starts servers that ask for it elsewhere when their host is silent for
//! too long; so a host that lost nova stops them itself before that, and having found nova again first asks what is
//! still its own. What must be known after a crash of the agent is kept in a file.

use crate::Manager;
use base::{Error, Result, Timestamp};
use contracts::compute::Lease;
use host_virt::State;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};
use tokio::{sync::Notify, time::Instant};

/// While the host is cut off: what was just being started is found soon.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Guests that went elsewhere are remembered for a while, for the sake of messages that come late.
const TAKEN_MAX: usize = 1024;

#[derive(Default)]
pub struct Fence {
    /// None: nothing outlives the process.
    path: Option<PathBuf>,
    state: Mutex<Fenced>,
    /// The lease has changed.
    renewed: Notify,
    /// Nova is to be asked at once what this host has.
    pub(crate) doubted: Notify,
}

#[derive(Default)]
struct Fenced {
    kept: Kept,
    /// From then on the guests below may run elsewhere; none: never.
    until: Option<Instant>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// The number of the last report.
    report: u64,
    expires_at: Option<Timestamp>,
    /// Guests that nova may start elsewhere: it knows that this host stops them.
    acknowledged: BTreeSet<String>,
    /// Guests that it wants to: the next report says that they are stopped in time.
    wanted: BTreeSet<String>,
    /// Stopped because the lease ended; they go on when they are still this host's.
    stopped: BTreeSet<String>,
    /// Nova had them taken away, or may have; the last one last.
    taken: Vec<String>,
}

impl Kept {
    /// Until nova says that it is this host's.
    fn doubt(&mut self, uuid: &str) {
        self.taken.retain(|taken| taken != uuid);
        self.taken.push(uuid.into());
        let surplus = self.taken.len().saturating_sub(TAKEN_MAX);
        self.taken.drain(..surplus);
    }

    fn guards(&self, uuid: &str) -> bool {
        self.acknowledged.contains(uuid) || self.wanted.contains(uuid)
    }
}

/// A report on its way.
pub struct Report {
    pub number: u64,
    pub fenced: Vec<String>,
    sent: Instant,
}

impl Fence {
    /// As an earlier process left it.
    pub fn kept(path: PathBuf, now: Timestamp) -> Result<Self> {
        let kept: Kept = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error.into()),
        };
        let until = kept.expires_at.map(|expires_at| Instant::now() + expires_at.since(now));
        let state = Mutex::new(Fenced { kept, until });
        Ok(Self { path: Some(path), state, ..Self::default() })
    }

    /// What the next report says. A later one has a higher number, whatever the clock does.
    pub fn report(&self, now: Timestamp) -> Report {
        let mut state = self.state.lock();
        let kept = &mut state.kept;
        kept.report = (kept.report + 1).max(now.0.max(0) as u64);
        Report { number: kept.report, fenced: kept.wanted.iter().cloned().collect(), sent: Instant::now() }
    }

    /// Nova has answered. The lease counts from when it was asked for: from then on, at the earliest, nova counts.
    pub fn renew(&self, report: Report, lease: &Lease, now: Timestamp) -> Result<()> {
        let mut state = self.state.lock();
        if state.expired() {
            self.doubted.notify_one();
        }
        let span = Duration::from_secs(lease.fence_after_seconds);
        state.until = (!span.is_zero()).then(|| report.sent + span);
        let kept = &mut state.kept;
        kept.expires_at = (!span.is_zero()).then(|| now.plus(span).minus(report.sent.elapsed()));
        kept.acknowledged = report.fenced.into_iter().collect();
        kept.wanted = lease.ha.iter().cloned().collect();
        self.keep(kept)?;
        drop(state);
        self.renewed.notify_one();
        Ok(())
    }

    /// Whether a guest may be started here.
    pub fn check(&self, uuid: &str) -> Result<()> {
        let state = self.state.lock();
        if state.kept.taken.iter().any(|taken| taken == uuid) {
            self.doubted.notify_one();
            return Err(Error::unavailable(format!(
                "Instance {uuid} was taken from this host, which asks first whether it has it again."
            )));
        }
        match state.expired() && state.kept.guards(uuid) {
            true => Err(Error::unavailable("This host has lost its cloud.")),
            false => Ok(()),
        }
    }

    /// Whether it is off for this reason alone.
    pub fn stopped(&self, uuid: &str) -> bool {
        self.state.lock().kept.stopped.contains(uuid)
    }

    /// Whether there is anything to stop one day.
    pub fn is_armed(&self) -> bool {
        self.state.lock().until.is_some()
    }

    /// A guest runs again, or was never stopped.
    pub fn runs(&self, uuid: &str) -> Result<()> {
        self.change(|kept| kept.stopped.remove(uuid))
    }

    /// Nova says what this host has; a guest that it has no more does not start by an old message.
    pub fn took(&self, uuid: &str) -> Result<()> {
        self.change(|kept| {
            let was_ours = kept.stopped.remove(uuid) || kept.guards(uuid);
            if was_ours {
                kept.doubt(uuid);
            }
            was_ours
        })
    }

    pub fn gave(&self, uuid: &str) -> Result<()> {
        self.change(|kept| {
            let before = kept.taken.len();
            kept.taken.retain(|taken| taken != uuid);
            kept.taken.len() != before
        })
    }

    fn change(&self, change: impl FnOnce(&mut Kept) -> bool) -> Result<()> {
        let mut state = self.state.lock();
        if change(&mut state.kept) { self.keep(&state.kept) } else { Ok(()) }
    }

    fn keep(&self, kept: &Kept) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(kept)?)?;
        Ok(std::fs::rename(&new, path)?)
    }

    /// Returns when the lease has ended.
    async fn expiry(&self) {
        loop {
            let until = self.state.lock().until;
            let ended = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => if self.state.lock().expired() { return },
                () = self.renewed.notified() => {}
            }
        }
    }
}

impl Fenced {
    fn expired(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Manager {
    /// Stops in time what may run elsewhere. Runs until it is dropped.
    pub(crate) async fn keep_fence(&self) {
        loop {
            self.fence.expiry().await;
            if let Err(error) = self.stop_what_may_run_elsewhere().await {
                tracing::error!(%error, "a guest that may run elsewhere was not stopped; it is tried again");
            }
            tokio::time::sleep(LOOKED_AGAIN_AFTER).await;
        }
    }

    /// Nothing, while nova has heard this host lately.
    pub(crate) async fn stop_what_may_run_elsewhere(&self) -> Result<()> {
        let guarded: Vec<String> = {
            let mut state = self.fence.state.lock();
            if !state.expired() {
                return Ok(());
            }
            let guarded = state.kept.acknowledged.union(&state.kept.wanted).cloned().collect::<Vec<_>>();
            guarded.iter().for_each(|uuid| state.kept.doubt(uuid));
            guarded
        };
        let mut failed = Ok(());
        for uuid in guarded {
            let stopped = self.stop_fenced(&uuid).await;
            failed = failed.and(stopped);
        }
        failed
    }

    async fn stop_fenced(&self, uuid: &str) -> Result<()> {
        let runs = |state: State| matches!(state, State::Running | State::Paused);
        if !self.hypervisor.domain(uuid).await?.is_some_and(|domain| runs(domain.state)) {
            return Ok(());
        }
        tracing::error!(uuid, "nova is silent and may start this guest elsewhere: it is stopped");
        self.fence.change(|kept| kept.stopped.insert(uuid.into()))?;
        self.hypervisor.destroy(uuid).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Clock;

    fn lease(seconds: u64, ha: &[&str]) -> Lease {
        Lease { fence_after_seconds: seconds, ha: ha.iter().map(ToString::to_string).collect() }
    }

    fn renewed(fence: &Fence, lease: &Lease) -> Vec<String> {
        let report = fence.report(Clock::real().now());
        let said = report.fenced.clone();
        fence.renew(report, lease, Clock::real().now()).unwrap();
        said
    }

    #[tokio::test(start_paused = true)]
    async fn what_nova_counts_on_is_stopped_as_long_as_it_may() {
        let fence = Fence::default();
        fence.check("a").unwrap();
        assert!(renewed(&fence, &lease(10, &["a"])).is_empty());
        assert_eq!(renewed(&fence, &lease(10, &["b"])), ["a"]);
        // Nova knows of a, and wants b.
        tokio::time::advance(Duration::from_secs(9)).await;
        fence.check("a").unwrap();
        // A report that is lost renews nothing.
        drop(fence.report(Clock::real().now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(fence.check("a").is_err() && fence.check("b").is_err() && fence.check("c").is_ok());
        assert_eq!(renewed(&fence, &lease(10, &["b"])), ["b"]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(fence.check("a").is_ok(), "nova knows that it is not guarded any more");
        // Switched off.
        renewed(&fence, &lease(0, &[]));
        tokio::time::advance(Duration::from_secs(1000)).await;
        fence.check("b").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_counts_from_the_question() {
        let fence = Fence::default();
        let report = fence.report(Clock::real().now());
        tokio::time::advance(Duration::from_secs(8)).await;
        fence.renew(report, &lease(10, &["a"]), Clock::real().now()).unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(fence.check("a").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_comes_back_by_novas_word_alone() {
        let fence = Fence::default();
        renewed(&fence, &lease(10, &["a"]));
        fence.took("a").unwrap();
        fence.took("other").unwrap();
        assert!(fence.check("a").is_err());
        fence.check("other").unwrap();
        fence.gave("a").unwrap();
        fence.check("a").unwrap();
    }

    #[tokio::test]
    async fn it_outlives_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fence.json");
        let now = Clock::real().now();
        let fence = Fence::kept(path.clone(), now).unwrap();
        let first = fence.report(now);
        let number = first.number;
        fence.renew(first, &lease(30, &["a"]), now).unwrap();
        let soon = Fence::kept(path.clone(), now.plus(Duration::from_secs(5))).unwrap();
        soon.check("a").unwrap();
        assert!(soon.report(Timestamp::default()).number > number, "though the clock went back");
        let late = Fence::kept(path, now.plus(Duration::from_secs(31))).unwrap();
        assert!(late.check("a").is_err());
    }
}
