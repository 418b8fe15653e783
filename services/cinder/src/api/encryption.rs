//! How a type's volumes are to be encrypted. No back end does it yet: it is written down, and volumes of such a type
//! find no back end.

use super::{bare, body, integer};
use crate::{Cinder, errors::type_not_found, model::*, schemas};
use base::{Error, Json, Result, id};
use db::{Filter, Tx};
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, StatusCode, delete, get, post, put};

const ALL: &str = "/v3/types/{type_id}/encryption";
const ONE: &str = "/v3/types/{type_id}/encryption/{key}";

pub fn routes() -> Routes<Cinder> {
    vec![
        get(ALL, "volume_extension:volume_type_encryption:get", show),
        post(ALL, "volume_extension:volume_type_encryption:create", create),
        get(ONE, "volume_extension:volume_type_encryption:get", show_key),
        put(ONE, "volume_extension:volume_type_encryption:update", update),
        delete(ONE, "volume_extension:volume_type_encryption:delete", remove),
        get(
            "/v3/volumes/{volume_id}/encryption",
            "volume_extension:volume_encryption_metadata",
            show_of_volume,
        ),
        get(
            "/v3/volumes/{volume_id}/encryption/{key}",
            "volume_extension:volume_encryption_metadata",
            show_key_of_volume,
        ),
    ]
}

async fn show(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(specs(&cinder, &request).await?))
}

async fn show_key(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let specs = specs(&cinder, &request).await?;
    let key = request.param("key");
    let value = specs.get(key).ok_or_else(|| not_encrypted(request.param("type_id")))?;
    Ok(Reply::ok(json!({key: value})))
}

/// Empty where nothing is encrypted.
async fn specs(cinder: &Arc<Cinder>, request: &Request) -> Result<Json> {
    request.can(&())?;
    let id = request.param("type_id").to_string();
    let found = cinder
        .read(move |tx| {
            known(tx, &id)?;
            tx.find::<Encryption>(&id)
        })
        .await?;
    Ok(found.map_or_else(|| json!({}), |encryption| view(&encryption)))
}

async fn create(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ENCRYPTION_CREATE, "encryption")?;
    request.can(&())?;
    let mut shown = Json::Object(given);
    normalize(&mut shown)?;
    let text = |key: &str| shown[key].as_str().map(String::from);
    let encryption = Encryption {
        volume_type_id: request.param("type_id").into(),
        encryption_id: id::uuid(),
        provider: text("provider").unwrap_or_default(),
        control_location: text("control_location").unwrap_or_default(),
        cipher: text("cipher"),
        key_size: shown["key_size"].as_i64(),
        created_at: cinder.clock.now(),
        updated_at: None,
    };
    let row = encryption.clone();
    cinder
        .write(move |tx| {
            refuse_in_use(tx, &row.volume_type_id, "create")?;
            known(tx, &row.volume_type_id)?;
            if tx.find::<Encryption>(&row.volume_type_id)?.is_some() {
                return Err(Error::bad_request(format!(
                    "Volume type encryption for type {} already exists.",
                    row.volume_type_id
                )));
            }
            tx.insert(&row)
        })
        .await?;
    shown["volume_type_id"] = encryption.volume_type_id.into();
    shown["encryption_id"] = encryption.encryption_id.into();
    Ok(Reply::ok(json!({"encryption": shown})))
}

/// Whatever the key in the path is: a type has one encryption.
async fn update(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::ENCRYPTION_UPDATE, "encryption")?;
    request.can(&())?;
    let mut shown = Json::Object(given);
    normalize(&mut shown)?;
    let (id, wanted, now) = (request.param("type_id").to_string(), shown.clone(), cinder.clock.now());
    cinder
        .write(move |tx| {
            known(tx, &id)?;
            refuse_in_use(tx, &id, "update")?;
            let mut encryption = tx.find::<Encryption>(&id)?.ok_or_else(|| not_encrypted(&id))?;
            let text = |key: &str| wanted[key].as_str().map(String::from);
            encryption.provider = text("provider").unwrap_or(encryption.provider);
            encryption.control_location = text("control_location").unwrap_or(encryption.control_location);
            if wanted.get("cipher").is_some() {
                encryption.cipher = text("cipher");
            }
            if wanted.get("key_size").is_some() {
                encryption.key_size = wanted["key_size"].as_i64();
            }
            encryption.updated_at = Some(now);
            tx.update(&encryption).map(drop)
        })
        .await?;
    Ok(Reply::ok(json!({"encryption": shown})))
}

async fn remove(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    request.can(&())?;
    let id = request.param("type_id").to_string();
    cinder
        .write(move |tx| {
            refuse_in_use(tx, &id, "delete")?;
            match tx.remove::<Encryption>(&id)? {
                true => Ok(()),
                false => Err(not_encrypted(&id)),
            }
        })
        .await?;
    Ok(bare(StatusCode::ACCEPTED))
}

/// No volume is encrypted; where upstream shows the cipher of one, it shows these of a plain one.
async fn show_of_volume(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    Ok(Reply::ok(of_volume(&cinder, &request).await?))
}

async fn show_key_of_volume(cinder: Arc<Cinder>, request: Request) -> Result<Reply> {
    let specs = of_volume(&cinder, &request).await?;
    let key = request.param("key");
    let value = specs.get(key).ok_or_else(|| Error::not_found("The resource could not be found."))?;
    match value {
        Json::Null => Ok(super::no_body(StatusCode::OK)),
        value => Ok(Reply::ok(value.clone())),
    }
}

async fn of_volume(cinder: &Arc<Cinder>, request: &Request) -> Result<Json> {
    let volume = super::volumes::load(cinder, request).await?;
    request.can(&super::of_project(&volume.project_id))?;
    Ok(json!({"encryption_key_id": null}))
}

/// A number that came as a text is a number from here on.
fn normalize(given: &mut Json) -> Result<()> {
    let Some(size) = given.get("key_size").filter(|size| !size.is_null()) else { return Ok(()) };
    let size = integer(size).filter(|size| *size >= 0);
    let refusal = || crate::errors::invalid_input("key_size must be an integer.");
    given["key_size"] = size.ok_or_else(refusal)?.into();
    Ok(())
}

fn known(tx: &mut Tx, type_id: &str) -> Result<()> {
    tx.find::<VolumeType>(type_id)?.map(drop).ok_or_else(|| type_not_found(type_id))
}

fn refuse_in_use(tx: &mut Tx, type_id: &str, verb: &str) -> Result<()> {
    match tx.count::<Volume>(&[Filter::eq("volume_type_id", type_id)])? {
        0 => Ok(()),
        _ => Err(Error::bad_request(format!("Cannot {verb} encryption specs. Volume type in use."))),
    }
}

fn not_encrypted(type_id: &str) -> Error {
    Error::not_found(format!("Volume type encryption for type {type_id} does not exist."))
}

fn view(encryption: &Encryption) -> Json {
    json!({
        "volume_type_id": encryption.volume_type_id,
        "encryption_id": encryption.encryption_id,
        "cipher": encryption.cipher,
        "key_size": encryption.key_size,
        "provider": encryption.provider,
        "control_location": encryption.control_location,
        "deleted": false,
        "deleted_at": null,
        "created_at": encryption.created_at.micros(),
        "updated_at": encryption.updated_at.map(|time| time.micros()),
    })
}
