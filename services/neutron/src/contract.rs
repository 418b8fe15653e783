//! What nova asks in-process: [`contracts::networks::Networks`].

use crate::{
    Neutron,
    agents::Touched,
    ipam::Fixed,
    model::*,
    ports, qos_ports, quota, rbac,
    store::{self, WholePort},
    trunks,
};
use async_trait::async_trait;
use base::{Context, Result, Timestamp};
use contracts::networks as contract;
use db::{Filter, List, Stored, Tx};
use std::collections::{BTreeSet, HashMap};

#[async_trait]
impl contract::Networks for Neutron {
    async fn networks(&self, cx: &Context, ids: &[String]) -> Result<Vec<contract::Network>> {
        let (cx, ids): (Context, BTreeSet<String>) = (cx.clone(), ids.iter().cloned().collect());
        self.read(move |tx| {
            let visible = rbac::visible::<Network>(&cx);
            let list = |tx: &mut Tx, filter: Filter| {
                let mut wanted = List::all().filter(filter);
                wanted.filters.extend(visible.clone());
                tx.list::<Network>(&wanted)
            };
            let mut found = match ids.is_empty() {
                false => list(tx, Filter::any("id", ids.iter().map(String::as_str)))?,
                true => store::all_of::<Network>(tx, "project_id", &cx.project_id)?,
            };
            if ids.is_empty() {
                found.retain(|network| !network.external);
                if found.is_empty() {
                    found = list(tx, rbac::shared_filter::<Network>(&cx, true))?;
                    found.retain(|network| !network.external);
                }
            }
            rbac::seen_by(tx, &cx, &mut found)?;
            let known: BTreeSet<String> = found.iter().map(|network| network.id.clone()).collect();
            let subnets = store::on_networks(tx, &known)?;
            Ok(found.iter().map(|network| view(network, subnets.contains_key(&network.id))).collect())
        })
        .await
    }

    async fn port(&self, cx: &Context, port_id: &str) -> Result<contract::Port> {
        let (cx, id) = (cx.clone(), port_id.to_string());
        self.read(move |tx| {
            let whole = store::whole_port(tx, &id)?;
            if !cx.is_admin() && whole.port.project_id != cx.project_id {
                let (name, text) = store::PORT;
                return Err(crate::errors::missing(name, text.replace("{}", &id)));
            }
            Ok(views(tx, vec![whole])?.remove(0))
        })
        .await
    }

    async fn security_groups(&self, cx: &Context, wanted: &[String]) -> Result<Vec<contract::SecurityGroup>> {
        let (project_id, names) = (cx.project_id.clone(), wanted.to_vec());
        let found = self.read(move |tx| wanted_groups(tx, &project_id, &names)).await?;
        let is_made = found.iter().any(|group| group.name == store::DEFAULT);
        if is_made || wanted.iter().all(|name| name != store::DEFAULT) {
            return Ok(found);
        }
        let (project_id, wanted, clock) = (cx.project_id.clone(), wanted.to_vec(), self.clock.clone());
        self.write(move |tx, _| {
            store::default_group(tx, &project_id, clock.now())?;
            wanted_groups(tx, &project_id, &wanted)
        })
        .await
    }

    async fn ports_left(&self, cx: &Context) -> Result<Option<u64>> {
        let (project_id, options) = (cx.project_id.clone(), self.options.clone());
        self.read(move |tx| {
            let limit = quota::limit(tx, &options, &project_id, "port")?;
            if limit < 0 {
                return Ok(None);
            }
            let used = quota::used(tx, &project_id, "port")?;
            Ok(Some(u64::try_from(limit - used).unwrap_or(0)))
        })
        .await
    }

