//! Routers: their gateway, interfaces and routes.

use super::{can, can_change, check_revision, load, own, standard, target};
use crate::{
    Neutron, Options,
    agents::Touched,
    attributes::{self, Attribute, Given, Kind, both, flag_or, parsed, post, shown, text, text_or},
    errors::{bad, bad_resource, conflict, missing, named_bad, not_allowed},
    ipam::{self, Fixed},
    listing::{Wanted, chosen},
    model::*,
    ports, quota, routing,
    schedule::Layout,
    store::{self, PORT, ROUTER, SUBNET},
};
use base::{Json, Result, Timestamp, id};
use db::{AsJson, Tx};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/routers", "get_router", list),
        post_route("/v2.0/routers", "create_router", create),
        get("/v2.0/routers/{router_id}", "get_router", show),
        put("/v2.0/routers/{router_id}", "update_router", update),
        delete("/v2.0/routers/{router_id}", "delete_router", remove),
        put("/v2.0/routers/{router_id}/add_router_interface", "add_router_interface", add_interface),
        put("/v2.0/routers/{router_id}/remove_router_interface", "remove_router_interface", remove_interface),
        put("/v2.0/routers/{router_id}/add_extraroutes", "add_extraroutes", add_routes),
        put("/v2.0/routers/{router_id}/remove_extraroutes", "remove_extraroutes", remove_routes),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    both("admin_state_up", Kind::Bool),
    shown("status"),
    both("external_gateway_info", Kind::Any),
    both("distributed", Kind::Bool).ruled(),
    both("ha", Kind::Bool).ruled(),
    both("routes", Kind::Routes),
    post("availability_zone_hints", Kind::Texts),
    post("flavor_id", Kind::UuidOrNull),
    shown("availability_zones"),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    shown("tags"),
];

/// A gateway as it was asked for.
#[derive(Clone, Debug)]
struct Gateway {
    network_id: String,
    enable_snat: Option<bool>,
    fixed: Option<Vec<Fixed>>,
}

/// Given: none leaves it, an empty one clears it.
fn gateway(request: &Request, given: &Given, target: &Json) -> Result<Option<Option<Gateway>>> {
    let verb = if request.method == web::Method::POST { "create" } else { "update" };
    let info = match given.get("external_gateway_info") {
        None => return Ok(None),
        Some(Json::Null) => return Ok(Some(None)),
        Some(Json::Object(info)) if info.is_empty() => return Ok(Some(None)),
        Some(Json::Object(info)) => info,
        Some(other) => {
            return Err(bad(format!(
                "Invalid input for external_gateway_info. Reason: '{}' is not a dictionary.",
                attributes::python(other)
            )));
        }
    };
    for name in ["enable_snat", "external_fixed_ips"] {
        let rule = format!("{verb}_router:external_gateway_info:{name}");
        if info.contains_key(name) && !request.may(&rule, target) {
            let inner = format!("{verb}_router:external_gateway_info");
            return Err(not_allowed(format!(
                "(rule:{verb}_router and (rule:{inner} and (rule:{inner}:network_id and rule:{rule})))"
            )));
        }
    }
    let Some(network_id) = info.get("network_id").and_then(Json::as_str) else {
        return Ok(Some(None));
    };
    if !id::is_uuid(network_id) {
        return Err(bad(format!(
            "Invalid input for external_gateway_info. Reason: '{network_id}' is not a valid UUID."
        )));
    }
    let enable_snat = info.get("enable_snat").map(attributes::boolean).transpose()?;
    let fixed = info.get("external_fixed_ips").filter(|list| list.is_array()).map(|list| {
        let mut given = Given::new();
        given.insert("fixed_ips".into(), list.clone());
        ipam::wanted(&given).unwrap_or_default()
    });
    Ok(Some(Some(Gateway { network_id: network_id.into(), enable_snat, fixed })))
}

