//! Trunks: a port whose guest has other ports on it, by VLANs.

use super::{can, can_change, check_revision, standard, target};
use crate::{
    Neutron,
    agents::Touched,
    attributes::{self, Attribute, Kind, both, flag_or, post, shown, text_or},
    errors::{bad, conflict, invalid, not_allowed},
    listing::{Wanted, chosen, not_found},
    model::*,
    quota,
    store::{self, TRUNK},
    trunks,
};
use base::{Json, Result, Timestamp, id};
use db::Tx;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/trunks", "get_trunk", list),
        post_route("/v2.0/trunks", "create_trunk", create),
        get("/v2.0/trunks/{trunk_id}", "get_trunk", show),
        put("/v2.0/trunks/{trunk_id}", "update_trunk", update),
        delete("/v2.0/trunks/{trunk_id}", "delete_trunk", remove),
        get("/v2.0/trunks/{trunk_id}/get_subports", "get_subports", subports),
        put("/v2.0/trunks/{trunk_id}/add_subports", "add_subports", add),
        put("/v2.0/trunks/{trunk_id}/remove_subports", "remove_subports", take_away),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    both("admin_state_up", Kind::Bool),
    post("port_id", Kind::Uuid).required(),
    shown("status"),
    post("sub_ports", Kind::Any),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    shown("tags"),
];

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    if request.json().get("trunks").is_some() {
        return Err(bad("Bulk operation not supported"));
    }
    let given = attributes::created(&request, ATTRIBUTES, attributes::one(request.json(), "trunk")?)?;
    let wanted = trunks::given_list(&given);
    trunks::check_form(&wanted).map_err(|why| bad(format!("Invalid input for sub_ports. Reason: {why}.")))?;
    can(&request, &target(&text_or(&given, "project_id", "")))?;
    let (cx, options, now) = (request.ctx.clone(), neutron.options.clone(), neutron.clock.now());
    let made = neutron
        .write(move |tx, touched| {
            let trunk = Trunk {
                id: id::uuid(),
                project_id: text_or(&given, "project_id", ""),
                name: text_or(&given, "name", ""),
                description: text_or(&given, "description", ""),
                port_id: text_or(&given, "port_id", ""),
                admin_state_up: flag_or(&given, "admin_state_up", true),
                status: DOWN.into(),
                tags: Vec::new(),
                revision_number: 0,
                created_at: now,
                updated_at: now,
            };
            trunks::check_parent(tx, &cx, &trunk.port_id)?;
            let subports = trunks::checked(tx, &cx, &trunk, &wanted)?;
            quota::take(tx, &options, &trunk.project_id, "trunk")?;
            tx.insert(&trunk)?;
            trunks::add(tx, touched, &trunk, &subports, now)?;
            whole(tx, trunk)
        })
        .await?;
    Ok(Reply::created(json!({"trunk": view(&made)})))
}

type Whole = (Trunk, Vec<Subport>);

fn whole(tx: &mut Tx, trunk: Trunk) -> Result<Whole> {
    let subports = trunks::subports_of(tx, &trunk.id)?;
    Ok((trunk, subports))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &target(&request.ctx.project_id))?;
    let mut wanted = Wanted::parse::<Trunk>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    wanted.list.filters.extend(super::own(&request.ctx));
    let (wanted, found, mut subports) = neutron
        .read(move |tx| {
            let found = wanted.find::<Trunk>(tx, TRUNK)?;
            let ids: BTreeSet<String> = found.iter().map(|trunk| trunk.id.clone()).collect();
            let subports = trunks::subports(tx, &ids)?;
            Ok((wanted.clone(), found, subports))
        })
        .await?;
    let with_subports = |trunk: Trunk| {
        let own = subports.remove(&trunk.id).unwrap_or_default();
        view(&(trunk, own))
    };
    Ok(wanted.reply(&request, "trunks", found.into_iter().map(with_subports).collect()))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<Whole> {
    let id = request.param("trunk_id").to_string();
    neutron
        .read(move |tx| {
            let trunk = store::get::<Trunk>(tx, TRUNK, &id)?;
            whole(tx, trunk)
        })
        .await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let found = one(&neutron, &request).await?;
    can(&request, &target(&found.0.project_id)).map_err(|_| not_found(TRUNK, &found.0.id))?;
    Ok(Reply::ok(json!({"trunk": chosen(&request, view(&found))})))
}

