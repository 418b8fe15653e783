//! PostgreSQL: a pool of connections, serialisable transactions, repeated when the server asks for it.

use crate::{Options, Row, Tx, Value, constraint, tx::EngineTx};
use base::{Error, Result};
use bytes::BytesMut;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Transaction};
use parking_lot::Mutex;
use std::{
    error::Error as StdError,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;
use tokio_postgres::{
    Config, IsolationLevel, NoTls,
    error::SqlState,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};

pub(crate) const CONNECTIONS_MAX: usize = 16;
/// Under load many transactions want the same rows; each of them comes through in the end.
const REPEATED_WITHIN: Duration = Duration::from_secs(15);

/// A key that is still taken then was taken before.
const OVERTAKEN_MAX: u32 = 3;

pub(crate) struct Postgres {
    pool: Pool,
    /// Transactions of this process that collided come again one after the other: many at once would only collide again.
    again: Arc<Mutex<()>>,
}

impl Postgres {
    pub async fn open(options: &Options) -> Result<Self> {
        let config = config(&options.url)?;
        create_if_missing(&config).await?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, NoTls, recycling);
        let pool = Pool::builder(manager).max_size(CONNECTIONS_MAX).build();
        let pool = pool.map_err(|e| Error::internal(format!("postgresql pool: {e}")))?;
        Ok(Self { pool, again: Arc::default() })
    }

    pub async fn run<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
        read_only: bool,
    ) -> Result<T> {
        let (pool, again) = (self.pool.clone(), self.again.clone());
        let handle = Handle::current();
        let asker = Arc::new(());
        let asked = Arc::downgrade(&asker);
        let running = tokio::task::spawn_blocking(move || {
            let (mut repeats, mut overtaken, since) = (0, 0, Instant::now());
            loop {
                let turn = (repeats > 0).then(|| again.lock());
                match attempt(&handle, &pool, &mut work, read_only) {
                    // Another may have written the row after this one had looked for it: it looks again.
                    Err(e) if crate::is_constraint(&e) && overtaken < OVERTAKEN_MAX => overtaken += 1,
                    Err(e) if e.code.as_deref() == Some(REPEAT) && since.elapsed() < REPEATED_WITHIN => {
                        repeats += 1;
                        drop(turn);
                        std::thread::sleep(repeat_pause(repeats));
                    }
                    // Nothing was written: a server that restarts is waited for, while somebody waits for the answer.
                    Err(e)
                        if e.code.as_deref() == Some(LOST)
                            && since.elapsed() < LOST_WITHIN
                            && asked.strong_count() > 0 =>
                    {
                        std::thread::sleep(LOST_PAUSE);
                    }
                    outcome => break outcome,
                }
            }
        });
        let outcome = running.await;
        drop(asker);
        match outcome {
            Ok(outcome) => outcome,
            // The runtime ends, and whoever asked with it: as in SQLite's `read`.
            Err(gone) if gone.is_cancelled() => std::future::pending().await,
            Err(panicked) => Err(Error::internal(format!("transaction: {panicked}"))),
        }
    }
}

/// Neither end waits long for the other one when the network between them is cut: here the transaction is repeated,
/// there its locks are free for others. What the URL says itself holds.
fn config(url: &str) -> Result<Config> {
    let mut config: Config = url.parse().map_err(|e| Error::bad_request(format!("database url: {e}")))?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(SILENT_FOR);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENT_FOR);
        config.keepalives_idle(SILENT_FOR).keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
    }
    if config.get_options().is_none() {
        config.options(format!("-c idle_in_transaction_session_timeout={}", SILENT_FOR.as_millis()));
    }
    Ok(config)
}

/// Longer from time to time, and never the same for two that collided.
fn repeat_pause(repeats: u32) -> Duration {
    let dice = RandomState::new().build_hasher().finish();
    let most = (2_u64 << repeats.min(6)) * 1000;
    Duration::from_micros(500 + dice % most)
}

/// A database that is not there is made, if the user may.
async fn create_if_missing(config: &Config) -> Result<()> {
    match config.connect(NoTls).await {
        Ok(_) => return Ok(()),
        Err(cause) if cause.code() == Some(&SqlState::UNDEFINED_DATABASE) => {}
        Err(cause) => return Err(error(cause)),
    }
    let name = config.get_dbname().unwrap_or_default().replace('"', "");
    let mut server = config.clone();
    let (client, connection) = server.dbname("postgres").connect(NoTls).await.map_err(error)?;
    let serving = tokio::spawn(connection);
    let created = client.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await;
    serving.abort();
    match created {
        Ok(()) => tracing::info!(database = name, "created"),
        // Another process did it at the same moment.
        Err(cause) if matches!(cause.code(), Some(s) if *s == SqlState::DUPLICATE_DATABASE || *s == SqlState::UNIQUE_VIOLATION) =>
            {}
        Err(cause) => return Err(error(cause)),
    }
    Ok(())
}

