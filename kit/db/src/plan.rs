//! Which statements read a whole table where SQLite runs them: asked once of each statement, when somebody listens to
//! the log `db::plan`.

use parking_lot::RwLock;
use rusqlite::Connection;
use std::{collections::BTreeSet, path::Path};

/// Statements that were asked about.
static SEEN: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());

pub(crate) fn is_watched() -> bool {
    tracing::enabled!(target: "db::plan", tracing::Level::DEBUG)
}

pub(crate) fn look(connection: &Connection, sql: &str) {
    let is_question =
        ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|word| sql.starts_with(word));
    if !is_question || SEEN.read().contains(sql) {
        return;
    }
    let file = connection.path().map(Path::new).and_then(Path::file_stem).unwrap_or_default();
    for table in scanned(connection, sql).unwrap_or_default() {
        let table = format!("{}.{table}", file.to_string_lossy());
        tracing::debug!(target: "db::plan", table, sql, "reads a whole table");
    }
    SEEN.write().insert(sql.into());
}

fn scanned(connection: &Connection, sql: &str) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", sql.replace('$', "?")))?;
    let mut rows = statement.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        lines.push(row.get::<_, String>(3)?);
    }
    // A page in the order of an index ends with the page.
    let sorts = lines.iter().any(|line| line.starts_with("USE TEMP B-TREE"));
    let is_page = !sorts && sql.contains(" LIMIT ") && lines.len() == 1 && lines[0].contains(" USING ");
    if is_page {
        return Ok(BTreeSet::new());
    }
    // What the statement itself has put together is no table.
    let made = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        lines.iter().any(|other| {
            ["CO-ROUTINE", "MATERIALIZE"].iter().any(|how| *other == format!("{how} {}", words[0]))
        })
    };
    let scans = lines.iter().filter_map(|line| line.strip_prefix("SCAN ")).filter(|line| !made(line));
    let words = scans.filter_map(|line| line.split_whitespace().next());
    Ok(words.filter_map(|word| table_of(connection, sql, word)).collect())
}

/// The table that a plan calls by its name or by what the statement calls it.
fn table_of(connection: &Connection, sql: &str, word: &str) -> Option<String> {
    let words: Vec<&str> = sql.split_whitespace().filter(|word| *word != "AS").collect();
    let named = words.windows(2).filter(|two| two[1].trim_end_matches([')', ',']) == word).map(|two| two[0]);
    [word].into_iter().chain(named).find(|name| is_table(connection, name)).map(String::from)
}

fn is_table(connection: &Connection, word: &str) -> bool {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    word == "sqlite_schema" || connection.query_row(sql, [word], |_| Ok(())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_tables_are_known_from_their_plans() {
        let connection = Connection::open_in_memory().unwrap();
        let made = "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, n INT); CREATE INDEX t_name ON t (name);";
        connection.execute_batch(made).unwrap();
        for (sql, scans) in [
            ("SELECT * FROM t WHERE id = $1", false),
            ("SELECT * FROM t WHERE name = $1 ORDER BY n", false),
            ("SELECT * FROM t WHERE n = $1", true),
            ("SELECT * FROM t", true),
            ("SELECT * FROM t ORDER BY name LIMIT 5", false),
            ("SELECT * FROM t ORDER BY n LIMIT 5", true),
            ("SELECT o.id FROM t o WHERE o.n = 1", true),
            ("UPDATE t SET name = $1 WHERE n = $2", true),
            ("DELETE FROM t WHERE name = $1", false),
            ("SELECT MAX(name) FROM t", false),
            ("INSERT INTO t (id) VALUES ($1)", false),
            ("SELECT u.n FROM (SELECT n FROM t WHERE name = $1 LIMIT 5) u ORDER BY u.n", false),
            (
                "WITH RECURSIVE up(id) AS (SELECT $1 UNION ALL SELECT t.name FROM t JOIN up ON t.id = up.id) SELECT id FROM up",
                false,
            ),
            ("SELECT o.id FROM t AS o JOIN t u ON u.id = o.name", true),
        ] {
            let found = scanned(&connection, sql).unwrap();
            assert_eq!(found, scans.then(|| "t".to_string()).into_iter().collect(), "{sql}");
        }
    }
}
