//! A port's bindings to hosts: one is active; another is made where the port's server is to move.

use super::{can, target};
use crate::{
    Neutron,
    attributes::{self, Attribute, Given, Kind, both, post, shown, text_or},
    errors::{bad, bad_resource, conflict},
    events,
    listing::chosen,
    model::*,
    ports,
    store::{self, PORT},
    trunks,
};
use base::{Error, Json, Result};
use db::{Stored, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/ports/{port_id}/bindings", "get_port_binding", list),
        post_route("/v2.0/ports/{port_id}/bindings", "create_port_binding", create),
        get("/v2.0/ports/{port_id}/bindings/{host}", "get_port_binding", show),
        put("/v2.0/ports/{port_id}/bindings/{host}", "update_port_binding", update),
        delete("/v2.0/ports/{port_id}/bindings/{host}", "delete_port_binding", remove),
        put("/v2.0/ports/{port_id}/bindings/{host}/activate", "activate", activate),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    post("host", Kind::Text(255)).required(),
    both("vnic_type", Kind::OneOf(super::ports::VNIC_TYPES)),
    both("profile", Kind::Any),
    shown("vif_type"),
    shown("vif_details"),
    shown("status"),
];

const INACTIVE: &str = "INACTIVE";

/// The port, if it may have bindings.
async fn port_of(neutron: &Neutron, request: &Request) -> Result<Port> {
    let id = request.param("port_id").to_string();
    let port = neutron.read(move |tx| store::get::<Port>(tx, PORT, &id)).await?;
    if !["compute:", "manila:"].iter().any(|prefix| port.device_owner.starts_with(prefix)) {
        let sentence =
            format!("Invalid port {}. Operation only valid on compute and shared filesystem ports", port.id);
        return Err(bad_resource("port", sentence));
    }
    Ok(port)
}

/// Who may not is told that there is none.
async fn changed_port(neutron: &Neutron, request: &Request) -> Result<Port> {
    can(request, &target(&request.ctx.project_id))
        .map_err(|_| Error::not_found("The resource could not be found."))?;
    port_of(neutron, request).await
}

/// The active one, which is in the port, among the others.
fn active(port: &Port) -> PortBinding {
    PortBinding {
        port_id: port.id.clone(),
        host: port.host_id.clone(),
        vif_type: port.vif_type.clone(),
        vnic_type: port.vnic_type.clone(),
        profile: port.profile.clone(),
        plugged: port.status == ACTIVE,
    }
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    // Who may see none is told of none.
    if !request.may("get_port_binding", &target(&request.ctx.project_id)) {
        return Ok(Reply::ok(json!({"bindings": []})));
    }
    let port = port_of(&neutron, &request).await?;
    let id = port.id.clone();
    let others = neutron.read(move |tx| store::all_of::<PortBinding>(tx, "port_id", &id)).await?;
    let mut views = vec![view(&active(&port), ACTIVE)];
    views.extend(others.iter().map(|binding| view(binding, INACTIVE)));
    views.sort_by(|a, b| a["host"].as_str().cmp(&b["host"].as_str()));
    views.retain(|view| {
        ["host", "vif_type", "vnic_type", "status"].iter().all(|key| {
            let wanted: Vec<&str> = request.query.all(key).collect();
            wanted.is_empty() || wanted.iter().any(|value| view[*key] == *value)
        })
    });
    let views: Vec<Json> = views.into_iter().map(|view| chosen(&request, view)).collect();
    Ok(Reply::ok(json!({"bindings": views})))
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let port = changed_port(&neutron, &request).await?;
    let host = request.param("host").to_string();
    let view = match port.host_id == host {
        true => view(&active(&port), ACTIVE),
        false => {
            let found = neutron.read(move |tx| other(tx, &port.id, &host)).await?;
            view(&found, INACTIVE)
        }
    };
    Ok(Reply::ok(json!({"binding": chosen(&request, view)})))
}

