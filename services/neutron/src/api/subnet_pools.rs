//! Subnet pools: prefixes from which subnets get their ranges.

use super::{can, can_change, check_revision, standard};
use crate::{
    Neutron,
    attributes::{self, Attribute, Given, Kind, both, flag_or, post, shown, text, text_or, texts},
    errors::{bad, invalid, named_bad},
    listing::{Wanted, chosen},
    model::*,
    pools, quota, rbac,
    store::{self, SUBNET_POOL},
};
use base::{Context, Json, Result, id};
use db::{Filter, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post as post_route, put};

pub fn routes() -> Routes<Neutron> {
    vec![
        get("/v2.0/subnetpools", "get_subnetpool", list),
        post_route("/v2.0/subnetpools", "create_subnetpool", create),
        get("/v2.0/subnetpools/{subnetpool_id}", "get_subnetpool", show),
        put("/v2.0/subnetpools/{subnetpool_id}", "update_subnetpool", update),
        delete("/v2.0/subnetpools/{subnetpool_id}", "delete_subnetpool", remove),
        put("/v2.0/subnetpools/{subnetpool_id}/add_prefixes", "add_prefixes", add_prefixes),
        put("/v2.0/subnetpools/{subnetpool_id}/remove_prefixes", "remove_prefixes", remove_prefixes),
    ]
}

const ATTRIBUTES: &[Attribute] = &[
    shown("id"),
    both("name", Kind::Text(255)),
    both("description", Kind::Text(255)),
    both("prefixes", Kind::Ranges).required(),
    both("default_prefixlen", Kind::Size),
    both("min_prefixlen", Kind::Size),
    both("max_prefixlen", Kind::Size),
    both("default_quota", Kind::SizeOrNull),
    both("address_scope_id", Kind::UuidOrNull),
    both("is_default", Kind::Bool).ruled(),
    post("shared", Kind::Bool).ruled(),
    shown("ip_version"),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    shown("tags"),
];

fn target(pool: &SubnetPool) -> Json {
    super::shared_target(&pool.project_id, pool.shared)
}

async fn create(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let (bodies, many) = attributes::bodies(&request, "subnetpool", "subnetpools")?;
    let mut wanted = Vec::new();
    for given in bodies {
        let given = attributes::created(&request, ATTRIBUTES, given)?;
        let target = json!({"project_id": given["project_id"], "tenant_id": given["project_id"]});
        can(&request, &target)?;
        attributes::check_rules(&request, "subnetpool", ATTRIBUTES, &given, &target)?;
        wanted.push(given);
    }
    let (options, clock, cx) = (neutron.options.clone(), neutron.clock.clone(), request.ctx.clone());
    let made = neutron
        .write(move |tx, _| {
            let mut made = Vec::new();
            for given in &wanted {
                quota::take(tx, &options, &text_or(given, "project_id", ""), "subnetpool")?;
                made.push(insert(tx, &cx, given, clock.now())?);
            }
            Ok(made)
        })
        .await?;
    let views: Vec<Json> = made.iter().map(view).collect();
    Ok(match many {
        true => Reply::created(json!({"subnetpools": views})),
        false => Reply::created(json!({"subnetpool": views[0]})),
    })
}

fn insert(tx: &mut Tx, cx: &Context, given: &Given, now: base::Timestamp) -> Result<SubnetPool> {
    let (prefixes, ip_version) = pools::prefixes(&texts(given, "prefixes"))?;
    let (shortest, longest) = pools::bounds(ip_version);
    let length = |name: &str, default: i64| given.get(name).and_then(Json::as_i64).unwrap_or(default);
    let min_prefixlen = length("min_prefixlen", shortest);
    let pool = SubnetPool {
        id: id::uuid(),
        project_id: text_or(given, "project_id", ""),
        name: text_or(given, "name", ""),
        description: text_or(given, "description", ""),
        ip_version,
        prefixes: prefixes.iter().map(ToString::to_string).collect(),
        default_prefixlen: length("default_prefixlen", min_prefixlen),
        min_prefixlen,
        max_prefixlen: length("max_prefixlen", longest),
        default_quota: given.get("default_quota").and_then(Json::as_i64),
        address_scope_id: text(given, "address_scope_id"),
        shared: flag_or(given, "shared", false),
        is_default: flag_or(given, "is_default", false),
        tags: Vec::new(),
        revision_number: 0,
        created_at: now,
        updated_at: now,
    };
    pools::check_bounds(&pool)?;
    check_default(tx, &pool)?;
    pools::check_scope(tx, cx, &pool)?;
    tx.insert(&pool)?;
    if pool.shared {
        rbac::set_for_all(tx, "subnetpool", &pool.id, &pool.project_id, rbac::SHARED, true)?;
    }
    Ok(pool)
}

