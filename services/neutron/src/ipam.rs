//! Which address a port gets. An address is taken by inserting its row: nobody else can have it.

use crate::{
    attributes::Given,
    errors::{conflict, missing, named_bad},
    model::*,
    store,
};
use base::{Error, Json, Result};
use contracts::agents::network::Mac;
use db::{Stored, Tx};
use ipnet::IpNet;
use rand::Rng;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// How often a random address is tried before all are looked at.
const GUESSES: usize = 16;

pub fn cidr(subnet: &Subnet) -> Result<IpNet> {
    subnet.cidr.parse().map_err(|_| Error::internal(format!("subnet {} has cidr {}", subnet.id, subnet.cidr)))
}

pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

pub fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// What a port is to have: addresses and subnets that were named, or none at all.
pub fn wanted(given: &Given) -> Option<Vec<Fixed>> {
    let list = given.get("fixed_ips")?.as_array()?;
    let text = |one: &Json, key: &str| one[key].as_str().map(str::to_string);
    Some(
        list.iter()
            .map(|one| Fixed { subnet_id: text(one, "subnet_id"), ip_address: text(one, "ip_address") })
            .collect(),
    )
}

#[derive(Clone, Debug, Default)]
pub struct Fixed {
    pub subnet_id: Option<String>,
    pub ip_address: Option<String>,
}

/// Gives the port its addresses. `wanted` none: one of each IP version that the network has subnets of.
pub fn allocate(tx: &mut Tx, port: &Port, wanted: Option<&[Fixed]>) -> Result<()> {
    let mut subnets = store::all_of::<Subnet>(tx, "network_id", &port.network_id)?;
    // Subnets of a service are for its ports alone, and those for all come after them.
    let had_some = !subnets.is_empty();
    subnets.retain(|subnet| {
        subnet.service_types.is_empty() || subnet.service_types.contains(&port.device_owner)
    });
    if wanted.is_none() && had_some && subnets.is_empty() {
        return Err(conflict(
            "IpAddressGenerationFailureNoMatchingSubnet",
            "No valid service subnet for the given device owner.",
        ));
    }
    subnets.sort_by(|a, b| {
        let key = |subnet: &Subnet| (subnet.service_types.is_empty(), subnet.created_at, subnet.id.clone());
        key(a).cmp(&key(b))
    });
    let mut position = store::all_of::<IpAllocation>(tx, "port_id", &port.id)?
        .iter()
        .map(|row| row.position + 1)
        .max()
        .unwrap_or(0);
    let mut add = |tx: &mut Tx, subnet: &Subnet, address: IpAddr| {
        let row = IpAllocation {
            subnet_id: subnet.id.clone(),
            ip_address: address.to_string(),
            port_id: port.id.clone(),
            network_id: port.network_id.clone(),
            position,
        };
        position += 1;
        tx.insert(&row)
    };
    let Some(wanted) = wanted else {
        for version in [4, 6] {
            let all: Vec<&Subnet> = subnets.iter().filter(|s| s.ip_version == version).collect();
            let is_routers = port.device_owner.starts_with("network:router");
            let (automatic, of_version): (Vec<&Subnet>, Vec<&Subnet>) =
                all.into_iter().partition(|subnet| is_automatic(subnet) && !is_routers);
            match first_free(tx, port, &of_version)? {
                Some((subnet, address)) => add(tx, subnet, address)?,
                None if of_version.is_empty() => {}
                None => return Err(none_left(&port.network_id)),
            }
            for subnet in automatic {
                let address = from_mac(subnet, &port.mac_address)?;
                add(tx, subnet, address)?;
            }
        }
        return Ok(());
    };
    for fixed in wanted {
        let named = match &fixed.subnet_id {
            None => None,
            Some(id) => {
                let subnet = subnets.iter().find(|subnet| subnet.id == *id);
                match subnet {
                    Some(subnet) => Some(subnet),
                    None => {
                        let other = store::get::<Subnet>(tx, store::SUBNET, id)?;
                        return Err(named_bad(
                            "InvalidInput",
                            format!(
                                "Invalid input for operation: Failed to create port on network {}, because fixed_ips \
                                 included invalid subnet {}.",
                                port.network_id, other.id
                            ),
                        ));
                    }
                }
            }
        };
        let Some(text) = &fixed.ip_address else {
            let subnet = named.ok_or_else(|| {
                named_bad(
                    "InvalidInput",
                    "Invalid input for operation: IP allocation requires subnet_id or ip_address.",
                )
            })?;
            let address = match is_automatic(subnet) && !port.device_owner.starts_with("network:router") {
                true => from_mac(subnet, &port.mac_address)?,
                false => first_free(tx, port, &[subnet])?.ok_or_else(|| none_left(&port.network_id))?.1,
            };
            add(tx, subnet, address)?;
            continue;
        };
        let wished: IpAddr =
            text.parse().map_err(|_| Error::bad_request(format!("'{text}' is not a valid IP address")))?;
        let holds = |subnet: &&Subnet| cidr(subnet).is_ok_and(|cidr| cidr.contains(&wished));
        let subnet = match named {
            Some(subnet) if holds(&subnet) => subnet,
            Some(_) => {
                return Err(named_bad(
                    "InvalidIpForSubnet",
                    format!("IP address {wished} is not a valid IP for the specified subnet."),
                ));
            }
            None => subnets.iter().find(holds).ok_or_else(|| {
                named_bad(
                    "InvalidIpForNetwork",
                    format!("IP address {wished} is not a valid IP for any of the subnets on the specified network."),
                )
            })?,
        };
        if is_taken(tx, subnet, wished)? {
            return Err(conflict(
                "IpAddressAlreadyAllocated",
                format!("IP address {wished} already allocated in subnet {}", subnet.id),
            ));
        }
        add(tx, subnet, wished)?;
    }
    // Where hosts make their addresses themselves the port has one, named or not.
    if !wanted.is_empty() && !port.device_owner.starts_with("network:router") {
        let has = store::all_of::<IpAllocation>(tx, "port_id", &port.id)?;
        for subnet in subnets.iter().filter(|subnet| is_automatic(subnet)) {
            if !has.iter().any(|row| row.subnet_id == subnet.id) {
                add(tx, subnet, from_mac(subnet, &port.mac_address)?)?;
            }
        }
    }
    Ok(())
}

