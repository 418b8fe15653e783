//! Who has room for all of it: for every tree of providers, and those that share with it, the combinations that
//! satisfy every group.

use crate::{
    groups::{Aggregates, Group, Traits, Wanted},
    model::{Inventory, Provider},
    store::{self, Span},
};
use base::Result;
use db::Tx;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// One way to take all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Provider → class → amount.
    pub allocations: BTreeMap<String, BTreeMap<String, i64>>,
    /// Suffix → providers.
    pub mappings: BTreeMap<String, BTreeSet<String>>,
}

/// Candidates and all there is to know of the trees they are in.
pub struct Answer {
    pub candidates: Vec<Candidate>,
    pub providers: Vec<Provider>,
    pub inventories: HashMap<String, Vec<Inventory>>,
    pub traits: HashMap<String, Vec<String>>,
}

/// A group satisfied: what is taken from whom.
type Solution = Vec<(String, String, i64)>;

/// Without sharing, every candidate lies in one tree: trees are then looked at some at a time, in the order in which they
/// were made, until there are enough candidates. Where few of them have room, all are looked at in one go.
const ROOTS_AT_ONCE_MIN: usize = 500;
const ROOTS_AT_ONCE_MAX: usize = 4000;
const FEW: usize = 4;

pub fn find(tx: &mut Tx, wanted: &Wanted, combinations_max: usize) -> Result<Answer> {
    let sharing = Sharing::load(tx)?;
    let mut candidates = Vec::new();
    let pages_until = wanted.limit.filter(|_| sharing.providers.is_empty());
    let mut in_one_go = pages_until.is_none();
    if let Some(limit) = pages_until {
        let at_once = limit.clamp(ROOTS_AT_ONCE_MIN, ROOTS_AT_ONCE_MAX);
        let mut next = store::first_span(tx, at_once)?;
        while let Some(span) = next {
            let before = candidates.len();
            within(tx, wanted, &sharing, Some(&span), combinations_max, &mut candidates)?;
            let is_enough = candidates.len() >= limit;
            next = if is_enough { None } else { store::next_span(tx, &span, at_once)? };
            in_one_go = next.is_some() && (candidates.len() - before) * FEW < at_once;
            if in_one_go {
                break;
            }
        }
    }
    if in_one_go {
        candidates.clear();
        within(tx, wanted, &sharing, None, combinations_max, &mut candidates)?;
    }
    summaries(tx, candidates, wanted.nested)
}

/// Adds the candidates of some of the trees, or of all, as far as the limit.
fn within(
    tx: &mut Tx,
    wanted: &Wanted,
    sharing: &Sharing,
    span: Option<&Span>,
    combinations_max: usize,
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    let mut fits = HashMap::new();
    for (suffix, group) in &wanted.groups {
        fits.insert(suffix.as_str(), Fit::load(tx, group, !suffix.is_empty(), span)?);
    }
    let roots = anchors(&fits, sharing);
    let root_traits = TraitSets::load(tx, &wanted.root, &roots.iter().cloned().collect())?;
    let parents = match wanted.same_subtrees.is_empty() {
        true => HashMap::new(),
        false => parents(tx, &roots)?,
    };
    let limit = wanted.limit.unwrap_or(usize::MAX);
    // Several groups may ask too much of one provider together: that is seen at the end.
    let is_final = wanted.groups.len() < 2;
    let mut found: Vec<Candidate> = Vec::new();
    let mut seen: HashSet<Candidate> = HashSet::new();
    for root in &roots {
        if is_final && candidates.len() + found.len() >= limit {
            break;
        }
        if !root_traits.hold(|having| having.contains(root)) {
            continue;
        }
        let of_tree = in_tree(wanted, &fits, sharing, root, combinations_max, &parents);
        for candidate in of_tree.into_iter().filter(|c| wanted.nested || is_flat(c, &fits)) {
            // A sharing provider alone can be found from each of its sharers.
            if sharing.providers.is_empty() || seen.insert(candidate.clone()) {
                found.push(candidate);
            }
        }
    }
    let capacity = Capacity::load(tx, wanted, &found)?;
    found.retain(|candidate| capacity.has_room(candidate));
    candidates.extend(found);
    candidates.truncate(limit);
    Ok(())
}

/// Providers that fit a group, by tree.
struct Fit {
    /// Root → class → providers with room for it.
    by_root: HashMap<String, BTreeMap<String, Vec<String>>>,
    roots_in_order: Vec<String>,
    classes: BTreeMap<String, i64>,
    traits: TraitSets,
    roots: HashMap<String, String>,
}

