//! A scenario file: what it says (parse) and how it is written back with new expectations (write).
//! The format is described in `compat/README.md`.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Keys of the file and of a step, in the order in which they are written.
const FILE_KEYS: [&str; 10] =
    ["about", "service", "as", "microversion", "ignore", "mask", "needs", "setup", "steps", "cleanup"];
const STEP_KEYS: [&str; 18] = [
    "name",
    "as",
    "request",
    "microversion",
    "headers",
    "body",
    "raw",
    "until",
    "capture",
    "ours",
    "unordered",
    "ignore",
    "mask",
    "cut",
    "differs",
    "unchecked",
    "expect",
    "note",
];

pub struct Scenario {
    pub path: PathBuf,
    /// Comment lines at the top, kept when the file is written back.
    comments: String,
    file: Map<String, Value>,
    pub setup: Vec<Step>,
    pub steps: Vec<Step>,
    pub cleanup: Vec<Step>,
}

#[derive(Clone)]
pub struct Step(pub Map<String, Value>);

impl Scenario {
    pub fn read(path: &Path) -> Result<Scenario> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Scenario::parse(path, &text).with_context(|| path.display().to_string())
    }

    pub fn parse(path: &Path, text: &str) -> Result<Scenario> {
        let comments: String =
            text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let Value::Object(mut file) = serde_yaml_ng::from_str(text)? else { bail!("not a mapping") };
        check_keys(&file, &FILE_KEYS)?;
        let setup = steps_of(&mut file, "setup")?;
        let steps = steps_of(&mut file, "steps")?;
        let cleanup = steps_of(&mut file, "cleanup")?;
        Ok(Scenario { path: path.to_owned(), comments, file, setup, steps, cleanup })
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.file.get(key).and_then(Value::as_str)
    }

    /// A key of the step, or the file's value for all steps.
    pub fn setting<'a>(&'a self, step: &'a Step, key: &str) -> Option<&'a Value> {
        step.0.get(key).or_else(|| self.file.get(key))
    }

    pub fn write(&self) -> Result<()> {
        let mut out = self.comments.clone();
        for key in &FILE_KEYS[..7] {
            if let Some(value) = self.file.get(*key) {
                out.push_str(&format!("{key}:"));
                write_value(&mut out, value, 2, key.len() + 1);
            }
        }
        for (key, steps) in [("setup", &self.setup), ("steps", &self.steps), ("cleanup", &self.cleanup)] {
            if steps.is_empty() {
                continue;
            }
            out.push_str(&format!("{key}:\n"));
            steps.iter().for_each(|step| step.write(&mut out));
        }
        std::fs::write(&self.path, out)?;
        Ok(())
    }
}

impl Step {
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn title(&self) -> String {
        let request = self.text("request").unwrap_or_default();
        self.text("name").map_or(request.to_owned(), |name| format!("{name} ({request})"))
    }

    fn write(&self, out: &mut String) {
        let bare = self.0.len() == 1 && self.0.contains_key("request");
        if bare && let Some(request) = self.text("request") {
            out.push_str(&format!("- {}\n", scalar(request)));
            return;
        }
        let mut lead = "- ";
        for key in STEP_KEYS {
            let Some(value) = self.0.get(key) else { continue };
            out.push_str(&format!("{lead}{key}:"));
            write_value(out, value, 4, key.len() + 3);
            lead = "  ";
        }
    }
}

fn steps_of(file: &mut Map<String, Value>, key: &str) -> Result<Vec<Step>> {
    let Some(steps) = file.remove(key) else { return Ok(Vec::new()) };
    let Value::Array(steps) = steps else { bail!("{key} is not a list") };
    steps.into_iter().map(step_of).collect()
}

/// A step is a mapping, or the request alone.
fn step_of(step: Value) -> Result<Step> {
    match step {
        Value::String(request) => Ok(Step(Map::from_iter([("request".to_owned(), Value::String(request))]))),
        Value::Object(step) => {
            check_keys(&step, &STEP_KEYS)?;
            Ok(Step(step))
        }
        other => bail!("not a step: {other}"),
    }
}

fn check_keys(map: &Map<String, Value>, known: &[&str]) -> Result<()> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => bail!("unknown key {key:?}; known are {known:?}"),
        None => Ok(()),
    }
}

