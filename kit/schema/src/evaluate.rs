//! One keyword after another, in the schema's own order, and the choice among the errors found.

use crate::{Dialect, Schema, Step, Verdict, Violation, python::repr};
use base::Json;
use serde_json::{Map, Number};
use std::cmp::Ordering;

type Keywords = Map<String, Json>;

impl Schema {
    pub(crate) fn evaluate(&self, schema: &Json, value: &Json, errors: &mut Vec<Violation>) {
        let keywords = match schema {
            Json::Object(keywords) => keywords,
            Json::Bool(false) => {
                let message = format!("False schema does not allow {}", repr(value));
                errors.push(Violation::new("", message, value, schema));
                return;
            }
            _ => return,
        };
        for (keyword, argument) in keywords {
            let from = errors.len();
            self.keyword(keyword, argument, keywords, value, errors);
            for error in &mut errors[from..] {
                if error.keyword.is_empty() {
                    error.keyword = known(keyword);
                    error.schema = schema.clone();
                    error.matches_type = keywords.get("type").is_some_and(|types| self.is_of(value, types));
                }
                if keyword != "if" && keyword != "$ref" {
                    error.schema_path.insert(0, Step::Key(keyword.clone()));
                }
            }
        }
    }

    fn keyword(&self, keyword: &str, arg: &Json, all: &Keywords, value: &Json, errors: &mut Vec<Violation>) {
        let mut wrong = |message: String| errors.push(Violation::new("", message, value, &Json::Null));
        let said = |text: &str| format!("{} {text}", repr(value));
        let count = arg.as_u64().unwrap_or(0) as usize;
        match (keyword, value) {
            ("type", _) if !self.is_of(value, arg) => {
                let names: Vec<_> = one_or_many(arg).iter().map(repr).collect();
                wrong(said(&format!("is not of type {}", names.join(", "))));
            }
            ("enum", _) if !arg.as_array().is_some_and(|all| all.iter().any(|one| equal(one, value))) => {
                wrong(said(&format!("is not one of {}", repr(arg))));
            }
            ("const", _) if self.dialect == Dialect::Draft2020 && !equal(arg, value) => {
                wrong(format!("{} was expected", repr(arg)));
            }
            ("$ref", _) => {
                if let Some(schema) = self.referred(arg) {
                    self.evaluate(schema, value, errors);
                }
            }
            ("format", _) => self.judge_format(arg.as_str().unwrap_or_default(), value, errors),

            ("minLength", Json::String(text)) if text.chars().count() < count => {
                wrong(said(if count == 1 { "should be non-empty" } else { "is too short" }));
            }
            ("maxLength", Json::String(text)) if text.chars().count() > count => {
                wrong(said(if count == 0 { "is expected to be empty" } else { "is too long" }));
            }
            ("pattern", Json::String(text)) if !self.matches(arg.as_str().unwrap_or_default(), text) => {
                wrong(said(&format!("does not match {}", repr(arg))));
            }

            ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf", _) => {
                if let Some(message) = self.limit(keyword, arg, all, value) {
                    wrong(message);
                }
            }

            ("minItems", Json::Array(items)) if items.len() < count => {
                wrong(said(if count == 1 { "should be non-empty" } else { "is too short" }));
            }
            ("maxItems", Json::Array(items)) if items.len() > count => {
                wrong(said(if count == 0 { "is expected to be empty" } else { "is too long" }));
            }
            ("uniqueItems", Json::Array(items)) if *arg == Json::Bool(true) => {
                let twice = |(at, one): (usize, &Json)| items[..at].iter().any(|other| equal(other, one));
                if items.iter().enumerate().any(twice) {
                    wrong(said("has non-unique elements"));
                }
            }
            ("items" | "prefixItems", Json::Array(items)) => {
                self.items(keyword, arg, all, items, value, errors)
            }
            ("contains", Json::Array(items)) if !items.iter().any(|item| self.is_valid(arg, item)) => {
                wrong(said("does not contain items matching the given schema"));
            }

            ("required", Json::Object(map)) => {
                for name in arg.as_array().into_iter().flatten() {
                    if !map.contains_key(name.as_str().unwrap_or_default()) {
                        wrong(format!("{} is a required property", repr(name)));
                    }
                }
            }
            ("dependentRequired", Json::Object(map)) => {
                for (name, needed) in arg.as_object().into_iter().flatten() {
                    for other in needed.as_array().into_iter().flatten() {
                        if map.contains_key(name) && !map.contains_key(other.as_str().unwrap_or_default()) {
                            wrong(format!(
                                "{} is a dependency of {}",
                                repr(other),
                                repr(&name.as_str().into())
                            ));
                        }
                    }
                }
            }
            ("minProperties", Json::Object(map)) if map.len() < count => {
                wrong(said(if count == 1 {
                    "should be non-empty"
                } else {
                    "does not have enough properties"
                }));
            }
            ("maxProperties", Json::Object(map)) if map.len() > count => {
                wrong(said(if count == 0 { "is expected to be empty" } else { "has too many properties" }));
            }
            ("properties", Json::Object(map)) => {
                for (name, inner) in arg.as_object().into_iter().flatten() {
                    if let Some(value) = map.get(name) {
                        let at = Some(Step::Key(name.clone()));
                        self.descend(inner, value, at.clone(), at, errors);
                    }
                }
            }
            ("patternProperties", Json::Object(map)) => {
                for (pattern, inner) in arg.as_object().into_iter().flatten() {
                    for (name, value) in map.iter().filter(|(name, _)| self.matches(pattern, name)) {
                        let (at, by) = (Step::Key(name.clone()), Step::Key(pattern.clone()));
                        self.descend(inner, value, Some(at), Some(by), errors);
                    }
                }
            }
            ("additionalProperties", Json::Object(map)) => self.additional(arg, all, map, value, errors),
            ("propertyNames", Json::Object(map)) => {
                map.keys().for_each(|name| self.evaluate(arg, &name.as_str().into(), errors));
            }
            ("dependentSchemas", Json::Object(map)) => {
                for (name, inner) in arg.as_object().into_iter().flatten() {
                    if map.contains_key(name) {
                        self.descend(inner, value, None, Some(Step::Key(name.clone())), errors);
                    }
                }
            }

            ("allOf", _) => {
                for (at, inner) in arg.as_array().into_iter().flatten().enumerate() {
                    self.descend(inner, value, None, Some(Step::Index(at)), errors);
                }
            }
            ("anyOf" | "oneOf", _) => self.one_of(keyword == "oneOf", arg, value, errors),
            ("not", _) if self.is_valid(arg, value) => {
                wrong(said(&format!("should not be valid under {}", repr(arg))));
            }
            ("if", _) => {
                let branch = if self.is_valid(arg, value) { "then" } else { "else" };
                if let Some(inner) = all.get(branch) {
                    self.descend(inner, value, None, Some(Step::Key(branch.into())), errors);
                }
            }
            _ => {}
        }
    }

    fn descend(
        &self,
        schema: &Json,
        value: &Json,
        at: Option<Step>,
        by: Option<Step>,
        errors: &mut Vec<Violation>,
    ) {
        let from = errors.len();
        self.evaluate(schema, value, errors);
        for error in &mut errors[from..] {
            if let Some(step) = &at {
                error.path.insert(0, step.clone());
            }
            if let Some(step) = &by {
                error.schema_path.insert(0, step.clone());
            }
        }
    }

    fn is_valid(&self, schema: &Json, value: &Json) -> bool {
        let mut errors = Vec::new();
        self.evaluate(schema, value, &mut errors);
        errors.is_empty()
    }

    fn is_of(&self, value: &Json, types: &Json) -> bool {
        one_or_many(types).iter().any(|name| match (name.as_str().unwrap_or_default(), value) {
            ("string", Json::String(_)) | ("boolean", Json::Bool(_)) | ("null", Json::Null) => true,
            ("object", Json::Object(_)) | ("array", Json::Array(_)) | ("number", Json::Number(_)) => true,
            ("integer", Json::Number(number)) => {
                let whole = |number: f64| self.dialect == Dialect::Draft2020 && number.fract() == 0.0;
                !number.is_f64() || number.as_f64().is_some_and(whole)
            }
            _ => false,
        })
    }

    fn matches(&self, pattern: &str, text: &str) -> bool {
        self.patterns.get(pattern).is_some_and(|pattern| pattern.is_match(text).unwrap_or(false))
    }

    fn judge_format(&self, name: &str, value: &Json, errors: &mut Vec<Violation>) {
        let reason = match self.format(name).map(|format| format(value)) {
            None | Some(Verdict::Fine) => return,
            Some(Verdict::Wrong) => None,
            Some(Verdict::Refused(reason)) => Some(reason),
        };
        let message = format!("{} is not a {}", repr(value), repr(&name.into()));
        let violation = Violation::new("", message, value, &Json::Null);
        errors.push(Violation { reason, ..violation });
    }

    fn limit(&self, keyword: &str, arg: &Json, all: &Keywords, value: &Json) -> Option<String> {
        let reads_strings = self.limits_read_strings && matches!(keyword, "minimum" | "maximum");
        let number = match value {
            // Python's int() cuts the fraction off before it compares.
            Json::Number(number) if reads_strings && number.is_f64() => {
                Number::from_i128(number.as_f64()?.trunc() as i128).unwrap_or_else(|| number.clone())
            }
            Json::Number(number) => number.clone(),
            Json::Bool(flag) if reads_strings => Number::from(*flag as i64),
            Json::String(text) if reads_strings => number_of(text)?,
            _ => return None,
        };
        let (actual, bound) = (number.as_f64()?, arg.as_f64()?);
        let order = match (number.as_i64(), arg.as_i64()) {
            (Some(actual), Some(bound)) => actual.cmp(&bound),
            _ => actual.total_cmp(&bound),
        };
        let text = |what: &str| Some(format!("{} is {what} {}", repr(&number.clone().into()), repr(arg)));
        let strict = |name: &str| all.get(name) == Some(&Json::Bool(true));
        match (keyword, order) {
            ("minimum", Ordering::Less | Ordering::Equal) if strict("exclusiveMinimum") => {
                text("less than or equal to the minimum of")
            }
            ("maximum", Ordering::Greater | Ordering::Equal) if strict("exclusiveMaximum") => {
                text("greater than or equal to the maximum of")
            }
            ("minimum", Ordering::Less) => text("less than the minimum of"),
            ("maximum", Ordering::Greater) => text("greater than the maximum of"),
            ("exclusiveMinimum", Ordering::Less | Ordering::Equal) => {
                text("less than or equal to the minimum of")
            }
            ("exclusiveMaximum", Ordering::Greater | Ordering::Equal) => {
                text("greater than or equal to the maximum of")
            }
            ("multipleOf", _) if actual % bound != 0.0 => text("not a multiple of"),
            _ => None,
        }
    }

    fn items(
        &self,
        keyword: &str,
        arg: &Json,
        all: &Keywords,
        items: &[Json],
        value: &Json,
        errors: &mut Vec<Violation>,
    ) {
        if let Json::Array(schemas) = arg {
            for (at, (inner, item)) in schemas.iter().zip(items).enumerate() {
                self.descend(inner, item, Some(Step::Index(at)), Some(Step::Index(at)), errors);
            }
            return;
        }
        let prefix = all.get("prefixItems").and_then(Json::as_array).map_or(0, Vec::len);
        if keyword != "items" || items.len() <= prefix {
            return;
        }
        let extra = &items[prefix..];
        if *arg == Json::Bool(false) {
            let rest = if extra.len() == 1 { repr(&extra[0]) } else { repr(&extra.to_vec().into()) };
            let noun = if prefix == 1 { "item" } else { "items" };
            let message = format!("Expected at most {prefix} {noun} but found {} extra: {rest}", extra.len());
            errors.push(Violation::new("", message, value, &Json::Null));
            return;
        }
        for (at, item) in extra.iter().enumerate() {
            self.descend(arg, item, Some(Step::Index(prefix + at)), None, errors);
        }
    }

    fn additional(
        &self,
        arg: &Json,
        all: &Keywords,
        map: &Keywords,
        value: &Json,
        errors: &mut Vec<Violation>,
    ) {
        let named = all.get("properties").and_then(Json::as_object);
        let patterns = all.get("patternProperties").and_then(Json::as_object);
        let is_extra = |name: &&String| {
            !named.is_some_and(|named| named.contains_key(*name))
                && !patterns.is_some_and(|all| all.keys().any(|pattern| self.matches(pattern, name)))
        };
        let mut extra: Vec<&String> = map.keys().filter(is_extra).collect();
        extra.sort();
        if arg.is_object() {
            for name in extra {
                self.descend(arg, &map[name], Some(Step::Key(name.clone())), None, errors);
            }
            return;
        }
        if *arg != Json::Bool(false) || extra.is_empty() {
            return;
        }
        let list =
            |names: &[&String]| names.iter().map(|n| repr(&n.as_str().into())).collect::<Vec<_>>().join(", ");
        let single = extra.len() == 1;
        let message = match patterns {
            None => {
                let verb = if single { "was" } else { "were" };
                format!("Additional properties are not allowed ({} {verb} unexpected)", list(&extra))
            }
            Some(patterns) => {
                let mut patterns: Vec<_> = patterns.keys().collect();
                patterns.sort();
                let verb = if single { "does" } else { "do" };
                format!("{} {verb} not match any of the regexes: {}", list(&extra), list(&patterns))
            }
        };
        errors.push(Violation::new("", message, value, &Json::Null));
    }

    fn one_of(&self, only_one: bool, arg: &Json, value: &Json, errors: &mut Vec<Violation>) {
        let schemas = arg.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut context = Vec::new();
        let mut valid = None;
        for (at, inner) in schemas.iter().enumerate() {
            let from = context.len();
            self.descend(inner, value, None, Some(Step::Index(at)), &mut context);
            if context.len() == from {
                valid = Some(at);
                break;
            }
        }
        let Some(first) = valid else {
            let message = format!("{} is not valid under any of the given schemas", repr(value));
            let violation = Violation::new("", message, value, &Json::Null);
            errors.push(Violation { context, ..violation });
            return;
        };
        let mut more: Vec<&Json> =
            schemas[first + 1..].iter().filter(|inner| only_one && self.is_valid(inner, value)).collect();
        if !more.is_empty() {
            more.push(&schemas[first]);
            let all: Vec<_> = more.into_iter().map(repr).collect();
            let message = format!("{} is valid under each of {}", repr(value), all.join(", "));
            errors.push(Violation::new("", message, value, &Json::Null));
        }
    }
}

