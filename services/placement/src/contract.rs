//! What nova asks in-process: [`contracts::placement::Placement`].

use crate::{
    Placement, candidates,
    claims::{self, Claim, Generation},
    groups::{Group, Traits, Wanted},
    model::{Change, Consumer, Inventory, Provider, ResourceClass, Trait},
    standard, store,
    trees::At,
};
use async_trait::async_trait;
use base::{Context, Error, Result, Timestamp};
use contracts::placement as contract;
use db::{List, Tx};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[async_trait]
impl contract::Placement for Placement {
    async fn candidates(&self, _: &Context, wanted: &contract::Wanted) -> Result<Vec<contract::Candidate>> {
        let question = question(wanted);
        let max = self.options.max_allocation_candidates_per_tree;
        let asked = question.clone();
        let found = self.db.read(move |tx| candidates::find(tx, &question, max)).await?;
        let trees = &found.trees;
        // Groups in the order of their suffixes, as candidates number them.
        let suffixes: Vec<&String> = asked.groups.keys().collect();
        let uuid = |at: &At| trees.nodes[*at].uuid.clone();
        let candidates = found.candidates.iter().filter_map(|candidate| {
            let (first, _, _) = candidate.taken.first()?;
            let mut allocations: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
            for (at, class, amount) in &candidate.taken {
                let of_provider = allocations.entry(uuid(at)).or_default();
                of_provider.insert(trees.classes.name(*class).into(), *amount as u64);
            }
            let groups = candidate.mapped.iter().filter(|(number, _)| !suffixes[*number].is_empty());
            let mappings = groups.map(|(number, at)| (suffixes[*number].clone(), uuid(at))).collect();
            let provider_id = trees.root_uuid(&trees.nodes[*first]).into();
            Some(contract::Candidate { provider_id, allocations, mappings })
        });
        Ok(candidates.collect())
    }

    async fn allocate(&self, cx: &Context, allocation: &contract::Allocation) -> Result<()> {
        self.allocate_together(cx, std::slice::from_ref(allocation)).await
    }

    async fn allocate_together(&self, _: &Context, allocations: &[contract::Allocation]) -> Result<()> {
        let claims: Vec<Claim> = allocations.iter().map(claim).collect();
        let clock = self.clock.clone();
        self.db.write(move |tx| claims::replace(tx, &claims, clock.now())).await
    }

    async fn allocations(&self, _: &Context, consumer_id: &str) -> Result<contract::Allocated> {
        let id = consumer_id.to_string();
        self.db
            .read(move |tx| {
                let mut found = contract::Allocated {
                    generation: tx.find::<Consumer>(&id)?.map(|consumer| consumer.generation),
                    ..contract::Allocated::default()
                };
                for row in store::allocations_of(tx, &id)? {
                    let of_provider = found.resources.entry(row.provider_uuid).or_default();
                    of_provider.insert(row.resource_class, row.used.unsigned_abs());
                }
                Ok(found)
            })
            .await
    }

    async fn move_allocations(&self, _: &Context, from: &str, to: &str, consumer_type: &str) -> Result<()> {
        let (from, to, kind) = (from.to_string(), to.to_string(), consumer_type.to_string());
        let clock = self.clock.clone();
        self.db
            .write(move |tx| {
                let (Some(consumer), has) = (tx.find::<Consumer>(&from)?, claims::held_by(tx, &from)?) else {
                    return Ok(());
                };
                let nothing = claims::of(&consumer, claims::Held::new());
                let mut moved = claims::of(&consumer, has);
                moved.consumer_uuid.clone_from(&to);
                moved.consumer_type = Some(type_of(&kind));
                claims::replace(tx, &[nothing, moved], clock.now())
            })
            .await
    }

    async fn change_allocations(
        &self,
        _: &Context,
        id: &str,
        changes: &[contract::AllocationChange],
    ) -> Result<()> {
        let (id, changes, clock) = (id.to_string(), changes.to_vec(), self.clock.clone());
        self.db
            .write(move |tx| {
                match tx.find::<Change>(&id)? {
                    Some(change) if change.taken_back => {
                        return Err(Error::conflict("The change was taken back."));
                    }
                    Some(_) => return Ok(()),
                    None => {}
                }
                let now = clock.now();
                remember(tx, &id, false, now)?;
                change(tx, &changes, now)
            })
            .await
    }

