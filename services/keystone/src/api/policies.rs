//! Policies that services may fetch, and for which endpoints each is meant. Deprecated upstream, still served.

use super::{Object, collection, endpoints, extra, merge, text, view, whole_body};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::{Filter, List, Resource, Tx};
use serde_json::json;
use std::{collections::HashSet, sync::Arc};
use web::{Reply, Request, Routes, delete, get, patch, post, put};

const ENDPOINT: &str = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}";
const SERVICE: &str = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}";
const REGION: &str = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}";

pub fn routes() -> Routes<Keystone> {
    let list_endpoints = get(
        "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints",
        "identity:list_endpoints_for_policy",
        list_endpoints,
    );
    let show_for_endpoint = get(
        "/v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy",
        "identity:get_policy_for_endpoint",
        show_for_endpoint,
    );
    vec![
        get("/v3/policies", "identity:list_policies", list),
        post("/v3/policies", "identity:create_policy", create),
        get("/v3/policies/{policy_id}", "identity:get_policy", show),
        patch("/v3/policies/{policy_id}", "identity:update_policy", update),
        delete("/v3/policies/{policy_id}", "identity:delete_policy", remove),
        list_endpoints,
        show_for_endpoint,
        get(ENDPOINT, "identity:check_policy_association_for_endpoint", check),
        put(ENDPOINT, "identity:create_policy_association_for_endpoint", associate),
        delete(ENDPOINT, "identity:delete_policy_association_for_endpoint", part),
        get(SERVICE, "identity:check_policy_association_for_service", check),
        put(SERVICE, "identity:create_policy_association_for_service", associate),
        delete(SERVICE, "identity:delete_policy_association_for_service", part),
        get(REGION, "identity:check_policy_association_for_region_and_service", check),
        put(REGION, "identity:create_policy_association_for_region_and_service", associate),
        delete(REGION, "identity:delete_policy_association_for_region_and_service", part),
    ]
}

