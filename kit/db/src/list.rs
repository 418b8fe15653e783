//! List queries as data (filters, several sort keys, marker, limit) and the SQL they become.

use crate::{Field, Row, Stored, Table, Value, table::named};
use base::{Error, Result};

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

pub(crate) fn insert_sql(table: &Table) -> String {
    let places: Vec<String> = (1..=table.fields.len()).map(|n| format!("${n}")).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", table.name, table.columns(), places.join(", "))
}

pub(crate) fn get_sql(table: &Table) -> String {
    format!("SELECT {} FROM {} WHERE {}", table.columns(), table.name, key_condition(table, 1))
}

pub(crate) fn delete_sql(table: &Table) -> String {
    format!("DELETE FROM {} WHERE {}", table.name, key_condition(table, 1))
}

/// The statement and, for each parameter, the position of its field.
pub(crate) fn update_sql(table: &Table) -> (String, Vec<usize>) {
    let is_key = |field: &&Field| table.key.contains(&field.column);
    let position = |column: &str| table.fields.iter().position(|f| f.column == column).unwrap_or(0);
    let plain: Vec<&str> = table.fields.iter().filter(|f| !is_key(f)).map(|f| f.column).collect();
    let sets: Vec<String> =
        plain.iter().enumerate().map(|(n, c)| format!("{} = ${}", named(c), n + 1)).collect();
    let condition = key_condition(table, plain.len() + 1);
    let order = plain.iter().chain(table.key).map(|column| position(column)).collect();
    (format!("UPDATE {} SET {} WHERE {condition}", table.name, sets.join(", ")), order)
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

pub(crate) fn select_sql(table: &Table, wanted: &List, marker: Option<&Row>) -> Result<(String, Vec<Value>)> {
    let mut params = Vec::new();
    let mut conditions = conditions(table, &wanted.filters, &mut params)?;
    let order = full_order(table, wanted)?;
    if let Some(marker) = marker {
        conditions.push(after_marker(&order, marker, &mut params)?);
    }
    let mut sql = format!("SELECT {} FROM {}{}", table.columns(), table.name, where_clause(&conditions));
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

/// `(a > $1) OR (a = $1 AND b > $2) …`, with absent values below all others.
fn after_marker(order: &[(&Field, Direction)], marker: &Row, params: &mut Vec<Value>) -> Result<String> {
    let mut alternatives = Vec::new();
    let mut equal_so_far: Vec<String> = Vec::new();
    for (field, direction) in order {
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
    Ok(format!("({})", alternatives.join(" OR ")))
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
