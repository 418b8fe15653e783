//! Ranges for subnets out of subnet pools, and what a pool's own prefixes may be.

use crate::{
    attributes::{Given, flag_or, range as parse_range, text},
    errors::{bad_resource, conflict, invalid, named_bad},
    ipam,
    model::*,
    rbac, store,
};
use base::{Context, Json, Result};
use db::{Filter, List, Tx};
use ipnet::IpNet;

/// A quota counts addresses of IPv4 and /64 networks of IPv6.
const COUNTED_BITS_OF_SIX: u8 = 64;

/// What the lengths of a new pool are when nobody says.
pub fn bounds(version: i64) -> (i64, i64) {
    if version == 4 { (8, 32) } else { (64, 128) }
}

/// The prefixes in as few as say the same, with their version.
pub fn prefixes(texts: &[String]) -> Result<(Vec<IpNet>, i64)> {
    let nets: Vec<IpNet> = texts.iter().filter_map(|text| parse_range(text)).collect();
    let Some(first) = nets.first() else {
        return Err(named_bad("EmptySubnetPoolPrefixList", "Empty subnet pool prefix list."));
    };
    let four = first.network().is_ipv4();
    if nets.iter().any(|net| net.network().is_ipv4() != four) {
        let sentence = "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.";
        return Err(named_bad("PrefixVersionMismatch", sentence));
    }
    Ok((IpNet::aggregate(&nets), if four { 4 } else { 6 }))
}

pub fn nets(pool: &SubnetPool) -> Vec<IpNet> {
    pool.prefixes.iter().filter_map(|text| text.parse().ok()).collect()
}

/// `BadRequest` unless least ≤ default ≤ greatest ≤ what the version has.
pub fn check_bounds(pool: &SubnetPool) -> Result<()> {
    let (_, longest) = bounds(pool.ip_version);
    let (min, max, default) = (pool.min_prefixlen, pool.max_prefixlen, pool.default_prefixlen);
    let wrong = |text: String| {
        Err(named_bad("IllegalSubnetPoolPrefixBounds", format!("Illegal prefix bounds: {text}.")))
    };
    match () {
        () if max > longest => wrong(format!("max_prefixlen={max}, ip_version_max={longest}")),
        () if min > max => wrong(format!("min_prefixlen={min}, max_prefixlen={max}")),
        () if default < min => wrong(format!("default_prefixlen={default}, min_prefixlen={min}")),
        () if default > max => wrong(format!("default_prefixlen={default}, max_prefixlen={max}")),
        () => Ok(()),
    }
}

/// Pools of one address scope are of its version and share no address.
pub fn check_scope(tx: &mut Tx, cx: &Context, pool: &SubnetPool) -> Result<()> {
    let Some(scope_id) = &pool.address_scope_id else { return Ok(()) };
    let scope = rbac::load::<AddressScope>(tx, cx, scope_id)?;
    if scope.ip_version != pool.ip_version {
        return Err(named_bad(
            "IllegalSubnetPoolIpVersionAssociationToAddressScope",
            format!(
                "Illegal subnetpool association: subnetpool {} cannot associate with address scope {scope_id} because \
                 subnetpool ip_version is not {}.",
                pool.id, scope.ip_version
            ),
        ));
    }
    let own = nets(pool);
    for other in store::all_of::<SubnetPool>(tx, "address_scope_id", scope_id)? {
        if other.id != pool.id && nets(&other).iter().any(|net| own.iter().any(|own| overlap(own, net))) {
            return Err(conflict(
                "AddressScopePrefixConflict",
                "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.",
            ));
        }
    }
    Ok(())
}

pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Ranges without a part of them.
pub fn without(all: &[IpNet], hole: &IpNet) -> Vec<IpNet> {
    let mut left = Vec::new();
    for net in all {
        if hole.contains(net) {
            continue;
        }
        match (net.contains(hole), net.subnets(net.prefix_len() + 1)) {
            (true, Ok(halves)) => left.extend(without(&halves.collect::<Vec<_>>(), hole)),
            _ => left.push(*net),
        }
    }
    left
}

/// The range of a new subnet: the one that was named, or one from a pool; with the pool's id.
pub fn range(
    tx: &mut Tx,
    cx: &Context,
    given: &Given,
    project_id: &str,
    version: i64,
) -> Result<(IpNet, Option<String>)> {
    let cidr = match text(given, "cidr") {
        None => None,
        Some(text) => {
            Some(parse_range(&text).ok_or_else(|| invalid(format!("{text} is not in a CIDR format")))?)
        }
    };
    let Some(pool) = pool(tx, cx, given, version)? else {
        let cidr = cidr.ok_or_else(|| {
            bad_resource("subnets", "a subnetpool must be specified in the absence of a cidr")
        })?;
        return Ok((cidr, None));
    };
    if pool.ip_version != version {
        let sentence = format!("Cannot allocate IPv{version} subnet from IPv{} subnet pool", pool.ip_version);
        return Err(bad_resource("subnets", sentence));
    }
    let length = match (&cidr, given.get("prefixlen").and_then(Json::as_i64)) {
        (Some(_), Some(_)) => {
            return Err(bad_resource("subnets", "cidr and prefixlen must not be supplied together"));
        }
        (Some(cidr), None) => i64::from(cidr.prefix_len()),
        (None, Some(length)) => length,
        (None, None) => pool.default_prefixlen,
    };
    check_length(&pool, length)?;
    let length = u8::try_from(length).unwrap_or(u8::MAX);
    let subnets = store::all_of::<Subnet>(tx, "subnetpool_id", &pool.id)?;
    check_quota(&pool, &subnets, project_id, length)?;
    let taken: Vec<IpNet> = subnets.iter().map(ipam::cidr).collect::<Result<_>>()?;
    let prefixes = nets(&pool);
    let refused =
        |why: &str| Err(conflict("SubnetAllocationError", format!("Failed to allocate subnet: {why}.")));
    if let Some(cidr) = cidr {
        let fits = prefixes.iter().any(|prefix| prefix.contains(&cidr));
        return match fits && !taken.iter().any(|old| overlap(old, &cidr)) {
            true => Ok((cidr, Some(pool.id))),
            false => refused("Cannot allocate requested subnet from the available set of prefixes"),
        };
    }
    match first_free(&prefixes, &taken, length) {
        Some(net) => Ok((net, Some(pool.id))),
        None => refused(&format!("Insufficient prefix space to allocate subnet size /{length}")),
    }
}

