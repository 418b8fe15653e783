//! Identity providers and the protocols by which one logs in with them.

use super::{
    Object, body, collection, conflict, flag,
    parties::{self, Party},
    projects, text, view,
};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{List, Tx, Value};
use schema::Schema;
use serde_json::json;
use std::sync::{Arc, LazyLock};
use web::{Reply, Request, Routes, delete, get, patch, put};

const PROTOCOLS: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols";
const PROTOCOL: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}";

pub fn routes() -> Routes<Keystone> {
    let mut routes = parties::routes::<IdentityProvider>();
    routes.extend([
        get(PROTOCOLS, "identity:list_protocols", list_protocols),
        get(PROTOCOL, "identity:get_protocol", show_protocol),
        put(PROTOCOL, "identity:create_protocol", create_protocol),
        patch(PROTOCOL, "identity:update_protocol", update_protocol),
        delete(PROTOCOL, "identity:delete_protocol", remove_protocol),
    ]);
    routes
}

impl Party for IdentityProvider {
    const NOUN: &'static str = "identity_provider";
    const PLURAL: &'static str = "identity_providers";
    const ALL: &'static str = "/v3/OS-FEDERATION/identity_providers";
    const ONE: &'static str = "/v3/OS-FEDERATION/identity_providers/{idp_id}";
    const ID: &'static str = "idp_id";
    const RULES: [&'static str; 5] = [
        "identity:list_identity_providers",
        "identity:get_identity_provider",
        "identity:create_identity_provider",
        "identity:update_identity_provider",
        "identity:delete_identity_provider",
    ];
    const CREATE: &'static LazyLock<Schema> = &schemas::IDENTITY_PROVIDER_CREATE;
    const UPDATE: &'static LazyLock<Schema> = &schemas::IDENTITY_PROVIDER_UPDATE;

    fn id(&self) -> &str {
        &self.id
    }

    fn new(tx: &mut Tx, id: &str, given: &Object) -> Result<Self> {
        let domain_id = match text(given, "domain_id") {
            Some(domain_id) => store::domain(tx, domain_id)?.id,
            None => own_domain(tx, id)?,
        };
        Ok(Self {
            id: id.into(),
            domain_id,
            enabled: false,
            description: None,
            remote_ids: Vec::new(),
            authorization_ttl: None,
        })
    }

    fn apply(&mut self, tx: &mut Tx, given: &Object) -> Result<()> {
        self.enabled = flag(given, "enabled", self.enabled);
        if let Some(description) = given.get("description") {
            self.description = description.as_str().map(str::to_string);
        }
        if let Some(minutes) = given.get("authorization_ttl") {
            self.authorization_ttl = minutes.as_i64();
        }
        let Some(remote_ids) = given.get("remote_ids") else { return Ok(()) };
        let remote_ids = remote_ids.as_array().into_iter().flatten().filter_map(Json::as_str);
        self.remote_ids = remote_ids.map(str::to_string).collect();
        for other in tx.list::<Self>(&List::all())?.iter().filter(|other| other.id != self.id) {
            if let Some(taken) = other.remote_ids.iter().find(|id| self.remote_ids.contains(id)) {
                return Err(conflict(Self::NOUN, &format!("Duplicate remote ID: {taken}")));
            }
        }
        Ok(())
    }

    fn forget(tx: &mut Tx, id: &str) -> Result<()> {
        store::forget_identity_provider(tx, id)
    }

    fn duplicate(id: &str) -> String {
        format!("Duplicate entry: {id}")
    }

    fn columns(&self) -> Json {
        json!({
            "id": self.id, "domain_id": self.domain_id, "enabled": self.enabled,
            "description": self.description, "remote_ids": self.remote_ids,
            "authorization_ttl": self.authorization_ttl,
        })
    }

    fn more_links(&self, request: &Request) -> Option<(&'static str, String)> {
        Some(("protocols", format!("{}{}/{}/protocols", request.base_url, Self::ALL, self.id)))
    }
}

/// A domain for its users alone.
fn own_domain(tx: &mut Tx, provider_id: &str) -> Result<String> {
    let id = id::hex();
    let domain = Project {
        id: id.clone(),
        name: id.clone(),
        domain_id: String::new(),
        parent_id: None,
        description: format!("Auto generated federated domain for Identity Provider: {provider_id}"),
        enabled: true,
        is_domain: true,
        tags: Vec::new(),
        options: json!({}),
        extra: json!({}),
    };
    projects::insert(tx, &domain, 0)?;
    Ok(id)
}

