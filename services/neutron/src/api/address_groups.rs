//! Address groups: ranges of addresses under one name, for rules of security groups.

use super::{can, can_change, standard};
use crate::{
    Neutron,
    attributes::{self, Attribute, Kind, both, post, shown, text, text_or, texts},
    errors::{bad, conflict, missing, named_bad},
    listing::{Wanted, chosen},
    model::*,
    rbac,
    store::{self, ADDRESS_GROUP},
};
use base::{Json, Result, id};
use db::Filter;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/address-groups", "get_address_group", list),
        post_route("/v2.0/address-groups", "create_address_group", create),
        get("/v2.0/address-groups/{address_group_id}", "get_address_group", show),
        put("/v2.0/address-groups/{address_group_id}", "update_address_group", update),
        delete("/v2.0/address-groups/{address_group_id}", "delete_address_group", remove),
        put("/v2.0/address-groups/{address_group_id}/add_addresses", "add_addresses", add),
        put("/v2.0/address-groups/{address_group_id}/remove_addresses", "remove_addresses", take_away),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(1024)),
    post("addresses", Kind::Ranges),
    shown("shared"),
];

fn target(group: &AddressGroup) -> Json {
    super::shared_target(&group.project_id, group.shared)
}

/// Each as the network that it is.
fn normal(addresses: &[String]) -> Vec<String> {
    addresses.iter().filter_map(|text| attributes::range(text)).map(|net| net.to_string()).collect()
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let given = attributes::one(request.json(), "address_group")?;
    let given = attributes::created(&request, ATTRIBUTES, given)?;
    can(&request, &json!({"project_id": given["project_id"], "tenant_id": given["project_id"]}))?;
    let now = neutron.clock.now();
    let group = AddressGroup {
        id: id::uuid(),
        project_id: text_or(&given, "project_id", ""),
        name: text_or(&given, "name", ""),
        description: text_or(&given, "description", ""),
        addresses: normal(&texts(&given, "addresses")),
        shared: false,
        revision_number: 0,
        created_at: now,
        updated_at: now,
    };
    let group = neutron.write(move |tx, _| tx.insert(&group).map(|()| group.clone())).await?;
    Ok(Reply::created(json!({"address_group": view(&group)})))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({"project_id": request.ctx.project_id}))?;
    let cx = request.ctx.clone();
    let mut wanted =
        Wanted::parse::<AddressGroup>(&request, neutron.options.pagination_max_limit, |_, _| Ok(None))?;
    wanted.list.filters.extend(rbac::visible::<AddressGroup>(&cx));
    let (wanted, found) = neutron
        .read(move |tx| {
            let groups = wanted.find::<AddressGroup>(tx, ADDRESS_GROUP)?;
            Ok((wanted.clone(), groups))
        })
        .await?;
    Ok(wanted.reply(&request, "address_groups", found.iter().map(view).collect()))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<AddressGroup> {
    let (id, cx) = (request.param("address_group_id").to_string(), request.ctx.clone());
    neutron.read(move |tx| rbac::load::<AddressGroup>(tx, &cx, &id)).await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let group = one(&neutron, &request).await?;
    can_change(&request, ADDRESS_GROUP, &group.id, "get_address_group", &target(&group))?;
    Ok(Reply::ok(json!({"address_group": chosen(&request, view(&group))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let group = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "address_group")?)?;
    can_change(&request, ADDRESS_GROUP, &group.id, "get_address_group", &target(&group))?;
    let clock = neutron.clock.clone();
    let group = neutron
        .write(move |tx, _| {
            let mut group = store::get::<AddressGroup>(tx, ADDRESS_GROUP, &group.id)?;
            if let Some(name) = text(&given, "name") {
                group.name = name;
            }
            if let Some(description) = text(&given, "description") {
                group.description = description;
            }
            group.change(tx, clock.now())?;
            Ok(group)
        })
        .await?;
    Ok(Reply::ok(json!({"address_group": chosen(&request, view(&group))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let group = one(&neutron, &request).await?;
    can_change(&request, ADDRESS_GROUP, &group.id, "get_address_group", &target(&group))?;
    neutron
        .write(move |tx, _| {
            let id = &group.id;
            if tx.count::<SecurityGroupRule>(&[Filter::eq("remote_address_group_id", &**id)])? > 0 {
                let text = format!("Address group {id} is in use on one or more security group rules.");
                return Err(conflict("AddressGroupInUse", text));
            }
            rbac::forget(tx, "address_group", id)?;
            tx.remove::<AddressGroup>(id)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn add(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    change(neutron, request, |group, named| {
        let known: Vec<String> = named.iter().filter(|one| group.addresses.contains(one)).cloned().collect();
        if !known.is_empty() {
            let (known, id) = (attributes::python(&json!(known)), &group.id);
            let text = format!("Addresses {known} already exist in the address group {id}.");
            return Err(named_bad("AddressesAlreadyExist", text));
        }
        group.addresses.extend(named);
        Ok(())
    })
    .await
}

async fn take_away(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    change(neutron, request, |group, named| {
        let unknown: Vec<String> =
            named.iter().filter(|one| !group.addresses.contains(one)).cloned().collect();
        if !unknown.is_empty() {
            let (unknown, id) = (attributes::python(&json!(unknown)), &group.id);
            let text = format!("Addresses {unknown} not found in the address group {id}.");
            return Err(missing("AddressesNotFound", text));
        }
        group.addresses.retain(|one| !named.contains(one));
        Ok(())
    })
    .await
}

type Change = fn(&mut AddressGroup, Vec<String>) -> Result<()>;

/// Other addresses, of which the hosts hear wherever a rule names the group.
async fn change(neutron: Arc<Neutron>, request: Request, change: Change) -> Result<Reply> {
    let group = one(&neutron, &request).await?;
    can_change(&request, ADDRESS_GROUP, &group.id, "get_address_group", &target(&group))?;
    let list =
        request.json()["addresses"].as_array().ok_or_else(|| bad("Request body contains invalid data"))?;
    let mut named: Vec<String> = Vec::new();
    for one in list {
        let text = attributes::python(one);
        let wrong = || named_bad("AddrFormatError", format!("invalid IPNetwork {text}"));
        let address = attributes::range(&text).ok_or_else(wrong)?.to_string();
        if !named.contains(&address) {
            named.push(address);
        }
    }
    let clock = neutron.clock.clone();
    let group = neutron
        .write(move |tx, touched| {
            let mut group = store::get::<AddressGroup>(tx, ADDRESS_GROUP, &group.id)?;
            change(&mut group, named.clone())?;
            group.change(tx, clock.now())?;
            for rule in store::all_of::<SecurityGroupRule>(tx, "remote_address_group_id", &group.id)? {
                touched.security_groups.insert(rule.security_group_id);
            }
            Ok(group)
        })
        .await?;
    let mut view = view(&group);
    // Only here upstream says whether it is shared.
    view["shared"] = json!(group.shared);
    Ok(Reply::ok(json!({"address_group": view})))
}

fn view(group: &AddressGroup) -> Json {
    let mut view = json!({
        "id": group.id, "name": group.name, "description": group.description, "addresses": group.addresses,
    });
    standard(&mut view, group);
    view
}
