//! SQLite: one writer thread that groups transactions into one commit, parallel readers, WAL.

use crate::{
    Glimpse, Options, Row, Tx, Value, constraint,
    glimpse::Seen,
    plan,
    queue::{Acknowledge, Job, Queue},
    tx::EngineTx,
};
use base::{Error, Result};
use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, types::ValueRef};
use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, oneshot};

/// Transactions that share one commit at most, and how long they may take before it: both bound the wait of the first
/// of them, and of the user who comes behind.
const GROUP_MAX: usize = 128;
const GROUP_TIME: Duration = Duration::from_millis(4);
/// Of those that wait, background work's at most: enough to fill a commit, few enough to stand behind.
pub(crate) const BACKGROUND_WRITES_MAX: usize = 32;
const STATEMENTS_CACHED: usize = 512;
/// So much of a file is read where the machine has it already: a connection's own cache forgets all of it whenever
/// another one writes.
const MAPPED_BYTES_MAX: i64 = 256 << 20;

/// After so many changed rows another thread brings the log of changes into the file, while the writer goes on. He does
/// it himself, and everybody waits, only when the log has so many pages all the same.
const CHECKPOINT_CHANGES: u64 = 1000;
const CHECKPOINT_PAGES_MAX: u32 = 16_000;

pub(crate) struct Sqlite {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connected>>,
    places: Semaphore,
}

/// A connection, and what it knows of the statements it has run.
pub(crate) struct Connected {
    connection: Connection,
    columns: RefCell<HashMap<String, Arc<[String]>>>,
}

impl Sqlite {
    pub fn open(path: &str, options: &Options) -> Result<Self> {
        let writer = connect(path.as_ref(), false)?;
        let synchronous = if options.durable { "FULL" } else { "OFF" };
        let pragma = |connected: &Connected, name: &str, value: &dyn rusqlite::ToSql| {
            connected.connection.pragma_update(None, name, value).map_err(error)
        };
        pragma(&writer, "journal_mode", &"WAL")?;
        pragma(&writer, "synchronous", &synchronous)?;
        pragma(&writer, "wal_autocheckpoint", &CHECKPOINT_PAGES_MAX)?;
        let checkpointer = connect(path.as_ref(), false)?;
        pragma(&checkpointer, "synchronous", &synchronous)?;
        let (tell, told) = mpsc::channel();
        let named = |name: &str| thread::Builder::new().name(name.into());
        named("sqlite-checkpoint").spawn(move || checkpoint_loop(&checkpointer, &told))?;
        let queue = Arc::new(Queue::default());
        let jobs = queue.clone();
        named("sqlite-writer").spawn(move || write_loop(&writer, &jobs, &tell))?;
        let readers = Readers {
            path: path.into(),
            idle: Mutex::default(),
            places: Semaphore::new(options.readers_max.max(1)),
        };
        Ok(Self { queue, readers: Arc::new(readers) })
    }

    pub async fn read<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let readers = self.readers.clone();
        let _place = self.readers.places.acquire().await.map_err(|_| Error::internal("readers closed"))?;
        let reading = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().pop();
            let connected = idle.map_or_else(|| connect(&readers.path, true), Ok)?;
            connected.say("BEGIN")?;
            let answer = run(&connected, &mut work).map(|(answer, _)| answer);
            connected.say("ROLLBACK")?;
            readers.idle.lock().push(connected);
            answer
        });
        match reading.await {
            Ok(answer) => answer,
            // The runtime ends before it could be read: that says nothing of the data, and whoever asked ends too. An
            // error would be taken for the outcome of what he does, and the writer might yet record it.
            Err(gone) if gone.is_cancelled() => std::future::pending().await,
            Err(panicked) => Err(Error::internal(format!("reader: {panicked}"))),
        }
    }

    pub async fn write<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |connected| {
            let outcome = in_savepoint(connected, &mut work);
            Box::new(move |committed| {
                let answer = match (outcome, committed) {
                    (Ok((answer, after_commit)), Ok(())) => {
                        after_commit.into_iter().for_each(|work| work());
                        Ok(answer)
                    }
                    (Err(e), _) | (_, Err(e)) => Err(e),
                };
                // A caller that went away does not undo what was committed.
                let _ = tell.send(answer);
            })
        });
        self.queue.push(job, base::is_background());
        told.await.map_err(|_| Error::internal("the database writer is gone"))?
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queue.close();
    }
}

pub(crate) fn connect(path: &Path, read_only: bool) -> Result<Connected> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let connection =
        Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(error)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.pragma_update(None, "mmap_size", MAPPED_BYTES_MAX).map_err(error)?;
    connection
        .execute_batch(
            "PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON; PRAGMA case_sensitive_like = ON;
             PRAGMA temp_store = MEMORY;",
        )
        .map_err(error)?;
    Ok(Connected { connection, columns: RefCell::default() })
}

