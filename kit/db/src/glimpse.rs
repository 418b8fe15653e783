//! Rows that are looked at where the database has them: for answers of thousands of rows, of which little is kept.

use crate::{Value, sqlite, value::mismatch};
use base::{Error, Result};

/// One row while it is visited, columns by position from 0.
pub struct Glimpse<'a>(pub(crate) Seen<'a>);

pub(crate) enum Seen<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a [Value]),
}

impl Glimpse<'_> {
    pub fn text(&self, position: usize) -> Result<&str> {
        self.text_or_null(position)?.ok_or_else(|| Error::internal(format!("column {position}: null")))
    }

    pub fn text_or_null(&self, position: usize) -> Result<Option<&str>> {
        match &self.0 {
            Seen::Sqlite(row) => {
                let value = row.get_ref(position).map_err(sqlite::error)?;
                value.as_str_or_null().map_err(|e| Error::internal(format!("column {position}: {e}")))
            }
            Seen::Postgres(row) => match &row[position] {
                Value::Null => Ok(None),
                Value::Text(text) => Ok(Some(text)),
                other => mismatch("text", other),
            },
        }
    }

    pub fn int_or_null(&self, position: usize) -> Result<Option<i64>> {
        match &self.0 {
            Seen::Sqlite(row) => row.get(position).map_err(sqlite::error),
            Seen::Postgres(row) => match &row[position] {
                Value::Null => Ok(None),
                Value::Int(number) => Ok(Some(*number)),
                other => mismatch("an integer", other),
            },
        }
    }

    pub fn int(&self, position: usize) -> Result<i64> {
        self.int_or_null(position)?.ok_or_else(|| Error::internal(format!("column {position}: null")))
    }

    pub fn real(&self, position: usize) -> Result<f64> {
        match &self.0 {
            Seen::Sqlite(row) => row.get(position).map_err(sqlite::error),
            Seen::Postgres(row) => match &row[position] {
                Value::Real(number) => Ok(*number),
                other => mismatch("a number", other),
            },
        }
    }
}