fn set_gateway(
    tx: &mut Tx,
    touched: &mut Touched,
    options: &Options,
    router: &mut Router,
    wanted: &Option<Gateway>,
    now: Timestamp,
) -> Result<()> {
    match wanted {
        None => routing::clear_gateway(tx, touched, router, false, now),
        Some(gateway) => {
            router.enable_snat = gateway.enable_snat.unwrap_or(true);
            touched.routers.insert(router.id.clone());
            routing::set_gateway(
                tx,
                touched,
                options,
                router,
                &gateway.network_id,
                gateway.fixed.as_deref(),
                now,
            )
        }
    }
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (bodies, many) = attributes::bodies(&request, "router", "routers")?;
    let mut wanted = Vec::new();
    for given in bodies {
        let given = attributes::created(&request, ATTRIBUTES, given)?;
        let target = target(given["project_id"].as_str().unwrap_or_default());
        can(&request, &target)?;
        attributes::check_rules(&request, "router", ATTRIBUTES, &given, &target)?;
        let gateway = gateway(&request, &given, &target)?;
        wanted.push((given, gateway));
    }
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    let made = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let mut made = Vec::new();
            for (given, gateway) in &wanted {
                let project_id = text_or(given, "project_id", "");
                let availability_zone_hints = super::zone_hints(tx, &options, now, given, "router")?;
                quota::take(tx, &options, &project_id, "router")?;
                let mut router = Router {
                    id: id::uuid(),
                    project_id,
                    name: text_or(given, "name", ""),
                    description: text_or(given, "description", ""),
                    admin_state_up: flag_or(given, "admin_state_up", true),
                    status: ACTIVE.into(),
                    gw_port_id: None,
                    gw_network_id: None,
                    enable_snat: true,
                    routes: AsJson(Vec::new()),
                    availability_zone_hints,
                    tags: Vec::new(),
                    revision_number: 1,
                    created_at: now,
                    updated_at: now,
                };
                tx.insert(&router)?;
                if let Some(gateway) = gateway {
                    set_gateway(tx, touched, &options, &mut router, gateway, now)?;
                    tx.update(&router)?;
                }
                touched.routers.insert(router.id.clone());
                made.push(router);
            }
            let layout = Layout::load(tx, &options, now)?;
            whole(tx, &layout, made)
        })
        .await?;
    let views: Vec<Json> = made.iter().map(|whole| view(&request, whole)).collect();
    Ok(match many {
        true => Reply::created(json!({"routers": views})),
        false => Reply::created(json!({"router": views[0]})),
    })
}

/// A router with what its view says besides.
pub struct Whole {
    pub router: Router,
    /// The gateway's addresses.
    fixed: Vec<Json>,
    zones: Vec<String>,
}

pub fn whole(tx: &mut Tx, layout: &Layout, routers: Vec<Router>) -> Result<Vec<Whole>> {
    let ports: BTreeSet<String> = routers.iter().filter_map(|router| router.gw_port_id.clone()).collect();
    let mut addresses: HashMap<String, Vec<IpAllocation>> = HashMap::new();
    for row in store::any_of::<IpAllocation>(tx, "port_id", &ports)? {
        addresses.entry(row.port_id.clone()).or_default().push(row);
    }
    Ok(routers
        .into_iter()
        .map(|router| {
            let own = router.gw_port_id.as_ref().and_then(|port| addresses.get(port)).into_iter().flatten();
            let fixed =
                own.map(|row| json!({"subnet_id": row.subnet_id, "ip_address": row.ip_address})).collect();
            Whole { zones: layout.router_zones(&router), router, fixed }
        })
        .collect())
}

