//! What part of a list is asked for, the walk over it, and its forms: text, JSON and XML.

use crate::answer::{Answer, Outcome, refuse, refuse_page};
use crate::call::Call;
use base::{Json, Result};
use quick_xml::escape::escape;
use std::fmt::Write;
use web::StatusCode;

/// No name in UTF-8 has this byte: behind every name.
const END: &[u8] = &[0xff];
/// With a delimiter many rows may come to one line, so they are read in small steps.
const STEP: usize = 128;

/// The part of a list that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub prefix: String,
    pub delimiter: String,
    pub marker: String,
    pub end_marker: String,
    pub path: Option<String>,
    pub limit: usize,
    pub reverse: bool,
}

#[derive(Clone, Debug)]
pub enum Item<T> {
    Row(T),
    Subdir(String),
}

impl Wanted {
    pub fn of(call: &Call, limit_max: usize) -> Outcome<Self> {
        let text = |name: &str| call.query.get(name).unwrap_or_default().to_string();
        let given = call.query.get("limit").and_then(|text| text.parse::<usize>().ok());
        if given.is_some_and(|limit| limit > limit_max) {
            return Err(refuse_page(412, format!("Maximum limit is {limit_max}")));
        }
        let path = call.query.get("path").map(str::to_string);
        let mut wanted = Self {
            prefix: text("prefix"),
            delimiter: text("delimiter"),
            marker: text("marker"),
            end_marker: text("end_marker"),
            path: None,
            limit: given.unwrap_or(limit_max),
            reverse: call.query.get("reverse").is_some_and(crate::call::is_true),
        };
        if let Some(path) = path {
            let trimmed = path.trim_end_matches('/');
            wanted.prefix = if path.is_empty() { path } else { format!("{trimmed}/") };
            wanted.delimiter = "/".into();
            wanted.path = Some(wanted.prefix.clone());
        }
        Ok(wanted)
    }

    /// Where names begin (included) and end (not included).
    fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        let (after, before) = match self.reverse {
            false => (&self.marker, &self.end_marker),
            true => (&self.end_marker, &self.marker),
        };
        let mut low = if after.is_empty() { Vec::new() } else { next(after.as_bytes()) };
        let mut high = if before.is_empty() { END.to_vec() } else { before.as_bytes().to_vec() };
        low = low.max(self.prefix.as_bytes().to_vec());
        if !self.prefix.is_empty() {
            high = high.min(behind(self.prefix.as_bytes()));
        }
        (low, high)
    }

    /// Reads rows between two names in order, at most so many, until the list is as long as was asked. What reads says
    /// whether there are no more.
    pub fn walk<T>(
        &self,
        mut fetch: impl FnMut(&[u8], &[u8], usize) -> Result<(Vec<T>, bool)>,
        name_of: impl Fn(&T) -> String,
    ) -> Result<Vec<Item<T>>> {
        let (mut low, mut high) = self.bounds();
        let mut items = Vec::new();
        while items.len() < self.limit && low < high {
            let step = match self.delimiter.is_empty() {
                true => self.limit - items.len(),
                false => STEP.min(self.limit.max(2)),
            };
            let (rows, is_last) = fetch(&low, &high, step)?;
            let mut inside: Option<String> = None;
            for row in rows {
                let name = name_of(&row);
                if inside.as_ref().is_some_and(|directory| name.starts_with(directory.as_str())) {
                    continue;
                }
                match self.reverse {
                    false => low = next(name.as_bytes()),
                    true => high = name.as_bytes().to_vec(),
                }
                inside = self.directory(&name);
                match &inside {
                    Some(directory) if self.path.is_some() => {
                        if *directory == name && self.path.as_deref() != Some(name.as_str()) {
                            items.push(Item::Row(row));
                        }
                    }
                    Some(directory) => {
                        if *directory != self.marker {
                            items.push(Item::Subdir(directory.clone()));
                        }
                    }
                    None if self.path.as_deref() == Some(name.as_str()) => {}
                    None => items.push(Item::Row(row)),
                }
                if items.len() >= self.limit {
                    break;
                }
            }
            match (&inside, self.reverse) {
                (Some(directory), false) => low = low.max(behind(directory.as_bytes())),
                (Some(directory), true) => high = high.min(directory.as_bytes().to_vec()),
                (None, _) if is_last => break,
                (None, _) => {}
            }
        }
        Ok(items)
    }

    /// The directory below the prefix that the name is in.
    fn directory(&self, name: &str) -> Option<String> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = name.strip_prefix(&self.prefix)?;
        let end = self.prefix.len() + rest.find(&self.delimiter)? + self.delimiter.len();
        Some(name[..end].to_string())
    }
}

