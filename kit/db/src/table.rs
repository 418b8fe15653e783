//! What a noun is, as data: its table and, per field, what callers may do with it.

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
        self.fields.iter().map(|field| field.column).collect::<Vec<_>>().join(", ")
    }

    /// The statements that make the table on an empty database.
    pub fn create_sql(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .fields
            .iter()
            .map(|field| {
                let null = if field.null { "" } else { " NOT NULL" };
                format!("{} {}{null}", field.column, field.kind.sql())
            })
            .collect();
        lines.push(format!("PRIMARY KEY ({})", self.key.join(", ")));
        lines.extend(self.unique.iter().map(|columns| format!("UNIQUE ({})", columns.join(", "))));
        let mut statements = vec![format!("CREATE TABLE IF NOT EXISTS {} ({})", self.name, lines.join(", "))];
        statements.extend(self.index.iter().map(|columns| {
            let name = columns.join("_").replace(' ', "");
            format!(
                "CREATE INDEX IF NOT EXISTS {}_{name} ON {} ({})",
                self.name,
                self.name,
                columns.join(", ")
            )
        }));
        statements
    }
}
