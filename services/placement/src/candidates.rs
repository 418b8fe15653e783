//! Who has room for all of it: for every tree of providers, and those that share with it, the combinations that
//! satisfy every group.

use crate::{
    groups::{Aggregates, Group, Traits, Wanted},
    store::{self, Which},
    trees::{At, Node, Number, Trees},
};
use base::Result;
use db::Tx;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
};

/// One way to take all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Provider, class and amount, in this order, each pair once.
    pub taken: Vec<(At, Number, i64)>,
    /// Which groups which providers satisfy: the group's place among the suffixes in order.
    pub mapped: Vec<(usize, At)>,
}

/// Candidates and all there is to know of the trees they are in.
pub struct Answer {
    pub candidates: Vec<Candidate>,
    pub trees: Trees,
    /// Whom to tell of.
    pub shown: Vec<At>,
}

/// A group satisfied: what is taken from whom.
type Solution = Vec<(At, Option<(Number, i64)>)>;

/// Without sharing, every candidate lies in one tree: then some trees are looked at, in the order in which they were made.
/// Where few of the first have room, only those that have are looked at, until there are enough candidates.
const ROOTS_FIRST: usize = 100;
const ROOTS_AT_ONCE_MIN: usize = 500;
const ROOTS_AT_ONCE_MAX: usize = 4000;

pub fn find(tx: &mut Tx, wanted: &Wanted, combinations_max: usize) -> Result<Answer> {
    let sharers = store::sharing(tx)?;
    let mut search = Search { wanted, combinations_max, trees: Trees::default(), candidates: Vec::new() };
    let Some(limit) = wanted.limit.filter(|_| sharers.is_empty()) else {
        let needs = if sharers.is_empty() { needs(wanted) } else { Vec::new() };
        search.look_at(tx, &Which::All, &needs, &sharers)?;
        return Ok(search.answer());
    };
    let needs = needs(wanted);
    search.look_at(tx, &Which::Behind(0, ROOTS_FIRST), &needs, &sharers)?;
    let at_once = limit.saturating_sub(search.candidates.len()).clamp(ROOTS_AT_ONCE_MIN, ROOTS_AT_ONCE_MAX);
    let mut looked_at = ROOTS_FIRST;
    if (ROOTS_FIRST / 2..limit).contains(&search.candidates.len()) {
        search.look_at(tx, &Which::Behind(ROOTS_FIRST, at_once), &needs, &sharers)?;
        looked_at += at_once;
    }
    if search.candidates.len() < limit {
        for some in store::roots_with_room(tx, &needs, looked_at)?.chunks(at_once) {
            search.look_at(tx, &Which::Of(some), &needs, &sharers)?;
            if search.candidates.len() >= limit {
                break;
            }
        }
    }
    Ok(search.answer())
}

/// What a tree must have to be worth a look: of each class what some group wants of it.
fn needs(wanted: &Wanted) -> Vec<(String, i64)> {
    let all = wanted.groups.values().flat_map(|group| &group.resources);
    all.map(|(class, amount)| (class.clone(), *amount)).collect()
}

struct Search<'a> {
    wanted: &'a Wanted,
    combinations_max: usize,
    trees: Trees,
    candidates: Vec<Candidate>,
}

