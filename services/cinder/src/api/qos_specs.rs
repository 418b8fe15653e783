//! QoS specs: promises that a type makes. They are kept and told; the file driver has none to keep.

use super::{bare, body, lists, query_flag, text};
use crate::{Cinder, model::*, schemas};
use base::{Error, Json, Result, id};
use db::{AsJson, Filter, List, Resource, Tx};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

const ONE: &str = "/v3/qos-specs/{qos_id}";
const ALL: &str = "volume_extension:qos_specs_manage:get_all";
const UPDATE: &str = "volume_extension:qos_specs_manage:update";
const DELETE: &str = "volume_extension:qos_specs_manage:delete";

pub fn routes() -> Routes<Cinder> {
    vec![
        get("/v3/qos-specs", ALL, list),
        post("/v3/qos-specs", "volume_extension:qos_specs_manage:create", create),
        get(ONE, "volume_extension:qos_specs_manage:get", show),
        put(ONE, UPDATE, update),
        delete(ONE, DELETE, remove),
        put("/v3/qos-specs/{qos_id}/delete_keys", DELETE, delete_keys),
        get("/v3/qos-specs/{qos_id}/associations", ALL, associations),
        get("/v3/qos-specs/{qos_id}/associate", UPDATE, associate),
        get("/v3/qos-specs/{qos_id}/disassociate", UPDATE, disassociate),
        get("/v3/qos-specs/{qos_id}/disassociate_all", UPDATE, disassociate_all),
    ]
}

const CONSUMERS: &[&str] = &["front-end", "back-end", "both"];

