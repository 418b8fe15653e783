//! Tags: short texts that users pin to things. One table of routes for every noun that has them.

use super::{network_target, on_network};
use crate::{
    Neutron,
    attributes::{one_text, unique_texts},
    errors::{bad_resource, invalid, missing},
    model::*,
    store::{self, Noun},
};
use base::{Json, Result};
use db::Tx;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

/// Characters of one tag, and tags of one thing.
pub const TAG_CHARACTERS_MAX: usize = 255;
const TAGS_MAX: usize = 50;

macro_rules! tagged {
    ($($type:ident $noun:expr, $plural:literal at $path:literal under $param:literal ruled $singular:literal, $target:expr;)*) => {
        pub fn routes() -> Routes<Neutron> {
            let mut routes = Routes::new();
            $(
                routes.extend([
                    get(concat!($path, "/tags"), concat!("get_", $singular, ":tags"), list::<$type>),
                    post(concat!($path, "/tags"), concat!("create_", $singular, ":tags"), add::<$type>),
                    put(concat!($path, "/tags"), concat!("update_", $singular, ":tags"), replace::<$type>),
                    delete(concat!($path, "/tags"), concat!("delete_", $singular, ":tags"), remove_all::<$type>),
                    get(concat!($path, "/tags/{tag}"), concat!("get_", $singular, ":tags"), check::<$type>),
                    put(concat!($path, "/tags/{tag}"), concat!("update_", $singular, ":tags"), add_one::<$type>),
                    delete(concat!($path, "/tags/{tag}"), concat!("delete_", $singular, ":tags"), remove::<$type>),
                ]);
            )*
            routes
        }

        $(
            impl Tagged for $type {
                const NOUN: Noun = $noun;
                const PLURAL: &'static str = $plural;
                const PARAM: &'static str = $param;

                fn tags(&mut self) -> &mut Vec<String> {
                    &mut self.tags
                }

                fn target(&self, tx: &mut Tx) -> Result<Json> {
                    let target: fn(&$type, &mut Tx) -> Result<Json> = $target;
                    target(self, tx)
                }
            }
        )*
    };
}

/// A noun with tags.
trait Tagged: Standard + Clone {
    const NOUN: Noun;
    const PLURAL: &'static str;
    const PARAM: &'static str;
    fn tags(&mut self) -> &mut Vec<String>;
    /// What rules are asked about it.
    fn target(&self, tx: &mut Tx) -> Result<Json>;
}

tagged! {
    Network store::NETWORK, "networks" at "/v2.0/networks/{network_id}" under "network_id" ruled "network",
        |network, _| Ok(network_target(network));
    Subnet store::SUBNET, "subnets" at "/v2.0/subnets/{subnet_id}" under "subnet_id" ruled "subnet",
        |subnet, tx| {
            let network = store::get::<Network>(tx, store::NETWORK, &subnet.network_id)?;
            Ok(on_network(&subnet.project_id, &network))
        };
    Port store::PORT, "ports" at "/v2.0/ports/{port_id}" under "port_id" ruled "port",
        |port, tx| {
            let network = store::get::<Network>(tx, store::NETWORK, &port.network_id)?;
            Ok(on_network(&port.project_id, &network))
        };
    SubnetPool store::SUBNET_POOL, "subnetpools" at "/v2.0/subnetpools/{subnetpool_id}" under "subnetpool_id"
        ruled "subnetpool", |pool, _| Ok(json!({"project_id": pool.project_id, "shared": pool.shared}));
    Router store::ROUTER, "routers" at "/v2.0/routers/{router_id}" under "router_id" ruled "router",
        |router, _| Ok(json!({"project_id": router.project_id}));
    FloatingIp store::FLOATING_IP, "floatingips" at "/v2.0/floatingips/{floatingip_id}" under "floatingip_id"
        ruled "floatingip", |floating, _| Ok(json!({"project_id": floating.project_id}));
    Trunk store::TRUNK, "trunks" at "/v2.0/trunks/{trunk_id}" under "trunk_id" ruled "trunk",
        |trunk, _| Ok(json!({"project_id": trunk.project_id}));
    SecurityGroup store::SECURITY_GROUP, "security_groups" at "/v2.0/security-groups/{security_group_id}"
        under "security_group_id" ruled "security_group",
        |group, _| Ok(json!({"project_id": group.project_id, "shared": group.shared}));
}