fn other(tx: &mut Tx, port_id: &str, host: &str) -> Result<PortBinding> {
    let found = tx.get::<PortBinding>(&[port_id.store(), host.store()])?;
    found.ok_or_else(|| ports::no_binding(port_id, host))
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    if request.json().as_object().is_some_and(|body| body.is_empty()) {
        return Err(bad("Resource body required"));
    }
    let given = attributes::created(&request, ATTRIBUTES, attributes::one(request.json(), "binding")?)?;
    can(&request, &target(&request.ctx.project_id))?;
    let port = port_of(&neutron, &request).await?;
    let made = neutron
        .write(move |tx, touched| {
            let port = store::get::<Port>(tx, PORT, &port.id)?;
            let (id, host) = (port.id.clone(), text_or(&given, "host", ""));
            if port.host_id == host || tx.get::<PortBinding>(&[id.store(), host.store()])?.is_some() {
                let text = format!("Binding for port {id} on host {host} already exists.");
                return Err(conflict("PortBindingAlreadyExists", text));
            }
            let mut binding = PortBinding {
                port_id: id,
                vif_type: ports::vif_type(tx, &host)?.into(),
                host,
                vnic_type: "normal".into(),
                profile: json!({}),
                plugged: false,
            };
            take(&given, &mut binding);
            ports::add_binding(tx, touched, &port, &binding)?;
            Ok(view(&binding, INACTIVE))
        })
        .await?;
    Ok(Reply::created(json!({"binding": made})))
}

fn take(given: &Given, binding: &mut PortBinding) {
    if let Some(kind) = attributes::text(given, "vnic_type") {
        binding.vnic_type = kind;
    }
    if let Some(profile) = given.get("profile") {
        binding.profile = if profile.is_object() { profile.clone() } else { json!({}) };
    }
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let port = changed_port(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "binding")?)?;
    let (clock, id, host) = (neutron.clock.clone(), port.id, request.param("host").to_string());
    let changed = neutron
        .write(move |tx, _| {
            let mut port = store::get::<Port>(tx, PORT, &id)?;
            if port.host_id != host {
                let mut binding = other(tx, &id, &host)?;
                take(&given, &mut binding);
                tx.update(&binding)?;
                return Ok(view(&binding, INACTIVE));
            }
            let mut binding = active(&port);
            take(&given, &mut binding);
            port.vnic_type.clone_from(&binding.vnic_type);
            port.profile.clone_from(&binding.profile);
            port.change(tx, clock.now())?;
            Ok(view(&binding, ACTIVE))
        })
        .await?;
    Ok(Reply::ok(json!({"binding": changed})))
}

async fn activate(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let port = changed_port(&neutron, &request).await?;
    let (clock, id, host) = (neutron.clock.clone(), port.id, request.param("host").to_string());
    let activated = neutron
        .write(move |tx, touched| {
            let mut port = store::get::<Port>(tx, PORT, &id)?;
            if port.host_id == host {
                let text = format!("Binding for port {id} on host {host} is already active.");
                return Err(conflict("PortBindingAlreadyActive", text));
            }
            ports::activate(tx, touched, &mut port, &host, clock.now())?;
            touched.server(&port, events::CHANGED);
            Ok(view(&active(&port), ACTIVE))
        })
        .await?;
    Ok(Reply::ok(activated))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let port = changed_port(&neutron, &request).await?;
    let (id, host, clock) = (port.id, request.param("host").to_string(), neutron.clock.clone());
    neutron
        .write(move |tx, touched| {
            let mut port = store::get::<Port>(tx, PORT, &id)?;
            if port.host_id != host {
                other(tx, &id, &host)?;
                return ports::remove_binding(tx, touched, &id, &host);
            }
            ports::bind(tx, &mut port, "")?;
            port.change(tx, clock.now())?;
            trunks::follow(tx, touched, &port, clock.now())?;
            touched.port(&store::whole_port(tx, &id)?);
            Ok(())
        })
        .await?;
    Ok(Reply::no_content())
}

fn view(binding: &PortBinding, status: &str) -> Json {
    json!({
        "host": binding.host, "vif_type": binding.vif_type, "vnic_type": binding.vnic_type, "status": status,
        "profile": binding.profile, "vif_details": super::ports::vif_details(&binding.vif_type),
    })
}
