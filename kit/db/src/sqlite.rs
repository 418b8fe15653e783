//! SQLite: one writer thread that groups transactions into one commit, parallel readers, WAL.

use crate::{Glimpse, Options, Row, Tx, Value, constraint, glimpse::Seen, tx::EngineTx};
use base::{Error, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, types::ValueRef};
use std::{path::PathBuf, sync::Arc, sync::mpsc, thread};
use tokio::sync::{Semaphore, oneshot};

/// Transactions that share one commit at most; bounds the wait of the first of them.
const GROUP_MAX: usize = 128;
/// Of those that wait, background work's at most: enough to fill a commit, few enough to stand behind.
pub(crate) const BACKGROUND_WRITES_MAX: usize = 32;
const STATEMENTS_CACHED: usize = 256;
/// So much of a file is read where the machine has it already: a connection's own cache forgets all of it whenever
/// another one writes.
const MAPPED_BYTES_MAX: i64 = 256 << 20;

pub(crate) struct Sqlite {
    writer: mpsc::Sender<Job>,
    readers: Arc<Readers>,
}

/// Runs in the writer's transaction and leaves what is to be done once the commit's outcome is known.
type Job = Box<dyn FnOnce(&Connection) -> Acknowledge + Send>;
type Acknowledge = Box<dyn FnOnce(Result<()>) + Send>;

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Sqlite {
    pub fn open(path: &str, options: &Options) -> Result<Self> {
        let connection = connect(path.as_ref(), false)?;
        let synchronous = if options.durable { "FULL" } else { "OFF" };
        connection.pragma_update(None, "journal_mode", "WAL").map_err(error)?;
        connection.pragma_update(None, "synchronous", synchronous).map_err(error)?;
        let (writer, jobs) = mpsc::channel::<Job>();
        thread::Builder::new().name("sqlite-writer".into()).spawn(move || write_loop(&connection, &jobs))?;
        let readers = Readers {
            path: path.into(),
            idle: Mutex::default(),
            places: Semaphore::new(options.readers_max.max(1)),
        };
        Ok(Self { writer, readers: Arc::new(readers) })
    }

    pub async fn read<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let readers = self.readers.clone();
        let _place = self.readers.places.acquire().await.map_err(|_| Error::internal("readers closed"))?;
        let reading = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().pop();
            let connection = idle.map_or_else(|| connect(&readers.path, true), Ok)?;
            connection.execute_batch("BEGIN").map_err(error)?;
            let answer = run(&connection, &mut work).map(|(answer, _)| answer);
            connection.execute_batch("ROLLBACK").map_err(error)?;
            readers.idle.lock().push(connection);
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
        let job: Job = Box::new(move |connection| {
            let outcome = in_savepoint(connection, &mut work);
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
        let gone = |_| Error::internal("the database writer is gone");
        self.writer.send(job).map_err(|_| gone(()))?;
        told.await.map_err(|_| gone(()))?
    }
}

fn connect(path: &std::path::Path, read_only: bool) -> Result<Connection> {
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
            "PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON; PRAGMA case_sensitive_like = ON;",
        )
        .map_err(error)?;
    Ok(connection)
}

fn write_loop(connection: &Connection, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        if let Err(e) = connection.execute_batch("BEGIN IMMEDIATE") {
            tracing::error!(error = %e, "sqlite: cannot begin");
            // Without a transaction the job must not run; its caller learns that the writer failed.
            drop(first);
            continue;
        }
        let mut acknowledgements = vec![first(connection)];
        while acknowledgements.len() < GROUP_MAX {
            let Ok(next) = jobs.try_recv() else { break };
            acknowledgements.push(next(connection));
        }
        let committed = connection.execute_batch("COMMIT").map_err(error);
        if committed.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        acknowledgements.into_iter().for_each(|acknowledge| acknowledge(committed.clone()));
    }
}

type AfterCommit = Vec<Box<dyn FnOnce() + Send>>;

fn in_savepoint<T>(
    connection: &Connection,
    work: &mut impl FnMut(&mut Tx) -> Result<T>,
) -> Result<(T, AfterCommit)> {
    connection.prepare_cached("SAVEPOINT one").and_then(|mut s| s.execute([])).map_err(error)?;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(connection, work)))
        .unwrap_or_else(|_| Err(Error::internal("a transaction panicked")));
    if outcome.is_err() {
        connection.execute_batch("ROLLBACK TO one").map_err(error)?;
    }
    connection.prepare_cached("RELEASE one").and_then(|mut s| s.execute([])).map_err(error)?;
    outcome
}

fn run<T>(connection: &Connection, work: &mut impl FnMut(&mut Tx) -> Result<T>) -> Result<(T, AfterCommit)> {
    let mut tx = Tx { engine: EngineTx::Sqlite(SqliteTx { connection }), after_commit: Vec::new() };
    let answer = work(&mut tx)?;
    Ok((answer, tx.after_commit))
}

pub(crate) struct SqliteTx<'a> {
    connection: &'a Connection,
}

impl SqliteTx<'_> {
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        let mut statement = self.connection.prepare_cached(&numbered(sql)).map_err(error)?;
        bind(&mut statement, params)?;
        let columns: Arc<[String]> = statement.column_names().into_iter().map(String::from).collect();
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
        let mut statement = self.connection.prepare_cached(&numbered(sql)).map_err(error)?;
        bind(&mut statement, params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(error)? {
            visit(&Glimpse(Seen::Sqlite(row)))?;
        }
        Ok(())
    }

    pub fn prepare(&mut self, sql: &str) -> Result<()> {
        self.connection.prepare_cached(&numbered(sql)).map(drop).map_err(error)
    }

    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        let mut statement = self.connection.prepare_cached(&numbered(sql)).map_err(error)?;
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
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

pub(crate) fn error(cause: rusqlite::Error) -> Error {
    if cause.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        return constraint(cause.to_string());
    }
    Error::internal(format!("sqlite: {cause}")).cause(cause)
}
