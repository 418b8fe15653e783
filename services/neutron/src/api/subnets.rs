//! Subnets: ranges of addresses on networks.

use super::{can, can_change, check_revision, load, on_network, standard};
use crate::{
    Neutron, Options,
    agents::Touched,
    attributes::{self, Attribute, Given, Kind, both, flag_or, parsed, post, shown, text, text_or, texts},
    errors::{conflict, invalid, named_bad},
    ipam,
    listing::{Wanted, chosen},
    model::*,
    pools, ports, quota, rbac,
    store::{self, NETWORK, SUBNET},
};
use base::{Context, Json, Result, Timestamp, id};
use db::{AsJson, Filter, Stored, Tx};
use ipnet::IpNet;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/subnets", "get_subnet", list),
        post_route("/v2.0/subnets", "create_subnet", create),
        get("/v2.0/subnets/{subnet_id}", "get_subnet", show),
        put("/v2.0/subnets/{subnet_id}", "update_subnet", update),
        delete("/v2.0/subnets/{subnet_id}", "delete_subnet", remove),
    ]
}

const MODES: &[&str] = &["dhcpv6-stateful", "dhcpv6-stateless", "slaac"];

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    post("network_id", Kind::Uuid).required(),
    post("ip_version", Kind::Version).required(),
    post("cidr", Kind::TextOrNull(255)),
    both("gateway_ip", Kind::AddressOrNull),
    both("allocation_pools", Kind::Pools),
    both("dns_nameservers", Kind::Nameservers),
    both("host_routes", Kind::Routes),
    both("enable_dhcp", Kind::Bool),
    post("ipv6_ra_mode", Kind::OneOfOrNull(MODES)),
    post("ipv6_address_mode", Kind::OneOfOrNull(MODES)),
    post("subnetpool_id", Kind::UuidOrNull),
    post("use_default_subnetpool", Kind::Bool),
    post("prefixlen", Kind::IntFrom(0)),
    both("service_types", Kind::Texts).ruled(),
    both("segment_id", Kind::UuidOrNull).ruled(),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    shown("tags"),
    shown("router:external"),
];

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (bodies, many) = attributes::bodies(&request, "subnet", "subnets")?;
    let mut wanted = Vec::new();
    for given in bodies {
        let given = attributes::created(&request, ATTRIBUTES, given)?;
        let network_id = text_or(&given, "network_id", "");
        let network = neutron.read(move |tx| load::<Network>(tx, NETWORK, &network_id)).await?;
        // A subnet is made by who owns the network: its own project alone does not count.
        let target = json!({"project_id": network.project_id, "network:project_id": network.project_id});
        can(&request, &target)?;
        attributes::check_rules(&request, "subnet", ATTRIBUTES, &given, &target)?;
        wanted.push(given);
    }
    let (options, clock, cx) = (neutron.options.clone(), neutron.clock.clone(), request.ctx.clone());
    let made = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let mut made = Vec::new();
            for given in &wanted {
                made.push(insert(tx, touched, &options, &cx, given, now)?);
            }
            Ok(made)
        })
        .await?;
    let views: Vec<Json> = made.iter().map(|(subnet, external)| view(subnet, *external)).collect();
    Ok(match many {
        true => Reply::created(json!({"subnets": views})),
        false => Reply::created(json!({"subnet": views[0]})),
    })
}

