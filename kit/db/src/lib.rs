//! One front over SQLite and PostgreSQL: tables declared as data, transactions as plain functions,
//! one SQL text (`$1`, `RETURNING`, `ON CONFLICT`) for both. What a statement means is the caller's.

extern crate self as db;

pub mod copy;
mod glimpse;
mod list;
mod migrate;
mod plan;
mod postgres;
mod queue;
mod resource;
mod sqlite;
mod table;
pub mod testing;
mod tx;
mod value;

pub use db_derive::Resource;
pub use glimpse::Glimpse;
pub use linkme;
pub use list::{Direction, Filter, List, Op};
pub use migrate::Migration;
pub use resource::Resource;
pub use table::{Field, Kind, Table};
pub use tx::Tx;
pub use value::{AsJson, Row, Stored, TimeForm, Value};

use base::{Error, ErrorKind, Result, metrics};
use std::{sync::Arc, time::Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// All statements written with [`sql!`], so that a test can prepare each on both databases.
#[linkme::distributed_slice]
pub static STATEMENTS: [&'static str];

/// A statement's text, registered to be prepared by a test on both databases.
#[macro_export]
macro_rules! sql {
    ($text:expr) => {{
        #[$crate::linkme::distributed_slice($crate::STATEMENTS)]
        #[linkme(crate = $crate::linkme)]
        static STATEMENT: &'static str = $text;
        STATEMENT
    }};
}

/// Parameters of a statement: `params![id, name]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::Stored::store(&$value)),*] };
}

/// Where one service keeps its state. Cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<Shared>);

struct Shared {
    engine: Engine,
    /// Places of [`base::background`] work: a user's request never stands behind a thousand transactions of it.
    background_reads: Semaphore,
    background_writes: Semaphore,
    /// For metrics: the last part of its address.
    name: String,
}

enum Engine {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite:/path/to/file` or `postgres://user:password@host/name`.
    pub url: String,
    /// Acknowledged writes survive a power cut. Only tests turn it off.
    pub durable: bool,
    pub readers_max: usize,
}

impl Options {
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), durable: true, readers_max: 8 }
    }
}

impl Db {
    /// Opens the database and brings its schema to the declared one.
    /// A schema newer than this program is refused.
    pub async fn open(
        options: &Options,
        tables: &[&'static Table],
        migrations: &[Migration],
    ) -> Result<Self> {
        let db = Self::connect(options).await?;
        migrate::run(&db, tables, migrations).await?;
        Ok(db)
    }

    /// Leaves the schema as it is.
    pub(crate) async fn connect(options: &Options) -> Result<Self> {
        let (engine, reads, writes) = match options.url.strip_prefix("sqlite:") {
            Some(path) => {
                let engine = Engine::Sqlite(sqlite::Sqlite::open(path, options)?);
                (engine, options.readers_max.div_ceil(2), sqlite::BACKGROUND_WRITES_MAX)
            }
            None => {
                let third = postgres::CONNECTIONS_MAX / 3;
                (Engine::Postgres(postgres::Postgres::open(options).await?), third, third)
            }
        };
        let (background_reads, background_writes) = (Semaphore::new(reads), Semaphore::new(writes));
        let name = name_of(&options.url).to_string();
        Ok(Self(Arc::new(Shared { engine, background_reads, background_writes, name })))
    }

    /// Reads from one consistent snapshot. Runs off the async threads; many at a time.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _place = Self::place(&self.0.background_reads).await;
        let start = Instant::now();
        let done = match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.read(work).await,
            Engine::Postgres(postgres) => postgres.run(work, true).await,
        };
        self.observe("read", start, &done);
        done
    }

    /// Runs a serialisable transaction: all of it or, on `Err`, nothing. The answer comes after the
    /// commit is durable. `work` may run more than once (PostgreSQL asks for repetition on conflict),
    /// so it does nothing but database work; what must follow a commit goes to [`Tx::after_commit`].
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _place = Self::place(&self.0.background_writes).await;
        let start = Instant::now();
        let done = match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.write(work).await,
            Engine::Postgres(postgres) => postgres.run(work, false).await,
        };
        self.observe("write", start, &done);
        done
    }

    fn observe<T>(&self, kind: &str, start: Instant, done: &Result<T>) {
        let outcome = metrics::outcome(done);
        let of = metrics::TRANSACTIONS.with_label_values(&[self.0.name.as_str(), kind, &outcome]);
        of.observe(metrics::seconds_since(start));
    }

    async fn place(of_background: &Semaphore) -> Option<SemaphorePermit<'_>> {
        match base::is_background() {
            // Nobody closes it.
            true => of_background.acquire().await.ok(),
            false => None,
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(&self.0.engine, Engine::Postgres(_))
    }
}

/// `nova` of `sqlite:/var/lib/ferrostack/db/nova.db` and of `postgres://host/nova`.
fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url).trim_end_matches(".db")
}

/// The error of a broken unique or foreign key, for callers that know which one it must have been.
const CONSTRAINT: &str = "db.constraint";

pub(crate) fn constraint(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Conflict, detail).code(CONSTRAINT)
}

/// Whether a write failed because a row with such a key exists (or a referenced one does not).
pub fn is_constraint(error: &Error) -> bool {
    error.code.as_deref() == Some(CONSTRAINT)
}
