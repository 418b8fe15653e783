//! List queries as data (filters, several sort keys, marker, limit) and the SQL they become.

use crate::{Field, Row, Stored, Table, Value, table::named};
use base::{Error, Result};
use parking_lot::RwLock;
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Asc,
    Desc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Any of the values.
    In,
    NotIn,
    /// SQL `LIKE`; the caller escapes with `\`.
    Like,
    IsNull,
    NotNull,
    /// A condition written out: see [`Filter::sql`].
    Sql,
}

/// A condition on one column, or one written out.
#[derive(Clone, Debug)]
pub struct Filter {
    /// With [`Op::Sql`], the condition itself.
    pub column: &'static str,
    pub op: Op,
    pub values: Vec<Value>,
}

impl Filter {
    pub fn new(column: &'static str, op: Op, value: impl Stored) -> Self {
        Self { column, op, values: vec![value.store()] }
    }

    pub fn eq(column: &'static str, value: impl Stored) -> Self {
        Self::new(column, Op::Eq, value)
    }

    pub fn any(column: &'static str, values: impl IntoIterator<Item = impl Stored>) -> Self {
        Self { column, op: Op::In, values: values.into_iter().map(|v| v.store()).collect() }
    }

    pub fn is_null(column: &'static str) -> Self {
        Self { column, op: Op::IsNull, values: vec![] }
    }

    /// What columns alone do not say: `(project_id = ? OR shared = TRUE)`, with `?` for each value.
    pub fn sql(condition: &'static str, values: impl IntoIterator<Item = Value>) -> Self {
        Self { column: condition, op: Op::Sql, values: values.into_iter().collect() }
    }

    pub fn not_null(column: &'static str) -> Self {
        Self { column, op: Op::NotNull, values: vec![] }
    }
}

/// What a list call asks for. Rows come in the order of `sort`, ties broken by the key.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub filters: Vec<Filter>,
    pub sort: Vec<(&'static str, Direction)>,
    /// The id after which the page begins.
    pub marker: Option<String>,
    pub limit: Option<u64>,
}

impl List {
    pub fn all() -> Self {
        Self::default()
    }

    pub fn filter(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }

    pub fn eq(self, column: &'static str, value: impl Stored) -> Self {
        self.filter(Filter::eq(column, value))
    }

    pub fn sort(mut self, column: &'static str, direction: Direction) -> Self {
        self.sort.push((column, direction));
        self
    }

    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub fn marker(mut self, id: impl Into<String>) -> Self {
        self.marker = Some(id.into());
        self
    }
}

/// Longer lists of values are as long as they are: databases have a limit on parameters.
const PADDED_MAX: usize = 8192;

/// What is said of one row, the same for all rows of a table.
#[derive(Debug)]
pub(crate) struct Sentences {
    /// All columns, as a query names them.
    pub columns: String,
    pub insert: String,
    pub get: String,
    pub update: String,
    /// For each parameter of the update, the position of its field.
    pub update_order: Vec<usize>,
    pub delete: String,
}

impl Table {
    /// Written once and kept.
    pub(crate) fn sentences(&'static self) -> Arc<Sentences> {
        static ALL: RwLock<BTreeMap<usize, Arc<Sentences>>> = RwLock::new(BTreeMap::new());
        // A table is declared once and lives as long as the program.
        let address = std::ptr::from_ref(self).addr();
        if let Some(known) = ALL.read().get(&address) {
            return known.clone();
        }
        let written = Arc::new(Sentences::of(self));
        ALL.write().insert(address, written.clone());
        written
    }
}

impl Sentences {
    fn of(table: &Table) -> Self {
        let places: Vec<String> = (1..=table.fields.len()).map(|n| format!("${n}")).collect();
        let columns = table.columns();
        let plain: Vec<&str> =
            table.fields.iter().map(|f| f.column).filter(|column| !table.key.contains(column)).collect();
        let sets: Vec<String> =
            plain.iter().enumerate().map(|(n, c)| format!("{} = ${}", named(c), n + 1)).collect();
        let position = |column: &&str| table.fields.iter().position(|f| f.column == *column).unwrap_or(0);
        let (name, by_key) = (table.name, key_condition(table, 1));
        let update_condition = key_condition(table, plain.len() + 1);
        Self {
            insert: format!("INSERT INTO {name} ({columns}) VALUES ({})", places.join(", ")),
            get: format!("SELECT {columns} FROM {name} WHERE {by_key}"),
            update: format!("UPDATE {name} SET {} WHERE {update_condition}", sets.join(", ")),
            update_order: plain.iter().chain(table.key).map(position).collect(),
            delete: format!("DELETE FROM {name} WHERE {by_key}"),
            columns,
        }
    }
}