/// One pool of each version is what `use_default_subnetpool` takes.
fn check_default(tx: &mut Tx, pool: &SubnetPool) -> Result<()> {
    let others = [
        Filter::eq("is_default", true),
        Filter::eq("ip_version", pool.ip_version),
        Filter::new("id", db::Op::Ne, &*pool.id),
    ];
    match pool.is_default && tx.count::<SubnetPool>(&others)? > 0 {
        false => Ok(()),
        true => Err(invalid(
            "A default subnetpool for this IP family has already been set. Only one default may exist per IP family",
        )),
    }
}

async fn list(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    can(&request, &json!({"project_id": request.ctx.project_id}))?;
    let cx = request.ctx.clone();
    let mut wanted = Wanted::parse::<SubnetPool>(
        &request,
        neutron.options.pagination_max_limit,
        super::shared_special::<SubnetPool>(&cx),
    )?;
    wanted.list.filters.extend(rbac::visible::<SubnetPool>(&cx));
    let (wanted, found) = neutron
        .read(move |tx| {
            let mut pools = wanted.find::<SubnetPool>(tx, SUBNET_POOL)?;
            rbac::seen_by(tx, &cx, &mut pools)?;
            Ok((wanted.clone(), pools))
        })
        .await?;
    Ok(wanted.reply(&request, "subnetpools", found.iter().map(view).collect()))
}

async fn one(neutron: &Neutron, request: &Request) -> Result<SubnetPool> {
    let (id, cx) = (request.param("subnetpool_id").to_string(), request.ctx.clone());
    neutron.read(move |tx| rbac::load::<SubnetPool>(tx, &cx, &id)).await
}

async fn show(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let pool = one(&neutron, &request).await?;
    can_change(&request, SUBNET_POOL, &pool.id, "get_subnetpool", &target(&pool))?;
    Ok(Reply::ok(json!({"subnetpool": chosen(&request, view(&pool))})))
}

async fn update(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let pool = one(&neutron, &request).await?;
    let given = attributes::updated(ATTRIBUTES, attributes::one(request.json(), "subnetpool")?)?;
    let target = target(&pool);
    can_change(&request, SUBNET_POOL, &pool.id, "get_subnetpool", &target)?;
    attributes::check_rules(&request, "subnetpool", ATTRIBUTES, &given, &target)?;
    check_revision(&request, pool.revision_number)?;
    let (id, clock, cx) = (pool.id, neutron.clock.clone(), request.ctx.clone());
    let names_scope = given.contains_key("address_scope_id");
    let pool = neutron
        .write(move |tx, _| {
            let mut pool = store::get::<SubnetPool>(tx, SUBNET_POOL, &id)?;
            apply(tx, &cx, &mut pool, &given)?;
            if !given.is_empty() {
                pool.change(tx, clock.now())?;
            }
            Ok(pool)
        })
        .await?;
    let mut view = view(&pool);
    // After a change upstream says the lengths as numbers, and of the address scope only when it was named.
    for (name, length) in [
        ("default_prefixlen", pool.default_prefixlen),
        ("min_prefixlen", pool.min_prefixlen),
        ("max_prefixlen", pool.max_prefixlen),
    ] {
        view[name] = json!(length);
    }
    if let (Some(object), false) = (view.as_object_mut(), names_scope) {
        object.remove("address_scope_id");
    }
    Ok(Reply::ok(json!({"subnetpool": chosen(&request, view)})))
}

fn apply(tx: &mut Tx, cx: &Context, pool: &mut SubnetPool, given: &Given) -> Result<()> {
    if let Some(name) = text(given, "name") {
        pool.name = name;
    }
    if let Some(description) = text(given, "description") {
        pool.description = description;
    }
    for (name, length) in [
        ("default_prefixlen", &mut pool.default_prefixlen),
        ("min_prefixlen", &mut pool.min_prefixlen),
        ("max_prefixlen", &mut pool.max_prefixlen),
    ] {
        if let Some(given) = given.get(name).and_then(Json::as_i64) {
            *length = given;
        }
    }
    if let Some(quota) = given.get("default_quota") {
        pool.default_quota = quota.as_i64();
    }
    if let Some(scope) = given.get("address_scope_id") {
        pool.address_scope_id = scope.as_str().map(str::to_string);
    }
    pool.is_default = flag_or(given, "is_default", pool.is_default);
    if given.contains_key("prefixes") {
        let (new, version) = pools::prefixes(&texts(given, "prefixes"))?;
        let stays = |old: &ipnet::IpNet| new.iter().any(|net| net.contains(old));
        if version != pool.ip_version || !pools::nets(pool).iter().all(stays) {
            return Err(illegal("Existing prefixes must be a subset of the new prefixes"));
        }
        pool.prefixes = new.iter().map(ToString::to_string).collect();
    }
    pools::check_bounds(pool)?;
    check_default(tx, pool)?;
    pools::check_scope(tx, cx, pool)
}

