//! Brings a database to the declared schema. An empty one gets the declared tables; an older one the
//! migrations it lacks, in order, and the tables and indexes it lacks; a newer one is refused.

use crate::{Db, Table, Tx, params};
use base::{Error, Result};

/// A change to the schema after its first release. Numbers are dense and start at 1.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    pub number: i64,
    pub name: &'static str,
    pub statements: &'static [&'static str],
}

pub(crate) async fn run(db: &Db, tables: &[&'static Table], migrations: &[Migration]) -> Result<()> {
    let (tables, migrations) = (tables.to_vec(), migrations.to_vec());
    let shared = db.is_postgres();
    db.write(move |tx| {
        if shared {
            // Two processes that start at once do not make the same tables.
            tx.query("SELECT CAST(pg_advisory_xact_lock(7232) AS TEXT)", &[])?;
        }
        tx.execute(
            "CREATE TABLE IF NOT EXISTS schema_version (name TEXT PRIMARY KEY, number BIGINT NOT NULL)",
            &[],
        )?;
        // Services may share one PostgreSQL database: each set of tables has a version of its own.
        let Some(first) = tables.first() else { return Ok(()) };
        let newest = migrations.last().map_or(0, |m| m.number);
        match version(tx, first.name)? {
            None => create(tx, &tables, first.name, newest),
            Some(found) if found > newest => Err(Error::conflict(format!(
                "the database is at schema {found}, this program knows up to {newest}: use a newer program"
            ))),
            Some(found) => {
                upgrade(tx, &migrations, first.name, found)?;
                create(tx, &tables, first.name, newest)
            }
        }
    })
    .await
}

fn version(tx: &mut Tx, name: &str) -> Result<Option<i64>> {
    let row = tx.one("SELECT number FROM schema_version WHERE name = $1", params![name])?;
    row.map(|row| row.at(0)).transpose()
}

/// What is there already stays.
fn create(tx: &mut Tx, tables: &[&'static Table], name: &str, newest: i64) -> Result<()> {
    for statement in tables.iter().flat_map(|table| table.create_sql()) {
        tx.execute(&statement, &[])?;
    }
    set_version(tx, name, newest)
}

fn upgrade(tx: &mut Tx, migrations: &[Migration], name: &str, found: i64) -> Result<()> {
    for migration in migrations.iter().filter(|m| m.number > found) {
        tracing::info!(schema = name, number = migration.number, migration = migration.name, "migrating");
        for statement in migration.statements {
            tx.execute(statement, &[])?;
        }
        set_version(tx, name, migration.number)?;
    }
    Ok(())
}

fn set_version(tx: &mut Tx, name: &str, number: i64) -> Result<()> {
    let statement = "INSERT INTO schema_version (name, number) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET number = excluded.number";
    tx.execute(statement, params![name, number]).map(drop)
}
