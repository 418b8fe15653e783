//! What nova asks in-process: [`contracts::placement::Placement`].

use crate::{
    Placement, candidates,
    claims::{self, Claim, Generation},
    groups::{Group, Traits, Wanted},
    model::{Inventory, Provider, ResourceClass, Trait},
    standard, store,
};
use async_trait::async_trait;
use base::{Context, Result};
use contracts::placement as contract;
use std::collections::{BTreeMap, BTreeSet};

#[async_trait]
impl contract::Placement for Placement {
    async fn candidates(&self, _: &Context, wanted: &contract::Wanted) -> Result<Vec<contract::Candidate>> {
        let group = Group {
            resources: wanted
                .resources
                .iter()
                .map(|(class, amount)| (class.clone(), *amount as i64))
                .collect(),
            traits: Traits {
                required: wanted.required_traits.iter().map(|name| BTreeSet::from([name.clone()])).collect(),
                forbidden: wanted.forbidden_traits.iter().cloned().collect(),
            },
            ..Group::default()
        };
        let question = Wanted {
            groups: BTreeMap::from([(String::new(), group)]),
            limit: (wanted.limit > 0).then_some(wanted.limit as usize),
            nested: true,
            ..Wanted::default()
        };
        let max = self.options.max_allocation_candidates_per_tree;
        let found = self.db.read(move |tx| candidates::find(tx, &question, max)).await?;
        let trees = &found.trees;
        let candidates = found.candidates.iter().filter_map(|candidate| {
            let (first, _, _) = candidate.taken.first()?;
            let mut allocations: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
            for (at, class, amount) in &candidate.taken {
                let of_provider = allocations.entry(trees.nodes[*at].uuid.clone()).or_default();
                of_provider.insert(trees.classes.name(*class).into(), *amount as u64);
            }
            let provider_id = trees.root_uuid(&trees.nodes[*first]).into();
            Some(contract::Candidate { provider_id, allocations })
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
                            parent_uuid: None,
                            root_uuid: wanted.id.clone(),
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

    async fn remove_provider(&self, _: &Context, provider_id: &str) -> Result<()> {
        let id = provider_id.to_string();
        let removed = self.db.write(move |tx| crate::api::remove_provider(tx, &id)).await;
        match removed {
            Err(error) if error.is(base::ErrorKind::NotFound) => Ok(()),
            other => other,
        }
    }
}

fn inventory(id: &str, class: &str, wanted: &contract::Inventory, now: base::Timestamp) -> Inventory {
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

fn claim(allocation: &contract::Allocation) -> Claim {
    let signed = |resources: &contract::Resources| {
        resources.iter().map(|(class, amount)| (class.clone(), *amount as i64)).collect()
    };
    let consumer_type = Some(allocation.consumer_type.clone()).filter(|kind| !kind.is_empty());
    Claim {
        consumer_uuid: allocation.consumer_id.clone(),
        project_id: allocation.project_id.clone(),
        user_id: allocation.user_id.clone(),
        generation: Generation::Any,
        consumer_type: Some(consumer_type.unwrap_or_else(|| "INSTANCE".into())),
        allocations: allocation.resources.iter().map(|(id, r)| (id.clone(), signed(r))).collect(),
    }
}
