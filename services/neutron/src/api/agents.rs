//! Network agents as their reports left them, and who serves what. Who serves what follows from who lives: it is shown
//! here and set nowhere.

use super::can;
use crate::{
    Neutron,
    agents::Touched,
    attributes::{self, Attribute, Kind, both, flag_or, shown},
    desired::Layout,
    errors::bad_resource,
    listing::{Wanted, chosen, not_found},
    model::*,
    ports,
    store::{self, AGENT, NETWORK, ROUTER},
};
use base::{Json, Result, Timestamp};
use db::{Filter, List, Tx};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/agents", "get_agent", list),
        post("/v2.0/agents", "get_agent", not_made),
        get("/v2.0/agents/{agent_id}", "get_agent", show),
        put("/v2.0/agents/{agent_id}", "update_agent", update),
        delete("/v2.0/agents/{agent_id}", "delete_agent", remove),
        get("/v2.0/agents/{agent_id}/dhcp-networks", "get_dhcp-networks", networks_of),
        get("/v2.0/agents/{agent_id}/l3-routers", "get_l3-routers", routers_of),
        get("/v2.0/networks/{network_id}/dhcp-agents", "get_dhcp-agents", of_network),
        get("/v2.0/routers/{router_id}/l3-agents", "get_l3-agents", of_router),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    both("admin_state_up", Kind::Bool),
    both("description", Kind::TextOrNull(255)),
    shown("id"),
    shown("agent_type"),
    shown("binary"),
    shown("topic"),
    shown("host"),
    shown("alive"),
    shown("configurations"),
    shown("created_at"),
    shown("started_at"),
    shown("heartbeat_timestamp"),
    shown("availability_zone"),
    shown("resources_synced"),
];

const TYPE: &str = "Ferrostack network agent";
const BINARY: &str = "ferrostack-network-agent";

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let allowed = request.may("get_agent", &json!({}));
    let down_after = Duration::from_secs(neutron.options.agent_down_time_seconds);
    let now = neutron.clock.now();
    let deadline = now.minus(down_after);
    let wanted = Wanted::parse::<Agent>(&request, neutron.options.pagination_max_limit, |name, values| {
        let value = values.first().copied().unwrap_or_default();
        let constant = |is_so: bool| Some(Filter::sql(if is_so { "TRUE" } else { "FALSE" }, []));
        Ok(match name {
            "agent_type" => constant(values.contains(&TYPE)),
            "binary" => constant(values.contains(&BINARY)),
            "topic" => constant(values.contains(&contracts::agents::network::AGENT_TOPIC)),
            "alive" => {
                let alive = attributes::boolean(&json!(value))?;
                let op = if alive { db::Op::Gt } else { db::Op::Le };
                Some(Filter::new("heartbeat_timestamp", op, deadline))
            }
            "availability_zone" => constant(false),
            _ => None,
        })
    })?;
    let (wanted, agents) = neutron
        .read(move |tx| {
            let agents = wanted.find::<Agent>(tx, AGENT)?;
            Ok((wanted.clone(), agents))
        })
        .await?;
    // Who may see none is told of none.
    let agents = if allowed { agents } else { Vec::new() };
    let views = agents.iter().map(|agent| view(agent, now, down_after)).collect();
    Ok(wanted.reply(&request, "agents", views))
}

async fn not_made(_: Arc<Neutron>, _: Request) -> Result<Reply> {
    Err(bad_resource("agents", "Agent creation using API is not supported."))
}

