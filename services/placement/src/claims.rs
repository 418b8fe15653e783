//! Taking and giving up resources. Everything here happens within one transaction, so that claims are exact.

use crate::{model::*, schemas::CONCURRENT_UPDATE, store};
use base::{Error, Result, Timestamp};
use db::{Stored, Tx, params, sql};
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet};

/// What a consumer shall have, instead of what it has. Nothing: it goes.
#[derive(Clone, Debug)]
pub struct Claim {
    pub consumer_uuid: String,
    pub project_id: String,
    pub user_id: String,
    pub generation: Generation,
    /// None leaves it as it is.
    pub consumer_type: Option<String>,
    /// Provider → class → amount, in the caller's order: the first that does not fit is told.
    pub allocations: Held,
}

/// Provider → class → amount.
pub type Held = IndexMap<String, IndexMap<String, i64>>;

/// What the caller knows of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// It does not say, as callers older than 1.28.
    Any,
    /// It is new, or has been changed so often.
    Known(Option<i64>),
}

/// Makes all claims or none. The providers' generations are counted up.
pub fn replace(tx: &mut Tx, claims: &[Claim], now: Timestamp) -> Result<()> {
    let consumers: Vec<Consumer> = claims.iter().map(|claim| consumer(tx, claim)).collect::<Result<_>>()?;
    let wanted: BTreeSet<String> =
        claims.iter().flat_map(|claim| claim.allocations.keys().cloned()).collect();
    let known = store::providers(tx, &wanted)?;
    if let Some(missing) = wanted.iter().find(|uuid| !known.contains_key(*uuid)) {
        let sentence = format!("Allocation for resource provider '{missing}' that does not exist.");
        return Err(Error::bad_request(sentence));
    }
    // What is given up is free for the other claims.
    let mut touched = wanted;
    for claim in claims {
        for old in store::allocations_of(tx, &claim.consumer_uuid)? {
            give_up(tx, &old)?;
            touched.insert(old.provider_uuid);
        }
    }
    for (claim, mut consumer) in claims.iter().zip(consumers) {
        for (provider_uuid, resources) in &claim.allocations {
            for (class, amount) in resources {
                take(tx, &claim.consumer_uuid, provider_uuid, class, *amount, now)?;
            }
        }
        if claim.allocations.is_empty() {
            tx.remove::<Consumer>(&consumer.uuid)?;
        } else {
            consumer.generation += 1;
            tx.update(&consumer)?;
        }
    }
    for mut provider in store::providers(tx, &touched)?.into_values() {
        store::bump(tx, &mut provider, now)?;
    }
    Ok(())
}

pub fn held_by(tx: &mut Tx, consumer_uuid: &str) -> Result<Held> {
    let mut held = Held::new();
    for row in store::allocations_of(tx, consumer_uuid)? {
        held.entry(row.provider_uuid).or_default().insert(row.resource_class, row.used);
    }
    Ok(held)
}

/// That a consumer shall have this.
pub fn of(consumer: &Consumer, allocations: Held) -> Claim {
    Claim {
        consumer_uuid: consumer.uuid.clone(),
        project_id: consumer.project_id.clone(),
        user_id: consumer.user_id.clone(),
        generation: Generation::Any,
        consumer_type: consumer.consumer_type.clone(),
        allocations,
    }
}

/// More, and less, of what is held; what nothing is left of goes.
pub fn add(held: &mut Held, difference: &BTreeMap<String, BTreeMap<String, i64>>) {
    for (provider, resources) in difference {
        let of_provider = held.entry(provider.clone()).or_default();
        for (class, amount) in resources {
            *of_provider.entry(class.clone()).or_default() += amount;
        }
        of_provider.retain(|_, amount| *amount > 0);
    }
    held.retain(|_, resources| !resources.is_empty());
}

/// All that a consumer has; false when it has nothing. Generations stay.
pub fn release(tx: &mut Tx, consumer_uuid: &str) -> Result<bool> {
    let held = store::allocations_of(tx, consumer_uuid)?;
    for old in &held {
        give_up(tx, old)?;
    }
    tx.remove::<Consumer>(consumer_uuid)?;
    Ok(!held.is_empty())
}