fn attempt<T>(
    handle: &Handle,
    pool: &Pool,
    work: &mut impl FnMut(&mut Tx) -> Result<T>,
    read_only: bool,
) -> Result<T> {
    let unreachable = |e| Error::unavailable(format!("postgresql: {e}")).code(LOST);
    let mut client = handle.block_on(pool.get()).map_err(unreachable)?;
    let isolation = if read_only { IsolationLevel::RepeatableRead } else { IsolationLevel::Serializable };
    let begin = client.build_transaction().isolation_level(isolation).read_only(read_only).start();
    let transaction = handle.block_on(begin).map_err(error)?;
    let mut tx = Tx {
        engine: EngineTx::Postgres(PostgresTx { handle: handle.clone(), transaction }),
        after_commit: Vec::new(),
    };
    let answer = work(&mut tx)?;
    let Tx { engine: EngineTx::Postgres(postgres), after_commit } = tx else {
        return Err(Error::internal("not a postgresql transaction"));
    };
    handle.block_on(postgres.transaction.commit()).map_err(|cause| {
        let error = error(cause);
        match error.code.as_deref() {
            Some(LOST) if !read_only => Error::timeout("postgresql: whether it was written is not known"),
            _ => error,
        }
    })?;
    after_commit.into_iter().for_each(|work| work());
    Ok(answer)
}

pub(crate) struct PostgresTx<'a> {
    handle: Handle,
    transaction: Transaction<'a>,
}

impl PostgresTx<'_> {
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        let Self { handle, transaction } = self;
        handle.block_on(async {
            let statement = transaction.prepare_cached(sql).await.map_err(error)?;
            let columns: Arc<[String]> = statement.columns().iter().map(|c| c.name().to_string()).collect();
            let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
            let rows = transaction.query(&statement, &params).await.map_err(error)?;
            let width = columns.len();
            rows.iter()
                .map(|row| {
                    let values =
                        (0..width).map(|n| row.try_get(n)).collect::<Result<_, _>>().map_err(error)?;
                    Ok(Row { columns: columns.clone(), values })
                })
                .collect()
        })
    }

    pub fn prepare(&mut self, sql: &str) -> Result<()> {
        self.handle.block_on(self.transaction.prepare_cached(sql)).map(drop).map_err(error)
    }

    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        let Self { handle, transaction } = self;
        handle.block_on(async {
            let statement = transaction.prepare_cached(sql).await.map_err(error)?;
            let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
            transaction.execute(&statement, &params).await.map_err(error)
        })
    }
}

/// The server wants the whole transaction again: it collided with another one.
const REPEAT: &str = "db.repeat";
/// The connection is gone, and with it the transaction.
const LOST: &str = "db.lost";
const LOST_WITHIN: Duration = Duration::from_secs(10);
/// How long either end of a connection may say nothing in the middle of something.
const SILENT_FOR: Duration = Duration::from_secs(4);
const LOST_PAUSE: Duration = Duration::from_millis(100);

fn error(cause: tokio_postgres::Error) -> Error {
    let state = cause.code().cloned();
    match state {
        Some(s) if s == SqlState::T_R_SERIALIZATION_FAILURE || s == SqlState::T_R_DEADLOCK_DETECTED => {
            // Nothing was written, and who asks again may have more luck.
            Error::unavailable("transactions collided").code(REPEAT)
        }
        // The server shuts down, starts, or has ended this connection; classes 57P and 08, and a client that was silent.
        Some(s)
            if s.code().starts_with("57P")
                || s.code().starts_with("08")
                || s == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT =>
        {
            Error::unavailable(format!("postgresql: {cause}")).code(LOST).cause(cause)
        }
        Some(s) if s.code().starts_with("23") => constraint(cause.to_string()),
        Some(_) => {
            let detail = cause.as_db_error().map(ToString::to_string).unwrap_or_default();
            Error::internal(format!("postgresql: {detail}")).cause(cause)
        }
        None => Error::unavailable(format!("postgresql: {cause}")).code(LOST).cause(cause),
    }
}

/// A value takes the type that the statement wants in its place.
impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Bool(b) => b.to_sql(kind, out),
            Value::Int(n) if *kind == Type::INT4 => i32::try_from(*n)?.to_sql(kind, out),
            Value::Int(n) if *kind == Type::INT2 => i16::try_from(*n)?.to_sql(kind, out),
            Value::Int(n) if *kind == Type::FLOAT8 => (*n as f64).to_sql(kind, out),
            Value::Int(n) if *kind == Type::BOOL => (*n != 0).to_sql(kind, out),
            Value::Int(n) => n.to_sql(kind, out),
            Value::Real(x) => x.to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Blob(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(match *kind {
            Type::BOOL => Value::Bool(FromSql::from_sql(kind, raw)?),
            Type::INT2 => Value::Int(i16::from_sql(kind, raw)?.into()),
            Type::INT4 => Value::Int(i32::from_sql(kind, raw)?.into()),
            Type::INT8 => Value::Int(FromSql::from_sql(kind, raw)?),
            Type::FLOAT4 => Value::Real(f32::from_sql(kind, raw)?.into()),
            Type::FLOAT8 => Value::Real(FromSql::from_sql(kind, raw)?),
            Type::BYTEA => Value::Blob(FromSql::from_sql(kind, raw)?),
            Type::NUMERIC => return Err("SUM of BIGINT is NUMERIC: write CAST(SUM(…) AS BIGINT)".into()),
            _ => Value::Text(FromSql::from_sql(&Type::TEXT, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
