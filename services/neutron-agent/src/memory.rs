//! What the agent was told, newest first: messages come twice, late and in any order, and the revision of each
//! resource says whether a message is news.

use contracts::agents::network::{Change, Desired, HostState};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Memory {
    pub desired: Desired,
    /// Of the last whole state; nothing older counts.
    whole: u64,
    revisions: Revisions,
}

/// By id, also of resources that are gone.
#[derive(Default)]
struct Revisions {
    networks: BTreeMap<String, u64>,
    ports: BTreeMap<String, u64>,
    security_groups: BTreeMap<String, u64>,
    routers: BTreeMap<String, u64>,
}

impl Memory {
    /// Takes a change; false when it was no news.
    pub fn change(&mut self, change: Change) -> bool {
        let Change { revision, networks, ports, security_groups, routers } = change;
        if revision <= self.whole {
            return false;
        }
        let (desired, known) = (&mut self.desired, &mut self.revisions);
        let mut news = take(revision, networks, &mut desired.networks, &mut known.networks);
        news |= take(revision, ports, &mut desired.ports, &mut known.ports);
        news |= take(revision, security_groups, &mut desired.security_groups, &mut known.security_groups);
        news | take(revision, routers, &mut desired.routers, &mut known.routers)
    }

    /// Takes a whole state, except for resources of which something newer is known.
    pub fn whole(&mut self, state: HostState) {
        let HostState { revision, desired } = state;
        if revision < self.whole {
            return;
        }
        self.whole = revision;
        let (had, known) = (&mut self.desired, &mut self.revisions);
        replace(revision, desired.networks, &mut had.networks, &mut known.networks);
        replace(revision, desired.ports, &mut had.ports, &mut known.ports);
        replace(revision, desired.security_groups, &mut had.security_groups, &mut known.security_groups);
        replace(revision, desired.routers, &mut had.routers, &mut known.routers);
    }
}

fn take<T: PartialEq>(
    revision: u64,
    told: BTreeMap<String, Option<T>>,
    have: &mut BTreeMap<String, T>,
    known: &mut BTreeMap<String, u64>,
) -> bool {
    let mut news = false;
    for (id, resource) in told {
        if known.get(&id).is_some_and(|newest| *newest >= revision) {
            continue;
        }
        known.insert(id.clone(), revision);
        news |= have.get(&id) != resource.as_ref();
        match resource {
            Some(resource) => have.insert(id, resource),
            None => have.remove(&id),
        };
    }
    news
}

fn replace<T>(
    revision: u64,
    mut whole: BTreeMap<String, T>,
    have: &mut BTreeMap<String, T>,
    known: &mut BTreeMap<String, u64>,
) {
    known.retain(|_, newest| *newest > revision);
    for id in known.keys() {
        match have.remove(id) {
            Some(newer) => whole.insert(id.clone(), newer),
            None => whole.remove(id),
        };
    }
    *have = whole;
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::agents::network::SecurityGroup;

    fn group(octet: u8) -> SecurityGroup {
        let member = format!("10.0.0.{octet}/32").parse().unwrap();
        SecurityGroup { members: [member].into(), ..SecurityGroup::default() }
    }

    fn change(revision: u64, id: &str, group: Option<SecurityGroup>) -> Change {
        Change { revision, security_groups: [(id.to_string(), group)].into(), ..Change::default() }
    }

    fn state(revision: u64, groups: &[(&str, u8)]) -> HostState {
        let security_groups = groups.iter().map(|(id, octet)| (id.to_string(), group(*octet))).collect();
        HostState { revision, desired: Desired { security_groups, ..Desired::default() } }
    }

    fn ids(memory: &Memory) -> String {
        memory.desired.security_groups.keys().cloned().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn twice_late_and_in_any_order() {
        let mut memory = Memory::default();
        memory.whole(state(10, &[("a", 1), ("b", 1)]));
        assert!(!memory.change(change(9, "a", None)), "older than the whole");
        assert!(memory.change(change(12, "a", Some(group(2)))));
        assert!(!memory.change(change(12, "a", Some(group(2)))), "twice");
        assert!(!memory.change(change(11, "a", None)), "late");
        assert!(memory.change(change(13, "b", None)));
        assert!(!memory.change(change(11, "b", Some(group(1)))), "late, of one that is gone");
        assert_eq!(ids(&memory), "a");
        memory.whole(state(12, &[("a", 2), ("b", 1), ("c", 1)]));
        assert_eq!(ids(&memory), "a c", "b went after that state was read");
        memory.whole(state(5, &[]));
        assert_eq!(ids(&memory), "a c", "an old whole");
        memory.whole(state(20, &[("c", 1)]));
        assert_eq!(ids(&memory), "c");
    }
}
