//! JSON schema for bodies and queries with the error texts of Python's jsonschema, which OpenStack's clients
//! and tests read. Of several errors it picks the one that library picks: the first, or its `best_match`.
//!
//! Our own evaluator because the texts, their order and Python's idea of types are the point, and the
//! schemas use a small part of the language; what is not understood here is refused when the schema is made.

mod evaluate;
pub mod formats;
pub mod python;
mod wording;

pub use formats::{Format, Verdict};

use base::Json;
use fancy_regex::Regex;
use std::collections::HashMap;

/// Which rules of the language hold: keystone, nova and placement use the newer, cinder the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Draft2020,
    Draft4,
}

/// A schema, its patterns compiled. Make one per request form, in a `LazyLock`.
pub struct Schema {
    root: Json,
    dialect: Dialect,
    /// Nova's and cinder's limits also hold for numbers sent as strings.
    limits_read_strings: bool,
    formats: &'static [(&'static str, Format)],
    patterns: HashMap<String, Regex>,
}

/// What is wrong, and where.
#[derive(Clone, Debug)]
pub struct Violation {
    pub path: Vec<Step>,
    pub value: Json,
    pub message: String,
    pub keyword: &'static str,
    /// A format's own sentence, which replaces every other wording.
    pub reason: Option<String>,
    schema: Json,
    schema_path: Vec<Step>,
    matches_type: bool,
    context: Vec<Violation>,
}

/// A key or a place in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Index(usize),
    Key(String),
}

/// What says nothing of values; `name` is glance's.
const ANNOTATIONS: &[&str] =
    &["$schema", "$id", "title", "description", "default", "examples", "readOnly", "writeOnly", "name"];

impl Schema {
    /// A schema of the newer dialect with OpenStack's formats.
    ///
    /// # Panics
    /// On a keyword, format or pattern that is not understood: a mistake in the code, found when it first runs.
    pub fn new(root: Json) -> Self {
        Self::with(root, Dialect::Draft2020, false, formats::COMMON)
    }

    /// Nova's: the newer dialect, and `minimum`/`maximum` hold for numeric strings too.
    ///
    /// # Panics
    /// As [`Schema::new`].
    pub fn nova(root: Json) -> Self {
        Self::with(root, Dialect::Draft2020, true, formats::NOVA)
    }

    /// Cinder's: the older dialect, numeric strings, its own formats.
    ///
    /// # Panics
    /// As [`Schema::new`].
    pub fn cinder(root: Json) -> Self {
        Self::with(root, Dialect::Draft4, true, formats::CINDER)
    }

    /// With formats of one's own, looked up before the common ones.
    ///
    /// # Panics
    /// As [`Schema::new`].
    pub fn with(
        root: Json,
        dialect: Dialect,
        limits_read_strings: bool,
        formats: &'static [(&'static str, Format)],
    ) -> Self {
        let mut schema =
            Self { root: Json::Null, dialect, limits_read_strings, formats, patterns: HashMap::new() };
        schema.root = root;
        schema.learn(&schema.root.clone());
        schema
    }

    /// The first violation in the schema's order, as nova, cinder and keystone report it.
    pub fn check(&self, value: &Json) -> Result<(), Box<Violation>> {
        self.errors(value).into_iter().next().map_or(Ok(()), |violation| Err(Box::new(violation)))
    }

    /// The most telling violation by Python's `best_match`, as placement and glance report it.
    pub fn check_best(&self, value: &Json) -> Result<(), Box<Violation>> {
        evaluate::best_match(self.errors(value)).map_or(Ok(()), |violation| Err(Box::new(violation)))
    }

    /// The sentences of all violations, sorted.
    pub fn sentences(&self, value: &Json) -> Vec<String> {
        let mut sentences: Vec<String> =
            self.errors(value).into_iter().map(|violation| violation.message).collect();
        sentences.sort();
        sentences
    }

    fn errors(&self, value: &Json) -> Vec<Violation> {
        let mut errors = Vec::new();
        self.evaluate(&self.root, value, &mut errors);
        errors
    }

    pub fn json(&self) -> &Json {
        &self.root
    }

    fn format(&self, name: &str) -> Option<Format> {
        let known = self.formats.iter().chain(formats::COMMON);
        known.into_iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    fn learn(&mut self, schema: &Json) {
        let Some(keywords) = schema.as_object() else {
            assert!(schema.is_boolean(), "a schema is an object or a boolean, not {schema}");
            return;
        };
        for (keyword, value) in keywords {
            match keyword.as_str() {
                "properties" | "dependentSchemas" | "definitions" => {
                    value.as_object().into_iter().flatten().for_each(|(_, inner)| self.learn(inner));
                }
                "patternProperties" => {
                    for (pattern, inner) in value.as_object().into_iter().flatten() {
                        self.learn_pattern(pattern);
                        self.learn(inner);
                    }
                }
                "additionalProperties"
                | "items"
                | "not"
                | "if"
                | "then"
                | "else"
                | "propertyNames"
                | "contains" => match value {
                    Json::Array(many) => many.iter().for_each(|inner| self.learn(inner)),
                    one => self.learn(one),
                },
                "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                    value.as_array().into_iter().flatten().for_each(|inner| self.learn(inner));
                }
                "pattern" => self.learn_pattern(value.as_str().unwrap_or_default()),
                "$ref" => assert!(self.referred(value).is_some(), "{value} leads nowhere in a schema"),
                "format" => {
                    let name = value.as_str().unwrap_or_default();
                    assert!(self.format(name).is_some(), "unknown format {name:?} in a schema");
                }
                "type" | "enum" | "const" | "required" | "minLength" | "maxLength" | "minimum"
                | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" | "minItems"
                | "maxItems" | "uniqueItems" | "minProperties" | "maxProperties" | "dependentRequired" => {}
                other => assert!(
                    ANNOTATIONS.contains(&other) || other.starts_with("x-"),
                    "unknown keyword {other:?} in a schema"
                ),
            }
        }
    }

    /// What a `#/definitions/…` means.
    fn referred(&self, reference: &Json) -> Option<&Json> {
        self.root.pointer(reference.as_str()?.strip_prefix('#')?)
    }

    fn learn_pattern(&mut self, pattern: &str) {
        // Python's `$` also stands before a newline at the very end.
        let ours = match pattern.strip_suffix('$') {
            Some(body) if !body.ends_with('\\') => format!(r"{body}\n?\z"),
            _ => pattern.replace(r"\Z", r"\z"),
        };
        let compiled = Regex::new(&ours).unwrap_or_else(|e| panic!("pattern {pattern:?} in a schema: {e}"));
        self.patterns.insert(pattern.to_string(), compiled);
    }
}

#[cfg(test)]
mod tests;