    async fn take_back_allocations(
        &self,
        _: &Context,
        id: &str,
        changes: &[contract::AllocationChange],
    ) -> Result<()> {
        let (id, changes, clock) = (id.to_string(), changes.to_vec(), self.clock.clone());
        self.db
            .write(move |tx| {
                let now = clock.now();
                let Some(made) = tx.find::<Change>(&id)? else { return remember(tx, &id, true, now) };
                if made.taken_back {
                    return Ok(());
                }
                tx.update(&Change { taken_back: true, ..made })?;
                let mut back = Vec::new();
                for mut one in changes.clone() {
                    let amounts = one.difference.values_mut().flat_map(BTreeMap::values_mut);
                    amounts.for_each(|amount| *amount = -*amount);
                    if tx.find::<Consumer>(&one.consumer_id)?.is_some() {
                        back.push(one);
                    }
                }
                change(tx, &back, now)
            })
            .await
    }

    async fn release(&self, _: &Context, consumer_id: &str) -> Result<()> {
        let id = consumer_id.to_string();
        self.db.write(move |tx| claims::release(tx, &id).map(drop)).await
    }

    async fn provide(&self, _: &Context, wanted: &contract::Provider) -> Result<()> {
        let (wanted, clock) = (wanted.clone(), self.clock.clone());
        self.db
            .write(move |tx| {
                let now = clock.now();
                let mut provider = match tx.find::<Provider>(&wanted.id)? {
                    Some(provider) => provider,
                    None => {
                        let provider = Provider {
                            uuid: wanted.id.clone(),
                            name: wanted.name.clone(),
                            generation: 0,
                            root_uuid: match &wanted.parent_id {
                                Some(parent) => store::provider(tx, parent)?.root_uuid,
                                None => wanted.id.clone(),
                            },
                            parent_uuid: wanted.parent_id.clone(),
                            created_at: now,
                            updated_at: now,
                        };
                        tx.insert(&provider)?;
                        provider
                    }
                };
                for class in wanted.inventories.keys().filter(|class| !standard::is_class(class)) {
                    if tx.find::<ResourceClass>(class)?.is_none() {
                        tx.insert(&ResourceClass { name: class.clone(), created_at: now })?;
                    }
                }
                for name in wanted.traits.iter().filter(|name| !standard::is_trait(name)) {
                    if tx.find::<Trait>(name)?.is_none() {
                        tx.insert(&Trait { name: name.clone(), created_at: now })?;
                    }
                }
                // Reports repeat themselves; only a change is written.
                let inventories: Vec<Inventory> = wanted
                    .inventories
                    .iter()
                    .map(|(class, i)| inventory(&wanted.id, class, i, now))
                    .collect();
                if differs(&store::inventories(tx, &wanted.id)?, &inventories) {
                    claims::set_inventories(tx, &mut provider, &inventories, now)?;
                }
                let has: BTreeSet<String> = store::traits(tx, &wanted.id)?.into_iter().collect();
                let shall: BTreeSet<String> = wanted.traits.iter().cloned().collect();
                if has != shall {
                    store::set_traits(tx, &wanted.id, &shall.into_iter().collect::<Vec<_>>())?;
                    store::bump(tx, &mut provider, now)?;
                }
                Ok(())
            })
            .await
    }

    async fn provider_id(&self, _: &Context, name: &str) -> Result<Option<String>> {
        let wanted = List::all().eq("name", name);
        self.db.read(move |tx| Ok(tx.list::<Provider>(&wanted)?.pop().map(|provider| provider.uuid))).await
    }

    async fn remove_provider(&self, _: &Context, provider_id: &str) -> Result<()> {
        let id = provider_id.to_string();
        let removed = self.db.write(move |tx| remove_tree(tx, &id)).await;
        match removed {
            Err(error) if error.is(base::ErrorKind::NotFound) => Ok(()),
            other => other,
        }
    }
}

/// How long it is known that a change was made.
const CHANGES_KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