fn none_left(network_id: &str) -> Error {
    conflict("IpAddressGenerationFailure", format!("No more IP addresses available on network {network_id}."))
}

/// Hosts make their addresses themselves.
pub fn is_automatic(subnet: &Subnet) -> bool {
    let modes = [&subnet.ipv6_address_mode, &subnet.ipv6_ra_mode];
    modes.iter().any(|mode| matches!(mode.as_deref(), Some("slaac" | "dhcpv6-stateless")))
}

fn from_mac(subnet: &Subnet, mac: &str) -> Result<IpAddr> {
    let mac: Mac = mac.parse()?;
    let low = u128::from(mac.link_local()) & u128::from(u64::MAX);
    let network = number(cidr(subnet)?.network());
    Ok(IpAddr::V6(Ipv6Addr::from(network | low)))
}

fn is_taken(tx: &mut Tx, subnet: &Subnet, address: IpAddr) -> Result<bool> {
    let key = [subnet.id.store(), address.to_string().store()];
    Ok(tx.get::<IpAllocation>(&key)?.is_some())
}

/// A free address of the subnets' pools: a random one, or the first when most are taken.
fn first_free<'a>(tx: &mut Tx, port: &Port, subnets: &[&'a Subnet]) -> Result<Option<(&'a Subnet, IpAddr)>> {
    for subnet in subnets {
        let pools = &subnet.allocation_pools.0;
        let sizes: Vec<u128> =
            pools.iter().map(|pool| (number(pool.end) - number(pool.start)).saturating_add(1)).collect();
        let all: u128 = sizes.iter().fold(0u128, |sum, size| sum.saturating_add(*size));
        if all == 0 {
            continue;
        }
        // A DHCP server has the lowest address, as users expect who choose theirs by hand.
        let guesses = if port.device_owner == OWNER_DHCP { 0 } else { GUESSES };
        for _ in 0..guesses {
            let mut place = rand::rng().random_range(0..all.min(1 << 20));
            let found = pools.iter().zip(&sizes).find_map(|(pool, size)| match place < *size {
                true => Some(address(number(pool.start) + place, pool.start)),
                false => {
                    place -= size;
                    None
                }
            });
            if let Some(address) = found
                && !is_taken(tx, subnet, address)?
            {
                return Ok(Some((subnet, address)));
            }
        }
        let taken: BTreeSet<u128> = store::all_of::<IpAllocation>(tx, "subnet_id", &subnet.id)?
            .iter()
            .filter_map(|row| row.ip_address.parse().ok().map(number))
            .collect();
        for pool in pools {
            let mut free = (number(pool.start)..=number(pool.end)).filter(|n| !taken.contains(n));
            if let Some(number) = free.next() {
                return Ok(Some((subnet, address(number, pool.start))));
            }
        }
    }
    Ok(None)
}