impl Search<'_> {
    /// Adds the candidates of some trees, as far as the limit.
    fn look_at(
        &mut self,
        tx: &mut Tx,
        which: &Which,
        needs: &[(String, i64)],
        sharers: &BTreeSet<String>,
    ) -> Result<()> {
        let Self { wanted, combinations_max, trees, candidates } = self;
        let loaded = trees.load(tx, which, needs)?;
        let sharing = Sharing::load(tx, sharers, trees)?;
        let mut fits = Vec::new();
        for (suffix, group) in &wanted.groups {
            fits.push(Fit::new(tx, group, !suffix.is_empty(), (trees, loaded.clone()))?);
        }
        let root_traits = TraitNumbers::new(&wanted.root, trees);
        let limit = wanted.limit.unwrap_or(usize::MAX);
        let mut seen: HashSet<Candidate> = HashSet::new();
        for root in anchors(&fits, &sharing, trees) {
            if candidates.len() >= limit {
                break;
            }
            if !root_traits.hold(&trees.nodes[root]) {
                continue;
            }
            let around = (&*trees, sharing.of(root));
            for candidate in in_tree(wanted, &fits, around, root, *combinations_max) {
                let is_shown = wanted.nested || is_flat(&candidate, trees);
                // Several groups may ask too much of one provider together.
                let has_room = fits.len() < 2 || has_room(&candidate, trees);
                // A sharing provider alone can be found from each of its sharers.
                if is_shown && has_room && (sharing.is_none() || seen.insert(candidate.clone())) {
                    candidates.push(candidate);
                }
            }
        }
        Ok(())
    }

    fn answer(self) -> Answer {
        let Self { wanted, trees, mut candidates, .. } = self;
        candidates.truncate(wanted.limit.unwrap_or(usize::MAX));
        let shown = shown(&trees, &candidates, wanted.nested);
        Answer { candidates, trees, shown }
    }
}

/// Traits as numbers: any of each set must be there, and none of the others.
struct TraitNumbers {
    required: Vec<Vec<Number>>,
    forbidden: Vec<Number>,
}

impl TraitNumbers {
    fn new(traits: &Traits, trees: &mut Trees) -> Self {
        let mut number = |name: &String| trees.traits.number(name);
        Self {
            required: traits.required.iter().map(|any| any.iter().map(&mut number).collect()).collect(),
            forbidden: traits.forbidden.iter().map(&mut number).collect(),
        }
    }

    fn are_allowed(&self, node: &Node) -> bool {
        !self.forbidden.iter().any(|number| node.traits.contains(number))
    }

    fn has_any(node: &Node, any: &[Number]) -> bool {
        any.iter().any(|number| node.traits.contains(number))
    }

    fn hold(&self, node: &Node) -> bool {
        self.are_allowed(node) && self.required.iter().all(|any| Self::has_any(node, any))
    }
}

/// Providers that fit a group, by tree.
struct Fit {
    one_provider: bool,
    classes: Vec<(Number, i64)>,
    traits: TraitNumbers,
    /// Root → for each class (for none of them, once) the providers with room for it.
    by_root: HashMap<At, Vec<Vec<At>>>,
    roots_in_order: Vec<At>,
}

impl Fit {
    fn new(
        tx: &mut Tx,
        group: &Group,
        one_provider: bool,
        (trees, among): (&mut Trees, Range<At>),
    ) -> Result<Self> {
        let member = Member::load(tx, &group.aggregates)?;
        let classes: Vec<(Number, i64)> =
            group.resources.iter().map(|(class, amount)| (trees.classes.number(class), *amount)).collect();
        let traits = TraitNumbers::new(&group.traits, trees);
        // Of a provider that is elsewhere or nowhere, none of these is in the tree.
        let root_of = |uuid: &String| trees.find(uuid).map(|at| trees.nodes[at].root);
        let tree = group.in_tree.as_ref().map(root_of);
        let mut fit =
            Self { one_provider, classes, traits, by_root: HashMap::new(), roots_in_order: Vec::new() };
        for at in among {
            let node = &trees.nodes[at];
            let suits = match one_provider {
                true => fit.traits.hold(node),
                false => fit.traits.are_allowed(node),
            };
            let suits = suits
                && tree.is_none_or(|tree| tree == Some(node.root))
                && member.includes(node, trees, one_provider);
            if !suits {
                continue;
            }
            if fit.classes.is_empty() {
                fit.note(node.root, 0, at);
            }
            for place in 0..fit.classes.len() {
                let (class, amount) = fit.classes[place];
                if node.room(class).is_some_and(|room| room.has(amount)) {
                    fit.note(node.root, place, at);
                }
            }
        }
        Ok(fit)
    }

    fn note(&mut self, root: At, place: usize, at: At) {
        let Self { by_root, roots_in_order, classes, .. } = self;
        let having = by_root.entry(root).or_insert_with(|| {
            roots_in_order.push(root);
            vec![Vec::new(); classes.len().max(1)]
        });
        having[place].push(at);
    }

