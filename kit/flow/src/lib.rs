//! Long operations that survive `kill -9`: steps with undo, each recorded in the transaction of its effect; and
//! tasks that run now and then. What an operation does is its service's matter.

mod kind;
mod runner;
mod store;
mod tasks;
pub mod torture;
pub mod trail;

pub use kind::{Effect, Flow, Step};
pub use store::TABLES;

use base::{Clock, Context, Error, Result, id};
use db::{Db, Tx};
use futures::future::BoxFuture;
use kind::{Erased, Kind};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use store::FlowRow;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
};

/// Limits of the runner.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps that run at the same time.
    pub concurrency_max: usize,
    /// How often a step is tried while its errors are transient.
    pub attempts_max: u32,
    /// How long a step waits, whatever the attempts, for somebody who is not there (`Unavailable`): after a start,
    /// the agents of hosts come up behind the services.
    pub absence_max: Duration,
    /// The pause before the second attempt; it doubles with each, up to half a minute.
    pub pause: Duration,
    /// How long it is told of operations that have ended.
    pub told_for: Duration,
    /// How long a silent process keeps its flows and tasks when others share the database.
    pub lease: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency_max: 512,
            attempts_max: 5,
            absence_max: Duration::from_secs(120),
            pause: Duration::from_secs(1),
            told_for: Duration::from_secs(24 * 3600),
            lease: Duration::from_secs(9),
        }
    }
}

/// The flows of one service, on its database. Cheap to clone.
#[derive(Clone)]
pub struct Flows(Arc<Shared>);

pub(crate) struct Shared {
    db: Db,
    clock: Clock,
    options: Options,
    /// This process since its start. As nobody ever has it again, it is also the fencing token.
    owner: String,
    /// The same for people.
    process: String,
    kinds: RwLock<HashMap<&'static str, Arc<dyn Kind>>>,
    places: Semaphore,
    /// Flows that this process runs now; true asks one to stop and undo.
    running: Mutex<HashMap<String, watch::Sender<bool>>>,
    running_count: watch::Sender<usize>,
    /// Flows of this process that do not run, and since when that is known.
    strays: Mutex<HashMap<String, Instant>>,
    waiters: Mutex<HashMap<String, oneshot::Sender<Result<()>>>>,
    tasks: Mutex<Tasks>,
    runtime: Handle,
    pub(crate) trouble: Mutex<Option<torture::Script>>,
}

impl Shared {
    /// Ours and not under way, and not only because its beginning is just being committed: its process could not
    /// record where it stands.
    fn is_stray(&self, id: &str) -> bool {
        let mut strays = self.strays.lock();
        if self.running.lock().contains_key(id) {
            strays.remove(id);
            return false;
        }
        strays.entry(id.into()).or_insert_with(Instant::now).elapsed() >= STRAYS_FOR
    }
}

/// From commit to beginning takes less.
const STRAYS_FOR: Duration = Duration::from_secs(1);

/// What has ended is forgotten now and then.
const FORGOTTEN_EVERY: Duration = Duration::from_secs(600);

fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}, process {}", host.trim(), std::process::id())
}

#[derive(Default)]
struct Tasks {
    stopped: bool,
    set: JoinSet<()>,
}

/// How a flow will have ended, for the few callers who wait for it.
pub struct Outcome {
    shared: Weak<Shared>,
    id: String,
    told: Option<oneshot::Receiver<Result<()>>>,
}

impl Outcome {
    /// Why it failed and was undone, if it was. A `Timeout` when this process does not see its end.
    pub async fn wait(mut self) -> Result<()> {
        let unseen = || Error::timeout("The operation goes on elsewhere.");
        let Some(told) = self.told.take() else { return Err(unseen()) };
        tokio::select! {
            outcome = told => outcome.unwrap_or_else(|_| Err(unseen())),
            () = self.is_elsewhere() => Err(unseen()),
        }
    }
}

impl Outcome {
    /// Returns when another process that shares the database has the flow, or had it.
    async fn is_elsewhere(&self) {
        loop {
            tokio::time::sleep(LOOKED_AFTER_EVERY).await;
            let Some(flows) = self.shared.upgrade().map(Flows) else { return };
            if !flows.0.db.is_postgres() {
                return std::future::pending().await;
            }
            let id = self.id.clone();
            match flows.0.db.read(move |tx| store::owner_of(tx, &id)).await {
                Ok(Some(None)) | Err(_) => {}
                Ok(Some(Some(owner))) if owner == flows.0.owner => {}
                // Ended here just now: its outcome is on its way.
                Ok(_) if flows.0.running.lock().contains_key(&self.id) => {}
                Ok(_) => return,
            }
        }
    }
}

