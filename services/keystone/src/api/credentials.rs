//! Credentials: secrets of other kinds that users keep here, encrypted at rest.

use super::{Object, body, conflict, extra, text, view};
use crate::{Keystone, model::*, schemas, store};
use base::{Error, Json, Result, id};
use db::List;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, patch, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/credentials", "identity:list_credentials", list),
        post("/v3/credentials", "identity:create_credential", create),
        get("/v3/credentials/{credential_id}", "identity:get_credential", show),
        patch("/v3/credentials/{credential_id}", "identity:update_credential", update),
        delete("/v3/credentials/{credential_id}", "identity:delete_credential", remove),
    ]
}

const COLUMNS: &[&str] = &["id", "user_id", "project_id", "type", "blob", "links"];

/// Everybody may ask; each sees what it may see.
async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let mut wanted = List::all();
    for (name, column) in [("user_id", "user_id"), ("type", "kind")] {
        if let Some(value) = request.query.get(name) {
            wanted = wanted.eq(column, value);
        }
    }
    let found = keystone.read(move |tx| tx.list::<Credential>(&wanted)).await?;
    let rule = "identity:get_credential";
    let mine = found.into_iter().filter(|credential| request.may(rule, &target(&credential.user_id)));
    let shown = mine.map(|credential| show_one(&keystone, &request, &credential)).collect::<Result<_>>()?;
    Ok(super::collection(&request, "credentials", shown))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let given = body(&request, &schemas::CREDENTIAL_CREATE, "credential")?;
    let user_id = text(&given, "user_id").unwrap_or_default().to_string();
    request.can(&target(&user_id))?;
    let kind = text(&given, "type").unwrap_or_default().to_string();
    let plain = blob(&given)?;
    let credential = Credential {
        id: if kind == "ec2" { ec2_id(&plain)? } else { id::hex() },
        user_id,
        project_id: text(&given, "project_id").map(str::to_string),
        kind,
        blob: keystone.seal(&plain),
        extra: extra(&given, COLUMNS),
    };
    let row = credential.clone();
    keystone
        .write(move |tx| {
            tx.insert(&row).map_err(|error| match db::is_constraint(&error) {
                true => conflict("credential", &format!("Duplicate entry found with ID {}", row.id)),
                false => error,
            })
        })
        .await?;
    Ok(Reply::created(json!({"credential": show_one(&keystone, &request, &credential)?})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let credential = load(&keystone, &request).await?;
    Ok(Reply::ok(json!({"credential": show_one(&keystone, &request, &credential)?})))
}

async fn update(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let credential = load(&keystone, &request).await?;
    let given = body(&request, &schemas::CREDENTIAL_UPDATE, "credential")?;
    let sealed = keystone.seal(&blob(&given)?);
    let credential = keystone
        .write(move |tx| {
            let row: Credential = store::find(tx, &credential.id)?;
            let row = Credential { blob: sealed.clone(), ..row };
            tx.update(&row)?;
            Ok(row)
        })
        .await?;
    Ok(Reply::ok(json!({"credential": show_one(&keystone, &request, &credential)?})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let credential = load(&keystone, &request).await?;
    keystone.write(move |tx| tx.remove::<Credential>(&credential.id)).await?;
    Ok(Reply::no_content())
}

async fn load(keystone: &Keystone, request: &Request) -> Result<Credential> {
    let id = request.param("credential_id").to_string();
    match keystone.read(move |tx| store::find::<Credential>(tx, &id)).await {
        Ok(credential) => request.can(&target(&credential.user_id)).map(|()| credential),
        Err(error) => {
            request.can(&json!({"target": {"credential": {}}}))?;
            Err(error)
        }
    }
}

fn target(user_id: &str) -> Json {
    json!({"target": {"credential": {"user_id": user_id}}})
}

fn blob(given: &Object) -> Result<String> {
    Ok(match given.get("blob") {
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    })
}

/// An EC2 credential's id follows from its access key, so that a key names one credential.
pub fn ec2_id(blob: &str) -> Result<String> {
    let parsed: Json =
        serde_json::from_str(blob).map_err(|_| Error::bad_request("Invalid blob in credential"))?;
    match parsed.get("access").and_then(Json::as_str) {
        Some(access) => Ok(sha256_hex(access)),
        None => Err(Error::bad_request("Invalid blob in credential")),
    }
}

fn sha256_hex(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn show_one(keystone: &Keystone, request: &Request, credential: &Credential) -> Result<Json> {
    let columns = json!({
        "id": credential.id, "user_id": credential.user_id, "project_id": credential.project_id,
        "type": credential.kind, "blob": keystone.reveal(&credential.blob)?,
    });
    Ok(view(request, "credentials", &credential.id, &credential.extra, columns))
}
