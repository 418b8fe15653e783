//! Which statements read a whole table where SQLite runs them: asked once of each statement, when somebody listens to
//! the log `db::plan`.

use parking_lot::RwLock;
use rusqlite::Connection;
use std::collections::BTreeSet;

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
    for table in scanned(connection, sql).unwrap_or_default() {
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
    let scans = lines.iter().filter_map(|line| line.strip_prefix("SCAN "));
    let words = scans.filter_map(|line| line.split_whitespace().next());
    let tables = words.filter(|word| is_table(connection, word) || is_alias(sql, word));
    Ok(tables.map(String::from).collect())
}

fn is_table(connection: &Connection, word: &str) -> bool {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.query_row(sql, [word], |_| Ok(())).is_ok()
}

/// Constants and what other parts of the plan have answered are no tables.
fn is_alias(sql: &str, word: &str) -> bool {
    let is_name = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name
        && word != "CONSTANT"
        && (sql.contains(&format!(" {word} ")) || sql.contains(&format!(" {word}\n")))
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
        ] {
            assert_eq!(!scanned(&connection, sql).unwrap().is_empty(), scans, "{sql}");
        }
    }
}
