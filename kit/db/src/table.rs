//! What a noun is, as data: its table and, per field, what callers may do with it.

use std::borrow::Cow;

/// The kind of a column. The comment is its SQL type on both databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text, // TEXT
    Int,  // BIGINT
    Bool, // BOOLEAN
    Real, // DOUBLE PRECISION
    Time, // BIGINT, microseconds since 1970
    Json, // TEXT
    Blob, // BYTEA
}

impl Kind {
    fn sql(self) -> &'static str {
        match self {
            Kind::Text | Kind::Json => "TEXT",
            Kind::Int | Kind::Time => "BIGINT",
            Kind::Bool => "BOOLEAN",
            Kind::Real => "DOUBLE PRECISION",
            Kind::Blob => "BYTEA",
        }
    }
}

/// A column and its place in the API.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub column: &'static str,
    /// The key in bodies; the column's name unless declared otherwise.
    pub json: &'static str,
    pub kind: Kind,
    pub null: bool,
    /// May be given at creation.
    pub create: bool,
    /// May be changed.
    pub update: bool,
    /// Must be given at creation.
    pub required: bool,
    pub filter: bool,
    pub sort: bool,
    /// Never shown.
    pub hidden: bool,
    /// Has a policy rule of its own (`create_network:shared`).
    pub rule: bool,
    /// Longest text in characters.
    pub max: Option<u32>,
    /// Microversions that have it.
    pub since: (u16, u16),
    pub until: Option<(u16, u16)>,
}

/// A noun's table. Tables that no API shows are declared just the same.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// The key around one of them in a body, `project`.
    pub singular: &'static str,
    /// The key around a list, `projects`.
    pub plural: &'static str,
    pub fields: &'static [Field],
    pub key: &'static [&'static str],
    pub unique: &'static [&'static [&'static str]],
    pub index: &'static [&'static [&'static str]],
}

impl Table {
    pub fn field(&self, json: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.json == json)
    }

    pub fn columns(&self) -> String {
        names(&self.fields.iter().map(|field| field.column).collect::<Vec<_>>())
    }

    /// The statements that make the table on an empty database.
    pub fn create_sql(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .fields
            .iter()
            .map(|field| {
                let null = if field.null { "" } else { " NOT NULL" };
                format!("{} {}{null}", named(field.column), field.kind.sql())
            })
            .collect();
        lines.push(format!("PRIMARY KEY ({})", names(self.key)));
        lines.extend(self.unique.iter().map(|columns| format!("UNIQUE ({})", names(columns))));
        let mut statements = vec![format!("CREATE TABLE IF NOT EXISTS {} ({})", self.name, lines.join(", "))];
        statements.extend(self.index.iter().map(|columns| {
            let name = columns.join("_").replace(' ', "");
            format!("CREATE INDEX IF NOT EXISTS {}_{name} ON {} ({})", self.name, self.name, names(columns))
        }));
        statements
    }
}

/// Words that a column may be called by and SQL may not read without quotation marks, on one database or the other.
const RESERVED: &[&str] = &[
    "all",
    "analyze",
    "array",
    "authorization",
    "binary",
    "both",
    "case",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "cross",
    "default",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "index",
    "into",
    "is",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "similar",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "transaction",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// A column as SQL has it; what stands behind it, as `DESC`, stays.
pub(crate) fn named(column: &str) -> Cow<'_, str> {
    let (name, rest) = column.split_once(' ').map_or((column, String::new()), |(n, r)| (n, format!(" {r}")));
    match RESERVED.contains(&name) {
        true => format!("\"{name}\"{rest}").into(),
        false => column.into(),
    }
}

fn names(columns: &[&str]) -> String {
    columns.iter().map(|column| named(column)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_quoted() {
        assert_eq!(
            names(&["id", "binary", "created_at DESC", "end DESC"]),
            "id, \"binary\", created_at DESC, \"end\" DESC"
        );
    }
}
