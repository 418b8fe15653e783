//! A parsed rule and how it is decided for one caller and one target.

use crate::{Parsed, Target};
use base::Context;
use std::{borrow::Cow, collections::HashMap};

/// `R` is how another rule is named: by its name as parsed, by its place once linked.
#[derive(Debug, PartialEq)]
pub enum Check<R = usize> {
    True,
    False,
    Not(Box<Check<R>>),
    And(Vec<Check<R>>),
    Or(Vec<Check<R>>),
    Rule(R),
    Role(Template),
    /// A constant against the target: `'public':%(visibility)s`.
    Literal(String, Template),
    /// An attribute of the caller against the target: `project_id:%(project_id)s`.
    Credential(String, Template),
    /// An attribute of the target against a constant (neutron).
    Field {
        name: String,
        value: String,
        prefix: bool,
    },
}

/// Text with attributes of the target in between: pairs of text and attribute, then the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub parts: Vec<(String, String)>,
    pub tail: String,
}

impl Template {
    /// None when the target lacks an attribute.
    fn fill<'a>(&'a self, target: &'a dyn Target) -> Option<Cow<'a, str>> {
        match self.parts.as_slice() {
            [] => Some(Cow::Borrowed(&self.tail)),
            [(before, name)] if before.is_empty() && self.tail.is_empty() => target.attr(name),
            parts => {
                let mut text = String::new();
                for (before, name) in parts {
                    text.push_str(before);
                    text.push_str(&target.attr(name)?);
                }
                text.push_str(&self.tail);
                Some(Cow::Owned(text))
            }
        }
    }
}

impl Check {
    pub fn holds(&self, rules: &[Parsed], context: &Context, target: &dyn Target) -> bool {
        let decide = |check: &Check| check.holds(rules, context, target);
        match self {
            Check::True => true,
            Check::False => false,
            Check::Not(check) => !decide(check),
            Check::And(checks) => checks.iter().all(decide),
            Check::Or(checks) => checks.iter().any(decide),
            Check::Rule(at) => decide(&rules[*at].check),
            Check::Role(role) => role.fill(target).is_some_and(|role| context.has_role(&role)),
            Check::Literal(value, wanted) => wanted.fill(target).is_some_and(|wanted| wanted == *value),
            // Python prints what a token lacks as None, and rules ask for that by name: `not domain_id:None`.
            Check::Credential(name, wanted) if wanted.parts.is_empty() && wanted.tail == "None" => {
                credential(context, name).is_some_and(str::is_empty)
            }
            Check::Credential(name, wanted) => {
                wanted.fill(target).is_some_and(|wanted| credential_is(context, name, &wanted))
            }
            Check::Field { name, value, prefix } => target.attr(name).is_some_and(|actual| match prefix {
                true => actual.starts_with(value.as_str()),
                false => actual == *value,
            }),
        }
    }

    /// The places of the rules this one asks.
    pub fn references(&self) -> Vec<usize> {
        match self {
            Check::Rule(at) => vec![*at],
            Check::Not(check) => check.references(),
            Check::And(checks) | Check::Or(checks) => checks.iter().flat_map(Check::references).collect(),
            _ => Vec::new(),
        }
    }
}

/// Turns names into places; fails with the name that does not exist.
pub fn link(raw: &Check<String>, index: &HashMap<Cow<'static, str>, usize>) -> Result<Check, String> {
    let all = |checks: &[Check<String>]| {
        checks.iter().map(|check| link(check, index)).collect::<Result<Vec<_>, _>>()
    };
    Ok(match raw {
        Check::True => Check::True,
        Check::False => Check::False,
        Check::Not(check) => Check::Not(Box::new(link(check, index)?)),
        Check::And(checks) => Check::And(all(checks)?),
        Check::Or(checks) => Check::Or(all(checks)?),
        Check::Rule(name) => Check::Rule(*index.get(name.as_str()).ok_or_else(|| name.clone())?),
        Check::Role(role) => Check::Role(role.clone()),
        Check::Literal(value, wanted) => Check::Literal(value.clone(), wanted.clone()),
        Check::Credential(name, wanted) => Check::Credential(name.clone(), wanted.clone()),
        Check::Field { name, value, prefix } => {
            Check::Field { name: name.clone(), value: value.clone(), prefix: *prefix }
        }
    })
}

/// What a token lacks equals no attribute of a target: an unscoped caller does not own what belongs to no project.
fn credential_is(context: &Context, name: &str, wanted: &str) -> bool {
    match name {
        "roles" => context.roles.iter().any(|role| role == wanted),
        "service_roles" => context.service_roles.iter().any(|role| role == wanted),
        "is_admin" => wanted == python_bool(context.is_admin()),
        // Without an admin project configured, every project counts as one.
        "is_admin_project" | "token.is_admin_project" => wanted == "True",
        _ => credential(context, name).is_some_and(|held| !held.is_empty() && held == wanted),
    }
}

/// The caller's attributes under every name that upstream's rules use.
fn credential<'a>(context: &'a Context, name: &str) -> Option<&'a str> {
    Some(match name {
        "user_id" | "user" | "token.user.id" => &context.user_id,
        "user_name" | "token.user.name" => &context.user_name,
        "user_domain_id" | "user_domain" | "token.user.domain.id" => &context.user_domain_id,
        "project_id" | "tenant_id" | "tenant" | "token.project.id" => &context.project_id,
        "project_name" | "token.project.name" => &context.project_name,
        "project_domain_id" | "project_domain" | "token.project.domain.id" => &context.project_domain_id,
        "domain_id" | "domain" | "token.domain.id" => &context.domain_id,
        "domain_name" => &context.domain_name,
        "system_scope" | "system" => &context.system_scope,
        _ => return None,
    })
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}