/// The providers that have each of the traits asked for.
struct TraitSets {
    required: Vec<BTreeSet<String>>,
    forbidden: Vec<BTreeSet<String>>,
}

impl TraitSets {
    /// As far as it concerns these providers.
    fn load(tx: &mut Tx, traits: &Traits, among: &BTreeSet<String>) -> Result<Self> {
        let mut required = Vec::new();
        for any in &traits.required {
            let mut having = BTreeSet::new();
            for name in any {
                having.extend(store::with_trait_among(tx, name, among)?);
            }
            required.push(having);
        }
        let forbidden = traits
            .forbidden
            .iter()
            .map(|name| store::with_trait_among(tx, name, among))
            .collect::<Result<_>>()?;
        Ok(Self { required, forbidden })
    }

    fn hold(&self, among: impl Fn(&BTreeSet<String>) -> bool) -> bool {
        self.required.iter().all(&among) && !self.forbidden.iter().any(&among)
    }
}

impl Fit {
    fn load(tx: &mut Tx, group: &Group, one_provider: bool, span: Option<&Span>) -> Result<Self> {
        let member = Member::load(tx, &group.aggregates)?;
        let tree = match &group.in_tree {
            None => None,
            Some(uuid) => Some(tx.find::<Provider>(uuid)?.map_or_else(String::new, |found| found.root_uuid)),
        };
        let mut having: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for (class, amount) in &group.resources {
            having.push((class.clone(), store::with_room(tx, class, *amount, span)?));
        }
        if having.is_empty() {
            having.push((String::new(), all_with_traits(tx, &group.traits)?));
        }
        let among = having.iter().flat_map(|(_, having)| having).map(|(uuid, _)| uuid.clone()).collect();
        let mut fit = Self {
            by_root: HashMap::new(),
            roots_in_order: Vec::new(),
            classes: group.resources.clone(),
            traits: TraitSets::load(tx, &group.traits, &among)?,
            roots: HashMap::new(),
        };
        for (class, having) in having {
            for (uuid, root) in having {
                let suits = fit.traits.forbidden.iter().all(|having| !having.contains(&uuid))
                    && (!one_provider || fit.traits.required.iter().all(|having| having.contains(&uuid)))
                    && member.includes(&uuid, &root, one_provider)
                    && tree.as_ref().is_none_or(|tree| *tree == root);
                if !suits {
                    continue;
                }
                fit.roots.insert(uuid.clone(), root.clone());
                let classes = fit.by_root.entry(root.clone()).or_insert_with(|| {
                    fit.roots_in_order.push(root);
                    BTreeMap::new()
                });
                classes.entry(class.clone()).or_default().push(uuid);
            }
        }
        Ok(fit)
    }

    fn in_tree<'a>(&'a self, root: &str, class: &str, shared: &'a [String]) -> Vec<&'a String> {
        let own = self.by_root.get(root).and_then(|classes| classes.get(class)).into_iter().flatten();
        let sharing = shared.iter().filter(|uuid| {
            self.roots.get(*uuid).is_some_and(|other| {
                other != root
                    && self.by_root[other].get(class).is_some_and(|providers| providers.contains(uuid))
            })
        });
        own.chain(sharing).collect()
    }

    /// The ways to satisfy the group within a tree.
    fn solutions(&self, root: &str, shared: &[String], one_provider: bool, max: usize) -> Vec<Solution> {
        if one_provider {
            let first = self.classes.keys().next().map_or("", String::as_str);
            let candidates = self.in_tree(root, first, shared).into_iter();
            let has_all = |uuid: &&String| {
                self.classes.keys().all(|class| self.in_tree(root, class, shared).contains(uuid))
            };
            return candidates
                .filter(has_all)
                .map(|uuid| match self.classes.is_empty() {
                    true => vec![(uuid.clone(), String::new(), 0)],
                    false => self.classes.iter().map(|(c, a)| (uuid.clone(), c.clone(), *a)).collect(),
                })
                .collect();
        }
        let mut ways: Vec<Solution> = vec![Vec::new()];
        for (class, amount) in &self.classes {
            let having = self.in_tree(root, class, shared);
            let mut next = Vec::new();
            for way in &ways {
                for uuid in &having {
                    let mut longer = way.clone();
                    longer.push(((*uuid).clone(), class.clone(), *amount));
                    next.push(longer);
                    if next.len() >= max {
                        break;
                    }
                }
            }
            ways = next;
        }
        // Without a suffix, traits may come from any of the providers that are used.
        ways.retain(|way| {
            self.traits.required.iter().all(|having| way.iter().any(|(uuid, _, _)| having.contains(uuid)))
        });
        ways
    }
}

