//! Which images a list has: what the caller may see, filters, several sort keys, a marker, a limit; as one query.

use crate::model::{Image, MemberStatus, Status, Visibility};
use base::{Context, Error, Result, Timestamp};
use db::{Resource, Stored, Tx, Value};
use web::Query;

/// A list as it was asked for.
pub struct Wanted {
    conditions: Vec<Condition>,
    sort: Vec<(&'static str, bool)>,
    marker: Option<String>,
    pub limit: u64,
}

/// SQL with `?` for each value.
struct Condition(String, Vec<Value>);

const SORT_KEYS: [&str; 8] =
    ["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"];
/// What no image is.
const NONE: &str = "1 = 0";
/// Not conditions on images.
const NO_FILTERS: [&str; 8] =
    ["limit", "marker", "sort", "sort_key", "sort_dir", "member_status", "visibility", "os_hidden"];

impl Wanted {
    pub fn parse(cx: &Context, query: &Query, limit_default: u64, limit_max: u64) -> Result<Self> {
        let mut wanted = Self {
            conditions: Vec::new(),
            sort: sort(query)?,
            marker: query.get("marker").map(str::to_string),
            limit: limit(query, limit_default)?.min(limit_max),
        };
        wanted.add("status <> ?", [Status::PendingDelete.store()]);
        wanted.visible(cx, query)?;
        let hidden = match query.get("os_hidden").map(str::to_lowercase).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(text) => {
                return Err(Error::bad_request(format!(
                    "Invalid value '{text}' for 'os_hidden' filter. Valid values are 'true' or 'false'."
                )));
            }
        };
        wanted.add("os_hidden = ?", [hidden.store()]);
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in &query.0 {
            if !NO_FILTERS.contains(&name.as_str()) && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        for name in names {
            wanted.filter(query, name)?;
        }
        Ok(wanted)
    }

    fn add(&mut self, sql: &str, values: impl IntoIterator<Item = Value>) {
        self.conditions.push(Condition(sql.into(), values.into_iter().collect()));
    }

    /// Upstream's rules of who sees what in a list.
    fn visible(&mut self, cx: &Context, query: &Query) -> Result<()> {
        let wanted = match query.get("visibility") {
            None | Some("all") => None,
            Some(text) => {
                let unknown = || Error::bad_request(format!("Invalid visibility value: {text}"));
                Some(Visibility::parse(text).ok_or_else(unknown)?)
            }
        };
        let all = query.get("visibility") == Some("all");
        let status = match query.get("member_status") {
            None | Some("") => Some(MemberStatus::Accepted),
            Some("all") => None,
            Some(text) => {
                let unknown = || Error::bad_request(format!("Invalid status: {text}"));
                Some(MemberStatus::parse(text).ok_or_else(unknown)?)
            }
        };
        if let Some(wanted) = wanted {
            self.add("visibility = ?", [wanted.store()]);
        }
        if cx.is_admin() && (wanted.is_none() || wanted != Some(Visibility::Shared)) {
            if wanted.is_none() && !all {
                self.add("(visibility <> 'community' OR owner = ?)", [cx.project_id.store()]);
            }
            return Ok(());
        }
        let shared = match status {
            Some(_) => "SELECT image_id FROM image_members WHERE member_id = ? AND status = ?",
            None => "SELECT image_id FROM image_members WHERE member_id = ?",
        };
        let open = match wanted {
            Some(Visibility::Community) => "visibility IN ('public', 'community')",
            _ if all => "visibility IN ('public', 'community')",
            _ => "visibility = 'public'",
        };
        let mut values = vec![cx.project_id.store(), cx.project_id.store()];
        values.extend(status.map(|status| status.store()));
        self.add(&format!("({open} OR owner = ? OR (visibility = 'shared' AND id IN ({shared})))"), values);
        Ok(())
    }

