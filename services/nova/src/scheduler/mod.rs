//! Which host a server goes to: hosts with room, the filters, the weighers. Says of every host that was refused
//! which filter refused it and what it lacked.

mod filters;
mod rounds;

pub use rounds::Rounds;

use crate::{
    Options,
    model::{Aggregate, ComputeNode, Instance, Service},
    store,
};
use base::{Error, Result, Timestamp};
use contracts::placement::Candidate;
use db::{List, Tx};
use filters::{FILTERS, Filter};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// A host as the scheduler sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    pub node: Arc<ComputeNode>,
    pub service: Arc<Service>,
    pub zone: String,
    pub up: bool,
    /// Of all servers that are on it or on their way.
    pub servers: i64,
    pub used_vcpus: i64,
    pub used_memory_mb: i64,
    pub used_disk_gb: i64,
    pub busy: i64,
}

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Request {
    pub instance: Instance,
    /// GiB of the host's own disk.
    pub disk_gb: i64,
    /// Where the servers are that the hints name.
    pub hosts_of: HashMap<String, Option<String>>,
    pub group: Option<Group>,
    /// `zone:host:node` of an administrator, or `host` and `hypervisor_hostname`.
    pub forced_host: Option<String>,
    pub forced_node: Option<String>,
    /// Hosts that were tried in vain.
    pub excluded: Vec<String>,
    /// Providers that have room by placement's books.
    pub candidates: Arc<Candidates>,
}

/// Providers that have room, with the ways to take it where that is not the provider alone.
pub type Candidates = HashMap<String, Vec<Candidate>>;

#[derive(Clone, Debug, Default)]
pub struct Group {
    pub policy: String,
    pub max_per_host: i64,
    /// Hosts of the members, one for each.
    pub hosts: Vec<String>,
}

/// Everything the scheduler looks at, from one snapshot.
pub fn hosts(tx: &mut Tx, options: &Options, now: Timestamp) -> Result<Vec<Host>> {
    let aggregates = tx.list::<Aggregate>(&List::all())?;
    let (used, busy) = (used(tx)?, store::busy_on(tx)?);
    let down_after = Duration::from_secs(options.service_down_time_seconds);
    let hosts = store::hosts(tx)?.into_iter().map(|(node, service)| {
        let (servers, used_vcpus, used_memory_mb, used_disk_gb) =
            used.get(&node.host).copied().unwrap_or_default();
        Host {
            zone: store::zone_of(&aggregates, &node.host)
                .unwrap_or_else(|| options.default_availability_zone.clone()),
            up: is_up(&service, now, down_after),
            busy: busy.get(&node.host).copied().unwrap_or_default(),
            servers,
            used_vcpus,
            used_memory_mb,
            used_disk_gb,
            node: Arc::new(node),
            service: Arc::new(service),
        }
    });
    Ok(hosts.collect())
}

pub fn is_up(service: &Service, now: Timestamp, down_after: Duration) -> bool {
    !service.forced_down && now.since(service.last_seen_at) <= down_after
}

fn used(tx: &mut Tx) -> Result<HashMap<String, (i64, i64, i64, i64)>> {
    let rows = tx.query(
        db::sql!(
            "SELECT host, COUNT(*), CAST(SUM(vcpus) AS BIGINT), CAST(SUM(memory_mb) AS BIGINT),
               CAST(SUM(disk_gb) AS BIGINT)
             FROM instances WHERE deleted = FALSE AND host IS NOT NULL GROUP BY host"
        ),
        &[],
    )?;
    rows.iter().map(|row| Ok((row.at(0)?, (row.at(1)?, row.at(2)?, row.at(3)?, row.at(4)?)))).collect()
}

/// The hosts that fit, best first; or why none does.
pub fn choose(options: &Options, request: &Request, hosts: &[Host]) -> Result<Vec<Host>> {
    let mut refusals: Vec<(String, &str, String)> = Vec::new();
    let mut fitting = Vec::new();
    let is_enabled = |(name, _): &&(&str, Filter)| options.enabled_filters.iter().any(|on| on == name);
    let filters: Vec<_> = FILTERS.iter().filter(is_enabled).collect();
    for host in hosts {
        match refusal(options, &filters, request, host) {
            None => fitting.push(host.clone()),
            Some((filter, why)) => refusals.push((host.node.host.clone(), filter, why)),
        }
    }
    if fitting.is_empty() {
        refusals.sort();
        return Err(no_valid_host(&refusals));
    }
    let mut weighed: Vec<(f64, Host)> =
        weights(options, request, &fitting).into_iter().zip(fitting).collect();
    weighed.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.node.host.cmp(&other.node.host)));
    let mut best: Vec<Host> = weighed.into_iter().map(|(_, host)| host).collect();
    let subset = options.host_subset_size.clamp(1, best.len());
    best.swap(0, rand::random_range(0..subset));
    Ok(best)
}

