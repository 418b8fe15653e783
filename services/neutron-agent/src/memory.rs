//! What the agent was told, newest first: messages come twice, late and in any order, and the revision of each
//! resource says whether a message is news.

use contracts::agents::network::{Change, Desired, HostState};
use std::collections::BTreeMap;

/// Every host is told of every port that it is not there: so many it remembers, the newest. Of older ones it is enough
/// to know that there were some.
const GONE_MAX: usize = 256;

#[derive(Default)]
pub struct Memory {
    pub desired: Desired,
    /// Of the last whole state; nothing older counts.
    whole: u64,
    /// A whole state was asked for: what is gone by now may be in it.
    asks: bool,
    revisions: Revisions,
}

/// What a change was to who heard it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub news: bool,
    /// Something may be gone since: only a whole state tells.
    pub doubt: bool,
}

#[derive(Default)]
struct Revisions {
    networks: Known,
    ports: Known,
    security_groups: Known,
    routers: Known,
}

/// Revisions by id, also of resources that are gone.
#[derive(Default)]
struct Known {
    newest: BTreeMap<String, u64>,
    /// Of what is gone, everything up to here may be forgotten.
    forgotten: u64,
}

impl Memory {
    /// Takes a change.
    pub fn change(&mut self, change: Change) -> Heard {
        let Change { revision, networks, ports, security_groups, routers } = change;
        let mut heard = Heard::default();
        if revision <= self.whole {
            return heard;
        }
        let max = if self.asks { usize::MAX } else { GONE_MAX };
        let (desired, known) = (&mut self.desired, &mut self.revisions);
        known.networks.take(revision, networks, &mut desired.networks, max, &mut heard);
        known.ports.take(revision, ports, &mut desired.ports, max, &mut heard);
        known.security_groups.take(revision, security_groups, &mut desired.security_groups, max, &mut heard);
        known.routers.take(revision, routers, &mut desired.routers, max, &mut heard);
        heard
    }

    /// Before a whole state is asked for, until it is here or will not come.
    pub fn asks(&mut self, asks: bool) {
        self.asks = asks;
    }

    /// Takes a whole state, except for resources of which something newer is known.
    pub fn whole(&mut self, state: HostState) {
        self.asks = false;
        let HostState { revision, desired } = state;
        if revision < self.whole {
            return;
        }
        self.whole = revision;
        let (had, known) = (&mut self.desired, &mut self.revisions);
        known.networks.replace(revision, desired.networks, &mut had.networks);
        known.ports.replace(revision, desired.ports, &mut had.ports);
        known.security_groups.replace(revision, desired.security_groups, &mut had.security_groups);
        known.routers.replace(revision, desired.routers, &mut had.routers);
    }
}

impl Known {
    fn take<T: PartialEq>(
        &mut self,
        revision: u64,
        told: BTreeMap<String, Option<T>>,
        have: &mut BTreeMap<String, T>,
        gone_max: usize,
        heard: &mut Heard,
    ) {
        for (id, resource) in told {
            let newest = self.newest.get(&id);
            if newest.is_some_and(|newest| *newest >= revision) {
                continue;
            }
            let had = have.get(&id);
            if resource.is_some() && had.is_none() && newest.is_none() && revision <= self.forgotten {
                heard.doubt = true;
                continue;
            }
            heard.news |= had != resource.as_ref();
            self.newest.insert(id.clone(), revision);
            match resource {
                Some(resource) => have.insert(id, resource),
                None => have.remove(&id),
            };
        }
        // Not for every single one.
        if self.newest.len().saturating_sub(have.len()) / 2 > gone_max {
            self.forget(have, gone_max);
        }
    }

    fn forget<T>(&mut self, have: &BTreeMap<String, T>, gone_max: usize) {
        let gone = self.newest.iter().filter(|(id, _)| !have.contains_key(*id));
        let mut gone: Vec<u64> = gone.map(|(_, revision)| *revision).collect();
        gone.sort_unstable_by(|a, b| b.cmp(a));
        let Some(until) = gone.get(gone_max).copied() else { return };
        self.forgotten = self.forgotten.max(until);
        self.newest.retain(|id, revision| *revision > until || have.contains_key(id));
    }

    fn replace<T>(&mut self, revision: u64, mut whole: BTreeMap<String, T>, have: &mut BTreeMap<String, T>) {
        self.newest.retain(|_, newest| *newest > revision);
        for id in self.newest.keys() {
            match have.remove(id) {
                Some(newer) => whole.insert(id.clone(), newer),
                None => whole.remove(id),
            };
        }
        *have = whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::agents::network::SecurityGroup;
    use std::collections::BTreeSet;

    fn group(octet: u8) -> SecurityGroup {
        let member = format!("10.0.0.{octet}/32").parse().unwrap();
        SecurityGroup { members: BTreeSet::from([member]).into(), ..SecurityGroup::default() }
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
        assert!(!memory.change(change(9, "a", None)).news, "older than the whole");
        assert!(memory.change(change(12, "a", Some(group(2)))).news);
        assert!(!memory.change(change(12, "a", Some(group(2)))).news, "twice");
        assert!(!memory.change(change(11, "a", None)).news, "late");
        assert!(memory.change(change(13, "b", None)).news);
        assert!(!memory.change(change(11, "b", Some(group(1)))).news, "late, of one that is gone");
        assert_eq!(ids(&memory), "a");
        memory.whole(state(12, &[("a", 2), ("b", 1), ("c", 1)]));
        assert_eq!(ids(&memory), "a c", "b went after that state was read");
        memory.whole(state(5, &[]));
        assert_eq!(ids(&memory), "a c", "an old whole");
        memory.whole(state(20, &[("c", 1)]));
        assert_eq!(ids(&memory), "c");
    }

    /// Thousands of servers on other hosts leave nothing here; a word that may be too late is not taken for good.
    #[test]
    fn what_is_elsewhere_is_forgotten_but_not_that_it_was() {
        let mut memory = Memory::default();
        memory.whole(state(1, &[("here", 1)]));
        let count = 4 * GONE_MAX as u64;
        for revision in 2..2 + count {
            let heard = memory.change(change(revision, &format!("elsewhere-{revision}"), None));
            assert_eq!(heard, Heard::default());
        }
        let known = memory.revisions.security_groups.newest.len();
        assert!((GONE_MAX..=2 * GONE_MAX + 2).contains(&known), "{known}");
        let late = memory.change(change(3, "elsewhere-9", Some(group(1))));
        assert_eq!(late, Heard { news: false, doubt: true });
        let newest = format!("elsewhere-{}", 1 + count);
        assert_eq!(
            memory.change(change(3, &newest, Some(group(1)))),
            Heard::default(),
            "it is known to be gone"
        );
        assert!(memory.change(change(3, "here", Some(group(2)))).news, "what is here is known");
        assert!(memory.change(change(3 + count, "elsewhere-9", Some(group(1)))).news, "newer than all");
        assert_eq!(ids(&memory), "elsewhere-9 here");
        memory.asks(true);
        for revision in 0..2 * count {
            memory.change(change(10 + count + revision, &format!("gone-{revision}"), None));
        }
        memory.whole(state(5 + count, &[("gone-0", 1), ("here", 1)]));
        assert_eq!(ids(&memory), "here", "it went after that state was read");
    }
}