impl Connected {
    /// One of the few statements without parameters and answer that stand around all others.
    fn say(&self, sql: &str) -> Result<()> {
        self.connection.prepare_cached(sql).and_then(|mut s| s.raw_execute()).map(drop).map_err(error)
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>> {
        if plan::is_watched() {
            plan::look(&self.connection, sql);
        }
        self.connection.prepare_cached(&numbered(sql)).map_err(error)
    }

    /// The names of what a statement answers: asked of SQLite once.
    fn columns(&self, sql: &str, statement: &CachedStatement) -> Arc<[String]> {
        let mut known = self.columns.borrow_mut();
        if let Some(columns) = known.get(sql).filter(|columns| columns.len() == statement.column_count()) {
            return columns.clone();
        }
        if known.len() >= 2 * STATEMENTS_CACHED {
            known.clear();
        }
        let columns: Arc<[String]> = statement.column_names().into_iter().map(String::from).collect();
        known.insert(sql.into(), columns.clone());
        columns
    }
}

fn write_loop(connected: &Connected, jobs: &Queue, tell: &mpsc::Sender<()>) {
    let mut told_at = 0;
    while let Some(first) = jobs.first() {
        if let Err(e) = connected.say("BEGIN IMMEDIATE") {
            tracing::error!(error = %e, "sqlite: cannot begin");
            // Without a transaction the job must not run; its caller learns that the writer failed.
            drop(first);
            continue;
        }
        let since = Instant::now();
        let mut acknowledgements = vec![first(connected)];
        while acknowledgements.len() < GROUP_MAX && since.elapsed() < GROUP_TIME {
            let Some(next) = jobs.next() else { break };
            acknowledgements.push(next(connected));
        }
        let committed = connected.say("COMMIT");
        if committed.is_err() && !connected.connection.is_autocommit() {
            let _ = connected.say("ROLLBACK");
        }
        acknowledgements.into_iter().for_each(|acknowledge: Acknowledge| acknowledge(committed.clone()));
        let changes = connected.connection.total_changes();
        if changes - told_at >= CHECKPOINT_CHANGES {
            told_at = changes;
            // Gone only with the process.
            let _ = tell.send(());
        }
    }
}

/// Ends with the writer.
fn checkpoint_loop(connected: &Connected, told: &mpsc::Receiver<()>) {
    while told.recv().is_ok() {
        while told.try_recv().is_ok() {}
        let done = connected.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(%error, "sqlite: the log is not brought into the file; the writer does it later");
        }
    }
}

type AfterCommit = Vec<Box<dyn FnOnce() + Send>>;

fn in_savepoint<T>(
    connected: &Connected,
    work: &mut impl FnMut(&mut Tx) -> Result<T>,
) -> Result<(T, AfterCommit)> {
    connected.say("SAVEPOINT one")?;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(connected, work)))
        .unwrap_or_else(|_| Err(Error::internal("a transaction panicked")));
    if outcome.is_err() {
        connected.say("ROLLBACK TO one")?;
    }
    connected.say("RELEASE one")?;
    outcome
}

fn run<T>(connected: &Connected, work: &mut impl FnMut(&mut Tx) -> Result<T>) -> Result<(T, AfterCommit)> {
    let mut tx = Tx { engine: EngineTx::Sqlite(SqliteTx { connected }), after_commit: Vec::new() };
    let answer = work(&mut tx)?;
    Ok((answer, tx.after_commit))
}

pub(crate) struct SqliteTx<'a> {
    connected: &'a Connected,
}

impl SqliteTx<'_> {
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        let mut statement = self.connected.statement(sql)?;
        bind(&mut statement, params)?;
        let columns = self.connected.columns(sql, &statement);
        let width = columns.len();
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(error)? {
            let values =
                (0..width).map(|n| row.get_ref(n).map(value)).collect::<Result<_, _>>().map_err(error)?;
            found.push(Row { columns: columns.clone(), values });
        }
        Ok(found)
    }

    pub fn each(
        &mut self,
        sql: &str,
        params: &[Value],
        mut visit: impl FnMut(&Glimpse) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.connected.statement(sql)?;
        bind(&mut statement, params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(error)? {
            visit(&Glimpse(Seen::Sqlite(row)))?;
        }
        Ok(())
    }

    pub fn prepare(&mut self, sql: &str) -> Result<()> {
        self.connected.connection.prepare_cached(&numbered(sql)).map(drop).map_err(error)
    }

    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        let mut statement = self.connected.statement(sql)?;
        bind(&mut statement, params)?;
        statement.raw_execute().map(|n| n as u64).map_err(error)
    }
}

/// `$1` is a *named* parameter to SQLite, numbered by first appearance; `?1` is what PostgreSQL means by it.
fn numbered(sql: &str) -> String {
    sql.replace('$', "?")
}

fn bind(statement: &mut rusqlite::CachedStatement, params: &[Value]) -> Result<()> {
    for (n, param) in params.iter().enumerate() {
        match param {
            Value::Null => statement.raw_bind_parameter(n + 1, rusqlite::types::Null),
            Value::Bool(b) => statement.raw_bind_parameter(n + 1, b),
            Value::Int(i) => statement.raw_bind_parameter(n + 1, i),
            Value::Real(x) => statement.raw_bind_parameter(n + 1, x),
            Value::Text(text) => statement.raw_bind_parameter(n + 1, text),
            Value::Blob(bytes) => statement.raw_bind_parameter(n + 1, bytes),
        }
        .map_err(error)?;
    }
    Ok(())
}

fn value(value: ValueRef) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Int(n),
        ValueRef::Real(x) => Value::Real(x),
        ValueRef::Text(text) => Value::Text(match std::str::from_utf8(text) {
            Ok(text) => text.into(),
            Err(_) => String::from_utf8_lossy(text).into_owned(),
        }),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

pub(crate) fn error(cause: rusqlite::Error) -> Error {
    if cause.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        return constraint(cause.to_string());
    }
    Error::internal(format!("sqlite: {cause}")).cause(cause)
}
