//! Network agents as their reports left them, and who serves what: it follows from who lives, unless it is set here.

use super::can;
use crate::{
    Neutron,
    agents::{self, touch_all},
    attributes::{self, Attribute, Kind, both, flag_or, shown},
    errors::{bad_resource, conflict, missing},
    listing::{Wanted, chosen, not_found},
    model::*,
    ports,
    schedule::{self, Layout},
    store::{self, AGENT, NETWORK, ROUTER},
};
use base::{Json, Result, Timestamp};
use db::{Filter, Stored, Tx};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use web::{Reply, Request, Routes, delete, get, post, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/agents", "get_agent", list),
        post("/v2.0/agents", "get_agent", not_made),
        get("/v2.0/agents/{agent_id}", "get_agent", show),
        put("/v2.0/agents/{agent_id}", "update_agent", update),
        delete("/v2.0/agents/{agent_id}", "delete_agent", remove),
        get("/v2.0/agents/{agent_id}/dhcp-networks", "get_dhcp-networks", networks_of),
        post("/v2.0/agents/{agent_id}/dhcp-networks", "create_dhcp-network", add_network),
        delete("/v2.0/agents/{agent_id}/dhcp-networks/{network_id}", "delete_dhcp-network", remove_network),
        get("/v2.0/agents/{agent_id}/l3-routers", "get_l3-routers", routers_of),
        post("/v2.0/agents/{agent_id}/l3-routers", "create_l3-router", add_router),
        delete("/v2.0/agents/{agent_id}/l3-routers/{router_id}", "delete_l3-router", remove_router),
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

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let allowed = request.may("get_agent", &json!({}));
    let down_after = Duration::from_secs(neutron.options.agent_down_time_seconds);
    let now = neutron.clock.now();
    let deadline = now.minus(down_after);
    let wanted = Wanted::parse::<Agent>(&request, neutron.options.pagination_max_limit, |name, values| {
        let value = values.first().copied().unwrap_or_default();
        Ok(match name {
            // Clients write it as they like: the reference's database does not mind.
            "agent_type" => Some(Filter::sql("lower(agent_type) = ?", [value.to_lowercase().store()])),
            "alive" => {
                let alive = attributes::boolean(&json!(value))?;
                let op = if alive { db::Op::Gt } else { db::Op::Le };
                Some(Filter::new("heartbeat_timestamp", op, deadline))
            }
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

async fn networks_of(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let (id, options, now) =
        (request.param("agent_id").to_string(), neutron.options.clone(), neutron.clock.now());
    let found = neutron
        .read(move |tx| {
            let agent = store::get::<Agent>(tx, AGENT, &id)?;
            if agent.agent_type != agents::DHCP.name {
                return Ok(Vec::new());
            }
            let layout = Layout::load(tx, &options, now)?;
            let networks = schedule::networks_on(tx, &layout, &agent.host)?;
            super::networks::with_subnets(tx, &layout, networks)
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
            let routers = match agent.agent_type == agents::L3.name {
                true => schedule::routers_on(tx, &layout, &agent.host)?,
                false => Vec::new(),
            };
            super::routers::whole(tx, &layout, routers)
        })
        .await?;
    let views: Vec<Json> = found.iter().map(|whole| super::routers::view(&request, whole)).collect();
    Ok(Reply::ok(json!({"routers": views})))
}

async fn of_network(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let id = request.param("network_id").to_string();
    serving(&neutron, &agents::DHCP, move |tx, layout| {
        let network = store::get::<Network>(tx, NETWORK, &id)?;
        let is_served = ports::dhcp_port(tx, &id)?.is_some();
        Ok(layout.dhcp_host(&network).filter(|_| is_served).map(str::to_string))
    })
    .await
}

async fn of_router(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let id = request.param("router_id").to_string();
    serving(&neutron, &agents::L3, move |tx, layout| {
        let router = store::get::<Router>(tx, ROUTER, &id)?;
        Ok(layout.router_host(&router).map(str::to_string))
    })
    .await
}

/// The agent of a thing that one host serves, if it is served at all.
async fn serving(
    neutron: &Neutron,
    kind: &'static agents::Kind,
    host_of: impl Fn(&mut Tx, &Layout) -> Result<Option<String>> + Send + 'static,
) -> Result<Reply> {
    let (options, now) = (neutron.options.clone(), neutron.clock.now());
    let down_after = Duration::from_secs(options.agent_down_time_seconds);
    let agent = neutron
        .read(move |tx| {
            let layout = Layout::load(tx, &options, now)?;
            let host = host_of(tx, &layout)?;
            Ok(host.and_then(|host| layout.agent(kind, &host).cloned()))
        })
        .await?;
    let views: Vec<Json> = agent.iter().map(|agent| view(agent, now, down_after)).collect();
    Ok(Reply::ok(json!({"agents": views})))
}

async fn add_network(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let agent_id = request.param("agent_id").to_string();
    let id = given_id(&request, "network_id")?;
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let network = store::get::<Network>(tx, NETWORK, &id)?;
            let agent = store::get::<Agent>(tx, AGENT, &agent_id)?;
            if agent.agent_type != agents::DHCP.name || !agent.admin_state_up {
                let text = format!("Agent {agent_id} is not a valid DHCP Agent or has been disabled.");
                return Err(missing("InvalidDHCPAgent", text));
            }
            let layout = Layout::load(tx, &options, clock.now())?;
            if schedule::is_served_on(tx, &layout, &network, &agent.host)? {
                let text = format!("The network {id} has been already hosted by the DHCP Agent {agent_id}.");
                return Err(conflict("NetworkHostedByDHCPAgent", text));
            }
            schedule::place(tx, &id, Some(agent.host))?;
            touched.networks.insert(id.clone());
            Ok(())
        })
        .await?;
    Ok(Reply::created(Json::Null))
}

async fn remove_network(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let (agent_id, id) = (request.param("agent_id").to_string(), request.param("network_id").to_string());
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let agent = store::get::<Agent>(tx, AGENT, &agent_id)?;
            let layout = Layout::load(tx, &options, clock.now())?;
            let is_here = match tx.find::<Network>(&id)?.filter(|_| agent.agent_type == agents::DHCP.name) {
                Some(network) => schedule::is_served_on(tx, &layout, &network, &agent.host)?,
                None => false,
            };
            if !is_here {
                let text = format!("The network {id} is not hosted by the DHCP Agent {agent_id}.");
                return Err(conflict("NetworkNotHostedByDhcpAgent", text));
            }
            schedule::place(tx, &id, None)?;
            match ports::dhcp_port(tx, &id)? {
                Some(whole) => ports::stands_no_more(tx, touched, whole),
                None => Ok(()),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

async fn add_router(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let agent_id = request.param("agent_id").to_string();
    let id = given_id(&request, "router_id")?;
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let router = store::get::<Router>(tx, ROUTER, &id)?;
            let agent = store::get::<Agent>(tx, AGENT, &agent_id)?;
            if agent.agent_type != agents::L3.name || !agent.admin_state_up {
                let text = format!("Agent {agent_id} is not a L3 Agent or has been disabled");
                return Err(missing("InvalidL3Agent", text));
            }
            let layout = Layout::load(tx, &options, clock.now())?;
            match layout.router_host(&router) {
                Some(host) if host == agent.host => return Ok(()),
                Some(host) => {
                    let other = layout.agent(&agents::L3, host).map_or(host, |agent| &agent.id);
                    let text = format!("The router {id} has been already hosted by the L3 Agent {other}.");
                    return Err(conflict("RouterHostedByL3Agent", text));
                }
                None => {}
            }
            schedule::place(tx, &id, Some(agent.host))?;
            ports::touch_router(tx, touched, &id)
        })
        .await?;
    Ok(Reply::created(Json::Null))
}

async fn remove_router(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({}))?;
    let (agent_id, id) = (request.param("agent_id").to_string(), request.param("router_id").to_string());
    let (options, clock) = (neutron.options.clone(), neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let agent = store::get::<Agent>(tx, AGENT, &agent_id)?;
            let layout = Layout::load(tx, &options, clock.now())?;
            let router = store::get::<Router>(tx, ROUTER, &id)?;
            // Upstream does not mind when it was not there.
            if agent.agent_type != agents::L3.name || layout.router_host(&router) != Some(&agent.host) {
                return Ok(());
            }
            schedule::place(tx, &id, None)?;
            let ports = store::all_of::<Port>(tx, "device_id", &id)?;
            for whole in store::whole(tx, ports)? {
                ports::stands_no_more(tx, touched, whole)?;
            }
            ports::touch_router(tx, touched, &id)
        })
        .await?;
    Ok(Reply::no_content())
}

/// These bodies are not looked at upstream: what is not there is an error inside.
fn given_id(request: &Request, name: &str) -> Result<String> {
    let id = request.json()[name].as_str().map(str::to_string);
    id.ok_or_else(|| bad_resource("agents", format!("'{name}' is missing")))
}

fn view(agent: &Agent, now: Timestamp, down_after: Duration) -> Json {
    let time = |time: Timestamp| time.format("%Y-%m-%d %H:%M:%S");
    json!({
        "id": agent.id, "agent_type": agent.agent_type, "binary": agent.program, "host": agent.host,
        "topic": agent.topic, "admin_state_up": agent.admin_state_up,
        "alive": now.since(agent.heartbeat_timestamp) < down_after, "description": agent.description,
        "availability_zone": agent.availability_zone, "resources_synced": agent.resources_synced,
        "created_at": time(agent.created_at), "started_at": time(agent.started_at),
        "heartbeat_timestamp": time(agent.heartbeat_timestamp), "configurations": agent.configurations,
    })
}