/// How often somebody who waits looks whether his flow went elsewhere.
const LOOKED_AFTER_EVERY: Duration = Duration::from_secs(1);

impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.waiters.lock().remove(&self.id);
        }
    }
}

/// Whether an error is that of a flow which was asked to stop.
pub fn is_cancelled(error: &Error) -> bool {
    error.code.as_deref() == Some(CANCELLED)
}

const CANCELLED: &str = "flow.cancelled";

fn cancelled() -> Error {
    Error::conflict("The operation was cancelled.").code(CANCELLED)
}

impl Flows {
    /// On a database opened with [`TABLES`] among its own, within a tokio runtime. Register the kinds, then
    /// [`Flows::resume`].
    pub fn new(db: Db, clock: Clock, options: Options) -> Self {
        Self(Arc::new(Shared {
            db,
            clock,
            options,
            owner: id::uuid(),
            process: process_name(),
            kinds: RwLock::default(),
            places: Semaphore::new(options.concurrency_max.max(1)),
            running: Mutex::default(),
            running_count: watch::Sender::new(0),
            strays: Mutex::default(),
            waiters: Mutex::default(),
            tasks: Mutex::default(),
            runtime: Handle::current(),
            trouble: Mutex::default(),
        }))
    }

    pub fn register<F: Flow>(&self, service: Arc<F::Service>) {
        self.0.kinds.write().insert(F::KIND, Arc::new(Erased::<F>(service)));
    }

    /// Picks up what an earlier process left, and from now on what others leave.
    pub async fn resume(&self) -> Result<()> {
        if self.0.db.is_postgres() {
            self.keep_lease().await?;
        }
        let weak = Arc::downgrade(&self.0);
        self.every("forget operations", FORGOTTEN_EVERY, move || {
            let shared = weak.upgrade();
            async move {
                let Some(shared) = shared else { return Ok(()) };
                let before = shared.clock.now().minus(shared.options.told_for);
                shared.db.write(move |tx| trail::forget(tx, before)).await
            }
        });
        self.adopt().await
    }

    /// Starts a flow within the caller's transaction; it begins when that is committed. Flows of one subject (a
    /// server's id) run one after the other.
    pub fn start<F: Flow>(&self, tx: &mut Tx, cx: &Context, flow: &F, subject: &str) -> Result<Outcome> {
        let kind = self.0.kinds.read().get(F::KIND).cloned();
        let kind = kind.ok_or_else(|| Error::internal(format!("flow kind {} is not registered", F::KIND)))?;
        // Neither a secret nor a deadline outlives the request.
        let context = Context { token: String::new(), deadline: None, ..cx.clone() };
        let number = store::next_number(tx, subject)?;
        let row = FlowRow {
            id: id::uuid(),
            kind: F::KIND.into(),
            subject: subject.into(),
            number,
            state: serde_json::to_string(flow)?,
            context: db::AsJson(context),
            step: 0,
            undoing: false,
            cancelled: false,
            cancellable: kind.cancellable(),
            error: None,
            owner: (number == 1).then(|| self.0.owner.clone()),
            created_at: self.0.clock.now(),
        };
        tx.insert(&row)?;
        trail::begin(tx, &row, kind.step_names(), &self.0.process)?;
        if row.owner.is_some() {
            self.run_after_commit(tx, row.clone());
        }
        let (tell, told) = oneshot::channel();
        self.0.waiters.lock().insert(row.id.clone(), tell);
        Ok(Outcome { shared: Arc::downgrade(&self.0), id: row.id, told: Some(told) })
    }

    /// The same, and asks those before it to stop and undo what they did.
    pub fn start_instead<F: Flow>(
        &self,
        tx: &mut Tx,
        cx: &Context,
        flow: &F,
        subject: &str,
    ) -> Result<Outcome> {
        for id in store::cancel(tx, subject)? {
            let shared = self.0.clone();
            tx.after_commit(move || {
                if let Some(ask) = shared.running.lock().get(&id) {
                    ask.send_replace(true);
                }
            });
        }
        self.start(tx, cx, flow, subject)
    }