fn one_whole(tx: &mut Tx, options: &Options, now: Timestamp, router: Router) -> Result<Whole> {
    let layout = Layout::load(tx, options, now)?;
    Ok(whole(tx, &layout, vec![router])?.remove(0))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id))?;
    let mut wanted =
        Wanted::parse::<Router>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    wanted.list.filters.extend(own(&request.ctx));
    let (options, now) = (neutron.options.clone(), neutron.clock.now());
    let (wanted, found) = neutron
        .read(move |tx| {
            let routers = wanted.find::<Router>(tx, ROUTER)?;
            let layout = Layout::load(tx, &options, now)?;
            Ok((wanted.clone(), whole(tx, &layout, routers)?))
        })
        .await?;
    let views = found.iter().map(|whole| view(&request, whole)).collect();
    Ok(wanted.reply(&request, "routers", views))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<Whole> {
    let id = request.param("router_id").to_string();
    let (options, now) = (neutron.options.clone(), neutron.clock.now());
    let found = neutron
        .read(move |tx| {
            let router = load::<Router>(tx, ROUTER, &id)?;
            one_whole(tx, &options, now, router)
        })
        .await?;
    match request.may("get_router", &target(&found.router.project_id)) {
        true => Ok(found),
        false => Err(crate::listing::not_found(ROUTER, &found.router.id)),
    }
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let whole = one(&neutron, &request).await?;
    Ok(Reply::ok(json!({"router": chosen(&request, view(&request, &whole))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let Whole { router, .. } = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "router")?)?;
    let target = target(&router.project_id);
    can_change(&request, ROUTER, &router.id, "get_router", &target)?;
    attributes::check_rules(&request, "router", ATTRIBUTES, &given, &target)?;
    let gateway = gateway(&request, &given, &target)?;
    check_revision(&request, router.revision_number)?;
    let (options, clock, id) = (neutron.options.clone(), neutron.clock.clone(), router.id);
    let whole = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let mut router = load::<Router>(tx, ROUTER, &id)?;
            if let Some(name) = text(&given, "name") {
                router.name = name;
            }
            if let Some(description) = text(&given, "description") {
                router.description = description;
            }
            router.admin_state_up = flag_or(&given, "admin_state_up", router.admin_state_up);
            if let Some(gateway) = &gateway {
                set_gateway(tx, touched, &options, &mut router, gateway, now)?;
            }
            if let Some(routes) = given.get("routes") {
                router.routes = AsJson(parsed(routes)?);
                check_routes(tx, &options, &router)?;
            }
            if !given.is_empty() {
                router.change(tx, now)?;
                touched.routers.insert(id.clone());
            }
            one_whole(tx, &options, clock.now(), router)
        })
        .await?;
    Ok(Reply::ok(json!({"router": chosen(&request, view(&request, &whole))})))
}

/// A route's next hop must be on a subnet of the router, and not the router itself.
fn check_routes(tx: &mut Tx, options: &Options, router: &Router) -> Result<()> {
    let routes = &router.routes.0;
    if routes.len() as i64 > options.quota_router_route {
        return Err(named_bad(
            "RoutesExhausted",
            format!(
                "Unable to complete operation for {}. The number of routes exceeds the maximum {}.",
                router.id, options.quota_router_route
            ),
        ));
    }
    let mut legs = store::interfaces(tx, &router.id)?;
    if let Some(port) = &router.gw_port_id {
        legs.push(store::whole_port(tx, port)?);
    }
    let connected = routing::connected(tx, &legs)?;
    for route in routes {
        let nexthop: Option<IpAddr> = route.nexthop.parse().ok();
        let on_subnet = |subnet: &Subnet| {
            nexthop.is_some_and(|hop| ipam::cidr(subnet).is_ok_and(|cidr| cidr.contains(&hop)))
        };
        let list: Vec<String> = routes
            .iter()
            .map(|r| format!("{{'destination': '{}', 'nexthop': '{}'}}", r.destination, r.nexthop))
            .collect();
        let wrong = |why: &str| {
            named_bad("InvalidRoutes", format!("Invalid format for routes: [{}], {why}", list.join(", ")))
        };
        if !connected.iter().any(|(subnet, _, _)| on_subnet(subnet)) {
            return Err(wrong("the nexthop is not connected with router"));
        }
        if connected.iter().any(|(_, own, _)| Some(*own) == nexthop) {
            return Err(wrong("the nexthop is used by router"));
        }
    }
    Ok(())
}

async fn add_routes(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    change_routes(neutron, request, |routes, named| {
        for route in named {
            if !routes.contains(&route) {
                routes.push(route);
            }
        }
    })
    .await
}

async fn remove_routes(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    change_routes(neutron, request, |routes, named| routes.retain(|route| !named.contains(route))).await
}

type ChangeRoutes = fn(&mut Vec<HostRoute>, Vec<HostRoute>);