    fn filter(&mut self, query: &Query, name: &str) -> Result<()> {
        let value = query.get(name).unwrap_or_default();
        match name {
            "tag" => {
                for tag in query.all("tag") {
                    self.add("id IN (SELECT image_id FROM image_tags WHERE tag = ?)", [tag.store()]);
                }
            }
            "name" | "status" | "container_format" | "disk_format" | "id" => {
                let any: Vec<String> = match value.split_once(':') {
                    None if name == "name" && value.starts_with('"') => words(value)?,
                    None => vec![value.to_string()],
                    Some(("eq", text)) => vec![text.to_string()],
                    Some(("in", list)) => words(list)?,
                    Some((operator, _)) => {
                        let sentence = format!("Unable to filter by unknown operator '{operator}'.");
                        return Err(Error::bad_request(sentence));
                    }
                };
                match any.is_empty() {
                    true => self.add(NONE, []),
                    false => {
                        let places = vec!["?"; any.len()].join(", ");
                        self.add(&format!("{name} IN ({places})"), any.iter().map(Stored::store));
                    }
                }
            }
            "owner" | "checksum" | "os_hash_value" | "os_hash_algo" => {
                self.add(&format!("{name} = ?"), [value.store()]);
            }
            "protected" => {
                let flag = match value.to_lowercase().as_str() {
                    "true" => true,
                    "false" => false,
                    _ => {
                        return Err(Error::bad_request(format!(
                            "Invalid value '{value}' for 'protected' filter. Valid values are 'true' or 'false'."
                        )));
                    }
                };
                self.add("protected = ?", [flag.store()]);
            }
            "size_min" | "size_max" => {
                let not_numeric =
                    |_| Error::bad_request("Unable to filter on a range with a non-numeric value.");
                let number: i64 = value.parse().map_err(not_numeric)?;
                let operator = if name == "size_min" { ">=" } else { "<=" };
                self.add(&format!("size {operator} ?"), [number.store()]);
            }
            "size" | "min_ram" | "min_disk" => match value.parse::<i64>() {
                Ok(number) => self.add(&format!("{name} = ?"), [number.store()]),
                Err(_) => self.add(NONE, []),
            },
            "changes-since" => {
                let sentence = "The \"changes-since\" filter is no longer available on v2.";
                return Err(Error::bad_request(sentence));
            }
            "created_at" | "updated_at" => self.time(name, value)?,
            // Anything else is a property of one's own.
            _ => self.add(
                "id IN (SELECT image_id FROM image_properties WHERE name = ? AND value = ?)",
                [name.store(), value.store()],
            ),
        }
        Ok(())
    }

    /// `gte:2026-01-01T00:00:00Z`
    fn time(&mut self, column: &str, value: &str) -> Result<()> {
        let (operator, text) = match value.split_once(':') {
            Some((word, rest)) if word.chars().all(|c| c.is_ascii_alphabetic()) => (word, rest),
            _ => ("eq", value),
        };
        let malformed = || {
            let sentence = format!("Bad \"{column}\" query filter format. Use ISO 8601 DateTime notation.");
            Error::bad_request(sentence)
        };
        let of_year = || Timestamp::parse(&format!("{text}-01-01"));
        let time = Timestamp::parse(text).or_else(of_year).ok_or_else(malformed)?;
        let operator = match operator {
            "eq" => "=",
            "neq" => "<>",
            "gt" => ">",
            "gte" => ">=",
            "lt" => "<",
            "lte" => "<=",
            _ => return Err(Error::bad_request("Unable to filter on a unknown operator.")),
        };
        // Clients see whole seconds.
        self.add(&format!("{column} / 1000000 {operator} ?"), [time.unix_seconds().store()]);
        Ok(())
    }

    pub fn find(&self, tx: &mut Tx) -> Result<Vec<Image>> {
        if self.limit == 0 {
            return Ok(Vec::new());
        }
        let mut parts: Vec<String> = Vec::new();
        let mut params: Vec<Value> = Vec::new();
        let mut add = |sql: &str, values: &[Value]| {
            let mut values = values.iter();
            let mut numbered = String::new();
            for piece in sql.split_inclusive('?') {
                match (piece.strip_suffix('?'), values.next()) {
                    (Some(before), Some(value)) => {
                        params.push(value.clone());
                        numbered.push_str(&format!("{before}${}", params.len()));
                    }
                    _ => numbered.push_str(piece),
                }
            }
            parts.push(numbered);
        };
        for Condition(sql, values) in &self.conditions {
            add(sql, values);
        }
        if let Some(id) = &self.marker {
            let marker = tx.find::<Image>(id)?;
            let marker = marker.ok_or_else(|| Error::bad_request(format!("No image found with ID {id}")))?;
            let Condition(sql, values) = self.after(&marker);
            add(&sql, &values);
        }
        let order: Vec<String> = self
            .sort
            .iter()
            .map(|(column, ascending)| {
                format!("{} {}", comparable(column), if *ascending { "ASC" } else { "DESC" })
            })
            .collect();
        let columns: Vec<&str> = Image::TABLE.fields.iter().map(|field| field.column).collect();
        let sql = format!(
            "SELECT {} FROM images WHERE {} ORDER BY {} LIMIT {}",
            columns.join(", "),
            parts.join(" AND "),
            order.join(", "),
            self.limit
        );
        tx.query(&sql, &params)?.into_iter().map(Image::from_row).collect()
    }

