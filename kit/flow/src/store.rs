//! The tables of flows and leases, and the questions asked of them.

use crate::trail::{self, Trail};
use base::{Context, Error, Result, Timestamp};
use db::{AsJson, List, Resource, Table, Tx, params, sql};
use std::collections::BTreeSet;

/// To be opened along with the service's own tables.
pub const TABLES: &[&Table] = &[FlowRow::TABLE, Lease::TABLE, Trail::TABLE];

/// A flow that has not ended. Ended ones are deleted: what they did is told by the service's own nouns and, for a
/// while, by their trails.
#[derive(Clone, Debug, Resource)]
#[resource(table = "flow", unique = "subject, number")]
pub(crate) struct FlowRow {
    #[field(key)]
    pub id: String,
    pub kind: String,
    pub subject: String,
    /// The order within the subject.
    pub number: i64,
    /// The flow's own struct as JSON text.
    pub state: String,
    pub context: AsJson<Context>,
    /// The step to run next, or to undo next.
    pub step: i64,
    pub undoing: bool,
    pub cancelled: bool,
    pub cancellable: bool,
    /// Why it is undone.
    pub error: Option<AsJson<Error>>,
    /// The process that runs it; none while it waits for its turn.
    pub owner: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "flow_lease")]
pub(crate) struct Lease {
    #[field(key)]
    pub name: String,
    pub owner: String,
    pub expires_at: Timestamp,
}

pub fn next_number(tx: &mut Tx, subject: &str) -> Result<i64> {
    let row =
        tx.one(sql!("SELECT COALESCE(MAX(number), 0) + 1 FROM flow WHERE subject = $1"), params![subject])?;
    row.ok_or_else(|| Error::internal("flow: no number"))?.at(0)
}

/// Marks the flows of a subject that may be stopped. Answers their ids.
pub fn cancel(tx: &mut Tx, subject: &str) -> Result<Vec<String>> {
    let marked = tx.query(
        sql!("UPDATE flow SET cancelled = TRUE WHERE subject = $1 AND cancellable RETURNING id"),
        params![subject],
    )?;
    marked.iter().map(|row| row.at(0)).collect()
}

/// Records where a flow stands. None: another process has taken it over. Else whether it is to stop.
pub fn record(tx: &mut Tx, row: &FlowRow) -> Result<Option<bool>> {
    let kept = tx.one(
        sql!(
            "UPDATE flow SET state = $2, step = $3, undoing = $4, error = $5 WHERE id = $1 AND owner = $6
             RETURNING cancelled"
        ),
        params![row.id, row.state, row.step, row.undoing, row.error, row.owner],
    )?;
    kept.map(|kept| kept.at(0)).transpose()
}

/// Deletes a flow that has ended. False: another process has taken it over.
pub fn end(tx: &mut Tx, row: &FlowRow, now: Timestamp) -> Result<bool> {
    let deleted =
        tx.execute(sql!("DELETE FROM flow WHERE id = $1 AND owner = $2"), params![row.id, row.owner])?;
    if deleted == 0 {
        return Ok(false);
    }
    trail::end(tx, row, now)?;
    Ok(true)
}

/// The name of a process's own lease.
pub fn owner_lease(owner: &str) -> String {
    format!("process {owner}")
}

/// Takes the next flow of a subject, if it waits.
pub fn take_next(tx: &mut Tx, subject: &str, owner: &str) -> Result<Option<FlowRow>> {
    let first = tx.list::<FlowRow>(&List::all().eq("subject", subject).sort("number", ASC).limit(1))?;
    let Some(mut row) = first.into_iter().next().filter(|row| row.owner.is_none()) else { return Ok(None) };
    row.owner = Some(owner.into());
    tx.execute(sql!("UPDATE flow SET owner = $2 WHERE id = $1"), params![row.id, owner])?;
    Ok(Some(row))
}

const ASC: db::Direction = db::Direction::Asc;

/// Takes the first flow of each subject that no living process owns.
pub fn adopt(
    tx: &mut Tx,
    owner: &str,
    runs_here: impl Fn(&str) -> bool,
    shared_database: bool,
    now: Timestamp,
) -> Result<Vec<FlowRow>> {
    // On a database file of our own, whoever owned them is gone.
    let alive = if shared_database { living(tx, now)? } else { BTreeSet::new() };
    let is_free = |row: &FlowRow| match &row.owner {
        None => true,
        // Ours and not under way: the database was gone when it was to be recorded.
        Some(other) if other == owner => !runs_here(&row.id),
        Some(other) => !alive.contains(other),
    };
    let firsts = tx.query(
        sql!(
            "SELECT id FROM flow f
             WHERE number = (SELECT MIN(number) FROM flow o WHERE o.subject = f.subject) ORDER BY created_at, id"
        ),
        &[],
    )?;
    let mut adopted = Vec::new();
    for first in firsts {
        let Some(mut row) = tx.find::<FlowRow>(&first.at::<String>(0)?)?.filter(is_free) else { continue };
        row.owner = Some(owner.into());
        tx.execute(sql!("UPDATE flow SET owner = $2 WHERE id = $1"), params![row.id, owner])?;
        adopted.push(row);
    }
    Ok(adopted)
}

/// Processes whose own lease holds until later than this. A task's lease outlives its process for as long as the task
/// rests.
pub fn living(tx: &mut Tx, after: Timestamp) -> Result<BTreeSet<String>> {
    let leases = tx.list::<Lease>(&List::all())?.into_iter();
    let own = leases.filter(|lease| lease.expires_at > after && lease.name == owner_lease(&lease.owner));
    Ok(own.map(|lease| lease.owner).collect())
}

/// Flows of a process that were asked to stop.
pub fn cancelled_of(tx: &mut Tx, owner: &str) -> Result<Vec<String>> {
    let asked = tx.query(sql!("SELECT id FROM flow WHERE owner = $1 AND cancelled"), params![owner])?;
    asked.iter().map(|row| row.at(0)).collect()
}

/// Whether a flow goes on, and with whom.
pub fn owner_of(tx: &mut Tx, id: &str) -> Result<Option<Option<String>>> {
    let row = tx.one(sql!("SELECT owner FROM flow WHERE id = $1"), params![id])?;
    row.map(|row| row.at(0)).transpose()
}

/// Others may have what this process had, at once.
pub fn give_up_leases(tx: &mut Tx, owner: &str) -> Result<()> {
    tx.execute(sql!("DELETE FROM flow_lease WHERE owner = $1"), params![owner]).map(drop)
}

/// Takes or renews a lease. False: somebody else holds it.
pub fn hold_lease(tx: &mut Tx, wanted: &Lease, now: Timestamp) -> Result<bool> {
    let held = tx.execute(
        sql!(
            "INSERT INTO flow_lease (name, owner, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
             WHERE flow_lease.owner = excluded.owner OR flow_lease.expires_at < $4"
        ),
        params![wanted.name, wanted.owner, wanted.expires_at, now],
    )?;
    Ok(held > 0)
}

/// Leases of processes that are long gone are not kept for ever.
pub fn forget_leases(tx: &mut Tx, before: Timestamp) -> Result<()> {
    tx.execute(sql!("DELETE FROM flow_lease WHERE expires_at < $1"), params![before]).map(drop)
}