pub(crate) fn set_sql(
    table: &Table,
    filters: &[Filter],
    columns: &[(&str, Value)],
) -> Result<(String, Vec<Value>)> {
    let mut params: Vec<Value> = columns.iter().map(|(_, value)| value.clone()).collect();
    let sets: Vec<String> =
        columns.iter().enumerate().map(|(n, (c, _))| format!("{} = ${}", named(c), n + 1)).collect();
    let conditions = conditions(table, filters, &mut params)?;
    Ok((format!("UPDATE {} SET {}{}", table.name, sets.join(", "), where_clause(&conditions)), params))
}

pub(crate) fn count_sql(table: &Table, filters: &[Filter]) -> Result<(String, Vec<Value>)> {
    let mut params = Vec::new();
    let conditions = conditions(table, filters, &mut params)?;
    Ok((format!("SELECT COUNT(*) FROM {}{}", table.name, where_clause(&conditions)), params))
}

/// Some of a table's, as a query names them.
pub(crate) fn columns(table: &Table, columns: &[&str]) -> Result<String> {
    let known: Result<Vec<_>> = columns.iter().map(|c| Ok(named(column_of(table, c)?.column))).collect();
    Ok(known?.join(", "))
}

pub(crate) fn select_sql(
    table: &Table,
    columns: &str,
    wanted: &List,
    marker: Option<&Row>,
) -> Result<(String, Vec<Value>)> {
    let mut params = Vec::new();
    let mut conditions = conditions(table, &wanted.filters, &mut params)?;
    let order = full_order(table, wanted)?;
    if let Some(marker) = marker {
        conditions.push(after_marker(&order, marker, &mut params)?);
    }
    let mut sql = format!("SELECT {columns} FROM {}{}", table.name, where_clause(&conditions));
    let order: Vec<String> = order.iter().map(|(field, direction)| order_term(field, *direction)).collect();
    sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
    if let Some(limit) = wanted.limit {
        params.push(Value::Int(limit.min(i64::MAX as u64) as i64));
        sql.push_str(&format!(" LIMIT ${}", params.len()));
    }
    Ok((sql, params))
}

/// The wanted sort keys, then the table's key so that the order is total.
fn full_order<'t>(table: &'t Table, wanted: &List) -> Result<Vec<(&'t Field, Direction)>> {
    let last = wanted.sort.last().map_or(Direction::Asc, |(_, direction)| *direction);
    let mut order: Vec<(&Field, Direction)> = Vec::new();
    for (column, direction) in wanted.sort.iter().copied().chain(table.key.iter().map(|k| (*k, last))) {
        if !order.iter().any(|(field, _)| field.column == column) {
            order.push((column_of(table, column)?, direction));
        }
    }
    Ok(order)
}

/// Absent values come first going up and last going down, on both databases.
fn order_term(field: &Field, direction: Direction) -> String {
    let word = if direction == Direction::Asc { "ASC" } else { "DESC" };
    let nulls = match (field.null, direction) {
        (false, _) => "",
        (true, Direction::Asc) => " NULLS FIRST",
        (true, Direction::Desc) => " NULLS LAST",
    };
    format!("{} {word}{nulls}", named(field.column))
}

