//! The parties of federation, which are kept alike: identity providers vouch for users here, service providers take our
//! word for ours. What is particular to one kind is in its [`Party`].

use super::{Object, asked, body, collection, conflict, view};
use crate::{Keystone, store};
use base::{Json, Result};
use db::{List, Resource, Tx};
use schema::Schema;
use serde_json::json;
use std::sync::{Arc, LazyLock};
use web::{Reply, Request, Routes, StatusCode, delete, get, patch, put};

/// One kind of them. A `PUT` chooses the id.
pub trait Party: Resource + Clone + Send + Sync {
    const NOUN: &'static str;
    /// The last word of the path, and the key of a list.
    const PLURAL: &'static str;
    const ALL: &'static str;
    const ONE: &'static str;
    /// The path's parameter.
    const ID: &'static str;
    /// Of list, show, create, update, delete.
    const RULES: [&'static str; 5];
    const CREATE: &'static LazyLock<Schema>;
    const UPDATE: &'static LazyLock<Schema>;

    fn id(&self) -> &str;
    /// A disabled one.
    fn new(tx: &mut Tx, id: &str, given: &Object) -> Result<Self>;
    fn apply(&mut self, tx: &mut Tx, given: &Object) -> Result<()>;
    /// What goes with it.
    fn forget(tx: &mut Tx, id: &str) -> Result<()>;
    /// How a conflict of ids is told.
    fn duplicate(id: &str) -> String;
    fn columns(&self) -> Json;
    /// In a list each has a link more.
    fn more_links(&self, _request: &Request) -> Option<(&'static str, String)> {
        None
    }
}

pub fn routes<P: Party>() -> Routes<Keystone> {
    vec![
        get(P::ALL, P::RULES[0], list::<P>),
        get(P::ONE, P::RULES[1], show::<P>),
        put(P::ONE, P::RULES[2], create::<P>),
        patch(P::ONE, P::RULES[3], update::<P>),
        delete(P::ONE, P::RULES[4], remove::<P>),
    ]
}

async fn list<P: Party>(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut wanted = List::all();
    if let Some(id) = request.query.get("id") {
        wanted = wanted.eq("id", id);
    }
    if request.query.has("enabled") {
        wanted = wanted.eq("enabled", asked(&request, "enabled"));
    }
    let found = keystone.read(move |tx| tx.list::<P>(&wanted)).await?;
    let listed = |party: &P| {
        let mut shown = show_one(&request, party);
        if let Some((name, url)) = party.more_links(&request) {
            shown["links"][name] = url.into();
        }
        shown
    };
    Ok(collection(&request, P::PLURAL, found.iter().map(listed).collect()))
}

async fn show<P: Party>(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param(P::ID).to_string();
    let party = keystone.read(move |tx| store::find::<P>(tx, &id)).await?;
    Ok(one(StatusCode::OK, &request, &party))
}

async fn create<P: Party>(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, P::CREATE, P::NOUN)?;
    request.can(&())?;
    let id = request.param(P::ID).to_string();
    let party = keystone
        .write(move |tx| {
            if tx.find::<P>(&id)?.is_some() {
                return Err(conflict(P::NOUN, &P::duplicate(&id)));
            }
            let mut party = P::new(tx, &id, &given)?;
            party.apply(tx, &given)?;
            tx.insert(&party)?;
            Ok(party)
        })
        .await?;
    Ok(one(StatusCode::CREATED, &request, &party))
}

async fn update<P: Party>(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, P::UPDATE, P::NOUN)?;
    request.can(&())?;
    let id = request.param(P::ID).to_string();
    let party = keystone
        .write(move |tx| {
            let mut party: P = store::find(tx, &id)?;
            party.apply(tx, &given)?;
            tx.update(&party)?;
            Ok(party)
        })
        .await?;
    Ok(one(StatusCode::OK, &request, &party))
}

async fn remove<P: Party>(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param(P::ID).to_string();
    keystone
        .write(move |tx| {
            store::find::<P>(tx, &id)?;
            P::forget(tx, &id)?;
            tx.remove::<P>(&id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

fn one<P: Party>(status: StatusCode, request: &Request, party: &P) -> Reply {
    Reply::json(status, json!({P::NOUN: show_one(request, party)}))
}

fn show_one<P: Party>(request: &Request, party: &P) -> Json {
    view(request, &format!("OS-FEDERATION/{}", P::PLURAL), party.id(), &json!({}), party.columns())
}