    async fn create_port(&self, cx: &Context, wanted: &contract::NewPort) -> Result<contract::Port> {
        let (cx, wanted, options, clock) =
            (cx.clone(), wanted.clone(), self.options.clone(), self.clock.clone());
        self.write(move |tx, touched| {
            if let Some(port) = tx.find::<Port>(&wanted.id)? {
                let whole = store::whole(tx, vec![port])?;
                return Ok(views(tx, whole)?.remove(0));
            }
            let now = clock.now();
            let network = store::get::<Network>(tx, store::NETWORK, &wanted.network_id)?;
            let mut port = ports::blank(&network, &cx.project_id, now);
            port.id.clone_from(&wanted.id);
            port.device_id.clone_from(&wanted.device_id);
            port.dns_name = wanted.dns_name.clone().unwrap_or_default();
            let groups = match (network.port_security_enabled, wanted.security_group_ids.is_empty()) {
                (false, _) => Vec::new(),
                (true, true) => ports::groups_of(tx, &cx.project_id, None, now)?,
                (true, false) => {
                    ports::groups_of(tx, &cx.project_id, Some(wanted.security_group_ids.clone()), now)?
                }
            };
            let fixed =
                wanted.fixed_ip.clone().map(|ip| vec![Fixed { subnet_id: None, ip_address: Some(ip) }]);
            let whole = ports::create(tx, touched, &options, port, fixed.as_deref(), &groups)?;
            Ok(views(tx, vec![whole])?.remove(0))
        })
        .await
    }

    async fn bind_port(&self, _: &Context, binding: &contract::Binding) -> Result<contract::Port> {
        let (binding, clock) = (binding.clone(), self.clock.clone());
        self.write(move |tx, touched| {
            let mut port = store::get::<Port>(tx, store::PORT, &binding.port_id)?;
            port.device_id.clone_from(&binding.device_id);
            port.device_owner.clone_from(&binding.device_owner);
            if let Some(name) = &binding.dns_name {
                port.dns_name.clone_from(name);
            }
            ports::bind(tx, &mut port, &binding.host)?;
            qos_ports::set_allocation(&mut port.profile, &binding.allocation);
            store_changed(tx, touched, port, clock.now())
        })
        .await
    }

    async fn unbind_port(&self, _: &Context, port_id: &str) -> Result<()> {
        let (id, clock) = (port_id.to_string(), self.clock.clone());
        self.write(move |tx, touched| {
            let Some(port) = tx.find::<Port>(&id)? else { return Ok(()) };
            unbind(tx, touched, port, clock.now())
        })
        .await
    }

    async fn create_binding(
        &self,
        _: &Context,
        port_id: &str,
        host: &str,
        allocation: &contract::PortAllocation,
    ) -> Result<contract::Port> {
        let (id, host, allocation) = (port_id.to_string(), host.to_string(), allocation.clone());
        self.write(move |tx, touched| {
            let port = store::get::<Port>(tx, store::PORT, &id)?;
            let there = tx.get::<PortBinding>(&[id.store(), host.store()])?;
            if port.host_id != host && there.is_none() {
                let mut profile = port.profile.clone();
                qos_ports::set_allocation(&mut profile, &allocation);
                let binding = PortBinding {
                    port_id: id.clone(),
                    host: host.clone(),
                    vif_type: ports::vif_type(tx, &host)?.into(),
                    vnic_type: port.vnic_type.clone(),
                    profile,
                    plugged: false,
                };
                ports::add_binding(tx, touched, &port, &binding)?;
            }
            one(tx, &id)
        })
        .await
    }

    async fn activate_binding(&self, _: &Context, port_id: &str, host: &str) -> Result<contract::Port> {
        let (id, host, clock) = (port_id.to_string(), host.to_string(), self.clock.clone());
        self.write(move |tx, touched| {
            let mut port = store::get::<Port>(tx, store::PORT, &id)?;
            if port.host_id != host {
                ports::activate(tx, touched, &mut port, &host, clock.now())?;
            }
            one(tx, &id)
        })
        .await
    }

    async fn delete_binding(&self, _: &Context, port_id: &str, host: &str) -> Result<()> {
        let (id, host) = (port_id.to_string(), host.to_string());
        self.write(move |tx, touched| ports::remove_binding(tx, touched, &id, &host)).await
    }

    async fn delete_port(&self, _: &Context, port_id: &str) -> Result<()> {
        let (id, clock) = (port_id.to_string(), self.clock.clone());
        self.write(move |tx, touched| match tx.find::<Port>(&id)? {
            // Whoever made a trunk of it keeps it.
            Some(port) if trunks::check_unused(tx, &id).is_err() => unbind(tx, touched, port, clock.now()),
            _ => ports::delete(tx, touched, &id, clock.now()),
        })
        .await
    }