fn illegal(why: &str) -> base::Error {
    named_bad("IllegalSubnetPoolPrefixUpdate", format!("Illegal update to prefixes: {why}."))
}

async fn remove(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let pool = one(&neutron, &request).await?;
    can_change(&request, SUBNET_POOL, &pool.id, "get_subnetpool", &target(&pool))?;
    neutron
        .write(move |tx, _| {
            if tx.count::<Subnet>(&[Filter::eq("subnetpool_id", &*pool.id)])? > 0 {
                return Err(named_bad(
                    "SubnetPoolDeleteError",
                    "Unable to delete subnet pool: Subnet pool has existing allocations.",
                ));
            }
            rbac::forget(tx, "subnetpool", &pool.id)?;
            tx.remove::<SubnetPool>(&pool.id)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn add_prefixes(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    change_prefixes(neutron, request, |tx, cx, pool, named| {
        let mut all = pool.prefixes.clone();
        all.extend(named.iter().map(ToString::to_string));
        let (all, _) = pools::prefixes(&all)?;
        pool.prefixes = all.iter().map(ToString::to_string).collect();
        pools::check_scope(tx, cx, pool)
    })
    .await
}

async fn remove_prefixes(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    change_prefixes(neutron, request, |tx, _, pool, named| {
        for subnet in store::all_of::<Subnet>(tx, "subnetpool_id", &pool.id)? {
            let used = crate::ipam::cidr(&subnet)?;
            if named.iter().any(|net| pools::overlap(net, &used)) {
                return Err(illegal("One or more the prefixes to be removed is in use by a subnet."));
            }
        }
        let left = named.iter().fold(pools::nets(pool), |left, net| pools::without(&left, net));
        pool.prefixes = ipnet::IpNet::aggregate(&left).iter().map(ToString::to_string).collect();
        Ok(())
    })
    .await
}

type Change = fn(&mut Tx, &Context, &mut SubnetPool, &[ipnet::IpNet]) -> Result<()>;

async fn change_prefixes(neutron: Arc<Neutron>, request: Request, change: Change) -> Result<Reply> {
    let pool = one(&neutron, &request).await?;
    can_change(&request, SUBNET_POOL, &pool.id, "get_subnetpool", &target(&pool))?;
    let list =
        request.json()["prefixes"].as_array().ok_or_else(|| bad("Request body contains invalid data"))?;
    let mut named = Vec::new();
    for one in list {
        let text = attributes::python(one);
        let wrong = || bad(format!("Invalid input for prefixes. Reason: '{text}' is not a valid IP subnet."));
        named.push(attributes::range(&text).ok_or_else(wrong)?);
    }
    let (clock, cx) = (neutron.clock.clone(), request.ctx.clone());
    let pool = neutron
        .write(move |tx, _| {
            let mut pool = store::get::<SubnetPool>(tx, SUBNET_POOL, &pool.id)?;
            change(tx, &cx, &mut pool, &named)?;
            pool.change(tx, clock.now())?;
            Ok(pool)
        })
        .await?;
    Ok(Reply::ok(json!({"prefixes": pool.prefixes})))
}

fn view(pool: &SubnetPool) -> Json {
    let text = |length: i64| length.to_string();
    let mut view = json!({
        "id": pool.id, "name": pool.name, "description": pool.description, "ip_version": pool.ip_version,
        "prefixes": pool.prefixes, "default_prefixlen": text(pool.default_prefixlen),
        "min_prefixlen": text(pool.min_prefixlen), "max_prefixlen": text(pool.max_prefixlen),
        "default_quota": pool.default_quota, "address_scope_id": pool.address_scope_id, "shared": pool.shared,
        "is_default": pool.is_default, "tags": pool.tags,
    });
    standard(&mut view, pool);
    view
}
