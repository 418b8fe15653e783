//! A running transaction, and what can be said in it: written-out SQL, and the sentences every noun shares.

use crate::{
    Glimpse, List, Resource, Row, Stored, Table, Value, glimpse::Seen, list, postgres::PostgresTx,
    sqlite::SqliteTx,
};
use base::{Error, Result};

/// One transaction. Statements use `$1`, `$2`, …; an `Err` of any of them ends the transaction.
pub struct Tx<'a> {
    pub(crate) engine: EngineTx<'a>,
    pub(crate) after_commit: Vec<Box<dyn FnOnce() + Send>>,
}

pub(crate) enum EngineTx<'a> {
    Sqlite(SqliteTx<'a>),
    Postgres(PostgresTx<'a>),
}

impl Tx<'_> {
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        match &mut self.engine {
            EngineTx::Sqlite(tx) => tx.query(sql, params),
            EngineTx::Postgres(tx) => tx.query(sql, params),
        }
    }

    /// Visits the rows one after the other; of answers of thousands, nothing is copied that is not kept.
    pub fn each(
        &mut self,
        sql: &str,
        params: &[Value],
        mut visit: impl FnMut(&Glimpse) -> Result<()>,
    ) -> Result<()> {
        match &mut self.engine {
            EngineTx::Sqlite(tx) => tx.each(sql, params, visit),
            EngineTx::Postgres(tx) => {
                let rows = tx.query(sql, params)?;
                rows.iter().try_for_each(|row| visit(&Glimpse(Seen::Postgres(&row.values))))
            }
        }
    }

    /// The first row, if any.
    pub fn one(&mut self, sql: &str, params: &[Value]) -> Result<Option<Row>> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// How many rows were touched.
    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        match &mut self.engine {
            EngineTx::Sqlite(tx) => tx.execute(sql, params),
            EngineTx::Postgres(tx) => tx.execute(sql, params),
        }
    }

    /// Checks that the database understands a statement, without running it.
    pub fn prepare(&mut self, sql: &str) -> Result<()> {
        match &mut self.engine {
            EngineTx::Sqlite(tx) => tx.prepare(sql),
            EngineTx::Postgres(tx) => tx.prepare(sql),
        }
    }

    /// Runs once the commit is durable; not at all if it does not come to that.
    pub fn after_commit(&mut self, work: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(work));
    }

    pub fn insert<T: Resource>(&mut self, row: &T) -> Result<()> {
        self.execute(&T::TABLE.sentences().insert, &row.values()).map(drop)
    }

    /// By key, in the order the table declares it.
    pub fn get<T: Resource>(&mut self, key: &[Value]) -> Result<Option<T>> {
        self.one(&T::TABLE.sentences().get, key)?.map(T::from_row).transpose()
    }

    /// By its text id.
    pub fn find<T: Resource>(&mut self, id: &str) -> Result<Option<T>> {
        self.get(&[id.store()])
    }

    /// Writes all columns of an existing row. False: there is none.
    pub fn update<T: Resource>(&mut self, row: &T) -> Result<bool> {
        let sentences = T::TABLE.sentences();
        let mut values = row.values();
        let take = |position: &usize| std::mem::replace(&mut values[*position], Value::Null);
        let params: Vec<Value> = sentences.update_order.iter().map(take).collect();
        Ok(self.execute(&sentences.update, &params)? > 0)
    }

    /// Sets some columns of the rows that match: a compare-and-swap when the filters name the state
    /// it must be in. Answers how many matched.
    pub fn set<T: Resource>(&mut self, filters: &[crate::Filter], columns: &[(&str, Value)]) -> Result<u64> {
        if filters.is_empty() || columns.is_empty() {
            return Err(Error::internal("set: needs filters and columns"));
        }
        let (sql, params) = list::set_sql(T::TABLE, filters, columns)?;
        self.execute(&sql, &params)
    }

    /// False: there was none.
    pub fn delete<T: Resource>(&mut self, key: &[Value]) -> Result<bool> {
        Ok(self.execute(&T::TABLE.sentences().delete, key)? > 0)
    }

    pub fn remove<T: Resource>(&mut self, id: &str) -> Result<bool> {
        self.delete::<T>(&[id.store()])
    }

    /// Filtered, sorted, paged. A marker that does not exist is `Error::bad_request` with code `marker`.
    pub fn list<T: Resource>(&mut self, wanted: &List) -> Result<Vec<T>> {
        self.rows(T::TABLE, &T::TABLE.sentences().columns, wanted)?.into_iter().map(T::from_row).collect()
    }

    /// The same where a few columns are enough, in this order.
    pub fn columns<T: Resource>(&mut self, columns: &[&str], wanted: &List) -> Result<Vec<Row>> {
        self.rows(T::TABLE, &list::columns(T::TABLE, columns)?, wanted)
    }

    fn rows(&mut self, table: &'static Table, columns: &str, wanted: &List) -> Result<Vec<Row>> {
        let marker = match &wanted.marker {
            None => None,
            Some(id) => {
                let row = self.one(&table.sentences().get, &[id.store()])?;
                let missing = || Error::bad_request(format!("marker [{id}] not found")).code("marker");
                Some(row.ok_or_else(missing)?)
            }
        };
        let (sql, params) = list::select_sql(table, columns, wanted, marker.as_ref())?;
        self.query(&sql, &params)
    }

    pub fn count<T: Resource>(&mut self, filters: &[crate::Filter]) -> Result<i64> {
        let (sql, params) = list::count_sql(T::TABLE, filters)?;
        let row = self.one(&sql, &params)?;
        row.ok_or_else(|| Error::internal("count: no row"))?.at(0)
    }
}