fn find(tx: &mut Tx, id: &str) -> Result<QosSpecs> {
    tx.find::<QosSpecs>(id)?.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Error {
    Error::not_found(format!("No such QoS spec {id}."))
}

fn users(tx: &mut Tx, id: &str) -> Result<Vec<VolumeType>> {
    tx.list::<VolumeType>(&List::all())
        .map(|all| all.into_iter().filter(|kind| kind.qos_specs_id.as_deref() == Some(id)).collect())
}

async fn list(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let page = lists::page(&request, &cinder.options, QosSpecs::TABLE, &[])?;
    let mut filters = Vec::new();
    for (key, value) in lists::filters(&request) {
        filters.extend(lists::condition(QosSpecs::TABLE, &[], &key, &value));
    }
    let (found, _) = cinder
        .read(move |tx| lists::fetch::<QosSpecs>(tx, &page, &filters, None, |one| one.id.as_str(), not_found))
        .await?;
    Ok(Reply::ok(json!({"qos_specs": found.iter().map(view).collect::<Vec<_>>()})))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let mut given = body(&request, &schemas::QOS_CREATE, "qos_specs")?;
    let name = text(&given, "name").unwrap_or_default().trim().to_string();
    given.remove("name");
    let (consumer, specs) = split(&Json::Object(given))?;
    let qos = QosSpecs {
        id: id::uuid(),
        name,
        consumer: consumer.unwrap_or_else(|| "back-end".into()),
        specs: AsJson(specs),
        created_at: cinder.clock.now(),
        updated_at: None,
    };
    let row = qos.clone();
    cinder
        .write(move |tx| {
            if tx.count::<QosSpecs>(&[Filter::eq("name", &row.name)])? > 0 {
                return Err(Error::conflict(format!("QoS Specs {} already exists.", row.name)));
            }
            tx.insert(&row)
        })
        .await?;
    Ok(Reply::ok(with_links(&request, &qos)))
}

/// The consumer is one of the keys.
fn split(given: &Json) -> Result<(Option<String>, BTreeMap<String, String>)> {
    let mut consumer = None;
    let mut specs = BTreeMap::new();
    for (key, value) in given.as_object().into_iter().flatten() {
        let value = match value {
            Json::String(text) => text.clone(),
            Json::Null => String::new(),
            other => other.to_string(),
        };
        match key.as_str() {
            "consumer" if !CONSUMERS.contains(&value.as_str()) => {
                return Err(Error::bad_request(format!(
                    "Invalid qos specs: Valid consumer of QoS specs are: {CONSUMERS:?}"
                )));
            }
            "consumer" => consumer = Some(value),
            _ => drop(specs.insert(key.clone(), value)),
        }
    }
    Ok((consumer, specs))
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("qos_id").to_string();
    let qos = cinder.read(move |tx| find(tx, &id)).await?;
    Ok(Reply::ok(with_links(&request, &qos)))
}

async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let given = body(&request, &schemas::QOS_SET, "qos_specs")?;
    let (consumer, specs) = split(&Json::Object(given.clone()))?;
    change(&cinder, &request, move |qos| {
        qos.consumer = consumer.clone().unwrap_or_else(|| qos.consumer.clone());
        qos.specs.0.extend(specs.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({"qos_specs": given})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let force = query_flag(&request, "force")?;
    let id = request.param("qos_id").to_string();
    cinder
        .write(move |tx| {
            find(tx, &id)?;
            for mut kind in users(tx, &id)? {
                if !force {
                    return Err(Error::bad_request("Qos specs still in use."));
                }
                kind.qos_specs_id = None;
                tx.update(&kind)?;
            }
            tx.remove::<QosSpecs>(&id)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn delete_keys(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    schemas::QOS_UNSET.body(request.json())?;
    let keys: Vec<String> = request.json()["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| key.as_str().map(String::from))
        .collect();
    change(&cinder, &request, move |qos| {
        keys.iter().try_for_each(|key| match qos.specs.0.remove(key) {
            Some(_) => Ok(()),
            None => Err(Error::not_found(format!("QoS spec {} has no spec with key {key}.", qos.id))),
        })
    })
    .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn change(
    cinder: &Arc<Cinder>,
    request: &Request,
    change: impl Fn(&mut QosSpecs) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (id, now) = (request.param("qos_id").to_string(), cinder.clock.now());
    cinder
        .write(move |tx| {
            let mut qos = find(tx, &id)?;
            change(&mut qos)?;
            qos.updated_at = Some(now);
            tx.update(&qos).map(drop)
        })
        .await
}

async fn associations(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("qos_id").to_string();
    let kinds = cinder
        .read(move |tx| {
            find(tx, &id)?;
            users(tx, &id)
        })
        .await?;
    let view =
        |kind: &VolumeType| json!({"association_type": "volume_type", "name": kind.name, "id": kind.id});
    Ok(Reply::ok(json!({"qos_associations": kinds.iter().map(view).collect::<Vec<_>>()})))
}

async fn associate(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (id, type_id) = (request.param("qos_id").to_string(), type_id(&request)?);
    cinder
        .write(move |tx| {
            find(tx, &id)?;
            let mut kind = super::types::find(tx, &type_id)?;
            if kind.qos_specs_id.as_ref().is_some_and(|other| *other != id) {
                return Err(Error::bad_request(format!(
                    "Invalid volume type: Type {type_id} is already associated with another qos specs: {}",
                    kind.qos_specs_id.unwrap_or_default()
                )));
            }
            kind.qos_specs_id = Some(id.clone());
            tx.update(&kind).map(drop)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn disassociate(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let (id, type_id) = (request.param("qos_id").to_string(), type_id(&request)?);
    cinder
        .write(move |tx| {
            find(tx, &id)?;
            let mut kind = super::types::find(tx, &type_id)?;
            kind.qos_specs_id = None;
            tx.update(&kind).map(drop)
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

async fn disassociate_all(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("qos_id").to_string();
    cinder
        .write(move |tx| {
            find(tx, &id)?;
            for mut kind in users(tx, &id)? {
                kind.qos_specs_id = None;
                tx.update(&kind)?;
            }
            Ok(())
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

fn type_id(request: &Request) -> Result<String> {
    let given = request.query.get("vol_type_id").filter(|id| !id.is_empty()).map(String::from);
    given.ok_or_else(|| Error::bad_request("Volume Type id must not be None."))
}

fn view(qos: &QosSpecs) -> Json {
    json!({"id": qos.id, "name": qos.name, "consumer": qos.consumer, "specs": qos.specs.0})
}

fn with_links(request: &Request, qos: &QosSpecs) -> Json {
    json!({"qos_specs": view(qos), "links": super::links(request, "qos-specs", &qos.id)})
}