    /// Runs a task again and again, in one of the processes that share the database at a time.
    pub fn every<F>(
        &self,
        name: &'static str,
        interval: Duration,
        task: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let boxed: tasks::Task = Box::new(move || -> BoxFuture<'static, Result<()>> { Box::pin(task()) });
        self.spawn(tasks::run(Arc::downgrade(&self.0), name, interval, boxed));
    }

    /// This process since its start, for rows that say who works on them. Nobody ever has the name again.
    pub fn owner(&self) -> &str {
        &self.0.owner
    }

    /// The processes that live, and those that fell silent no longer than this ago. Nobody shares a database file.
    pub fn living(&self, tx: &mut Tx, silent_for: Duration) -> Result<BTreeSet<String>> {
        let mut living = match self.0.db.is_postgres() {
            true => store::living(tx, self.0.clock.now().minus(silent_for))?,
            false => BTreeSet::new(),
        };
        living.insert(self.0.owner.clone());
        Ok(living)
    }

    /// Stops at once, wherever each flow stands; a later [`Flows::resume`] goes on from there.
    pub fn stop(&self) {
        let mut tasks = self.0.tasks.lock();
        tasks.stopped = true;
        tasks.set.abort_all();
        drop(tasks);
        self.0.kinds.write().clear();
    }

    /// Returns when this process has no flow left to run.
    pub async fn settled(&self) {
        // The sender lives as long as we do.
        let _ = self.0.running_count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Takes over the flows that nobody owns any more.
    async fn adopt(&self) -> Result<()> {
        let (owner, flows) = (self.0.owner.clone(), self.clone());
        let shared_database = self.0.db.is_postgres();
        let now = self.0.clock.now();
        let shared = self.0.clone();
        self.0
            .db
            .write(move |tx| {
                let runs_here = |id: &str| !shared.is_stray(id);
                for row in store::adopt(tx, &owner, runs_here, shared_database, now)? {
                    tracing::info!(flow = row.id, kind = row.kind, subject = row.subject, "goes on");
                    trail::goes_on_in(tx, &row.id, &shared.process)?;
                    flows.run_after_commit(tx, row);
                }
                Ok(())
            })
            .await
    }

    /// The lease of this process, renewed in time; what others let lapse is adopted.
    async fn keep_lease(&self) -> Result<()> {
        tasks::hold_lease(&self.0, &store::owner_lease(&self.0.owner)).await?;
        let weak = Arc::downgrade(&self.0);
        let pause = self.0.options.lease / 3;
        self.spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(flows) = weak.upgrade().map(Flows) else { return };
                let kept = async {
                    tasks::hold_lease(&flows.0, &store::owner_lease(&flows.0.owner)).await?;
                    flows.hear_cancellations().await?;
                    flows.adopt().await
                };
                if let Err(error) = kept.await {
                    tracing::warn!(?error, "cannot renew the lease of this process");
                }
            }
        });
        Ok(())
    }

    /// Another process may have asked flows of this one to stop.
    async fn hear_cancellations(&self) -> Result<()> {
        let owner = self.0.owner.clone();
        let asked = self.0.db.read(move |tx| store::cancelled_of(tx, &owner)).await?;
        let running = self.0.running.lock();
        for ask in asked.iter().filter_map(|id| running.get(id)) {
            ask.send_replace(true);
        }
        Ok(())
    }

    /// Before a process ends that was asked to: others go on with its flows at once, not behind its lease.
    pub async fn leave(&self) {
        self.stop();
        let owner = self.0.owner.clone();
        if self.0.db.is_postgres()
            && let Err(error) = self.0.db.write(move |tx| store::give_up_leases(tx, &owner)).await
        {
            tracing::warn!(%error, "the leases of this process end by themselves");
        }
    }

    fn run_after_commit(&self, tx: &mut Tx, row: FlowRow) {
        let weak: Weak<Shared> = Arc::downgrade(&self.0);
        tx.after_commit(move || {
            if let Some(shared) = weak.upgrade() {
                let flows = Flows(shared);
                let running = runner::Running::begin(&flows, &row);
                flows.spawn(base::background(runner::run(flows.clone(), row, running)));
            }
        });
    }

    /// Also from the threads on which a database acknowledges its commits.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.tasks.lock();
        if !tasks.stopped {
            while tasks.set.try_join_next().is_some() {}
            tasks.set.spawn_on(task, &self.0.runtime);
        }
    }
}