/// `a >= $1 AND ((a > $1) OR (a = $1 AND b > $2) …)`, with absent values below all others: what stands before the
/// alternatives lets an index begin at the marker.
fn after_marker(order: &[(&Field, Direction)], marker: &Row, params: &mut Vec<Value>) -> Result<String> {
    let mut alternatives = Vec::new();
    let mut equal_so_far: Vec<String> = Vec::new();
    let mut from_marker = String::new();
    for (number, (field, direction)) in order.iter().enumerate() {
        let position = marker.columns.iter().position(|c| c == field.column);
        let value =
            position.map(|p| marker.values[p].clone()).ok_or_else(|| Error::internal("marker row"))?;
        let column = named(field.column);
        let (beyond, equal) = if value == Value::Null {
            let beyond = match direction {
                Direction::Asc => Some(format!("{column} IS NOT NULL")),
                Direction::Desc => None,
            };
            (beyond, format!("{column} IS NULL"))
        } else {
            params.push(value);
            let place = params.len();
            if number == 0 && !field.null {
                let word = if *direction == Direction::Asc { ">=" } else { "<=" };
                from_marker = format!("{column} {word} ${place} AND ");
            }
            let beyond = match direction {
                Direction::Asc => format!("{column} > ${place}"),
                Direction::Desc if field.null => format!("({column} < ${place} OR {column} IS NULL)"),
                Direction::Desc => format!("{column} < ${place}"),
            };
            (Some(beyond), format!("{column} = ${place}"))
        };
        if let Some(beyond) = beyond {
            let all = equal_so_far.iter().cloned().chain([beyond]).collect::<Vec<_>>();
            alternatives.push(format!("({})", all.join(" AND ")));
        }
        equal_so_far.push(equal);
    }
    Ok(format!("{from_marker}({})", alternatives.join(" OR ")))
}

fn conditions(table: &Table, filters: &[Filter], params: &mut Vec<Value>) -> Result<Vec<String>> {
    filters.iter().map(|filter| condition(table, filter, params)).collect()
}

fn condition(table: &Table, filter: &Filter, params: &mut Vec<Value>) -> Result<String> {
    if filter.op == Op::Sql {
        return written_out(filter, params);
    }
    let column = named(column_of(table, filter.column)?.column);
    let comparison = match filter.op {
        Op::Sql => return Err(Error::internal("a written condition has no column")),
        Op::IsNull => return Ok(format!("{column} IS NULL")),
        Op::NotNull => return Ok(format!("{column} IS NOT NULL")),
        Op::In if filter.values.is_empty() => return Ok("1 = 0".into()),
        Op::NotIn if filter.values.is_empty() => return Ok("1 = 1".into()),
        Op::In | Op::NotIn => {
            let first = params.len() + 1;
            params.extend(filter.values.iter().cloned());
            // Few different statements: those of 100 values and of 101 are one, whose last value stands there twice.
            let places = filter.values.len().next_power_of_two().min(filter.values.len().max(PADDED_MAX));
            let last = filter.values.last().cloned().unwrap_or(Value::Null);
            params.resize(first - 1 + places, last);
            let places: Vec<String> = (first..=params.len()).map(|n| format!("${n}")).collect();
            let word = if filter.op == Op::In { "IN" } else { "NOT IN" };
            return Ok(format!("{column} {word} ({})", places.join(", ")));
        }
        Op::Eq => "=",
        Op::Ne => "<>",
        Op::Lt => "<",
        Op::Le => "<=",
        Op::Gt => ">",
        Op::Ge => ">=",
        Op::Like => "LIKE",
    };
    let value = filter.values.first().cloned().unwrap_or(Value::Null);
    if value == Value::Null {
        return Ok(format!("{column} IS {}NULL", if filter.op == Op::Ne { "NOT " } else { "" }));
    }
    params.push(value);
    let escape = if filter.op == Op::Like { r" ESCAPE '\'" } else { "" };
    Ok(format!("{column} {comparison} ${}{escape}", params.len()))
}

fn written_out(filter: &Filter, params: &mut Vec<Value>) -> Result<String> {
    let mut pieces = filter.column.split('?');
    let mut sql = pieces.next().unwrap_or_default().to_string();
    let mut values = filter.values.iter();
    for piece in pieces {
        let value =
            values.next().ok_or_else(|| Error::internal(format!("too few values: {}", filter.column)))?;
        params.push(value.clone());
        sql.push_str(&format!("${}{piece}", params.len()));
    }
    Ok(sql)
}

fn where_clause(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

fn key_condition(table: &Table, first: usize) -> String {
    let terms: Vec<String> =
        table.key.iter().enumerate().map(|(n, k)| format!("{} = ${}", named(k), first + n)).collect();
    terms.join(" AND ")
}

fn column_of<'t>(table: &'t Table, column: &str) -> Result<&'t Field> {
    let found = table.fields.iter().find(|field| field.column == column);
    found.ok_or_else(|| Error::internal(format!("{} has no column {column}", table.name)))
}