/// The first range of that length that nobody has: what is taken is stepped over in one go.
fn first_free(prefixes: &[IpNet], taken: &[IpNet], length: u8) -> Option<IpNet> {
    let mut free = prefixes.to_vec();
    for net in taken {
        free = without(&free, net);
    }
    free.sort();
    let fitting = free.iter().find(|net| net.prefix_len() <= length)?;
    fitting.subnets(length).ok()?.next()
}

fn pool(tx: &mut Tx, cx: &Context, given: &Given, version: i64) -> Result<Option<SubnetPool>> {
    if let Some(id) = text(given, "subnetpool_id") {
        return rbac::load::<SubnetPool>(tx, cx, &id).map(Some);
    }
    if !flag_or(given, "use_default_subnetpool", false) {
        return Ok(None);
    }
    let wanted = List::all().eq("is_default", true).eq("ip_version", version);
    let found = tx.list::<SubnetPool>(&wanted)?.into_iter().next();
    let none = || bad_resource("subnets", format!("No default subnetpool found for IPv{version}"));
    found.ok_or_else(none).map(Some)
}

fn check_length(pool: &SubnetPool, length: i64) -> Result<()> {
    let (name, word, limit) = match length {
        _ if length < pool.min_prefixlen => ("MinPrefixSubnetAllocationError", "minimum", pool.min_prefixlen),
        _ if length > pool.max_prefixlen => ("MaxPrefixSubnetAllocationError", "maximum", pool.max_prefixlen),
        _ => return Ok(()),
    };
    let sentence =
        format!("Unable to allocate subnet with prefix length {length}, {word} allowed prefix is {limit}.");
    Err(named_bad(name, sentence))
}

fn check_quota(pool: &SubnetPool, subnets: &[Subnet], project_id: &str, length: u8) -> Result<()> {
    let Some(quota) = pool.default_quota else { return Ok(()) };
    let bits = if pool.ip_version == 4 { 32 } else { COUNTED_BITS_OF_SIX };
    let count = |length: u8| 1u128 << bits.saturating_sub(length).min(127);
    let own = subnets.iter().filter(|subnet| subnet.project_id == project_id);
    let mut used = count(length);
    for subnet in own {
        used += count(ipam::cidr(subnet)?.prefix_len());
    }
    match i128::try_from(used).is_ok_and(|used| used <= i128::from(quota)) {
        true => Ok(()),
        false => Err(conflict("SubnetPoolQuotaExceeded", "Per-project subnet pool prefix quota exceeded.")),
    }
}

/// Subnets of one version on a network come from one pool, or none of them does.
pub fn check_affinity(tx: &mut Tx, network_id: &str, version: i64, pool_id: Option<&str>) -> Result<()> {
    let same = [Filter::eq("network_id", network_id), Filter::eq("ip_version", version)];
    let others = tx.list::<Subnet>(&List { filters: same.to_vec(), ..List::all() })?;
    match others.iter().all(|other| other.subnetpool_id.as_deref() == pool_id) {
        true => Ok(()),
        false => Err(named_bad(
            "NetworkSubnetPoolAffinityError",
            "Subnets hosted on the same network must be allocated from the same subnet pool.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_hole_leaves_the_rest() {
        let left = without(&nets(&["10.0.0.0/24"]), &"10.0.0.64/26".parse().unwrap());
        assert_eq!(left, nets(&["10.0.0.0/26", "10.0.0.128/25"]));
        assert_eq!(without(&nets(&["10.0.0.0/24"]), &"10.0.0.0/8".parse().unwrap()), nets(&[]));
        assert_eq!(without(&nets(&["10.0.0.0/24"]), &"10.1.0.0/24".parse().unwrap()), nets(&["10.0.0.0/24"]));
    }

    #[test]
    fn the_first_free_range_is_found_even_in_a_vast_pool() {
        let free = |pool: &[&str], taken: &[&str], length| first_free(&nets(pool), &nets(taken), length);
        assert_eq!(free(&["10.0.0.0/16"], &["10.0.0.0/24"], 24), "10.0.1.0/24".parse().ok());
        assert_eq!(free(&["10.0.0.0/16"], &["10.0.0.0/28"], 24), "10.0.1.0/24".parse().ok());
        assert_eq!(free(&["10.0.0.0/24"], &["10.0.0.0/25", "10.0.0.128/25"], 28), None);
        assert_eq!(free(&["fd00::/8"], &["fd00::/16"], 64), "fd01::/64".parse().ok());
    }
}
