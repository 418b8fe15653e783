//! What `GET /allocation_candidates` asks for: groups of resources by suffix, and what holds for all of them.

use crate::store;
use base::{Error, Result, id};
use db::Tx;
use std::collections::{BTreeMap, BTreeSet};
use web::Request;

/// Resources that belong together. With a suffix they come from one provider.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub resources: BTreeMap<String, i64>,
    pub traits: Traits,
    pub aggregates: Aggregates,
    pub in_tree: Option<String>,
}

/// Traits that must and must not be: any of each set.
#[derive(Clone, Debug, Default)]
pub struct Traits {
    pub required: Vec<BTreeSet<String>>,
    pub forbidden: BTreeSet<String>,
}

/// Aggregates that a provider must be in (any of each list) and must not be in.
#[derive(Clone, Debug, Default)]
pub struct Aggregates {
    pub any_of: Vec<Vec<String>>,
    pub forbidden: Vec<String>,
}

/// The whole question.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By suffix; that without one has the empty suffix.
    pub groups: BTreeMap<String, Group>,
    /// Groups with a suffix come from different providers.
    pub isolate: bool,
    pub root: Traits,
    pub same_subtrees: Vec<Vec<String>>,
    pub limit: Option<usize>,
    /// Whether the asker knows of trees of providers (1.29).
    pub nested: bool,
}

const MISSING_VALUE: &str = "placement.query.missing_value";
const BAD_VALUE: &str = "placement.query.bad_value";
const DUPLICATE_KEY: &str = "placement.query.duplicate_key";

impl Wanted {
    pub fn parse(request: &Request) -> Result<Self> {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        let mut names: Vec<&str> = request.query.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let kinds = ["resources", "required", "member_of", "in_tree"];
            let Some((kind, suffix)) = kinds.iter().find_map(|kind| Some((*kind, name.strip_prefix(kind)?)))
            else {
                continue;
            };
            let value = request.query.get(name).unwrap_or_default();
            let group = groups.entry(suffix.into()).or_default();
            match kind {
                "resources" => group.resources = resources(value)?,
                "required" => group.traits = traits(request, name)?,
                "member_of" => group.aggregates = aggregates(request, name)?,
                _ => group.in_tree = Some(in_tree(value)?),
            }
        }
        let same_subtrees = same_subtrees(request)?;
        let named: BTreeSet<&String> = same_subtrees.iter().flatten().collect();
        check(request, &groups, &named)?;
        let policy = request.query.all("group_policy").next();
        if policy.is_none() && groups.keys().filter(|suffix| !suffix.is_empty()).count() > 1 {
            return Err(Error::bad_request(
                "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.",
            ));
        }
        Ok(Self {
            groups,
            isolate: policy == Some("isolate"),
            root: root_required(request)?,
            same_subtrees,
            limit: request.query.all("limit").next().and_then(|limit| limit.parse().ok()),
            nested: request.since(1, 29),
        })
    }

    /// `BadRequest` for classes and traits that there are not.
    pub fn check_names(&self, tx: &mut Tx) -> Result<()> {
        for class in self.groups.values().flat_map(|group| group.resources.keys()) {
            store::check_class(tx, class).map_err(invalid_class)?;
        }
        let all = self.groups.values().map(|group| &group.traits).chain([&self.root]);
        let names: Vec<&String> = all.flat_map(Traits::names).collect();
        match store::unknown_traits(tx, names.into_iter())?.as_slice() {
            [] => Ok(()),
            unknown => Err(Error::bad_request(format!("No such trait(s): {}.", unknown.join(", ")))),
        }
    }
}

pub fn invalid_class(error: Error) -> Error {
    Error::bad_request(format!("Invalid resource class in resources parameter: {}", error.message))
}

impl Traits {
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.required.iter().flatten().chain(&self.forbidden)
    }
}

