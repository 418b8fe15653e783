//! EC2 key pairs of a user: credentials of kind `ec2` under their older address.

use super::credentials::ec2_id;
use crate::{Keystone, model::*, store};
use base::{Json, Result, id};
use db::List;
use serde_json::json;
use std::sync::Arc;
use web::{Reply, Request, Routes, delete, get, post};

pub fn routes() -> Routes<Keystone> {
    vec![
        get("/v3/users/{user_id}/credentials/OS-EC2", "identity:ec2_list_credentials", list),
        post("/v3/users/{user_id}/credentials/OS-EC2", "identity:ec2_create_credential", create),
        get("/v3/users/{user_id}/credentials/OS-EC2/{access}", "identity:ec2_get_credential", show),
        delete("/v3/users/{user_id}/credentials/OS-EC2/{access}", "identity:ec2_delete_credential", remove),
    ]
}

async fn list(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    request.can(&target(request.param("user_id")))?;
    let wanted = List::all().eq("user_id", request.param("user_id")).eq("kind", "ec2");
    let found = keystone.read(move |tx| tx.list::<Credential>(&wanted)).await?;
    let shown = found.iter().map(|one| show_one(&keystone, &request, one)).collect::<Result<_>>()?;
    Ok(super::collection(&request, "credentials", shown))
}

async fn create(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let user_id = request.param("user_id").to_string();
    request.can(&target(&user_id))?;
    let project_id = request.json().get("tenant_id").and_then(Json::as_str).unwrap_or("None").to_string();
    let (access, secret) = (id::hex(), id::hex());
    let blob = json!({"access": access, "secret": secret, "trust_id": null}).to_string();
    let credential = Credential {
        id: ec2_id(&blob)?,
        user_id,
        project_id: Some(project_id.clone()),
        kind: "ec2".into(),
        blob: keystone.seal(&blob),
        extra: json!({}),
    };
    let row = credential.clone();
    keystone
        .write(move |tx| {
            store::find::<User>(tx, &row.user_id)?;
            store::find::<Project>(tx, &project_id)?;
            tx.insert(&row)
        })
        .await?;
    Ok(Reply::created(json!({"credential": show_one(&keystone, &request, &credential)?})))
}

async fn show(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let credential = load(&keystone, &request).await?;
    Ok(Reply::ok(json!({"credential": show_one(&keystone, &request, &credential)?})))
}

async fn remove(keystone: Arc<Keystone>, request: Request) -> Result<Reply> {
    let credential = load(&keystone, &request).await?;
    keystone.write(move |tx| tx.remove::<Credential>(&credential.id)).await?;
    Ok(Reply::no_content())
}

/// The key pair that the path names, if the rule allows and it is that user's.
async fn load(keystone: &Keystone, request: &Request) -> Result<Credential> {
    let id = ec2_id(&json!({"access": request.param("access")}).to_string())?;
    let wanted = id.clone();
    let found = keystone.read(move |tx| tx.find::<Credential>(&wanted)).await?;
    let owner = found.as_ref().map_or(request.param("user_id"), |credential| &credential.user_id);
    request.can(&target(owner))?;
    let own = found.filter(|credential| credential.user_id == request.param("user_id"));
    own.ok_or_else(|| store::not_found("credential", &id))
}

fn target(user_id: &str) -> Json {
    json!({"user_id": user_id, "target": {"credential": {"user_id": user_id}}})
}

fn show_one(keystone: &Keystone, request: &Request, credential: &Credential) -> Result<Json> {
    let blob: Json = serde_json::from_str(&keystone.reveal(&credential.blob)?)?;
    let access = blob["access"].as_str().unwrap_or_default();
    let url = format!("{}/v3/users/{}/credentials/OS-EC2/{access}", request.base_url, credential.user_id);
    Ok(json!({
        "user_id": credential.user_id, "tenant_id": credential.project_id, "access": access,
        "secret": blob["secret"], "trust_id": blob["trust_id"], "links": {"self": url},
    }))
}
