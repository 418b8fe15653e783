//! Makes two answers comparable: ids, times, addresses of services, tokens and passwords become placeholders.

use fancy_regex::{Captures, Regex};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const HEADERS: [&str; 17] = [
    "allow",
    "content-type",
    "content-md5",
    "location",
    "link",
    "openstack-api-maximum-version",
    "openstack-api-minimum-version",
    "openstack-api-version",
    "openstack-image-store-ids",
    "retry-after",
    "vary",
    "www-authenticate",
    "x-openstack-nova-api-version",
    "x-openstack-request-id",
    "x-compute-request-id",
    "x-subject-token",
    "cache-control",
];

/// Keys whose values are secret or random, wherever they stand.
const MASKED: [(&str, &str); 5] = [
    ("adminPass", "<password>"),
    ("audit_ids", "<audit-ids>"),
    ("mac_address", "<mac>"),
    ("OS-EXT-IPS-MAC:mac_addr", "<mac>"),
    ("private_key", "<private-key>"),
];

/// Values of one run that stand in answers by their names.
#[derive(Default, Clone)]
pub struct Names {
    /// Text as it stands in answers → placeholder.
    known: Vec<(String, String)>,
}

impl Names {
    /// A url of the cloud, with its placeholder spelled out.
    pub fn add_text(&mut self, text: &str, placeholder: &str) {
        if !text.is_empty() && !self.known.iter().any(|(known, _)| known == text) {
            self.known.push((text.to_owned(), placeholder.to_owned()));
            self.known.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        }
    }

    /// A captured value. Short words would be found inside of others, so only ids, tokens and the like are named.
    pub fn add(&mut self, name: &str, value: &str) {
        let kind = match value.len() {
            36 if UUID.is_match(value).unwrap_or(false) => "uuid:",
            32 if HEX.is_match(value).unwrap_or(false) => "hex:",
            8.. if value.bytes().any(|b| b.is_ascii_digit())
                && !value.contains("://")
                && !value.contains('.') =>
            {
                ""
            }
            _ => return,
        };
        self.add_text(value, &format!("<{kind}{name}>"));
    }

    pub fn mentions(&self, text: &str) -> bool {
        let common = |placeholder: &str| placeholder.ends_with("-url>") || placeholder.ends_with("_role>");
        self.known.iter().any(|(known, placeholder)| !common(placeholder) && text.contains(known.as_str()))
    }

    fn replace(&self, text: &str) -> String {
        self.known
            .iter()
            .fold(text.to_owned(), |text, (known, placeholder)| text.replace(known.as_str(), placeholder))
    }
}

macro_rules! pattern {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($text).expect("a constant pattern, compiled by the tests"));
    };
}
pattern!(UUID, "(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])");
pattern!(HEX, "(?<![0-9a-zA-Z])[0-9a-f]{32}(?![0-9a-zA-Z])");
pattern!(REQUEST_ID, "req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}");
pattern!(TIME, r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ])[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?");
pattern!(MAC, "fa:16:3e(:[0-9a-f]{2}){3}");
pattern!(EUI64, "f816:3eff:fe[0-9a-f]{2}:[0-9a-f]{1,4}");
pattern!(TOKEN, "gAAAA[0-9A-Za-z_=-]{80,}");

/// What a step asks of normalisation beyond the rules for all.
#[derive(Default)]
pub struct Rules {
    /// Keys left out wherever they stand.
    pub ignore: Vec<String>,
    /// Keys whose value is replaced by a placeholder.
    pub mask: Map<String, Value>,
    /// Sort lists: for answers whose order is not promised.
    pub unordered: Unordered,
    /// Keep of this list only what mentions something of this run: for lists shared with others.
    pub ours: Option<String>,
    /// Keep only so many items of each list.
    pub cut: Option<usize>,
}

#[derive(Default)]
pub enum Unordered {
    #[default]
    None,
    All,
    /// The lists below these keys.
    Keys(Vec<String>),
}

/// Normalises one answer. Ids without a name are numbered in the order of sorted keys, so two
/// answers with the same content give the same text.
pub struct Normaliser<'a> {
    names: &'a Names,
    rules: &'a Rules,
    numbers: BTreeMap<String, usize>,
}