fn check(request: &Request, groups: &BTreeMap<String, Group>, named: &BTreeSet<&String>) -> Result<()> {
    let without: Vec<&String> =
        groups.iter().filter(|(_, group)| group.resources.is_empty()).map(|(suffix, _)| suffix).collect();
    let list = |suffixes: &[&String]| {
        let quoted: Vec<String> = suffixes.iter().map(|suffix| format!("'{suffix}'")).collect();
        format!("[{}]", quoted.join(", "))
    };
    if request.since(1, 36) {
        if without.len() == groups.len() {
            let sentence = "There must be at least one resources or resources[$S] parameter.";
            return Err(Error::bad_request(sentence).code(MISSING_VALUE));
        }
        let bad: Vec<&String> = without.into_iter().filter(|suffix| !named.contains(suffix)).collect();
        if !bad.is_empty() {
            return Err(Error::bad_request(format!(
                "Resourceless suffixed group request should be specified in `same_subtree` query param: bad \
                 group(s) - {}.",
                list(&bad)
            ))
            .code(BAD_VALUE));
        }
        let bad: Vec<&String> =
            named.iter().copied().filter(|suffix| !groups.contains_key(*suffix)).collect();
        if !bad.is_empty() {
            return Err(Error::bad_request(format!(
                "Real suffixes should be specified in `same_subtree`: {} not found in {}.",
                list(&bad),
                list(&groups.keys().collect::<Vec<_>>())
            ))
            .code(BAD_VALUE));
        }
    } else {
        orphans(groups)?;
    }
    let conflicting: Vec<String> = groups
        .iter()
        .flat_map(|(suffix, group)| {
            let traits = &group.traits;
            let bad = traits.required.iter().filter(|any| any.is_subset(&traits.forbidden));
            bad.map(move |any| {
                format!("required{suffix}: ({})", any.iter().cloned().collect::<Vec<_>>().join(", "))
            })
        })
        .collect();
    match conflicting.as_slice() {
        [] => Ok(()),
        bad => Err(Error::bad_request(format!(
            "Conflicting required and forbidden traits found in the following traits keys: {}",
            bad.join(", ")
        ))),
    }
}

fn orphans(groups: &BTreeMap<String, Group>) -> Result<()> {
    let without = |has: fn(&Group) -> bool, kind: &str| {
        let bad = groups.iter().filter(|(_, group)| group.resources.is_empty() && has(group));
        bad.map(|(suffix, _)| format!("{kind}{suffix}")).collect::<Vec<_>>()
    };
    let traits = without(|group| !group.traits.required.is_empty(), "required");
    if !traits.is_empty() {
        return Err(Error::bad_request(format!(
            "All traits parameters must be associated with resources.  Found the following orphaned traits keys: {}",
            traits.join(", ")
        )));
    }
    let has = |group: &Group| !group.aggregates.any_of.is_empty() || !group.aggregates.forbidden.is_empty();
    let aggregates = without(has, "member_of");
    if !aggregates.is_empty() {
        return Err(Error::bad_request(format!(
            "All member_of parameters must be associated with resources. Found the following orphaned member_of \
             keys: {}",
            aggregates.join(", ")
        )));
    }
    if groups.is_empty() {
        return Err(Error::bad_request(
            "At least one request group (`resources` or `resources{$S}`) is required.",
        ));
    }
    match groups.values().any(|group| group.resources.is_empty()) {
        true => Err(Error::bad_request("All request groups must specify resources.")),
        false => Ok(()),
    }
}

/// `VCPU:2,MEMORY_MB:1024`
pub fn resources(text: &str) -> Result<BTreeMap<String, i64>> {
    let malformed = |got: &str| {
        Error::bad_request(format!(
            "Badly formed resources parameter. Expected resources query string parameter in form: \
             ?resources=VCPU:2,MEMORY_MB:1024. Got: {got}."
        ))
    };
    if text.trim().is_empty() {
        return Err(malformed("empty string"));
    }
    let mut found = BTreeMap::new();
    for part in text.split(',') {
        let (class, amount) = part
            .split_once(':')
            .filter(|(_, amount)| !amount.contains(':'))
            .ok_or_else(|| malformed(part))?;
        let Ok(number) = amount.trim().parse::<i64>() else {
            return Err(Error::bad_request(format!(
                "Requested resource {class} expected positive integer amount. Got: {amount}."
            )));
        };
        if number < 1 {
            return Err(Error::bad_request(format!(
                "Requested resource {class} requires amount >= 1. Got: {number}."
            )));
        }
        found.insert(class.to_string(), number);
    }
    Ok(found)
}