const WIDTH: usize = 110;

/// Writes a value after its `key:`, on the same line when it fits, else as a block.
fn write_value(out: &mut String, value: &Value, indent: usize, used: usize) {
    let flow = inline(value);
    let leaf = !(value.is_array() || value.is_object()) || flow == "[]" || flow == "{}";
    if leaf || used + indent + flow.chars().count() < WIDTH {
        out.push_str(&format!(" {flow}\n"));
        return;
    }
    out.push('\n');
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = scalar(key);
                out.push_str(&format!("{pad}{key}:"));
                write_value(out, value, indent + 2, key.len() + 1);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| write_item(out, item, indent)),
        _ => unreachable!("scalars are written inline"),
    }
}

fn write_item(out: &mut String, item: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    let flow = inline(item);
    match item {
        Value::Object(map) if indent + 2 + flow.chars().count() >= WIDTH => {
            let mut lead = format!("{pad}- ");
            for (key, value) in map {
                let key = scalar(key);
                out.push_str(&format!("{lead}{key}:"));
                write_value(out, value, indent + 4, key.len() + 3);
                lead = format!("{pad}  ");
            }
        }
        _ => out.push_str(&format!("{pad}- {flow}\n")),
    }
}

/// Flow style; strings are plain where YAML reads them back as the same string.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{}: {}", scalar(key), inline(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

fn scalar(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./<>$ ()=+;:".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || "/<$".contains(c))
        && (!text.contains(':') || text.starts_with(['<', '/']))
        && !text.contains(": ")
        && !text.ends_with([' ', ':'])
        && matches!(serde_yaml_ng::from_str::<Value>(text), Ok(Value::String(ref read)) if read == text);
    if plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let value = json!({
            "yes": "yes", "no": "no", "null": "null", "number": "12", "float": 1.5, "empty": "", "list": [], "map": {},
            "colon": "a: b", "hash": "a #b", "quote": "it's \"so\"", "newline": "a\nb", "time": "<time>Z", "id": "<uuid:1>",
            "deep": [{"a": [{"b": "x".repeat(120)}, [1, 2]], "é": "ü"}, "y".repeat(150)],
            "long": {"a": "x".repeat(60), "b": {"c": "x".repeat(60)}},
        });
        let mut text = "key:".to_owned();
        write_value(&mut text, &value, 2, 4);
        let read: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(read["key"], value, "{text}");
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in ["stpes: []", "steps: [{reqest: GET /}]", "steps: 1", "steps: [1]"] {
            assert!(Scenario::parse(Path::new("x"), text).is_err(), "{text}");
        }
    }

    /// What a microversion changed is seen by the same request just below it and with it.
    #[test]
    fn every_microversion_of_placement_shows_its_change() {
        const OF_VERSIONS: [&str; 3] = ["openstack-api-version", "vary", "x-openstack-request-id"];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat/placement");
        let mut asked = Vec::new();
        for path in crate::files_below(&folder).unwrap() {
            let scenario = Scenario::read(&path).unwrap();
            for step in &scenario.steps {
                let Some(name) = step.0.get("name").and_then(Value::as_str) else { continue };
                let Some(version) = scenario.setting(step, "microversion").and_then(Value::as_str) else {
                    continue;
                };
                let request = (step.0.get("request").cloned(), step.0.get("body").cloned());
                let mut expected = step.0["expect"].clone();
                if let Some(headers) = expected["headers"].as_object_mut() {
                    headers.retain(|name, _| !OF_VERSIONS.contains(&name.as_str()));
                }
                asked.push((name.to_owned(), version.to_owned(), request, expected));
            }
        }
        let shown = |minor: u32| {
            let of = |version: u32| {
                let (name, version) = (format!("1.{minor}: "), format!("1.{version}"));
                asked.iter().filter(move |step| step.0.starts_with(&name) && step.1 == version)
            };
            of(minor - 1).any(|below| of(minor).any(|with| below.2 == with.2 && below.3 != with.3))
        };
        let not_shown: Vec<u32> = (1..=39).filter(|minor| !shown(*minor)).collect();
        assert_eq!(not_shown, [0u32; 0]);
    }
}