impl<'a> Normaliser<'a> {
    pub fn new(names: &'a Names, rules: &'a Rules) -> Self {
        Normaliser { names, rules, numbers: BTreeMap::new() }
    }

    pub fn headers(&mut self, headers: &[(String, String)]) -> Map<String, Value> {
        let mut kept: Vec<_> = headers
            .iter()
            .filter(|(name, _)| HEADERS.contains(&name.as_str()) && !self.rules.ignore.contains(name))
            .collect();
        kept.sort();
        let mut text =
            |name: &str, value: &str| if name == "allow" { methods(value) } else { self.text(value) };
        kept.iter().map(|(name, value)| (name.clone(), Value::String(text(name, value)))).collect()
    }

    pub fn body(&mut self, body: &Value) -> Value {
        let mut body = sorted(body);
        if let Some(list) = self.rules.ours.as_deref() {
            self.keep_ours(&mut body, list);
        }
        let body = self.shape(body);
        self.number(body)
    }

    pub fn text(&mut self, text: &str) -> String {
        let text = self.names.replace(text);
        let text = substitute(&REQUEST_ID, &text, |_| "<request-id>".to_owned());
        let text = substitute(&TOKEN, &text, |_| "<token>".to_owned());
        let text = substitute(&UUID, &text, |found| self.numbered("uuid", &found[0]));
        let text = substitute(&HEX, &text, |found| self.numbered("hex", &found[0]));
        let text = substitute(&MAC, &text, |_| "<mac>".to_owned());
        let text = substitute(&EUI64, &text, |_| "<eui64>".to_owned());
        substitute(&TIME, &text, |found| {
            let gap = if &found[1] == " " { " " } else { "" };
            let digits = found.get(2).map_or(0, |fraction| fraction.as_str().len().saturating_sub(1));
            format!(
                "<{gap}time{}>",
                if digits > 0 { format!(".{}", "f".repeat(digits)) } else { String::new() }
            )
        })
    }

    fn numbered(&mut self, kind: &str, id: &str) -> String {
        let next = self.numbers.len() + 1;
        format!("<{kind}:{}>", self.numbers.entry(id.to_owned()).or_insert(next))
    }

    /// The list may lie deep ("a.b") or be the values of a mapping.
    fn keep_ours(&self, body: &mut Value, list: &str) {
        let inner = list.split('.').try_fold(body, |value, key| value.get_mut(key));
        match inner {
            Some(Value::Array(items)) => items.retain(|item| self.names.mentions(&item.to_string())),
            Some(Value::Object(map)) => {
                map.retain(|key, value| self.names.mentions(&format!("{key} {value}")))
            }
            _ => {}
        }
    }

    /// Drops, masks, cuts and sorts, while ids are still themselves.
    fn shape(&self, value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let kept = map.into_iter().filter(|(key, _)| !self.rules.ignore.contains(key));
                Value::Object(kept.map(|(key, value)| self.shape_field(key, value)).collect())
            }
            Value::Array(items) => {
                let mut items: Vec<Value> = items.into_iter().map(|item| self.shape(item)).collect();
                if matches!(self.rules.unordered, Unordered::All) {
                    self.sort(&mut items);
                }
                items.truncate(self.rules.cut.unwrap_or(usize::MAX));
                Value::Array(items)
            }
            other => other,
        }
    }

    fn shape_field(&self, key: String, value: Value) -> (String, Value) {
        if value.is_null() {
            return (key, value);
        }
        if let Some(placeholder) = self.rules.mask.get(&key) {
            return (key, placeholder.clone());
        }
        if let Some((_, placeholder)) = MASKED.iter().find(|(masked, _)| *masked == key) {
            return (key, Value::String((*placeholder).to_owned()));
        }
        let mut value = self.shape(value);
        if let (Unordered::Keys(keys), Value::Array(items)) = (&self.rules.unordered, &mut value)
            && keys.contains(&key)
        {
            self.sort(items);
        }
        (key, value)
    }

    /// By what the items say when ids have no numbers from elsewhere.
    fn sort(&self, items: &mut [Value]) {
        items.sort_by_cached_key(|item| {
            Normaliser::new(self.names, self.rules).number(item.clone()).to_string()
        });
    }

    fn number(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.number(item)).collect()),
            Value::Object(map) => {
                let fields = map.into_iter().map(|(key, value)| {
                    let key = self.text(&key);
                    (key, self.number(value))
                });
                Value::Object(fields.collect())
            }
            other => other,
        }
    }
}