fn insert(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &Options,
    cx: &Context,
    given: &Given,
    now: Timestamp,
) -> Result<(Subnet, bool)> {
    let network_id = text_or(given, "network_id", "");
    let network = load::<Network>(tx, NETWORK, &network_id)?;
    let project_id = text_or(given, "project_id", "");
    quota::take(tx, options, &project_id, "subnet")?;
    let version = given.get("ip_version").and_then(Json::as_i64).unwrap_or(4);
    let enable_dhcp = flag_or(given, "enable_dhcp", true);
    let (cidr, subnetpool_id) = pools::range(tx, cx, given, &project_id, version)?;
    if cidr.network().is_ipv4() != (version == 4) {
        return Err(invalid(format!("cidr '{cidr}' does not match the ip_version '{version}'")));
    }
    check_modes(given, version, enable_dhcp)?;
    let bits = if version == 4 { 32 } else { 128 };
    if enable_dhcp && cidr.prefix_len() > bits - 2 {
        return Err(invalid("Subnet has a prefix length that is incompatible with DHCP service enabled"));
    }
    let makes_addresses =
        |name: &&str| matches!(text(given, name).as_deref(), Some("slaac" | "dhcpv6-stateless"));
    if MODE_NAMES.iter().any(makes_addresses) && cidr.prefix_len() != 64 {
        return Err(invalid(format!(
            "Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64"
        )));
    }
    for other in store::all_of::<Subnet>(tx, "network_id", &network_id)? {
        let old = ipam::cidr(&other)?;
        if old.contains(&cidr.network()) || cidr.contains(&old.network()) {
            return Err(invalid(format!(
                "Requested subnet with cidr: {cidr} for network: {network_id} overlaps with another subnet"
            )));
        }
    }
    pools::check_affinity(tx, &network_id, version, subnetpool_id.as_deref())?;
    let gateway = match given.get("gateway_ip") {
        Some(Json::Null) => None,
        Some(value) => value.as_str().and_then(|text| text.parse::<IpAddr>().ok()),
        // IPv6 has its routers at the network's own address, but for ranges that a pool chose.
        None => Some(first_address(cidr, version == 6 && text(given, "cidr").is_some())),
    };
    if given.contains_key("gateway_ip") {
        check_gateway(cidr, gateway)?;
    }
    let pools = match given.get("allocation_pools").filter(|pools| !pools.is_null()) {
        Some(pools) => ipam::check_pools(cidr, gateway, pools)?,
        None => ipam::default_pools(cidr, gateway),
    };
    let (dns_nameservers, host_routes) = (texts(given, "dns_nameservers"), host_routes(given)?);
    check_lists(options, &dns_nameservers, &host_routes, cidr)?;
    let subnet = Subnet {
        id: id::uuid(),
        network_id: network_id.clone(),
        project_id,
        name: text_or(given, "name", ""),
        description: text_or(given, "description", ""),
        ip_version: version,
        cidr: cidr.to_string(),
        gateway_ip: gateway.map(|gateway| gateway.to_string()),
        enable_dhcp,
        ipv6_ra_mode: text(given, "ipv6_ra_mode"),
        ipv6_address_mode: text(given, "ipv6_address_mode"),
        allocation_pools: AsJson(pools),
        dns_nameservers,
        host_routes: AsJson(host_routes),
        subnetpool_id,
        service_types: texts(given, "service_types"),
        tags: Vec::new(),
        revision_number: 0,
        created_at: now,
        updated_at: now,
    };
    tx.insert(&subnet)?;
    touched.networks.insert(network_id.clone());
    ports::ensure_dhcp(tx, touched, options, &network_id, now)?;
    Ok((subnet, network.external))
}

const MODE_NAMES: [&str; 2] = ["ipv6_ra_mode", "ipv6_address_mode"];

/// How IPv6 hosts come by their addresses: both say the same, and DHCP stays on.
fn check_modes(given: &Given, version: i64, enable_dhcp: bool) -> Result<()> {
    let [ra, address] = MODE_NAMES.map(|name| text(given, name));
    for (name, mode) in MODE_NAMES.iter().zip([&ra, &address]) {
        if version == 4 && mode.is_some() {
            return Err(invalid(format!("{name} is not valid when ip_version is 4")));
        }
    }
    if !enable_dhcp && (ra.is_some() || address.is_some()) {
        return Err(invalid(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False",
        ));
    }
    match (ra, address) {
        (Some(ra), Some(address)) if ra != address => Err(invalid(format!(
            "ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. If both attributes are \
             set, they must be the same value"
        ))),
        _ => Ok(()),
    }
}

fn first_address(cidr: IpNet, at_network: bool) -> IpAddr {
    let network = ipam::number(cidr.network());
    let offset = u128::from(!at_network);
    ipam::address(network + offset, cidr.network())
}

/// The gateway may be elsewhere, but within the range it must be an address that a host can have.
fn check_gateway(cidr: IpNet, gateway: Option<IpAddr>) -> Result<()> {
    let Some(gateway) = gateway else { return Ok(()) };
    if gateway.is_ipv4() != cidr.network().is_ipv4() {
        return Err(invalid(format!(
            "gateway_ip '{gateway}' does not match the ip_version '{}'",
            if cidr.network().is_ipv4() { 4 } else { 6 }
        )));
    }
    let plain = cidr.prefix_len() < cidr.max_prefix_len() - 1;
    let not_a_host = gateway.is_ipv4() && plain && (gateway == cidr.network() || gateway == cidr.broadcast());
    match not_a_host {
        true => Err(invalid("Gateway is not valid on subnet")),
        false => Ok(()),
    }
}

fn host_routes(given: &Given) -> Result<Vec<HostRoute>> {
    given.get("host_routes").map_or(Ok(Vec::new()), parsed)
}

fn check_lists(options: &Options, servers: &[String], routes: &[HostRoute], cidr: IpNet) -> Result<()> {
    if servers.len() > options.max_dns_nameservers {
        return Err(named_bad(
            "DNSNameServersExhausted",
            format!(
                "Unable to complete operation for {cidr}. The number of DNS nameservers exceeds the limit {}.",
                options.max_dns_nameservers
            ),
        ));
    }
    if routes.len() > options.max_subnet_host_routes {
        return Err(named_bad(
            "HostRoutesExhausted",
            format!(
                "Unable to complete operation for {cidr}. The number of host routes exceeds the limit {}.",
                options.max_subnet_host_routes
            ),
        ));
    }
    Ok(())
}