/// The thing, once the route's rule allowed it.
async fn allowed<T: Tagged>(neutron: &Neutron, request: &Request) -> Result<T> {
    let id = request.param(T::PARAM).to_string();
    let (thing, target) = neutron
        .read(move |tx| {
            let thing = store::get::<T>(tx, T::NOUN, &id)?;
            let target = thing.target(tx)?;
            Ok((thing, target))
        })
        .await?;
    super::can(request, &target)?;
    Ok(thing)
}

/// Changes the tags of a thing; what they are then.
async fn change<T: Tagged>(
    neutron: &Neutron,
    request: &Request,
    change: impl Fn(&mut Vec<String>) -> Result<()> + Send + 'static,
) -> Result<Vec<String>> {
    let (id, clock) = (request.param(T::PARAM).to_string(), neutron.clock.clone());
    neutron
        .write(move |tx, _| {
            let mut thing = store::get::<T>(tx, T::NOUN, &id)?;
            let before = thing.tags().clone();
            change(thing.tags())?;
            if thing.tags().len() > TAGS_MAX {
                let sentence = format!("The number of tags exceed the per-resource limit of {TAGS_MAX}");
                return Err(bad_resource(T::PLURAL, sentence));
            }
            if *thing.tags() != before {
                thing.change(tx, clock.now())?;
            }
            Ok(std::mem::take(thing.tags()))
        })
        .await
}

fn given(request: &Request) -> Result<Vec<String>> {
    let tags = request.json().get("tags").ok_or_else(|| invalid("Invalid tags body"))?;
    unique_texts(tags, TAG_CHARACTERS_MAX).map_err(|reason| invalid(reason.trim_end_matches('.')))?;
    Ok(tags.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_string).collect())
}

fn named(request: &Request) -> Result<String> {
    let tag = request.param("tag").to_string();
    one_text(&json!(tag), TAG_CHARACTERS_MAX).map_err(|reason| invalid(reason.trim_end_matches('.')))?;
    Ok(tag)
}

fn no_tag(tag: &str) -> base::Error {
    missing("TagNotFound", format!("Tag {tag} could not be found."))
}

async fn list<T: Tagged>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let mut thing = allowed::<T>(&neutron, &request).await?;
    Ok(Reply::ok(json!({"tags": thing.tags()})))
}

async fn check<T: Tagged>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let tag = named(&request)?;
    let mut thing = allowed::<T>(&neutron, &request).await?;
    match thing.tags().contains(&tag) {
        true => Ok(Reply::no_content()),
        false => Err(no_tag(&tag)),
    }
}

async fn add<T: Tagged>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let new = given(&request)?;
    allowed::<T>(&neutron, &request).await?;
    let added = new.clone();
    change::<T>(&neutron, &request, move |tags| {
        for tag in &new {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({"tags": added})))
}

async fn replace<T: Tagged>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let new = given(&request)?;
    allowed::<T>(&neutron, &request).await?;
    let tags = change::<T>(&neutron, &request, move |tags| {
        tags.clone_from(&new);
        Ok(())
    });
    Ok(Reply::ok(json!({"tags": tags.await?})))
}

async fn add_one<T: Tagged>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let tag = named(&request)?;
    allowed::<T>(&neutron, &request).await?;
    change::<T>(&neutron, &request, move |tags| {
        if !tags.contains(&tag) {
            tags.push(tag.clone());
        }
        Ok(())
    })
    .await?;
    Ok(Reply::json(StatusCode::CREATED, Json::Null))
}

async fn remove<T: Tagged>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    let tag = named(&request)?;
    allowed::<T>(&neutron, &request).await?;
    change::<T>(&neutron, &request, move |tags| {
        let before = tags.len();
        tags.retain(|other| *other != tag);
        if tags.len() == before { Err(no_tag(&tag)) } else { Ok(()) }
    })
    .await?;
    Ok(Reply::no_content())
}

async fn remove_all<T: Tagged>(neutron: Arc<Neutron>, request: Request) -> Result<Reply> {
    allowed::<T>(&neutron, &request).await?;
    change::<T>(&neutron, &request, |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::no_content())
}