/// The order of methods is chance, and only some name those that every resource has.
fn methods(allow: &str) -> String {
    let mut methods: Vec<&str> =
        allow.split(", ").filter(|method| !["HEAD", "OPTIONS"].contains(method)).collect();
    methods.sort_unstable();
    methods.join(", ")
}

fn substitute(pattern: &Regex, text: &str, mut by: impl FnMut(&Captures<str>) -> String) -> String {
    pattern.replace_all(text, |found: &Captures<str>| by(found)).into_owned()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            Value::Object(fields.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Every difference between two normalised values, as lines that say where.
pub fn differences(at: &str, expected: &Value, actual: &Value, out: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                match actual.get(key) {
                    Some(found) => differences(&format!("{at}.{key}"), value, found, out),
                    None => out.push(format!("{at}.{key}: missing, expected {value}")),
                }
            }
            let extra = actual.iter().filter(|(key, _)| !expected.contains_key(*key));
            out.extend(extra.map(|(key, value)| format!("{at}.{key}: not expected, got {value}")));
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.len() != actual.len() {
                out.push(format!("{at}: {} items expected, got {}", expected.len(), actual.len()));
            }
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                differences(&format!("{at}[{index}]"), expected, actual, out);
            }
        }
        _ if expected == actual => {}
        _ => out.push(format!("{at}: expected {expected}, got {actual}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn normal(rules: &Rules, names: &Names, body: Value) -> Value {
        Normaliser::new(names, rules).body(&body)
    }

    #[test]
    fn ids_times_and_addresses_become_placeholders() {
        let mut names = Names::default();
        names.add_text("http://10.0.0.1:5000", "<identity-url>");
        names.add("project", "0123456789abcdef0123456789abcdef");
        let body = json!({
            "b": "3c2dff5d-0a47-4ee6-b7e5-9e44b5b2a1aa",
            "a": {"x": "3c2dff5d-0a47-4ee6-b7e5-9e44b5b2a1aa", "y": "ffffffffffffffffffffffffffffffff"},
            "links": ["http://10.0.0.1:5000/v3/projects/0123456789abcdef0123456789abcdef"],
            "t": ["2026-11-21T03:25:36Z", "2026-11-21T03:25:36.123456", "2026-11-21 03:25:36"],
            "adminPass": "x", "mac": "fa:16:3e:00:11:22", "none": null, "n": 3,
        });
        let expected = json!({
            "a": {"x": "<uuid:1>", "y": "<hex:2>"}, "adminPass": "<password>", "b": "<uuid:1>",
            "links": ["<identity-url>/v3/projects/<hex:project>"], "mac": "<mac>", "n": 3, "none": null,
            "t": ["<time>Z", "<time.ffffff>", "< time>"],
        });
        assert_eq!(normal(&Rules::default(), &names, body), expected);
    }

    #[test]
    fn lists_are_cut_to_ours_and_sorted() {
        let mut names = Names::default();
        names.add("run", "zq123456");
        let rules = Rules { ours: Some("items".into()), unordered: Unordered::All, ..Rules::default() };
        let body = json!({"items": [{"name": "b-zq123456"}, {"name": "foreign"}, {"name": "a-zq123456"}]});
        assert_eq!(
            normal(&rules, &names, body),
            json!({"items": [{"name": "a-<run>"}, {"name": "b-<run>"}]})
        );
    }

    #[test]
    fn differences_say_where() {
        let mut out = Vec::new();
        differences("body", &json!({"a": [1, 2], "b": 1}), &json!({"a": [1], "c": 1}), &mut out);
        assert_eq!(
            out,
            ["body.a: 2 items expected, got 1", "body.b: missing, expected 1", "body.c: not expected, got 1"]
        );
    }
}