/// Some routes more or less, whatever else somebody changes at the same time.
async fn change_routes(neutron: Arc<Neutron>, request: Request, change: ChangeRoutes) -> Result<Reply> {
    let Whole { router, .. } = one(&neutron, &request).await?;
    can(&request, &target(&router.project_id))?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "router")?)?;
    let named: Vec<HostRoute> = parsed(given.get("routes").unwrap_or(&json!([])))?;
    let (options, clock, id) = (neutron.options.clone(), neutron.clock.clone(), router.id);
    let whole = neutron
        .write(move |tx, touched| {
            let mut router = load::<Router>(tx, ROUTER, &id)?;
            change(&mut router.routes.0, named.clone());
            check_routes(tx, &options, &router)?;
            router.change(tx, clock.now())?;
            touched.routers.insert(id.clone());
            one_whole(tx, &options, clock.now(), router)
        })
        .await?;
    Ok(Reply::ok(json!({"router": view(&request, &whole)})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let Whole { router, .. } = one(&neutron, &request).await?;
    can_change(&request, ROUTER, &router.id, "get_router", &target(&router.project_id))?;
    let (id, clock) = (router.id, neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let mut router = load::<Router>(tx, ROUTER, &id)?;
            let used = !store::interfaces(tx, &id)?.is_empty()
                || !store::all_of::<FloatingIp>(tx, "router_id", &id)?.is_empty();
            if used {
                return Err(conflict("RouterInUse", format!("Router {id} still has ports")));
            }
            routing::clear_gateway(tx, touched, &mut router, true, clock.now())?;
            tx.remove::<Router>(&id)?;
            touched.routers.insert(id.clone());
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

async fn add_interface(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let Whole { router, .. } = one(&neutron, &request).await?;
    can(&request, &target(&router.project_id))?;
    let wanted = Interface::parse(&request)?;
    let (options, clock, cx) = (neutron.options.clone(), neutron.clock.clone(), request.ctx.clone());
    let reply = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let router = load::<Router>(tx, ROUTER, &router.id)?;
            touched.routers.insert(router.id.clone());
            let sees = |project_id: &str, network: &Network| {
                cx.is_admin() || project_id == cx.project_id || network.shared
            };
            let network_of = |tx: &mut Tx, id: &str| super::network_of(tx, &cx, id);
            if let Some(id) = &wanted.subnet_id {
                let subnet = load::<Subnet>(tx, SUBNET, id)?;
                let network = network_of(tx, &subnet.network_id)?;
                if !sees(&subnet.project_id, &network) {
                    return Err(crate::listing::not_found(SUBNET, id));
                }
                routing::check_overlap(tx, &router, &subnet)?;
                let Some(gateway) = &subnet.gateway_ip else {
                    return Err(bad_resource("router", "Subnet for router interface must have a gateway IP"));
                };
                let mut port = ports::blank(&network, &router.project_id, now);
                port.device_id.clone_from(&router.id);
                port.device_owner = OWNER_ROUTER.into();
                port.port_security_enabled = false;
                let fixed = [Fixed { subnet_id: Some(subnet.id.clone()), ip_address: Some(gateway.clone()) }];
                let port = ports::create(tx, touched, &options, port, Some(&fixed), &[])?;
                return Ok(attached(&router, &port.port, &[subnet.id]));
            }
            let id = wanted.port_id.clone().unwrap_or_default();
            let whole = store::whole_port(tx, &id)?;
            let mut port = whole.port.clone();
            let network = network_of(tx, &port.network_id)?;
            if !sees(&port.project_id, &network) {
                return Err(crate::listing::not_found(PORT, &id));
            }
            if !port.device_id.is_empty() && port.device_id != router.id {
                return Err(conflict(
                    "PortInUse",
                    format!(
                        "Unable to complete operation on port {id} for network {}. Port already has an attached device \
                         {}.",
                        port.network_id, port.device_id
                    ),
                ));
            }
            if whole.addresses.is_empty() {
                return Err(bad_resource("router", "Router port must have at least one fixed IP"));
            }
            let mut subnets = Vec::new();
            for row in &whole.addresses {
                let subnet = load::<Subnet>(tx, SUBNET, &row.subnet_id)?;
                routing::check_overlap(tx, &router, &subnet)?;
                subnets.push(subnet.id);
            }
            port.device_id.clone_from(&router.id);
            port.device_owner = OWNER_ROUTER.into();
            port.port_security_enabled = false;
            port.change(tx, now)?;
            tx.execute(db::sql!("DELETE FROM port_security_groups WHERE port_id = $1"), db::params![id])?;
            let whole = store::whole_port(tx, &id)?;
            touched.port(&whole);
            Ok(attached(&router, &port, &subnets))
        })
        .await?;
    Ok(Reply::ok(reply))
}

/// One of both, a subnet or a port.
struct Interface {
    subnet_id: Option<String>,
    port_id: Option<String>,
}

impl Interface {
    fn parse(request: &Request) -> Result<Self> {
        let text = |name: &str| request.json()[name].as_str().map(str::to_string);
        let wanted = Self { subnet_id: text("subnet_id"), port_id: text("port_id") };
        for (name, value) in [("subnet_id", &wanted.subnet_id), ("port_id", &wanted.port_id)] {
            if let Some(value) = value.as_deref().filter(|value| !id::is_uuid(value)) {
                return Err(bad(format!("Invalid input for {name}. Reason: '{value}' is not a valid UUID.")));
            }
        }
        if wanted.subnet_id.is_none() && wanted.port_id.is_none() {
            return Err(bad_resource("router", "Either subnet_id or port_id must be specified"));
        }
        let adds = request.path.trim_end_matches('/').ends_with("add_router_interface");
        if adds && wanted.subnet_id.is_some() && wanted.port_id.is_some() {
            return Err(bad_resource("router", "Cannot specify both subnet-id and port-id"));
        }
        Ok(wanted)
    }
}

fn attached(router: &Router, port: &Port, subnets: &[String]) -> Json {
    json!({
        "id": router.id, "project_id": router.project_id, "port_id": port.id, "network_id": port.network_id, "subnet_id": subnets.first(), "subnet_ids": subnets,
    })
}

async fn remove_interface(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let Whole { router, .. } = one(&neutron, &request).await?;
    can(&request, &target(&router.project_id))?;
    let wanted = Interface::parse(&request)?;
    let clock = neutron.clock.clone();
    let reply = neutron
        .write(move |tx, touched| {
            let router = load::<Router>(tx, ROUTER, &router.id)?;
            let interfaces = store::interfaces(tx, &router.id)?;
            let found = interfaces.iter().find(|whole| match (&wanted.port_id, &wanted.subnet_id) {
                (Some(port), _) => whole.port.id == *port,
                (None, Some(subnet)) => whole.addresses.iter().any(|row| row.subnet_id == *subnet),
                (None, None) => false,
            });
            let Some(whole) = found else {
                return Err(match (&wanted.port_id, &wanted.subnet_id) {
                    (None, Some(subnet)) => {
                        load::<Subnet>(tx, SUBNET, subnet)?;
                        missing(
                            "RouterInterfaceNotFoundForSubnet",
                            format!("Router {} has no interface on subnet {subnet}", router.id),
                        )
                    }
                    (port, _) => missing(
                        "RouterInterfaceNotFound",
                        format!(
                            "Router {} does not have an interface with id {}",
                            router.id,
                            port.as_deref().unwrap_or_default()
                        ),
                    ),
                });
            };
            let mut subnets = Vec::new();
            for row in &whole.addresses {
                let subnet = load::<Subnet>(tx, SUBNET, &row.subnet_id)?;
                routing::check_unused(tx, &router, &subnet)?;
                subnets.push(subnet.id);
            }
            if let Some(subnet) = wanted.subnet_id.as_ref().filter(|subnet| !subnets.contains(subnet)) {
                return Err(conflict(
                    "SubnetMismatchForPort",
                    format!("Subnet on port {} does not match the requested subnet {subnet}", whole.port.id),
                ));
            }
            let reply = attached(&router, &whole.port, &subnets);
            ports::delete(tx, touched, &whole.port.id, clock.now())?;
            touched.routers.insert(router.id.clone());
            Ok(reply)
        })
        .await?;
    Ok(Reply::ok(reply))
}

pub fn view(request: &Request, whole: &Whole) -> Json {
    let Whole { router, fixed, zones } = whole;
    let gateway = router.gw_network_id.as_ref().map(|network_id| {
        json!({"network_id": network_id, "external_fixed_ips": fixed, "enable_snat": router.enable_snat})
    });
    let mut view = json!({
        "id": router.id, "name": router.name, "description": router.description,
        "admin_state_up": router.admin_state_up, "status": router.status, "external_gateway_info": gateway,
        "routes": router.routes.0, "availability_zone_hints": router.availability_zone_hints, "availability_zones": zones, "flavor_id": null,
        "tags": router.tags,
    });
    if request.may("get_router:ha", &target(&router.project_id)) {
        view["distributed"] = json!(false);
        view["ha"] = json!(false);
    }
    standard(&mut view, router);
    view
}
