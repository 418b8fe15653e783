//! How many addresses of networks are taken; availability zones and service providers.

use super::{can, network_target};
use crate::{
    Neutron,
    errors::bad,
    ipam,
    listing::{chosen, not_found},
    model::*,
    schedule::Layout,
    store::{self, NETWORK},
};
use base::{Error, Json, Result};
use db::{Filter, List, Tx};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};
use web::{Reply, Request, Routes, get};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/network-ip-availabilities", "get_network_ip_availability", list),
        get("/v2.0/network-ip-availabilities/{network_id}", "get_network_ip_availability", show),
        get("/v2.0/availability_zones", "get_availability_zone", zones),
        get("/v2.0/service-providers", "get_service_provider", providers),
    ]
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    // Who may see none is told of none.
    if !request.may("get_network_ip_availability", &json!({})) {
        return Ok(Reply::ok(json!({"network_ip_availabilities": []})));
    }
    let mut wanted = List::all();
    for (name, _) in request.query.0.iter().filter(|(name, _)| name != "fields" && name != "ip_version") {
        let column = match name.as_str() {
            "network_id" => "id",
            "network_name" => "name",
            "project_id" | "tenant_id" => "project_id",
            other => return Err(bad(format!("['{other}'] is invalid attribute for filtering"))),
        };
        wanted = wanted.filter(Filter::any(column, request.query.all(name)));
    }
    let version = request.query.get("ip_version").map(|text| text.parse::<i64>());
    let version = version.transpose().map_err(|_| bad("Invalid input for ip_version."))?;
    let counted = neutron
        .read(move |tx| {
            let networks = tx.list::<Network>(&wanted)?;
            count(tx, networks, version)
        })
        .await?;
    let views: Vec<Json> = counted.into_iter().map(|view| chosen(&request, view)).collect();
    Ok(Reply::ok(json!({"network_ip_availabilities": views})))
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let id = request.param("network_id").to_string();
    can(&request, &json!({})).map_err(|_| Error::not_found("The resource could not be found."))?;
    let network = neutron.read(move |tx| store::get::<Network>(tx, NETWORK, &id)).await?;
    if !request.may("get_network", &network_target(&network)) {
        return Err(not_found(NETWORK, &network.id));
    }
    let counted = neutron.read(move |tx| count(tx, vec![network.clone()], None)).await?;
    let view = counted.into_iter().next().map(|view| chosen(&request, view));
    Ok(Reply::ok(json!({"network_ip_availability": view})))
}

/// Addresses, those taken of them, and the same of the pools that ports get theirs from.
#[derive(Clone, Copy, Default)]
struct Counts {
    all: u128,
    used: u128,
    of_pools: u128,
    used_of_pools: u128,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.all = self.all.saturating_add(other.all);
        self.used += other.used;
        self.of_pools = self.of_pools.saturating_add(other.of_pools);
        self.used_of_pools += other.used_of_pools;
    }

    /// Into a view; numbers beyond what an integer of JSON can be are said as floating ones.
    fn into_view(self, view: &mut Json) {
        let number = |n: u128| u64::try_from(n).map_or_else(|_| json!(n as f64), |n| json!(n));
        view["total_ips"] = number(self.of_pools);
        view["used_ips"] = number(self.used);
        view["ip_availability_details"] = json!({
            "total_ips_in_subnet": number(self.all), "used_ips_in_subnet": number(self.used),
            "total_ips_in_allocation_pool": number(self.of_pools),
            "used_ips_in_allocation_pool": number(self.used_of_pools),
        });
    }
}

fn count(tx: &mut Tx, networks: Vec<Network>, version: Option<i64>) -> Result<Vec<Json>> {
    let ids: BTreeSet<String> = networks.iter().map(|network| network.id.clone()).collect();
    let mut subnets: HashMap<String, Vec<Subnet>> = HashMap::new();
    for subnet in store::any_of::<Subnet>(tx, "network_id", &ids)? {
        if version.is_none_or(|version| version == subnet.ip_version) {
            subnets.entry(subnet.network_id.clone()).or_default().push(subnet);
        }
    }
    let mut taken: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for row in store::any_of::<IpAllocation>(tx, "network_id", &ids)? {
        if let Ok(address) = row.ip_address.parse() {
            taken.entry(row.subnet_id).or_default().push(address);
        }
    }
    let mut views = Vec::new();
    for network in networks {
        let mut all = Counts::default();
        let mut of_subnets = Vec::new();
        let mut own = subnets.remove(&network.id).unwrap_or_default();
        own.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        for subnet in own {
            let counts = of_subnet(&subnet, taken.get(&subnet.id).map_or(&[], Vec::as_slice))?;
            all.add(counts);
            let mut view = json!({
                "subnet_id": subnet.id, "subnet_name": subnet.name, "cidr": subnet.cidr,
                "ip_version": subnet.ip_version,
            });
            counts.into_view(&mut view);
            of_subnets.push(view);
        }
        let mut view = json!({
            "network_id": network.id, "network_name": network.name, "project_id": network.project_id,
            "tenant_id": network.project_id, "subnet_ip_availability": of_subnets,
        });
        all.into_view(&mut view);
        views.push(view);
    }
    Ok(views)
}

fn of_subnet(subnet: &Subnet, taken: &[IpAddr]) -> Result<Counts> {
    let size = |pool: &Pool| (ipam::number(pool.end) - ipam::number(pool.start)).saturating_add(1);
    let in_pools = |address: &&IpAddr| {
        let number = ipam::number(**address);
        subnet
            .allocation_pools
            .0
            .iter()
            .any(|pool| (ipam::number(pool.start)..=ipam::number(pool.end)).contains(&number))
    };
    let cidr = ipam::cidr(subnet)?;
    let whole = match cidr {
        ipnet::IpNet::V4(_) => ipam::default_pools(cidr, None),
        ipnet::IpNet::V6(net) => vec![Pool { start: net.network().into(), end: net.broadcast().into() }],
    };
    let sum = |pools: &[Pool]| pools.iter().fold(0u128, |sum, pool| sum.saturating_add(size(pool)));
    Ok(Counts {
        all: sum(&whole),
        used: taken.len() as u128,
        of_pools: sum(&subnet.allocation_pools.0),
        used_of_pools: taken.iter().filter(in_pools).count() as u128,
    })
}

async fn zones(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let (options, now) = (neutron.options.clone(), neutron.clock.now());
    let zones = neutron.read(move |tx| Ok(Layout::load(tx, &options, now)?.zones())).await?;
    let matches = |view: &Json| {
        ["name", "resource", "state"].iter().all(|key| {
            let wanted: Vec<&str> = request.query.all(key).collect();
            wanted.is_empty() || wanted.iter().any(|value| view[*key] == *value)
        })
    };
    let views = zones.into_iter().map(|((resource, name), lives)| {
        let state = if lives { "available" } else { "unavailable" };
        json!({"name": name, "resource": resource, "state": state})
    });
    let views: Vec<Json> = views.filter(matches).map(|view| chosen(&request, view)).collect();
    Ok(Reply::ok(json!({"availability_zones": views})))
}

/// Routers are of one kind: there is nothing to choose from.
async fn providers(_: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    Ok(Reply::ok(json!({"service_providers": []})))
}