    async fn ports_of(&self, _: &Context, device_ids: &[String]) -> Result<Vec<contract::Port>> {
        let ids: BTreeSet<String> = device_ids.iter().cloned().collect();
        self.read(move |tx| {
            let mut found = store::any_of::<Port>(tx, "device_id", &ids)?;
            found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
            let whole = store::whole(tx, found)?;
            views(tx, whole)
        })
        .await
    }
}

/// A project's groups by id or name.
fn wanted_groups(tx: &mut Tx, project_id: &str, wanted: &[String]) -> Result<Vec<contract::SecurityGroup>> {
    let mut own = store::all_of::<SecurityGroup>(tx, "project_id", project_id)?;
    own.retain(|group| wanted.iter().any(|wanted| *wanted == group.id || *wanted == group.name));
    Ok(own.into_iter().map(|group| contract::SecurityGroup { id: group.id, name: group.name }).collect())
}

fn unbind(tx: &mut Tx, touched: &mut Touched, mut port: Port, now: Timestamp) -> Result<()> {
    port.device_id.clear();
    port.device_owner.clear();
    ports::bind(tx, &mut port, "")?;
    qos_ports::set_allocation(&mut port.profile, &contract::PortAllocation::new());
    store_changed(tx, touched, port, now).map(drop)
}

fn store_changed(
    tx: &mut Tx,
    touched: &mut Touched,
    mut port: Port,
    now: Timestamp,
) -> Result<contract::Port> {
    port.change(tx, now)?;
    trunks::follow(tx, touched, &port, now)?;
    let whole = store::whole(tx, vec![port])?.remove(0);
    touched.port(&whole);
    Ok(views(tx, vec![whole])?.remove(0))
}

fn one(tx: &mut Tx, id: &str) -> Result<contract::Port> {
    let whole = store::whole_port(tx, id)?;
    Ok(views(tx, vec![whole])?.remove(0))
}

fn view(network: &Network, has_subnets: bool) -> contract::Network {
    contract::Network {
        id: network.id.clone(),
        name: network.name.clone(),
        project_id: network.project_id.clone(),
        shared: network.shared,
        external: network.external,
        mtu: u16::try_from(network.mtu).unwrap_or(1450),
        port_security_enabled: network.port_security_enabled,
        has_subnets,
    }
}

fn views(tx: &mut Tx, ports: Vec<WholePort>) -> Result<Vec<contract::Port>> {
    let set =
        |of: &dyn Fn(&WholePort) -> Vec<String>| -> BTreeSet<String> { ports.iter().flat_map(of).collect() };
    let network_ids = set(&|whole| vec![whole.port.network_id.clone()]);
    let subnet_ids = set(&|whole| whole.addresses.iter().map(|row| row.subnet_id.clone()).collect());
    let group_ids = set(&|whole| whole.groups.clone());
    let port_ids = set(&|whole| vec![whole.port.id.clone()]);
    let networks: HashMap<String, Network> =
        store::any_of::<Network>(tx, "id", &network_ids)?.into_iter().map(|n| (n.id.clone(), n)).collect();
    let subnets: HashMap<String, Subnet> =
        store::any_of::<Subnet>(tx, "id", &subnet_ids)?.into_iter().map(|s| (s.id.clone(), s)).collect();
    let groups: HashMap<String, SecurityGroup> = store::any_of::<SecurityGroup>(tx, "id", &group_ids)?
        .into_iter()
        .map(|g| (g.id.clone(), g))
        .collect();
    let mut floating: HashMap<(String, String), Vec<String>> = HashMap::new();
    for ip in store::any_of::<FloatingIp>(tx, "port_id", &port_ids)? {
        if let (Some(port), Some(fixed)) = (ip.port_id, ip.fixed_ip_address) {
            floating.entry((port, fixed)).or_default().push(ip.floating_ip_address);
        }
    }
    let mut moving = store::inactive_bindings(tx, &port_ids)?;
    let inactive =
        |binding: PortBinding| contract::InactiveBinding { host: binding.host, plugged: binding.plugged };
    Ok(ports
        .into_iter()
        .map(|whole| {
            let port = whole.port;
            let fixed_ips = whole.addresses.iter().map(|row| contract::FixedIp {
                address: row.ip_address.clone(),
                subnet_id: row.subnet_id.clone(),
                floating_ips: floating.remove(&(port.id.clone(), row.ip_address.clone())).unwrap_or_default(),
            });
            let mut own = BTreeSet::new();
            let of_port = whole.addresses.iter().filter(|row| own.insert(row.subnet_id.clone()));
            let subnets: Vec<contract::Subnet> =
                of_port.filter_map(|row| subnets.get(&row.subnet_id)).map(subnet).collect();
            let named = whole.groups.iter().filter_map(|id| groups.get(id));
            contract::Port {
                fixed_ips: fixed_ips.collect(),
                network: networks
                    .get(&port.network_id)
                    .map(|n| view(n, !subnets.is_empty()))
                    .unwrap_or_default(),
                subnets,
                inactive_bindings: moving
                    .remove(&port.id)
                    .into_iter()
                    .flatten()
                    .filter(|binding| !binding.host.is_empty())
                    .map(inactive)
                    .collect(),
                security_groups: named
                    .map(|group| contract::SecurityGroup { id: group.id.clone(), name: group.name.clone() })
                    .collect(),
                resource_request: whole.resource_request,
                allocation: qos_ports::allocation(&port.profile),
                id: port.id,
                project_id: port.project_id,
                mac: port.mac_address,
                device_id: port.device_id,
                device_owner: port.device_owner,
                host: port.host_id,
                active: port.status == ACTIVE,
            }
        })
        .collect())
}

