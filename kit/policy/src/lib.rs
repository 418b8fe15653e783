//! Who may do what: oslo.policy's language, default rules in code as tables, `policy.yaml` over them.
//! What a refusal looks like on the wire is left to `web`; which object is asked about, to the services.

mod check;
mod parse;
mod target;

pub use target::Target;

use base::{Context, Error, Result};
use check::Check;
use std::{borrow::Cow, collections::HashMap};

/// A default rule. Tables of these are constants in a service's `rules.rs`, named as upstream names them.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub name: &'static str,
    pub check: &'static str,
    pub description: &'static str,
    /// Token scopes that may use it (`system`, `domain`, `project`); empty means any.
    pub scopes: &'static [&'static str],
}

impl Rule {
    pub const fn new(name: &'static str, check: &'static str, description: &'static str) -> Self {
        Self { name, check, description, scopes: &[] }
    }

    /// Only tokens of these scopes, as upstream's `scope_types`.
    pub const fn scoped(mut self, scopes: &'static [&'static str]) -> Self {
        self.scopes = scopes;
        self
    }
}

/// The rules of one service, parsed once.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Parsed>,
    index: HashMap<Cow<'static, str>, usize>,
    refusal: fn(&str) -> String,
}

#[derive(Debug)]
struct Parsed {
    check: Check,
    scopes: &'static [&'static str],
}

/// How nova and cinder word a refusal.
pub fn refusal(rule: &str) -> String {
    format!("Policy doesn't allow {rule} to be performed.")
}

impl Policy {
    /// The default rules with the text of a `policy.yaml` over them. A broken file is refused with line and reason.
    pub fn new(tables: &[&[Rule]], overrides: Option<&str>) -> Result<Self> {
        let mut sources: Vec<Source> = Vec::new();
        let mut index = HashMap::new();
        for rule in tables.iter().copied().flatten() {
            if index.insert(Cow::Borrowed(rule.name), sources.len()).is_some() {
                return Err(Error::internal(format!("policy rule {} is declared twice", rule.name)));
            }
            let check = parse::text(rule.check)
                .map_err(|reason| Error::internal(format!("{}: {reason}", rule.name)))?;
            sources.push(Source { name: rule.name.into(), check, scopes: rule.scopes, line: None });
        }
        for over in parse::file(overrides.unwrap_or_default())? {
            match index.get(over.name.as_str()) {
                Some(&at) => {
                    sources[at].check = over.check;
                    sources[at].line = Some(over.line);
                }
                None => {
                    index.insert(Cow::Owned(over.name.clone()), sources.len());
                    let (name, check, line) = (over.name, over.check, Some(over.line));
                    sources.push(Source { name, check, scopes: &[], line });
                }
            }
        }
        let mut rules = Vec::with_capacity(sources.len());
        for source in &sources {
            let check = check::link(&source.check, &index).map_err(|missing| {
                source.refuse(format!("rule {} refers to rule {missing}, which is not there", source.name))
            })?;
            rules.push(Parsed { check, scopes: source.scopes });
        }
        refuse_cycles(&rules, &sources)?;
        Ok(Self { rules, index, refusal })
    }

    /// The wording of [`Policy::check`]'s refusal, given the rule's name; without it [`refusal`].
    pub fn worded(mut self, refusal: fn(&str) -> String) -> Self {
        self.refusal = refusal;
        self
    }

    /// Whether the caller may do what the rule names to the target. An unknown rule is our mistake: denied and logged.
    pub fn allows(&self, rule: &str, context: &Context, target: &(impl Target + ?Sized)) -> bool {
        let Some(rule) = self.index.get(rule).map(|&at| &self.rules[at]) else {
            tracing::error!(rule, "no such policy rule: denied");
            return false;
        };
        let in_scope = rule.scopes.is_empty() || rule.scopes.contains(&scope(context));
        in_scope && rule.check.holds(&self.rules, context, &target)
    }

    /// As [`Policy::allows`], with the refusal as an error.
    pub fn check(&self, rule: &str, context: &Context, target: &(impl Target + ?Sized)) -> Result<()> {
        if self.allows(rule, context, target) {
            return Ok(());
        }
        tracing::info!(rule, user = %context.user_id, project = %context.project_id, "refused by policy");
        Err(Error::forbidden((self.refusal)(rule)))
    }

    /// Whether a rule of this name exists, from code or file.
    pub fn knows(&self, rule: &str) -> bool {
        self.index.contains_key(rule)
    }
}

struct Source {
    name: String,
    check: parse::Raw,
    scopes: &'static [&'static str],
    /// Where `policy.yaml` says so; none for a default.
    line: Option<usize>,
}

impl Source {
    fn refuse(&self, reason: String) -> Error {
        match self.line {
            Some(line) => Error::bad_request(format!("policy file, line {line}: {reason}")),
            None => Error::internal(reason),
        }
    }
}

/// As oslo.policy sees it: what is neither system nor domain scoped counts as project scoped.
fn scope(context: &Context) -> &'static str {
    if !context.system_scope.is_empty() {
        "system"
    } else if !context.domain_id.is_empty() {
        "domain"
    } else {
        "project"
    }
}

fn refuse_cycles(rules: &[Parsed], sources: &[Source]) -> Result<()> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    fn visit(at: usize, rules: &[Parsed], marks: &mut [Mark]) -> Option<usize> {
        match marks[at] {
            Mark::Done => return None,
            Mark::Open => return Some(at),
            Mark::New => marks[at] = Mark::Open,
        }
        let found = rules[at].check.references().into_iter().find_map(|next| visit(next, rules, marks));
        marks[at] = Mark::Done;
        found
    }
    let mut marks = vec![Mark::New; rules.len()];
    match (0..rules.len()).find_map(|at| visit(at, rules, &mut marks)) {
        Some(at) => {
            let reason = format!("rule {} refers to itself in a circle", sources[at].name);
            Err(sources[at].refuse(reason))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