/// The name that follows immediately.
fn next(name: &[u8]) -> Vec<u8> {
    [name, &[0]].concat()
}

/// The first name that does not begin so.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    // UTF-8 has no byte 0xff, so the last can always be counted up.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
    Xml,
    TextXml,
}

impl Form {
    /// By `format`, else by what the client accepts best.
    pub fn of(call: &Call) -> Outcome<Self> {
        if let Some(format) = call.query.get("format").filter(|format| !format.is_empty()) {
            return Ok(match format.to_lowercase().as_str() {
                "json" => Self::Json,
                "xml" => Self::Xml,
                _ => Self::Text,
            });
        }
        match call.header("accept").map(str::trim) {
            None | Some("") => Ok(Self::Text),
            Some(accept) => accepted(accept)?.ok_or_else(|| refuse(406)),
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
            Self::TextXml => "text/xml; charset=utf-8",
        }
    }
}

/// The form that is accepted best; none: none is.
pub fn accepted(accept: &str) -> Outcome<Option<Form>> {
    const OFFERED: [(&str, Form); 4] = [
        ("text/plain", Form::Text),
        ("application/json", Form::Json),
        ("application/xml", Form::Xml),
        ("text/xml", Form::TextXml),
    ];
    let mut best: Option<(f64, usize, Form)> = None;
    for range in accept.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let (major, minor) = kind.split_once('/').ok_or_else(|| refuse_page(400, "Invalid Accept header"))?;
        let mut quality = 1.0;
        for parameter in parts {
            if let Some(text) = parameter.strip_prefix("q=") {
                quality = text.parse().map_err(|_| refuse_page(400, "Invalid Accept header"))?;
            }
        }
        for (place, (offered, form)) in OFFERED.iter().enumerate() {
            let fits = match (major, minor) {
                ("*", "*") => true,
                (major, "*") => offered.starts_with(&format!("{major}/")),
                _ => *offered == kind,
            };
            let better = best.is_none_or(|(q, at, _)| quality > q || (quality == q && place < at));
            if fits && quality > 0.0 && better {
                best = Some((quality, place, *form));
            }
        }
    }
    Ok(best.map(|(.., form)| form))
}

/// What stands around a list in XML.
pub struct Around<'a> {
    /// `account` or `container`.
    pub element: &'a str,
    pub name: &'a str,
    /// The element of a line, and its fields in order.
    pub line: &'a str,
    pub fields: &'a [&'a str],
}

/// The list, each line an object with `name` or `subdir`.
pub fn answer(form: Form, lines: &[Json], around: &Around) -> Answer {
    let body = match form {
        Form::Text => lines.iter().fold(String::new(), |text, line| {
            let name = line["name"].as_str().or(line["subdir"].as_str()).unwrap_or_default();
            text + name + "\n"
        }),
        Form::Json => Json::from(lines.to_vec()).to_string(),
        Form::Xml | Form::TextXml => xml(lines, around),
    };
    let status = if body.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::OK };
    Answer::with(status, form.media_type(), body)
}

