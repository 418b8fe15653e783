//! Takes one flow from where it stands to its end: forward, or back when a step failed for good.

use crate::{
    Flows, cancelled,
    kind::{Effect, Kind, StepFacts},
    store::{self, FlowRow},
    torture::Trouble,
    trail,
};
use base::{Error, ErrorKind, Result, metrics, waits};
use db::AsJson;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tracing::Instrument;

/// A step that takes longer than this says what it waits for.
const NOTED_EVERY: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Who was not there is looked for again soon: mostly he is just starting.
const ABSENCE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why a flow is left where it stands.
enum Left {
    /// Another process has it now, or this one is stopped.
    Lost,
    /// The database does not take its record.
    Broken(Error),
}

impl From<Error> for Left {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// Counts the flow as running and lets it hear that it shall stop.
pub(crate) struct Running {
    flows: Flows,
    id: String,
    stop: watch::Receiver<bool>,
}

impl Running {
    pub fn begin(flows: &Flows, row: &FlowRow) -> Self {
        let (ask, stop) = watch::channel(row.cancelled);
        flows.0.running.lock().insert(row.id.clone(), ask);
        flows.0.running_count.send_modify(|count| *count += 1);
        Self { flows: flows.clone(), id: row.id.clone(), stop }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.flows.0.running.lock().remove(&self.id);
        self.flows.0.running_count.send_modify(|count| *count -= 1);
    }
}

pub(crate) async fn run(flows: Flows, mut row: FlowRow, mut running: Running) {
    let Some(kind) = flows.0.kinds.read().get(row.kind.as_str()).cloned() else {
        tracing::error!(flow = row.id, kind = row.kind, "no such kind of flow: left as it is");
        return;
    };
    let span = tracing::info_span!("flow", kind = row.kind, request_id = row.context.request_id);
    match to_the_end(&flows, kind.as_ref(), &mut row, &mut running.stop).instrument(span).await {
        Ok(()) => {
            let waiter = flows.0.waiters.lock().remove(&row.id);
            let outcome = row.error.map_or(Ok(()), |error| Err(error.0));
            // Mostly nobody waits.
            let _ = waiter.map(|waiter| waiter.send(outcome));
        }
        Err(Left::Lost) => {}
        Err(Left::Broken(error)) => {
            tracing::error!(flow = row.id, kind = row.kind, subject = row.subject, ?error, "left as it is");
        }
    }
}

async fn to_the_end(
    flows: &Flows,
    kind: &dyn Kind,
    row: &mut FlowRow,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Left> {
    while !row.undoing {
        let Some(step) = kind.step(row.step as usize) else { return end(flows, row, Effect::none()).await };
        match forward(flows, kind, row, step, stop).await {
            Ok(()) => {}
            Err(Failure::Left(left)) => return Err(left),
            Err(Failure::Step(error)) => {
                let (flow, subject) = (&row.id, &row.subject);
                tracing::warn!(flow, kind = row.kind, subject, step = step.name, ?error, "failed: undoing");
                row.undoing = true;
                row.error = Some(AsJson(error));
                let (id, name) = (row.id.clone(), step.name);
                let turned = Effect::write(move |tx| trail::failed_at(tx, &id, name));
                record(flows, row, turned).await?;
            }
        }
        if !row.undoing && kind.step(row.step as usize).is_none() {
            return Ok(());
        }
    }
    while row.step >= 0 {
        if let Some(step) = kind.step(row.step as usize).filter(|step| step.has_undo) {
            backward(flows, kind, row, step).await?;
        } else {
            row.step -= 1;
        }
    }
    fail(flows, row).await
}

enum Failure {
    /// The step's own, for good.
    Step(Error),
    Left(Left),
}

impl From<Left> for Failure {
    fn from(left: Left) -> Self {
        Self::Left(left)
    }
}

/// Runs a step and records it; the record of the last one also ends the flow.
async fn forward(
    flows: &Flows,
    kind: &dyn Kind,
    row: &mut FlowRow,
    step: StepFacts,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Failure> {
    let (mut attempt, since) = (1, Instant::now());
    loop {
        if *stop.borrow() && row.cancellable {
            return Err(Failure::Step(cancelled()));
        }
        let tried = tokio::select! {
            biased;
            () = asked_to_stop(stop), if step.interruptible && row.cancellable => {
                return Err(Failure::Step(cancelled()));
            }
            tried = attempt_step(flows, kind, row, step, false) => tried?,
        };
        let outcome = match tried {
            Ok((state, effect)) => {
                let mut done = FlowRow { state, step: row.step + 1, ..row.clone() };
                let recorded = match kind.step(done.step as usize) {
                    Some(_) => record(flows, &mut done, effect).await,
                    None => end(flows, &done, effect).await,
                };
                match recorded {
                    Ok(()) => {
                        *row = done;
                        after(flows, row, step, false)?;
                        return Ok(());
                    }
                    Err(Left::Lost) => return Err(Left::Lost.into()),
                    // The effect says no, or the database: the step is not done.
                    Err(Left::Broken(error)) => error,
                }
            }
            Err(error) => error,
        };
        if !is_worth_another(flows, &outcome, attempt, since) {
            return Err(Failure::Step(outcome));
        }
        tracing::info!(flow = row.id, kind = row.kind, step = step.name, attempt, error = ?outcome, "again");
        note_trouble(flows, row, step, attempt, &outcome).await;
        tokio::select! {
            () = asked_to_stop(stop) => {}
            () = tokio::time::sleep(pause(flows, attempt, &outcome)) => {}
        }
        attempt += 1;
    }
}

fn is_worth_another(flows: &Flows, error: &Error, attempt: u32, since: Instant) -> bool {
    let options = &flows.0.options;
    let awaited = error.is(ErrorKind::Unavailable) && since.elapsed() < options.absence_max;
    awaited || error.is_transient() && attempt < options.attempts_max
}

/// Undoes a step. One that cannot be undone is logged and passed: what is left must not keep the rest.
async fn backward(flows: &Flows, kind: &dyn Kind, row: &mut FlowRow, step: StepFacts) -> Result<(), Left> {
    let (mut attempt, since) = (1, Instant::now());
    loop {
        let error = match attempt_step(flows, kind, row, step, true).await? {
            Ok((state, effect)) => {
                let mut done = FlowRow { state, step: row.step - 1, ..row.clone() };
                match record(flows, &mut done, effect).await {
                    Ok(()) => {
                        *row = done;
                        return after(flows, row, step, true);
                    }
                    Err(Left::Lost) => return Err(Left::Lost),
                    Err(Left::Broken(error)) => error,
                }
            }
            Err(error) => error,
        };
        if attempt > flows.0.options.attempts_max && !is_worth_another(flows, &error, attempt, since) {
            tracing::error!(flow = row.id, kind = row.kind, step = step.name, ?error, "cannot be undone");
            row.step -= 1;
            return record(flows, row, Effect::none()).await;
        }
        tracing::warn!(flow = row.id, kind = row.kind, step = step.name, attempt, ?error, "undo again");
        note_trouble(flows, row, step, attempt, &error).await;
        tokio::time::sleep(pause(flows, attempt, &error)).await;
        attempt += 1;
    }
}

/// Counts a step as running, however it ends.
struct Counted(metrics::Gauge);

impl Counted {
    fn begin(kind: &str, step: &str, undo: bool) -> Self {
        let gauge = metrics::FLOWS.with_label_values(&[kind, step, way(undo)]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn way(undo: bool) -> &'static str {
    if undo { "undo" } else { "forward" }
}

type Tried = Result<(String, Effect)>;

async fn attempt_step(
    flows: &Flows,
    kind: &dyn Kind,
    row: &FlowRow,
    step: StepFacts,
    undo: bool,
) -> Result<Tried, Left> {
    let Ok(_place) = flows.0.places.acquire().await else { return Err(Left::Lost) };
    let run = async || {
        let _counted = Counted::begin(&row.kind, step.name, undo);
        let start = std::time::Instant::now();
        let done = kind.run(row.step as usize, undo, &row.context, &row.state);
        let done = watched(flows, row, step, done).await;
        let outcome = metrics::outcome(&done);
        let of = metrics::STEPS.with_label_values(&[row.kind.as_str(), step.name, way(undo), &outcome]);
        of.observe(metrics::seconds_since(start));
        done
    };
    match flows.trouble_at(&row.kind, step.name, undo, false) {
        None | Some(Trouble::StopAfter) => Ok(run().await),
        Some(Trouble::FailBefore) => Ok(Err(Error::internal("torture: fails before the step"))),
        Some(Trouble::FailAfter) => {
            let _ = run().await;
            Ok(Err(Error::internal("torture: fails after the step")))
        }
        Some(Trouble::UnknownOutcome) => {
            let _ = run().await;
            Ok(Err(Error::timeout("torture: no answer from the step")))
        }
        Some(Trouble::Twice) => {
            let _ = run().await;
            Ok(run().await)
        }
        Some(Trouble::StopBeforeRecord) => {
            let _ = run().await;
            Err(Left::Lost)
        }
    }
}

/// Says now and then what a step waits for that takes long.
async fn watched<T>(flows: &Flows, row: &FlowRow, step: StepFacts, work: impl Future<Output = T>) -> T {
    let note = waits::Note::default();
    let work = waits::noting(note.clone(), work);
    tokio::pin!(work);
    let mut said = None;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(NOTED_EVERY) => {}
        }
        let text = Some(note.text());
        if text != said {
            said.clone_from(&text);
            let (id, now, name, what) = (row.id.clone(), flows.0.clock.now(), step.name, text.flatten());
            told(flows.0.db.write(move |tx| trail::waits(tx, &id, name, what.clone(), now)).await);
        }
    }
}

async fn note_trouble(flows: &Flows, row: &FlowRow, step: StepFacts, attempt: u32, error: &Error) {
    let (id, now, name, message) =
        (row.id.clone(), flows.0.clock.now(), step.name, error.message.to_string());
    let noted = flows.0.db.write(move |tx| trail::trouble(tx, &id, name, attempt + 1, &message, now));
    told(noted.await);
}

/// An operation does not fail because nobody could write down where it is.
fn told(noted: Result<()>) {
    if let Err(error) = noted {
        tracing::debug!(%error, "the trail is not kept");
    }
}

fn after(flows: &Flows, row: &FlowRow, step: StepFacts, undo: bool) -> Result<(), Left> {
    match flows.trouble_at(&row.kind, step.name, undo, true) {
        Some(_) => Err(Left::Lost),
        None => Ok(()),
    }
}

async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn pause(flows: &Flows, attempt: u32, error: &Error) -> Duration {
    let longest = if error.is(ErrorKind::Unavailable) { ABSENCE_PAUSE_MAX } else { PAUSE_MAX };
    flows.0.options.pause.saturating_mul(1 << (attempt - 1).min(10)).min(longest)
}

async fn record(flows: &Flows, row: &mut FlowRow, mut effect: Effect) -> Result<(), Left> {
    let wanted = row.clone();
    let kept = flows
        .0
        .db
        .write(move |tx| {
            let kept = store::record(tx, &wanted)?;
            if kept.is_some() {
                effect.apply(tx)?;
            }
            Ok(kept)
        })
        .await?;
    row.cancelled = kept.ok_or(Left::Lost)?;
    if row.cancelled
        && let Some(ask) = flows.0.running.lock().get(&row.id)
    {
        ask.send_replace(true);
    }
    Ok(())
}

async fn end(flows: &Flows, row: &FlowRow, mut effect: Effect) -> Result<(), Left> {
    finish(flows, row, move |tx| effect.apply(tx)).await
}

/// Tells the user of the failure in the transaction that ends the flow.
async fn fail(flows: &Flows, row: &FlowRow) -> Result<(), Left> {
    let error = row.error.clone().map_or_else(|| Error::internal("flow: no error"), |error| error.0);
    let kind: Option<Arc<dyn Kind>> = flows.0.kinds.read().get(row.kind.as_str()).cloned();
    let failed = row.clone();
    finish(flows, row, move |tx| match &kind {
        Some(kind) => kind.failed(tx, &failed.context, &failed.state, &error),
        None => Ok(()),
    })
    .await
}

/// The last transaction of a flow, which lets the next of its subject begin.
async fn finish(
    flows: &Flows,
    row: &FlowRow,
    mut effect: impl FnMut(&mut db::Tx) -> Result<()> + Send + 'static,
) -> Result<(), Left> {
    let (ended, next) = (row.clone(), flows.clone());
    let now = flows.0.clock.now();
    let work = move |tx: &mut db::Tx| {
        if !store::end(tx, &ended, now)? {
            return Ok(false);
        }
        effect(tx)?;
        if let Some(row) = store::take_next(tx, &ended.subject, &next.0.owner)? {
            next.run_after_commit(tx, row);
        }
        Ok(true)
    };
    if flows.0.db.write(work).await? { Ok(()) } else { Err(Left::Lost) }
}