fn refusal(
    options: &Options,
    filters: &[&'static (&'static str, Filter)],
    request: &Request,
    host: &Host,
) -> Option<(&'static str, String)> {
    if request.excluded.contains(&host.node.host) {
        return Some(("RetryFilter", "it was tried before and failed".into()));
    }
    let forced = request.forced_host.as_deref().is_none_or(|wanted| wanted == host.node.host)
        && request.forced_node.as_deref().is_none_or(|wanted| wanted == host.node.facts.hypervisor_hostname);
    if !forced {
        return Some(("requested destination", "another host was asked for".into()));
    }
    for (name, filter) in filters {
        if let Err(why) = filter(options, request, host) {
            return Some((name, why));
        }
    }
    if !request.candidates.contains_key(&host.node.uuid) {
        return Some(("placement", "its resources are allocated, or it lacks a required trait".into()));
    }
    None
}

pub const NO_VALID_HOST: &str = "No valid host was found. ";

fn no_valid_host(refusals: &[(String, &str, String)]) -> Error {
    if refusals.is_empty() {
        return Error::conflict(format!("{NO_VALID_HOST}There is no compute host.")).code("NoValidHost");
    }
    // Hosts that are refused alike are named together: the user's message has room for 255 characters.
    let mut reasons: Vec<((&str, &str), Vec<&str>)> = Vec::new();
    for (host, filter, why) in refusals {
        match reasons.iter_mut().find(|(reason, _)| *reason == (*filter, why.as_str())) {
            Some((_, hosts)) => hosts.push(host),
            None => reasons.push(((filter, why), vec![host])),
        }
    }
    let each = reasons.iter().map(|((filter, why), hosts)| format!("{}: {filter}: {why}", hosts.join(", ")));
    let details = each.collect::<Vec<_>>().join("; ");
    Error::conflict(format!("{NO_VALID_HOST}{details}.")).code("NoValidHost")
}

/// Each weigher's values are brought to 0..1 among the hosts, as upstream does, and summed up.
fn weights(options: &Options, request: &Request, hosts: &[Host]) -> Vec<f64> {
    type Weigher<'a> = (f64, Box<dyn Fn(&Host) -> f64 + 'a>);
    let on_host = |host: &Host| {
        request.group.iter().flat_map(|group| &group.hosts).filter(|h| **h == host.node.host).count() as f64
    };
    let soft = match request.group.as_ref().map(|group| group.policy.as_str()) {
        Some("soft-affinity") => options.soft_affinity_weight_multiplier,
        Some("soft-anti-affinity") => -options.soft_affinity_weight_multiplier,
        _ => 0.0,
    };
    let weighers: [Weigher; 5] = [
        (options.ram_weight_multiplier, Box::new(|host| host.free_memory_mb(options))),
        (options.cpu_weight_multiplier, Box::new(|host| host.free_vcpus(options))),
        (options.disk_weight_multiplier, Box::new(|host| host.free_disk_gb(options))),
        (options.io_ops_weight_multiplier, Box::new(|host| host.busy as f64)),
        (soft, Box::new(on_host)),
    ];
    let mut sums = vec![0.0; hosts.len()];
    for (multiplier, weigh) in weighers {
        let raw: Vec<f64> = hosts.iter().map(weigh).collect();
        let least = raw.iter().copied().fold(f64::INFINITY, f64::min);
        let most = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most > least {
            sums.iter_mut().zip(&raw).for_each(|(sum, w)| *sum += multiplier * (w - least) / (most - least));
        }
    }
    sums
}

impl Host {
    fn free_vcpus(&self, options: &Options) -> f64 {
        f64::from(self.node.facts.vcpus) * options.cpu_allocation_ratio - self.used_vcpus as f64
    }

    fn free_memory_mb(&self, options: &Options) -> f64 {
        let facts = &self.node.facts;
        let total = facts.memory_mb.saturating_sub(facts.reserved_memory_mb) as f64;
        total * options.ram_allocation_ratio - self.used_memory_mb as f64
    }

    fn free_disk_gb(&self, options: &Options) -> f64 {
        let facts = &self.node.facts;
        let total = facts.disk_gb.saturating_sub(facts.reserved_disk_gb) as f64;
        total * options.disk_allocation_ratio - self.used_disk_gb as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_refused_alike_are_named_together() {
        let refused = |host: &str, why: &str| (host.to_string(), "RamFilter", why.to_string());
        let error = no_valid_host(&[refused("a", "1 free"), refused("b", "2 free"), refused("c", "1 free")]);
        assert_eq!(error.message, "No valid host was found. a, c: RamFilter: 1 free; b: RamFilter: 2 free.");
    }
}