    /// Who has room for a class: of the tree, and of those that share with it.
    fn having(&self, root: At, place: usize, (trees, shared): (&Trees, &[At])) -> Vec<At> {
        let of = |root: At| self.by_root.get(&root).map_or(&[][..], |having| having[place].as_slice());
        let others = shared.iter().copied().filter(|at| {
            let other = trees.nodes[*at].root;
            other != root && of(other).contains(at)
        });
        of(root).iter().copied().chain(others).collect()
    }

    /// The ways to satisfy the group within a tree.
    fn solutions(&self, root: At, around: (&Trees, &[At]), max: usize) -> Vec<Solution> {
        let places = 0..self.classes.len().max(1);
        let mut having: Vec<Vec<At>> = places.map(|place| self.having(root, place, around)).collect();
        if self.one_provider {
            let (first, others) = (having.remove(0), having);
            let all = first.into_iter().filter(|at| others.iter().all(|having| having.contains(at)));
            return all
                .map(|at| match self.classes.is_empty() {
                    true => vec![(at, None)],
                    false => self.classes.iter().map(|wanted| (at, Some(*wanted))).collect(),
                })
                .collect();
        }
        let mut ways: Vec<Solution> = vec![Vec::with_capacity(self.classes.len())];
        for (wanted, having) in self.classes.iter().zip(&having) {
            if let ([way], [at]) = (ways.as_mut_slice(), having.as_slice()) {
                way.push((*at, Some(*wanted)));
                continue;
            }
            let longer = |(way, at): (&Solution, &At)| {
                let mut longer = way.clone();
                longer.push((*at, Some(*wanted)));
                longer
            };
            let all = ways.iter().flat_map(|way| having.iter().map(move |at| (way, at)));
            ways = all.take(max).map(longer).collect();
        }
        // Without a suffix, traits may come from any of the providers that are used.
        let nodes = &around.0.nodes;
        ways.retain(|way| {
            let met = |any: &Vec<Number>| way.iter().any(|(at, _)| TraitNumbers::has_any(&nodes[*at], any));
            self.traits.required.iter().all(met)
        });
        ways
    }
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
    fn includes(&self, node: &Node, trees: &Trees, one_provider: bool) -> bool {
        let among = |set: &BTreeSet<String>| {
            set.contains(&node.uuid) || (!one_provider && set.contains(trees.root_uuid(node)))
        };
        self.any_of.iter().all(among) && !among(&self.forbidden)
    }
}

/// Providers that share with whoever is in their aggregates: those that share with the tree of a root.
struct Sharing(BTreeMap<At, Vec<At>>);

impl Sharing {
    fn load(tx: &mut Tx, sharers: &BTreeSet<String>, trees: &Trees) -> Result<Self> {
        let mut with: BTreeMap<At, Vec<At>> = BTreeMap::new();
        for uuid in sharers {
            let (Some(sharer), aggregates) = (trees.find(uuid), store::aggregates(tx, uuid)?) else {
                continue;
            };
            if aggregates.is_empty() {
                continue;
            }
            let members = store::in_aggregates(tx, &aggregates)?;
            for node in trees.nodes.iter().filter(|node| node.uuid != *uuid && members.contains(&node.uuid)) {
                let list = with.entry(node.root).or_default();
                if !list.contains(&sharer) {
                    list.push(sharer);
                }
            }
        }
        Ok(Self(with))
    }