/// The consumer as it is, or as it begins.
fn consumer(tx: &mut Tx, claim: &Claim) -> Result<Consumer> {
    let conflict = |expected: &str, got: &str| {
        let sentence = format!("consumer generation conflict - expected {expected} but got {got}");
        Error::conflict(sentence).code(CONCURRENT_UPDATE)
    };
    match tx.find::<Consumer>(&claim.consumer_uuid)? {
        Some(mut consumer) => {
            if let Generation::Known(known) = claim.generation
                && known != Some(consumer.generation)
            {
                let got = known.map_or("None".to_string(), |number| number.to_string());
                return Err(conflict(&consumer.generation.to_string(), &got));
            }
            consumer.project_id.clone_from(&claim.project_id);
            consumer.user_id.clone_from(&claim.user_id);
            if claim.consumer_type.is_some() {
                consumer.consumer_type.clone_from(&claim.consumer_type);
            }
            Ok(consumer)
        }
        None => {
            if let Generation::Known(Some(number)) = claim.generation {
                return Err(conflict("null", &number.to_string()));
            }
            let consumer = Consumer {
                uuid: claim.consumer_uuid.clone(),
                project_id: claim.project_id.clone(),
                user_id: claim.user_id.clone(),
                generation: 0,
                consumer_type: claim.consumer_type.clone(),
            };
            tx.insert(&consumer)?;
            Ok(consumer)
        }
    }
}

fn give_up(tx: &mut Tx, old: &Allocation) -> Result<()> {
    tx.execute(
        sql!("UPDATE inventories SET used = used - $3 WHERE provider_uuid = $1 AND resource_class = $2"),
        params![old.provider_uuid, old.resource_class, old.used],
    )?;
    let key = [old.consumer_uuid.store(), old.provider_uuid.store(), old.resource_class.store()];
    tx.delete::<Allocation>(&key).map(drop)
}

fn take(
    tx: &mut Tx,
    consumer_uuid: &str,
    provider_uuid: &str,
    class: &str,
    amount: i64,
    now: Timestamp,
) -> Result<()> {
    let unable = |why: &str| {
        Error::conflict(format!(
            "Unable to allocate inventory: Unable to create allocation for '{class}' on resource provider \
             '{provider_uuid}'. The requested amount would {why}."
        ))
    };
    let Some(inventory) = store::inventory(tx, provider_uuid, class)? else {
        store::check_class(tx, class).map_err(|error| {
            let message = &error.message;
            Error::bad_request(format!(
                "Unable to allocate inventory for consumer {consumer_uuid}: {message}"
            ))
        })?;
        return Err(Error::conflict(format!(
            "Unable to allocate inventory: Inventory for '{class}' on resource provider '{provider_uuid}' invalid."
        )));
    };
    let fits =
        amount >= inventory.min_unit && amount <= inventory.max_unit && amount % inventory.step_size == 0;
    if !fits {
        return Err(unable("violate inventory constraints"));
    }
    if inventory.used + amount > inventory.capacity() {
        return Err(unable("exceed the capacity"));
    }
    tx.execute(
        sql!("UPDATE inventories SET used = used + $3 WHERE provider_uuid = $1 AND resource_class = $2"),
        params![provider_uuid, class, amount],
    )?;
    tx.insert(&Allocation {
        consumer_uuid: consumer_uuid.into(),
        provider_uuid: provider_uuid.into(),
        resource_class: class.into(),
        used: amount,
        updated_at: now,
    })
}

/// Sets what a provider has. What is used stays used; a class that is in use stays.
pub fn set_inventories(
    tx: &mut Tx,
    provider: &mut Provider,
    wanted: &[Inventory],
    now: Timestamp,
) -> Result<()> {
    let has = store::inventories(tx, &provider.uuid)?;
    let gone: Vec<&Inventory> =
        has.iter().filter(|old| !wanted.iter().any(|new| new.resource_class == old.resource_class)).collect();
    let in_use: Vec<&str> =
        gone.iter().filter(|old| old.used > 0).map(|old| old.resource_class.as_str()).collect();
    if !in_use.is_empty() {
        return Err(in_use_error(&in_use.join(", "), &provider.uuid));
    }
    for old in gone {
        tx.delete::<Inventory>(&[old.provider_uuid.store(), old.resource_class.store()])?;
    }
    for new in wanted {
        match has.iter().find(|old| old.resource_class == new.resource_class) {
            Some(old) => drop(tx.update(&Inventory { used: old.used, ..new.clone() })?),
            None => tx.insert(new)?,
        }
    }
    store::bump(tx, provider, now)
}

pub const INVENTORY_IN_USE: &str = "placement.inventory.inuse";

pub fn in_use_error(classes: &str, provider_uuid: &str) -> Error {
    let sentence = format!("Inventory for '{classes}' on resource provider '{provider_uuid}' in use.");
    Error::conflict(sentence).code(INVENTORY_IN_USE)
}