    /// Behind the marker in this order.
    fn after(&self, marker: &Image) -> Condition {
        let values = marker.values();
        let value = |column: &str| {
            let place = Image::TABLE.fields.iter().position(|field| field.column == column).unwrap_or(0);
            match (&values[place], column) {
                (Value::Null, "size") => (-1i64).store(),
                (Value::Null, _) => "".store(),
                (value, _) => value.clone(),
            }
        };
        let mut alternatives = Vec::new();
        let mut params = Vec::new();
        for (number, (column, ascending)) in self.sort.iter().enumerate() {
            let mut terms = Vec::new();
            for (earlier, _) in &self.sort[..number] {
                terms.push(format!("{} = ?", comparable(earlier)));
                params.push(value(earlier));
            }
            terms.push(format!("{} {} ?", comparable(column), if *ascending { ">" } else { "<" }));
            params.push(value(column));
            alternatives.push(format!("({})", terms.join(" AND ")));
        }
        Condition(format!("({})", alternatives.join(" OR ")), params)
    }
}

/// Missing values sort first.
fn comparable(column: &str) -> String {
    match column {
        "size" => "COALESCE(size, -1)".into(),
        "name" | "container_format" | "disk_format" => format!("COALESCE({column}, '')"),
        column => column.into(),
    }
}

fn limit(query: &Query, default: u64) -> Result<u64> {
    let Some(text) = query.get("limit") else { return Ok(default) };
    match text.parse::<i64>() {
        // More than there can be.
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(u64::MAX),
        Err(_) => Err(Error::bad_request("limit param must be an integer")),
        Ok(number) => u64::try_from(number).map_err(|_| Error::bad_request("limit param must be positive")),
    }
}

/// `sort=name:asc,size` or the older pairs of `sort_key` and `sort_dir`.
fn sort(query: &Query) -> Result<Vec<(&'static str, bool)>> {
    let mut given: Vec<(String, String)> = Vec::new();
    let classic = query.has("sort_key") || query.has("sort_dir");
    if let Some(text) = query.get("sort") {
        if classic {
            return Err(Error::bad_request("Old and new sorting syntax cannot be combined"));
        }
        for part in text.split(',') {
            let (key, direction) = part.trim().split_once(':').unwrap_or((part.trim(), "desc"));
            given.push((key.trim().into(), direction.trim().into()));
        }
    } else {
        let keys: Vec<&str> = query.all("sort_key").collect();
        let directions: Vec<&str> = query.all("sort_dir").collect();
        let keys = if keys.is_empty() { vec!["created_at"] } else { keys };
        if directions.len() > 1 && directions.len() != keys.len() {
            return Err(Error::bad_request("Number of sort dirs does not match the number of sort keys"));
        }
        for (number, key) in keys.into_iter().enumerate() {
            let direction = directions.get(number).or(directions.first()).copied().unwrap_or("desc");
            given.push((key.trim().into(), direction.into()));
        }
    }
    let mut sort = Vec::new();
    for (key, direction) in given {
        let Some(key) = SORT_KEYS.into_iter().find(|known| *known == key) else {
            return Err(Error::bad_request(format!(
                "Invalid sort key: {key}. It must be one of the following: {}.",
                SORT_KEYS.join(", ")
            )));
        };
        let ascending = match direction.as_str() {
            "asc" => true,
            "desc" => false,
            other => return Err(Error::bad_request(format!("Invalid sort direction: {other}"))),
        };
        sort.push((key, ascending));
    }
    let last = sort.last().is_some_and(|(_, ascending)| *ascending);
    for key in ["created_at", "id"] {
        if !sort.iter().any(|(known, _)| *known == key) {
            sort.push((key, last));
        }
    }
    Ok(sort)
}

/// `a,"b,c"`: commas within quotes separate nothing, and words without letters are none.
fn words(text: &str) -> Result<Vec<String>> {
    check_quotes(text)?;
    let mut found = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' if quoted => found.last_mut().into_iter().for_each(|word| word.extend(letters.next())),
            ',' if !quoted => found.push(String::new()),
            letter => found.last_mut().into_iter().for_each(|word| word.push(letter)),
        }
    }
    found.retain(|word| !word.is_empty());
    Ok(found)
}

/// Quotes are around whole words.
fn check_quotes(text: &str) -> Result<()> {
    let invalid = |why: &str| Error::bad_request(format!("Invalid filter value {text}. {why}"));
    let bytes = text.as_bytes();
    let mut is_open = false;
    for at in (0..bytes.len()).filter(|at| bytes[*at] == b'"') {
        let (before, after) = (at.checked_sub(1).map(|at| bytes[at]), bytes.get(at + 1));
        match (is_open, before, after) {
            (_, Some(b'\\'), _) => continue,
            (false, Some(byte), _) if byte != b',' => {
                return Err(invalid("There is no comma before opening quotation mark."));
            }
            (true, _, Some(byte)) if *byte != b',' => {
                return Err(invalid("There is no comma after closing quotation mark."));
            }
            _ => is_open = !is_open,
        }
    }
    match is_open {
        true => Err(invalid("The quote is not closed.")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_quotes() {
        assert_eq!(words("a,b").unwrap(), ["a", "b"]);
        assert_eq!(words("\"a,b\",c").unwrap(), ["a,b", "c"]);
        assert_eq!(words("").unwrap(), [""; 0]);
        assert_eq!(words("a,,\"\"").unwrap(), ["a"]);
        for wrong in ["\"a", "a\"b\"", "\"a\"b"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn orders() {
        let of = |text: &str| sort(&Query::parse(text));
        assert_eq!(of("").unwrap(), [("created_at", false), ("id", false)]);
        assert_eq!(
            of("sort=name:asc,size").unwrap(),
            [("name", true), ("size", false), ("created_at", false), ("id", false)]
        );
        for wrong in [
            "sort=colour",
            "sort_dir=up",
            "sort=name&sort_key=size",
            "sort_key=name&sort_dir=asc&sort_dir=asc",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
