//! Placement as neutron sees it, for tests: what hosts have, and what servers' ports take of it.

use crate::placement::{Allocated, Allocation, AllocationChange, Candidate, Placement, Provider, Wanted};
use async_trait::async_trait;
use base::{Context, Error, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::RwLock;

/// Placement as neutron sees it: the providers that it is told of, and what one server has.
#[derive(Default)]
pub struct Books {
    /// Changes by their ids, and whether they stand.
    changes: Mutex<BTreeMap<String, bool>>,
    /// Who holds it for writing holds up answers to changes that were made.
    pub door: RwLock<()>,
    pub providers: Mutex<Vec<Provider>>,
    /// By provider and class.
    pub held: Mutex<BTreeMap<String, BTreeMap<String, i64>>>,
    /// The most that anybody may have of a class.
    pub most: Mutex<i64>,
}

#[async_trait]
impl Placement for Books {
    async fn provider_id(&self, _: &Context, name: &str) -> Result<Option<String>> {
        let providers = self.providers.lock();
        Ok(providers.iter().find(|provider| provider.name == name).map(|provider| provider.id.clone()))
    }

    async fn provide(&self, _: &Context, provider: &Provider) -> Result<()> {
        let mut providers = self.providers.lock();
        providers.retain(|known| known.id != provider.id);
        providers.push(provider.clone());
        Ok(())
    }

    async fn change_allocations(&self, _: &Context, id: &str, changes: &[AllocationChange]) -> Result<()> {
        self.change(id, changes)?;
        drop(self.door.read().await);
        Ok(())
    }

    async fn take_back_allocations(&self, _: &Context, id: &str, changes: &[AllocationChange]) -> Result<()> {
        if self.changes.lock().insert(id.into(), false) == Some(true) {
            self.add(changes, -1)?;
        }
        Ok(())
    }

    async fn candidates(&self, _: &Context, _: &Wanted) -> Result<Vec<Candidate>> {
        Err(novas())
    }

    async fn allocate(&self, _: &Context, _: &Allocation) -> Result<()> {
        Err(novas())
    }

    async fn allocate_together(&self, _: &Context, _: &[Allocation]) -> Result<()> {
        Err(novas())
    }

    async fn allocations(&self, _: &Context, _: &str) -> Result<Allocated> {
        Err(novas())
    }

    async fn move_allocations(&self, _: &Context, _: &str, _: &str, _: &str) -> Result<()> {
        Err(novas())
    }

    async fn release(&self, _: &Context, _: &str) -> Result<()> {
        Err(novas())
    }

    async fn remove_provider(&self, _: &Context, _: &str) -> Result<()> {
        Err(novas())
    }
}

impl Books {
    fn change(&self, id: &str, changes: &[AllocationChange]) -> Result<()> {
        let mut known = self.changes.lock();
        match known.get(id) {
            Some(true) => Ok(()),
            Some(false) => Err(Error::conflict("It was taken back.")),
            None => {
                self.add(changes, 1)?;
                known.insert(id.into(), true);
                Ok(())
            }
        }
    }

    fn add(&self, changes: &[AllocationChange], times: i64) -> Result<()> {
        let mut held = self.held.lock();
        let mut then = held.clone();
        for (provider, difference) in changes.iter().flat_map(|change| &change.difference) {
            for (class, amount) in difference {
                *then.entry(provider.clone()).or_default().entry(class.clone()).or_default() +=
                    times * amount;
            }
        }
        if then.values().flat_map(BTreeMap::values).any(|amount| amount > &*self.most.lock()) {
            return Err(Error::conflict("It does not fit."));
        }
        then.values_mut().for_each(|resources| resources.retain(|_, amount| *amount != 0));
        *held = then;
        Ok(())
    }
}

fn novas() -> Error {
    Error::internal("that is nova's matter")
}
