//! Databases for tests, and checks that every service's tests run on its tables and statements.

use crate::{Db, List, Migration, Options, Table, list};
use base::Result;
use std::sync::atomic::{AtomicU32, Ordering};

/// A PostgreSQL server on which tests may make databases: `postgres://user@host:port/postgres`.
pub const POSTGRES_URL: &str = "FERROSTACK_TEST_POSTGRES";

/// A database that lives as long as the test.
pub struct TestDb {
    pub db: Db,
    _directory: Option<tempfile::TempDir>,
}

/// An empty SQLite database with the tables, not durable.
pub async fn sqlite(tables: &[&'static Table], migrations: &[Migration]) -> Result<TestDb> {
    let directory = tempfile::tempdir()?;
    let url = format!("sqlite:{}", directory.path().join("test.db").display());
    let options = Options { durable: false, ..Options::new(url) };
    let db = Db::open(&options, tables, migrations).await?;
    Ok(TestDb { db, _directory: Some(directory) })
}

/// An empty PostgreSQL database with the tables; none when the environment names no server.
pub async fn postgres(tables: &[&'static Table], migrations: &[Migration]) -> Result<Option<TestDb>> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let Ok(url) = std::env::var(POSTGRES_URL) else { return Ok(None) };
    let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let unreachable = |e| base::Error::unavailable(format!("{POSTGRES_URL}: {e}"));
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.map_err(unreachable)?;
    let serving = tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.map_err(unreachable)?;
    serving.abort();
    let (server, _) = url.rsplit_once('/').unwrap_or((&url, ""));
    let db = Db::open(&Options::new(format!("{server}/{name}")), tables, migrations).await?;
    Ok(Some(TestDb { db, _directory: None }))
}

/// Both databases, or SQLite alone where no PostgreSQL server is named.
pub async fn all(tables: &[&'static Table], migrations: &[Migration]) -> Result<Vec<TestDb>> {
    let mut databases = vec![sqlite(tables, migrations).await?];
    databases.extend(postgres(tables, migrations).await?);
    Ok(databases)
}

/// Prepares every registered statement whose tables are among these, and every list query that the
/// tables' fields allow. Answers how many; an error names the statement.
pub async fn prepare_all(db: &Db, tables: &'static [&'static Table]) -> Result<usize> {
    db.read(move |tx| {
        let mut prepared = 0;
        let mut prepare = |tx: &mut crate::Tx, sql: &str| -> Result<()> {
            prepared += 1;
            tx.prepare(sql).map_err(|e| base::Error::internal(format!("{sql}: {e}")))
        };
        for sql in crate::STATEMENTS {
            prepare(tx, sql)?;
        }
        for table in tables {
            let sentences = table.sentences();
            prepare(tx, &sentences.insert)?;
            prepare(tx, &sentences.get)?;
            for field in table.fields.iter().filter(|f| f.sort) {
                let wanted = List::all().sort(field.column, crate::Direction::Desc).limit(1);
                prepare(tx, &list::select_sql(table, &sentences.columns, &wanted, None)?.0)?;
            }
        }
        Ok(prepared)
    })
    .await
}
