//! Where operations are and what they wait for, and for a while how those ended that are over: what an operator asks
//! who was given a request's id.

use crate::store::{FlowRow, Lease, owner_lease};
use base::{Result, Timestamp};
use db::{Direction, List, Resource, Tx, params, sql};

/// The newest of so many are told.
const TOLD_MAX: u64 = 50;

/// What is kept of a flow beside itself. Written when it begins and ends, and when it does not get on.
#[derive(Clone, Debug, Resource)]
#[resource(table = "flow_trail", index = "request_id", index = "subject, started_at", index = "ended_at")]
pub(crate) struct Trail {
    #[field(key)]
    pub id: String,
    pub kind: String,
    pub subject: String,
    pub request_id: String,
    /// The names of its steps, in order.
    pub steps: Vec<String>,
    /// Where it runs, or ran.
    pub process: String,
    /// The step that it last had trouble with, waited in or ended with.
    pub step: Option<String>,
    pub attempt: i64,
    pub error: Option<String>,
    pub waits_for: Option<String>,
    pub noted_at: Option<Timestamp>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub failed: bool,
}

/// An operation as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: String,
    pub kind: String,
    /// Mostly the id of a server or a volume.
    pub subject: String,
    pub request_id: String,
    pub steps: Vec<String>,
    pub state: State,
    pub process: String,
    /// Of the step that is tried again.
    pub attempt: i64,
    pub error: Option<String>,
    pub waits_for: Option<String>,
    pub noted_at: Option<Timestamp>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Behind others of the same subject.
    Queued,
    Runs {
        step: String,
    },
    Undoes {
        step: String,
    },
    /// The process that ran it is gone; another one takes it over.
    Orphaned {
        step: String,
    },
    Done,
    /// And is undone.
    Failed {
        step: String,
    },
}

/// The operations of a request, or those of a server or volume; the oldest first. `shared`: with other processes.
pub fn find(tx: &mut Tx, id: &str, now: Timestamp, shared: bool) -> Result<Vec<Told>> {
    let newest = |column| List::all().eq(column, id).sort("started_at", Direction::Desc).limit(TOLD_MAX);
    let mut trails = tx.list::<Trail>(&newest("request_id"))?;
    trails.extend(tx.list::<Trail>(&newest("subject"))?);
    trails.reverse();
    trails.sort_by_key(|trail| trail.started_at);
    trails.into_iter().map(|trail| told(tx, trail, now, shared)).collect()
}

fn told(tx: &mut Tx, trail: Trail, now: Timestamp, shared: bool) -> Result<Told> {
    let row = tx.find::<FlowRow>(&trail.id)?;
    let last = trail.step.clone().unwrap_or_default();
    let state = match &row {
        None if trail.failed => State::Failed { step: last },
        None => State::Done,
        Some(row) => live(tx, row, &trail, shared.then_some(now))?,
    };
    // What it waited for in an earlier step is over.
    let at = match &state {
        State::Runs { step } | State::Undoes { step } | State::Orphaned { step } => Some(step),
        _ => None,
    };
    let current = at.is_some() && at == trail.step.as_ref();
    Ok(Told {
        id: trail.id,
        kind: trail.kind,
        subject: trail.subject,
        request_id: trail.request_id,
        steps: trail.steps,
        process: trail.process,
        attempt: if current { trail.attempt } else { 1 },
        waits_for: trail.waits_for.filter(|_| current),
        error: trail.error,
        noted_at: trail.noted_at,
        started_at: trail.started_at,
        ended_at: trail.ended_at,
        state,
    })
}

fn live(tx: &mut Tx, row: &FlowRow, trail: &Trail, now: Option<Timestamp>) -> Result<State> {
    let step = trail.steps.get(row.step.max(0) as usize).cloned().unwrap_or_default();
    let Some(owner) = &row.owner else { return Ok(State::Queued) };
    // Where nobody shares the database, nobody holds a lease.
    if let Some(now) = now {
        let lease = tx.find::<Lease>(&owner_lease(owner))?;
        if lease.is_none_or(|lease| lease.expires_at <= now) {
            return Ok(State::Orphaned { step });
        }
    }
    Ok(if row.undoing { State::Undoes { step } } else { State::Runs { step } })
}

pub(crate) fn begin(tx: &mut Tx, row: &FlowRow, steps: Vec<String>, process: &str) -> Result<()> {
    tx.insert(&Trail {
        id: row.id.clone(),
        kind: row.kind.clone(),
        subject: row.subject.clone(),
        request_id: row.context.request_id.clone(),
        steps,
        process: process.into(),
        step: None,
        attempt: 1,
        error: None,
        waits_for: None,
        noted_at: None,
        started_at: row.created_at,
        ended_at: None,
        failed: false,
    })
}

pub(crate) fn goes_on_in(tx: &mut Tx, id: &str, process: &str) -> Result<()> {
    tx.execute(sql!("UPDATE flow_trail SET process = $2 WHERE id = $1"), params![id, process]).map(drop)
}

/// A step failed and is tried again.
pub(crate) fn trouble(
    tx: &mut Tx,
    id: &str,
    step: &str,
    attempt: u32,
    error: &str,
    now: Timestamp,
) -> Result<()> {
    let sql = sql!(
        "UPDATE flow_trail SET step = $2, attempt = $3, error = $4, waits_for = NULL, noted_at = $5 WHERE id = $1"
    );
    tx.execute(sql, params![id, step, i64::from(attempt), error, now]).map(drop)
}

/// A step takes long.
pub(crate) fn waits(tx: &mut Tx, id: &str, step: &str, what: Option<String>, now: Timestamp) -> Result<()> {
    let sql = sql!(
        "UPDATE flow_trail SET attempt = CASE WHEN step = $2 THEN attempt ELSE 1 END, step = $2, waits_for = $3,
           noted_at = $4 WHERE id = $1"
    );
    tx.execute(sql, params![id, step, what, now]).map(drop)
}

pub(crate) fn end(tx: &mut Tx, row: &FlowRow, now: Timestamp) -> Result<()> {
    match &row.error {
        None => tx.execute(
            sql!("UPDATE flow_trail SET ended_at = $2, waits_for = NULL WHERE id = $1"),
            params![row.id, now],
        ),
        Some(error) => tx.execute(
            sql!("UPDATE flow_trail SET ended_at = $2, waits_for = NULL, failed = TRUE, error = $3 WHERE id = $1"),
            params![row.id, now, error.message.to_string()],
        ),
    }
    .map(drop)
}

/// The step at which it turned back.
pub(crate) fn failed_at(tx: &mut Tx, id: &str, step: &str) -> Result<()> {
    tx.execute(sql!("UPDATE flow_trail SET step = $2 WHERE id = $1"), params![id, step]).map(drop)
}

pub(crate) fn forget(tx: &mut Tx, before: Timestamp) -> Result<()> {
    tx.execute(sql!("DELETE FROM flow_trail WHERE ended_at < $1"), params![before]).map(drop)
}