/// All values of a `required` parameter: `A,!B`, and since 1.39 `in:A,B`, several of them.
pub fn traits(request: &Request, name: &str) -> Result<Traits> {
    let (forbidden_allowed, any_allowed) = (request.since(1, 22), request.since(1, 39));
    let bad = |text: String| Error::bad_request(format!("Invalid query string parameters: {text}"));
    let mut values: Vec<&str> = request.query.all(name).collect();
    if !any_allowed {
        values = values.into_iter().next_back().into_iter().collect();
    }
    let mut found = Traits::default();
    for value in values {
        if let Some(list) = value.strip_prefix("in:") {
            if !any_allowed {
                return Err(bad(format!(
                    "The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' only supported since microversion 1.39. Got: {value}"
                )));
            }
            let any: BTreeSet<String> = list.split(',').map(|name| name.trim().to_string()).collect();
            if any.contains("") {
                return Err(bad(format!(
                    "Expected 'required' parameter value of the form: in:HW_CPU_X86_VMX,CUSTOM_MAGIC. Got an empty \
                     trait in: {value}"
                )));
            }
            if any.iter().any(|name| name.starts_with('!')) {
                return Err(bad(format!(
                    "The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' does not support forbidden traits. Got: {value}"
                )));
            }
            found.required.push(any);
            continue;
        }
        let form =
            if forbidden_allowed { "HW_CPU_X86_VMX,!CUSTOM_MAGIC" } else { "HW_CPU_X86_VMX,CUSTOM_MAGIC" };
        for name in value.split(',').map(str::trim) {
            let (forbidden, name) = (name.starts_with('!'), name.trim_start_matches('!'));
            if name.is_empty() {
                return Err(bad(format!(
                    "Expected 'required' parameter value of the form: {form}. Got an empty trait in: {value}"
                )));
            }
            match forbidden {
                true if !forbidden_allowed => {
                    return Err(bad(format!(
                        "Expected 'required' parameter value of the form: {form}. Got: {value}"
                    )));
                }
                true => drop(found.forbidden.insert(name.into())),
                false => found.required.push(BTreeSet::from([name.to_string()])),
            }
        }
    }
    Ok(found)
}

/// All values of a `member_of` parameter: `in:A,B`, `A`, since 1.32 also `!A` and `!in:A,B`.
pub fn aggregates(request: &Request, name: &str) -> Result<Aggregates> {
    let values: Vec<&str> = request.query.all(name).collect();
    if values.len() > 1 && !request.since(1, 24) {
        return Err(Error::bad_request("Multiple member_of parameters are not supported"));
    }
    let mut found = Aggregates::default();
    for value in values {
        let (forbidden, list) = match value.strip_prefix('!') {
            Some(_) if !request.since(1, 32) => {
                let sentence =
                    "Forbidden member_of parameters are not supported in the specified microversion";
                return Err(Error::bad_request(sentence));
            }
            Some(rest) => (true, rest),
            None => (false, value),
        };
        let uuids: Vec<String> = match list.strip_prefix("in:") {
            Some(list) => list.split(',').map(str::to_string).collect(),
            None => vec![list.to_string()],
        };
        if let Some(bad) = uuids.iter().find(|uuid| !id::is_uuid(uuid)) {
            return Err(Error::bad_request(format!(
                "Invalid query string parameters: Expected '{name}' parameter to contain valid UUID(s). Got: {bad}"
            )));
        }
        match forbidden {
            true => found.forbidden.extend(uuids),
            false => found.any_of.push(uuids),
        }
    }
    Ok(found)
}

fn in_tree(value: &str) -> Result<String> {
    match id::is_uuid(value) {
        true => Ok(value.to_lowercase()),
        false => Err(Error::bad_request(format!(
            "Invalid query string parameters: Expected 'in_tree' parameter to be a format of uuid. Got: {value}"
        ))),
    }
}

fn root_required(request: &Request) -> Result<Traits> {
    let mut values = request.query.all("root_required");
    let (Some(_), more) = (values.next(), values.next()) else { return Ok(Traits::default()) };
    if more.is_some() {
        let sentence = "Query parameter 'root_required' may be specified only once.";
        return Err(Error::bad_request(sentence).code(DUPLICATE_KEY));
    }
    let found = traits(request, "root_required")?;
    let both: Vec<String> =
        found.required.iter().flatten().filter(|name| found.forbidden.contains(*name)).cloned().collect();
    match both.as_slice() {
        [] => Ok(found),
        names => Err(Error::bad_request(format!(
            "Conflicting required and forbidden traits found in root_required: {}",
            names.join(", ")
        ))
        .code(BAD_VALUE)),
    }
}

fn same_subtrees(request: &Request) -> Result<Vec<Vec<String>>> {
    let mut found = Vec::new();
    for value in request.query.all("same_subtree") {
        let suffixes: Vec<String> = value.split(',').map(|suffix| suffix.trim().to_string()).collect();
        if suffixes.iter().any(String::is_empty) {
            let sentence = "Empty string (unsuffixed group) can not be specified in `same_subtree` ";
            return Err(Error::bad_request(sentence).code(BAD_VALUE));
        }
        found.push(suffixes);
    }
    Ok(found)
}