fn all_with_traits(tx: &mut Tx, traits: &Traits) -> Result<Vec<(String, String)>> {
    let mut having: Option<BTreeSet<String>> = None;
    for any in &traits.required {
        let mut some = BTreeSet::new();
        for name in any {
            some.extend(store::with_trait(tx, name)?);
        }
        having = Some(having.map_or(some.clone(), |all| all.intersection(&some).cloned().collect()));
    }
    let found: Vec<Provider> = match having {
        Some(uuids) => store::providers(tx, &uuids)?.into_values().collect(),
        None => tx.list(&db::List::all())?,
    };
    Ok(found.into_iter().map(|provider| (provider.uuid, provider.root_uuid)).collect())
}

/// Membership in aggregates.
struct Member {
    any_of: Vec<BTreeSet<String>>,
    forbidden: BTreeSet<String>,
}

impl Member {
    fn load(tx: &mut Tx, aggregates: &Aggregates) -> Result<Self> {
        let any_of =
            aggregates.any_of.iter().map(|any| store::in_aggregates(tx, any)).collect::<Result<_>>()?;
        let forbidden = match aggregates.forbidden.as_slice() {
            [] => BTreeSet::new(),
            list => store::in_aggregates(tx, list)?,
        };
        Ok(Self { any_of, forbidden })
    }

    /// Without a suffix, an aggregate of the root spans its tree.
    fn includes(&self, uuid: &str, root: &str, one_provider: bool) -> bool {
        let among = |set: &BTreeSet<String>| set.contains(uuid) || (!one_provider && set.contains(root));
        self.any_of.iter().all(among) && !among(&self.forbidden)
    }
}

/// Providers that share with whoever is in their aggregates.
struct Sharing {
    providers: BTreeSet<String>,
    /// Root → those that share with its tree.
    with: HashMap<String, Vec<String>>,
}

impl Sharing {
    fn load(tx: &mut Tx) -> Result<Self> {
        let providers = store::sharing(tx)?;
        let mut with: HashMap<String, Vec<String>> = HashMap::new();
        for uuid in &providers {
            let aggregates = store::aggregates(tx, uuid)?;
            if aggregates.is_empty() {
                continue;
            }
            let members = store::in_aggregates(tx, &aggregates)?;
            for member in store::providers(tx, &members)?.into_values().filter(|member| member.uuid != *uuid)
            {
                let list = with.entry(member.root_uuid).or_default();
                if !list.contains(uuid) {
                    list.push(uuid.clone());
                }
            }
        }
        Ok(Self { providers, with })
    }

    fn of(&self, root: &str) -> &[String] {
        self.with.get(root).map_or(&[], Vec::as_slice)
    }
}

/// The roots at which candidates may hang, in the order in which they were made.
fn anchors(fits: &HashMap<&str, Fit>, sharing: &Sharing) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut roots: Vec<String> = Vec::new();
    let mut suffixes: Vec<&&str> = fits.keys().collect();
    suffixes.sort_unstable();
    for suffix in suffixes {
        for root in &fits[*suffix].roots_in_order {
            if seen.insert(root.clone()) {
                roots.push(root.clone());
            }
        }
    }
    let mut sharers: Vec<&String> = sharing.with.keys().collect();
    sharers.sort_unstable();
    for root in sharers {
        if seen.insert(root.clone()) {
            roots.push(root.clone());
        }
    }
    roots
}