const COLUMNS: &[&str] = &["id", "blob", "type", "links"];

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut wanted = List::all();
    if let Some(kind) = request.query.get("type") {
        wanted = wanted.eq("kind", kind);
    }
    let found = keystone.read(move |tx| tx.list::<Policy>(&wanted)).await?;
    let shown = found.iter().map(|policy| show_one(&request, policy, "policies")).collect();
    Ok(collection(&request, "policies", shown))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = given(&request, &schemas::POLICY_CREATE)?;
    let mut policy = Policy { id: id::hex(), blob: String::new(), kind: String::new(), extra: json!({}) };
    apply(&mut policy, &given);
    let row = policy.clone();
    keystone.write(move |tx| tx.insert(&row)).await?;
    Ok(Reply::created(json!({"policy": show_one(&request, &policy, "policies")})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("policy_id").to_string();
    let policy = keystone.read(move |tx| store::find::<Policy>(tx, &id)).await?;
    Ok(Reply::ok(json!({"policy": show_one(&request, &policy, "policies")})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = given(&request, &schemas::POLICY_UPDATE)?;
    let id = request.param("policy_id").to_string();
    let policy = keystone
        .write(move |tx| {
            let mut policy: Policy = store::find(tx, &id)?;
            if text(&given, "id").is_some_and(|other| other != policy.id) {
                return Err(Error::bad_request("Cannot change policy ID"));
            }
            apply(&mut policy, &given);
            tx.update(&policy)?;
            Ok(policy)
        })
        .await?;
    Ok(Reply::ok(json!({"policy": show_one(&request, &policy, "policies")})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("policy_id").to_string();
    keystone
        .write(move |tx| {
            store::find::<Policy>(tx, &id)?;
            store::forget_policy(tx, &id)?;
            tx.remove::<Policy>(&id).map(drop)
        })
        .await?;
    Ok(Reply::no_content())
}

async fn check(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let wanted = association(&request);
    keystone
        .read(move |tx| {
            check_parties(tx, &wanted)?;
            match tx.get::<PolicyAssociation>(&key(&wanted))? {
                Some(found) if found.policy_id == wanted.policy_id => Ok(()),
                _ => Err(Error::not_found("Could not find policy association.")),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

/// An endpoint, service or region has one policy: a new one takes the old one's place.
async fn associate(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let wanted = association(&request);
    keystone
        .write(move |tx| {
            check_parties(tx, &wanted)?;
            match tx.update(&wanted)? {
                true => Ok(()),
                false => tx.insert(&wanted),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

async fn part(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let wanted = association(&request);
    keystone
        .write(move |tx| {
            check_parties(tx, &wanted)?;
            match tx.get::<PolicyAssociation>(&key(&wanted))? {
                Some(found) if found.policy_id == wanted.policy_id => {
                    tx.delete::<PolicyAssociation>(&key(&wanted)).map(drop)
                }
                _ => Ok(()),
            }
        })
        .await?;
    Ok(Reply::no_content())
}

async fn list_endpoints(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("policy_id").to_string();
    let found = keystone
        .read(move |tx| {
            store::find::<Policy>(tx, &id)?;
            let meant =
                tx.list::<PolicyAssociation>(&List::all().filter(Filter::eq("policy_id", id.clone())))?;
            let (all, regions) = (tx.list::<Endpoint>(&List::all())?, tx.list::<Region>(&List::all())?);
            let covers = |endpoint: &Endpoint| meant.iter().any(|one| covers(one, endpoint, &regions));
            Ok(all.into_iter().filter(|endpoint| covers(endpoint)).collect::<Vec<_>>())
        })
        .await?;
    // Without the old `region` here, as upstream has it.
    let shown = found.iter().map(|endpoint| {
        let mut shown = endpoints::show_one(&request, endpoint);
        if let Some(shown) = shown.as_object_mut() {
            shown.remove("region");
        }
        shown
    });
    Ok(collection(&request, "endpoints", shown.collect()))
}

/// The endpoint's own policy, else the one of its service in its region or one around it, else its service's.
async fn show_for_endpoint(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("endpoint_id").to_string();
    let policy = keystone
        .read(move |tx| {
            let endpoint: Endpoint = store::find(tx, &id)?;
            let regions = tx.list::<Region>(&List::all())?;
            let mut places = vec![[endpoint.id.as_str(), "", ""]];
            let around = around(endpoint.region_id.as_deref(), &regions);
            places.extend(around.into_iter().map(|region| ["", endpoint.service_id.as_str(), region]));
            places.push(["", endpoint.service_id.as_str(), ""]);
            for place in places {
                let key = place.map(|part| db::Value::Text(part.to_string()));
                if let Some(found) = tx.get::<PolicyAssociation>(&key)? {
                    return store::find::<Policy>(tx, &found.policy_id);
                }
            }
            Err(Error::not_found(format!("No policy is associated with endpoint {id}.")))
        })
        .await?;
    // Upstream links to it as if it were an endpoint.
    Ok(Reply::ok(json!({"policy": show_one(&request, &policy, "endpoints")})))
}

fn association(request: &Request) -> PolicyAssociation {
    let word = |name: &str| request.param(name).to_string();
    PolicyAssociation {
        endpoint_id: word("endpoint_id"),
        service_id: word("service_id"),
        region_id: word("region_id"),
        policy_id: word("policy_id"),
    }
}

fn key(association: &PolicyAssociation) -> Vec<db::Value> {
    association.values().into_iter().take(3).collect()
}

fn check_parties(tx: &mut Tx, wanted: &PolicyAssociation) -> Result<()> {
    store::find::<Policy>(tx, &wanted.policy_id)?;
    if !wanted.endpoint_id.is_empty() {
        store::find::<Endpoint>(tx, &wanted.endpoint_id)?;
    }
    if !wanted.service_id.is_empty() {
        store::find::<Service>(tx, &wanted.service_id)?;
    }
    if !wanted.region_id.is_empty() {
        store::find::<Region>(tx, &wanted.region_id)?;
    }
    Ok(())
}

fn covers(association: &PolicyAssociation, endpoint: &Endpoint, regions: &[Region]) -> bool {
    if !association.endpoint_id.is_empty() {
        return association.endpoint_id == endpoint.id;
    }
    let here = association.region_id.is_empty()
        || around(endpoint.region_id.as_deref(), regions).contains(&association.region_id.as_str());
    association.service_id == endpoint.service_id && here
}

/// A region and those it lies in. Regions that lie in each other are walked once.
fn around<'a>(region: Option<&'a str>, regions: &'a [Region]) -> Vec<&'a str> {
    let (mut seen, mut order, mut next) = (HashSet::new(), Vec::new(), region);
    while let Some(id) = next.filter(|id| seen.insert(*id)) {
        order.push(id);
        next = regions
            .iter()
            .find(|region| region.id == id)
            .and_then(|region| region.parent_region_id.as_deref());
    }
    order
}

fn given(request: &Request, form: &schema::Schema) -> Result<Object> {
    let given = whole_body(request)?.get("policy").cloned().unwrap_or(json!({}));
    form.resource(&given)?;
    Ok(given.as_object().cloned().unwrap_or_default())
}

fn apply(policy: &mut Policy, given: &Object) {
    if let Some(blob) = text(given, "blob") {
        policy.blob = blob.to_string();
    }
    if let Some(kind) = text(given, "type") {
        policy.kind = kind.to_string();
    }
    merge(&mut policy.extra, extra(given, COLUMNS));
}

fn show_one(request: &Request, policy: &Policy, plural: &str) -> Json {
    let columns = json!({"id": policy.id, "blob": policy.blob, "type": policy.kind});
    view(request, plural, &policy.id, &policy.extra, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_walked_upwards_and_once() {
        let region = |id: &str, parent: &str| Region {
            id: id.into(),
            description: String::new(),
            parent_region_id: Some(parent.into()),
            extra: json!({}),
        };
        let regions = [region("rack", "hall"), region("hall", "town"), region("a", "b"), region("b", "a")];
        assert_eq!(around(Some("rack"), &regions), ["rack", "hall", "town"]);
        assert_eq!(around(Some("a"), &regions), ["a", "b"]);
        assert_eq!(around(None, &regions), [""; 0]);
    }
}