/// Who may not ask is told that there is none.
async fn one(neutron: &Neutron, request: &Request) -> Result<Agent> {
    let id = request.param("agent_id").to_string();
    match can(request, &json!({})) {
        Ok(()) => neutron.read(move |tx| store::get::<Agent>(tx, AGENT, &id)).await,
        Err(_) => Err(not_found(AGENT, &id)),
    }
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let agent = one(&neutron, &request).await?;
    let down_after = Duration::from_secs(neutron.options.agent_down_time_seconds);
    Ok(Reply::ok(json!({"agent": chosen(&request, view(&agent, neutron.clock.now(), down_after))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let agent = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "agent")?)?;
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    let agent = neutron
        .write(move |tx, touched| {
            let mut agent = store::get::<Agent>(tx, AGENT, &agent.id)?;
            let was_up = agent.admin_state_up;
            agent.admin_state_up = flag_or(&given, "admin_state_up", was_up);
            if let Some(description) = given.get("description") {
                agent.description = description.as_str().map(str::to_string);
            }
            tx.update(&agent)?;
            if agent.admin_state_up != was_up {
                touch_all(tx, touched, &options, clock.now())?;
            }
            Ok(agent)
        })
        .await?;
    let down_after = Duration::from_secs(neutron.options.agent_down_time_seconds);
    Ok(Reply::ok(json!({"agent": view(&agent, neutron.clock.now(), down_after)})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let agent = one(&neutron, &request).await?;
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            tx.remove::<Agent>(&agent.id)?;
            touch_all(tx, touched, &options, clock.now())
        })
        .await?;
    Ok(Reply::no_content())
}

/// A host more or less: who serves DHCP and routers may be another.
pub fn touch_all(tx: &mut Tx, touched: &mut Touched, options: &crate::Options, now: Timestamp) -> Result<()> {
    for network in tx.list::<Network>(&List::all())? {
        ports::ensure_dhcp(tx, touched, options, &network.id, now)?;
        touched.networks.insert(network.id);
    }
    touched.routers.extend(tx.list::<Router>(&List::all())?.into_iter().map(|router| router.id));
    Ok(())
}

async fn networks_of(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let (id, options, now) =
        (request.param("agent_id").to_string(), neutron.options.clone(), neutron.clock.now());
    let found = neutron
        .read(move |tx| {
            let agent = store::get::<Agent>(tx, AGENT, &id)?;
            let layout = Layout::load(tx, &options, now)?;
            let served = tx.list::<Port>(&List::all().eq("device_owner", OWNER_DHCP))?;
            let ids: BTreeSet<String> = served
                .into_iter()
                .map(|port| port.network_id)
                .filter(|id| layout.host_of(id) == Some(&agent.host))
                .collect();
            let networks = store::any_of::<Network>(tx, "id", &ids)?;
            let on = store::on_networks(tx, &ids)?;
            Ok(networks
                .into_iter()
                .map(|n| (on.get(&n.id).cloned().unwrap_or_default(), n))
                .collect::<Vec<_>>())
        })
        .await?;
    let views: Vec<Json> = found.iter().map(|(on, n)| super::networks::view(&request, n, on)).collect();
    Ok(Reply::ok(json!({"networks": views})))
}

async fn routers_of(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let (id, options, now) =
        (request.param("agent_id").to_string(), neutron.options.clone(), neutron.clock.now());
    let found = neutron
        .read(move |tx| {
            let agent = store::get::<Agent>(tx, AGENT, &id)?;
            let layout = Layout::load(tx, &options, now)?;
            let mut routers = tx.list::<Router>(&List::all())?;
            routers.retain(|router| layout.host_of(&router.id) == Some(&agent.host));
            super::routers::with_gateways(tx, routers)
        })
        .await?;
    let views: Vec<Json> = found.iter().map(|(r, fixed)| super::routers::view(&request, r, fixed)).collect();
    Ok(Reply::ok(json!({"routers": views})))
}

async fn of_network(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let id = request.param("network_id").to_string();
    serving(&neutron, id, |tx, id| {
        store::get::<Network>(tx, NETWORK, id)?;
        Ok(ports::dhcp_port(tx, id)?.is_some())
    })
    .await
}

async fn of_router(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let id = request.param("router_id").to_string();
    serving(&neutron, id, |tx, id| store::get::<Router>(tx, ROUTER, id).map(|router| router.admin_state_up))
        .await
}

/// The agent of a thing that one host serves, if it is served at all.
async fn serving(
    neutron: &Neutron,
    id: String,
    is_served: fn(&mut Tx, &str) -> Result<bool>,
) -> Result<Reply> {
    let (options, now) = (neutron.options.clone(), neutron.clock.now());
    let down_after = Duration::from_secs(options.agent_down_time_seconds);
    let agents = neutron
        .read(move |tx| {
            if !is_served(tx, &id)? {
                return Ok(Vec::new());
            }
            let host = Layout::load(tx, &options, now)?.host_of(&id).map(str::to_string);
            host.map_or(Ok(Vec::new()), |host| store::all_of::<Agent>(tx, "host", &host))
        })
        .await?;
    let views: Vec<Json> = agents.iter().map(|agent| view(agent, now, down_after)).collect();
    Ok(Reply::ok(json!({"agents": views})))
}

fn view(agent: &Agent, now: Timestamp, down_after: Duration) -> Json {
    let time = |time: Timestamp| time.format("%Y-%m-%d %H:%M:%S");
    json!({
        "id": agent.id, "agent_type": TYPE, "binary": BINARY, "host": agent.host,
        "topic": contracts::agents::network::AGENT_TOPIC, "admin_state_up": agent.admin_state_up,
        "alive": now.since(agent.heartbeat_timestamp) < down_after, "description": agent.description,
        "availability_zone": null, "resources_synced": null, "created_at": time(agent.created_at),
        "started_at": time(agent.started_at), "heartbeat_timestamp": time(agent.heartbeat_timestamp),
        "configurations": {
            "tunneling_ip": agent.tunnel_ip, "physical_networks": agent.physical_networks,
            "networks": agent.networks, "ports": agent.ports, "routers": agent.routers,
        },
    })
}