fn in_tree(
    wanted: &Wanted,
    fits: &HashMap<&str, Fit>,
    sharing: &Sharing,
    root: &str,
    max: usize,
    parents: &HashMap<String, Option<String>>,
) -> Vec<Candidate> {
    let shared = sharing.of(root);
    let mut ways: Vec<Vec<(&String, Solution)>> = vec![Vec::new()];
    for suffix in wanted.groups.keys() {
        let solutions = fits[suffix.as_str()].solutions(root, shared, !suffix.is_empty(), max);
        let mut next = Vec::new();
        for way in &ways {
            for solution in &solutions {
                if wanted.isolate && !suffix.is_empty() && shares_provider(way, solution) {
                    continue;
                }
                let mut longer = way.clone();
                longer.push((suffix, solution.clone()));
                next.push(longer);
            }
            if next.len() >= max {
                break;
            }
        }
        ways = next;
        if ways.is_empty() {
            return Vec::new();
        }
    }
    let mut found: Vec<Candidate> = Vec::new();
    for way in ways {
        let mut candidate = Candidate { allocations: BTreeMap::new(), mappings: BTreeMap::new() };
        for (suffix, solution) in &way {
            for (uuid, class, amount) in solution {
                candidate.mappings.entry((*suffix).clone()).or_default().insert(uuid.clone());
                if !class.is_empty() {
                    *candidate
                        .allocations
                        .entry(uuid.clone())
                        .or_default()
                        .entry(class.clone())
                        .or_default() += amount;
                }
            }
        }
        let together =
            wanted.same_subtrees.iter().all(|suffixes| in_one_subtree(&candidate, suffixes, parents));
        if together && !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

fn shares_provider(way: &[(&String, Solution)], solution: &Solution) -> bool {
    let used = way.iter().filter(|(suffix, _)| !suffix.is_empty()).flat_map(|(_, solution)| solution);
    let mut used = used.map(|(uuid, _, _)| uuid);
    used.any(|uuid| solution.iter().any(|(other, _, _)| other == uuid))
}

/// Whether one of the groups' providers is an ancestor of all others.
fn in_one_subtree(
    candidate: &Candidate,
    suffixes: &[String],
    parents: &HashMap<String, Option<String>>,
) -> bool {
    let of_groups: BTreeSet<&String> =
        suffixes.iter().filter_map(|suffix| candidate.mappings.get(suffix)).flatten().collect();
    let is_below = |uuid: &String, top: &String| {
        let mut at = Some(uuid);
        while let Some(here) = at {
            if here == top {
                return true;
            }
            at = parents.get(here).and_then(Option::as_ref);
        }
        false
    };
    of_groups.iter().any(|top| of_groups.iter().all(|uuid| is_below(uuid, top)))
}

fn parents(tx: &mut Tx, roots: &[String]) -> Result<HashMap<String, Option<String>>> {
    let roots: BTreeSet<String> = roots.iter().cloned().collect();
    Ok(store::trees(tx, &roots)?.into_iter().map(|provider| (provider.uuid, provider.parent_uuid)).collect())
}

/// Whoever knows of no trees is shown no two providers of one.
fn is_flat(candidate: &Candidate, fits: &HashMap<&str, Fit>) -> bool {
    let root = |uuid: &String| fits.values().find_map(|fit| fit.roots.get(uuid));
    let mut seen = HashSet::new();
    candidate.allocations.keys().all(|uuid| seen.insert(root(uuid)))
}

/// Several groups may take the same class of the same provider: together they must fit, too.
struct Capacity(HashMap<String, Vec<Inventory>>);

impl Capacity {
    fn load(tx: &mut Tx, wanted: &Wanted, candidates: &[Candidate]) -> Result<Self> {
        if wanted.groups.len() < 2 {
            return Ok(Self(HashMap::new()));
        }
        let uuids = candidates.iter().flat_map(|candidate| candidate.allocations.keys().cloned()).collect();
        Ok(Self(store::inventories_of(tx, &uuids)?))
    }

    fn has_room(&self, candidate: &Candidate) -> bool {
        candidate.allocations.iter().all(|(uuid, resources)| {
            let Some(inventories) = self.0.get(uuid) else { return true };
            resources.iter().all(|(class, amount)| {
                let mut of_class = inventories.iter().filter(|inventory| inventory.resource_class == *class);
                of_class.all(|i| i.used + amount <= i.capacity() && *amount <= i.max_unit)
            })
        })
    }
}

fn summaries(tx: &mut Tx, candidates: Vec<Candidate>, nested: bool) -> Result<Answer> {
    let used: BTreeSet<String> =
        candidates.iter().flat_map(|c| c.mappings.values().flatten().cloned()).collect();
    let used_providers = store::providers(tx, &used)?;
    let mut providers: Vec<Provider> = match nested {
        true => {
            let roots = used_providers.values().map(|provider| provider.root_uuid.clone()).collect();
            store::trees(tx, &roots)?
        }
        false => used_providers.into_values().collect(),
    };
    providers.sort_by(|a, b| (a.created_at, &a.uuid).cmp(&(b.created_at, &b.uuid)));
    let uuids = providers.iter().map(|provider| provider.uuid.clone()).collect();
    let inventories = store::inventories_of(tx, &uuids)?;
    let mut traits = store::traits_of(tx, &uuids)?;
    for names in traits.values_mut() {
        names.sort_by_cached_key(|name| (!crate::standard::is_trait(name), name.clone()));
    }
    Ok(Answer { candidates, providers, inventories, traits })
}
