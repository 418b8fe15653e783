//! Address scopes: subnet pools that share no address.

use super::{can, can_change};
use crate::{
    Neutron,
    attributes::{self, Attribute, Kind, both, flag_or, post, shown, text, text_or},
    errors::{conflict, named_bad},
    listing::{Wanted, chosen},
    model::*,
    rbac,
    store::{self, ADDRESS_SCOPE},
};
use base::{Json, Result, id};
use db::Filter;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/address-scopes", "get_address_scope", list),
        post_route("/v2.0/address-scopes", "create_address_scope", create),
        get("/v2.0/address-scopes/{address_scope_id}", "get_address_scope", show),
        put("/v2.0/address-scopes/{address_scope_id}", "update_address_scope", update),
        delete("/v2.0/address-scopes/{address_scope_id}", "delete_address_scope", remove),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    post("ip_version", Kind::Version).required(),
    both("shared", Kind::Bool).ruled(),
];

fn target(scope: &AddressScope) -> Json {
    super::shared_target(&scope.project_id, scope.shared)
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let given = attributes::one(request.json(), "address_scope")?;
    let given = attributes::created(&request, ATTRIBUTES, given)?;
    let wanted = json!({"project_id": given["project_id"], "tenant_id": given["project_id"]});
    can(&request, &wanted)?;
    attributes::check_rules(&request, "address_scope", ATTRIBUTES, &given, &wanted)?;
    let scope = AddressScope {
        id: id::uuid(),
        project_id: text_or(&given, "project_id", ""),
        name: text_or(&given, "name", ""),
        ip_version: given.get("ip_version").and_then(Json::as_i64).unwrap_or(4),
        shared: flag_or(&given, "shared", false),
    };
    let scope = neutron
        .write(move |tx, _| {
            tx.insert(&scope)?;
            let (id, owner) = (&scope.id, &scope.project_id);
            rbac::set_for_all(tx, "address_scope", id, owner, rbac::SHARED, scope.shared)?;
            Ok(scope.clone())
        })
        .await?;
    Ok(Reply::created(json!({"address_scope": view(&scope)})))
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({"project_id": request.ctx.project_id}))?;
    let cx = request.ctx.clone();
    let mut wanted = Wanted::parse::<AddressScope>(
        &request,
        neutron.options.pagination_max_limit,
        super::shared_special::<AddressScope>(&cx),
    )?;
    wanted.list.filters.extend(rbac::visible::<AddressScope>(&cx));
    let (wanted, found) = neutron
        .read(move |tx| {
            let mut scopes = wanted.find::<AddressScope>(tx, ADDRESS_SCOPE)?;
            rbac::seen_by(tx, &cx, &mut scopes)?;
            Ok((wanted.clone(), scopes))
        })
        .await?;
    Ok(wanted.reply(&request, "address_scopes", found.iter().map(view).collect()))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<AddressScope> {
    let (id, cx) = (request.param("address_scope_id").to_string(), request.ctx.clone());
    neutron.read(move |tx| rbac::load::<AddressScope>(tx, &cx, &id)).await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let scope = one(&neutron, &request).await?;
    can_change(&request, ADDRESS_SCOPE, &scope.id, "get_address_scope", &target(&scope))?;
    Ok(Reply::ok(json!({"address_scope": chosen(&request, view(&scope))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let scope = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "address_scope")?)?;
    let target = target(&scope);
    can_change(&request, ADDRESS_SCOPE, &scope.id, "get_address_scope", &target)?;
    attributes::check_rules(&request, "address_scope", ATTRIBUTES, &given, &target)?;
    let scope = neutron
        .write(move |tx, _| {
            let mut scope = store::get::<AddressScope>(tx, ADDRESS_SCOPE, &scope.id)?;
            if let Some(name) = text(&given, "name") {
                scope.name = name;
            }
            let shared = flag_or(&given, "shared", scope.shared);
            if scope.shared && !shared {
                return Err(named_bad(
                    "AddressScopeUpdateError",
                    format!(
                        "Unable to update address scope {} : Shared address scope can't be unshared.",
                        scope.id
                    ),
                ));
            }
            scope.shared = shared;
            rbac::set_for_all(tx, "address_scope", &scope.id, &scope.project_id, rbac::SHARED, shared)?;
            tx.update(&scope)?;
            Ok(scope)
        })
        .await?;
    Ok(Reply::ok(json!({"address_scope": chosen(&request, view(&scope))})))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let scope = one(&neutron, &request).await?;
    can_change(&request, ADDRESS_SCOPE, &scope.id, "get_address_scope", &target(&scope))?;
    neutron
        .write(move |tx, _| {
            if tx.count::<SubnetPool>(&[Filter::eq("address_scope_id", &*scope.id)])? > 0 {
                return Err(conflict(
                    "AddressScopeInUse",
                    format!(
                        "Unable to complete operation on address scope {}. There are one or more subnet pools in use on \
                         the address scope.",
                        scope.id
                    ),
                ));
            }
            rbac::forget(tx, "address_scope", &scope.id)?;
            tx.remove::<AddressScope>(&scope.id)
        })
        .await?;
    Ok(Reply::no_content())
}

fn view(scope: &AddressScope) -> Json {
    json!({
        "id": scope.id, "name": scope.name, "ip_version": scope.ip_version, "shared": scope.shared,
        "project_id": scope.project_id, "tenant_id": scope.project_id,
    })
}