/// The pools of a subnet that names none: everything but the network's, the gateway's and the broadcast address.
pub fn default_pools(cidr: IpNet, gateway: Option<IpAddr>) -> Vec<Pool> {
    let (network, broadcast) = (number(cidr.network()), number(cidr.broadcast()));
    let (first, last) = match cidr {
        IpNet::V4(net) if net.prefix_len() >= 31 => (network, broadcast),
        IpNet::V4(_) => (network + 1, broadcast - 1),
        IpNet::V6(net) if net.prefix_len() >= 127 => (network, broadcast),
        IpNet::V6(_) => (network + 1, broadcast),
    };
    let like = cidr.network();
    let pool = |start: u128, end: u128| Pool { start: address(start, like), end: address(end, like) };
    match gateway.map(number).filter(|gateway| (first..=last).contains(gateway)) {
        None => vec![pool(first, last)],
        Some(gateway) => {
            let mut pools = Vec::new();
            if gateway > first {
                pools.push(pool(first, gateway - 1));
            }
            if gateway < last {
                pools.push(pool(gateway + 1, last));
            }
            pools
        }
    }
}

/// Pools that were named, checked against the subnet, in order.
pub fn check_pools(cidr: IpNet, gateway: Option<IpAddr>, given: &Json) -> Result<Vec<Pool>> {
    let mut pools: Vec<Pool> = crate::attributes::parsed(given)?;
    for pool in &pools {
        let (start, end) = (pool.start, pool.end);
        if start.is_ipv4() != end.is_ipv4() || number(start) > number(end) {
            return Err(named_bad(
                "InvalidAllocationPool",
                format!("The allocation pool {{'start': '{start}', 'end': '{end}'}} is not valid."),
            ));
        }
        let whole = default_pools(cidr, None);
        let inside = |address: IpAddr| {
            whole.iter().any(|all| (number(all.start)..=number(all.end)).contains(&number(address)))
                && address.is_ipv4() == cidr.network().is_ipv4()
        };
        if !inside(start) || !inside(end) {
            return Err(named_bad(
                "OutOfBoundsAllocationPool",
                format!("The allocation pool {start}-{end} spans beyond the subnet cidr {cidr}."),
            ));
        }
    }
    pools.sort_by_key(|pool| number(pool.start));
    for pair in pools.windows(2) {
        if number(pair[0].end) >= number(pair[1].start) {
            let text = |pool: &Pool| format!("{}-{}", pool.start, pool.end);
            return Err(conflict(
                "OverlappingAllocationPools",
                format!(
                    "Found overlapping allocation pools: {} {} for subnet {cidr}.",
                    text(&pair[0]),
                    text(&pair[1])
                ),
            ));
        }
    }
    check_gateway(&pools, gateway)?;
    Ok(pools)
}

pub fn check_gateway(pools: &[Pool], gateway: Option<IpAddr>) -> Result<()> {
    let Some(gateway) = gateway else { return Ok(()) };
    match pools.iter().find(|pool| (number(pool.start)..=number(pool.end)).contains(&number(gateway))) {
        None => Ok(()),
        Some(pool) => Err(conflict(
            "GatewayConflictWithAllocationPools",
            format!("Gateway ip {gateway} conflicts with allocation pool {}-{}.", pool.start, pool.end),
        )),
    }
}

/// A new MAC address that no port of the network has.
pub fn new_mac(tx: &mut Tx, network_id: &str, base: &str) -> Result<String> {
    for _ in 0..GUESSES {
        let [a, b, c]: [u8; 3] = rand::rng().random();
        let mac = format!("{base}:{a:02x}:{b:02x}:{c:02x}");
        let same = [db::Filter::eq("network_id", network_id), db::Filter::eq("mac_address", &*mac)];
        if tx.count::<Port>(&same)? == 0 {
            return Ok(mac);
        }
    }
    Err(missing("MacAddressGenerationFailure", "Unable to generate unique mac address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(cidr: &str, gateway: Option<&str>) -> String {
        let pools = default_pools(cidr.parse().unwrap(), gateway.map(|text| text.parse().unwrap()));
        pools.iter().map(|pool| format!("{}-{}", pool.start, pool.end)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pools_leave_out_what_is_not_for_ports() {
        assert_eq!(pools("10.0.0.0/24", Some("10.0.0.1")), "10.0.0.2-10.0.0.254");
        assert_eq!(pools("10.0.0.0/28", None), "10.0.0.1-10.0.0.14");
        assert_eq!(pools("10.0.0.0/29", Some("10.0.0.3")), "10.0.0.1-10.0.0.2 10.0.0.4-10.0.0.6");
        assert_eq!(pools("10.0.0.0/24", Some("10.9.0.1")), "10.0.0.1-10.0.0.254");
        assert_eq!(pools("fd00::/64", Some("fd00::")), "fd00::1-fd00::ffff:ffff:ffff:ffff");
    }
}