    fn of(&self, root: At) -> &[At] {
        self.0.get(&root).map_or(&[], Vec::as_slice)
    }

    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// The roots at which candidates may hang, in the order in which they were made.
fn anchors(fits: &[Fit], sharing: &Sharing, trees: &Trees) -> Vec<At> {
    let mut seen = HashSet::new();
    let fitting = fits.iter().flat_map(|fit| fit.roots_in_order.iter().copied());
    let mut roots: Vec<At> = fitting.filter(|root| seen.insert(*root)).collect();
    let mut others: Vec<At> = sharing.0.keys().copied().filter(|root| seen.insert(*root)).collect();
    others.sort_unstable_by_key(|root| &trees.nodes[*root].uuid);
    roots.extend(others);
    roots
}

fn in_tree(wanted: &Wanted, fits: &[Fit], around: (&Trees, &[At]), root: At, max: usize) -> Vec<Candidate> {
    let mut ways: Vec<Vec<(usize, Solution)>> = vec![Vec::new()];
    for (number, fit) in fits.iter().enumerate() {
        let mut solutions = fit.solutions(root, around, max);
        if let ([way], 1) = (ways.as_mut_slice(), solutions.len()) {
            let solution = solutions.remove(0);
            if wanted.isolate && fit.one_provider && shares_provider(way, fits, &solution) {
                return Vec::new();
            }
            way.push((number, solution));
            continue;
        }
        let mut next = Vec::new();
        for way in &ways {
            for solution in &solutions {
                if wanted.isolate && fit.one_provider && shares_provider(way, fits, solution) {
                    continue;
                }
                let mut longer = way.clone();
                longer.push((number, solution.clone()));
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
    let suffixes: Vec<&String> = wanted.groups.keys().collect();
    let mut found: Vec<Candidate> = Vec::new();
    for way in ways {
        let candidate = Candidate::of(&way);
        let mut subtrees = wanted.same_subtrees.iter();
        let together = subtrees.all(|named| {
            let of = |number: usize| named.contains(suffixes[number]);
            in_one_subtree(&candidate, of, around.0)
        });
        if together && !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

impl Candidate {
    fn of(way: &[(usize, Solution)]) -> Self {
        let parts = way.iter().flat_map(|(_, solution)| solution);
        let mut taken: Vec<(At, Number, i64)> =
            parts.filter_map(|(at, taken)| taken.map(|(class, amount)| (*at, class, amount))).collect();
        taken.sort_unstable();
        taken.dedup_by(|next, first| {
            let is_same = (next.0, next.1) == (first.0, first.1);
            if is_same {
                first.2 += next.2;
            }
            is_same
        });
        let mut mapped: Vec<(usize, At)> =
            way.iter().flat_map(|(number, solution)| solution.iter().map(|(at, _)| (*number, *at))).collect();
        mapped.sort_unstable();
        mapped.dedup();
        Self { taken, mapped }
    }
}

fn shares_provider(way: &[(usize, Solution)], fits: &[Fit], solution: &Solution) -> bool {
    let others = way.iter().filter(|(number, _)| fits[*number].one_provider);
    let mut used = others.flat_map(|(_, solution)| solution).map(|(at, _)| at);
    used.any(|at| solution.iter().any(|(other, _)| other == at))
}

/// Whether one of the groups' providers is an ancestor of all others.
fn in_one_subtree(candidate: &Candidate, of: impl Fn(usize) -> bool, trees: &Trees) -> bool {
    let of_groups: BTreeSet<At> =
        candidate.mapped.iter().filter(|(number, _)| of(*number)).map(|(_, at)| *at).collect();
    of_groups.iter().any(|top| of_groups.iter().all(|at| trees.line(*at).any(|here| here == *top)))
}

/// Whoever knows of no trees is shown no two providers of one.
fn is_flat(candidate: &Candidate, trees: &Trees) -> bool {
    let providers: BTreeSet<At> = candidate.taken.iter().map(|(at, _, _)| *at).collect();
    let mut seen = HashSet::new();
    providers.iter().all(|at| seen.insert(trees.nodes[*at].root))
}

fn has_room(candidate: &Candidate, trees: &Trees) -> bool {
    let mut taken = candidate.taken.iter();
    taken.all(|(at, class, amount)| trees.nodes[*at].room(*class).is_none_or(|room| room.has_sum(*amount)))
}

/// Those that are used; to who knows of trees, all of theirs.
fn shown(trees: &Trees, candidates: &[Candidate], nested: bool) -> Vec<At> {
    let used = candidates.iter().flat_map(|candidate| &candidate.mapped).map(|(_, at)| *at);
    let mut is_shown = vec![false; trees.nodes.len()];
    used.for_each(|at| is_shown[if nested { trees.nodes[at].root } else { at }] = true);
    let shows = |at: &At| is_shown[if nested { trees.nodes[*at].root } else { *at }];
    (0..trees.nodes.len()).filter(shows).collect()
}