fn remember(tx: &mut Tx, id: &str, taken_back: bool, now: Timestamp) -> Result<()> {
    store::forget_changes(tx, now.minus(CHANGES_KNOWN_FOR))?;
    tx.insert(&Change { id: id.into(), taken_back, created_at: now })
}

fn change(tx: &mut Tx, changes: &[contract::AllocationChange], now: Timestamp) -> Result<()> {
    let mut claims: Vec<Claim> = Vec::new();
    for change in changes {
        let id = &change.consumer_id;
        let known = claims.iter().position(|claim| claim.consumer_uuid == *id);
        let at = match known {
            Some(at) => at,
            None => {
                let missing = || Error::not_found(format!("Consumer {id} has no allocations."));
                let consumer = tx.find::<Consumer>(id)?.ok_or_else(missing)?;
                let has = claims::held_by(tx, id)?;
                claims.push(claims::of(&consumer, has));
                claims.len() - 1
            }
        };
        claims::add(&mut claims[at].allocations, &change.difference);
    }
    claims::replace(tx, &claims, now)
}

/// Those below it first.
fn remove_tree(tx: &mut Tx, id: &str) -> Result<()> {
    for child in store::children(tx, id)? {
        remove_tree(tx, &child.uuid)?;
    }
    crate::api::remove_provider(tx, id)
}

/// What is asked, with a group without a suffix for what may come from anywhere in a tree.
fn question(wanted: &contract::Wanted) -> Wanted {
    let group = |resources: &contract::Resources, required: &[String], forbidden: &[String]| Group {
        resources: resources.iter().map(|(class, amount)| (class.clone(), *amount as i64)).collect(),
        traits: Traits {
            required: required.iter().map(|name| BTreeSet::from([name.clone()])).collect(),
            forbidden: forbidden.iter().cloned().collect(),
        },
        in_tree: wanted.in_tree.clone(),
        ..Group::default()
    };
    let mut groups: BTreeMap<String, Group> = wanted
        .groups
        .iter()
        .map(|one| (one.id.clone(), group(&one.resources, &one.required_traits, &[])))
        .collect();
    if !wanted.resources.is_empty() || wanted.groups.is_empty() {
        let rest = group(&wanted.resources, &wanted.required_traits, &wanted.forbidden_traits);
        groups.insert(String::new(), rest);
    }
    Wanted {
        groups,
        same_subtrees: wanted.same_subtrees.clone(),
        limit: (wanted.limit > 0).then_some(wanted.limit as usize),
        nested: true,
        ..Wanted::default()
    }
}

fn inventory(id: &str, class: &str, wanted: &contract::Inventory, now: Timestamp) -> Inventory {
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    Inventory {
        provider_uuid: id.into(),
        resource_class: class.into(),
        total: signed(wanted.total),
        reserved: signed(wanted.reserved),
        min_unit: signed(wanted.min_unit),
        max_unit: signed(wanted.max_unit),
        step_size: signed(wanted.step_size).max(1),
        allocation_ratio: wanted.allocation_ratio,
        used: 0,
        updated_at: now,
    }
}

fn differs(has: &[Inventory], shall: &[Inventory]) -> bool {
    let facts = |i: &Inventory| {
        (i.total, i.reserved, i.min_unit, i.max_unit, i.step_size, i.allocation_ratio.to_bits())
    };
    has.len() != shall.len()
        || !shall.iter().all(|new| {
            has.iter().any(|old| old.resource_class == new.resource_class && facts(old) == facts(new))
        })
}

fn type_of(kind: &str) -> String {
    if kind.is_empty() { "INSTANCE".into() } else { kind.into() }
}

fn claim(allocation: &contract::Allocation) -> Claim {
    let signed = |resources: &contract::Resources| {
        resources.iter().map(|(class, amount)| (class.clone(), *amount as i64)).collect()
    };
    Claim {
        consumer_uuid: allocation.consumer_id.clone(),
        project_id: allocation.project_id.clone(),
        user_id: allocation.user_id.clone(),
        generation: allocation.generation.map_or(Generation::Any, Generation::Known),
        consumer_type: Some(type_of(&allocation.consumer_type)),
        allocations: allocation.resources.iter().map(|(id, r)| (id.clone(), signed(r))).collect(),
    }
}