async fn list_protocols(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let wanted = List::all().eq("idp_id", request.param("idp_id"));
    let found = keystone.read(move |tx| tx.list::<FederationProtocol>(&wanted)).await?;
    let in_full = |protocol: &FederationProtocol| {
        let mut shown = show_one_protocol(&request, protocol);
        shown["idp_id"] = protocol.idp_id.as_str().into();
        shown["remote_id_attribute"] = json!(protocol.remote_id_attribute);
        shown
    };
    Ok(collection(&request, "protocols", found.iter().map(in_full).collect()))
}

async fn show_protocol(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (idp_id, id) = parts(&request);
    let protocol = keystone.read(move |tx| find_protocol(tx, &idp_id, &id)).await?;
    Ok(Reply::ok(json!({"protocol": show_one_protocol(&request, &protocol)})))
}

async fn create_protocol(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::FEDERATION_PROTOCOL_CREATE, "protocol")?;
    request.can(&())?;
    let (idp_id, id) = parts(&request);
    let protocol = keystone
        .write(move |tx| {
            let mapping_id = mapping_of(tx, &given)?;
            store::find::<IdentityProvider>(tx, &idp_id)?;
            let remote_id_attribute = text(&given, "remote_id_attribute").map(str::to_string);
            let (idp_id, id) = (idp_id.clone(), id.clone());
            let protocol = FederationProtocol { idp_id, id, mapping_id, remote_id_attribute };
            if tx.get::<FederationProtocol>(&key(&protocol.idp_id, &protocol.id))?.is_some() {
                let details = format!("Duplicate entry found with ID {}", protocol.id);
                return Err(conflict("federation_protocol", &details));
            }
            tx.insert(&protocol)?;
            Ok(protocol)
        })
        .await?;
    Ok(Reply::created(json!({"protocol": show_one_protocol(&request, &protocol)})))
}

async fn update_protocol(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::FEDERATION_PROTOCOL_UPDATE, "protocol")?;
    request.can(&())?;
    let (idp_id, id) = parts(&request);
    let protocol = keystone
        .write(move |tx| {
            let mapping_id = mapping_of(tx, &given)?;
            let mut protocol = find_protocol(tx, &idp_id, &id)?;
            protocol.mapping_id = mapping_id;
            if let Some(attribute) = text(&given, "remote_id_attribute") {
                protocol.remote_id_attribute = Some(attribute.to_string());
            }
            tx.update(&protocol)?;
            Ok(protocol)
        })
        .await?;
    Ok(Reply::ok(json!({"protocol": show_one_protocol(&request, &protocol)})))
}

async fn remove_protocol(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (idp_id, id) = parts(&request);
    keystone
        .write(move |tx| {
            find_protocol(tx, &idp_id, &id)?;
            tx.delete::<FederationProtocol>(&key(&idp_id, &id)).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

fn parts(request: &Request) -> (String, String) {
    (request.param("idp_id").to_string(), request.param("protocol_id").to_string())
}

fn key(idp_id: &str, id: &str) -> [Value; 2] {
    [Value::Text(idp_id.into()), Value::Text(id.into())]
}

pub fn find_protocol(tx: &mut Tx, idp_id: &str, id: &str) -> Result<FederationProtocol> {
    tx.get::<FederationProtocol>(&key(idp_id, id))?.ok_or_else(|| {
        Error::not_found(format!("Could not find federated protocol {id} for Identity Provider: {idp_id}."))
    })
}

/// The id of a mapping that is there.
fn mapping_of(tx: &mut Tx, given: &Object) -> Result<String> {
    let id = text(given, "mapping_id").unwrap_or_default();
    let mapping = tx.find::<Mapping>(id)?;
    mapping.map(|mapping| mapping.id).ok_or_else(|| Error::bad_request(format!("Invalid mapping id: {id}")))
}

/// The links are upstream's, which lead nowhere.
fn show_one_protocol(request: &Request, protocol: &FederationProtocol) -> Json {
    let columns = json!({"id": protocol.id, "mapping_id": protocol.mapping_id});
    let mut shown = view(request, "protocols", &protocol.id, &json!({}), columns);
    shown["links"]["identity_provider"] = format!("{}/v3/{}", request.base_url, protocol.idp_id).into();
    shown
}
