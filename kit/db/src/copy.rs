//! A whole database into another one, of whichever kind, and the state of its schema without changing it.

use crate::{Db, Migration, Options, Row, Table, Value, params, table::named};
use base::{Error, Result};

/// Rows of one transaction.
const CHUNK_ROWS: usize = 500;

/// A table and how many rows of it were copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub table: &'static str,
    pub rows: usize,
}

/// Copies every table as it was at one moment into tables that are empty; an error when they are not.
pub async fn copy(from: &Db, to: &Db, tables: &[&'static Table]) -> Result<Vec<Copied>> {
    let wanted = tables.to_vec();
    let all = from
        .read(move |tx| {
            wanted.iter().map(|table| tx.query(&whole(table), &[])).collect::<Result<Vec<Vec<Row>>>>()
        })
        .await?;
    for table in tables {
        if count(to, table).await? > 0 {
            return Err(Error::conflict(format!("the table {} there has rows already", table.name)));
        }
    }
    let mut copied = Vec::new();
    for (table, rows) in tables.iter().zip(all) {
        let (sentences, total) = (table.sentences(), rows.len());
        let mut chunks: Vec<Vec<Vec<Value>>> = Vec::new();
        for row in rows {
            match chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_ROWS) {
                Some(chunk) => chunk.push(row.values),
                None => chunks.push(vec![row.values]),
            }
        }
        for chunk in chunks {
            let sentences = sentences.clone();
            let insert = move |tx: &mut crate::Tx| {
                chunk.iter().try_for_each(|row| tx.execute(&sentences.insert, row).map(drop))
            };
            to.write(insert).await?;
        }
        if count(to, table).await? != total as i64 {
            return Err(Error::internal(format!("{}: not every row arrived", table.name)));
        }
        copied.push(Copied { table: table.name, rows: total });
    }
    Ok(copied)
}

fn whole(table: &Table) -> String {
    let key: Vec<_> = table.key.iter().map(|column| named(column)).collect();
    format!("SELECT {} FROM {} ORDER BY {}", table.columns(), table.name, key.join(", "))
}

async fn count(db: &Db, table: &'static Table) -> Result<i64> {
    let sql = format!("SELECT COUNT(*) FROM {}", table.name);
    db.read(move |tx| tx.one(&sql, &[])?.ok_or_else(|| Error::internal("count: no row"))?.at(0)).await
}

/// What this program would do to a database, told without doing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Nobody has used it.
    New,
    Current,
    /// Migrations that would run, by name.
    Older(Vec<&'static str>),
    /// A newer program has used it; this one would refuse it.
    Newer {
        found: i64,
        known: i64,
    },
}

pub async fn schema(
    options: &Options,
    tables: &[&'static Table],
    migrations: &[Migration],
) -> Result<Schema> {
    let Some(first) = tables.first() else { return Ok(Schema::Current) };
    if options.url.strip_prefix("sqlite:").is_some_and(|path| !std::path::Path::new(path).exists()) {
        return Ok(Schema::New);
    }
    let db = Db::connect(options).await?;
    let known = migrations.last().map_or(0, |migration| migration.number);
    let name = first.name;
    let found = db
        .read(move |tx| {
            // A question for a table that is not there ends the transaction, so it comes last.
            let row = tx.one("SELECT number FROM schema_version WHERE name = $1", params![name])?;
            row.map(|row| row.at::<i64>(0)).transpose()
        })
        .await;
    Ok(match found {
        Ok(None) | Err(Error { kind: base::ErrorKind::Internal, .. }) => Schema::New,
        Err(error) => return Err(error),
        Ok(Some(found)) if found > known => Schema::Newer { found, known },
        Ok(Some(found)) if found < known => {
            Schema::Older(migrations.iter().filter(|m| m.number > found).map(|m| m.name).collect())
        }
        Ok(Some(_)) => Schema::Current,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Resource, testing};
    use base::Timestamp;

    #[derive(Clone, Debug, PartialEq, Resource)]
    #[resource(table = "copied_thing")]
    struct Thing {
        #[field(key)]
        id: String,
        enabled: bool,
        size: Option<i64>,
        ratio: f64,
        made: Timestamp,
        tags: Vec<String>,
        end: Option<String>,
    }

    const TABLES: &[&Table] = &[Thing::TABLE];

    fn thing(number: i64) -> Thing {
        Thing {
            id: format!("{number:05}"),
            enabled: number % 2 == 0,
            size: (number % 3 == 0).then_some(number),
            ratio: if number % 5 == 0 { number as f64 } else { 0.5 },
            made: Timestamp(number),
            tags: vec!["ä'\"\\".into()],
            end: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_row_arrives_as_it_was() {
        for test in testing::all(TABLES, &[]).await.unwrap() {
            let from = testing::sqlite(TABLES, &[]).await.unwrap();
            from.db.write(|tx| (0..1203).try_for_each(|n| tx.insert(&thing(n)))).await.unwrap();
            let copied = copy(&from.db, &test.db, TABLES).await.unwrap();
            assert_eq!(copied, [Copied { table: "copied_thing", rows: 1203 }]);
            let rows = test.db.read(|tx| tx.list::<Thing>(&crate::List::all())).await.unwrap();
            assert!(rows == (0..1203).map(thing).collect::<Vec<_>>());
            // And back.
            let back = testing::sqlite(TABLES, &[]).await.unwrap();
            copy(&test.db, &back.db, TABLES).await.unwrap();
            let error = copy(&from.db, &test.db, TABLES).await.unwrap_err();
            assert_eq!(error.message, "the table copied_thing there has rows already");
        }
    }

    #[tokio::test]
    async fn schemas_are_told_and_left_alone() {
        const FIRST: Migration = Migration { number: 1, name: "first", statements: &[] };
        const SECOND: Migration = Migration { number: 2, name: "second", statements: &[] };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        let options = Options::new(format!("sqlite:{}", path.display()));
        assert_eq!(schema(&options, TABLES, &[FIRST]).await.unwrap(), Schema::New);
        assert!(!path.exists());
        drop(Db::open(&options, TABLES, &[FIRST]).await.unwrap());
        assert_eq!(schema(&options, TABLES, &[FIRST]).await.unwrap(), Schema::Current);
        let older = schema(&options, TABLES, &[FIRST, SECOND]).await.unwrap();
        assert_eq!(older, Schema::Older(vec!["second"]));
        assert_eq!(schema(&options, TABLES, &[]).await.unwrap(), Schema::Newer { found: 1, known: 0 });
    }
}
