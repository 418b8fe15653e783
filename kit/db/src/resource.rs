//! The trait that `#[derive(Resource)]` writes.

use crate::{Field, Row, Table, TimeForm, Value};
use base::{Json, Result, Version};

/// A noun: a struct whose fields are columns.
///
/// ```ignore
/// #[derive(Clone, Debug, Resource)]
/// #[resource(table = "project", unique = "domain_id, name", index = "parent_id")]
/// pub struct Project {
///     #[field(key)]
///     pub id: String,
///     #[field(create, update, required, filter, sort, max = 64)]
///     pub name: String,
///     …
/// }
/// ```
/// On the struct: `table`, `singular` and `plural` (keys in bodies), `unique` and `index` (each may
/// repeat; index columns may say `DESC`). On a field: `key`, `create`, `update`, `required`, `filter`,
/// `sort`, `hidden`, `rule`, `json = "key in bodies"`, `max = characters`, `since = "2.3"`, `until`.
/// Types: text, integers, booleans, [`base::Timestamp`], `Option` of them, `Vec<String>`, [`base::Json`],
/// [`crate::AsJson`] of any serde type, and enums made by [`crate::text_enum!`].
pub trait Resource: Sized + Send + 'static {
    const TABLE: &'static Table;

    fn from_row(row: Row) -> Result<Self>;

    /// In the order of the table's fields.
    fn values(&self) -> Vec<Value>;

    fn field_json(&self, position: usize, form: TimeForm) -> Json;

    /// The body of one: every field that is shown at this microversion (none: all of them).
    fn view(&self, form: TimeForm, version: Option<Version>) -> serde_json::Map<String, Json> {
        let shown = |field: &Field| !field.hidden && version.is_none_or(|v| field.in_version(v));
        let fields = Self::TABLE.fields.iter().enumerate();
        fields.filter(|(_, f)| shown(f)).map(|(i, f)| (f.json.into(), self.field_json(i, form))).collect()
    }
}

impl Field {
    pub fn in_version(&self, version: Version) -> bool {
        let Version(major, minor) = version;
        (major, minor) >= self.since && self.until.is_none_or(|until| (major, minor) <= until)
    }
}