impl Violation {
    fn new(keyword: &'static str, message: String, value: &Json, schema: &Json) -> Self {
        Self {
            path: Vec::new(),
            value: value.clone(),
            message,
            keyword,
            reason: None,
            schema: schema.clone(),
            schema_path: Vec::new(),
            matches_type: false,
            context: Vec::new(),
        }
    }

    /// Python's key: the greater, the better an error at the top; the smaller, the better one within `anyOf`.
    fn relevance(&self) -> (isize, &[Step], bool, bool) {
        let weak = matches!(self.keyword, "anyOf" | "oneOf");
        (-(self.path.len() as isize), &self.path, !weak, !self.matches_type)
    }
}

/// The first of the best, then down into alternatives as long as one of them stands out.
pub fn best_match(errors: Vec<Violation>) -> Option<Violation> {
    let mut best = errors.into_iter().reduce(|a, b| if b.relevance() > a.relevance() { b } else { a })?;
    loop {
        let mut order: Vec<usize> = (0..best.context.len()).collect();
        order.sort_by(|a, b| best.context[*a].relevance().cmp(&best.context[*b].relevance()));
        match order.as_slice() {
            [] => return Some(best),
            [a, b, ..] if best.context[*a].relevance() == best.context[*b].relevance() => return Some(best),
            [a, ..] => best = best.context.swap_remove(*a),
        }
    }
}

fn one_or_many(value: &Json) -> &[Json] {
    match value {
        Json::Array(many) => many,
        one => std::slice::from_ref(one),
    }
}

/// Numbers compare by value, but `True` is not 1.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|other| equal(v, other)))
        }
        _ => a == b,
    }
}

/// As Python's `int()`, then `float()`.
fn number_of(text: &str) -> Option<Number> {
    let text = text.trim();
    match text.parse::<i64>() {
        Ok(number) => Some(number.into()),
        Err(_) => text.parse::<f64>().ok().and_then(Number::from_f64),
    }
}

/// The keywords under which an error is reported.
fn known(keyword: &str) -> &'static str {
    const NAMES: &[&str] = &[
        "type",
        "enum",
        "const",
        "format",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
        "items",
        "contains",
        "required",
        "dependentRequired",
        "minProperties",
        "maxProperties",
        "additionalProperties",
        "anyOf",
        "oneOf",
        "not",
    ];
    NAMES.iter().find(|name| **name == keyword).copied().unwrap_or("schema")
}