/// Networks that somebody shares with the caller.
macro_rules! of_shared {
    () => {
        "(SELECT object_id FROM rbac_policies WHERE object_type = 'network' AND action = 'access_as_shared'
          AND target_tenant IN (?, '*'))"
    };
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({"project_id": request.ctx.project_id}))?;
    let project_id = request.ctx.project_id.clone();
    let mut wanted =
        Wanted::parse::<Subnet>(&request, neutron.options.pagination_max_limit, |name, values| {
            Ok(match (name, values) {
                ("router:external", [flag]) => {
                    let external = attributes::boolean(&json!(flag))?;
                    let condition = "network_id IN (SELECT id FROM networks WHERE external = ?)";
                    Some(Filter::sql(condition, [external.store()]))
                }
                ("shared", [flag]) => {
                    let shared = attributes::boolean(&json!(flag))?;
                    let condition = match shared {
                        true => concat!("network_id IN ", of_shared!()),
                        false => concat!("network_id NOT IN ", of_shared!()),
                    };
                    Some(Filter::sql(condition, [project_id.store()]))
                }
                _ => None,
            })
        })?;
    if !request.ctx.is_admin() {
        let sees = "(project_id = ? OR network_id IN (SELECT id FROM networks WHERE project_id = ?)
                     OR network_id IN (SELECT object_id FROM rbac_policies
                     WHERE object_type = 'network' AND target_tenant IN (?, '*')))";
        let own = request.ctx.project_id.store();
        wanted.list = wanted.list.filter(Filter::sql(sees, [own.clone(), own.clone(), own]));
    }
    let (wanted, found) = neutron
        .read(move |tx| {
            let subnets = wanted.find::<Subnet>(tx, SUBNET)?;
            let ids: BTreeSet<String> = subnets.iter().map(|subnet| subnet.network_id.clone()).collect();
            let networks: HashMap<String, bool> = store::any_of::<Network>(tx, "id", &ids)?
                .into_iter()
                .map(|network| (network.id, network.external))
                .collect();
            Ok((
                wanted.clone(),
                subnets
                    .into_iter()
                    .map(|s| (networks.get(&s.network_id) == Some(&true), s))
                    .collect::<Vec<_>>(),
            ))
        })
        .await?;
    let views = found.iter().map(|(external, subnet)| view(subnet, *external)).collect();
    Ok(wanted.reply(&request, "subnets", views))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<(Subnet, Network)> {
    let (id, cx) = (request.param("subnet_id").to_string(), request.ctx.clone());
    neutron
        .read(move |tx| {
            let subnet = load::<Subnet>(tx, SUBNET, &id)?;
            let network = super::network_of(tx, &cx, &subnet.network_id)?;
            let owns = [&subnet.project_id, &network.project_id].contains(&&cx.project_id);
            let sees = cx.is_admin() || owns || cx.has_role("service");
            if !sees && !rbac::is_shared_with(tx, "network", &network.id, &cx.project_id)? {
                return Err(crate::listing::not_found(SUBNET, &id));
            }
            Ok((subnet, network))
        })
        .await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (subnet, network) = one(&neutron, &request).await?;
    can(&request, &on_network(&subnet.project_id, &network))
        .map_err(|_| crate::listing::not_found(SUBNET, &subnet.id))?;
    Ok(Reply::ok(json!({"subnet": chosen(&request, view(&subnet, network.external))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (subnet, network) = one(&neutron, &request).await?;
    let target = on_network(&subnet.project_id, &network);
    if !request.may("get_subnet", &target) {
        return Err(crate::listing::not_found(SUBNET, &subnet.id));
    }
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "subnet")?)?;
    can_change(&request, SUBNET, &subnet.id, "get_subnet", &target)?;
    attributes::check_rules(&request, "subnet", ATTRIBUTES, &given, &target)?;
    check_revision(&request, subnet.revision_number)?;
    let (options, clock, id) = (neutron.options.clone(), neutron.clock.clone(), subnet.id.clone());
    let subnet = neutron
        .write(move |tx, touched| {
            let mut subnet = load::<Subnet>(tx, SUBNET, &id)?;
            apply(tx, &options, &mut subnet, &given)?;
            if !given.is_empty() {
                let now = clock.now();
                subnet.change(tx, now)?;
                touched.networks.insert(subnet.network_id.clone());
                ports::ensure_dhcp(tx, touched, &options, &subnet.network_id, now)?;
            }
            Ok(subnet)
        })
        .await?;
    Ok(Reply::ok(json!({"subnet": chosen(&request, view(&subnet, network.external))})))
}

fn apply(tx: &mut Tx, options: &Options, subnet: &mut Subnet, given: &Given) -> Result<()> {
    let cidr = ipam::cidr(subnet)?;
    if let Some(name) = text(given, "name") {
        subnet.name = name;
    }
    if let Some(description) = text(given, "description") {
        subnet.description = description;
    }
    subnet.enable_dhcp = flag_or(given, "enable_dhcp", subnet.enable_dhcp);
    if !subnet.enable_dhcp && (subnet.ipv6_ra_mode.is_some() || subnet.ipv6_address_mode.is_some()) {
        return Err(invalid("Cannot disable enable_dhcp with ipv6 attributes set"));
    }
    if given.contains_key("dns_nameservers") {
        subnet.dns_nameservers = texts(given, "dns_nameservers");
    }
    if given.contains_key("host_routes") {
        subnet.host_routes = AsJson(host_routes(given)?);
    }
    check_lists(options, &subnet.dns_nameservers, &subnet.host_routes.0, cidr)?;
    if given.contains_key("service_types") {
        subnet.service_types = texts(given, "service_types");
    }
    let parse = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
    let mut gateway = parse(&subnet.gateway_ip);
    if let Some(value) = given.get("gateway_ip") {
        let new = value.as_str().and_then(|text| text.parse().ok());
        check_gateway(cidr, new)?;
        if new != gateway
            && let Some(old) = gateway
        {
            let key = [subnet.id.store(), old.to_string().store()];
            if let Some(row) = tx.get::<IpAllocation>(&key)?
                && let Some(port) = tx.find::<Port>(&row.port_id)?
                && port.device_owner == OWNER_ROUTER
            {
                return Err(conflict(
                    "GatewayIpInUse",
                    format!("Current gateway ip {old} already in use by port {}. Unable to update.", port.id),
                ));
            }
        }
        gateway = new;
        subnet.gateway_ip = gateway.map(|gateway| gateway.to_string());
    }
    match given.get("allocation_pools").filter(|pools| !pools.is_null()) {
        Some(pools) => subnet.allocation_pools = AsJson(ipam::check_pools(cidr, gateway, pools)?),
        None if given.contains_key("gateway_ip") => ipam::check_gateway(&subnet.allocation_pools.0, gateway)?,
        None => {}
    }
    Ok(())
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (subnet, network) = one(&neutron, &request).await?;
    let target = on_network(&subnet.project_id, &network);
    can_change(&request, SUBNET, &subnet.id, "get_subnet", &target)?;
    let (id, options, clock) = (subnet.id, neutron.options.clone(), neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let subnet = load::<Subnet>(tx, SUBNET, &id)?;
            // Addresses that hosts make themselves, and the DHCP server's own, go with the subnet.
            let automatic = ipam::is_automatic(&subnet);
            for row in store::all_of::<IpAllocation>(tx, "subnet_id", &id)? {
                let port = tx.find::<Port>(&row.port_id)?;
                let owner = port.as_ref().map_or("", |port| port.device_owner.as_str());
                let is_router = owner.starts_with("network:router");
                if owner != OWNER_DHCP && (!automatic || is_router) {
                    return Err(conflict(
                        "SubnetInUse",
                        format!(
                            "Unable to complete operation on subnet {id}: One or more ports have an IP allocation from \
                             this subnet."
                        ),
                    ));
                }
                tx.delete::<IpAllocation>(&[row.subnet_id.store(), row.ip_address.store()])?;
            }
            tx.remove::<Subnet>(&id)?;
            touched.networks.insert(subnet.network_id.clone());
            ports::ensure_dhcp(tx, touched, &options, &subnet.network_id, clock.now())
        })
        .await?;
    Ok(Reply::no_content())
}

fn view(subnet: &Subnet, external: bool) -> Json {
    let mut view = json!({
        "id": subnet.id, "name": subnet.name, "description": subnet.description, "network_id": subnet.network_id,
        "ip_version": subnet.ip_version, "cidr": subnet.cidr, "gateway_ip": subnet.gateway_ip,
        "allocation_pools": subnet.allocation_pools.0, "enable_dhcp": subnet.enable_dhcp,
        "dns_nameservers": subnet.dns_nameservers, "host_routes": subnet.host_routes.0,
        "ipv6_ra_mode": subnet.ipv6_ra_mode, "ipv6_address_mode": subnet.ipv6_address_mode,
        "subnetpool_id": subnet.subnetpool_id, "service_types": subnet.service_types,
        "router:external": external, "tags": subnet.tags,
    });
    standard(&mut view, subnet);
    view
}
