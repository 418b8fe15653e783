//! A host without networks that behaves as one: for tests and for the simulated cloud.

use crate::{Depth, HostNet, Report, linux};
use async_trait::async_trait;
use base::{Error, Result};
use contracts::agents::network::Desired;
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    desired: Desired,
    broken: BTreeMap<String, String>,
    converged: u64,
}

impl Fake {
    /// What was last converged.
    pub fn desired(&self) -> Desired {
        self.state.lock().desired.clone()
    }

    /// How often it converged.
    pub fn converged(&self) -> u64 {
        self.state.lock().converged
    }

    /// From now on the port, network or router fails with this; none: it works again.
    pub fn fail(&self, id: &str, why: Option<&str>) {
        let broken = &mut self.state.lock().broken;
        match why {
            Some(why) => broken.insert(id.into(), why.into()),
            None => broken.remove(id),
        };
    }
}

#[async_trait]
impl HostNet for Fake {
    async fn converge(&self, desired: &Desired, _depth: Depth) -> Result<Report> {
        desired.check()?;
        let mut state = self.state.lock();
        if let Some(why) = state.broken.get("host") {
            return Err(Error::unavailable(why.clone()));
        }
        let mut done = desired.clone();
        let exists = |id: &str| {
            desired.ports.contains_key(id)
                || desired.networks.contains_key(id)
                || desired.routers.contains_key(id)
        };
        let mut failed = state.broken.clone();
        failed.retain(|id, _| exists(id));
        done.networks.retain(|id, _| !failed.contains_key(id));
        done.routers.retain(|id, _| !failed.contains_key(id));
        for (id, port) in &desired.ports {
            if !done.networks.contains_key(&port.network_id) {
                failed
                    .entry(id.clone())
                    .or_insert_with(|| format!("network {} has no bridge", port.network_id));
            }
        }
        done.ports.retain(|id, _| !failed.contains_key(id));
        for (id, port) in &desired.ports {
            let parent = port.subport.as_ref().map(|place| &place.parent);
            if let Some(parent) = parent.filter(|parent| !done.ports.contains_key(*parent)) {
                let why = || format!("its parent {parent} is not on this host");
                failed.entry(id.clone()).or_insert_with(why);
            }
        }
        done.ports.retain(|id, _| !failed.contains_key(id));
        state.desired = desired.clone();
        state.converged += 1;
        Ok(Report { up: linux::up(&done), failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const PORT: &str = "bbbbbbbb-0000-4000-8000-000000000001";

    #[tokio::test]
    async fn says_what_is_up_and_what_failed() {
        let desired: Desired = serde_json::from_value(serde_json::json!({
            "networks": {NETWORK: {"mtu": 1450, "kind": "local"}},
            "ports": {PORT: {"network_id": NETWORK, "mac": "fa:16:3e:00:00:01", "addresses": [],
                "port_security": true, "admin_state_up": true}}}))
        .unwrap();
        let fake = Fake::default();
        let report = fake.converge(&desired, Depth::Changes).await.unwrap();
        assert_eq!(report, Report { up: [PORT.to_string()].into(), failed: BTreeMap::new() });
        fake.fail(NETWORK, Some("no bridge"));
        let report = fake.converge(&desired, Depth::Changes).await.unwrap();
        assert!(report.up.is_empty() && report.failed.contains_key(PORT), "{report:?}");
        fake.fail(NETWORK, None);
        assert_eq!(fake.converge(&desired, Depth::Everything).await.unwrap().up.len(), 1);
    }
}