async fn subports(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (trunk, subports) = one(&neutron, &request).await?;
    can_change(&request, TRUNK, &trunk.id, "get_trunk", &target(&trunk.project_id))?;
    Ok(Reply::ok(json!({"sub_ports": subports.iter().map(trunks::view).collect::<Vec<_>>()})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (trunk, _) = one(&neutron, &request).await?;
    if !request.may("get_trunk", &target(&trunk.project_id)) {
        return Err(not_found(TRUNK, &trunk.id));
    }
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "trunk")?)?;
    can_change(&request, TRUNK, &trunk.id, "get_trunk", &target(&trunk.project_id))?;
    check_revision(&request, trunk.revision_number)?;
    let clock = neutron.clock.clone();
    let changed = neutron
        .write(move |tx, _| {
            let mut trunk = store::get::<Trunk>(tx, TRUNK, &trunk.id)?;
            trunk.name = text_or(&given, "name", &trunk.name);
            trunk.description = text_or(&given, "description", &trunk.description);
            trunk.admin_state_up = flag_or(&given, "admin_state_up", trunk.admin_state_up);
            trunk.change(tx, clock.now())?;
            whole(tx, trunk)
        })
        .await?;
    Ok(Reply::ok(json!({"trunk": chosen(&request, view(&changed))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (trunk, _) = one(&neutron, &request).await?;
    can_change(&request, TRUNK, &trunk.id, "get_trunk", &target(&trunk.project_id))?;
    let now = neutron.clock.now();
    neutron
        .write(move |tx, touched| {
            let trunk = store::get::<Trunk>(tx, TRUNK, &trunk.id)?;
            trunks::disabled(&trunk)?;
            let parent = tx.find::<Port>(&trunk.port_id)?;
            if parent.is_some_and(|port| !port.host_id.is_empty()) {
                return Err(conflict("TrunkInUse", format!("Trunk {} is currently in use.", trunk.id)));
            }
            for subport in trunks::subports_of(tx, &trunk.id)? {
                trunks::release(tx, touched, &subport.port_id, now)?;
            }
            tx.remove::<Trunk>(&trunk.id)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn add(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let cx = request.ctx.clone();
    change(neutron, request, "add_subports", move |tx, touched, trunk, given, now| {
        let subports = trunks::checked(tx, &cx, trunk, given)?;
        trunks::disabled(trunk)?;
        trunks::not_in_error(trunk)?;
        trunks::add(tx, touched, trunk, &subports, now)
    })
    .await
}

async fn take_away(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    change(neutron, request, "remove_subports", |tx, touched, trunk, given, now| {
        trunks::disabled(trunk)?;
        trunks::remove(tx, touched, trunk, given, now)
    })
    .await
}

/// Other subports: the trunk is down until its host has heard of them.
async fn change(
    neutron: Arc<Neutron>,
    request: Request,
    action: &str,
    mut work: impl FnMut(&mut Tx, &mut Touched, &Trunk, &Json, Timestamp) -> Result<()> + Send + 'static,
) -> Result<Reply> {
    let (trunk, subports) = one(&neutron, &request).await?;
    let target = target(&trunk.project_id);
    if can_change(&request, TRUNK, &trunk.id, "get_trunk", &target).is_err() {
        return Err(match request.may("get_trunk", &target) {
            true => not_allowed(trunks::refusal(action, subports.len())),
            false => not_found(TRUNK, &trunk.id),
        });
    }
    let given = request.json()["sub_ports"].clone();
    let clock = neutron.clock.clone();
    let changed = neutron
        .write(move |tx, touched| {
            let now = clock.now();
            let mut trunk = store::get::<Trunk>(tx, TRUNK, &trunk.id)?;
            trunks::check_form(&given).map_err(invalid)?;
            work(tx, touched, &trunk, &given, now)?;
            trunk.status = DOWN.into();
            trunk.change(tx, now)?;
            touched.trunks.insert(trunk.id.clone());
            touched.ports.insert(trunk.port_id.clone());
            whole(tx, trunk)
        })
        .await?;
    Ok(Reply::ok(view(&changed)))
}

fn view((trunk, subports): &Whole) -> Json {
    let mut view = json!({
        "id": trunk.id, "name": trunk.name, "description": trunk.description, "port_id": trunk.port_id,
        "admin_state_up": trunk.admin_state_up, "status": trunk.status, "tags": trunk.tags,
        "sub_ports": subports.iter().map(trunks::view).collect::<Vec<_>>(),
    });
    standard(&mut view, trunk);
    view
}