fn xml(lines: &[Json], around: &Around) -> String {
    let Around { element, name, line: kind, fields } = around;
    let mut text =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{element} name=\"{}\">", escape(*name));
    let is_account = *element == "account";
    if lines.is_empty() && !is_account {
        let end = text.len() - 1;
        text.replace_range(end.., " />");
        return text;
    }
    if is_account {
        text.push('\n');
    }
    for line in lines {
        match line["subdir"].as_str().map(escape) {
            Some(subdir) if is_account => drop(write!(text, "<subdir name=\"{subdir}\" />")),
            Some(subdir) => drop(write!(text, "<subdir name=\"{subdir}\"><name>{subdir}</name></subdir>")),
            None => {
                let _ = write!(text, "<{kind}>");
                for field in *fields {
                    let value = match &line[*field] {
                        Json::String(value) => value.clone(),
                        other => other.to_string(),
                    };
                    let _ = write!(text, "<{field}>{}</{field}>", escape(value.as_str()));
                }
                let _ = write!(text, "</{kind}>");
            }
        }
        if is_account {
            text.push('\n');
        }
    }
    text + &format!("</{element}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str], wanted: Wanted) -> Vec<String> {
        let mut names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        names.sort();
        let wanted = Wanted { limit: if wanted.limit == 0 { 100 } else { wanted.limit }, ..wanted };
        let reverse = wanted.reverse;
        let fetch = |low: &[u8], high: &[u8], limit: usize| {
            let mut found: Vec<String> =
                names.iter().filter(|n| n.as_bytes() >= low && n.as_bytes() < high).cloned().collect();
            if reverse {
                found.reverse();
            }
            let is_last = found.len() < limit;
            found.truncate(limit);
            Ok((found, is_last))
        };
        let items = wanted.walk(fetch, String::clone).unwrap();
        let shown = |item: Item<String>| match item {
            Item::Row(name) => name,
            Item::Subdir(name) => format!("[{name}]"),
        };
        items.into_iter().map(shown).collect()
    }

    #[test]
    fn parts_of_a_list() {
        const NAMES: &[&str] = &["a", "b/", "b/1", "b/2", "b/c/1", "c", "é/1"];
        let text = String::from;
        let all = Wanted::default();
        let cases = [
            (Wanted { ..all.clone() }, "a b/ b/1 b/2 b/c/1 c é/1"),
            (Wanted { marker: text("b/1"), ..all.clone() }, "b/2 b/c/1 c é/1"),
            (Wanted { end_marker: text("b/1"), ..all.clone() }, "a b/"),
            (Wanted { prefix: text("b/"), limit: 2, ..all.clone() }, "b/ b/1"),
            (Wanted { delimiter: text("/"), ..all.clone() }, "a [b/] c [é/]"),
            (Wanted { delimiter: text("/"), limit: 2, ..all.clone() }, "a [b/]"),
            (Wanted { delimiter: text("/"), marker: text("b/"), ..all.clone() }, "c [é/]"),
            (Wanted { delimiter: text("/"), prefix: text("b/"), ..all.clone() }, "b/ b/1 b/2 [b/c/]"),
            (Wanted { delimiter: text("/"), reverse: true, ..all.clone() }, "[é/] c [b/] a"),
            (Wanted { reverse: true, marker: text("b/2"), end_marker: text("a"), ..all.clone() }, "b/1 b/"),
            (
                Wanted { path: Some(text("b/")), prefix: text("b/"), delimiter: text("/"), ..all.clone() },
                "b/1 b/2",
            ),
            (Wanted { path: Some(text("")), delimiter: text("/"), ..all.clone() }, "a b/ c"),
        ];
        for (wanted, expected) in cases {
            let shown = format!("{wanted:?}");
            assert_eq!(list(NAMES, wanted).join(" "), expected, "{shown}");
        }
    }

    #[test]
    fn a_directory_is_one_line_however_much_is_in_it() {
        let names: Vec<String> = (0..1000).map(|n| format!("d{}/{n:04}", n % 3)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for reverse in [false, true] {
            let listed = list(&names, Wanted { delimiter: "/".into(), reverse, ..Wanted::default() });
            let mut expected = vec!["[d0/]", "[d1/]", "[d2/]"];
            if reverse {
                expected.reverse();
            }
            assert_eq!(listed, expected);
        }
    }

    #[test]
    fn what_is_accepted() {
        let form = |accept: &str| accepted(accept).ok();
        assert_eq!(form("*/*"), Some(Some(Form::Text)));
        assert_eq!(form("application/*"), Some(Some(Form::Json)));
        assert_eq!(form("text/xml;q=0.9, application/json;q=0.5"), Some(Some(Form::TextXml)));
        assert_eq!(form("image/png"), Some(None));
        assert_eq!(form("json"), None);
    }

    #[test]
    fn xml_is_escaped() {
        let lines = [serde_json::json!({"name": "<&>", "count": 1}), serde_json::json!({"subdir": "\"/"})];
        let around =
            Around { element: "account", name: "a&b", line: "container", fields: &["name", "count"] };
        assert_eq!(
            xml(&lines, &around),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<account name=\"a&amp;b\">\n\
             <container><name>&lt;&amp;&gt;</name><count>1</count></container>\n<subdir name=\"&quot;/\" />\n</account>"
        );
    }
}
