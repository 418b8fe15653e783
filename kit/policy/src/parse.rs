//! From text to checks: the grammar of the policy language and the form of `policy.yaml`.

use crate::check::{Check, Template};
use base::{Error, Result};
use serde_yaml_ng::{Mapping, Value};

/// A check whose `rule:` references are still names.
pub type Raw = Check<String>;

pub struct Override {
    pub name: String,
    pub check: Raw,
    pub line: usize,
}

/// A whole `policy.yaml` (or JSON, which is YAML too).
pub fn file(text: &str) -> Result<Vec<Override>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let refuse =
        |line: usize, reason: &str| Error::bad_request(format!("policy file, line {line}: {reason}"));
    let parsed: Option<Mapping> = serde_yaml_ng::from_str(text)
        .map_err(|e| refuse(e.location().map_or(1, |place| place.line()), &e.to_string()))?;
    let mut rules = Vec::new();
    for (name, value) in parsed.unwrap_or_default() {
        let Value::String(name) = name else { return Err(refuse(1, "a rule's name must be a string")) };
        let line = line_of(text, &name);
        let check = match &value {
            Value::String(rule) => self::text(rule),
            Value::Sequence(any) => list(any),
            _ => Err("a rule must be a string or a list".into()),
        };
        let check = check.map_err(|reason| refuse(line, &format!("rule {name}: {reason}")))?;
        rules.push(Override { name, check, line });
    }
    Ok(rules)
}

/// One rule. The empty rule allows everything.
pub fn text(rule: &str) -> Result<Raw, String> {
    let tokens = tokens(rule);
    if tokens.is_empty() {
        return Ok(Check::True);
    }
    let mut parser = Parser { tokens: &tokens };
    let check = parser.or()?;
    match parser.tokens.first() {
        None => Ok(check),
        Some(token) => Err(format!("{token:?} is not expected here")),
    }
}

/// The older form: the outer list is joined by `or`, inner lists by `and`.
fn list(any: &[Value]) -> Result<Raw, String> {
    let word = |value: &Value| match value {
        Value::String(text) => atom(text),
        _ => Err("a check must be a string".to_string()),
    };
    let mut alternatives = Vec::new();
    for item in any {
        alternatives.push(match item {
            Value::Sequence(all) if all.is_empty() => continue,
            Value::Sequence(all) => Check::And(all.iter().map(word).collect::<Result<_, _>>()?),
            single => word(single)?,
        });
    }
    Ok(if any.is_empty() { Check::True } else { Check::Or(alternatives) })
}

/// Words, with parentheses at their ends split off; those inside, as in `%(name)s`, stay.
fn tokens(rule: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for mut word in rule.split_whitespace() {
        while let Some(rest) = word.strip_prefix('(') {
            tokens.push("(");
            word = rest;
        }
        let clean = word.trim_end_matches(')');
        if !clean.is_empty() {
            tokens.push(clean);
        }
        tokens.extend(std::iter::repeat_n(")", word.len() - clean.len()));
    }
    tokens
}

struct Parser<'a> {
    tokens: &'a [&'a str],
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Raw, String> {
        let mut checks = vec![self.and()?];
        while self.take("or") {
            checks.push(self.and()?);
        }
        Ok(if checks.len() == 1 { checks.remove(0) } else { Check::Or(checks) })
    }

    fn and(&mut self) -> Result<Raw, String> {
        let mut checks = vec![self.not()?];
        while self.take("and") {
            checks.push(self.not()?);
        }
        Ok(if checks.len() == 1 { checks.remove(0) } else { Check::And(checks) })
    }

    fn not(&mut self) -> Result<Raw, String> {
        if self.take("not") {
            return Ok(Check::Not(Box::new(self.not()?)));
        }
        if self.take("(") {
            let inner = self.or()?;
            return if self.take(")") { Ok(inner) } else { Err("a parenthesis is not closed".into()) };
        }
        let Some((word, rest)) = self.tokens.split_first() else {
            return Err("the rule ends too early".into());
        };
        self.tokens = rest;
        atom(word)
    }

    fn take(&mut self, token: &str) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if first.eq_ignore_ascii_case(token) => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }
}

fn atom(word: &str) -> Result<Raw, String> {
    match word {
        "@" => return Ok(Check::True),
        "!" => return Ok(Check::False),
        _ => {}
    }
    let (kind, wanted) = word.split_once(':').ok_or_else(|| format!("{word:?} is not a check"))?;
    match kind {
        "rule" => Ok(Check::Rule(wanted.to_string())),
        "role" => Ok(Check::Role(template(wanted)?)),
        "field" => field(wanted),
        "http" | "https" => Err("remote checks are not supported".into()),
        "" => Err(format!("{word:?} is not a check")),
        _ => match literal(kind) {
            Some(value) => Ok(Check::Literal(value, template(wanted)?)),
            None => Ok(Check::Credential(kind.to_string(), template(wanted)?)),
        },
    }
}

/// Neutron's `field:networks:shared=True`, and `=~^prefix` for a value's beginning.
fn field(wanted: &str) -> Result<Raw, String> {
    let (name, value) = wanted
        .split_once(':')
        .and_then(|(_resource, test)| test.split_once('='))
        .ok_or_else(|| format!("field:{wanted} is not field:resource:name=value"))?;
    let (name, value) = (name.to_string(), value.to_string());
    match value.strip_prefix('~') {
        None => Ok(Check::Field { name, value, prefix: false }),
        Some(pattern) => {
            match pattern.strip_prefix('^').filter(|p| !p.contains(|c| r"\[](){}*+?|.$".contains(c))) {
                Some(prefix) => Ok(Check::Field { name, value: prefix.to_string(), prefix: true }),
                None => Err(format!("{pattern}: only ^prefix is supported")),
            }
        }
    }
}

/// What Python would read as a constant: `'text'`, `"text"`, `True`, `None`, a number.
fn literal(kind: &str) -> Option<String> {
    let quoted = |quote: char| kind.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(text) = quoted('\'').or_else(|| quoted('"')) {
        return Some(text.to_string());
    }
    let constant = matches!(kind, "True" | "False" | "None") || kind.parse::<i64>().is_ok();
    constant.then(|| kind.to_string())
}

/// `text%(attr)stext`, `%%` for a percent sign.
fn template(text: &str) -> Result<Template, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let (name, after) = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(")s"))
            .ok_or_else(|| format!("{text:?}: only %(name)s is understood"))?;
        parts.push((std::mem::take(&mut plain), name.to_string()));
        rest = after;
    }
    plain.push_str(rest);
    Ok(Template { parts, tail: plain })
}

fn line_of(text: &str, name: &str) -> usize {
    let names = |line: &str| {
        let line = line.trim_start_matches(|c: char| c.is_whitespace() || "'\"{".contains(c));
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['\'', '"', ':', ' ']))
    };
    text.lines().position(names).map_or(1, |at| at + 1)
}