fn subnet(subnet: &Subnet) -> contract::Subnet {
    let route = |route: &HostRoute| contract::Route {
        destination: route.destination.clone(),
        nexthop: route.nexthop.clone(),
    };
    contract::Subnet {
        id: subnet.id.clone(),
        cidr: subnet.cidr.clone(),
        gateway_ip: subnet.gateway_ip.clone(),
        dns_nameservers: subnet.dns_nameservers.clone(),
        enable_dhcp: subnet.enable_dhcp,
        host_routes: subnet.host_routes.0.iter().map(route).collect(),
    }
}

impl Neutron {
    /// Makes the external network `public` of a new cloud, owned by a project, if there is no external network.
    pub async fn bootstrap(&self, project_id: &str) -> Result<()> {
        let (project_id, options, clock) = (project_id.to_string(), self.options.clone(), self.clock.clone());
        self.write(move |tx, touched| {
            if tx.count::<Network>(&[Filter::new("external", db::Op::Eq, true)])? > 0 {
                return Ok(());
            }
            let now = clock.now();
            let network = Network {
                id: base::id::uuid(),
                project_id: project_id.clone(),
                name: "public".into(),
                description: String::new(),
                admin_state_up: true,
                status: ACTIVE.into(),
                mtu: options.global_physnet_mtu,
                shared: false,
                external: true,
                is_default: true,
                port_security_enabled: true,
                network_type: "flat".into(),
                physical_network: Some(options.public_physical_network.clone()),
                segmentation_id: None,
                availability_zone_hints: Vec::new(),
                qos_policy_id: None,
                tags: Vec::new(),
                revision_number: 1,
                created_at: now,
                updated_at: now,
            };
            tx.insert(&network)?;
            rbac::set_for_all(tx, "network", &network.id, &project_id, rbac::EXTERNAL, true)?;
            let address = |text: &str| {
                text.parse::<std::net::IpAddr>()
                    .map_err(|_| base::Error::bad_request(format!("[neutron]: '{text}' is not an address")))
            };
            let pool = Pool {
                start: address(&options.public_pool_first)?,
                end: address(&options.public_pool_last)?,
            };
            tx.insert(&Subnet {
                id: base::id::uuid(),
                network_id: network.id.clone(),
                project_id: project_id.clone(),
                name: "public-subnet".into(),
                description: String::new(),
                ip_version: 4,
                cidr: options.public_cidr.clone(),
                gateway_ip: Some(options.public_gateway.clone()),
                enable_dhcp: false,
                ipv6_ra_mode: None,
                ipv6_address_mode: None,
                allocation_pools: db::AsJson(vec![pool]),
                dns_nameservers: Vec::new(),
                host_routes: db::AsJson(Vec::new()),
                subnetpool_id: None,
                service_types: Vec::new(),
                tags: Vec::new(),
                revision_number: 0,
                created_at: now,
                updated_at: now,
            })?;
            touched.networks.insert(network.id);
            Ok(())
        })
        .await
    }
}
